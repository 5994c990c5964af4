"""What a federated run has to be compared with: all data in one place, and each client alone.

Configuration, data, gradient steps, learning rates, seeds, evaluation and record are the federated
run's; only the federating is left out. AdamW's moments last from the first step to the last, as
nobody who trains in one place would reset them every round.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from loguru import logger

from zk0.config import Config, Datasets, Logging
from zk0.data.statistics import Statistics, pool_statistics
from zk0.description import Kind, describe_run, steps_in_round
from zk0.errors import Zk0Error
from zk0.evaluation.server import ServerEvaluation
from zk0.evaluation.unseen import Unseen
from zk0.federation.compatibility import refuse_incompatible
from zk0.federation.plan import schedule_settings
from zk0.federation.roster import Client
from zk0.federation.schedules import ScheduleState, advance, begin, observe_start
from zk0.federation.wire import Introduction
from zk0.learning.batches import PooledBatches
from zk0.learning.integrity import hash_arrays
from zk0.learning.policy import Arrays, get_trainable, hash_backbone, set_trainable
from zk0.learning.training import LocalResult, LocalSteps, build_optimizer, train
from zk0.node import (
    Node,
    cache_options,
    refuse_issues,
    starting_arrays,
    warm_frames,
    warm_policy,
)
from zk0.publication import publish, save_model
from zk0.record.background import Background
from zk0.record.evidence import folder_of
from zk0.record.history import History
from zk0.record.log import logging_to
from zk0.record.run_folder import RunFolder
from zk0.record.trackers import open_trackers
from zk0.record.verdict import verdict


def run_control(
    kind: Kind,
    config: Config,
    datasets: Datasets,
    levels: Logging,
    groups: Sequence[Sequence[int]],
) -> None:
    """A run, in a folder of its own, for each of `groups`, which are numbers of clients. Raises
    `Zk0Error` where one should go on that was stopped: no state of theirs is kept."""
    if config.resume:
        raise Zk0Error("resume is for federated runs: a baseline keeps no state; begin it anew.")
    start = starting_arrays(config)
    for trained_on in groups:
        folder = RunFolder.create(config.output_dir)
        with logging_to(folder.path / "simulation.log", levels):
            names = ", ".join(datasets.clients[number].parsed.slug for number in trained_on)
            logger.info("{} baseline on {}", kind, names)
            Control(kind, config, datasets, trained_on).run(folder, start)
        print(f"Outputs: {folder.path}", flush=True)


@dataclass(frozen=True)
class Control:
    """A run without federating, on the data of `trained_on`, which are numbers of clients."""

    kind: Kind
    config: Config
    datasets: Datasets
    trained_on: Sequence[int]

    def run(self, folder: RunFolder, start: Arrays) -> None:
        """Train from `start` and evaluate as often as the federated run does, into `folder`."""
        for dataset in (*self.datasets.clients, *self.datasets.server):
            refuse_issues(dataset.parsed, self.config.allowed_issues)
        refuse_incompatible(
            {str(client): client.introduction for client in self.clients},
            {
                f"the server's {slug}": Introduction.of_unseen(data, self.backbone)
                for slug, data in self.unseen.datasets.items()
            },
            self.config.allowed_issues,
        )
        set_trainable(warm_policy(self.config), start)
        folder.describe(self.description, resumed_after=None)
        config = self.config
        with (
            open_trackers(config, folder.path) as trackers,
            Background() as background,
        ):
            history = History(folder, trackers, background)
            sources = [each.parsed for each in (*self.datasets.clients, *self.datasets.server)]
            begin = partial(starting_arrays, config)
            evaluation = ServerEvaluation(
                config, self.unseen, self.statistics, sources, history, begin
            )
            Training(self, evaluation).run()
            logger.info("{}", verdict(history.server_losses, history.successes))

    @cached_property
    def nodes(self) -> list[Node]:
        """All clients' data, also of those that are not trained on."""
        return [Node(self.config, dataset.parsed) for dataset in self.datasets.clients]

    @property
    def backbone(self) -> str:
        return hash_backbone(warm_policy(self.config))

    @cached_property
    def clients(self) -> list[Client]:
        said = (
            Introduction.of(
                node.frames, node.training_frames, node.statistics, node.backbone, partition
            )
            for partition, node in enumerate(self.nodes)
        )
        return [Client(number, 0, introduction) for number, introduction in enumerate(said)]

    @cached_property
    def statistics(self) -> Statistics:
        """What normalises: the federation's pooled statistics, so that only the training differs;
        with normalization = "local" those of the data that is trained on."""
        federated = self.config.normalization == "federated"
        chosen = range(len(self.clients)) if federated else self.trained_on
        return pool_statistics([self.clients[number].statistics for number in chosen])

    @cached_property
    def unseen(self) -> Unseen:
        config = self.config
        policy, cache = warm_policy(config), cache_options(config)
        sources = [each.parsed for each in self.datasets.server]
        frames = {source.slug: warm_frames(policy, source) for source in sources}
        return Unseen(policy, frames, cache, config.batch_size, config.eval_batches)

    @property
    def description(self) -> dict[str, Any]:
        return describe_run(
            self.kind,
            self.config,
            self.datasets,
            self.backbone,
            self.clients,
            self.trained_on,
            self.unseen.datasets,
            self.statistics,
        )


