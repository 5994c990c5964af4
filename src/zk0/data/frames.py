"""A LeRobotDataset as arrays: every video frame decoded once, batches made by index.

Decoding is the slowest part of reading a LeRobotDataset frame by frame; here each camera's video is
decoded once, in order, into a memory-mapped file under `ZK0_HOME`, which all clients, rounds and
runs on the machine share.
"""

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import torch
from filelock import FileLock
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.datasets.video_utils import decode_video_frames
from loguru import logger
from numpy.typing import NDArray

from zk0.data.statistics import ACTION, STATE, Moments
from zk0.errors import Zk0Error
from zk0.paths import home

TOLERANCE_S = 1e-4  # between a frame's timestamp and its video frame; lerobot's own default
DECODE_FRAMES = 64  # decoded together: bounds the memory, not the speed


@dataclass(frozen=True, eq=False)
class Frames:
    """The frames of a dataset, or of some of its episodes, in recorded order.

    `states` (frames, state dim) and `actions` (frames, action dim) are float32 in the dataset's own
    units; `images` maps a camera's key to uint8 (frames, height, width, 3), memory-mapped;
    `episodes`, `ends` and `tasks` give each frame's episode, the index after that episode's last
    frame, and its instruction. `selection` holds the indices that belong to this view.
    """

    slug: str
    fingerprint: str
    states: NDArray[np.float32]
    actions: NDArray[np.float32]
    images: dict[str, NDArray[np.uint8]]
    episodes: NDArray[np.int64]
    ends: NDArray[np.int64]
    tasks: NDArray[np.object_]
    selection: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.selection)

    @property
    def episode_count(self) -> int:
        return len(np.unique(self.episodes[self.selection]))

    def split(self, held_out: int) -> tuple["Frames", "Frames"]:
        """All but the last `held_out` episodes, and those; whole episodes, never frames."""
        numbers = np.unique(self.episodes)
        if len(numbers) <= held_out:
            raise Zk0Error(
                f"{self.slug} has {len(numbers)} episodes: with eval-episodes = {held_out} none is "
                "left to train on. Lower eval-episodes or record more."
            )
        first = numbers[-held_out]
        return self._select(self.episodes < first), self._select(self.episodes >= first)

    def _select(self, chosen: NDArray[np.bool_]) -> "Frames":
        return replace(self, selection=np.flatnonzero(chosen))

    @cached_property
    def statistics(self) -> dict[str, Moments]:
        """Moments of state and action over this view."""
        return {
            STATE: Moments.of(self.states[self.selection]),
            ACTION: Moments.of(self.actions[self.selection]),
        }

    def batch(self, positions: NDArray[np.int64], chunk_size: int) -> dict[str, Any]:
        """Frames at `positions` of this view, as lerobot's DataLoader would collate them.

        Images are float32 (batch, 3, height, width) in [0, 1]; `action` is (batch, chunk, action
        dim), past an episode's end its last action repeated and `action_is_pad` true.
        """
        rows = self.selection[positions]
        ahead = rows[:, None] + np.arange(chunk_size)
        last = self.ends[rows, None] - 1
        batch: dict[str, Any] = {
            STATE: torch.from_numpy(self.states[rows]),
            ACTION: torch.from_numpy(self.actions[np.minimum(ahead, last)]),
            "action_is_pad": torch.from_numpy(ahead > last),
            "task": list(self.tasks[rows]),
        }
        for camera, images in self.images.items():
            pixels = torch.from_numpy(images[rows])
            batch[camera] = pixels.permute(0, 3, 1, 2).float() / 255
        return batch


def open_frames(root: Path, slug: str) -> Frames:
    """The LeRobotDataset in folder `root`; its videos are decoded on first use.

    Raises `Zk0Error` where the dataset is empty or damaged, naming file and episode.
    """
    metadata = open_metadata(root, slug)
    table = parquet.read_table(
        sorted((root / "data").rglob("*.parquet")),
        columns=[STATE, ACTION, "episode_index", "timestamp", "task_index"],
    )
    episodes = table["episode_index"].to_numpy()
    fingerprint = _fingerprint(root)
    names = np.array(metadata.tasks.sort_values("task_index").index, object)
    return Frames(
        slug=slug,
        fingerprint=fingerprint,
        states=_matrix(table[STATE]),
        actions=_matrix(table[ACTION]),
        images=_open_images(metadata, table["timestamp"].to_numpy(), episodes, fingerprint),
        episodes=episodes,
        ends=np.searchsorted(episodes, episodes, side="right"),
        tasks=names[table["task_index"].to_numpy()],
        selection=np.arange(len(episodes)),
    )


