"""Counts, means and variances, and how those of several clients become one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

STATE, ACTION = "observation.state", "action"
CONSTANT = 1e-5  # of the mean: a deviation that float32 cannot tell from none


@dataclass(frozen=True, eq=False)
class Moments:
    """Number of frames, mean and population variance per dimension of one feature, in float64.

    Equal where all numbers are, to the last bit.
    """

    count: int
    mean: NDArray[np.float64]
    variance: NDArray[np.float64]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Moments) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    @property
    def _identity(self) -> tuple[int, bytes, bytes]:
        return self.count, self.mean.tobytes(), self.variance.tobytes()

    @property
    def scale(self) -> NDArray[np.float64]:
        """What normalising divides by, per dimension: the standard deviation; 1 where the dimension
        is constant, up to rounding, as any motion would otherwise become astronomically large."""
        deviation = np.sqrt(self.variance)
        return np.where(deviation > CONSTANT * np.maximum(1.0, np.abs(self.mean)), deviation, 1.0)

    @classmethod
    def of(cls, values: NDArray[np.float32]) -> Self:
        """The moments of `values` (frames, dimensions)."""
        return cls(len(values), values.mean(0, dtype=np.float64), values.var(0, dtype=np.float64))


Statistics = Mapping[str, Moments]  # by feature: observation.state and action


def pool(moments: Sequence[Moments]) -> Moments:
    """The moments of all frames together, from each part's own.

    Chan, Golub and LeVeque (1979): with weights n_i / n, the mean is the weighted mean of the means
    and the variance the weighted mean of var_i + (mean_i - mean)^2.
    """
    counts = np.array([part.count for part in moments], np.float64)
    weights = (counts / counts.sum())[:, None]
    means = np.stack([part.mean for part in moments])
    mean = (weights * means).sum(0)
    variances = np.stack([part.variance for part in moments]) + (means - mean) ** 2
    return Moments(int(counts.sum()), mean, (weights * variances).sum(0))


def pool_statistics(parts: Sequence[Statistics]) -> dict[str, Moments]:
    """Feature by feature, the pooled moments of all `parts`."""
    return {feature: pool([part[feature] for part in parts]) for feature in (STATE, ACTION)}
