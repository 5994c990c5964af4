"""`zk0.json`: the seal on a finished dataset, saying what it was made from."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from zk0.sim.recipes import GENERATION, Recipe

NAME = "zk0.json"
State = Literal["ready", "outdated", "missing"]

_RECORDED = ("zk0", "lerobot", "mujoco", "so101-nexus", "numpy", "av")


@dataclass(frozen=True)
class EpisodeRecord:
    task: str
    instruction: str
    seed: int
    frames: int


def state(folder: Path, recipe: Recipe) -> State:
    """Whether `folder` holds the recipe's dataset, whole. Costs a few file look-ups.

    Other library versions or another renderer do not make a dataset outdated; they are on record.
    """
    if not folder.exists():
        return "missing"
    content = read(folder)
    same = content.get("fingerprint") == recipe.fingerprint
    return "ready" if same and _is_whole(folder, content["files"]) else "outdated"


def read(folder: Path) -> dict[str, Any]:
    """The manifest's content; empty where it is missing or not one of ours."""
    try:
        content = json.loads((folder / NAME).read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) and isinstance(content.get("files"), dict) else {}


def seal(folder: Path, recipe: Recipe, episodes: Sequence[EpisodeRecord], renderer: str) -> None:
    """Write the manifest; nothing in `folder` may change after it."""
    content = {
        "fingerprint": recipe.fingerprint,
        "generation": GENERATION,
        "recipe": recipe.to_json(),
        "frames": sum(episode.frames for episode in episodes),
        "episodes": [asdict(episode) for episode in episodes],
        "renderer": renderer,
        "versions": {package: version(package) for package in _RECORDED},
        "files": _sizes(folder),
    }
    with (folder / NAME).open("w") as file:
        json.dump(content, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def _sizes(folder: Path) -> dict[str, int]:
    """Bytes of every file under `folder`, by relative path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def _is_whole(folder: Path, sizes: dict[str, int]) -> bool:
    try:
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except OSError:
        return False
