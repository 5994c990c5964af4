"""Changes of a recording that defects are made of; the recording itself stays as it is."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tests.so100.recording import Episode, Image, Recording

Change = Callable[[Recording], Recording]
EpisodeChange = Callable[[Episode], Episode]


def in_episode(number: int, change: EpisodeChange) -> Change:
    """Change one episode and no other."""

    def changed(recording: Recording) -> Recording:
        episodes = list(recording.episodes)
        episodes[number] = change(episodes[number])
        return replace(recording, episodes=episodes)

    return changed


def ending_with(number: int) -> Change:
    """Episode `number` is there once more at the end."""

    def changed(recording: Recording) -> Recording:
        return replace(recording, episodes=[*recording.episodes, recording.episodes[number]])

    return changed


def with_robot(
    robot_type: str,
    joints: tuple[str, ...],
    values: Callable[[NDArray[np.float32]], NDArray[np.float32]],
) -> Change:
    """The same pictures with another robot, whose states and actions `values` makes."""

    def changed(recording: Recording) -> Recording:
        episodes = [
            replace(episode, states=values(episode.states), actions=values(episode.actions))
            for episode in recording.episodes
        ]
        return replace(recording, robot_type=robot_type, joints=joints, episodes=episodes)

    return changed


def doubling(first: int, count: int) -> EpisodeChange:
    """Each of `count` frames from `first` on comes twice."""

    def changed(episode: Episode) -> Episode:
        frames = np.arange(len(episode))
        twice = (frames >= first) & (frames < first + count)
        return episode.pick(np.repeat(frames, np.where(twice, 2, 1)))

    return changed


def without_last(count: int) -> EpisodeChange:
    """All but the last `count` frames."""
    return lambda episode: episode.pick(np.arange(len(episode) - count))


def filming(camera: str, film: Callable[[int, Image], Image]) -> EpisodeChange:
    """`camera` shows what `film` makes of a frame's number and the camera's first picture."""

    def changed(episode: Episode) -> Episode:
        first = episode.images[camera](0)
        images = {**episode.images, camera: lambda frame: film(frame, first)}
        return replace(episode, images=images)

    return changed


def darkness(frame: int, like: Image) -> Image:
    """A sensor's noise, 0 to 5 of 255, in the size of `like`; other noise for each frame."""
    return np.random.default_rng(frame).integers(0, 6, like.shape, np.uint8)
