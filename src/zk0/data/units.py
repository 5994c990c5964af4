"""Which units a recording's joints are in, as far as its numbers tell."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from zk0.data.joints import ARM

UnitName = Literal["degrees", "radians", "normalised", "unknown"]

FULL_TURN = 3.3  # radians: a little over pi
BEYOND_MIDDLE = 120.0  # degrees that no joint reaches whose zero is the middle of its range
_MOVING = 0.2  # least span of a joint that moves, even in radians
_AT_BOUND = 1e-3


@dataclass(frozen=True)
class Range:
    """One joint over some frames: its extremes, and the 1 % and 99 % quantiles."""

    minimum: float
    maximum: float
    low: float
    high: float

    @classmethod
    def of(cls, values: ArrayLike) -> Self:
        """The range of the finite ones of `values` (frames,); all NaN where there is none."""
        column = np.asarray(values, np.float64)
        column = column[np.isfinite(column)]
        if not len(column):
            return cls(*[float("nan")] * 4)
        low, high = np.quantile(column, (0.01, 0.99))
        return cls(float(column.min()), float(column.max()), float(low), float(high))

    @property
    def span(self) -> float:
        return self.maximum - self.minimum

    @property
    def largest(self) -> float:
        return max(abs(self.minimum), abs(self.maximum))


Ranges = Mapping[str, Range]


@dataclass(frozen=True)
class Units:
    """The units recognised, whether the numbers leave no doubt, and why."""

    name: UnitName
    certain: bool
    reason: str


def ranges(joints: tuple[str, ...], values: NDArray[np.float32]) -> dict[str, Range]:
    """Each joint's range over `values` (frames, joints)."""
    return {joint: Range.of(values[:, number]) for number, joint in enumerate(joints)}


def recognise(found: Ranges) -> Units:
    """The units of the five angles in `found`; the gripper says nothing, as it is 0..100 in two.

    Radians: no angle beyond a full half turn although the arm moves. Normalised (lerobot's
    RANGE_M100_100, which clips): nothing beyond 100, and two joints or more end exactly there.
    Else degrees, beyond doubt only where an angle exceeds 100.
    """
    arm = [found[joint] for joint in ARM if joint in found]
    arm = [each for each in arm if np.isfinite(each.span)]
    if not arm or max(each.span for each in arm) < _MOVING:
        return Units("unknown", False, "the arm does not move")
    largest = max(each.largest for each in arm)
    if largest <= FULL_TURN:
        return Units("radians", True, f"no angle is beyond {largest:.2f} while the arm moves")
    if largest <= 100 + _AT_BOUND:
        bound = sum(_ends_at_bound(each) for each in arm)
        if bound >= 2:
            return Units("normalised", True, f"{bound} joints end at exactly 100 or -100")
        return Units("degrees", False, "no angle is beyond 100, as where normalised to -100..100")
    return Units("degrees", True, f"angles up to {largest:.0f}")


def old_calibration(found: Ranges) -> tuple[str, ...]:
    """Joints, in degrees, whose zero is not the middle of their range.

    Until lerobot's redesign of calibration in 2025 (its documentation: "Backward compatibility"), a
    stretched arm was zero: shoulder_lift was 90 - today's, elbow_flex today's + 90, so that a
    folded arm shows both near 190. Since then zero is the middle of about 200 degrees.
    """
    return tuple(
        joint
        for joint in ("shoulder_lift", "elbow_flex")
        if joint in found and found[joint].high > BEYOND_MIDDLE
    )


def _ends_at_bound(found: Range) -> bool:
    return min(abs(found.minimum + 100), abs(found.maximum - 100)) <= _AT_BOUND
