"""One federated run, from the clients' introductions to the last checkpoint."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from flwr.app import ArrayRecord
from flwr.serverapp import Grid
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from loguru import logger

from zk0.config import Config, Datasets
from zk0.data.frames import Frames
from zk0.data.statistics import Moments, pool_statistics
from zk0.errors import Zk0Error
from zk0.evaluation.unseen import Unseen, composite, to_json
from zk0.federation.plan import schedule_settings
from zk0.federation.resume import Kept, pack_state, unpack_state
from zk0.federation.roster import Client, meet_clients
from zk0.federation.rounds import Progress, Rounds
from zk0.federation.schedules import begin
from zk0.federation.server_optimizer import ServerOptimizer, open_server_optimizer
from zk0.federation.simulation import heal_actor_pool
from zk0.federation.state import State, load_state, save_state
from zk0.learning.policy import get_trainable, load_trainable, set_trainable
from zk0.learning.scaffold import zeros_like
from zk0.node import cache_options, warm_frames, warm_policy
from zk0.record.background import Background
from zk0.record.checkpoint import forget_after, save_checkpoint
from zk0.record.history import History
from zk0.record.run_folder import RunFolder, describe_software
from zk0.record.trackers import open_tracker


def federate(
    grid: Grid, config: Config, datasets: Datasets, folder: RunFolder, flower_run_id: int
) -> None:
    """Run all rounds, or those that a resumed run has left; raises `Zk0Error` where the run cannot
    begin or go on."""
    policy = warm_policy(config)
    frames = {dataset.parsed.slug: warm_frames(dataset.parsed) for dataset in datasets.server}
    unseen = Unseen(
        policy, frames, cache_options(config), config.batch_size, config.eval_batches, config.seed
    )
    clients = meet_clients(
        grid, config.min_available_nodes, [data.fingerprint for data in frames.values()]
    )
    heal_actor_pool()
    description = describe_run(config, datasets, clients, frames, flower_run_id)
    state = None
    if config.resume:
        refuse_other_evaluation(folder.read("config.json"), description)
        state = load_state(folder.path)
    folder.describe(description, resumed_after=state.server_round if state else None)
    with (
        open_tracker(config.use_wandb, folder.path, config.to_run_config()) as tracker,
        Background() as background,
    ):
        history = History(folder, tracker, background)
        Federation(grid, config, unseen, clients, history, state).run()
        logger.info("{}", verdict(history.server_losses))


class Federation:
    """The parts of a run put together, new or as a `state` left them."""

    def __init__(
        self,
        grid: Grid,
        config: Config,
        unseen: Unseen,
        clients: Sequence[Client],
        history: History,
        state: State | None,
    ) -> None:
        policy = unseen.policy
        self.settings = schedule_settings(config, config.initial_lr or policy.config.optimizer_lr)
        self.optimizer = open_server_optimizer(
            config.strategy,
            config.server_learning_rate,
            config.server_momentum,
            config.server_beta_2,
            config.server_tau,
        )
        statistics: Mapping[str, Moments]
        if state is None:
            statistics = pool_statistics([client.introduction.statistics for client in clients])
            self.progress = self._start(config, policy)
        else:
            self.progress, statistics = self._resume(config, state, clients, history)
        server = ServerSide(config, unseen, clients, statistics, self.optimizer, history)
        self.rounds = Rounds(
            grid, config, self.settings, self.optimizer, clients, statistics, server, history
        )

    def run(self) -> None:
        self.rounds.run(self.progress)

    def _start(self, config: Config, policy: SmolVLAPolicy) -> Progress:
        arrays = get_trainable(policy)
        if config.start_from:
            arrays = load_trainable(policy, config.start_from)
            logger.info("starting from the weights of {}", config.start_from)
        schedule, _ = begin(self.settings)
        control = _pack(zeros_like(arrays)) if config.strategy == "scaffold" else None
        return Progress(0, _pack(arrays), control, schedule)

    def _resume(
        self, config: Config, state: State, clients: Sequence[Client], history: History
    ) -> tuple[Progress, Mapping[str, Moments]]:
        kept = unpack_state(state, config, clients)
        self.optimizer.restore(dict(state.optimizer))
        history.restore(kept.history)
        models = history.folder.path / "models"
        forget_after(models, state.server_round, kept.progress.best_round)
        logger.info("going on after round {} in {}", state.server_round, history.folder.path)
        return kept.progress, kept.statistics


def _pack(arrays: Mapping[str, torch.Tensor]) -> ArrayRecord:
    return ArrayRecord({name: tensor.cpu() for name, tensor in arrays.items()})


class ServerSide:
    """What the server itself does with the global arrays: evaluate, save, keep the state."""

    def __init__(
        self,
        config: Config,
        unseen: Unseen,
        clients: Sequence[Client],
        statistics: Mapping[str, Moments],
        optimizer: ServerOptimizer,
        history: History,
    ) -> None:
        self.config = config
        self.unseen = unseen
        self.clients = clients
        self.statistics = statistics
        self.optimizer = optimizer
        self.history = history
        self.datasets = unseen.normalised(statistics)

    def evaluate(self, server_round: int, arrays: ArrayRecord) -> float | None:
        """The mean loss on the unseen datasets; None, with the reason in the record, where it
        cannot be measured."""
        self._take(arrays)
        try:
            with self.history.timed(server_round, "server-evaluate"):
                losses = self.unseen.evaluate(self.datasets)
        except (Zk0Error, OSError, ValueError, RuntimeError) as error:
            logger.opt(exception=True).debug("where it was raised")
            self.history.add_server_error(server_round, f"{type(error).__name__}: {error}")
            return None
        loss = composite(losses)
        if not math.isfinite(loss):
            self.history.add_server_error(server_round, f"the policy loss is {loss}")
            return None
        self.history.add_server_evaluation(server_round, loss, to_json(losses))
        parts = ", ".join(f"{slug} {result.loss:.4f}" for slug, result in losses.items())
        logger.info("round {}: policy loss {:.4f} ({})", server_round, loss, parts)
        return loss

    def save(self, server_round: int, arrays: ArrayRecord, *names: str) -> None:
        """A model checkpoint, in the background; the policy does not change before it is done."""
        self._take(arrays)
        save = partial(
            save_checkpoint,
            self.history.folder.path / "models",
            server_round,
            self.unseen.policy,
            self.statistics,
            names,
            self.config.keep_checkpoints,
        )
        self.history.background.submit(save)

    def close(self, progress: Progress) -> None:
        """Keep the state, in the background ahead of any chart, and bring the record up to date."""
        state = pack_state(
            Kept(progress, self.statistics, self.history.to_json()),
            self.config,
            self.clients,
            self.optimizer.state(),
        )
        keep = self.config.keep_checkpoints
        self.history.background.submit(partial(save_state, self.history.folder.path, state, keep))
        self.history.close_round()

    def _take(self, arrays: ArrayRecord) -> None:
        self.history.background.join()  # it may still be writing the policy
        set_trainable(self.unseen.policy, arrays.to_torch_state_dict())


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


def refuse_other_evaluation(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise `Zk0Error` where a resumed run would be evaluated on other data than before."""
    was, is_now = (
        {dataset["slug"]: dataset["fingerprint"] for dataset in description["server"]}
        for description in (before, now)
    )
    if was != is_now:
        raise Zk0Error(
            f"the run to resume was evaluated on {', '.join(was)} as they were then, and the "
            "server's datasets are others now: give the same, or begin anew with start-from."
        )


def verdict(losses: Mapping[str, Mapping[int, float]]) -> str:
    """One honest sentence: is the last policy better than the one before round 1, and the best?"""
    curve = losses["composite"]
    if 0 not in curve or max(curve) == 0:
        return "no verdict: the server's evaluation failed before round 1 or in all rounds after it"
    start, end, best = curve[0], curve[max(curve)], min(curve, key=curve.__getitem__)
    change = f"{start:.4f} -> {end:.4f} ({end / start - 1:+.0%})"
    judgement = "better than its start" if end < start else "NOT better than its start"
    parts = ", ".join(
        f"{name} {values[0]:.4f} -> {values[max(values)]:.4f}"
        for name, values in losses.items()
        if name != "composite"
    )
    return f"policy loss {change}: {judgement}; best in round {best} ({curve[best]:.4f}); {parts}"
