"""The five tasks as so101-nexus environments, and where their objects are."""

import os
import shutil
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import so101_nexus
from so101_nexus.config import (
    PickAndPlaceConfig,
    PickConfig,
    PickReturnConfig,
    StackCubeConfig,
    TouchConfig,
)
from so101_nexus.mujoco.base_env import SO101NexusMuJoCoBaseEnv as Environment
from so101_nexus.mujoco.pick_and_place import PickAndPlaceEnv
from so101_nexus.mujoco.pick_env import PickLiftEnv
from so101_nexus.mujoco.pick_return import PickReturnEnv
from so101_nexus.mujoco.stack_cube import StackCubeEnv
from so101_nexus.mujoco.touch_env import TouchEnv
from so101_nexus.objects import CubeObject

from zk0 import paths
from zk0.sim.recipes import Region, Scene


def environment(scene: Scene) -> Environment:
    """The environment of a scene, without cameras (the world has its own)."""
    use_writable_assets()
    place = _spawn(scene.region)
    cubes = [CubeObject(color=colour) for colour in scene.colours]
    colours, goals = list(scene.colours), list(scene.goal_colours)
    match scene.task:
        case "touch":
            return TouchEnv(TouchConfig(objects=cubes, **place))
        case "picklift":
            return PickLiftEnv(PickConfig(objects=cubes, **place))
        case "pickreturn":
            # The rest pose holds the cube about 4 cm up: below the default threshold of 5 cm.
            return PickReturnEnv(PickReturnConfig(objects=cubes, lift_threshold=0.03, **place))
        case "pickandplace":
            config = PickAndPlaceConfig(cube_colors=colours, target_colors=goals, **place)
            return PickAndPlaceEnv(config)
        case "stackcube":
            return StackCubeEnv(
                StackCubeConfig(cube_a_colors=colours, cube_b_colors=goals, **place)
            )


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
    if isinstance(env, StackCubeEnv):
        return env._get_cube_a_pose()
    if isinstance(env, PickAndPlaceEnv):
        return env._get_object_pose()
    return env._get_target_pose()


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
