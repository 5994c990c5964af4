"""One run through Flower's command line, the part of Flower that is documented to stay."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn, TextIO

from zk0 import connections
from zk0.errors import Zk0Error
from zk0.paths import PROJECT
from zk0.record.run_folder import RunFolder

# Not resolved: .venv/bin/python is a link, and the commands lie beside the link.
SCRIPTS = Path(sys.executable).parent

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
    """All that Flower says goes to `log`, where one is given, and else to the terminal."""

    def __init__(
        self,
        connection: str,
        environment: dict[str, str],
        app: Path = PROJECT,
        log: TextIO | None = None,
        clients: int | None = None,
    ) -> None:
        self.connection = connection
        self.environment = environment
        self.app = app
        self.log = log
        self.clients = clients  # of a run that is to be started, whatever the connection says
        self.run_id: str | None = None

    def follow(self, overrides: list[str], output_dir: str) -> None:
        """Start the run and show its log; raises `Zk0Error` where it does not complete."""
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

    def start(self, overrides: list[str]) -> "subprocess.Popen[str]":
        command = [*self.flwr("run"), str(self.app), self.connection, "--stream"]
        if self.clients is not None:
            command += ["--federation-config", f"num-supernodes={self.clients}"]
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
        """Hear the log to its end."""
        assert stream.stdout is not None
        for line in stream.stdout:
            self.hear(line)

    def hear(self, line: str) -> None:
        """Take up a line of the log; what this raises ends the run."""
        if self.run_id is None and (started := STARTED.search(line)):
            self.run_id = started[1]
        if not NOISE.search(line):
            self.say(line)

    def say(self, line: str) -> None:
        print(line, end="", flush=True, file=self.log)

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
