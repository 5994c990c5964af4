"""A run's folder as far as a report needs it: finished, or still running."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, TypeAdapter

from zk0.errors import Zk0Error
from zk0.evaluation.tally import Tally
from zk0.record.reading import Part, parse, read_events
from zk0.record.run_folder import CONFIG, EVENTS, ROUNDS, RunFolder
from zk0.record.tasks import together

Curve = Mapping[int, float]  # a value by round


class Client(BaseModel):
    client: int
    slug: str
    description: str = ""
    fingerprint: str
    training_episodes: int
    training_frames: int

    @property
    def label(self) -> str:
        return f"{self.client} {self.slug}"


class Dataset(BaseModel):
    slug: str
    description: str = ""
    fingerprint: str
    episodes: int
    frames: int


class Resumed(BaseModel):
    after_round: int
    config: dict[str, Any]


class Description(BaseModel):
    """config.json."""

    kind: Literal["federated", "centralized", "local"]
    trained_on: list[int]
    config: dict[str, Any]
    versions: dict[str, str]
    git_revision: str | None
    clients: list[Client]
    server: list[Dataset]
    resumed: list[Resumed] = []

    @property
    def settings(self) -> dict[str, Any]:
        """The run-config that is in force: of a resumed run, the newest."""
        return self.resumed[-1].config if self.resumed else self.config


class Plan(Part):
    learning_rate: float
    proximal_mu: float
    boosted: dict[int, float]
    rules: list[str]


class ServerLoss(Part):
    loss: float
    datasets: dict[str, dict[str, float]]


class Failure(Part):
    client: int
    slug: str
    reason: str


class Cosine(BaseModel):
    """Between clients' updates; a pair is "I-J" of two clients' numbers."""

    mean: float | None
    pairs: dict[str, float] = {}


class Round(Part):
    """A round in federated_metrics.json."""

    round: int
    plan: Plan | None = None
    server: ServerLoss | None = None
    train: dict[str, float] | None = None
    evaluate: dict[str, float] | None = None
    rollouts: dict[str, Tally] | None = None
    traffic: dict[str, int] = Field({}, alias="bytes")
    seconds: dict[str, float] = Field({})
    cosine: Cosine | None = None
    failures: tuple[Failure, ...] = ()
    void: bool = False
    server_error: str | None = None
    rollout_error: str | None = None


class Trained(Part):
    """A client's training in one round."""

    round: int
    client: int
    slug: str
    first_loss: float
    last_loss: float
    update_norm: float | None = None


class Evaluated(Part):
    """A client's evaluation on its held-out episodes in one round."""

    round: int
    client: int
    slug: str
    loss: float


@dataclass(frozen=True)
class Record:
    """What a report is made of."""

    path: Path
    about: Description
    rounds: Sequence[Round]
    trained: Sequence[Trained]
    evaluated: Sequence[Evaluated]
    ended: bool
    seconds: float  # first to last event

    @property
    def last(self) -> int:
        """The newest round."""
        return max((each.round for each in self.rounds), default=0)

    @property
    def planned(self) -> int:
        return int(self.about.settings["num-server-rounds"])

    @property
    def losses(self) -> dict[str, dict[int, float]]:
        """The server's policy losses by round: "composite", then each dataset's."""
        found: dict[str, dict[int, float]] = {"composite": {}}
        for each in self.rounds:
            if each.server:
                found["composite"][each.round] = each.server.loss
                for slug, values in each.server.datasets.items():
                    found.setdefault(slug, {})[each.round] = values["loss"]
        return found

    @property
    def successes(self) -> dict[int, tuple[int, int]]:
        """How many rollouts succeeded, of how many, by round."""
        return {
            each.round: together(each.rollouts.values()) for each in self.rounds if each.rollouts
        }


def read_record(path: Path) -> Record:
    """Raises `Zk0Error` where `path` is no run's folder, or one of its files is damaged."""
    if not (path / CONFIG).is_file():
        raise Zk0Error(f"{path} is no run folder: it has no config.json. Name a folder of a run.")
    folder = RunFolder(path)
    about = parse(TypeAdapter(Description), folder.read(CONFIG), path / CONFIG)
    content = folder.read(ROUNDS)["rounds"] if (path / ROUNDS).exists() else []
    rounds = parse(TypeAdapter(list[Round]), content, path / ROUNDS)
    events = read_events(path)
    return Record(
        path,
        about,
        rounds,
        _select(TypeAdapter(list[Trained]), events, "client-train", path),
        _select(TypeAdapter(list[Evaluated]), events, "client-evaluate", path),
        bool(events) and events[-1]["event"] == "run-end",
        _span(events),
    )


def _select[T](
    shape: TypeAdapter[list[T]], events: Sequence[Mapping[str, Any]], kind: str, path: Path
) -> list[T]:
    chosen = [event for event in events if event["event"] == kind]
    return parse(shape, chosen, path / EVENTS)


def _span(events: Sequence[Mapping[str, Any]]) -> float:
    if not events:
        return 0.0
    start, end = (datetime.fromisoformat(events[place]["time"]) for place in (0, -1))
    return (end - start).total_seconds()
