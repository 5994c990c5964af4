"""Findings: how the reference differs from another group in a metric, and the sentence for it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from zk0.comparison.groups import Group, shared_seeds
from zk0.comparison.metrics import Family, family_of
from zk0.errors import Zk0Error
from zk0.evaluation.intervals import Interval, mean_interval, rate_difference

MARKS = {1: "better", -1: "worse", 0: "open"}


@dataclass(frozen=True)
class Finding:
    """The reference less another group, in the metric's unit."""

    metric: str
    reference: Group
    other: Group
    difference: Interval
    seeds: Sequence[int]  # that both have
    best_of: int = 0  # local groups that `other` was picked from by this metric; 0: not picked

    @property
    def family(self) -> Family:
        return family_of(self.metric)

    @property
    def verdict(self) -> str:
        """Of the reference: "better", "worse", or "open" where no difference can be claimed."""
        return MARKS[self.family.judge(self.difference.sign)]

    def sentence(self) -> str:
        reference, other = self.reference.label, self.other.label
        if self.best_of:
            other += f", the best of {self.best_of} local ones,"
        side = "higher" if self.difference.estimate > 0 else "lower"
        lead, size = (
            f"{self.metric}: {reference} is {side}",
            self._text(_magnitude(self.difference)),
        )
        if self.difference.sign:
            return f"{lead} ({self.verdict}) than {other} by {size}: the difference holds."
        if self.family.kind != "plain":
            return (
                f"{self.metric}: between {reference} and {other} no difference can be claimed: "
                f"{self._text(self.difference)}."
            )
        if self.difference.estimate:
            return f"{lead} than {other} by {size} (a plain count, no interval)."
        return f"{self.metric}: {reference} and {other} are equal."

    def _text(self, interval: Interval) -> str:
        return f"{self.family.interval(interval)} {self.family.shown_difference}".rstrip()

    def to_json(self) -> dict[str, Any]:
        return {
            "metric": self.metric,
            "reference": self.reference.label,
            "other": self.other.label,
            "difference": asdict(self.difference),
            "seeds": list(self.seeds),
            "verdict": None if self.difference.low is None else self.verdict,
            "best_of": self.best_of,
            "sentence": self.sentence(),
        }


def find(reference: Group, other: Group, metric: str, confidence: float) -> Finding:
    """The paired difference; raises `Zk0Error` where the groups share no seed."""
    seeds = shared_seeds(reference, other)
    if not seeds:
        one, two = (f"{each.label} (seeds {_join(each.seeds)})" for each in (reference, other))
        raise Zk0Error(f"{one} and {two} share no training seed: train both with the same seeds.")
    first, second = reference.values(metric, seeds), other.values(metric, seeds)
    match family_of(metric).kind:
        case "plain":
            found = Interval(float((first - second).mean()))
        case "rate":
            found = rate_difference(first, second, confidence, reference.strata(metric))
        case "mean":
            found = mean_interval(first - second, reference.clusters(metric), confidence)
    return Finding(metric, reference, other, found, seeds)


def _join(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def _magnitude(difference: Interval) -> Interval:
    """Of a difference whose sign a sentence tells."""
    if difference.estimate >= 0:
        return difference
    if difference.low is None or difference.high is None:
        return Interval(-difference.estimate)
    return Interval(-difference.estimate, -difference.high, -difference.low)