class Training:
    """A control's rounds: as many steps as the federation makes in one, then an evaluation."""

    def __init__(self, control: Control, evaluation: ServerEvaluation) -> None:
        self.config, self.trained_on = control.config, control.trained_on
        self.nodes = {number: control.nodes[number] for number in control.trained_on}
        self.clients = {number: control.clients[number] for number in control.trained_on}
        self.evaluation = evaluation
        self.history = evaluation.history
        self.statistics = control.statistics
        self.policy = evaluation.unseen.policy
        self.optimizer = build_optimizer(self.policy)
        initial = self.config.initial_lr or self.policy.config.optimizer_lr
        self.settings = schedule_settings(self.config, initial)
        self.best: float | None = None
        parts = [node.batches(self.statistics, held_out=False) for node in self.nodes.values()]
        self.batches = PooledBatches(parts)
        self.steps = sum(steps_in_round(self.config, each) for each in self.clients.values())

    def run(self) -> None:
        loss = self.evaluation.evaluate(0)
        state = begin(self.settings)
        state = state if loss is None else observe_start(state, loss)
        self._keep(0, loss)
        for number in range(1, self.config.num_server_rounds + 1):
            state = self._round(number, state)
        self._save(self.config.num_server_rounds, "last")
        digest = hash_arrays(get_trainable(self.policy))
        self.history.folder.append("run-end", round=self.config.num_server_rounds, hash=digest)

    def _round(self, number: int, state: ScheduleState) -> ScheduleState:
        self.history.background.join()  # it may still be writing the policy
        self.history.add_plan(number, state.plan)
        self.history.add_phase(number, "train", list(self.clients.values()))
        with self.history.timed(number, "train"):
            result = self._train(number, state.plan.learning_rate)
        self._record(number, result, state.plan.learning_rate)
        loss = None
        if self.config.is_evaluated(number):
            self._evaluate_held_out(number)
            loss = self.evaluation.evaluate(number)
        self._keep(number, loss)
        return advance(self.settings, state, loss, {self.trained_on[0]: result.loss})

    def _train(self, number: int, rate: float) -> LocalResult:
        """No proximal term: there is nothing to stay near to. The first client's seed."""
        config = self.config
        final = config.eta_min if config.local_schedule == "cosine" else rate
        local = LocalSteps(self.steps, config.batch_size, rate, 0.0, final)
        seed = [config.seed, self.trained_on[0], number]
        compiled = config.compile == "on"
        return train(self.policy, self.batches, local, seed, compiled, optimizer=self.optimizer)

    def _record(self, number: int, result: LocalResult, rate: float) -> None:
        metrics = {**result.to_metrics(), "learning-rate": rate, "proximal-mu": 0.0}
        if len(self.clients) == 1:
            (client,) = self.clients.values()
            self.history.add_training(number, client, {"num-examples": client.frames, **metrics})
        self.history.add_aggregate(number, "train", metrics, failures=0)

    def _evaluate_held_out(self, number: int) -> None:
        if not self.config.fraction_evaluate:
            return
        thorough = self.config.is_thorough(number)
        self.history.add_phase(number, "evaluate", list(self.clients.values()))
        with self.history.timed(number, "evaluate"):
            for client, node in self.nodes.items():
                arrays = get_trainable(self.policy)
                result = node.evaluate(arrays, self.statistics, predict=thorough)
                metrics = {"num-examples": result.frames, **result.to_metrics()}
                self.history.add_evaluation(number, self.clients[client], metrics)
                if thorough:
                    who = f"client_{client}"
                    folder = folder_of(self.history.folder.path, number, who)
                    node.film(self.statistics, folder, who, number, result.loss)

    def _keep(self, number: int, loss: float | None) -> None:
        interval = self.config.checkpoint_interval
        is_best = loss is not None and (self.best is None or loss < self.best)
        if is_best:
            self.best = loss
        if is_best or (interval and number % interval == 0):
            self._save(number, *(["best"] if is_best else []))
        publish(self.history, self.config.is_evaluated(number))

    def _save(self, number: int, *names: str) -> None:
        keep = self.config.keep_checkpoints
        save_model(self.history, self.policy, self.statistics, number, names, keep)
