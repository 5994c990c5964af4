"""Scripted experts: from what the simulator knows to joint targets that do the task.

A plan is a list of targets (6,) in radians, one per frame, from wherever the arm and things are:
what is in the hand already is not picked up again, a hand that is right above goes straight down.
"""

from collections.abc import Callable

import numpy as np

from zk0.sim.kinematics import TILTS, Arm, Grasp, Tolerance, Unreachable, up
from zk0.sim.tasks import (
    ABOVE,
    BESIDE,
    LOW,
    Environment,
    object_pose,
    rest_height,
    yaw,
)

__all__ = ["Unreachable", "plan"]

OPEN, CLOSED = 0.9, -0.1745  # gripper, radians
LIFT = 0.07  # metres
REACH, CAREFUL = 1.6, 1.2  # joint speeds, rad/s
_LEAST_DURATION = 0.2  # seconds
_PEAK_OVER_MEAN = 1.9  # of a minimum-jerk motion's speed, rounded up

_CONTACT = 0.022  # metres between an object's centre and the hand that pushes it
_ENOUGH = 0.005  # metres that are left, and not worth another push
_PATH = (0.0, 0.5, 1.0)  # of a shove: close enough for a nearly straight one
_LENIENT = Tolerance(0.004, np.radians(15))

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
    above_centre = object_pose(env)[:3] + up(0.018)
    above, contact = arm.grasp(above_centre, None, (0.06, 0.0), _LENIENT).joints
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


def _shove(env: Environment, arm: Arm, motion: Motion) -> None:
    """Down on the side that the object has to move away from, then straight on."""
    here, way = object_pose(env)[:2], env.way
    if env.due > _ENOUGH:
        begin, end = (np.append(here + far * way, LOW) for far in (-BESIDE, env.due - _CONTACT))
        path = [begin + up(ABOVE), *(begin + share * (end - begin) for share in _PATH)]
        above, there, *on = arm.follow(path, None, _LENIENT).joints
        _go_down(arm, motion, begin, above, there)
        for joints in on:
            motion.move(joints, speed=CAREFUL)
    motion.hold(0.4)


def _beside(env: Environment, arm: Arm, motion: Motion) -> None:
    _go_down(arm, motion, env.goal, *arm.grasp(env.goal, None, (ABOVE, 0.0), _LENIENT).joints)
    motion.hold(0.5)


def _go_down(
    arm: Arm, motion: Motion, position: np.ndarray, above: np.ndarray, there: np.ndarray
) -> None:
    """Have the closed hand at `position` (3,), through joint angles (5,) above it."""
    if not _over(arm, position):
        motion.move(above, CLOSED)
    motion.move(there, CLOSED, CAREFUL)


def _hover(env: Environment, arm: Arm, motion: Motion) -> None:
    _stay_above(arm, motion, object_pose(env)[:3])


def _point(env: Environment, arm: Arm, motion: Motion) -> None:
    _stay_above(arm, motion, env._get_target_pos())


def _stay_above(arm: Arm, motion: Motion, position: np.ndarray) -> None:
    motion.move(arm.grasp(position, None, (ABOVE,), _LENIENT).joints[0])
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


_EXPERTS: dict[str, Callable[[Environment, Arm, Motion], None]] = {
    "touch": _touch,
    "picklift": _pick_lift,
    "pickreturn": _pick_return,
    "push": _shove,
    "pull": _shove,
    "hover": _hover,
    "grasp": _grasp,
    "beside": _beside,
    "carry": _carry,
    "point": _point,
}
