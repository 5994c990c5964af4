"""Messages out and replies in, over a grid that loses, delays and reorders them."""

import time
from itertools import permutations

import pytest
from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.server.superlink.linkstate.utils import create_message_error_unavailable_res_message

from zk0.federation.exchange import exchange
from zk0.federation.roster import Client

from .grid import NEVER, LocalGrid
from .test_roster import CLIENTS

THREE = CLIENTS[:3]
NODES = [client.node_id for client in THREE]
SUPERLINK = 1


def contents(word: str = "") -> dict[Client, RecordDict]:
    return {client: RecordDict({"config": ConfigRecord({"word": word})}) for client in THREE}


def echo(message: Message) -> Message:
    return Message(message.content, reply_to=message)


def exchanged(
    grid: LocalGrid, timeout: float = 5.0, word: str = ""
) -> list[tuple[int, Message | None]]:
    """Clients' numbers and replies, in the order in which they came."""
    replies = exchange(grid, contents(word), MessageType.TRAIN, timeout)
    return [(client.number, reply) for client, reply in replies]


@pytest.mark.parametrize("order", permutations(NODES))
def test_replies_in_any_order_are_their_clients_own(order: tuple[int, ...]):
    replies = exchanged(LocalGrid(echo, NODES, order=order))
    came = [THREE[number].node_id for number, _ in replies]
    assert came == list(order)
    assert came == [reply.metadata.src_node_id for _, reply in replies if reply]


def test_a_late_reply_is_waited_for_and_the_others_come_first():
    grid = LocalGrid(echo, NODES, late={NODES[0]: 0.2})
    assert [number for number, _ in exchanged(grid)] == [1, 2, 0]


def test_flowers_own_error_is_that_of_the_client_it_speaks_for():
    def answer(message: Message) -> Message:
        if message.metadata.dst_node_id == NODES[1]:
            return create_message_error_unavailable_res_message(message.metadata, "node_unavail")
        return echo(message)

    replies = dict(exchanged(LocalGrid(answer, NODES)))
    error = replies[1]
    assert error is not None
    assert error.metadata.src_node_id == SUPERLINK
    assert "Node Unavailable" in error.error.reason
    assert [number for number, reply in replies.items() if reply and reply.has_error()] == [1]


def test_a_message_that_never_reached_flower_is_an_error_of_its_client():
    class Lossy(LocalGrid):
        def push_messages(self, messages):
            return [] if len(messages) == 1 else super().push_messages(messages[1:])

    replies = dict(exchanged(Lossy(echo, NODES)))
    error = replies.pop(0)
    assert error is not None
    assert "Message Unavailable" in error.error.reason
    assert all(reply is not None and reply.has_content() for reply in replies.values())


def test_the_silent_client_is_none_once_the_timeout_is_over():
    start = time.monotonic()
    replies = exchanged(LocalGrid(echo, NODES, late={NODES[1]: NEVER}), timeout=0.3)
    assert 0.3 <= time.monotonic() - start < 0.6
    assert [number for number, _ in replies] == [0, 2, 1]
    assert replies[-1] == (1, None)


def test_the_silent_client_is_none_also_where_sending_took_its_time():
    """Messages expire before the wait is over, and Flower then says only that they are unknown."""

    class Slow(LocalGrid):
        def push_messages(self, messages):
            time.sleep(0.2)
            return super().push_messages(messages)

    grid = Slow(echo, NODES, late={NODES[1]: NEVER})
    assert dict(exchanged(grid, timeout=0.3))[1] is None


def test_a_reply_after_the_timeout_is_not_taken_for_one_to_the_next_message():
    grid = LocalGrid(echo, NODES, late={NODES[1]: 0.2})
    assert dict(exchanged(grid, timeout=0.1, word="first"))[1] is None
    time.sleep(0.1)
    second = dict(exchanged(grid, word="second"))
    words = [reply.content.config_records["config"]["word"] for reply in second.values() if reply]
    assert words == ["second"] * 3


def test_messages_expire_with_the_timeout_and_are_of_the_kind_that_was_asked_for():
    grid = LocalGrid(echo, NODES)
    list(exchange(grid, contents(), MessageType.EVALUATE, 12.5))
    assert [message.metadata.ttl for message in grid.sent] == [12.5] * 3
    assert {message.metadata.message_type for message in grid.sent} == {MessageType.EVALUATE}
    assert [message.metadata.dst_node_id for message in grid.sent] == NODES


def test_replies_are_handed_on_one_by_one():
    """A grid makes whole what it is asked for, all of it at once: a hundred models, at worst."""
    made: list[int] = []

    def answer(message: Message) -> Message:
        made.append(message.metadata.dst_node_id)
        return echo(message)

    for count, _ in enumerate(
        exchange(LocalGrid(answer, NODES), contents(), MessageType.TRAIN, 5.0), start=1
    ):
        assert len(made) == count
    assert made == NODES
