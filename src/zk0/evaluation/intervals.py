"""Intervals for means over training seeds and over frames or rollouts, and for their differences.

The data are values y[s, i] of S training seeds (runs) and the same items i for all of them: frames,
which come in clusters (episodes: an episode's frames resemble each other), or rollouts, each a
cluster of its own. The estimate is the ratio  m = sum y[s, i] / (S * items).

**Bootstrap** (Efron and Tibshirani, An Introduction to the Bootstrap, 1993; Owen and Eckles,
Bootstrapping data arrays of arbitrary order, Annals of Applied Statistics 6, 2012, who reweight
every factor of a crossed design on its own, with weights of mean 1 and variance 1). A replicate is

    m + f_S * (seed part) + f_C * (cluster part),

    seed part     = sum_s g_s (m_s - m) / S            g_s ~ Normal(1, 1), m_s the mean of seed s
    cluster part  = sum_c w_c y_c / (S sum_c w_c n_c) - m     w ~ Multinomial(C; 1/C, ..., 1/C)

and the interval lies between the replicates' quantiles. Clusters are drawn with replacement, the
same ones for all seeds. Seeds get normal weights instead: two seeds drawn with replacement give
three different means, the outermost nearer to `m` than a 95 % interval has to reach. Their
interaction is in both parts already, so it is not added a third time.

**Strata.** Rollouts of several tasks together are as many of each task as was decided beforehand:
how tasks differ is no chance, and as many clusters are drawn from each (Efron and Tibshirani 1993,
section 8.3; Cochran, Sampling Techniques, 1977, chapter 5). H is the number of strata, else 1.

**Few seeds, few clusters.** A bootstrap takes the spread of a handful for the truth. So each part
is stretched to what Student's t asks for (z: the normal quantile at the same q = 1 - a / 2, with
a = 1 - confidence), sqrt(n / (n - 1)) undoing that the bootstrap divides by n:

    f_C = sqrt(C / (C - H)) * t_{C-H}(q) / z(q)
    f_S = sqrt(S / (S - 1)) * max(t_{S-1}(q), sqrt(2) * t_{S-1}(1 - 0.75 a)) / z(q)

(with strata of one size, C - H is exact). The second term of the maximum has the interval also
contain the mean of S *new* seeds, on the same items, with a confidence of 1 - 1.5 a (92.5 % for
95 %): the difference of two means of S has twice a mean's variance. t alone gives 90.7 % for three
seeds, 88 % for five. One seed, or one cluster in each stratum, has no spread: its part is left out,
and the interval says nothing about others.

**Rates** (successes of rollouts). All or nothing in a handful of rollouts leaves a bootstrap no
spread at all: near 0 and 1 its 95 % intervals were right in 20 to 60 % of simulated cases. So one
seed's rate has Wilson's interval (Journal of the American Statistical Association 22, 1927), and
other intervals of rates reach at least as far as Wilson's for the pooled rollouts; for a difference
as Newcombe's, which adds Wilson's distances in squares (Statistics in Medicine 17, 1998, method
10). tests/evaluation/test_intervals.py simulates what all of these cover.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import hypot, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri, stdtrit  # type: ignore[import-untyped]
from scipy.stats import binomtest  # type: ignore[import-untyped]

REPLICATES = 4000
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """An estimate with its bounds; they are None where nothing in the data tells them."""

    estimate: float
    low: float | None = None
    high: float | None = None

    @property
    def sign(self) -> int:
        """Of every value in the interval; 0 where it contains 0 or has no bounds."""
        if self.low is None or self.high is None:
            return 0
        return int(self.low > 0) - int(self.high < 0)


def wilson(successes: int, trials: int, confidence: float) -> tuple[float, float]:
    """Wilson's score interval (low, high) for a rate, as shares of 1; trials are 1 or more."""
    found = binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    return float(found.low), float(found.high)


