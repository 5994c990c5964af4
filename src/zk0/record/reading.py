"""What all share who read a run's folder; each of them takes no more of a file than it needs."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from zk0.errors import Zk0Error
from zk0.record.run_folder import EVENTS


class Part(BaseModel):
    """A piece of a record, whose keys have hyphens."""

    model_config = ConfigDict(
        frozen=True, alias_generator=lambda name: name.replace("_", "-"), allow_inf_nan=False
    )


def parse[T](shape: TypeAdapter[T], content: Any, path: Path) -> T:
    """Raises `Zk0Error` naming the file and the first part of it that has another shape."""
    try:
        return shape.validate_python(content)
    except ValidationError as error:
        raise unreadable(path, error) from None


def unreadable(path: Path, error: ValidationError) -> Zk0Error:
    """What to raise where the file at `path` has another shape."""
    problem = error.errors()[0]
    where = ".".join(map(str, problem["loc"]))
    return Zk0Error(f"{path} cannot be read: {where}: {problem['msg']}.")


def read_events(run: Path) -> list[dict[str, Any]]:
    """Whole lines only: a running federation may be in the middle of the last one. None where there
    is no file yet; raises `Zk0Error` where it cannot be read.

    What a resumed run did over again counts once, as it went the second time.
    """
    path = run / EVENTS
    try:
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        return list(_without_undone([json.loads(line) for line in lines]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Zk0Error(f"{path} cannot be read: {error}.") from error


def _without_undone(events: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Events less those that a later "resume" went back before."""
    until = float("inf")
    kept = []
    for event in reversed(events):
        if event.get("round", float("inf")) <= until:  # a run's failure is of no round
            kept.append(event)
        if event["event"] == "resume":
            until = min(until, event["round"])
    return reversed(kept)
