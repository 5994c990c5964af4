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
LONGEST_REASON = 500
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
    nodes = wait_for_nodes(grid, min_available)
    questions = [
        Message(RecordDict(), dst_node_id=node, message_type=MessageType.QUERY) for node in nodes
    ]
    met, reasons = [], []
    for reply in grid.send_and_receive(questions, timeout=QUERY_TIMEOUT_S):
        try:
            met.append((_introduction_in(reply), reply.metadata.src_node_id))
        except Zk0Error as error:
            reasons.append(str(error))
    for reason in sorted(set(reasons)):
        logger.error("a client cannot take part: {}", reason)
    simulated = any(introduction.partition >= 0 for introduction, _ in met)
    if len(met) < min_available or (reasons and simulated):
        why = f": {min(reasons)}" if reasons else "; the others did not answer."
        raise Zk0Error(f"{len(met)} of {len(nodes)} clients can take part{why}")
    return _number(met)


def wait_for_nodes(grid: Grid, min_available: int) -> list[int]:
    """The connected nodes, as soon as there are enough of them."""
    seen = -1
    while len(nodes := sorted(grid.get_node_ids())) < min_available:
        if len(nodes) != seen:
            logger.info("waiting for clients: {} of {} connected", len(nodes), min_available)
            seen = len(nodes)
        sleep(POLL_S)
    return nodes


def count_sampled(clients: int, fraction: float, minimum: int) -> int:
    """How many of so many clients take part in a round."""
    return min(clients, max(int(fraction * clients), minimum))


def sample(
    clients: Sequence[Client], fraction: float, minimum: int, seed: Iterable[int]
) -> list[Client]:
    """`fraction` of the clients but at least `minimum`, chosen by `seed`, in their order."""
    wanted = count_sampled(len(clients), fraction, minimum)
    chosen = np.random.default_rng(list(seed)).choice(len(clients), wanted, replace=False)
    return [clients[index] for index in sorted(chosen)]


def explain(reply: Message) -> str:
    """A failed reply's reason in one line, out of what Flower and Ray wrap around it; of paths on
    the client's machine only the last part, and nothing that could move a terminal's cursor."""
    reason = reply.error.reason or f"error {reply.error.code}"
    _, _, message = reason.rpartition("ClientAppException occurred. Message:")
    lines = message.strip().removesuffix("'>").splitlines()
    line = "".join(filter(str.isprintable, lines[-1] if lines else ""))
    return FOLDERS.sub(r"\1", line)[:LONGEST_REASON] or "an error without a message"


def _introduction_in(reply: Message) -> Introduction:
    """Raises `Zk0Error` with the client's own reason where it has none, or with what is wrong."""
    if reply.has_error():
        raise Zk0Error(explain(reply))
    return unpack_introduction(reply)


def _number(met: Iterable[tuple[Introduction, int]]) -> list[Client]:
    """Introductions with their nodes, in an order of their own."""
    ordered = sorted(met, key=lambda pair: (pair[0].partition, pair[0].slug, pair[0].fingerprint))
    return [Client(number, node, who) for number, (who, node) in enumerate(ordered)]
