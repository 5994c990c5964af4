"""What an evaluation found, frame by frame and rollout by rollout: what comparisons are made of.

In a run's folder, `evaluate/round_N/<who>/` holds `policy_loss.safetensors` and `rollouts.json`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from zk0.errors import Zk0Error, cannot_write
from zk0.files import write_whole

FRAMES, ROLLOUTS = "policy_loss.safetensors", "rollouts.json"
SERVER = "server"


@dataclass(frozen=True, eq=False)
class FrameLosses:
    """One dataset's evaluated frames, each with the policy loss of every action dimension.

    A frame's loss is the mean over its dimensions. `errors` are mean absolute errors of the
    predicted chunk against the recorded actions: degrees, percent for the gripper.
    """

    rows: NDArray[np.int64]  # (frames,) of the dataset
    episodes: NDArray[np.int64]  # (frames,)
    losses: NDArray[np.float32]  # (frames, action dim), in normalised action units
    errors: NDArray[np.float32] | None = None  # (frames, action dim); None where not measured


@dataclass(frozen=True)
class Rollout:
    """One episode that a policy played in the simulator."""

    task: str
    seed: int
    instruction: str
    success: bool  # held for 0.3 s
    frames: int  # until success, or the time that the task allows
    fps: int
    nearest: float  # metres: least distance of the gripper from the object
    grasped: bool | None  # at any moment; None where the task has no such stage
    lifted: bool | None
    moved: bool | None
    smoothness: float  # root mean square acceleration of the commanded joints, degrees / s^2

    @property
    def seconds(self) -> float:
        """Simulated time."""
        return self.frames / self.fps


def folder_of(run: Path, server_round: int, who: str = SERVER) -> Path:
    return run / "evaluate" / f"round_{server_round}" / who


def save_frames(folder: Path, datasets: Mapping[str, FrameLosses]) -> None:
    """Write `policy_loss.safetensors`, whole or not at all."""
    arrays = {}
    for slug, part in datasets.items():
        columns = {"rows": part.rows, "episodes": part.episodes, "losses": part.losses}
        if part.errors is not None:
            columns["errors"] = part.errors
        arrays.update({f"{slug}.{name}": np.ascontiguousarray(c) for name, c in columns.items()})
    _replace(folder / FRAMES, save(arrays))


def load_frames(folder: Path) -> dict[str, FrameLosses]:
    """By dataset; raises `Zk0Error` where the file is not there or damaged."""
    try:
        arrays = load_file(folder / FRAMES)
        slugs = sorted({name.rpartition(".")[0] for name in arrays})
        return {
            slug: FrameLosses(
                arrays[f"{slug}.rows"],
                arrays[f"{slug}.episodes"],
                arrays[f"{slug}.losses"],
                arrays.get(f"{slug}.errors"),
            )
            for slug in slugs
        }
    except (OSError, SafetensorError, KeyError) as error:
        raise Zk0Error(f"{folder / FRAMES} cannot be read: {error}.") from error


def save_rollouts(folder: Path, rollouts: Sequence[Rollout]) -> None:
    """Write `rollouts.json`, whole or not at all."""
    text = json.dumps([asdict(each) for each in rollouts], indent=1, allow_nan=False)
    _replace(folder / ROLLOUTS, text.encode())


def load_rollouts(folder: Path) -> list[Rollout]:
    """Empty where none were played; raises `Zk0Error` where the file is damaged."""
    path = folder / ROLLOUTS
    if not path.exists():
        return []
    try:
        return [Rollout(**each) for each in json.loads(path.read_text())]
    except (OSError, ValueError, TypeError) as error:
        raise Zk0Error(f"{path} cannot be read: {error}.") from error


def _replace(path: Path, content: bytes) -> None:
    try:
        write_whole(path, content)
    except OSError as error:
        raise cannot_write(path, error) from error
