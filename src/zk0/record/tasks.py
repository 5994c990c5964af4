"""Rollouts by task: a dataset's own name, with an ending where it has several: near-touch."""

import re
from collections.abc import Iterable
from typing import Protocol

_PART = re.compile(r"-\d+of\d+$")


class Counted(Protocol):
    """A task's rollouts."""

    @property
    def successes(self) -> int: ...
    @property
    def episodes(self) -> int: ...


def together(tasks: Iterable[Counted]) -> tuple[int, int]:
    """How many rollouts succeeded, of how many."""
    counts = [(each.successes, each.episodes) for each in tasks]
    return sum(won for won, _ in counts), sum(played for _, played in counts)


def whole(slug: str) -> str:
    """The dataset that `slug` is a part of, as rollouts are called: touch of touch-0of2."""
    return _PART.sub("", slug)


def dataset_of(task: str, slugs: Iterable[str]) -> str | None:
    """Which of the datasets `task` is called after, the longest name counting; None if none is."""
    owners = [slug for slug in slugs if f"{task}-".startswith(f"{slug}-")]
    return max(owners, key=len, default=None)
