"""Scripted experts: from what the simulator knows to joint targets that do the task.

A plan is a list of targets (6,) in radians, one per frame, made once from the state at reset.
"""

from collections.abc import Callable

import numpy as np

from zk0.sim.kinematics import TILTS, Arm, Grasp, Tolerance, Unreachable, up
from zk0.sim.tasks import Environment, object_pose, yaw

__all__ = ["Unreachable", "plan"]

OPEN, CLOSED = 0.9, -0.1745  # gripper, radians
REACH, CAREFUL, GENTLE = 1.6, 1.2, 1.0  # joint speeds, rad/s
_LEAST_DURATION = 0.2  # seconds
_PEAK_OVER_MEAN = 1.9  # of a minimum-jerk motion's speed, rounded up

Plan = list[np.ndarray]


def plan(env: Environment, arm: Arm, start: np.ndarray, task: str, fps: int) -> Plan:
    """Targets for the episode just reset, from the held target `start` (6,); or Unreachable."""
    motion = Motion(start, fps)
    _EXPERTS[task](env, arm, motion)
    return motion.targets


class Motion:
    """A growing sequence of targets: arm moves, finger moves and pauses."""

    def __init__(self, start: np.ndarray, fps: int) -> None:
        self.targets: Plan = []
        self._fps = fps
        self._now = start.copy()

    def move(self, joints: np.ndarray, gripper: float | None = None, speed: float = REACH) -> None:
        """Minimum-jerk to joint angles (5,); `gripper` moves along (None: stays)."""
        goal = np.append(joints, self._now[5] if gripper is None else gripper)
        travel = goal - self._now
        seconds = max(_LEAST_DURATION, _PEAK_OVER_MEAN * np.abs(travel).max() / speed)
        steps = self._frames(seconds)
        for s in np.arange(1, steps + 1) / steps:
            self.targets.append(self._now + travel * (10 * s**3 - 15 * s**4 + 6 * s**5))
        self._now = goal

    def squeeze(self, gripper: float, seconds: float) -> None:
        """Fingers to `gripper`, the last two frames holding so that they arrive."""
        steps = self._frames(seconds)
        goal = np.append(self._now[:5], gripper)
        for step in range(1, steps + 1):
            share = min(1.0, step / max(1, steps - 2))
            self.targets.append(self._now + (goal - self._now) * share)
        self._now = goal

    def hold(self, seconds: float) -> None:
        self.targets.extend(self._now.copy() for _ in range(self._frames(seconds)))

    def _frames(self, seconds: float) -> int:
        return max(1, int(np.ceil(seconds * self._fps - 1e-9)))


def _touch(env: Environment, arm: Arm, motion: Motion) -> None:
    above_centre = object_pose(env)[:3] + up(0.025)
    lenient = Tolerance(0.004, np.radians(15))
    above, contact = arm.grasp(above_centre, None, (0.06, 0.0), lenient).joints
    motion.move(above)
    motion.move(contact, speed=CAREFUL)
    motion.hold(0.3)


def _pick_lift(env: Environment, arm: Arm, motion: Motion) -> None:
    _pick(env, arm, motion)
    motion.hold(0.3)


def _pick_return(env: Environment, arm: Arm, motion: Motion) -> None:
    _pick(env, arm, motion)
    motion.move(np.array(env._return_qpos_rad), CLOSED)
    motion.hold(0.5)


def _pick_and_place(env: Environment, arm: Arm, motion: Motion) -> None:
    cube = object_pose(env)
    disc = env._get_target_pos()
    goal = np.append(disc[:2], cube[2] + 0.004)
    _put(arm, motion, _pick(env, arm, motion), goal, None)


def _stack_cube(env: Environment, arm: Arm, motion: Motion) -> None:
    base = env._get_cube_b_pose()
    height = 2 * env.cube_half_size + 0.003
    _put(arm, motion, _pick(env, arm, motion), base[:3] + up(height), yaw(base))


def _pick(env: Environment, arm: Arm, motion: Motion) -> Grasp:
    """Grasp the object and lift it 7 cm."""
    cube = object_pose(env)
    grasp = arm.grasp(cube[:3], yaw(cube), (0.07, 0.0))
    above, around = grasp.joints
    motion.move(above, OPEN)
    motion.move(around, OPEN, CAREFUL)
    motion.hold(0.1)
    motion.squeeze(CLOSED, 0.6)
    motion.move(above, CLOSED, CAREFUL)
    return grasp


def _put(arm: Arm, motion: Motion, grasp: Grasp, goal: np.ndarray, goal_yaw: float | None) -> None:
    """Carry what is held to `goal` (3,), let go and withdraw; the tilt of the grasp comes first."""
    tilts = (grasp.tilt, *(tilt for tilt in TILTS if tilt != grasp.tilt))
    above, at = arm.grasp(goal, goal_yaw, (0.06, 0.0), tilts=tilts).joints
    motion.move(above, CLOSED)
    motion.move(at, CLOSED, GENTLE)
    motion.hold(0.3)
    motion.squeeze(OPEN, 0.5)
    motion.hold(0.1)
    motion.move(above, OPEN, CAREFUL)
    motion.hold(0.6)


_EXPERTS: dict[str, Callable[[Environment, Arm, Motion], None]] = {
    "touch": _touch,
    "picklift": _pick_lift,
    "pickreturn": _pick_return,
    "pickandplace": _pick_and_place,
    "stackcube": _stack_cube,
}
