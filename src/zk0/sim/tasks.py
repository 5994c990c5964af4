"""The tasks as so101-nexus environments, and where their objects are."""

import os
import shutil
import uuid
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import so101_nexus
from so101_nexus.config import (
    PickAndPlaceConfig,
    PickConfig,
    PickReturnConfig,
    TouchConfig,
)
from so101_nexus.constants import COLOR_MAP
from so101_nexus.mujoco.base_env import SO101NexusMuJoCoBaseEnv as Environment
from so101_nexus.mujoco.pick_and_place import PickAndPlaceEnv
from so101_nexus.mujoco.pick_env import PickLiftEnv
from so101_nexus.mujoco.pick_return import PickReturnEnv
from so101_nexus.mujoco.touch_env import TouchEnv
from so101_nexus.objects import CubeObject, SceneObject

from zk0 import paths
from zk0.sim.recipes import SHOULDER, Region, Scene

BASE = np.array(SHOULDER)


def environment(scene: Scene) -> Environment:
    """The environment of a scene, without cameras (the world has its own)."""
    use_writable_assets()
    COLOR_MAP.update(EXTRA_COLOURS)
    place = _spawn(scene.regions[0])
    cubes = [
        CubeObject(size, color=colour)
        for size, colour in zip(cycle(scene.variety.sizes), scene.colours, strict=False)
    ]
    colours, goals = list(scene.colours), list(scene.goal_colours)
    among = {"min_distractors": 0, "max_distractors": scene.variety.distractors}
    match scene.task:
        case "touch":
            return TouchEnv(TouchConfig(touch_margin=_TOUCHING, objects=cubes, **place))
        case "push":
            return PushEnv(PickConfig(objects=cubes, **place))
        case "pull":
            return PullEnv(PickConfig(objects=cubes, **place))
        case "hover":
            return HoverEnv(PickConfig(objects=cubes, **among, **place))
        case "grasp":
            return GraspEnv(PickConfig(objects=cubes, **among, **place))
        case "beside":
            return BesideEnv(PickConfig(objects=cubes, **among, **place))
        case "carry":
            return CarryEnv(PickAndPlaceConfig(cube_colors=colours, target_colors=goals, **place))
        case "point":
            return PointEnv(PickAndPlaceConfig(cube_colors=colours, target_colors=goals, **place))
        case "picklift":
            return PickLiftEnv(PickConfig(objects=cubes, **place))
        case "pickreturn":
            # The rest pose holds the cube about 4 cm up: below the default threshold of 5 cm.
            return PickReturnEnv(PickReturnConfig(objects=cubes, lift_threshold=0.03, **place))


EXTRA_COLOURS = {  # beside those that so101-nexus knows
    "cyan": [0.0, 0.8, 0.8, 1.0],
    "pink": [1.0, 0.5, 0.65, 1.0],
    "brown": [0.45, 0.25, 0.1, 1.0],
    "lime": [0.6, 0.9, 0.1, 1.0],
    "navy": [0.05, 0.1, 0.4, 1.0],
    "teal": [0.0, 0.4, 0.4, 1.0],
    "magenta": [0.9, 0.0, 0.7, 1.0],
    "silver": [0.75, 0.75, 0.8, 1.0],
    "gold": [0.85, 0.65, 0.1, 1.0],
    "maroon": [0.5, 0.0, 0.1, 1.0],
}
_TOUCHING = 0.01  # metres from the circle around an object; at 3 cm, random arms succeed
ABOVE = 0.07  # metres over the table that a hand hovers
LOW, BESIDE = 0.015, 0.045  # metres over it, and from an object's centre, of a hand beside
MOVED, SHOVE = 0.03, 0.06  # metres: what counts as pushed or pulled, and what experts do
_ASIDE, _FLAT = 0.03, 0.01  # metres that an object may go astray meanwhile, to the side and up


class HoverEnv(PickLiftEnv):
    """Hold the open hand above an object."""

    def _describe_target(self, target_obj: SceneObject) -> str:
        return f"Move above the {target_obj!r}."

    def _get_info(self) -> dict[str, Any]:
        info = super()._get_info()
        wanted = np.add(self._get_target_pose()[:3], (0.0, 0.0, ABOVE))
        info["success"] = _distance(self._get_tcp_pose()[:3], wanted) < 0.02
        return info


class GraspEnv(PickLiftEnv):
    """Close the hand on an object and leave it where it is."""

    def _describe_target(self, target_obj: SceneObject) -> str:
        return f"Close the gripper on the {target_obj!r}."

    def _get_info(self) -> dict[str, Any]:
        info = super()._get_info()
        info["success"] = info["is_grasped"] > 0.5
        return info


class BesideEnv(PickLiftEnv):
    """Put the closed hand down on the table, to the right of an object."""

    def _describe_target(self, target_obj: SceneObject) -> str:
        return f"Rest the gripper beside the {target_obj!r}."

    def _get_info(self) -> dict[str, Any]:
        info = super()._get_info()
        info["success"] = _distance(self._get_tcp_pose()[:3], self.goal) < 0.02
        return info

    @property
    def goal(self) -> np.ndarray:
        """(3,) where the hand has to be, metres."""
        here = self._get_target_pose()[:3]
        return np.append(here[:2] - BESIDE * leftwards(here), LOW)


