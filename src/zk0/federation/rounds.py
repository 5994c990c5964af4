"""The rounds of a run: who takes part, what they are told, what becomes of their replies."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from flwr.app import ArrayRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid
from loguru import logger

from zk0.config import Config
from zk0.data.statistics import Moments
from zk0.errors import Zk0Error
from zk0.federation.aggregation import RunningMean
from zk0.federation.agreement import Agreement
from zk0.federation.exchange import exchange
from zk0.federation.intake import RefusedError, Training, check_evaluation, check_training
from zk0.federation.roster import Client, sample
from zk0.federation.schedules import ScheduleSettings, ScheduleState, advance, observe_start
from zk0.federation.server_optimizer import ServerOptimizer
from zk0.federation.wire import (
    ARRAYS,
    CONFIG,
    CONTROL,
    NUM_EXAMPLES,
    Assignment,
    Decoded,
    hash_record,
    pack_arrays,
    pack_assignment,
)
from zk0.record.history import History

TRAIN, EVALUATE = 0, 1  # which of a round's two draws of clients a seed is for


@dataclass(frozen=True)
class Progress:
    """Where the federation stands after a round."""

    server_round: int
    arrays: ArrayRecord
    control: ArrayRecord | None  # SCAFFOLD's c
    schedule: ScheduleState  # its plan is that of the next round
    best_loss: float | None = None
    best_round: int = 0
    evaluations_since_best: int = 0
    void_rounds: int = 0

    def judged(self, server_round: int, loss: float | None) -> "Progress":
        """With the server's loss of a round, None where it was not evaluated, taken note of."""
        if loss is None:
            return self
        if self.best_loss is None or loss < self.best_loss:
            return replace(self, best_loss=loss, best_round=server_round, evaluations_since_best=0)
        return replace(self, evaluations_since_best=self.evaluations_since_best + 1)


class Server(Protocol):
    """What is done on the server itself, after each round."""

    def evaluate(self, server_round: int, arrays: ArrayRecord) -> float | None: ...

    def save(self, server_round: int, arrays: ArrayRecord, *names: str) -> None:
        """Write a model checkpoint and let `names` ("best", "last") mean it."""

    def close(self, progress: Progress) -> None:
        """Keep what the next round depends on, and bring the record up to date."""

    def conclude(self, server_round: int, arrays: ArrayRecord) -> None:
        """Do what is due once, after the last round."""


