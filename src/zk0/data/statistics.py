"""What is told of state and action, and how that of several clients becomes one."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

STATE, ACTION = "observation.state", "action"
CONSTANT = 1e-5  # of the mean: a deviation that float32 cannot tell from none
EXTREMES = {"min": np.min, "max": np.max}
QUANTILES = {"q01": 0.01, "q10": 0.10, "q90": 0.90, "q99": 0.99}
ORDER = ("min", *QUANTILES, "max")  # none smaller than the one before

Order = Mapping[str, NDArray[np.float64]]  # by name, as many of them as are known


@dataclass(frozen=True, eq=False)
class Moments:
    """Number of frames, mean and population variance per dimension of one feature, in float64, and
    those of its order statistics (lerobot's `min`, `q01`, ...) that are known.

    Equal where all numbers are, to the last bit.
    """

    count: int
    mean: NDArray[np.float64]
    variance: NDArray[np.float64]
    order: Order = field(default_factory=dict)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Moments) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    @property
    def _identity(self) -> tuple[int | bytes | str, ...]:
        order = [part for name in sorted(self.order) for part in (name, self.order[name].tobytes())]
        return self.count, self.mean.tobytes(), self.variance.tobytes(), *order

    @property
    def scale(self) -> NDArray[np.float64]:
        """What normalising divides by, per dimension: the standard deviation; 1 where the dimension
        is constant, up to rounding, as any motion would otherwise become astronomically large."""
        deviation = np.sqrt(self.variance)
        return np.where(deviation > CONSTANT * np.maximum(1.0, np.abs(self.mean)), deviation, 1.0)

    @classmethod
    def of(
        cls,
        values: NDArray[np.float32],
        episodes: NDArray[np.int64] | None = None,
        names: Collection[str] = (),
    ) -> Self:
        """The moments of `values` (frames, dimensions), whose `episodes` (frames,) follow each
        other, and its order statistics of these `names`."""
        mean, variance = values.mean(0, dtype=np.float64), values.var(0, dtype=np.float64)
        parts = np.split(values, () if episodes is None else np.flatnonzero(np.diff(episodes)) + 1)
        weights = _weigh([len(part) for part in parts])
        order = _pool_order([_order(part, names) for part in parts], weights)
        return cls(len(values), mean, variance, order)


Statistics = Mapping[str, Moments]  # by feature: observation.state and action


def _order(values: NDArray[np.float32], names: Collection[str]) -> Order:
    """The order statistics of one episode by these `names`."""
    extremes = {name: of(values, 0) for name, of in EXTREMES.items() if name in names}
    wanted = [name for name in QUANTILES if name in names]
    quantiles = zip(wanted, _quantiles(values, wanted), strict=True) if wanted else ()
    return {name: row.astype(np.float64) for name, row in (*extremes.items(), *quantiles)}


def _quantiles(values: NDArray[np.float32], names: Sequence[str]) -> NDArray[np.float64]:
    """(names, dimensions): lerobot's estimates of an episode's quantiles, from a histogram of 5000
    bins between its extremes. Its edges lie 1e-10 beyond these, and the estimates not: the
    quantiles of a joint that did not move are its one value."""
    from lerobot.datasets.compute_stats import get_feature_stats  # loads PyTorch

    ranks = [QUANTILES[name] for name in names]
    found = get_feature_stats(values, axis=0, keepdims=False, quantile_list=ranks)
    rows = np.stack([found[name] for name in names])
    return np.maximum.accumulate(rows.clip(values.min(0), values.max(0)), 0)


def pool(moments: Sequence[Moments]) -> Moments:
    """The moments of all frames together, from each part's own.

    Chan, Golub and LeVeque (1979): with weights n_i / n, the mean is the weighted mean of the means
    and the variance the weighted mean of var_i + (mean_i - mean)^2.

    Extremes are those of all. A quantile is the weighted mean of the parts' quantiles, as in
    lerobot's `aggregate_feature_stats`, which makes a dataset's out of its episodes'; so does
    `Moments.of`. Means of means with their weights being what they are, the result is what lerobot
    has for one dataset of all these episodes, not the quantile of all their frames.
    """
    counts = [part.count for part in moments]
    weights = _weigh(counts)
    means = np.stack([part.mean for part in moments])
    mean = (weights * means).sum(0)
    variances = np.stack([part.variance for part in moments]) + (means - mean) ** 2
    order = _pool_order([part.order for part in moments], weights)
    return Moments(sum(counts), mean, (weights * variances).sum(0), order)


def _pool_order(orders: Sequence[Order], weights: NDArray[np.float64]) -> Order:
    """Of those order statistics that all parts have."""
    pooled = {}
    for name in ORDER:
        if all(name in order for order in orders):
            values = np.stack([order[name] for order in orders])
            of = EXTREMES.get(name)
            pooled[name] = of(values, 0) if of else _mean_within(values, weights)
    return pooled


def _mean_within(values: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """The weighted mean of `values` (parts, dimensions), which rounding takes not beyond them: that
    of equal values is their value."""
    return (weights * values).sum(0).clip(values.min(0), values.max(0))


def _weigh(counts: Sequence[int]) -> NDArray[np.float64]:
    """(parts, 1)."""
    exact = np.array(counts, np.float64)
    return (exact / exact.sum())[:, None]


def pool_statistics(parts: Sequence[Statistics]) -> dict[str, Moments]:
    """Feature by feature, the pooled moments of all `parts`."""
    return {feature: pool([part[feature] for part in parts]) for feature in (STATE, ACTION)}
