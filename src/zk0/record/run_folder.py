"""A run is a folder: files are replaced atomically, metrics are appended as they happen."""

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout

from zk0.errors import Zk0Error, cannot_write
from zk0.files import write_whole
from zk0.paths import PROJECT, from_project

CONFIG, EVENTS, ROUNDS = "config.json", "metrics.jsonl", "server/federated_metrics.json"
LIBRARIES = ("zk0", "flwr", "ray", "lerobot", "torch", "transformers", "numpy", "datasets", "av")


class RunFolder:
    """One run's folder; `metrics.jsonl` gets a line per event, everything else is written whole."""

    def __init__(self, path: Path, is_taken_up: bool = True) -> None:
        self.path = path
        self.is_taken_up = is_taken_up  # whether the record is this process's to add to

    @classmethod
    def create(cls, output_dir: str, now: datetime | None = None) -> Self:
        """Make a new folder named after the time; raises `Zk0Error` where it cannot be written."""
        root = from_project(output_dir)
        name = (now or datetime.now()).strftime("%Y-%m-%d_%H-%M-%S")
        try:
            root.mkdir(parents=True, exist_ok=True)
            path = _make_unique(root / name)
            for part in ("server", "clients", "models"):
                (path / part).mkdir()
        except OSError as error:
            raise Zk0Error(
                f"output-dir: {root} cannot be written ({error.strerror}). Name another with "
                "--run-config \"output-dir='...'\"."
            ) from error
        return cls(path)

    @classmethod
    def reopen(cls, output_dir: str, which: str) -> Self:
        """The folder `which`, or the newest one with a state where it is "last"; raises `Zk0Error`
        where there is none."""
        if which == "last":
            kept = sorted(from_project(output_dir).glob("*/state/round_*/state.json"))
            if not kept:
                raise Zk0Error(f'resume = "last": no run in {from_project(output_dir)} can go on.')
            return cls(kept[-1].parents[2], is_taken_up=False)
        path = from_project(output_dir) / which
        found = path if path.is_dir() else from_project(which)
        if not (found / "state").is_dir():
            raise Zk0Error(f'resume = "{which}" is no folder of a run that can go on.')
        return cls(found, is_taken_up=False)

    @classmethod
    def find(cls, output_dir: str, flower_run_id: int) -> Self | None:
        """The folder of the given Flower run, newest first; None where there is none."""
        for path in sorted(from_project(output_dir).glob(f"*/{CONFIG}"), reverse=True):
            with suppress(OSError, ValueError, KeyError):  # another run's, being written or removed
                if json.loads(path.read_text())["flower_run_id"] == str(flower_run_id):
                    return cls(path.parent)
        return None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes from running in this folder; raises `Zk0Error` where one does."""
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(blocking=False)
        except Timeout:
            raise Zk0Error(
                f"the run in {self.path} is still going on: wait for its end, or stop it."
            ) from None
        try:
            yield
        finally:
            lock.release()

    def describe(self, content: dict[str, Any], resumed_after: int | None) -> None:
        """Write config.json; a resumed run's keeps what it began with and tells when it went on."""
        if resumed_after is not None:
            before = self.read(CONFIG)
            resumed = {"after_round": resumed_after, "flower_run_id": content["flower_run_id"]}
            resumed["config"] = content["config"]
            self._drop_torn_line()
            self.append("resume", round=resumed_after)
            content = {
                **before,
                "flower_run_id": content["flower_run_id"],
                "resumed": [*before.get("resumed", []), resumed],
            }
        self.write(CONFIG, content)
        self.is_taken_up = True

    def _drop_torn_line(self) -> None:
        """A killed run may have been in the middle of its last line."""
        path = self.path / EVENTS
        content = path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(path, whole)

    def append(self, event: str, **values: Any) -> None:
        """Add one line to metrics.jsonl and hand it to the operating system at once."""
        now = datetime.now().astimezone().isoformat(timespec="milliseconds")
        line = json.dumps({"time": now, "event": event, **values}, allow_nan=False)
        path = self.path / EVENTS
        try:
            with path.open("a") as file:
                file.write(line + "\n")
        except OSError as error:
            raise cannot_write(path, error) from error

    def read(self, name: str) -> Any:
        """The content of the JSON file `name`; raises `Zk0Error` where it cannot be read."""
        try:
            return json.loads((self.path / name).read_text())
        except (OSError, ValueError) as error:
            raise Zk0Error(f"{self.path / name} cannot be read: {error}.") from error

    def write(self, name: str, content: Any) -> None:
        """Replace the JSON file `name` (a path within the folder) in one step."""
        path = self.path / name
        text = json.dumps(content, indent=2, allow_nan=False) + "\n"
        try:
            write_whole(path, text)
        except OSError as error:
            raise cannot_write(path, error) from error


def _make_unique(path: Path) -> Path:
    """Create `path`, or `path-2`, `path-3`, ... where runs start within the same second."""
    number = 1
    while True:
        candidate = path if number == 1 else path.with_name(f"{path.name}-{number}")
        try:
            candidate.mkdir()
        except FileExistsError:
            number += 1
        else:
            return candidate


def describe_software() -> dict[str, Any]:
    """Versions of the libraries that shape a result, and the project's git revision where known."""
    revision = None
    with suppress(OSError, subprocess.CalledProcessError):  # no git, or no repository
        revision = subprocess.run(
            ["git", "-C", str(PROJECT), "describe", "--always", "--dirty", "--abbrev=40"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    return {"versions": {name: version(name) for name in LIBRARIES}, "git_revision": revision}


def flatten(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Nested metrics as one level of `a/b` keys, numbers only: the form that trackers take."""
    flat: dict[str, float] = {}
    for key, value in metrics.items():
        if isinstance(value, Mapping):
            flat.update({f"{key}/{inner}": v for inner, v in flatten(value).items()})
        elif isinstance(value, int | float):
            flat[key] = value
    return flat
