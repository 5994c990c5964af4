"""Work on the next item while the present one is used."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor


def one_ahead[Item, Result](
    work: Callable[[Item], Result], items: Iterable[Item]
) -> Iterator[Result]:
    """`map(work, items)`, with one result more than was asked for being made in a thread."""
    upcoming: Future[Result] | None = None
    with ThreadPoolExecutor(1) as thread:
        for item in items:
            following = thread.submit(work, item)
            if upcoming is not None:
                yield upcoming.result()
            upcoming = following
        if upcoming is not None:
            yield upcoming.result()
