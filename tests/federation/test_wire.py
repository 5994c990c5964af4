from dataclasses import replace

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Message, MessageType, MetricRecord, RecordDict

from zk0.data.frames import Recording
from zk0.data.statistics import ACTION, ORDER, STATE, Moments
from zk0.errors import Zk0Error
from zk0.federation.wire import (
    CONFIG,
    Assignment,
    Introduction,
    pack_assignment,
    pack_introduction,
    unpack_assignment,
    unpack_introduction,
)
from zk0.learning.integrity import hash_arrays

MOMENTS = Moments(7, np.arange(6.0), np.arange(6.0) ** 2)
STATISTICS = {STATE: MOMENTS, ACTION: MOMENTS}
RANKED = replace(MOMENTS, order={name: np.arange(6.0) + at for at, name in enumerate(ORDER)})
RECORDING = Recording(
    30, {"front": "observation.images.Camera 1", "wrist": "wrist"}, "degrees", "0a" * 20
)


def message(content: RecordDict) -> Message:
    return Message(content, dst_node_id=1, message_type=MessageType.TRAIN)


INTRODUCTION = Introduction("touch", 2, "c" * 64, 27, STATISTICS, RECORDING, (), "0" * 64)
ASSIGNMENT = Assignment(2, 3, 1e-3, 1e-6, 0.01, 60.0, STATISTICS, {"arrays": "00ff"})


def test_assignment_arrives_as_it_was_sent():
    sent = pack_assignment(ASSIGNMENT)
    task = unpack_assignment(message(RecordDict({CONFIG: sent})))
    assert (task.client, task.server_round) == (2, 3)
    assert (task.learning_rate, task.proximal_mu) == (1e-3, 0.01)
    assert (task.final_learning_rate, task.timeout) == (1e-6, 60.0)
    assert sent["arrays.sha256"] == "00ff"
    np.testing.assert_array_equal(task.statistics[ACTION].variance, MOMENTS.variance)


def test_a_client_s_number_is_no_negative_one():
    sent = pack_assignment(ASSIGNMENT)
    sent["client"] = -1
    with pytest.raises(Zk0Error, match="0 or more was expected in a message, not -1"):
        unpack_assignment(message(RecordDict({CONFIG: sent})))


def test_introduction_arrives_as_it_was_sent():
    digest = "0123456789abcdef" * 4
    sent = Introduction("touch", 2, "c" * 64, 27, STATISTICS, RECORDING, (digest,), digest[::-1])
    got = unpack_introduction(message(pack_introduction(sent)))
    assert (got.slug, got.partition, got.episodes) == ("touch", 2, 27)
    assert got.fingerprint == "c" * 64
    assert got.statistics[STATE].count == 7
    assert (got.recording, got.hashes) == (sent.recording, sent.hashes)
    assert got.backbone == sent.backbone


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("fps", 0.5),
        ("cameras", ["front"]),
        ("cameras", ["front", "\x1b[2J"]),
        ("recorded-cameras", ["a" * 201, "b"]),
        ("hashes", ["0123"]),
        ("hashes", "0123456789abcdef" * 4),
        ("backbone", "0123"),
        ("commit", "main"),
        ("units", "inches"),
        ("slug", "x[/b]"),
        ("slug", "../x"),
        ("slug", ""),
        ("slug", "x\x1b[2J"),
        ("fingerprint", "0123"),
        ("fingerprint", 7),
    ],
)
def test_introduction_with_an_unsound_value_is_refused(key: str, value: object):
    record = pack_introduction(INTRODUCTION)
    record.config_records[CONFIG][key] = value  # type: ignore[assignment]
    with pytest.raises(Zk0Error, match=rf"{key}|whole number|cameras"):
        unpack_introduction(message(record))


@pytest.mark.parametrize("key", [*pack_introduction(INTRODUCTION).config_records[CONFIG]])
def test_introduction_that_lacks_something_is_refused(key: str):
    """As of a node that runs another version."""
    record = pack_introduction(INTRODUCTION)
    del record.config_records[CONFIG][key]
    with pytest.raises(
        Zk0Error,
        match=rf"a message has no {key}|statistics of {key.rpartition('.')[0]} are not valid",
    ):
        unpack_introduction(message(record))


@pytest.mark.parametrize("content", [{}, {CONFIG: MetricRecord({"slug": 1})}])
def test_a_message_without_anything_said_is_refused(content: dict):
    with pytest.raises(Zk0Error, match="a message has no slug"):
        unpack_introduction(message(RecordDict(content)))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("learning-rate", float("nan")),
        ("learning-rate", -1.0),
        ("proximal-mu", float("inf")),
        ("proximal-mu", "much"),
        ("server-round", 1.5),
        ("action.count", 0),
        ("action.mean", [0.0]),
        ("action.variance", [-1.0] * 6),
        ("observation.state.mean", [float("nan")] * 6),
    ],
)
def test_assignment_with_an_unsound_value_is_refused(key: str, value: object):
    record = ConfigRecord({**pack_assignment(ASSIGNMENT), key: value})
    with pytest.raises(Zk0Error):
        unpack_assignment(message(RecordDict({CONFIG: record})))


def test_order_statistics_arrive_where_they_were_sent():
    sent = replace(ASSIGNMENT, statistics={STATE: MOMENTS, ACTION: RANKED})
    got = unpack_assignment(message(RecordDict({CONFIG: pack_assignment(sent)})))
    assert got.statistics == sent.statistics
    assert tuple(got.statistics[ACTION].order) == ORDER
    assert not any(name in pack_assignment(ASSIGNMENT) for name in ("action.min", "action.q01"))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("action.q01", [0.0] * 5),
        ("action.q01", []),
        ("action.q01", 0.0),
        ("action.q01", ["0.0"] * 6),
        ("action.q99", [float("nan")] * 6),
        ("action.max", [float("inf")] * 6),
        ("action.max", [1e300] * 6),  # finite, and not in the policy's float32
        ("action.min", [-1e300] * 6),
        ("action.q01", [99.0] * 6),
        ("action.q90", [0.5] * 6),
        ("action.min", [5.5] * 6),
        ("action.max", [8.0] * 6),
    ],
)
def test_order_statistics_that_cannot_be_are_refused(key: str, value: object):
    sent = replace(ASSIGNMENT, statistics={STATE: MOMENTS, ACTION: RANKED})
    record = ConfigRecord({**pack_assignment(sent), key: value})
    with pytest.raises(Zk0Error, match=r"action.* (not valid|no list)"):
        unpack_assignment(message(RecordDict({CONFIG: record})))


def test_hash_sees_names_dtypes_shapes_and_every_bit():
    base = {"a": torch.zeros(2, 3), "b": torch.ones(())}
    variants = [
        {"x": torch.zeros(2, 3), "b": torch.ones(())},
        {"a": torch.zeros(3, 2), "b": torch.ones(())},
        {"a": torch.zeros(2, 3, dtype=torch.bfloat16), "b": torch.ones(())},
        {"a": torch.zeros(2, 3), "b": torch.full((), 1 + 2**-23)},
        {"a": torch.zeros(2, 3)},
    ]
    assert hash_arrays(base) == hash_arrays(dict(reversed(base.items())))
    assert len({hash_arrays(arrays) for arrays in [base, *variants]}) == 6
