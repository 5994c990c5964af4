"""Messages out and replies in, each handed on as it comes and then forgotten."""

import time
from collections.abc import Iterator, Mapping

from flwr.app import Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from zk0.federation.roster import Client

FAST_POLL_S, SLOW_POLL_S = 0.02, 0.5  # in a simulation's own process, over a network


def exchange(
    grid: Grid, contents: Mapping[Client, RecordDict], kind: str, timeout: float
) -> Iterator[tuple[Client, Message | None]]:
    """Send each client its content and yield replies as they come; None for those that do not
    within `timeout` seconds.

    Replies are told apart by the message they answer: errors that Flower makes itself carry no
    client. A message that nobody took within the timeout is not delivered any more.
    """
    expiry = time.monotonic() + timeout
    pending = _send(grid, contents, kind, timeout)
    poll = FAST_POLL_S if hasattr(grid, "pull_interval") else SLOW_POLL_S
    deadline = time.monotonic() + timeout
    while pending and time.monotonic() < deadline:
        for message in list(pending):  # one by one: the other replies stay where they are
            for reply in grid.pull_messages([message]):
                yield pending.pop(message), None if _is_expired(reply, expiry) else reply
                del reply  # before the next one is pulled
        if pending:
            time.sleep(poll)
    for client in pending.values():
        yield client, None


def _is_expired(reply: Message, expiry: float) -> bool:
    """Is it the error that Flower gives for a message whose time is over?"""
    over = time.monotonic() >= expiry
    return over and reply.has_error() and reply.error.code == ErrorCode.MESSAGE_UNAVAILABLE


def _send(
    grid: Grid, contents: Mapping[Client, RecordDict], kind: str, timeout: float
) -> dict[str, Client]:
    messages = {
        client: Message(content, dst_node_id=client.node_id, message_type=kind, ttl=timeout)
        for client, content in contents.items()
    }
    grid.push_messages(list(messages.values()))
    return {message.metadata.message_id: client for client, message in messages.items()}