def mean_interval(
    values: ArrayLike, clusters: ArrayLike, confidence: float, strata: Sequence[int] = ()
) -> Interval:
    """The mean of `values` (seeds, items), whose items belong to `clusters` (items,).

    `strata` are numbers of clusters, which follow each other; empty, all are one. The mean of
    paired differences is that of `first - second`. In the unit of the values.
    """
    sums, sizes = _by_cluster(np.asarray(values, np.float64), np.asarray(clusters))
    seeds, count = sums.shape
    strata = tuple(strata) or (count,)
    estimate = float(sums.sum() / (seeds * sizes.sum()))
    if seeds == 1 and count == len(strata):
        return Interval(estimate)
    normal, drawn = _draws(seeds, strata)
    seed_part = normal @ (sums.sum(1) / sizes.sum() - estimate) / seeds
    cluster_part = drawn @ sums.mean(0) / (drawn @ sizes) - estimate
    stretched = _stretch_seeds(seeds, confidence) * seed_part
    stretched += _stretch_clusters(strata, confidence) * cluster_part
    low, high = np.quantile(stretched, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(estimate, float(estimate + low), float(estimate + high))


def rate_interval(values: ArrayLike, confidence: float, strata: Sequence[int] = ()) -> Interval:
    """The mean of `values` (seeds, rollouts), each 0 or 1, as a share of 1; `strata` are numbers of
    rollouts, such as those of each task."""
    rollouts = np.asarray(values, np.float64)
    pooled = Interval(float(rollouts.mean()), *_pooled(rollouts, confidence))
    if len(rollouts) == 1:
        return pooled
    crossed = mean_interval(rollouts, np.arange(rollouts.shape[1]), confidence, strata)
    return _within(_hull(crossed, pooled), 0.0, 1.0)


def rate_difference(
    first: ArrayLike, second: ArrayLike, confidence: float, strata: Sequence[int] = ()
) -> Interval:
    """The first rate less the second, each (seeds, rollouts) of 0 and 1, paired in both."""
    one, other = np.asarray(first, np.float64), np.asarray(second, np.float64)
    crossed = mean_interval(one - other, np.arange(one.shape[1]), confidence, strata)
    (low, high), (other_low, other_high) = (_pooled(each, confidence) for each in (one, other))
    rate, other_rate = one.mean(), other.mean()
    newcombe = Interval(
        crossed.estimate,
        crossed.estimate - hypot(rate - low, other_high - other_rate),
        crossed.estimate + hypot(high - rate, other_rate - other_low),
    )
    return _within(_hull(crossed, newcombe), -1.0, 1.0)


def _by_cluster(values: Floats, clusters: NDArray[np.generic]) -> tuple[Floats, Floats]:
    """Sums of `values` by seed and cluster (seeds, clusters), and items by cluster."""
    names, places = np.unique(clusters, return_inverse=True)
    sums = [np.bincount(places, weights=row, minlength=len(names)) for row in values]
    return np.stack(sums), np.bincount(places).astype(np.float64)


@lru_cache(maxsize=8)
def _draws(seeds: int, strata: tuple[int, ...]) -> tuple[Floats, Floats]:
    """(replicates, seeds) normal weights, less their mean of 1, and (replicates, clusters) counts.
    Always the same ones."""
    source = np.random.default_rng([seeds, *strata])
    counts = [source.multinomial(size, np.full(size, 1 / size), REPLICATES) for size in strata]
    return source.normal(size=(REPLICATES, seeds)), np.hstack(counts).astype(np.float64)


def _stretch_clusters(strata: tuple[int, ...], confidence: float) -> float:
    """f_C above."""
    count, freedom = sum(strata), sum(strata) - len(strata)
    if not freedom:
        return 0.0
    q = (1 + confidence) / 2
    return sqrt(count / freedom) * float(stdtrit(freedom, q) / ndtri(q))


def _stretch_seeds(count: int, confidence: float) -> float:
    """f_S above."""
    if count == 1:
        return 0.0
    q, again = (1 + confidence) / 2, 1 - 0.75 * (1 - confidence)
    t = max(float(stdtrit(count - 1, q)), sqrt(2) * float(stdtrit(count - 1, again)))
    return sqrt(count / (count - 1)) * t / float(ndtri(q))


def distinct(rollouts: Floats) -> Floats:
    """Values (seeds, rollouts), or one row of them where all seeds have the same: those of a policy
    that does not depend on the seed are the same rollouts, and known once."""
    return rollouts[:1] if (rollouts == rollouts[0]).all() else rollouts


def _pooled(rollouts: Floats, confidence: float) -> tuple[float, float]:
    told = distinct(rollouts)
    return wilson(round(told.sum()), told.size, confidence)


def _hull(one: Interval, other: Interval) -> Interval:
    """From the lower of the low bounds to the higher of the high ones."""
    bounds = [b for each in (one, other) for b in (each.low, each.high) if b is not None]
    return Interval(one.estimate, min(bounds), max(bounds))


def _within(interval: Interval, least: float, greatest: float) -> Interval:
    assert interval.low is not None
    assert interval.high is not None
    return Interval(interval.estimate, max(interval.low, least), min(interval.high, greatest))
