"""Scripted experts: from what the simulator knows to joint targets that do the task.

A plan is a list of targets (6,) in radians, one per frame, from wherever the arm and things are:
what is in the hand already is not picked up again, a hand that is right above goes straight down.
"""

from collections.abc import Callable

import numpy as np

from zk0.sim.kinematics import TILTS, Arm, Grasp, Tolerance, Unreachable, up
from zk0.sim.tasks import ABOVE, Environment, object_pose, rest_height, yaw

__all__ = ["Unreachable", "plan"]

OPEN, CLOSED = 0.9, -0.1745  # gripper, radians
LIFT = 0.07  # metres
REACH, CAREFUL, GENTLE = 1.6, 1.2, 1.0  # joint speeds, rad/s
_LEAST_DURATION = 0.2  # seconds
_PEAK_OVER_MEAN = 1.9  # of a minimum-jerk motion's speed, rounded up

Plan = list[np.ndarray]


def plan(
    env: Environment, arm: Arm, start: np.ndarray, task: str, fps: int, pace: float = 1.0
) -> Plan:
    """Targets from the present state on, the arm's own target being `start` (6,); or Unreachable.

    `pace` multiplies the speeds of the arm.
    """
    motion = Motion(start, fps, pace)
    _EXPERTS[task](env, arm, motion)
    return motion.targets


class Motion:
    """A growing sequence of targets: arm moves, finger moves and pauses."""

    def __init__(self, start: np.ndarray, fps: int, pace: float = 1.0) -> None:
        self.targets: Plan = []
        self._fps = fps
        self._pace = pace  # times the usual speeds
        self._now = start.copy()

    @property
    def joints(self) -> np.ndarray:
        """Angles (5,) at its present end."""
        return self._now[:5].copy()

    @property
    def gripper(self) -> float:
        return float(self._now[5])

    def move(self, joints: np.ndarray, gripper: float | None = None, speed: float = REACH) -> None:
        """Minimum-jerk to joint angles (5,); `gripper` moves along (None: stays)."""
        goal = np.append(joints, self._now[5] if gripper is None else gripper)
        travel = goal - self._now
        seconds = max(
            _LEAST_DURATION, _PEAK_OVER_MEAN * np.abs(travel).max() / (speed * self._pace)
        )
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
    if not _over(arm, above_centre):
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
    disc = env._get_target_pos()
    grasp = _pick(env, arm, motion)
    goal = np.append(disc[:2], rest_height(env) + 0.004)
    _put(arm, motion, grasp, goal, None)


def _stack_cube(env: Environment, arm: Arm, motion: Motion) -> None:
    base = env._get_cube_b_pose()
    height = 2 * env.cube_half_size + 0.003
    _put(arm, motion, _pick(env, arm, motion), base[:3] + up(height), yaw(base))


def _hover(env: Environment, arm: Arm, motion: Motion) -> None:
    _stay_above(arm, motion, object_pose(env)[:3])


def _point(env: Environment, arm: Arm, motion: Motion) -> None:
    _stay_above(arm, motion, env._get_target_pos())


def _stay_above(arm: Arm, motion: Motion, position: np.ndarray) -> None:
    lenient = Tolerance(0.004, np.radians(15))
    motion.move(arm.grasp(position, None, (ABOVE,), lenient).joints[0])
    motion.hold(0.5)


def _grasp(env: Environment, arm: Arm, motion: Motion) -> None:
    if not _held(env):
        _close_on(env, arm, motion)
    motion.hold(0.3)


def _carry(env: Environment, arm: Arm, motion: Motion) -> None:
    grasp = _pick(env, arm, motion)
    over = np.append(env._get_target_pos()[:2], rest_height(env) + ABOVE)
    motion.move(arm.grasp(over, None, (0.0,), tilts=_tilts(grasp)).joints[0], CLOSED)
    motion.hold(0.5)


def _pick(env: Environment, arm: Arm, motion: Motion) -> Grasp:
    """Have the object in the hand, 7 cm above the table."""
    grasp = _hold_on(env, arm, motion) if _held(env) else _close_on(env, arm, motion)
    motion.move(grasp.joints[0], CLOSED, CAREFUL)
    return grasp


def _hold_on(env: Environment, arm: Arm, motion: Motion) -> Grasp:
    """The grasp that the object is in already: raised, and as it is."""
    tip, frame = arm.forward(motion.joints)
    raised = tip + up(max(0.0, rest_height(env) + LIFT - float(object_pose(env)[2])))
    above = arm.inverse(raised, frame, motion.joints, Tolerance(0.01, np.radians(20)))
    tilt = np.degrees(np.arccos(np.clip(-frame[2, 2], -1, 1)))
    return Grasp((above, motion.joints), min(TILTS, key=lambda each: abs(each - tilt)))


def _close_on(env: Environment, arm: Arm, motion: Motion) -> Grasp:
    cube = object_pose(env)
    grasp = arm.grasp(cube[:3], yaw(cube), (LIFT, 0.0))
    above, around = grasp.joints
    if not (_over(arm, cube[:3]) and motion.gripper > 0.8 * OPEN):
        motion.move(above, OPEN)
    motion.move(around, OPEN, CAREFUL)
    motion.hold(0.1)
    motion.squeeze(CLOSED, 0.6)
    return grasp


def _held(env: Environment) -> bool:
    return bool(env._is_grasping() > 0.5)


def _over(arm: Arm, position: np.ndarray) -> bool:
    """Whether the hand is right above `position` (3,), within a centimetre to the sides."""
    offset = arm.tip - position
    return bool(np.hypot(*offset[:2]) < 0.01 and 0.0 < offset[2] < LIFT)


def _tilts(grasp: Grasp) -> tuple[float, ...]:
    """The tilt of the grasp, then all others."""
    return (grasp.tilt, *(tilt for tilt in TILTS if tilt != grasp.tilt))


def _put(arm: Arm, motion: Motion, grasp: Grasp, goal: np.ndarray, goal_yaw: float | None) -> None:
    """Carry what is held to `goal` (3,), let go and withdraw."""
    above, at = arm.grasp(goal, goal_yaw, (0.06, 0.0), tilts=_tilts(grasp)).joints
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
    "hover": _hover,
    "grasp": _grasp,
    "carry": _carry,
    "point": _point,
}
