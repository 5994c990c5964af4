"""`./train-fl-simulation.sh` after set-up: one federated run on this machine, checked first.

The run itself is Flower's own `flwr run`; this adds what that command leaves out: a check of the
settings before anything is started, the choice of a connection, the data, and an exit status that
tells whether the run completed.
"""

import argparse
import difflib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TextIO

from zk0 import connections
from zk0.config import Datasets, check
from zk0.errors import Zk0Error
from zk0.record.run_folder import RunFolder

PROJECT = Path(__file__).resolve().parents[2]
# Not resolved: .venv/bin/python is a link, and the commands lie beside the link.
SCRIPTS = Path(sys.executable).parent
STAMP = Path(sys.prefix) / ".zk0-setup"

TINY = "num-server-rounds=2 local-steps=2"

# What Flower says in every run and a user of zk0 can do nothing with: its advice on how to size a
# federation contradicts the connections that set-up wrote. Everything else passes.
NOISE = re.compile(
    r"Warning: `options\.` fields in the SuperLink connection configuration are deprecated"
    r"|Since flwr 1\.32, default simulated SuperNodes changed"
    r"|To change federation size, use the following command:"
    r"|\tflwr federation simulation-config "
)
STARTED = re.compile(r"Successfully started run (\d+)")


class Interrupted(BaseException):
    """The user or the system asked this program to end."""

    def __init__(self, signal_number: int) -> None:
        self.exit_status = 128 + signal_number


@dataclass(frozen=True)
class Options:
    tiny: bool
    federation: str | None
    run_config: tuple[str, ...]

    @property
    def overrides(self) -> list[str]:
        """Settings for `flwr run --run-config`; of two for one key the last counts."""
        return [*([TINY] if self.tiny else []), *self.run_config]


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    try:
        with interruptible():
            return simulate(options)
    except Zk0Error as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except Interrupted as interruption:
        return interruption.exit_status


def parse(arguments: Sequence[str] | None) -> Options:
    parser = argparse.ArgumentParser(
        prog="train-fl-simulation.sh",
        description="Train over simulated clients on this machine.",
        allow_abbrev=False,
    )
    parser.add_argument("--tiny", action="store_true", help="2 rounds of 2 local steps")
    parser.add_argument(
        "--federation",
        metavar="NAME",
        help="a connection from Flower's config.toml (default: a GPU's where there is one, else "
        f"{connections.CPU})",
    )
    parser.add_argument(
        "--run-config",
        metavar='"KEY=VALUE ..."',
        action="append",
        default=[],
        help="settings of this run, as in `flwr run`; may be repeated",
    )
    parsed = parser.parse_args(arguments)
    if parsed.tiny and any(value.endswith(".toml") for value in parsed.run_config):
        parser.error("--tiny cannot be combined with a TOML file as --run-config")
    return Options(parsed.tiny, parsed.federation, tuple(parsed.run_config))


def simulate(options: Options) -> int:
    # Before anything here changes it: a SuperLink started below hands it on to every run.
    environment = flower_environment()
    config, datasets = check(PROJECT, options.overrides)
    connection = choose_connection(options.federation)
    connections.ensure_own_superlink(SCRIPTS, installed_at())
    prepare_data(datasets)
    return Run(connection, environment).follow(options.overrides, config.output_dir)


# --- before the run -------------------------------------------------------------------------------


def prepare_data(datasets: Datasets) -> None:
    """Make the simulated demonstrations that the run reads and that are not here yet."""
    sources = [dataset.parsed for dataset in (*datasets.clients, *datasets.server)]
    names = [source.name for source in sources if source.kind == "sim"]
    if names:
        from zk0.sim.demonstrations import prepare

        prepare(names)


def choose_connection(named: str | None) -> str:
    """The connection to run on. Raises Zk0Error for one that could not work on this machine."""
    if named is None:
        return default_connection()
    known = connections.read_connections()
    if named not in known:
        raise Zk0Error(unknown_connection(named, list(known)))
    if known[named].get("address") != connections.LOCAL:
        raise Zk0Error(
            f"connection '{named}' is no simulation on this machine; use: "
            f"flwr run {PROJECT} {named}"
        )
    if needs_gpu(known[named]) and not has_gpu():
        raise Zk0Error(
            f"connection '{named}' needs an NVIDIA GPU, and nvidia-smi finds none on this machine; "
            f"use --federation {connections.CPU}"
        )
    return named


def default_connection() -> str:
    if has_gpu():
        return connections.SERIALIZED_GPU
    print(f"No NVIDIA GPU found: running on the CPU ({connections.CPU}).", flush=True)
    return connections.CPU