class Rounds:
    """A run's rounds over the clients that were met before it."""

    def __init__(
        self,
        grid: Grid,
        config: Config,
        settings: ScheduleSettings,
        optimizer: ServerOptimizer,
        clients: Sequence[Client],
        statistics: Mapping[str, Moments],
        server: Server,
        history: History,
    ) -> None:
        self.grid = grid
        self.config = config
        self.settings = settings
        self.optimizer = optimizer
        self.clients = clients
        self.statistics = statistics
        self.server = server
        self.history = history

    def run(self, progress: Progress) -> Progress:
        """All rounds after `progress`; raises `Zk0Error` where the run cannot go on."""
        if progress.server_round == 0 and progress.best_loss is None:
            progress = self._begin(progress)
        while (reason := self._reason_to_end(progress)) is None:
            progress = self._round(progress)
        logger.info("the run ends after round {}: {}", progress.server_round, reason)
        self.server.conclude(progress.server_round, progress.arrays)
        digest = hash_record(progress.arrays)
        self.history.folder.append("run-end", round=progress.server_round, hash=digest)
        return progress

    def _begin(self, progress: Progress) -> Progress:
        loss = self.server.evaluate(0, progress.arrays)
        if loss is not None:
            progress = replace(progress, schedule=observe_start(progress.schedule, loss))
            self.server.save(0, progress.arrays, "best")
        progress = progress.judged(0, loss)
        self.server.close(progress)
        return progress

    def _round(self, before: Progress) -> Progress:
        number = before.server_round + 1
        self.history.add_plan(number, before.schedule.plan)
        after, losses = self._train(number, before)
        loss = None
        if self._is_due(number, after):
            self._evaluate_clients(number, after)
            loss = self.server.evaluate(number, after.arrays)
        schedule = advance(self.settings, before.schedule, loss, losses)
        after = replace(after, server_round=number, schedule=schedule).judged(number, loss)
        self._save(number, after)
        self.server.close(after)
        return after

    def _reason_to_end(self, progress: Progress) -> str | None:
        config = self.config
        if progress.void_rounds >= config.max_void_rounds:
            raise Zk0Error(
                f"{progress.void_rounds} rounds in a row had fewer than min-train-nodes = "
                f"{config.min_train_nodes} valid replies; the last: {self.history.last_failure()}"
            )
        if progress.server_round >= config.num_server_rounds:
            return "all rounds are done"
        since, best = progress.evaluations_since_best, progress.best_loss
        if config.early_stop_rounds and since >= config.early_stop_rounds:
            return f"{since} evaluations without a better loss than round {progress.best_round}'s"
        if config.target_loss and best is not None and best <= config.target_loss:
            return f"target-loss = {config.target_loss:g} is reached"
        return None

    def _save(self, number: int, progress: Progress) -> None:
        interval = self.config.checkpoint_interval
        best = ["best"] if progress.best_round == number else []
        if best or (interval and number % interval == 0):
            self.server.save(number, progress.arrays, *best)

    # --- training ---------------------------------------------------------------------------------

    def _train(self, number: int, progress: Progress) -> tuple[Progress, dict[int, float]]:
        """The progress with new arrays, or one void round more, and the clients' losses."""
        chosen = self._sample(number, TRAIN, self.config.fraction_train)
        contents = self._assign(number, progress, chosen, progress.control)
        self.history.add_phase(number, "train", chosen)
        with self.history.timed(number, "train"):
            intake = self._collect(number, progress, contents)
        self._count_bytes(number, progress, len(chosen), len(intake.metrics))
        failures = len(chosen) - len(intake.metrics)
        self.history.add_aggregate(number, "train", _average(intake.metrics), failures)
        self.history.add_agreement(number, intake.agreement.to_json())
        if len(intake.metrics) < self.config.min_train_nodes:
            self.history.add_void(number, len(intake.metrics), self.config.min_train_nodes)
            return replace(progress, void_rounds=progress.void_rounds + 1), {}
        with self.history.timed(number, "aggregate"):
            progress = self._step(number, progress, intake)
        return progress, {client: values["loss"] for client, values in intake.metrics.items()}

    def _collect(
        self, number: int, progress: Progress, contents: Mapping[Client, RecordDict]
    ) -> "Intake":
        intake = Intake(Agreement(Decoded(progress.arrays)), self._weigh)
        for client, reply in self._replies(number, contents, MessageType.TRAIN):
            self._fold(number, progress, client, reply, intake)
            del reply  # of full size before the next one comes
        return intake

    def _fold(
        self, number: int, progress: Progress, client: Client, reply: Message, intake: "Intake"
    ) -> None:
        scaffold = progress.control is not None
        limit = self.config.max_update_norm
        try:
            with self.history.timed(number, "aggregate"):
                training = check_training(reply, client, progress.arrays, scaffold, limit)
                intake.add(client, training)
        except RefusedError as reason:
            self._refuse(number, client, str(reason))
        else:
            self.history.add_training(number, client, training.metrics)

    def _step(self, number: int, progress: Progress, intake: "Intake") -> Progress:
        self.history.background.join()  # it may still be writing the optimizer's arrays
        mean = intake.mean.take()
        arrays = pack_arrays(self.optimizer.step(number, Decoded(progress.arrays), mean))
        control = progress.control
        if control is not None:
            control = self._move_control(control, intake)
        return replace(progress, arrays=arrays, control=control, void_rounds=0)

    def _move_control(self, control: ArrayRecord, intake: "Intake") -> ArrayRecord:
        """c + |S|/N * mean of the changes: SCAFFOLD's algorithm 1, with clients counted by their
        weights, so that it seeks the same optimum as the weighted mean of the other strategies."""
        every = sum(self._weigh(client.frames) for client in self.clients)
        share, moved = intake.change.weight / every, intake.change.take()
        return pack_arrays(
            {name: old + share * moved[name] for name, old in Decoded(control).items()}
        )

    def _weigh(self, frames: int) -> int:
        """A client's weight in the means, by its training frames."""
        return frames if self.config.client_weighting == "frames" else 1

    def _count_bytes(self, number: int, progress: Progress, sent: int, received: int) -> None:
        """Of the arrays, which a message is all but made of; a reply is as large as the message."""
        size = progress.arrays.count_bytes()
        size += progress.control.count_bytes() if progress.control is not None else 0
        self.history.add_bytes(number, sent * size, received * size)

    # --- evaluation -------------------------------------------------------------------------------

    def _is_due(self, number: int, after: Progress) -> bool:
        """Whether the round is one to evaluate after, and the weights are not those of the last
        evaluation, as after void rounds."""
        since = number % self.config.eval_frequency or self.config.eval_frequency
        return self.config.is_evaluated(number) and after.void_rounds < since

    def _evaluate_clients(self, number: int, progress: Progress) -> None:
        if not self.config.fraction_evaluate:
            return
        chosen = self._sample(number, EVALUATE, self.config.fraction_evaluate)
        contents = self._assign(number, progress, chosen, None)
        self.history.add_phase(number, "evaluate", chosen)
        self._count_bytes(number, replace(progress, control=None), len(chosen), 0)
        metrics: dict[int, dict[str, Any]] = {}
        with self.history.timed(number, "evaluate"):
            for client, reply in self._replies(number, contents, MessageType.EVALUATE):
                try:
                    metrics[client.number] = check_evaluation(reply)
                except RefusedError as reason:
                    self._refuse(number, client, str(reason))
                else:
                    self.history.add_evaluation(number, client, metrics[client.number])
        if metrics:
            failures = len(chosen) - len(metrics)
            self.history.add_aggregate(number, "evaluate", _average(metrics), failures)

    # --- messages ---------------------------------------------------------------------------------

    def _sample(self, number: int, purpose: int, fraction: float) -> list[Client]:
        minimum = self.config.min_train_nodes if purpose == TRAIN else 1
        return sample(self.clients, fraction, minimum, [self.config.seed, number, purpose])

    def _assign(
        self,
        number: int,
        progress: Progress,
        chosen: Sequence[Client],
        control: ArrayRecord | None,
    ) -> dict[Client, RecordDict]:
        """What each client is sent: the same arrays, and its own learning rate."""
        records = {ARRAYS: progress.arrays} | ({} if control is None else {CONTROL: control})
        hashes = {name: hash_record(record) for name, record in records.items()}
        plan, cosine = progress.schedule.plan, self.config.local_schedule == "cosine"
        contents = {}
        for client in chosen:
            rate = plan.learning_rate_of(client.number)
            assignment = Assignment(
                client=client.number,
                server_round=number,
                learning_rate=rate,
                final_learning_rate=self.config.eta_min if cosine else rate,
                proximal_mu=plan.proximal_mu,
                timeout=self.config.round_timeout,
                statistics=self.statistics,
                hashes=hashes,
            )
            contents[client] = RecordDict({**records, CONFIG: pack_assignment(assignment)})
        return contents

    def _replies(
        self, number: int, contents: Mapping[Client, RecordDict], kind: str
    ) -> Iterator[tuple[Client, Message]]:
        """Replies as they come; a client without one is in the record."""
        for client, reply in exchange(self.grid, contents, kind, self.config.round_timeout):
            if reply is None:
                seconds = self.config.round_timeout
                self._refuse(number, client, f"no reply within round-timeout = {seconds:g} s")
            else:
                yield client, reply
            del reply

    def _refuse(self, number: int, client: Client, reason: str) -> None:
        logger.error("round {}: client {} left out: {}", number, client.number, reason)
        self.history.add_failure(number, client, reason)


class Intake:
    """What a round's valid replies have added up to so far."""

    def __init__(self, agreement: Agreement, weigh: Callable[[int], int]) -> None:
        self.mean, self.change = RunningMean(), RunningMean()
        self.agreement = agreement
        self.weigh = weigh
        self.metrics: dict[int, dict[str, Any]] = {}

    def add(self, client: Client, training: Training) -> None:
        weight = self.weigh(training.examples)
        self.mean.add(training.arrays, weight)
        self.change.add(training.control, weight)
        self.agreement.add(client.number, training.arrays)
        self.metrics[client.number] = training.metrics


def _average(metrics: Mapping[int, Mapping[str, Any]]) -> dict[str, float]:
    """Means over the clients, weighted by their examples, of the metrics that all of them sent."""
    ordered = [metrics[client] for client in sorted(metrics)]
    total = sum(values[NUM_EXAMPLES] for values in ordered)
    shared = [name for name in (ordered[0] if ordered else {}) if all(name in m for m in ordered)]
    return {
        name: sum(values[name] * values[NUM_EXAMPLES] for values in ordered) / total
        for name in shared
        if name != NUM_EXAMPLES
    }
