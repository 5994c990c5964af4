"""config.json: everything that a run's result depends on, and what it may be compared with."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

from zk0.config import Config, Datasets
from zk0.data.frames import Frames, Recording
from zk0.data.statistics import ACTION, Statistics
from zk0.evaluation.policy_loss import NOISE_SEED
from zk0.federation.wire import Introduction
from zk0.learning.training import count_steps
from zk0.record.run_folder import describe_software

Kind = Literal["federated", "centralized", "local"]


@dataclass(frozen=True)
class Party:
    """A client's data, as far as it is known to whoever trains."""

    number: int
    slug: str
    fingerprint: str
    episodes: int  # that are trained on
    statistics: Statistics
    recording: Recording
    node_id: int = 0

    @classmethod
    def of(cls, number: int, who: Introduction, node_id: int = 0) -> Self:
        return cls(
            number,
            who.slug,
            who.fingerprint,
            who.episodes,
            who.statistics,
            who.recording,
            node_id,
        )

    @property
    def frames(self) -> int:
        return self.statistics[ACTION].count


def describe_run(
    kind: Kind,
    config: Config,
    datasets: Datasets,
    backbone: str,
    parties: Sequence[Party],
    trained_on: Sequence[int],
    unseen: Mapping[str, Frames],
    statistics: Statistics,
) -> dict[str, Any]:
    """The parts that all kinds of runs have."""
    return {
        "kind": kind,
        "trained_on": list(trained_on),
        "config": config.to_run_config(),
        **describe_software(),
        "backbone": backbone,
        "clients": _describe_clients(datasets, parties),
        "server": _describe_unseen(datasets, unseen),
        "budget": {
            "steps_per_client": plan_steps(config, parties),
            "batch_size": config.batch_size,
        },
        "evaluation": {
            "batches": config.eval_batches,
            "batch_size": config.batch_size,
            "noise_seed": NOISE_SEED,
            "normalization": _hash(statistics),
        },
    }


def _describe_clients(datasets: Datasets, parties: Sequence[Party]) -> list[dict[str, Any]]:
    about = {dataset.parsed.slug: dataset.description for dataset in datasets.clients}
    return [
        {
            "client": party.number,
            "node_id": str(party.node_id),
            "slug": party.slug,
            "description": about.get(party.slug, ""),
            "fingerprint": party.fingerprint,
            "training_episodes": party.episodes,
            "training_frames": party.frames,
            **party.recording.to_json(),
        }
        for party in parties
    ]


def _describe_unseen(datasets: Datasets, unseen: Mapping[str, Frames]) -> list[dict[str, Any]]:
    found = [(dataset, unseen[dataset.parsed.slug]) for dataset in datasets.server]
    return [
        {
            "slug": frames.slug,
            "description": dataset.description,
            "fingerprint": frames.fingerprint,
            "episodes": frames.episode_count,
            "frames": len(frames),
            **frames.recording.to_json(),
        }
        for dataset, frames in found
    ]


def plan_steps(config: Config, parties: Sequence[Party]) -> dict[str, int]:
    """Gradient steps that the federation plans for each client; of those sampled in part of the
    rounds, the expected number. Controls have the same in all."""
    taking_part = max(int(config.fraction_train * len(parties)), config.min_train_nodes)
    rounds = config.num_server_rounds * min(1.0, taking_part / len(parties))
    return {str(party.number): round(rounds * steps_in_round(config, party)) for party in parties}


def steps_in_round(config: Config, party: Party) -> int:
    return count_steps(party.frames, config.batch_size, config.local_epochs, config.local_steps)


def _hash(statistics: Statistics) -> str:
    digest = hashlib.sha256()
    for feature in sorted(statistics):
        moments = statistics[feature]
        digest.update(feature.encode() + moments.mean.tobytes() + moments.variance.tobytes())
        for name, values in sorted(moments.order.items()):
            digest.update(name.encode() + values.tobytes())
    return digest.hexdigest()[:16]