def unknown_connection(named: str, known: list[str]) -> str:
    near = difflib.get_close_matches(named, known, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"it has {', '.join(sorted(known))}"
    return f"connection '{named}' is not in {connections.config_path()}; {hint}"


def needs_gpu(connection: dict[str, Any]) -> bool:
    value: Any = connection
    for key in ("options", "backend", "client-resources", "num-gpus"):
        value = value.get(key, 0) if isinstance(value, dict) else 0
    return bool(value > 0)


def has_gpu() -> bool:
    """Whether a CUDA program would find a GPU here; asked without the seconds that torch takes."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "all") in ("", "-1"):
        return False
    command = shutil.which("nvidia-smi")
    if command is None:
        return False
    try:
        found = subprocess.run(
            [command, "--list-gpus"], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return found.returncode == 0 and "GPU " in found.stdout


def installed_at() -> float:
    """When set-up last changed this environment's packages."""
    return STAMP.stat().st_mtime if STAMP.exists() else 0.0


# --- the run --------------------------------------------------------------------------------------


def flower_environment() -> dict[str, str]:
    return {
        **os.environ,
        # Flower starts its other programs by name; .venv may not have been activated.
        "PATH": f"{SCRIPTS}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        # Through a pipe Python would hold the log back until some kilobytes are full.
        "PYTHONUNBUFFERED": "1",
        # Versions are locked here, and without a network the check makes every command wait.
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        # Ray would fold clients' lines into one wherever they differ in numbers only.
        "RAY_DEDUP_LOGS": "0",
    }


class Run:
    """One run through Flower's command line, the part of Flower that is documented to stay.

    All that Flower says goes to `log`, where one is given, and else to the terminal.
    """

    def __init__(
        self,
        connection: str,
        environment: dict[str, str],
        app: Path = PROJECT,
        log: TextIO | None = None,
    ) -> None:
        self.connection = connection
        self.environment = environment
        self.app = app
        self.log = log
        self.run_id: str | None = None

    def heard(self) -> None:
        """Called after each line of the run's log; what it raises ends the run."""

    def follow(self, overrides: list[str], output_dir: str) -> int:
        """Start the run, show its log, and return the exit status that says how it ended."""
        stream = self.start(overrides)
        try:
            self.show(stream)
        except BaseException:
            self.stop(stream)
            raise
        if stream.wait() != 0 or self.run_id is None:
            where = self.log.name if self.log else "above"
            raise Zk0Error(f"`flwr run` failed with exit status {stream.returncode}: see {where}")
        status, details = self.status()
        folder = RunFolder.find(output_dir, int(self.run_id))
        if folder is not None:
            print(f"Outputs: {folder.path}", flush=True, file=self.log)
        if status != "finished:completed":
            raise Zk0Error(f"run {self.run_id} did not complete: {status} ({details})")
        return 0

    def start(self, overrides: list[str]) -> "subprocess.Popen[str]":
        command = [*self.flwr("run"), str(self.app), self.connection, "--stream"]
        for override in overrides:
            command += ["--run-config", override]
        # In a session of its own: Ctrl-C reaches this program only, which then ends the run.
        return subprocess.Popen(
            command,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            errors="replace",
            start_new_session=True,
        )

    def show(self, stream: "subprocess.Popen[str]") -> None:
        assert stream.stdout is not None
        for line in stream.stdout:
            if self.run_id is None and (started := STARTED.search(line)):
                self.run_id = started[1]
            if not NOISE.search(line):
                print(line, end="", flush=True, file=self.log)
            self.heard()

    def stop(self, stream: "subprocess.Popen[str]") -> None:
        """Stop the run itself: closing its log alone would leave it running."""
        for number in HANDLED:
            signal.signal(number, signal.SIG_IGN)
        stream.terminate()
        self.show(stream)  # The number of the run may be among the last lines.
        stream.wait()
        if self.run_id is not None:
            self.end()

    def end(self) -> None:
        """Tell Flower to stop the run; says on stderr what to do where that fails."""
        assert self.run_id is not None
        stopped = subprocess.run(
            [*self.flwr("stop"), self.run_id, self.connection],
            env=self.environment,
            stdout=self.log,
            stderr=self.log,
            check=False,
            start_new_session=True,
        )
        if stopped.returncode != 0:
            print(
                f"error: run {self.run_id} could not be stopped; try: "
                f"flwr stop {self.run_id} {self.connection}",
                file=sys.stderr,
            )

    def status(self) -> tuple[str, str]:
        """The run's status, as Flower records it, and its reason: the log alone tells neither."""
        command = [*self.flwr("ls"), self.connection, "--run-id", str(self.run_id)]
        listed = subprocess.run(
            [*command, "--format", "json"],
            env=self.environment,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        try:
            run = json.loads(listed.stdout)["runs"][0]
            return run["status"], run["status-details"]
        except (ValueError, LookupError):
            return "unknown", f"no answer from the SuperLink: see {superlink_log()}"

    def flwr(self, command: str) -> list[str]:
        return [str(SCRIPTS / "flwr"), command]


def superlink_log() -> Path:
    return connections.flower_home() / "local-superlink" / "superlink.log"


# --- signals --------------------------------------------------------------------------------------

HANDLED = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def interruptible() -> Iterator[None]:
    """Turn Ctrl-C and `kill` into Interrupted: also in the background, where Ctrl-C is off."""
    previous = {number: signal.signal(number, interrupt) for number in HANDLED}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise Interrupted(number)


if __name__ == "__main__":
    sys.exit(main())
