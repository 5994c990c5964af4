"""The local SuperLink, on which a run on this machine goes on.

`:local:` means a SuperLink on a fixed port of this machine, which Flower starts with the first run
and leaves up. It keeps the environment that it was started from: one started from another checkout
would run that one's code, and one started before an update the old packages.
"""

import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import psutil

from zk0.connections import flower_home
from zk0.errors import Zk0Error

# Settings that a run takes from its SuperLink's environment.
INHERITED = ("ZK0_", "HF_", "HUGGINGFACE_", "WANDB_", "CUDA_", "MUJOCO_", "PYOPENGL_", "TORCH_")

# Seconds in which a SuperLink may not have started its executor yet.
STARTING_UP = 30.0


@dataclass(frozen=True)
class SuperLink:
    """A running local SuperLink of this user."""

    process: psutil.Process
    scripts: Path
    """The folder of the `flower-superlink` that it runs."""
    environment: dict[str, str]
    programs: frozenset[str]
    """The names of the Flower programs that it has running: its executor, and one for each run."""

    @property
    def age(self) -> float:
        """Seconds since it was started."""
        return time.time() - float(self.process.create_time())

    @property
    def busy(self) -> bool:
        return "flwr-simulation" in self.programs

    @property
    def home(self) -> Path:
        return Path(
            self.environment.get("FLWR_HOME") or Path(self.environment.get("HOME", "~")) / ".flwr"
        ).expanduser()


def port() -> int:
    return int(os.environ.get("FLWR_LOCAL_SUPERLINK_HTTP_API_PORT") or 39091)


def ensure_own(scripts: Path, installed_at: float) -> None:
    """Make sure that a run would reach a SuperLink of this environment, as it is now, or none.

    `scripts` is this environment's folder of commands, `installed_at` the time when its packages
    last changed (Unix time). An outdated SuperLink of this environment without a run in progress is
    ended; Flower starts the next one. Any other raises Zk0Error.
    """
    found = list(_local_superlinks())
    if not found and _answers(port()):
        raise Zk0Error(
            f"port {port()} of this machine is taken by a program that is not yours; choose "
            "another with FLWR_LOCAL_SUPERLINK_HTTP_API_PORT"
        )
    for superlink in found:
        _check(superlink, scripts, installed_at)


def _check(superlink: SuperLink, scripts: Path, installed_at: float) -> None:
    pid = superlink.process.pid
    if superlink.scripts.resolve() != scripts.resolve():
        raise Zk0Error(
            f"a local SuperLink from another environment ({superlink.scripts}) is running and "
            f"would run that one's code; stop it with: kill {pid}"
        )
    if superlink.home.absolute() != flower_home().absolute():
        raise Zk0Error(
            f"a local SuperLink with another FLWR_HOME ({superlink.home}) is running; stop it "
            f"with: kill {pid}"
        )
    reason = _outdated(superlink, installed_at)
    if reason is None:
        return
    if superlink.busy:
        raise Zk0Error(
            f"the local SuperLink (process {pid}) has a run in progress, and {reason}; wait for "
            f"the run to end, or stop both with: kill {pid}"
        )
    print(f"Restarting the local SuperLink: {reason}.")
    _end(superlink.process)


def _outdated(superlink: SuperLink, installed_at: float) -> str | None:
    if "flower-superexec" not in superlink.programs and superlink.age > STARTING_UP:
        return "its executor has died, and runs would wait for ever"
    if superlink.process.create_time() < installed_at:
        return "its packages have changed since it started"
    ours, its = _inherited(dict(os.environ)), _inherited(superlink.environment)
    changed = sorted(name for name in ours.keys() | its.keys() if ours.get(name) != its.get(name))
    return f"it started with another {', '.join(changed)}" if changed else None


def _inherited(environment: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(INHERITED)}


def _local_superlinks() -> Iterator[SuperLink]:
    """This user's SuperLinks on the local port. Other users' processes cannot be looked into."""
    for process in psutil.process_iter():
        try:
            superlink = _as_superlink(process)
        except psutil.Error:
            continue
        if superlink is not None:
            yield superlink


def _as_superlink(process: psutil.Process) -> SuperLink | None:
    command = process.cmdline()
    script = next(
        (Path(word) for word in command[:2] if Path(word).name == "flower-superlink"), None
    )
    if script is None or _option(command, "--port") != str(port()):
        return None
    return SuperLink(process, script.parent, process.environ(), frozenset(_programs_of(process)))


def _programs_of(process: psutil.Process) -> Iterator[str]:
    for child in process.children(recursive=True):
        try:
            yield from (Path(word).name for word in child.cmdline()[:2])
        except psutil.Error:
            continue  # It has ended, perhaps unnoticed by its parent: then it runs nothing.


def _option(command: list[str], name: str) -> str | None:
    return next((value for word, value in pairwise(command) if word == name), None)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _end(process: psutil.Process) -> None:
    process.terminate()
    deadline = time.monotonic() + 10
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > deadline:
            process.kill()
            return
        time.sleep(0.1)
