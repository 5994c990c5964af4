"""One federated run, from the clients' introductions to the last checkpoint."""

from collections.abc import Mapping, Sequence
from typing import Any

from flwr.app import ArrayRecord, MetricRecord
from flwr.serverapp import Grid
from loguru import logger

from zk0.config import Config, Datasets
from zk0.data.frames import Frames
from zk0.data.statistics import Moments, pool_statistics
from zk0.evaluation.unseen import Unseen, composite, to_json
from zk0.federation.roster import Client, meet_clients
from zk0.federation.strategy import RecordedFedProx
from zk0.learning.integrity import hash_arrays
from zk0.learning.policy import get_trainable, set_trainable
from zk0.node import cache_options, warm_frames, warm_policy
from zk0.record.checkpoint import save_checkpoint
from zk0.record.history import History
from zk0.record.run_folder import RunFolder, describe_software
from zk0.record.trackers import open_tracker

ROUND_TIMEOUT_S = 24 * 3600.0


def federate(
    grid: Grid, config: Config, datasets: Datasets, folder: RunFolder, flower_run_id: int
) -> None:
    """Run all rounds; raises `Zk0Error` where the run cannot begin or go on."""
    policy = warm_policy(config)
    frames = {dataset.parsed.slug: warm_frames(dataset.parsed) for dataset in datasets.server}
    unseen = Unseen(
        policy, frames, cache_options(config), config.batch_size, config.eval_batches, config.seed
    )
    clients = meet_clients(
        grid, config.min_available_nodes, [data.fingerprint for data in frames.values()]
    )
    folder.write("config.json", describe_run(config, datasets, clients, frames, flower_run_id))
    with (
        open_tracker(config.use_wandb, folder.path, config.to_run_config()) as tracker,
        History(folder, tracker) as history,
    ):
        statistics = pool_statistics([client.introduction.statistics for client in clients])
        rounds = Rounds(config, unseen, statistics, history)
        learning_rate = config.initial_lr or policy.config.optimizer_lr
        strategy = RecordedFedProx(config, learning_rate, clients, statistics, history)
        strategy.start(
            grid,
            ArrayRecord(get_trainable(policy)),
            config.num_server_rounds,
            ROUND_TIMEOUT_S,
            evaluate_fn=rounds.close,
        )
        logger.info("{}", verdict(history.server_losses))


class Rounds:
    """What the server does with the global arrays at the end of each round, 0 being the start."""

    def __init__(
        self,
        config: Config,
        unseen: Unseen,
        statistics: Mapping[str, Moments],
        history: History,
    ) -> None:
        self.config = config
        self.unseen = unseen
        self.statistics = statistics
        self.datasets = unseen.normalised(statistics)
        self.history = history

    def close(self, server_round: int, arrays: ArrayRecord) -> MetricRecord | None:
        """Evaluate and save where they are due, and bring the record up to date."""
        weights = arrays.to_torch_state_dict()
        set_trainable(self.unseen.policy, weights)
        last = server_round == self.config.num_server_rounds
        metrics = None
        if last or server_round % self.config.eval_frequency == 0:
            with self.history.timed(server_round, "server-evaluate"):
                metrics = self._evaluate(server_round)
        if self._is_checkpoint(server_round, last):
            with self.history.timed(server_round, "checkpoint"):
                self._save(server_round)
        if last:
            self.history.folder.append("run-end", round=server_round, hash=hash_arrays(weights))
        self.history.close_round()
        return metrics

    def _evaluate(self, server_round: int) -> MetricRecord:
        losses = self.unseen.evaluate(self.datasets)
        self.history.add_server_evaluation(server_round, composite(losses), to_json(losses))
        parts = ", ".join(f"{slug} {result.loss:.4f}" for slug, result in losses.items())
        logger.info("round {}: policy loss {:.4f} ({})", server_round, composite(losses), parts)
        return MetricRecord({"loss": composite(losses)})

    def _is_checkpoint(self, server_round: int, last: bool) -> bool:
        interval = self.config.checkpoint_interval
        return last or bool(interval and server_round and server_round % interval == 0)

    def _save(self, server_round: int) -> None:
        name = f"models/checkpoint_round_{server_round}"
        path = save_checkpoint(self.history.folder.path / name, self.unseen.policy, self.statistics)
        logger.info("round {}: checkpoint {}", server_round, path)


def describe_run(
    config: Config,
    datasets: Datasets,
    clients: Sequence[Client],
    unseen: Mapping[str, Frames],
    flower_run_id: int,
) -> dict[str, Any]:
    """config.json: everything that the run's result depends on."""
    about = {dataset.parsed.slug: dataset.description for dataset in datasets.clients}
    return {
        "flower_run_id": str(flower_run_id),
        "config": config.to_run_config(),
        **describe_software(),
        "clients": [
            {
                "client": client.number,
                "node_id": str(client.node_id),
                "slug": client.slug,
                "description": about.get(client.slug, ""),
                "fingerprint": client.introduction.fingerprint,
                "training_episodes": client.introduction.episodes,
                "training_frames": client.introduction.statistics["action"].count,
            }
            for client in clients
        ],
        "server": [
            {
                "slug": dataset.parsed.slug,
                "description": dataset.description,
                "fingerprint": unseen[dataset.parsed.slug].fingerprint,
                "episodes": unseen[dataset.parsed.slug].episode_count,
                "frames": len(unseen[dataset.parsed.slug]),
            }
            for dataset in datasets.server
        ],
    }


def verdict(losses: Mapping[str, Mapping[int, float]]) -> str:
    """One honest sentence: is the last policy better than the one before round 1, and the best?"""
    curve = losses["composite"]
    start, end, best = curve[0], curve[max(curve)], min(curve, key=curve.__getitem__)
    change = f"{start:.4f} -> {end:.4f} ({end / start - 1:+.0%})"
    judgement = "better than its start" if end < start else "NOT better than its start"
    parts = ", ".join(
        f"{name} {values[0]:.4f} -> {values[max(values)]:.4f}"
        for name, values in losses.items()
        if name != "composite"
    )
    return f"policy loss {change}: {judgement}; best in round {best} ({curve[best]:.4f}); {parts}"
