"""What a run is, as its config.json says."""

from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ValidationError

from zk0 import rhythm
from zk0.record.reading import Part, unreadable
from zk0.record.tasks import dataset_of


class Settings(Part):
    """Keys of the run-config; those that older versions did not have may be missing."""

    num_server_rounds: int
    seed: int | None = None
    strategy: str | None = None
    preset: str | None = None
    eval_frequency: int = 1
    rollout_frequency: int = 0
    rollout_episodes: int = 0


class Client(BaseModel, frozen=True):
    client: int
    slug: str


class Dataset(BaseModel, frozen=True):
    slug: str


class Resumed(BaseModel, frozen=True):
    config: Settings | None = None


class About(BaseModel, frozen=True):
    kind: Literal["federated", "centralized", "local"] = "federated"  # the first runs had no others
    trained_on: tuple[int, ...] = ()
    config: Settings
    clients: tuple[Client, ...]
    server: tuple[Dataset, ...]
    resumed: tuple[Resumed, ...] = ()

    @cached_property
    def settings(self) -> Settings:
        """Those in force: a resumed run may go on for more rounds than it began with."""
        latest = [each.config for each in self.resumed if each.config is not None]
        return latest[-1] if latest else self.config

    @property
    def planned(self) -> int:
        return self.settings.num_server_rounds

    @cached_property
    def names(self) -> dict[int, str]:
        """The datasets of the clients that take part, by number; a baseline has fewer of them."""
        chosen = self.trained_on or [each.client for each in self.clients]
        return {each.client: each.slug for each in self.clients if each.client in chosen}

    @property
    def label(self) -> str:
        """The kind of run, for a person."""
        if self.kind != "local":
            return self.kind
        return " ".join(["local", *(f"{number} {slug}" for number, slug in self.names.items())])

    @property
    def method(self) -> str:
        """Strategy and preset; a baseline has no strategy."""
        strategy = self.settings.strategy if self.kind == "federated" else None
        return " ".join(filter(None, (strategy, self.settings.preset)))

    def is_evaluated(self, server_round: int) -> bool:
        """Whether the configuration wants an evaluation after this round."""
        return rhythm.is_evaluated(server_round, self.planned, self.settings.eval_frequency)

    def plays_rollouts(self, server_round: int) -> bool:
        """Whether it wants rollouts with it."""
        every = self.settings.eval_frequency, self.settings.rollout_frequency
        due = rhythm.has_rollouts(server_round, self.planned, *every)
        return bool(self.settings.rollout_episodes) and due

    def is_unseen(self, task: str) -> bool:
        """Whether a rollout's task is that of a server's dataset, which no client has."""
        clients, server = ({each.slug for each in part} for part in (self.clients, self.server))
        return dataset_of(task, clients | server) in server - clients


def parse_about(path: Path, text: str | bytes) -> About:
    """The content of the config.json at `path`; raises `Zk0Error` where it cannot be read."""
    try:
        return About.model_validate_json(text)
    except ValidationError as error:
        raise unreadable(path, error) from None
