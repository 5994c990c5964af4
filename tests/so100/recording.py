"""Episodes in memory, written and read as a LeRobotDataset v3 with lerobot's own code."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from lerobot.configs.video import RGBEncoderConfig
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from numpy.typing import NDArray

Image = NDArray[np.uint8]  # (height, width, 3)
STATE, ACTION = "observation.state", "action"

_QUEUE = 10_000  # frames; lerobot drops frames when its encoder's queue is full, so it never is
_CARD = """---
{license}task_categories:
- robotics
tags:
- LeRobot
configs:
- config_name: default
  data_files: data/*/*.parquet
---

This dataset was created using [LeRobot](https://github.com/huggingface/lerobot).
"""


@dataclass(frozen=True, eq=False)
class Episode:
    """One demonstration.

    `states` and `actions` are float32 (frames, joints); `images[camera]` gives the picture of a
    frame by its number.
    """

    states: NDArray[np.float32]
    actions: NDArray[np.float32]
    images: Mapping[str, Callable[[int], Image]]
    task: str

    def __len__(self) -> int:
        return len(self.states)

    def pick(self, frames: NDArray[np.int64]) -> "Episode":
        """The episode that has these frames of this one, in this order; frames may repeat."""
        images = {camera: partial(_nth, image, frames) for camera, image in self.images.items()}
        return Episode(self.states[frames], self.actions[frames], images, self.task)


@dataclass(frozen=True, eq=False)
class Recording:
    """What a LeRobotDataset is written from. `cameras` are (height, width) by feature."""

    episodes: Sequence[Episode]
    fps: int
    robot_type: str
    joints: tuple[str, ...]
    cameras: Mapping[str, tuple[int, int]]
    codec: str
    license: str | None = "apache-2.0"


def write(recording: Recording, folder: Path) -> Path:
    """A LeRobotDataset v3 in `folder`, which must not exist; its README.md is a dataset card."""
    dataset = LeRobotDataset.create(
        repo_id=f"local/{folder.name}",
        root=folder,
        fps=recording.fps,
        features=_features(recording),
        robot_type=recording.robot_type,
        rgb_encoder=RGBEncoderConfig(vcodec=recording.codec),
        streaming_encoding=_streams(recording),
        encoder_queue_maxsize=_QUEUE,
        encoder_threads=1,
    )
    for episode in recording.episodes:
        _append(dataset, episode)
    dataset.finalize()
    (folder / "README.md").write_text(card(recording.license))
    return folder


def read(root: Path) -> Recording:
    """The episodes of the LeRobotDataset in `root`, as they are decoded."""
    dataset = LeRobotDataset("local/read", root=root, video_backend="pyav", return_uint8=True)
    meta = dataset.meta
    spans = zip(meta.episodes["dataset_from_index"], meta.episodes["dataset_to_index"], strict=True)
    cameras = meta.video_keys
    return Recording(
        episodes=[_decoded(dataset, first, end) for first, end in spans],
        fps=meta.fps,
        robot_type=meta.robot_type,
        joints=tuple(meta.features[ACTION]["names"]),
        cameras={camera: tuple(meta.features[camera]["shape"][:2]) for camera in cameras},
        codec=meta.features[cameras[0]]["info"]["video.codec"],
    )


def card(license_name: str | None) -> str:
    """README.md of a dataset on the Hub, with or without a license."""
    return _CARD.format(license=f"license: {license_name}\n" if license_name else "")


def _features(recording: Recording) -> dict[str, dict[str, Any]]:
    names = list(recording.joints)
    vector = {"dtype": "float32", "shape": (len(names),), "names": names}
    cameras = {
        camera: {"dtype": "video", "shape": (*size, 3), "names": ["height", "width", "channels"]}
        for camera, size in recording.cameras.items()
    }
    return {ACTION: dict(vector), STATE: dict(vector), **cameras}


def _streams(recording: Recording) -> bool:
    """Faster by far, but lerobot then makes no picture statistics of an episode of one frame."""
    return all(len(episode) > 1 for episode in recording.episodes)


def _append(dataset: LeRobotDataset, episode: Episode) -> None:
    for frame in range(len(episode)):
        images = {camera: image(frame) for camera, image in episode.images.items()}
        vectors = {ACTION: episode.actions[frame], STATE: episode.states[frame]}
        dataset.add_frame({**vectors, **images, "task": episode.task})
    dataset.save_episode(parallel_encoding=False)


def _decoded(dataset: LeRobotDataset, first: int, end: int) -> Episode:
    rows = [dataset[index] for index in range(first, end)]
    images = {
        camera: np.stack([row[camera].permute(1, 2, 0).numpy() for row in rows])
        for camera in dataset.meta.video_keys
    }
    return Episode(
        states=np.stack([row[STATE].numpy() for row in rows]),
        actions=np.stack([row[ACTION].numpy() for row in rows]),
        images={camera: stack.__getitem__ for camera, stack in images.items()},
        task=rows[0]["task"],
    )


def _nth(image: Callable[[int], Image], frames: NDArray[np.int64], number: int) -> Image:
    return image(int(frames[number]))
