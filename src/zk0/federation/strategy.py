"""FedProx as zk0 runs it: reproducible sampling and order, every reply in the record."""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedProx
from loguru import logger

from zk0.config import Config
from zk0.data.statistics import Moments
from zk0.errors import Zk0Error
from zk0.federation.roster import Client, explain, sample
from zk0.federation.wire import ARRAYS, CONFIG, NUM_EXAMPLES, Assignment, pack_assignment
from zk0.record.history import History

TRAIN, EVALUATE = 0, 1  # which of a round's two draws of clients a seed is for


class RecordedFedProx(FedProx):
    """Flower's FedProx, weighted by training frames, over the clients met before round 1.

    Replies are aggregated in the clients' order, not in that of their arrival, so that sums of
    floating-point numbers come out the same every time.
    """

    def __init__(
        self,
        config: Config,
        learning_rate: float,
        clients: Sequence[Client],
        statistics: Mapping[str, Moments],
        history: History,
    ) -> None:
        super().__init__(
            fraction_train=config.fraction_train,
            fraction_evaluate=config.fraction_evaluate,
            min_train_nodes=config.min_train_nodes,
            min_evaluate_nodes=1,
            min_available_nodes=config.min_available_nodes,
            weighted_by_key=NUM_EXAMPLES,
            arrayrecord_key=ARRAYS,
            configrecord_key=CONFIG,
            proximal_mu=config.proximal_mu,
        )
        self.learning_rate = learning_rate
        self.seed = config.seed
        self.clients = {client.node_id: client for client in clients}
        self.statistics = statistics
        self.history = history
        self._sent = time.perf_counter()  # when the last messages went out

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        chosen = self._sample(server_round, TRAIN, self.fraction_train, self.min_train_nodes)
        self._sent = time.perf_counter()
        return self._assign(server_round, arrays, chosen, MessageType.TRAIN)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        if not self.fraction_evaluate:
            return []
        chosen = self._sample(
            server_round, EVALUATE, self.fraction_evaluate, self.min_evaluate_nodes
        )
        self._sent = time.perf_counter()
        return self._assign(server_round, arrays, chosen, MessageType.EVALUATE)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Weighted mean of the replies; raises `Zk0Error` where no client trained."""
        self.history.add_seconds(server_round, "train", time.perf_counter() - self._sent)
        ordered, reasons = self._receive(server_round, replies)
        if not ordered:
            why = f": {reasons[0]}" if reasons else ", and none said why"
            raise Zk0Error(f"no client finished training in round {server_round}{why}")
        with self.history.timed(server_round, "aggregate"):
            arrays, metrics = super().aggregate_train(server_round, ordered)
        for reply in ordered:
            self.history.add_training(server_round, self._client(reply), _metrics(reply))
        self.history.add_aggregate(server_round, "train", dict(metrics or {}), len(reasons))
        return arrays, metrics

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        ordered, reasons = self._receive(server_round, replies)
        metrics = super().aggregate_evaluate(server_round, ordered)
        if ordered:
            self.history.add_seconds(server_round, "evaluate", time.perf_counter() - self._sent)
        for reply in ordered:
            self.history.add_evaluation(server_round, self._client(reply), _metrics(reply))
        if metrics is not None:
            self.history.add_aggregate(server_round, "evaluate", dict(metrics), len(reasons))
        return metrics

    def _sample(
        self, server_round: int, purpose: int, fraction: float, minimum: int
    ) -> list[Client]:
        return sample(
            list(self.clients.values()), fraction, minimum, [self.seed, server_round, purpose]
        )

    def _assign(
        self, server_round: int, arrays: ArrayRecord, chosen: Sequence[Client], kind: str
    ) -> Iterable[Message]:
        task = Assignment(server_round, self.learning_rate, self.proximal_mu, self.statistics)
        content = RecordDict({ARRAYS: arrays, CONFIG: pack_assignment(task)})
        return self._construct_messages(content, [client.node_id for client in chosen], kind)

    def _receive(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[list[Message], list[str]]:
        """Replies with content in the clients' order, and the reasons of those that failed."""
        sound, reasons = [], []
        for reply in replies:
            if reply.has_error():
                client, reason = self._client(reply), explain(reply)
                logger.error("round {}: client {} failed: {}", server_round, client.number, reason)
                self.history.add_failure(server_round, client, reason)
                reasons.append(reason)
            else:
                sound.append(reply)
        return sorted(sound, key=lambda reply: self._client(reply).number), reasons

    def _client(self, reply: Message) -> Client:
        return self.clients[reply.metadata.src_node_id]


def _metrics(reply: Message) -> dict[str, Any]:
    return dict(next(iter(reply.content.metric_records.values())))
