"""Groups: runs that differ in nothing but their seed, and names that tell the groups apart."""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zk0.comparison.runs import Run
from zk0.config import HOUSEKEEPING
from zk0.errors import Zk0Error

# Runs that differ in these keys alone are one group.
HARMLESS = HOUSEKEEPING | {"prefix-cache-dtype", "seed"}


@dataclass(frozen=True, eq=False)
class Group:
    """Runs of one thing with several seeds, in the order of their seeds."""

    label: str
    runs: Sequence[Run]

    @property
    def seeds(self) -> list[int]:
        return [run.seed for run in self.runs]

    @property
    def kind(self) -> str:
        return self.runs[0].about.kind

    def values(self, metric: str, seeds: Collection[int]) -> NDArray[np.float64]:
        """(seeds, items)."""
        return np.stack([run.samples[metric].values for run in self.runs if run.seed in seeds])

    def clusters(self, metric: str) -> NDArray[np.int64]:
        return self.runs[0].samples[metric].clusters

    def strata(self, metric: str) -> tuple[int, ...]:
        return self.runs[0].samples[metric].strata

    def to_json(self) -> dict[str, Any]:
        runs = [
            {"path": str(run.path), "seed": run.seed, "round": run.chosen, "ended": run.ended}
            for run in self.runs
        ]
        settings = _settings(self.runs[0])
        return {"label": self.label, "kind": self.kind, "settings": settings, "runs": runs}


def shared_seeds(one: Group, other: Group) -> list[int]:
    return sorted(set(one.seeds) & set(other.seeds))


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """In the order of first appearance; raises `Zk0Error` for a seed twice in a group."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(json.dumps(_settings(run), sort_keys=True), []).append(run)
    members = [sorted(each, key=lambda run: run.seed) for each in found.values()]
    for group in members:
        _refuse_twins(group)
    firsts = [group[0] for group in members]
    return [Group(_label(group[0], firsts), group) for group in members]


def _settings(run: Run) -> dict[str, Any]:
    """What makes a run another training, beside its seed."""
    first, resumed = run.about.config, run.about.resumed
    last = first | (resumed[-1].config if resumed else {})
    settings = {key: value for key, value in last.items() if key not in HARMLESS}
    if last["num-server-rounds"] != first["num-server-rounds"]:
        settings["first-planned-rounds"] = first["num-server-rounds"]
    if run.has_own_round:
        settings["round"] = run.chosen
    trained_on = "+".join(map(str, run.about.trained_on))
    return {"kind": run.about.kind, "trained-on": trained_on, **settings}


def _refuse_twins(runs: Sequence[Run]) -> None:
    for one, two in pairwise(runs):
        if one.seed == two.seed:
            raise Zk0Error(
                f"{one.path} and {two.path} are the same training with the same seed "
                f"{one.seed}: give one of them."
            )


def _label(run: Run, runs: Sequence[Run]) -> str:
    """A short name, and the settings in which the run differs from others of that name."""
    short = _short_label(run)
    alike = [_settings(other) for other in runs if _short_label(other) == short]
    differing = [
        f"{key}={value}"
        for key, value in _settings(run).items()
        if any(other.get(key) != value for other in alike)
    ]
    return " ".join([short, *differing])


def _short_label(run: Run) -> str:
    about, settings = run.about, _settings(run)
    if about.kind == "federated":
        dynamic = " dynamic" if settings["preset"] == "dynamic" else ""
        label = f"federated {settings['strategy']}{dynamic}"
    elif about.kind == "local":
        slugs = {each.client: each.slug for each in about.clients}
        label = " ".join(["local", *(f"{who} {slugs[who]}" for who in about.trained_on)])
    else:
        label = about.kind
    return f"{label} round {run.chosen}" if run.has_own_round else label
