"""What is done beside a run, and what becomes of it where it fails."""

import pytest
from loguru import logger

from zk0.record.background import Background


def fail() -> None:
    raise KeyError("no such joint")


def test_work_is_done_in_its_order_before_the_end():
    done: list[int] = []
    with Background() as background:
        for number in range(20):
            background.submit(lambda number=number: done.append(number))
    assert done == list(range(20))


def test_an_error_is_raised_where_the_run_waits():
    with Background() as background:
        background.submit(fail)
        with pytest.raises(KeyError, match="no such joint"):
            background.join()
        background.join()  # it was told of once


def test_what_a_run_can_do_without_is_said_in_the_log():
    said: list[str] = []
    sink = logger.add(said.append, format="{level} {message}", level="WARNING")
    done: list[str] = []
    try:
        with Background() as background:
            background.attempt("the chart", fail)
            background.submit(lambda: done.append("state"))
    finally:
        logger.remove(sink)
    assert done == ["state"]
    assert said == ["WARNING the chart could not be made: 'no such joint'\n"]
