"""Where the gripper is for given joint angles, and joint angles for a wanted grasp."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import mujoco
import numpy as np
from so101_nexus.kinematics import ee_ik_delta_q

from zk0.sim.tasks import BASE, Environment

_ITERATIONS = 60
_DAMPING = 0.02
_ORIENTATION_WEIGHT = 0.15  # metres per radian: five joints cannot reach every orientation
_MAX_STEP = 0.3  # radians per iteration
_CONVERGED = 1e-4  # radians
_TILTED = np.radians(17)  # beyond this the hand counts as tilted
TILTS = (0.0, 15.0, 30.0, 45.0, 60.0)  # degrees from straight down


@dataclass(frozen=True)
class Tolerance:
    position: float = 0.002  # metres
    angle: float = np.radians(6.0)


class Unreachable(Exception):
    """No joint angles bring the gripper there within tolerance."""


@dataclass(frozen=True)
class Grasp:
    """Joint angles (5,) in radians at each height asked for, and the hand's tilt in degrees."""

    joints: tuple[np.ndarray, ...]
    tilt: float

    @property
    def cost(self) -> float:
        """Small for an untwisted wrist and a hand that comes from straight above."""
        return abs(float(self.joints[0][4])) + 1.5 * float(np.radians(self.tilt))


class Arm:
    """Kinematics of the five arm joints on a scratch copy of the state; physics is not touched."""

    def __init__(self, env: Environment) -> None:
        self._model, self._live = env.model, env.data
        self._scratch = mujoco.MjData(env.model)
        self._site = env._tcp_site_id
        self._positions, self._velocities = env._arm_qpos_addrs, env._arm_qvel_addrs
        self._low, self._high = env._target_low[:5], env._target_high[:5]
        self._jacobian = np.zeros((2, 3, env.model.nv))

    @property
    def tip(self) -> np.ndarray:
        """Where the point between the fingertips is now (3,), metres."""
        return self._live.site_xpos[self._site].copy()

    def forward(self, joints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Position (3,) in metres and rotation (3, 3) of the point between the fingertips."""
        data = self._scratch
        data.qpos[:] = self._live.qpos
        data.qpos[self._positions] = joints
        mujoco.mj_kinematics(self._model, data)
        mujoco.mj_comPos(self._model, data)  # the Jacobian reads it
        return data.site_xpos[self._site].copy(), data.site_xmat[self._site].reshape(3, 3).copy()

    def inverse(
        self, position: np.ndarray, rotation: np.ndarray, start: np.ndarray, tolerance: Tolerance
    ) -> np.ndarray:
        """Joint angles (5,) for a pose, by damped least squares from `start`; or Unreachable."""
        wanted, joints = _quaternion(rotation), start.copy()
        for _ in range(_ITERATIONS):
            step = self._step_towards(position, wanted, joints)
            joints = np.clip(joints + np.clip(step, -_MAX_STEP, _MAX_STEP), self._low, self._high)
            if np.abs(step).max() < _CONVERGED:
                break
        reached, frame = self.forward(joints)
        if np.linalg.norm(reached - position) > tolerance.position:
            raise Unreachable
        if _angle_between(frame, rotation) > tolerance.angle:
            raise Unreachable
        return joints

    def _step_towards(
        self, position: np.ndarray, quaternion: np.ndarray, joints: np.ndarray
    ) -> np.ndarray:
        reached, frame = self.forward(joints)
        mujoco.mj_jacSite(self._model, self._scratch, *self._jacobian, self._site)
        return ee_ik_delta_q(
            np.concatenate(self._jacobian[:, :, self._velocities]),
            reached,
            _quaternion(frame),
            position,
            quaternion,
            orientation_weight=_ORIENTATION_WEIGHT,
            damping=_DAMPING,
        )

    def grasp(
        self,
        position: np.ndarray,
        yaw: float | None,
        heights: Sequence[float],
        tolerance: Tolerance = Tolerance(),
        tilts: Sequence[float] = TILTS,
    ) -> Grasp:
        """The most comfortable grasp that reaches `position` (3,) raised by each of `heights`.

        `yaw` is the object's (its faces lie a quarter turn apart); None when any jaw direction will
        do. Steep hands are tried first; a tilt is only used where nothing steeper reaches.
        """
        raised = [position + up(height) for height in heights]
        return self.follow(raised, yaw, tolerance, tilts)

    def follow(
        self,
        positions: Sequence[np.ndarray],
        yaw: float | None,
        tolerance: Tolerance = Tolerance(),
        tilts: Sequence[float] = TILTS,
    ) -> Grasp:
        """As `grasp`, through any `positions` (3,), the hand turned as the last one needs it."""
        best: Grasp | None = None
        for tilt in tilts:
            for frame in _hand_frames(positions[-1], yaw, np.radians(tilt)):
                found = self._reach_along(positions, frame, tolerance)
                if found is not None:
                    candidate = Grasp(found, tilt)
                    best = candidate if best is None or candidate.cost < best.cost else best
            if best is not None and tilt > 0:
                break
        if best is None:
            raise Unreachable
        return best

    def _reach_along(
        self, positions: Sequence[np.ndarray], rotation: np.ndarray, tolerance: Tolerance
    ) -> tuple[np.ndarray, ...] | None:
        joints = np.array([-_bearing(positions[0]), -0.2, 0.3, 1.2, 0.0])
        found = []
        for position in positions:
            try:
                joints = self.inverse(position, rotation, joints, tolerance)
            except Unreachable:
                return None
            found.append(joints)
        return tuple(found)


def _hand_frames(position: np.ndarray, yaw: float | None, tilt: float) -> Iterator[np.ndarray]:
    """Rotations (3, 3) of a hand reaching outwards; columns: jaw axis, third axis, approach."""
    outwards = _horizontal(_bearing(position))
    approach = np.sin(tilt) * outwards - np.cos(tilt) * np.array([0.0, 0.0, 1.0])
    for axis in _jaw_axes(position, yaw):
        # A tilted hand needs its jaw axis near-horizontal, hence across the reaching direction.
        if yaw is not None and tilt > _TILTED and abs(axis @ outwards) > 0.75:
            continue
        jaw = axis - (axis @ approach) * approach
        jaw /= np.linalg.norm(jaw)
        yield np.stack([jaw, np.cross(approach, jaw), approach], axis=1)


def _jaw_axes(position: np.ndarray, yaw: float | None) -> list[np.ndarray]:
    if yaw is None:
        across = _horizontal(_bearing(position) + np.pi / 2)
        return [across, -across]
    return [_horizontal(yaw + quarter * np.pi / 2) for quarter in range(4)]


def _bearing(position: np.ndarray) -> float:
    """Direction of a point from the shoulder axis, radians from +x, seen from above."""
    x, y = position[:2] - BASE
    return float(np.arctan2(y, x))


def up(height: float) -> np.ndarray:
    """A displacement (3,) straight up, metres."""
    return np.array([0.0, 0.0, height])


def _horizontal(angle: float) -> np.ndarray:
    return np.array([np.cos(angle), np.sin(angle), 0.0])


def _quaternion(rotation: np.ndarray) -> np.ndarray:
    quaternion = np.zeros(4)
    mujoco.mju_mat2Quat(quaternion, np.ascontiguousarray(rotation).ravel())
    return quaternion


def _angle_between(one: np.ndarray, other: np.ndarray) -> float:
    cosine = (np.trace(one.T @ other) - 1) / 2
    return float(np.arccos(np.clip(cosine, -1, 1)))
