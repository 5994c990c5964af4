"""config.json: everything that a run's result depends on, and what it may be compared with."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from zk0.config import Config, Dataset, Datasets
from zk0.data.frames import Frames
from zk0.data.statistics import Statistics
from zk0.evaluation.policy_loss import NOISE_SEED
from zk0.federation.roster import Client, count_sampled
from zk0.learning.training import count_steps
from zk0.record.run_folder import describe_software

Kind = Literal["federated", "centralized", "local"]


def describe_run(
    kind: Kind,
    config: Config,
    datasets: Datasets,
    backbone: str,
    clients: Sequence[Client],
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
        "clients": _describe_clients(datasets, clients),
        "server": _describe_unseen(datasets, unseen),
        "budget": {
            "steps_per_client": plan_steps(config, clients),
            "batch_size": config.batch_size,
        },
        "evaluation": {
            "batches": config.eval_batches,
            "batch_size": config.batch_size,
            "noise_seed": NOISE_SEED,
            "normalization": _hash(statistics),
        },
    }


def _describe_clients(datasets: Datasets, clients: Sequence[Client]) -> list[dict[str, Any]]:
    listed = [_find_dataset(datasets, client.introduction.partition) for client in clients]
    return [
        {
            "client": client.number,
            "node_id": str(client.node_id),
            "slug": client.slug,
            "description": dataset.description if dataset else "",
            "hub": dataset.parsed.name if dataset and dataset.parsed.kind == "hf" else "",
            "fingerprint": client.introduction.fingerprint,
            "training_episodes": client.introduction.episodes,
            "training_frames": client.frames,
            **client.introduction.recording.to_json(),
        }
        for client, dataset in zip(clients, listed, strict=True)
    ]


def _find_dataset(datasets: Datasets, partition: int) -> Dataset | None:
    """A simulated client's; of a deployed node's no more is known than what it says itself."""
    return datasets.clients[partition] if 0 <= partition < len(datasets.clients) else None


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


def plan_steps(config: Config, clients: Sequence[Client]) -> dict[str, int]:
    """Gradient steps that the federation plans for each client; of those sampled in part of the
    rounds, the expected number. Controls have the same in all."""
    sampled = count_sampled(len(clients), config.fraction_train, config.min_train_nodes)
    rounds = config.num_server_rounds * sampled / len(clients)
    return {str(each.number): round(rounds * steps_in_round(config, each)) for each in clients}


def steps_in_round(config: Config, client: Client) -> int:
    return count_steps(client.frames, config.batch_size, config.local_epochs, config.local_steps)


def _hash(statistics: Statistics) -> str:
    digest = hashlib.sha256()
    for feature in sorted(statistics):
        moments = statistics[feature]
        digest.update(feature.encode() + moments.mean.tobytes() + moments.variance.tobytes())
        for name, values in sorted(moments.order.items()):
            digest.update(name.encode() + values.tobytes())
    return digest.hexdigest()[:16]
