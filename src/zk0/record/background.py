"""Writing beside the run: one piece at a time, in order, none of its errors lost."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

from loguru import logger

from zk0.errors import first_line


class Background:
    """A thread for work that the next round does not depend on."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._pending: list[Future[object]] = []

    def submit(self, work: Callable[[], object]) -> None:
        self._pending.append(self._thread.submit(work))

    def attempt(self, what: str, work: Callable[[], object]) -> None:
        """Submit what a run can do without, such as `what` of its charts: that it failed is said in
        the log, and the run goes on."""

        def try_it() -> None:
            try:
                work()
            except Exception as error:  # of a drawing library, or of the disk
                logger.warning("{} could not be made: {}", what, first_line(error))
                logger.opt(exception=True).debug("where it was raised")

        self.submit(try_it)

    def join(self) -> None:
        """Wait for all that was submitted; raises the first error among it."""
        pending, self._pending = self._pending, []
        for each in pending:
            each.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._thread.shutdown()
        if kind is None:  # an error that is on its way says more than what it left undone
            self.join()
