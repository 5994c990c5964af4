"""A LeRobotDataset as arrays, its videos decoded in order and at most once.

Parts of it, fewer frames a second and other names for its cameras are views: no image is copied.

Decoding is the slowest part of reading a LeRobotDataset frame by frame. What is derived from the
images, or else the images, is kept in memory-mapped files under `ZK0_HOME`, which all clients,
rounds and runs on the machine share; where there is room for neither, videos are decoded again.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
from filelock import FileLock
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.datasets.video_utils import decode_video_frames
from loguru import logger
from numpy.typing import NDArray

from zk0.data.fingerprint import derived, fingerprint, hash_episode
from zk0.data.formats import missing_metadata, read_info
from zk0.data.joints import JOINTS, canonical, listed
from zk0.data.statistics import ACTION, STATE, Moments
from zk0.data.units import UnitName, ranges, recognise
from zk0.errors import Zk0Error, first_line
from zk0.files import reserve
from zk0.paths import home

TOLERANCE_S = 1e-4  # between a frame's timestamp and its video frame; lerobot's own default
DECODE_FRAMES = 64  # decoded together: bounds the memory, not the speed
UNDECODABLE = (OSError, ValueError, RuntimeError, IndexError)  # what decoders raise


@dataclass(frozen=True, eq=False)
class Videos:
    """The cameras of a LeRobotDataset: decoded in order, once, and kept only where asked for."""

    metadata: LeRobotDatasetMetadata
    timestamps: NDArray[np.float32]
    episodes: NDArray[np.int64]
    fps: int
    fingerprint: str
    cameras: Mapping[str, str]  # a name for each: at first the recorded one, then the policy's

    def decode(self, camera: str, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Pixels (frames, height, width, 3) of consecutive `rows`, straight from the video.

        Raises `Zk0Error` naming file, episode and frame where the video is damaged.
        """
        recorded, episodes = self.cameras[camera], self.episodes[rows]
        parts = [self._decode(recorded, rows[episodes == number]) for number in np.unique(episodes)]
        return np.concatenate(parts)

    def decode_any(self, camera: str, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """`decode` of `rows` in any order, also twice the same: each frame by itself, slowly."""
        wanted, places = np.unique(rows, return_inverse=True)
        return np.concatenate([self.decode(camera, row[None]) for row in wanted])[places]

    @cached_property
    def kept(self) -> dict[str, NDArray[np.uint8]]:
        """All frames by camera, (frames, height, width, 3), memory-mapped under `ZK0_HOME`.

        Raises `OSError` where there is no room for them; nothing of them is left then.
        """
        if not self.are_kept:
            folder = self._folder
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{folder}.lock"):
                for name, file in self._files.items():
                    if not file.is_file():
                        self._keep(name, file)
        return {name: np.load(file, mmap_mode="r") for name, file in self._files.items()}

    @property
    def are_kept(self) -> bool:
        return all(file.is_file() for file in self._files.values())

    @property
    def _folder(self) -> Path:
        return home() / "frames" / self.fingerprint[:32]

    @property
    def _files(self) -> dict[str, Path]:
        return {name: self._folder / f"{own}.npy" for name, own in self.cameras.items()}

    @property
    def kept_bytes(self) -> int:
        """What `kept` takes on disk."""
        return sum(int(np.prod(self._shape(camera))) for camera in self.cameras)

    def _shape(self, camera: str) -> tuple[int, ...]:
        return len(self.episodes), *self.metadata.features[self.cameras[camera]]["shape"]

    def _keep(self, camera: str, file: Path) -> None:
        partial, count = file.with_suffix(".partial"), len(self.episodes)
        logger.info("decoding {} frames of {}, {}", count, self.metadata.root.name, file.stem)
        try:
            pixels = np.lib.format.open_memmap(partial, "w+", np.uint8, self._shape(camera))
            reserve(partial, partial.stat().st_size)
            for rows in blocks(count):
                pixels[rows] = self.decode(camera, rows)
            pixels.flush()
            partial.replace(file)
        finally:
            partial.unlink(missing_ok=True)

    def _decode(self, camera: str, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """`rows` of one episode, from a recorded camera."""
        episode = int(self.episodes[rows[0]])
        start = self.metadata.episodes[episode][f"videos/{camera}/from_timestamp"]
        root, video = self.metadata.root, self.metadata.get_video_file_path(episode, camera)
        when = start + self.timestamps[rows].astype(np.float64)
        try:
            pixels = decode_video_frames(
                root / video, when.tolist(), TOLERANCE_S, return_uint8=True
            )
        except UNDECODABLE as error:
            if len(rows) > 1:  # one after the other, to tell which
                return np.concatenate([self._decode(camera, row[None]) for row in rows])
            frame = rows[0] - np.searchsorted(self.episodes, episode)
            raise Zk0Error(
                f"{root.name}/{video}: frame {frame} of episode {episode} cannot be decoded "
                f"({first_line(error)}). Re-record or remove the episode."
            ) from error
        return pixels.permute(0, 2, 3, 1).numpy()


def blocks(count: int, size: int = DECODE_FRAMES) -> Iterator[NDArray[np.int64]]:
    """0 ... count - 1 in order, `size` at a time."""
    for start in range(0, count, size):
        yield np.arange(start, min(start + size, count))


@dataclass(frozen=True)
class Recording:
    """How a dataset was recorded and is read; nothing that was recorded."""

    fps: int
    cameras: Mapping[str, str]  # the policy's name of each, and the recorded one
    units: UnitName
    commit: str = ""  # on the Hub

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


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
    part: tuple[int, int] | None = None  # i of n shares of the episodes
    commit: str = ""  # on the Hub

    def __len__(self) -> int:
        return len(self.selection)

    @property
    def fingerprint(self) -> str:
        """SHA-256 that tells apart datasets, their parts and what was taken of their frames."""
        return derived(self.videos.fingerprint, self.part) if self.part else self.videos.fingerprint

    @property
    def fps(self) -> int:
        return self.videos.fps

    @cached_property
    def recording(self) -> Recording:
        units = recognise(ranges(tuple(self.joints), self.states[self.selection]))
        return Recording(self.fps, self.videos.cameras, units.name, self.commit)

    @cached_property
    def hashes(self) -> list[str]:
        """`hash_episode` of each episode in this view."""
        rows = self.selection
        borders = [*np.unique(self.episodes[rows], return_index=True)[1], len(rows)]
        parts = (rows[start:end] for start, end in pairwise(borders))
        return [hash_episode(self.states[part], self.actions[part]) for part in parts]

    @property
    def joints(self) -> list[str]:
        """The action's dimensions by name; those of an SO-101 where none were recorded."""
        names = listed(self.videos.metadata.features[ACTION]["names"])
        return list(canonical(names or JOINTS))

    @property
    def episode_count(self) -> int:
        return len(np.unique(self.episodes[self.selection]))

    def split(self, held_out: int) -> tuple["Frames", "Frames"]:
        """All but the last `held_out` episodes, and those; whole episodes, never frames."""
        numbers = np.unique(self.episodes[self.selection])
        if len(numbers) <= held_out:
            raise Zk0Error(
                f"{self.slug} has {len(numbers)} episodes: with eval-episodes = {held_out} none is "
                "left to train on. Lower eval-episodes or record more."
            )
        is_held_out = np.isin(self.episodes[self.selection], numbers[-held_out:])
        return self.select(~is_held_out), self.select(is_held_out)

    def select(self, chosen: NDArray[np.bool_]) -> "Frames":
        """The view of those of this view's frames where `chosen` is true."""
        return replace(self, selection=self.selection[chosen])

    def take_part(self, index: int, count: int) -> "Frames":
        """The view of every `count`-th episode from episode `index` on.

        Raises `Zk0Error` where there is none.
        """
        numbers = np.unique(self.episodes)[index::count]
        if not len(numbers):
            raise Zk0Error(
                f"{self.slug}: there are fewer episodes than {count} parts. Take fewer parts."
            )
        chosen = np.isin(self.episodes, numbers)
        return replace(self, selection=np.flatnonzero(chosen), part=(index, count))

    def seen_as(self, cameras: Mapping[str, str]) -> "Frames":
        """The same with other names for the recorded cameras, name by name; others are left out."""
        return replace(self, videos=replace(self.videos, cameras=dict(cameras)))

    def resampled(self, fps: int) -> "Frames":
        """Of the whole dataset the frames nearest to `fps` a second, by their timestamps; all where
        that is what was recorded.

        Raises `Zk0Error` where it has fewer: frames that nobody recorded are not made up.
        """
        if fps > self.fps:
            raise Zk0Error(
                f"{self.slug} was recorded at {self.fps} frames a second: it cannot be taken at "
                f"{fps}. Take all datasets at {self.fps} or fewer."
            )
        if fps == self.fps:
            return self
        rows = _nearest(self.videos.timestamps, self.episodes, fps)
        episodes, timestamps = self.episodes[rows], self.videos.timestamps[rows]
        return replace(
            self,
            states=self.states[rows],
            actions=self.actions[rows],
            videos=replace(
                self.videos,
                timestamps=timestamps,
                episodes=episodes,
                fps=fps,
                fingerprint=derived(self.videos.fingerprint, fps),
            ),
            episodes=episodes,
            ends=np.searchsorted(episodes, episodes, side="right"),
            tasks=self.tasks[rows],
            selection=np.arange(len(rows)),
        )

    @cached_property
    def statistics(self) -> dict[str, Moments]:
        """Moments of state and action over this view."""
        return self.statistics_with({})

    def statistics_with(self, order: Mapping[str, Collection[str]]) -> dict[str, Moments]:
        """The same with the order statistics of these names by feature; quantiles take a
        millisecond an episode."""
        rows = self.selection
        columns = {STATE: self.states[rows], ACTION: self.actions[rows]}
        return {
            feature: Moments.of(values, self.episodes[rows], order.get(feature, ()))
            for feature, values in columns.items()
        }


def open_frames(root: Path, slug: str, commit: str = "") -> Frames:
    """The LeRobotDataset in folder `root`, of that commit where it is from the Hub.

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
        videos=Videos(
            metadata,
            table["timestamp"].to_numpy(),
            episodes,
            metadata.fps,
            fingerprint(root),
            {camera: camera for camera in metadata.video_keys},
        ),
        episodes=episodes,
        ends=np.searchsorted(episodes, episodes, side="right"),
        tasks=names[table["task_index"].to_numpy()],
        selection=np.arange(len(episodes)),
        commit=commit,
    )


def open_metadata(root: Path, slug: str) -> LeRobotDatasetMetadata:
    """The dataset's metadata; raises `Zk0Error` where it is unreadable, empty or without videos."""
    if not read_info(root, slug).frames:
        raise Zk0Error(f"{slug}: the dataset in {root} has no frames. Record episodes first.")
    if absent := missing_metadata(root, slug):  # which lerobot would ask the Hub for
        raise Zk0Error(f"{slug}: {root} is incomplete: no {absent[0]}. Get it anew.")
    try:
        metadata = LeRobotDatasetMetadata(f"local/{slug}", root=root)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Zk0Error(f"{slug}: {root} cannot be read as a LeRobotDataset: {error}") from error
    if not metadata.video_keys:
        raise Zk0Error(f"{slug}: the dataset in {root} has no videos; zk0 reads cameras from mp4.")
    return metadata


def _matrix(column: Any) -> NDArray[np.float32]:
    return np.stack(column.to_numpy()).astype(np.float32)


def _nearest(
    timestamps: NDArray[np.float32], episodes: NDArray[np.int64], fps: int
) -> NDArray[np.int64]:
    """The rows nearest to 0, 1 / fps, 2 / fps, ... seconds of each episode."""
    found = []
    for start, end in pairwise([*np.unique(episodes, return_index=True)[1], len(episodes)]):
        times = timestamps[start:end].astype(np.float64)
        wanted = np.arange(int(times[-1] * fps + 1e-3) + 1) / fps
        halfway = (times[1:] + times[:-1]) / 2
        found.append(start + np.unique(np.searchsorted(halfway, wanted)))
    return np.concatenate(found)
