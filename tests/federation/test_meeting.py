"""Who takes part, out of what the nodes answer."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from flwr.app import Error, Message, RecordDict

from zk0.errors import Zk0Error
from zk0.federation.roster import meet_clients
from zk0.federation.wire import CONFIG, pack_introduction

from .grid import NEVER, LocalGrid
from .test_wire import INTRODUCTION


def introduced(slug: str, partition: int = -1) -> RecordDict:
    return pack_introduction(replace(INTRODUCTION, slug=slug, partition=partition))


def without_units() -> RecordDict:
    """As a node that runs another version may answer."""
    content = introduced("old")
    del content.config_records[CONFIG]["units"]
    return content


def answering(*contents: RecordDict | Error) -> Callable[[Message], Message]:
    """Node N gives the N-th answer, from 1 on."""
    return lambda asked: Message(contents[asked.metadata.dst_node_id - 1], reply_to=asked)


def test_clients_are_numbered_by_partition_then_by_name():
    simulated = answering(introduced("b", 1), introduced("c", 0))
    assert [(c.slug, c.node_id) for c in meet_clients(LocalGrid(simulated, [1, 2]), 2)] == [
        ("c", 2),
        ("b", 1),
    ]
    deployed = answering(introduced("b"), introduced("a"))
    assert [c.slug for c in meet_clients(LocalGrid(deployed, [1, 2]), 2)] == ["a", "b"]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Error(1, "no data"), "no data"),
        (without_units(), "a message has no units: the other side may run another version"),
        (introduced("x[/b]"), "slug in a message is not valid"),
        (RecordDict(), "a message has no slug"),
    ],
)
def test_a_node_that_cannot_take_part_is_left_out_and_named(
    answer: RecordDict | Error, reason: str
):
    grid = LocalGrid(answering(introduced("a"), answer, introduced("b")), [1, 2, 3])
    assert [client.slug for client in meet_clients(grid, 2)] == ["a", "b"]
    with pytest.raises(Zk0Error, match=rf"^2 of 3 clients can take part: .*{reason}"):
        meet_clients(grid, 3)


def test_a_simulation_wants_all_its_clients():
    grid = LocalGrid(answering(introduced("a", 0), Error(1, "no data")), [1, 2])
    with pytest.raises(Zk0Error, match="1 of 2 clients can take part: no data"):
        meet_clients(grid, 1)


def test_nodes_without_an_answer_are_counted():
    grid = LocalGrid(answering(introduced("a"), introduced("b")), [1, 2], late={2: NEVER})
    with pytest.raises(Zk0Error, match="1 of 2 clients can take part; the others did not answer"):
        meet_clients(grid, 2)


def test_a_reason_moves_no_cursor_and_has_an_end():
    grid = LocalGrid(answering(Error(1, "\x1b[2Jbroken " + "x" * 10_000)), [1])
    with pytest.raises(Zk0Error, match=r"clients can take part: \[2Jbroken x+$") as refused:
        meet_clients(grid, 1)
    assert len(str(refused.value)) < 600
