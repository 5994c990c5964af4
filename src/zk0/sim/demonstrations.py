"""Embedded datasets on demand: made once by worker processes, then found in milliseconds.

Nothing heavy is imported here, and the calling process never imports MuJoCo.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from zk0 import paths
from zk0.errors import Zk0Error
from zk0.sim import manifest, opengl, recipes
from zk0.sim.progress import progress
from zk0.sim.recipes import Recipe

_TYPICAL_FRAMES = {
    "touch": 26,
    "picklift": 42,
    "pickreturn": 59,
    "push": 30,
    "pull": 42,
}


@dataclass(frozen=True)
class Status:
    name: str
    state: manifest.State
    folder: Path


def describe(name: str | Recipe, home: Path | None = None) -> Status:
    """Whether a dataset is ready, outdated or missing, and where it is or would be."""
    (recipe,) = recipes.resolve([name])
    folder = _folder(recipe, home)
    return Status(recipe.name, manifest.state(folder, recipe), folder)


def prepare(
    names: Iterable[str | Recipe],
    home: Path | None = None,
    workers: int | None = None,
    report: Callable[[str], None] | None = None,
) -> dict[str, Path]:
    """Make what is missing or outdated of `names`; the folders of all of them, by name.

    `home` is `zk0.paths.home()` by default, `workers` as many processes as there are cores.
    Progress goes to `report`, a line at a time; by default bars on a terminal, else lines.
    May be called again, at the same time elsewhere, and after being killed. Raises Zk0Error.
    """
    wanted = recipes.resolve(names)
    due = [entry for entry in wanted if describe(entry, home).state != "ready"]
    if due:
        _require_simulator()
        _require_writable(_folder(due[0], home).parent)
        _make(due, home, workers or min(_cores(), len(due)), report)
    return {entry.name: _folder(entry, home) for entry in wanted}


def _make(
    due: list[Recipe], home: Path | None, workers: int, report: Callable[[str], None] | None
) -> None:
    from zk0.sim.workforce import Job, Workforce

    choice = opengl.probe()
    due = sorted(due, key=_expected_frames, reverse=True)  # the longest first evens out the end
    jobs = [Job(entry, _folder(entry, home), choice.renderer) for entry in due]
    with progress(report) as shown, Workforce(workers, choice.environment) as workforce:
        shown.note(choice.message)
        workforce.run(jobs, shown)


def _folder(recipe: Recipe, home: Path | None) -> Path:
    return (home or paths.home()) / "datasets" / recipe.name


def _expected_frames(recipe: Recipe) -> int:
    return sum(_TYPICAL_FRAMES[scene.task] * scene.episodes for scene in recipe.scenes)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _require_simulator() -> None:
    missing = [module for module in ("mujoco", "so101_nexus") if find_spec(module) is None]
    if missing:
        raise Zk0Error(
            f"embedded datasets need {' and '.join(missing)}, not installed: pip install 'zk0[sim]'"
        )


def _require_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".writable").touch()
        (folder / ".writable").unlink(missing_ok=True)
    except OSError as error:
        raise Zk0Error(
            f"cannot write to {folder} ({error.strerror}): "
            "set ZK0_HOME to a folder that you can write to"
        ) from error
