"""`./train-fl-simulation.sh` after set-up: one federated run on this machine, checked first.

The run itself is Flower's own `flwr run`; this adds what that command leaves out: a check of the
settings before anything is started, the choice of a connection, the data, and an exit status that
tells whether the run completed.
"""

import argparse
import difflib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from zk0 import connections, superlink
from zk0.config import Datasets, check
from zk0.errors import Zk0Error
from zk0.flower import SCRIPTS, Interrupted, Run, flower_environment, interruptible
from zk0.live import LiveRun
from zk0.paths import PROJECT

STAMP = Path(sys.prefix) / ".zk0-setup"

TINY = "num-server-rounds=2 local-steps=2 rollout-frequency=0"


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
    superlink.ensure_own(SCRIPTS, installed_at())
    prepare_data(datasets)
    run = LiveRun if Console().is_interactive else Run
    started = run(connection, environment, clients=len(datasets.clients))
    started.follow(options.overrides, config.output_dir)
    return 0


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


if __name__ == "__main__":
    sys.exit(main())
