"""Rollouts' tasks by name: a dataset's own, and where it has several with an ending: near-touch."""

from collections.abc import Iterable


def dataset_of(task: str, slugs: Iterable[str]) -> str | None:
    """Which of the datasets `task` is called after, the longest name counting; None if none is."""
    owners = [slug for slug in slugs if f"{task}-".startswith(f"{slug}-")]
    return max(owners, key=len, default=None)
