"""One federated run, from the clients' introductions to the last checkpoint."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from flwr.app import ArrayRecord
from flwr.serverapp import Grid
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from loguru import logger

from zk0.config import Config, Datasets
from zk0.data.sources import Source
from zk0.data.statistics import Statistics, pool_statistics
from zk0.description import describe_run
from zk0.errors import Zk0Error
from zk0.evaluation.server import ServerEvaluation
from zk0.evaluation.unseen import Unseen
from zk0.federation.compatibility import refuse_incompatible
from zk0.federation.plan import schedule_settings
from zk0.federation.resume import Kept, pack_state, unpack_state
from zk0.federation.roster import Client, meet_clients
from zk0.federation.rounds import Progress, Rounds
from zk0.federation.schedules import begin
from zk0.federation.server_optimizer import ServerOptimizer, open_server_optimizer
from zk0.federation.simulation import heal_actor_pool
from zk0.federation.state import load_state, save_state
from zk0.federation.wire import Introduction
from zk0.learning.normalisation import check_statistics
from zk0.learning.policy import hash_backbone, set_trainable
from zk0.learning.scaffold import zeros_like
from zk0.node import cache_options, refuse_issues, starting_arrays, warm_frames, warm_policy
from zk0.publication import publish, save_model
from zk0.record.background import Background
from zk0.record.checkpoint import forget_after
from zk0.record.history import History
from zk0.record.hub import push_or_skip
from zk0.record.run_folder import CONFIG, RunFolder
from zk0.record.trackers import open_trackers
from zk0.record.verdict import verdict


def federate(
    grid: Grid, config: Config, datasets: Datasets, folder: RunFolder, flower_run_id: int
) -> None:
    """Run all rounds, or those that a resumed run has left; raises `Zk0Error` where the run cannot
    begin or go on."""
    policy = warm_policy(config)
    sources = [dataset.parsed for dataset in datasets.server]
    for source in sources:
        refuse_issues(source, config.allowed_issues)
    frames = {source.slug: warm_frames(policy, source) for source in sources}
    unseen = Unseen(policy, frames, cache_options(config), config.batch_size, config.eval_batches)
    clients, backbone = meet_clients(grid, config.min_available_nodes), hash_backbone(policy)
    refuse_incompatible(
        {str(client): client.introduction for client in clients},
        {
            f"the server's {slug}": Introduction.of_unseen(data, backbone)
            for slug, data in frames.items()
        },
        config.allowed_issues,
    )
    for client in clients:
        check_statistics(policy.config, client.statistics, f"{client}: the statistics")
    heal_actor_pool()
    statistics = pool_statistics([client.statistics for client in clients])
    numbers = [each.number for each in clients]
    description = {
        "flower_run_id": str(flower_run_id),
        **describe_run(
            "federated", config, datasets, backbone, clients, numbers, frames, statistics
        ),
    }
    kept = take_up(folder, config, description, clients) if config.resume else None
    folder.describe(description, resumed_after=kept.progress.server_round if kept else None)
    with open_trackers(config, folder.path) as trackers, Background() as background:
        history = History(folder, trackers, background)
        sources = [dataset.parsed for dataset in (*datasets.clients, *datasets.server)]
        federation = Federation(grid, config, unseen, sources, clients, statistics, history, kept)
        last_round = federation.run()
        logger.info("{}", verdict(history.server_losses, history.successes))
    share_model(config, folder, last_round)


def take_up(
    folder: RunFolder, config: Config, description: Mapping[str, Any], clients: Sequence[Client]
) -> Kept:
    """What the run to resume has left, read before any of its files changes; raises `Zk0Error`
    where configuration, clients or the server's data are not its own."""
    refuse_other_evaluation(folder.read(CONFIG), description)
    return unpack_state(load_state(folder.path), config, clients)


def share_model(config: Config, folder: RunFolder, last_round: int) -> None:
    """Push the run's checkpoint to the Hub where that is wished; a run outlives a failure to."""
    if not config.hf_repo_id:
        return
    if last_round < config.hf_push_min_rounds:
        least = config.hf_push_min_rounds
        logger.info("not on the Hub: {} rounds, hf-push-min-rounds = {}", last_round, least)
        return
    checkpoint = folder.path / "models" / config.hf_push
    if url := push_or_skip(checkpoint, config.hf_repo_id, config.hf_private):
        logger.info("on the Hub: {}", url)


