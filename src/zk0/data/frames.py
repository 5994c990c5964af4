"""A LeRobotDataset as arrays, its videos decoded in order and at most once.

Decoding is the slowest part of reading a LeRobotDataset frame by frame. What is derived from the
images, or else the images, is kept in memory-mapped files under `ZK0_HOME`, which all clients,
rounds and runs on the machine share.
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
class Videos:
    """The cameras of a LeRobotDataset: decoded in order, once, and kept only where asked for."""

    metadata: LeRobotDatasetMetadata
    timestamps: NDArray[np.float32]
    episodes: NDArray[np.int64]
    fingerprint: str

    @property
    def cameras(self) -> list[str]:
        return list(self.metadata.video_keys)

    def decode(self, camera: str, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Pixels (frames, height, width, 3) of consecutive `rows`, straight from the video.

        Raises `Zk0Error` naming file, episode and frame where the video is damaged.
        """
        episodes = self.episodes[rows]
        parts = [self._decode(camera, rows[episodes == number]) for number in np.unique(episodes)]
        return np.concatenate(parts)

    @cached_property
    def kept(self) -> dict[str, NDArray[np.uint8]]:
        """All frames by camera, (frames, height, width, 3), memory-mapped under `ZK0_HOME`."""
        folder = home() / "frames" / self.fingerprint[:32]
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not folder.is_dir():
                self._keep(folder)
        return {key: np.load(folder / f"{key}.npy", mmap_mode="r") for key in self.cameras}

    def _keep(self, folder: Path) -> None:
        partial = folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        count = len(self.episodes)
        logger.info("decoding {} frames of {}", count, self.metadata.root.name)
        try:
            for camera in self.cameras:
                shape = (count, *self.metadata.features[camera]["shape"])
                name = partial / f"{camera}.npy"
                pixels = np.lib.format.open_memmap(name, "w+", np.uint8, shape)
                for rows in blocks(count):
                    pixels[rows] = self.decode(camera, rows)
                pixels.flush()
        except OSError as error:
            raise Zk0Error(
                f"{folder.parent} cannot hold the decoded frames: {error.strerror or error}. "
                "Free some space or set ZK0_HOME to a larger disk."
            ) from error
        partial.replace(folder)

    def _decode(self, camera: str, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """`rows` of one episode."""
        episode = int(self.episodes[rows[0]])
        start = self.metadata.episodes[episode][f"videos/{camera}/from_timestamp"]
        root, video = self.metadata.root, self.metadata.get_video_file_path(episode, camera)
        when = start + self.timestamps[rows].astype(np.float64)
        try:
            pixels = decode_video_frames(
                root / video, when.tolist(), TOLERANCE_S, return_uint8=True
            )
        except (OSError, ValueError, RuntimeError, IndexError) as error:
            frame = rows[0] - np.searchsorted(self.episodes, episode)
            raise Zk0Error(
                f"{root.name}/{video}: frame {frame} or a later one of episode {episode} cannot be "
                f"decoded ({str(error).splitlines()[0]}). Re-record or remove the episode."
            ) from error
        return pixels.permute(0, 2, 3, 1).numpy()


def blocks(count: int, size: int = DECODE_FRAMES) -> Iterator[NDArray[np.int64]]:
    """0 ... count - 1 in order, `size` at a time."""
    for start in range(0, count, size):
        yield np.arange(start, min(start + size, count))


@dataclass(frozen=True, eq=False)
class Frames:
    """The frames of a dataset, or of some of its episodes, in recorded order.

    `states` (frames, state dim) and `actions` (frames, action dim) are float32 in the dataset's own
    units; `episodes`, `ends` and `tasks` give each frame's episode, the index after that episode's
    last frame, and its instruction. `selection` holds the rows of these arrays that belong to this
    view.
    """

    slug: str
    states: NDArray[np.float32]
    actions: NDArray[np.float32]
    videos: Videos
    episodes: NDArray[np.int64]
    ends: NDArray[np.int64]
    tasks: NDArray[np.object_]
    selection: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.selection)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the whole dataset that this is a view of."""
        return self.videos.fingerprint

    @property
    def joints(self) -> list[str]:
        """The action's dimensions by name, as recorded but for the ending ".pos"."""
        names = self.videos.metadata.features[ACTION]["names"]
        names = names if isinstance(names, list) else next(iter(names.values()))
        return [str(name).removesuffix(".pos") for name in names]

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
        return self.select(self.episodes < first), self.select(self.episodes >= first)

    def select(self, chosen: NDArray[np.bool_]) -> "Frames":
        """The view of the frames where `chosen` (all frames of the dataset) is true."""
        return replace(self, selection=np.flatnonzero(chosen))

    @cached_property
    def statistics(self) -> dict[str, Moments]:
        """Moments of state and action over this view."""
        return {
            STATE: Moments.of(self.states[self.selection]),
            ACTION: Moments.of(self.actions[self.selection]),
        }


def open_frames(root: Path, slug: str) -> Frames:
    """The LeRobotDataset in folder `root`.

    Raises `Zk0Error` where the dataset is empty or cannot be read.
    """
    metadata = open_metadata(root, slug)
    table = parquet.read_table(
        sorted((root / "data").rglob("*.parquet")),
        columns=[STATE, ACTION, "episode_index", "timestamp", "task_index"],
    )
    episodes = table["episode_index"].to_numpy()
    names = np.array(metadata.tasks.sort_values("task_index").index, object)
    return Frames(
        slug=slug,
        states=_matrix(table[STATE]),
        actions=_matrix(table[ACTION]),
        videos=Videos(metadata, table["timestamp"].to_numpy(), episodes, _fingerprint(root)),
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
