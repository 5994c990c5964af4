"""Metrics: how they are shown, and their values in a run.

A metric is named PART/FAMILY, such as near/loss or touch/success; one of a whole run by its family.
Rollouts of several tasks together are of a dataset that has them (near/success), or of all clients'
datasets (clients/success).
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from zk0.evaluation.intervals import Interval
from zk0.record.evidence import FrameLosses, Rollout
from zk0.record.tasks import dataset_of

JOINTS, GRIPPER = slice(0, 5), 5  # of the action's dimensions


@dataclass(frozen=True)
class Family:
    """A kind of metric: how its values are averaged, and how they are shown."""

    unit: str  # of values in compare.json
    shown: str  # unit in tables and charts
    scale: float  # from the one to the other
    decimals: int
    kind: Literal["mean", "rate", "plain"] = "mean"
    higher_is_better: bool = False

    @property
    def shown_difference(self) -> str:
        return "points" if self.shown == "%" else self.shown

    def text(self, value: float) -> str:
        return f"{round(self.scale * value, self.decimals) + 0.0:.{self.decimals}f}"

    def interval(self, found: Interval, count: tuple[int, int] | None = None) -> str:
        """Such as `60 (3/5) [23, 88]`; the estimate alone where there are no bounds."""
        parts = [self.text(found.estimate)]
        if count:
            parts.append(f"({count[0]}/{count[1]})")
        if found.low is not None and found.high is not None:
            low, high = (self._bound(each, found.sign) for each in (found.low, found.high))
            parts.append(f"[{low}, {high}]")
        return " ".join(parts)

    def _bound(self, value: float, sign: int) -> str:
        """A bound beyond 0 is not rounded to 0."""
        text = self.text(value)
        return f"{self.scale * value:.1g}" if sign and value and not float(text) else text

    def judge[N: (int, float)](self, value: N) -> N:
        """The value with the sign that makes a greater one the better."""
        return value if self.higher_is_better else -value


_RATE = Family("share", "%", 100, 1, "rate", higher_is_better=True)
FAMILIES = {
    "loss": Family("normalised", "", 1, 4),
    "action-error": Family("degrees", "°", 1, 2),
    "gripper-error": Family("percent", "%", 1, 2),
    "success": _RATE,
    "nearest": Family("metres", "cm", 100, 1),
    "grasped": _RATE,
    "lifted": _RATE,
    "moved": _RATE,
    "bytes": Family("bytes", "MB", 1e-6, 1, "plain"),
    "wall-time": Family("seconds", "s", 1, 0, "plain"),
}


def family_name(metric: str) -> str:
    return metric.rpartition("/")[2]


def family_of(metric: str) -> Family:
    return FAMILIES[family_name(metric)]


def in_order(metrics: Iterable[str]) -> list[str]:
    """Each once, in the order of `FAMILIES`."""
    order = list(FAMILIES)
    return sorted(dict.fromkeys(metrics), key=lambda metric: order.index(family_name(metric)))


@dataclass(frozen=True, eq=False)
class Sample:
    """A metric's values in one run; an episode's frames have the same cluster."""

    values: NDArray[np.float64]  # (items,)
    clusters: NDArray[np.int64]  # (items,)
    strata: tuple[int, ...] = ()  # items of each task, where several count together

    @classmethod
    def of(cls, values: ArrayLike, clusters: NDArray[np.int64] | None = None) -> "Sample":
        array = np.asarray(values, np.float64)
        return cls(array, np.arange(len(array)) if clusters is None else clusters)


def sample_frames(datasets: Mapping[str, FrameLosses]) -> Iterator[tuple[str, Sample]]:
    for slug, part in datasets.items():
        yield f"{slug}/loss", Sample.of(part.losses.mean(1, dtype=np.float64), part.episodes)
        if part.errors is not None:
            joints = part.errors[:, JOINTS].mean(1, dtype=np.float64)
            yield f"{slug}/action-error", Sample.of(joints, part.episodes)
            yield f"{slug}/gripper-error", Sample.of(part.errors[:, GRIPPER], part.episodes)


def sample_rollouts(tasks: Mapping[str, Sequence[Rollout]]) -> Iterator[tuple[str, Sample]]:
    for task, rollouts in tasks.items():
        for name in ("success", "nearest", "grasped", "lifted", "moved"):
            values = [getattr(each, name) for each in rollouts]
            if None not in values:
                yield f"{task}/{name}", Sample.of(values)


def sample_tasks_together(
    tasks: Mapping[str, Sequence[Rollout]], clients: Collection[str], server: Collection[str]
) -> Iterator[tuple[str, Sample]]:
    """Success over all tasks of the `clients`' datasets, and of each of the `server`'s datasets."""
    owners = {task: dataset_of(task, {*clients, *server}) for task in tasks}
    parts = {"clients": set(clients)} | {slug: {slug} for slug in server}
    for part, slugs in parts.items():
        chosen = [tasks[task] for task, owner in owners.items() if owner in slugs]
        if len(chosen) > 1:
            won = Sample.of([each.success for rollouts in chosen for each in rollouts])
            yield f"{part}/success", replace(won, strata=tuple(map(len, chosen)))
