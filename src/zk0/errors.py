"""The one exception that a user is meant to read."""

from collections.abc import Iterator
from pathlib import Path


class Zk0Error(Exception):
    """Something the user can put right; the message is one line: what, where, how to fix it."""


def first_line(error: Exception) -> str:
    """What a library's error says, in one line of at most 300 characters; its kind where it says
    nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")[:300]


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """`error`, what it was raised from, and so on."""
    while error is not None:
        yield error
        error = error.__cause__


def cannot_write(what: Path | str, error: Exception) -> Zk0Error:
    """What to raise where part of a run cannot be kept: above all, on a full disk."""
    reason = getattr(error, "strerror", None) or error  # safetensors' own errors have none
    return Zk0Error(
        f"{what} cannot be written: {reason}. Free some space; a federated run then goes on with "
        "--run-config \"resume='last'\"."
    )
