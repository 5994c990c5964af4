"""Where runs lie."""

import difflib
import os
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from zk0.errors import Zk0Error
from zk0.paths import from_project
from zk0.record.run_folder import CONFIG, EVENTS

NAMED = re.compile(r"\d{4}-\d{2}-\d{2}_\d{2}-\d{2}-\d{2}(-\d+)?")
PARTS = {"server", "clients", "models"}  # which a run makes before anything else
DEPTH = 3  # outputs/results/RUN


def find_runs(root: Path) -> list[Path]:
    """All folders of runs below `root`, also broken ones, the newest first; raises `Zk0Error` where
    `root` cannot be read."""
    try:
        return sorted(_below(root, DEPTH), key=_when, reverse=True)
    except OSError as error:
        raise Zk0Error(f"{error.filename} cannot be read: {error.strerror}.") from None


def choose_run(output_dir: str, run: str | None) -> Path:
    """The folder `run`, or the one of that name below `output_dir`; without a name the one that was
    begun, or resumed, last. Raises `Zk0Error` where there is none."""
    root = from_project(output_dir)
    if run is not None:
        return _named(root, run)
    runs = find_runs(root) if root.is_dir() else []
    if not runs:
        raise Zk0Error(f"there is no run below {root}: begin one, or name its --output-dir.")
    try:
        return max(runs, key=_taken_up)
    except OSError as error:
        raise Zk0Error(f"{error.filename} cannot be read: {error.strerror}.") from None


def _named(root: Path, run: str) -> Path:
    for path in (root / run, Path(run).expanduser()):
        if path.is_dir():
            if not _is_run(path):
                raise Zk0Error(f"{path} is no folder of a run: it has no {CONFIG}.")
            return path
    known = [str(path.relative_to(root)) for path in find_runs(root)] if root.is_dir() else []
    near = difflib.get_close_matches(run, known, n=1)
    hint = f"did you mean '{near[0]}'?" if near else "`zk0 runs` lists them all."
    raise Zk0Error(f"there is no run '{run}' below {root}: {hint}")


def _below(folder: Path, depth: int) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.is_symlink() or not path.is_dir():
            continue
        if _is_run(path):
            yield path
        elif depth > 1:
            yield from _below(path, depth - 1)


def _is_run(path: Path) -> bool:
    """Also where it cannot be looked into: whoever reads it then finds out why."""
    if NAMED.fullmatch(path.name):
        return True
    try:
        inside = set(os.listdir(path))
    except PermissionError:
        return True
    return EVENTS in inside or {CONFIG, "server"} <= inside or inside >= PARTS


def _when(path: Path) -> tuple[float, int, str]:
    """By the time that a run is named after; by the folder's own where it has another name."""
    if found := NAMED.fullmatch(path.name):
        began = datetime.strptime(path.name[:19], "%Y-%m-%d_%H-%M-%S")
        return began.timestamp(), int((found[1] or "-1")[1:]), path.name
    return path.stat().st_mtime, 0, path.name


def _taken_up(path: Path) -> float:
    """A run writes its config.json when it begins, and again when it goes on."""
    config = path / CONFIG
    return os.path.getmtime(config if os.path.exists(config) else path)
