"""Clean SO-100 datasets: smooth joint motions, a leader that leads, drawn pictures."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from tests.so100.recording import Episode, Image, Recording, write

SO100_JOINTS = (
    "shoulder_pan.pos",
    "shoulder_lift.pos",
    "elbow_flex.pos",
    "wrist_flex.pos",
    "wrist_roll.pos",
    "gripper.pos",
)
OLD_JOINTS = (  # as recorded before lerobot 0.3
    "main_shoulder_pan",
    "main_shoulder_lift",
    "main_elbow_flex",
    "main_wrist_flex",
    "main_wrist_roll",
    "main_gripper",
)
FRONT, WRIST = "observation.images.front", "observation.images.wrist"
TOP = "observation.images.top"
LEAD = 2  # frames that the follower's state lies behind the leader's action

_LOW = np.array([-60.0, -100.0, 0.0, -80.0, -60.0, 0.0])  # degrees; the gripper in percent
_HIGH = np.array([60.0, 0.0, 90.0, 80.0, 60.0, 100.0])
_CALIBRATED = np.array([110.0, 100.0, 97.0, 95.0, 160.0, 100.0])  # what lerobot maps to 100
_WAYPOINT_S = 1.0  # seconds from one pose to the next: no joint is faster than an SO-100's motor
_STATE_NOISE, _ACTION_NOISE = 0.02, 0.1  # degrees
_TEXTURE_CELL = 4  # pixels at the smallest; fine noise would not outlive the video codec


@dataclass(frozen=True)
class Spec:
    """What to make. Two datasets of the same `Spec` are equal."""

    episodes: tuple[int, ...] = (40, 40, 40)  # frames of each
    fps: int = 30
    cameras: Mapping[str, tuple[int, int]] = field(  # (height, width), both even
        default_factory=lambda: {FRONT: (48, 64), WRIST: (48, 64)}
    )
    tasks: tuple[str, ...] = ("pick up the cube",)  # episode i has tasks[i % len(tasks)]
    joints: tuple[str, ...] = SO100_JOINTS  # six of each arm
    units: Literal["degrees", "radians", "normalised"] = "degrees"
    robot_type: str = "so101_follower"
    codec: str = "libsvtav1"  # or "h264"
    license: str | None = "apache-2.0"
    seed: int = 0


def make(folder: Path, spec: Spec | None = None) -> Path:
    """Write a clean LeRobotDataset v3 to `folder`, which must not exist; returns `folder`."""
    return write(record(spec or Spec()), folder)


def record(spec: Spec) -> Recording:
    """The episodes of `spec`; pictures are drawn when they are asked for."""
    return Recording(
        episodes=[_episode(spec, number) for number in range(len(spec.episodes))],
        fps=spec.fps,
        robot_type=spec.robot_type,
        joints=spec.joints,
        cameras=spec.cameras,
        codec=spec.codec,
        license=spec.license,
    )


def _episode(spec: Spec, number: int) -> Episode:
    random = np.random.default_rng([spec.seed, number])
    frames = spec.episodes[number]
    path = _path(random, frames + LEAD, spec.fps, len(spec.joints))
    states = path[:frames] + random.normal(0, _STATE_NOISE, (frames, len(spec.joints)))
    actions = path[LEAD:] + random.normal(0, _ACTION_NOISE, (frames, len(spec.joints)))
    images = {
        camera: partial(Scene.of(spec, index, number).draw, _shares(path))
        for index, camera in enumerate(spec.cameras)
    }
    task = spec.tasks[number % len(spec.tasks)]
    return Episode(_as_recorded(states, spec), _as_recorded(actions, spec), images, task)


def _path(random: Generator, frames: int, fps: int, joints: int) -> NDArray[np.float64]:
    """A smooth motion (frames, joints) in degrees through random poses, never at rest."""
    low, high = np.resize(_LOW, joints), np.resize(_HIGH, joints)
    seconds = np.arange(frames) / fps
    poses = random.uniform(low, high, (int(seconds[-1] / _WAYPOINT_S) + 3, joints))
    place = seconds / _WAYPOINT_S + random.uniform(0, 1)
    before = place.astype(int)
    share = (1 - np.cos(np.pi * (place - before)))[:, None] / 2
    return poses[before] * (1 - share) + poses[before + 1] * share


def _as_recorded(degrees: NDArray[np.float64], spec: Spec) -> NDArray[np.float32]:
    """In the units of `spec`: normalised is -100 to 100 over the range that was calibrated."""
    if spec.units == "radians":
        degrees = np.deg2rad(degrees)
    elif spec.units == "normalised":
        degrees = degrees / np.resize(_CALIBRATED, len(spec.joints)) * 100
    return degrees.astype(np.float32)


def _shares(path: NDArray[np.float64]) -> NDArray[np.float64]:
    """The motion with each joint's range as 0 to 1."""
    low, high = np.resize(_LOW, path.shape[1]), np.resize(_HIGH, path.shape[1])
    return (path - low) / (high - low)


@dataclass(frozen=True, eq=False)
class Scene:
    """What one camera sees of one episode: a lit background, drifting texture, a moving block."""

    background: Image  # (height, width, 3), 60 to 170
    texture: NDArray[np.uint8]  # (2 * height, 2 * width, 1), 0 to 40
    camera: int

    @classmethod
    def of(cls, spec: Spec, camera: int, episode: int) -> "Scene":
        """The place differs from camera to camera, its light from episode to episode."""
        height, width = list(spec.cameras.values())[camera]
        random = np.random.default_rng([spec.seed, 1, camera])
        light = np.random.default_rng([spec.seed, 2, episode]).uniform(0, 30)
        corners = random.uniform(60, 140, (2, 3))
        slope = np.linspace(0, 1, width if camera % 2 else height)[:, None]
        line = corners[0] * (1 - slope) + corners[1] * slope + light
        line = line[None] if camera % 2 else line[:, None]
        cell = max(_TEXTURE_CELL, height // 16)
        cells = random.integers(0, 41, (-(-2 * height // cell), -(-2 * width // cell)), np.uint8)
        texture = cells.repeat(cell, 0).repeat(cell, 1)[: 2 * height, : 2 * width, None]
        return cls(np.broadcast_to(line, (height, width, 3)).astype(np.uint8), texture, camera)

    def draw(self, shares: NDArray[np.float64], frame: int) -> Image:
        """The picture of `frame` where the joints stand at `shares` (frames, joints) of 0 to 1."""
        height, width, _ = self.background.shape
        down, right = (frame * (1 + self.camera)) % height, (frame * 2) % width
        picture = self.background + self.texture[down : down + height, right : right + width]
        pan, lift, grip = shares[frame, 0], shares[frame, 1], shares[frame, 5 % shares.shape[1]]
        size = int(height * (0.2 + 0.15 * grip))
        top, left = int((height - size) * lift), int((width - size) * pan)
        colour = np.roll([230, 90, 40], self.camera)
        picture[top : top + size, left : left + size] = colour
        return picture
