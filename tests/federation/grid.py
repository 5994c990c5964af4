"""Flower's grid within this process: every message is answered by calling a function."""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from uuid import uuid4

from flwr.app import Message, RecordDict
from flwr.server.superlink.linkstate.utils import create_message_error_unavailable_ins_message
from flwr.serverapp import Grid
from flwr.supercore.run import Run

Answer = Callable[[Message], Message]
NEVER = math.inf


class LocalGrid(Grid):
    """`answer` makes a reply at the moment in which it is pulled.

    `late` holds seconds by node, `NEVER` among them. A node of `order` is heard only after those
    before it. A message that has expired, or whose reply was pulled before, is answered by Flower's
    own error, as in `InMemoryGrid`.
    """

    pull_interval = 0.01

    def __init__(
        self,
        answer: Answer,
        nodes: Sequence[int],
        late: Mapping[int, float] | None = None,
        order: Sequence[int] = (),
    ) -> None:
        self.answer = answer
        self.nodes = nodes
        self.late = late or {}
        self.order = order
        self.sent: list[Message] = []
        self.seconds = 0.0  # of this thread's time that the clients took
        self._waiting: dict[str, tuple[Message, float]] = {}  # with the time when it is answered

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        now = time.monotonic()
        ids = []
        for message in messages:
            message.metadata.__dict__["_message_id"] = str(uuid4())
            ids.append(message.metadata.message_id)
            due = now + self.late.get(message.metadata.dst_node_id, 0.0)
            self._waiting[ids[-1]] = message, due
            self.sent.append(message)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        start = time.thread_time()
        replies = [reply for each in message_ids if (reply := self._pull(each)) is not None]
        self.seconds += time.thread_time() - start
        return replies

    def _pull(self, message_id: str) -> Message | None:
        message, due = self._waiting.get(message_id, (None, 0.0))
        if message is None or _has_expired(message):
            return create_message_error_unavailable_ins_message(message_id, run_id=1)
        if time.monotonic() < due or self._has_one_before(message):
            return None
        del self._waiting[message_id]
        return self.answer(message)

    def _has_one_before(self, message: Message) -> bool:
        if message.metadata.dst_node_id not in self.order:
            return False
        before = self.order[: self.order.index(message.metadata.dst_node_id)]
        return any(each.metadata.dst_node_id in before for each, _ in self._waiting.values())

    def get_node_ids(self) -> Sequence[int]:
        return self.nodes

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        return self.pull_messages(self.push_messages(messages))

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def set_run(self, run: Run) -> None:
        raise NotImplementedError

    @property
    def run(self) -> Run:
        raise NotImplementedError


def _has_expired(message: Message) -> bool:
    return message.metadata.created_at + message.metadata.ttl < time.time()
