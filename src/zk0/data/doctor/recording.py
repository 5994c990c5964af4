"""A dataset as it lies on the disk, not yet believed: its metadata, and its frames' columns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zk0.data.doctor.findings import Finding, Severity
from zk0.data.joints import JOINTS, canonical, listed
from zk0.data.statistics import STATE
from zk0.data.units import Range, ranges


@dataclass(frozen=True)
class Clip:
    """An episode's part of a video file, from `start` to `end` seconds."""

    file: PurePosixPath
    start: float
    end: float


@dataclass(frozen=True)
class Span:
    """One episode as the metadata describes it: frames `start` to `end` - 1 of the dataset."""

    episode: int
    length: int
    start: int
    end: int
    data: PurePosixPath
    clips: Mapping[str, Clip]  # by camera


@dataclass(frozen=True)
class Stretch:
    """Consecutive rows, `start` to `stop` - 1, with the same episode_index."""

    episode: int
    start: int
    stop: int

    @property
    def rows(self) -> slice:
        return slice(self.start, self.stop)

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, eq=False)
class Columns:
    """The columns of all frames, in the files' order.

    `states` and `actions` are (frames, joints), in the dataset's own units.
    """

    states: NDArray[np.float32]
    actions: NDArray[np.float32]
    timestamps: NDArray[np.float64]
    indices: NDArray[np.int64]
    frame_indices: NDArray[np.int64]
    episode_indices: NDArray[np.int64]
    task_indices: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.indices)


@dataclass(frozen=True, eq=False)
class Recording:
    """A LeRobotDataset v3: what its metadata says, and what its rows hold."""

    root: Path
    slug: str
    fps: float
    robot_type: str | None
    features: Mapping[str, Mapping[str, Any]]
    totals: Mapping[str, int]  # of info.json: total_episodes, total_frames, total_tasks
    spans: Sequence[Span]
    tasks: Mapping[int, str]
    statistics: Mapping[str, Any] | None
    columns: Columns

    def finding(
        self,
        code: str,
        severity: Severity,
        message: str,
        fix: str,
        episodes: Sequence[int] = (),
    ) -> Finding:
        """A finding on this dataset."""
        return Finding(code, severity, self.slug, message, fix, tuple(sorted(set(episodes))))

    @property
    def cameras(self) -> list[str]:
        """The keys of the videos; depth maps are none."""
        return [key for key, each in self.features.items() if is_camera(each)]

    def joints_of(self, feature: str) -> tuple[str, ...]:
        """The dimensions of state or action by canonical name.

        Six without names are taken for those of an SO-100; others are "joint 0" and so on.
        """
        width = self.values(feature).shape[1]
        names = canonical(listed(self.features[feature].get("names")) or ())
        if len(names) == width:
            return names
        return JOINTS if width == len(JOINTS) else tuple(f"joint {n}" for n in range(width))

    def values(self, feature: str) -> NDArray[np.float32]:
        return self.columns.states if feature == STATE else self.columns.actions

    def ranges(self, feature: str) -> dict[str, Range]:
        """Each joint's range over the whole dataset."""
        return ranges(self.joints_of(feature), self.values(feature))

    @cached_property
    def stretches(self) -> list[Stretch]:
        """The episodes as the rows have them; a number comes twice where its rows lie apart."""
        numbers = self.columns.episode_indices
        starts = np.flatnonzero(np.diff(numbers, prepend=numbers[:1] - 1))
        stops = np.append(starts[1:], len(numbers))
        return [
            Stretch(int(numbers[start]), int(start), int(stop))
            for start, stop in zip(starts, stops, strict=True)
        ]

    @cached_property
    def lengths(self) -> dict[int, int]:
        """Each episode's number of rows."""
        numbers, counts = np.unique(self.columns.episode_indices, return_counts=True)
        return dict(zip(numbers.tolist(), counts.tolist(), strict=True))

    @cached_property
    def strides(self) -> NDArray[np.float64]:
        """(frames, 2 * joints): how state and action changed since the row before; 0 at starts."""
        both = np.hstack([self.columns.states, self.columns.actions]).astype(np.float64)
        strides = np.diff(both, axis=0, prepend=both[:1])
        strides[[stretch.start for stretch in self.stretches]] = 0.0
        return strides


def is_camera(feature: Mapping[str, Any]) -> bool:
    """Whether a feature of info.json is a video in colours."""
    info = feature.get("info") or feature.get("video_info") or {}
    depth = info.get("is_depth_map") or info.get("video.is_depth_map")
    return feature.get("dtype") == "video" and not depth
