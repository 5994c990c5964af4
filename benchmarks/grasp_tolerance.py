"""How exactly a cube has to be found: the expert's success when it is told a wrong place.

    .venv/bin/python benchmarks/grasp_tolerance.py [--episodes 30]

Each line is a cube's size, each column how far off the told place (a standard deviation to either
side, in millimetres) or the told yaw is. No images are drawn, no policy takes part.
"""

import argparse
from dataclasses import replace

import mujoco
import numpy as np

from zk0.sim import experts
from zk0.sim.episodes import expert_steps
from zk0.sim.kinematics import Unreachable
from zk0.sim.recipes import Variety, recipe
from zk0.sim.tasks import object_pose
from zk0.sim.world import World

HALVES = (0.010, 0.0125, 0.015, 0.0175)  # of an edge, metres
OFF = ((0, 0), (5, 0), (10, 0), (15, 0), (0, 20), (0, 45))  # millimetres, degrees
FIRST_SEED = 5_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=30)
    episodes = parser.parse_args().episodes
    print("edge     " + "".join(f"{place:3d} mm {yaw:2d}°  " for place, yaw in OFF))
    for half in HALVES:
        cells = [f"{rate(half, place, yaw, episodes):9.0%}  " for place, yaw in OFF]
        print(f"{2000 * half:3.0f} mm   " + "".join(cells), flush=True)


def rate(half: float, millimetres: float, degrees: float, episodes: int) -> float:
    (scene,) = recipe("picklift").scenes
    scene = replace(scene, variety=Variety(sizes=(half,)))
    with World(scene) as world:
        lifted = [lifts(world, FIRST_SEED + n, millimetres, degrees) for n in range(episodes)]
    return float(np.mean(lifted))


def lifts(world: World, seed: int, millimetres: float, degrees: float) -> bool:
    """Whether the expert does, with a pose that is off in this episode from beginning to end."""
    draw = np.random.default_rng(seed)
    offset, angle = draw.normal(0, millimetres / 1000, 2), draw.normal(0, np.radians(degrees))
    turn = np.zeros(4)
    mujoco.mju_axisAngle2Quat(turn, np.array([0.0, 0.0, 1.0]), angle)

    def told(env: object) -> np.ndarray:
        pose = object_pose(env).copy()
        pose[:2] += offset
        mujoco.mju_mulQuat(pose[3:], turn, pose[3:].copy())
        return pose

    experts.object_pose = told
    try:
        for _ in expert_steps(world, seed):
            pass
    except Unreachable:
        return False
    return world.success


if __name__ == "__main__":
    main()