class Federation:
    """The parts of a run put together, new or as they were `kept`."""

    def __init__(
        self,
        grid: Grid,
        config: Config,
        unseen: Unseen,
        sources: Sequence[Source],
        clients: Sequence[Client],
        statistics: Statistics,
        history: History,
        kept: Kept | None,
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
        if kept is None:
            self.progress = self._start(config, policy)
        else:
            self.progress, statistics = kept.progress, kept.statistics
            self._resume(kept, history)
        start = partial(starting_arrays, config)
        evaluation = ServerEvaluation(config, unseen, statistics, sources, history, start)
        server = ServerSide(config, evaluation, clients, self.optimizer)
        self.rounds = Rounds(
            grid, config, self.settings, self.optimizer, clients, statistics, server, history
        )

    def run(self) -> int:
        """All rounds; the number of the last one."""
        return self.rounds.run(self.progress).server_round

    def _start(self, config: Config, policy: SmolVLAPolicy) -> Progress:
        arrays = starting_arrays(config, policy)
        if config.start_from:
            logger.info("starting from the weights of {}", config.start_from)
        schedule = begin(self.settings)
        control = _pack(zeros_like(arrays)) if config.strategy == "scaffold" else None
        return Progress(0, _pack(arrays), control, schedule)

    def _resume(self, kept: Kept, history: History) -> None:
        self.optimizer.restore(dict(kept.optimizer))
        history.restore(kept.history)
        last, path = kept.progress.server_round, history.folder.path
        forget_after(path / "models", last, kept.progress.best_round)
        logger.info("going on after round {} in {}", last, path)


def _pack(arrays: Mapping[str, torch.Tensor]) -> ArrayRecord:
    return ArrayRecord({name: tensor.cpu() for name, tensor in arrays.items()})


class ServerSide:
    """What the server itself does with the global arrays: evaluate, save, keep the state."""

    def __init__(
        self,
        config: Config,
        evaluation: ServerEvaluation,
        clients: Sequence[Client],
        optimizer: ServerOptimizer,
    ) -> None:
        self.config = config
        self.evaluation = evaluation
        self.clients = clients
        self.optimizer = optimizer
        self.history = evaluation.history
        self.statistics = evaluation.statistics

    def evaluate(self, server_round: int, arrays: ArrayRecord) -> float | None:
        """The mean loss on the unseen datasets; None, with the reason in the record, where it
        cannot be measured."""
        self._take(arrays)
        return self.evaluation.evaluate(server_round)

    def save(self, server_round: int, arrays: ArrayRecord, *names: str) -> None:
        """A model checkpoint, in the background; the policy does not change before it is done."""
        self._take(arrays)
        policy, keep = self.evaluation.unseen.policy, self.config.keep_checkpoints
        save_model(self.history, policy, self.statistics, server_round, names, keep)

    def close(self, progress: Progress) -> None:
        """Keep the state, in the background ahead of any chart, and bring the record up to date."""
        optimizer = self.optimizer.state()
        kept = Kept(progress, self.statistics, self.history.to_json(), optimizer)
        state = pack_state(kept, self.config, self.clients)
        keep = self.config.keep_checkpoints
        self.history.background.submit(partial(save_state, self.history.folder.path, state, keep))
        shown = self.config.is_evaluated(progress.server_round) or progress.void_rounds > 0
        publish(self.history, shown)

    def conclude(self, server_round: int, arrays: ArrayRecord) -> None:
        """See to it that the last model has been evaluated thoroughly, and save it."""
        self._take(arrays)
        self.evaluation.conclude(server_round)
        self.save(server_round, arrays, "last")
        publish(self.history)

    def _take(self, arrays: ArrayRecord) -> None:
        self.history.background.join()  # it may still be writing the policy
        set_trainable(self.evaluation.unseen.policy, arrays.to_torch_state_dict())


def refuse_other_evaluation(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise `Zk0Error` where a resumed run would go on from another backbone, or be evaluated on
    other data, than before."""
    if before.get("backbone", now["backbone"]) != now["backbone"]:  # older runs have none
        raise Zk0Error(
            f"the run to resume was made on the frozen backbone {before['backbone'][:12]}, and "
            f"this is {now['backbone'][:12]}: install zk0 as it was then, or begin anew."
        )
    was, is_now = (
        {dataset["slug"]: dataset["fingerprint"] for dataset in description["server"]}
        for description in (before, now)
    )
    if was != is_now:
        raise Zk0Error(
            f"the run to resume was evaluated on {', '.join(was)} as they were then, and the "
            "server's datasets are others now: give the same, or begin anew with start-from."
        )
