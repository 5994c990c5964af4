"""Rows: one metric in all groups."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from zk0.comparison.findings import Finding, find
from zk0.comparison.groups import Group
from zk0.comparison.metrics import Family, family_of
from zk0.evaluation.intervals import Interval, distinct, mean_interval, rate_interval


@dataclass(frozen=True)
class Estimate:
    """A group's mean over its seeds."""

    interval: Interval
    by_seed: Mapping[int, float]
    count: tuple[int, int] | None = None  # successes and rollouts, of a rate

    def to_json(self) -> dict[str, Any]:
        counts = zip(("successes", "rollouts"), self.count, strict=True) if self.count else ()
        by_seed = {str(seed): value for seed, value in self.by_seed.items()}
        return {**asdict(self.interval), "by_seed": by_seed, **dict(counts)}


@dataclass(frozen=True)
class Row:
    """One metric of all groups."""

    metric: str
    estimates: Mapping[str, Estimate]  # by group
    findings: Sequence[Finding]  # the reference against each other group
    best_local: Finding | None  # and against the best of several local ones

    @property
    def family(self) -> Family:
        return family_of(self.metric)

    @property
    def best(self) -> list[str]:
        """The groups with the best estimate; that is no claim that they are better."""
        values = [self.family.judge(each.interval.estimate) for each in self.estimates.values()]
        return [
            label
            for label, value in zip(self.estimates, values, strict=True)
            if value == max(values)
        ]

    @property
    def sentences(self) -> list[str]:
        """The findings in words; of several local groups the best alone."""
        if not self.best_local:
            return [each.sentence() for each in self.findings]
        others = [each for each in self.findings if each.other.kind != "local"]
        return [each.sentence() for each in (*others, self.best_local)]

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.metric,
            "unit": self.family.unit,
            "higher_is_better": self.family.higher_is_better,
            "estimates": {label: each.to_json() for label, each in self.estimates.items()},
            "best": self.best,
        }


def compare_metric(metric: str, groups: Sequence[Group], confidence: float) -> Row:
    """The first group is the reference; raises `Zk0Error` where one shares no seed with it."""
    reference, *others = groups
    estimates = {group.label: estimate(group, metric, confidence) for group in groups}
    findings = [find(reference, other, metric, confidence) for other in others]
    return Row(metric, estimates, findings, _pick_local(findings, estimates))


def estimate(group: Group, metric: str, confidence: float) -> Estimate:
    """A group's mean; an interval only where the metric has one."""
    values = group.values(metric, group.seeds)
    by_seed = dict(zip(group.seeds, values.mean(1).tolist(), strict=True))
    match family_of(metric).kind:
        case "plain":
            return Estimate(Interval(float(values.mean())), by_seed)
        case "rate":
            told = distinct(values)
            count = round(told.sum()), told.size
            found = rate_interval(values, confidence, group.strata(metric))
            return Estimate(found, by_seed, count)
        case "mean":
            found = mean_interval(values, group.clusters(metric), confidence)
            if found.low is not None:  # losses, errors and distances are never negative
                found = replace(found, low=max(found.low, 0.0))
            return Estimate(found, by_seed)


def _pick_local(findings: Sequence[Finding], estimates: Mapping[str, Estimate]) -> Finding | None:
    """The finding against the best of several local groups, by its estimate."""
    local = [each for each in findings if each.other.kind == "local"]
    if len(local) < 2 or local[0].reference.kind == "local" or local[0].family.kind == "plain":
        return None

    def goodness(finding: Finding) -> float:
        return finding.family.judge(estimates[finding.other.label].interval.estimate)

    return replace(max(local, key=goodness), best_of=len(local))
