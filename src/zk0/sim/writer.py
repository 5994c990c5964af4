"""Demonstrations of a recipe as a LeRobotDataset v3: parquet, AV1 video, and zk0's manifest."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lerobot.configs.video import RGBEncoderConfig
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from zk0.data.joints import JOINTS
from zk0.sim import manifest
from zk0.sim.episodes import Episode, demonstrations
from zk0.sim.manifest import EpisodeRecord
from zk0.sim.recipes import Recipe, Scene
from zk0.sim.rendering import CAMERAS, RendererName, available
from zk0.sim.world import World

_QUEUE = 10_000  # frames; lerobot drops frames when its encoder's queue is full, so it never is


def write(
    recipe: Recipe,
    folder: Path,
    rendering: RendererName | None = None,
    on_episode: Callable[[EpisodeRecord], None] | None = None,
) -> None:
    """Make the recipe's dataset in `folder`, which must not exist, in this process.

    `rendering` defaults to what this process can use. Raises Zk0Error where the expert mostly
    fails, and whatever writing raises; `folder` is then left as it is, without a manifest.
    """
    rendering = rendering or available()
    dataset = _create(recipe, folder)
    records = []
    for scene, episode in _episodes(recipe, rendering):
        _append(dataset, episode)
        record = EpisodeRecord(scene.task, episode.instruction, episode.seed, len(episode.frames))
        records.append(record)
        if on_episode is not None:
            on_episode(record)
    dataset.finalize()
    manifest.seal(folder, recipe, records, rendering)


def _episodes(recipe: Recipe, rendering: RendererName) -> Iterator[tuple[Scene, Episode]]:
    """Every scene's episodes in turn, all scenes counting seeds from the recipe's onwards."""
    seed = recipe.seed
    for scene in recipe.scenes:
        with World(scene, recipe.fps, recipe.image_size, rendering) as world:
            for episode in demonstrations(world, scene.episodes, seed):
                seed = episode.seed + 1
                yield scene, episode


def _create(recipe: Recipe, folder: Path) -> LeRobotDataset:
    return LeRobotDataset.create(
        repo_id=f"zk0/{recipe.name}",
        root=folder,
        fps=recipe.fps,
        features=_features(recipe.image_size),
        robot_type="so101_follower",
        rgb_encoder=RGBEncoderConfig(),  # AV1, a key frame every second frame for random access
        streaming_encoding=True,
        encoder_queue_maxsize=_QUEUE,
        encoder_threads=1,
    )


def _features(image_size: int) -> dict[str, dict[str, Any]]:
    names = [f"{joint}.pos" for joint in JOINTS]
    vector = {"dtype": "float32", "shape": (len(names),), "names": names}
    video = {
        "dtype": "video",
        "shape": (image_size, image_size, 3),
        "names": ["height", "width", "channels"],
    }
    cameras = {f"observation.images.{camera}": dict(video) for camera in CAMERAS}
    return {"action": dict(vector), "observation.state": dict(vector), **cameras}


def _append(dataset: LeRobotDataset, episode: Episode) -> None:
    for frame in episode.frames:
        images = frame.observation.images
        dataset.add_frame(
            {
                "action": frame.action,
                "observation.state": frame.observation.state,
                **{f"observation.images.{camera}": images[camera] for camera in CAMERAS},
                "task": episode.instruction,
            }
        )
    dataset.save_episode()
