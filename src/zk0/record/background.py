"""Writing beside the run: one piece at a time, in order, none of its errors lost."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self


class Background:
    """A thread for work that the next round does not depend on."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._pending: list[Future[object]] = []

    def submit(self, work: Callable[[], object]) -> None:
        self._pending.append(self._thread.submit(work))

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
