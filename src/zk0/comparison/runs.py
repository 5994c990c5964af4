"""A finished run's folder, as far as a comparison needs it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, Field, TypeAdapter

from zk0.comparison.metrics import (
    Sample,
    in_order,
    sample_frames,
    sample_rollouts,
    sample_tasks_together,
)
from zk0.errors import Zk0Error
from zk0.record.evidence import FrameLosses, Rollout, folder_of, load_frames, load_rollouts
from zk0.record.reading import parse, read_events
from zk0.record.run_folder import CONFIG, EVENTS, ROUNDS, RunFolder
from zk0.record.tasks import whole


class Client(BaseModel):
    client: int
    slug: str
    fingerprint: str
    training_frames: int


class Dataset(BaseModel):
    slug: str
    fingerprint: str
    frames: int


class Budget(BaseModel):
    steps_per_client: dict[str, int]
    batch_size: int


class Resumed(BaseModel):
    config: dict[str, Any]


class Description(BaseModel):
    """What a comparison needs of config.json."""

    kind: Literal["federated", "centralized", "local"]
    trained_on: tuple[int, ...]
    config: dict[str, Any]
    backbone: str = ""  # none in runs of before it was recorded
    clients: list[Client]
    server: list[Dataset]
    budget: Budget
    evaluation: dict[str, Any]
    resumed: list[Resumed] = []


class Loss(BaseModel):
    loss: float


class Round(BaseModel):
    """What a comparison needs of a round in federated_metrics.json."""

    round: int
    server: Loss | None = None
    traffic: dict[str, int] = Field({}, alias="bytes")  # none in a run without clients
    void: bool = False
    failures: list[Any] = []


@dataclass(frozen=True, eq=False)
class Run:
    """A finished run with what its server found in one round."""

    path: Path
    about: Description
    rounds: Sequence[Round]
    ended: int  # last round of training
    chosen: int  # round whose evaluation counts
    has_own_round: bool  # it was named with the run, and others need not have come as far
    seconds: float  # from the first event to that evaluation, or to the run's end
    frames: Mapping[str, FrameLosses]
    rollouts: Mapping[str, Sequence[Rollout]]  # by task, in the order of their seeds

    @property
    def seed(self) -> int:
        return int(self.about.config["seed"])

    @property
    def until_chosen(self) -> list[Round]:
        return [each for each in self.rounds if each.round <= self.chosen]

    @cached_property
    def samples(self) -> dict[str, Sample]:
        """Every metric that this run has, in the order of `FAMILIES`."""
        clients, server = (
            {whole(each.slug) for each in part} for part in (self.about.clients, self.about.server)
        )
        found = {
            **dict(sample_frames(self.frames)),
            **dict(sample_tasks_together(self.rollouts, clients, server)),
            **dict(sample_rollouts(self.rollouts)),
            "bytes": Sample.of([sum(sum(each.traffic.values()) for each in self.until_chosen)]),
            "wall-time": Sample.of([self.seconds]),
        }
        for name, sample in found.items():
            if not np.isfinite(sample.values).all():
                raise Zk0Error(f"{self.path}: {name} of round {self.chosen} is not finite.")
        return {name: found[name] for name in in_order(found)}


def read_run(path: Path, which_round: str = "last") -> Run:
    """A run's folder, or FOLDER@ROUND; raises `Zk0Error` where it is none, has not finished or
    lacks that round."""
    path, own_round = _split(path)
    if not (path / CONFIG).is_file():
        raise Zk0Error(f"{path} is no run folder: it has no config.json. Name a folder of a run.")
    about = _read_description(path)
    events = _read_events(path)
    rounds = _read_rounds(path)
    chosen = _choose_round(path, rounds, own_round or which_round)
    evidence = folder_of(path, chosen)
    return Run(
        path=path,
        about=about,
        rounds=rounds,
        ended=events[-1]["round"],
        chosen=chosen,
        has_own_round=own_round is not None,
        seconds=_seconds_until(path, chosen, events),
        frames=load_frames(evidence),
        rollouts=_by_task(load_rollouts(evidence)),
    )


def _split(path: Path) -> tuple[Path, str | None]:
    """FOLDER@ROUND into its parts, unless a folder is called so."""
    folder, at, own_round = str(path).rpartition("@")
    return (Path(folder), own_round) if at and not path.exists() else (path, None)


def _read_description(path: Path) -> Description:
    content = RunFolder(path).read(CONFIG)
    for key in ("kind", "trained_on", "budget", "evaluation"):
        if key not in content:
            raise Zk0Error(
                f"{path} was made by an older version of zk0: its config.json has no {key}. "
                "Train it again to compare it."
            )
    return parse(TypeAdapter(Description), content, path / CONFIG)


def _read_rounds(path: Path) -> list[Round]:
    content = RunFolder(path).read(ROUNDS)
    return parse(TypeAdapter(list[Round]), content.get("rounds"), path / ROUNDS)


def _read_events(path: Path) -> list[dict[str, Any]]:
    """Of a run that has finished, the last one says so."""
    events = read_events(path)
    if not events or events[-1]["event"] != "run-end":
        raise Zk0Error(f"{path} has not finished: resume it, or wait until it has.")
    return events


def _seconds_until(path: Path, chosen: int, events: Sequence[Mapping[str, Any]]) -> float:
    """To the run's end where its last round is the one chosen, else to that one's evaluation."""
    wanted = "run-end" if chosen == events[-1]["round"] else "server-evaluate"
    times = [
        datetime.fromisoformat(each["time"])
        for each in events
        if (each["event"], each.get("round")) == (wanted, chosen)
    ]
    if not times:
        raise Zk0Error(f"{path / EVENTS} does not say when round {chosen} was evaluated.")
    return (times[-1] - datetime.fromisoformat(events[0]["time"])).total_seconds()


def _choose_round(path: Path, rounds: Sequence[Round], which: str) -> int:
    losses = {each.round: each.server.loss for each in rounds if each.server}
    if not losses:
        raise Zk0Error(f"{path} has no round that the server evaluated: nothing can be compared.")
    if which == "last":
        return max(losses)
    if which == "best":
        return min(losses, key=losses.__getitem__)
    if which.isdecimal() and int(which) in losses:
        return int(which)
    raise Zk0Error(
        f"--round {which}: {path} was evaluated in {', '.join(map(str, sorted(losses)))}. Give one "
        'of these, "last" or "best".'
    )


def _by_task(rollouts: Sequence[Rollout]) -> dict[str, list[Rollout]]:
    tasks: dict[str, list[Rollout]] = {}
    for each in sorted(rollouts, key=lambda each: (each.task, each.seed)):
        tasks.setdefault(each.task, []).append(each)
    return tasks
