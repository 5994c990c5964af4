"""What long work says of itself, and working one item ahead."""

import io

import pytest
from loguru import logger

from zk0 import progress
from zk0.ahead import one_ahead


@pytest.fixture
def lines():
    said: list[str] = []
    sink = logger.add(lambda message: said.append(message.record["message"]))
    yield said
    logger.remove(sink)


def test_lines_come_now_and_then_and_not_at_the_end(lines, monkeypatch):
    clock = iter([0.0, 1.0, 12.0, 15.0, 30.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with progress.counting(40, "prefix cache of touch") as advance:
        for _ in range(4):
            advance(10)
    assert lines == ["prefix cache of touch: 20 of 40, 12 s left"]


def test_a_terminal_gets_a_bar(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(progress.sys, "stderr", terminal)
    with progress.counting(4, "filling") as advance:
        advance(4)
    assert "filling" in terminal.getvalue()
    assert "100%" in terminal.getvalue()


def test_one_ahead_keeps_order_and_makes_one_more_than_asked_for():
    made: list[int] = []

    def work(item: int) -> int:
        made.append(item)
        return item * item

    results = one_ahead(work, range(5))
    assert next(results) == 0
    assert len(made) <= 3
    assert list(results) == [1, 4, 9, 16]


def test_one_ahead_passes_errors_on():
    with pytest.raises(ZeroDivisionError):
        list(one_ahead(lambda item: 1 // item, [1, 0]))


def test_one_ahead_of_nothing():
    assert list(one_ahead(str, [])) == []
