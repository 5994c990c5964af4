"""What the server lets into a round: a reply is checked before any of it is used.

Records are taken from a message by name: each use of Flower's `array_records` and the like makes a
reference cycle, in which the whole content waits for the garbage collector.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from numpy.typing import NDArray

from zk0.errors import Zk0Error
from zk0.federation.roster import Client, explain
from zk0.federation.wire import (
    ARRAYS,
    CONFIG,
    CONTROL,
    MAX_FRAMES,
    METRICS,
    NUM_EXAMPLES,
    SHA256,
    Decoded,
)
from zk0.learning.integrity import hash_arrays
from zk0.learning.training import LocalResult

Update = Mapping[str, NDArray[np.float32]]


LARGEST_METRIC = 1e30  # sums and squares of such are still finite
TRAINED = {"loss", "first-loss", "last-loss", "steps", "seconds"}  # what the record needs
EVALUATED = {"loss", "standard-error"}
# What the record has room for: a name of a client's own could be one of the record's.
RESULTS = "|".join(field.name.replace("_", "-") for field in fields(LocalResult))
KNOWN_TRAINED = re.compile(rf"{NUM_EXAMPLES}|{RESULTS}|learning-rate|proximal-mu")
KNOWN_EVALUATED = re.compile(rf"{NUM_EXAMPLES}|loss|standard-error|(loss|error)\.[\w. -]{{1,60}}")


class RefusedError(Exception):
    """A reply does not count; the message is the reason, for the record."""


@dataclass(frozen=True)
class Training:
    """A sound reply to a training message."""

    arrays: Update
    control: Update
    metrics: dict[str, Any]
    examples: int


def check_training(
    reply: Message, client: Client, reference: ArrayRecord, scaffold: bool, max_norm: float
) -> Training:
    """The reply's content; raises `RefusedError` unless names, shapes and dtypes are those of
    `reference` (the global arrays), all numbers finite, the hash the sender's, the number of
    examples what the client introduced itself with, and the update's norm at most `max_norm` (0: no
    limit)."""
    content = _content(reply)
    metrics = _metrics(content, TRAINED, KNOWN_TRAINED)
    examples = metrics.get(NUM_EXAMPLES)
    if examples != client.frames:
        raise RefusedError(
            f"claims {examples} examples, but introduced itself with {client.frames}"
        )
    arrays = _arrays(content, ARRAYS, reference)
    control = _arrays(content, CONTROL, reference) if scaffold else {}
    if max_norm and (norm := _distance(arrays, reference)) > max_norm:
        raise RefusedError(f"its update has norm {norm:.4g}, above max-update-norm = {max_norm:g}")
    return Training(arrays, control, metrics, client.frames)


def check_evaluation(reply: Message) -> dict[str, Any]:
    """An evaluation's metrics; raises `RefusedError` where they are no finite numbers."""
    metrics = _metrics(_content(reply), EVALUATED, KNOWN_EVALUATED)
    if not 1 <= metrics.get(NUM_EXAMPLES, 0) <= MAX_FRAMES:
        raise RefusedError(f"its evaluation has {metrics.get(NUM_EXAMPLES, 'no')} examples")
    return metrics


def _content(reply: Message) -> RecordDict:
    if reply.has_error():
        raise RefusedError(explain(reply))
    return reply.content


def _metrics(content: RecordDict, needed: set[str], known: re.Pattern[str]) -> dict[str, Any]:
    """Those that are `known`; others, as of a newer node, are left out."""
    record = content.get(METRICS)
    if not isinstance(record, MetricRecord):
        raise RefusedError("it has no metrics")
    metrics = {name: value for name, value in record.items() if known.fullmatch(name)}
    for name, value in metrics.items():
        if not isinstance(value, int | float) or not -LARGEST_METRIC < value < LARGEST_METRIC:
            raise RefusedError(f"its {name} is {value}")
    if missing := sorted(needed - metrics.keys()):
        raise RefusedError(f"it has no {missing[0]}")
    return metrics


def _arrays(content: RecordDict, name: str, reference: ArrayRecord) -> Update:
    record = content.get(name)
    if not isinstance(record, ArrayRecord):
        raise RefusedError(f"it has no {name}")
    foreign = sorted(set(record) ^ set(reference))
    if foreign:
        raise RefusedError(f"{foreign[0]} is on one side only")
    for key, own in reference.items():  # as declared, before anything is decoded
        given = record[key]
        if (given.dtype, tuple(given.shape)) != (own.dtype, tuple(own.shape)):
            raise RefusedError(f"{key} is {given.dtype} {tuple(given.shape)}")
    arrays = Checked(record)
    digest = hash_arrays(arrays)
    said = content.get(CONFIG)
    if not isinstance(said, ConfigRecord) or digest != said.get(f"{name}.{SHA256}"):
        raise RefusedError(f"the SHA-256 of its {name} is not the sender's")
    return arrays


class Checked(Decoded):
    """Arrays that are refused, when they are first asked for, unless they are as declared and
    finite."""

    def __init__(self, record: ArrayRecord) -> None:
        super().__init__(record)
        self._sound: set[str] = set()

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        try:
            values = super().__getitem__(name)
        except Zk0Error as error:
            raise RefusedError(str(error)) from None
        if name not in self._sound and not np.isfinite(values).all():
            raise RefusedError(f"{name} is not finite")
        self._sound.add(name)
        return values


def _distance(arrays: Update, reference: ArrayRecord) -> float:
    before = Decoded(reference)
    squares = (
        np.square(values - before[key], dtype=np.float64).sum() for key, values in arrays.items()
    )
    return float(sum(squares)) ** 0.5
