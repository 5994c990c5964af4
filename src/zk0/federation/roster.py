"""Who takes part: the clients' introductions, in an order that does not depend on chance."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from time import sleep

import numpy as np
from flwr.app import Message, MessageType, RecordDict
from flwr.serverapp import Grid
from loguru import logger

from zk0.data.statistics import ACTION, Statistics
from zk0.errors import Zk0Error
from zk0.federation.wire import Introduction, unpack_introduction

QUERY_TIMEOUT_S = 3600.0  # a client may have to make or download its dataset first
POLL_S = 1.0
FOLDERS = re.compile(r"""(['"])/[^'"]*/|(?<![\w.])/(?:[^\s/'":]+/)+""")  # of an absolute path


@dataclass(frozen=True, eq=False)
class Client:
    """A client as whoever trains knows it: its number in the record, its node (0 where there is
    none) and what it said of its data."""

    number: int
    node_id: int
    introduction: Introduction

    @property
    def slug(self) -> str:
        return self.introduction.slug

    @property
    def statistics(self) -> Statistics:
        """Of the frames that are trained on."""
        return self.introduction.statistics

    @property
    def frames(self) -> int:
        """That are trained on."""
        return self.statistics[ACTION].count

    def __str__(self) -> str:
        return f"client {self.number} ({self.slug})"


def meet_clients(grid: Grid, min_available: int) -> list[Client]:
    """Wait for `min_available` nodes, ask each which dataset it has, and number them.

    Numbers follow the simulation's partitions, then slugs: the same in every run on the same data.
    Raises `Zk0Error` where too few can take part (in a simulation: not all).
    """
    replies = list(
        grid.send_and_receive(
            [
                Message(RecordDict(), dst_node_id=node, message_type=MessageType.QUERY)
                for node in wait_for_nodes(grid, min_available)
            ],
            timeout=QUERY_TIMEOUT_S,
        )
    )
    reasons = sorted({explain(reply) for reply in replies if reply.has_error()})
    clients = _number([reply for reply in replies if not reply.has_error()])
    for reason in reasons:
        logger.error("a client cannot take part: {}", reason)
    simulated = any(client.introduction.partition >= 0 for client in clients)
    if len(clients) < min_available or (reasons and simulated):
        why = f": {reasons[0]}" if reasons else "; the others did not answer."
        raise Zk0Error(f"{len(clients)} of {len(replies)} clients can take part{why}")
    return clients


def wait_for_nodes(grid: Grid, min_available: int) -> list[int]:
    """The connected nodes, as soon as there are enough of them."""
    seen = -1
    while len(nodes := sorted(grid.get_node_ids())) < min_available:
        if len(nodes) != seen:
            logger.info("waiting for clients: {} of {} connected", len(nodes), min_available)
            seen = len(nodes)
        sleep(POLL_S)
    return nodes


def sample(
    clients: Sequence[Client], fraction: float, minimum: int, seed: Iterable[int]
) -> list[Client]:
    """`fraction` of the clients but at least `minimum`, chosen by `seed`, in their order."""
    wanted = min(len(clients), max(int(fraction * len(clients)), minimum))
    chosen = np.random.default_rng(list(seed)).choice(len(clients), wanted, replace=False)
    return [clients[index] for index in sorted(chosen)]


def explain(reply: Message) -> str:
    """A failed reply's reason in one line, out of what Flower and Ray wrap around it; of paths on
    the client's machine only the last part."""
    reason = reply.error.reason or f"error {reply.error.code}"
    _, _, message = reason.rpartition("ClientAppException occurred. Message:")
    lines = message.strip().removesuffix("'>").splitlines()
    return FOLDERS.sub(r"\1", lines[-1]) if lines else "an error without a message"


def _number(answers: Sequence[Message]) -> list[Client]:
    met = [(unpack_introduction(reply), reply.metadata.src_node_id) for reply in answers]
    met.sort(key=lambda pair: (pair[0].partition, pair[0].slug, pair[0].fingerprint))
    return [Client(number, node, who) for number, (who, node) in enumerate(met)]