class ShoveEnv(PickLiftEnv):
    """Shove an object along the table, by `MOVED` at least, one way and hardly another."""

    _begin: np.ndarray = np.zeros(3)

    @property
    def way(self) -> np.ndarray:
        """Unit direction (2,) on the table that the object has to move in."""
        raise NotImplementedError

    @property
    def due(self) -> float:
        """How far the object still has to go, metres; less than nothing behind the goal."""
        return SHOVE - self._along

    @property
    def _moved(self) -> np.ndarray:
        return self._get_target_pose()[:3] - self._begin

    @property
    def _along(self) -> float:
        return float(self._moved[:2] @ self.way)

    def _refresh_reset_reference_state(self) -> None:
        super()._refresh_reset_reference_state()
        self._begin = self._get_target_pose()[:3]

    def _get_info(self) -> dict[str, Any]:
        info = super()._get_info()
        del info["is_grasped"]
        moved, along = self._moved, self._along
        aside = float(np.linalg.norm(moved[:2] - along * self.way))
        info["is_moved"] = along > MOVED / 3
        info["success"] = bool(along > MOVED and aside < _ASIDE and abs(moved[2]) < _FLAT)
        return info

    def _compute_reward(self, info: dict[str, Any]) -> float:
        return 0.0  # nobody learns from it


class PushEnv(ShoveEnv):
    """Shove an object to the left, as the arm sees it."""

    def _describe_target(self, target_obj: SceneObject) -> str:
        return f"Push the {target_obj!r} to the left."

    @property
    def way(self) -> np.ndarray:
        return leftwards(self._begin)


class PullEnv(ShoveEnv):
    """Drag an object towards the arm."""

    def _describe_target(self, target_obj: SceneObject) -> str:
        return f"Pull the {target_obj!r} closer."

    @property
    def way(self) -> np.ndarray:
        return -outwards(self._begin)


class CarryEnv(PickAndPlaceEnv):
    """Hold an object in the air above a disc."""

    def _describe_target(self, obj: SceneObject, target_name: str) -> str:
        return f"Hold the {obj!r} above the {target_name} circle."

    def _get_info(self) -> dict[str, Any]:
        info = super()._get_info()
        cube, disc = self._get_object_pose()[:3], self._get_target_pos()
        over = _distance(cube[:2], disc[:2]) < 0.03 and cube[2] > 0.03
        info["success"] = bool(over and info["is_grasped"] > 0.5)
        return info


class PointEnv(PickAndPlaceEnv):
    """Hold the open hand above a disc, whatever else lies there."""

    def _describe_target(self, obj: SceneObject, target_name: str) -> str:
        return f"Move above the {target_name} circle."

    def _get_info(self) -> dict[str, Any]:
        info = super()._get_info()
        wanted = np.add(self._get_target_pos(), (0.0, 0.0, ABOVE))
        info["success"] = _distance(self._get_tcp_pose()[:3], wanted) < 0.02
        return info


def outwards(position: np.ndarray) -> np.ndarray:
    """Unit direction (2,) on the table from the arm's shoulder to `position`."""
    away = position[:2] - BASE
    return away / np.linalg.norm(away)


def leftwards(position: np.ndarray) -> np.ndarray:
    """Unit direction (2,) on the table, a quarter turn to the left of outwards."""
    x, y = outwards(position)
    return np.array([-y, x])


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.linalg.norm(one - other))


def move_to(env: Environment, region: Region) -> None:
    """Have the next resets place things in `region`."""
    for name, value in _spawn(region).items():
        setattr(env.config, name, value)


def _spawn(region: Region) -> dict[str, Any]:
    least, greatest = region.radius
    return {
        "spawn_center": region.centre,
        "spawn_min_radius": least,
        "spawn_max_radius": greatest,
        "spawn_angle_half_range_deg": region.half_angle,
        "terminate_on_success": False,
    }


def object_pose(env: Environment) -> np.ndarray:
    """(x, y, z, qw, qx, qy, qz) of the object to touch or to grasp, metres."""
    if isinstance(env, PickAndPlaceEnv):
        return env._get_object_pose()
    return env._get_target_pose()


def goal_position(env: Environment) -> np.ndarray | None:
    """(3,) of what objects go onto, metres; None where the task has no such thing."""
    return env._get_target_pos() if isinstance(env, PickAndPlaceEnv) else None


def rest_height(env: Environment) -> float:
    """Height of that object's centre as it lies on the table, metres."""
    return float(env._initial_obj_z)


def yaw(pose: np.ndarray) -> float:
    """Rotation about the vertical of a (7,) pose, radians."""
    w, x, y, z = pose[3:]
    return float(np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z)))


def use_writable_assets() -> None:
    """Make so101-nexus read its robot from a folder it can write to.

    It puts a temporary scene file beside the robot's meshes. Where the package's own folder is
    read-only (a container, a system-wide install) the meshes are copied to zk0's cache once.
    """
    source = so101_nexus.get_so101_mujoco_model_dir()
    if os.access(source, os.W_OK):
        return
    copy = paths.home() / "so101-assets" / so101_nexus.__version__
    if not copy.exists():
        _copy_atomically(source.parent, copy)
    so101_nexus.ASSETS_DIR = copy


def _copy_atomically(source: Path, target: Path) -> None:
    draft = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    shutil.copytree(source / "SO101_menagerie", draft / "SO101_menagerie")
    for folder in (draft, *draft.rglob("*")):
        if folder.is_dir():
            folder.chmod(0o755)
    try:
        draft.rename(target)
    except OSError:
        if not target.exists():  # otherwise another process was quicker, with the same files
            raise
        shutil.rmtree(draft)
