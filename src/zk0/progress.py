"""How long work goes on: a bar on a terminal, now and then a line elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from loguru import logger

LINE_EVERY_S = 10.0

Advance = Callable[[int], None]


def counting(total: int, what: str) -> AbstractContextManager[Advance]:
    """A function to call with the number of parts done, while `what` is worked on."""
    return _bar(total, what) if sys.stderr.isatty() else _lines(total, what)


@contextmanager
def _bar(total: int, what: str) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task(what, total=total)
        yield lambda count: progress.advance(task, count)


@contextmanager
def _lines(total: int, what: str) -> Iterator[Advance]:
    start = told = time.monotonic()
    done = 0

    def advance(count: int) -> None:
        nonlocal done, told
        done, now = done + count, time.monotonic()
        if now - told >= LINE_EVERY_S and done < total:
            left = (now - start) / done * (total - done)
            logger.info("{}: {} of {}, {:.0f} s left", what, done, total, left)
            told = now

    yield advance