def open_metadata(root: Path, slug: str) -> LeRobotDatasetMetadata:
    """The dataset's metadata; raises `Zk0Error` where it is unreadable, empty or without videos."""
    try:
        metadata = LeRobotDatasetMetadata(f"local/{slug}", root=root)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Zk0Error(f"{slug}: {root} cannot be read as a LeRobotDataset: {error}") from error
    if not metadata.total_frames:
        raise Zk0Error(f"{slug}: the dataset in {root} has no frames. Record episodes first.")
    if not metadata.video_keys:
        raise Zk0Error(f"{slug}: the dataset in {root} has no videos; zk0 reads cameras from mp4.")
    return metadata


def _matrix(column: Any) -> NDArray[np.float32]:
    return np.stack(column.to_numpy()).astype(np.float32)


def _fingerprint(root: Path) -> str:
    """SHA-256 over the names and contents of all files of the dataset: meta, data and videos."""
    digest = hashlib.sha256()
    for part in ("meta", "data", "videos"):
        for path in sorted(path for path in (root / part).rglob("*") if path.is_file()):
            digest.update(str(path.relative_to(root)).encode())
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _open_images(
    metadata: LeRobotDatasetMetadata,
    timestamps: NDArray[np.float32],
    episodes: NDArray[np.int64],
    fingerprint: str,
) -> dict[str, NDArray[np.uint8]]:
    folder = home() / "frames" / fingerprint[:32]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            _decode_all(metadata, timestamps, episodes, folder)
    return {key: np.load(folder / f"{key}.npy", mmap_mode="r") for key in metadata.video_keys}


def _decode_all(
    metadata: LeRobotDatasetMetadata,
    timestamps: NDArray[np.float32],
    episodes: NDArray[np.int64],
    folder: Path,
) -> None:
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    logger.info("decoding {} frames of {}", len(episodes), metadata.repo_id.partition("/")[2])
    try:
        for camera in metadata.video_keys:
            height, width, _ = metadata.features[camera]["shape"]
            pixels = np.lib.format.open_memmap(
                partial / f"{camera}.npy", "w+", np.uint8, (len(episodes), height, width, 3)
            )
            for rows, decoded in _decode(metadata, camera, timestamps, episodes):
                pixels[rows] = decoded
            pixels.flush()
    except OSError as error:
        raise Zk0Error(
            f"{folder.parent} cannot hold the decoded frames: {error.strerror or error}. "
            "Free some space or set ZK0_HOME to a larger disk."
        ) from error
    partial.replace(folder)


def _decode(
    metadata: LeRobotDatasetMetadata,
    camera: str,
    timestamps: NDArray[np.float32],
    episodes: NDArray[np.int64],
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint8]]]:
    """Frame numbers and their pixels (frames, height, width, 3), in order, some at a time."""
    for episode in np.unique(episodes):
        entry = metadata.episodes[int(episode)]
        path = metadata.root / metadata.get_video_file_path(int(episode), camera)
        rows = np.flatnonzero(episodes == episode)
        for part in np.array_split(rows, -(-len(rows) // DECODE_FRAMES)):
            when = entry[f"videos/{camera}/from_timestamp"] + timestamps[part].astype(np.float64)
            try:
                pixels = decode_video_frames(path, when.tolist(), TOLERANCE_S, return_uint8=True)
            except (OSError, ValueError, RuntimeError, IndexError) as error:
                raise Zk0Error(
                    f"{path}: frame {part[0] - rows[0]} or a later one of episode {episode} cannot "
                    f"be decoded ({str(error).splitlines()[0]}). Re-record or remove the episode."
                ) from error
            yield part, pixels.permute(0, 2, 3, 1).numpy()
