"""What the server refuses: each reply is sound but for one thing."""

from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from itertools import product

import numpy as np
import pytest
import torch
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Error,
    Message,
    MessageType,
    RecordDict,
)
from hypothesis import given
from hypothesis import strategies as st

from zk0.evaluation.policy_loss import PolicyLoss
from zk0.federation.intake import RefusedError, Training, check_evaluation, check_training
from zk0.federation.wire import (
    ARRAYS,
    CONFIG,
    CONTROL,
    METRICS,
    NUM_EXAMPLES,
    Assignment,
    pack_arrays,
    pack_evaluation,
    pack_training,
)
from zk0.learning.training import LocalResult

from .test_roster import CLIENTS
from .test_wire import STATISTICS

CLIENT = CLIENTS[3]
FRAMES = CLIENT.frames
GLOBAL = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array(2.5, np.float32)}
REFERENCE = pack_arrays(GLOBAL)
CHANGE = {name: np.ones_like(values) for name, values in GLOBAL.items()}
RESULT = LocalResult(1.5, 2.0, 1.0, 0.1, 0.2, 7, 0.5)
TASK = Assignment(0, 3, 1e-3, 1e-3, 0.01, 60.0, STATISTICS)
# A client's exception as it arrives: through Flower, then Ray, then Flower's simulation engine.
WRAPPED = """<class 'ray.exceptions.RayTaskError(ClientAppException)'>:<'ray::ClientAppActor.run()
  File "ray_actor.py", line 65, in run
    raise ClientAppException(str(ex)) from ex
flwr.clientapp.client_app.ClientAppException:
Exception ClientAppException occurred. Message: {}'>"""


def reply(content: RecordDict | Error, kind: str = MessageType.TRAIN) -> Message:
    asked = Message(RecordDict(), dst_node_id=CLIENT.node_id, message_type=kind)
    return Message(content, reply_to=asked)


def trained(
    arrays: dict[str, np.ndarray] | None = None,
    frames: int = FRAMES,
    control: dict[str, np.ndarray] | None = None,
) -> RecordDict:
    """What a client packs, from arrays one higher than the global ones where none are given."""
    moved = arrays or {name: np.asarray(values + 1) for name, values in GLOBAL.items()}
    change = control and {name: torch.from_numpy(values) for name, values in control.items()}
    tensors = {name: torch.from_numpy(values) for name, values in moved.items()}
    return pack_training(tensors, RESULT, TASK, frames, change)


def evaluated() -> RecordDict:
    return pack_evaluation(PolicyLoss(0.75, 0.01, 30))


def checked(content: RecordDict | Error, scaffold: bool = False, max_norm: float = 0.0) -> Training:
    return check_training(reply(content), CLIENT, REFERENCE, scaffold, max_norm)


def test_a_sound_reply_is_what_the_client_packed():
    training = checked(trained())
    np.testing.assert_array_equal(training.arrays["w"], GLOBAL["w"] + 1)
    assert training.arrays["b"].shape == ()
    assert (training.examples, training.control) == (FRAMES, {})
    assert training.metrics["first-loss"] == 2.0


def test_a_sound_scaffold_reply_has_its_change_of_control():
    training = checked(trained(control=CHANGE), scaffold=True)
    np.testing.assert_array_equal(training.control["w"], CHANGE["w"])


def test_a_sound_evaluation_is_its_metrics():
    metrics = check_evaluation(reply(evaluated(), MessageType.EVALUATE))
    assert metrics == {NUM_EXAMPLES: 30, "loss": 0.75, "standard-error": 0.01}


# --- a reply that is no training ------------------------------------------------------------------


def test_an_error_is_refused_with_the_clients_own_words():
    with pytest.raises(RefusedError, match=r"^broken video$"):
        checked(Error(1, WRAPPED.format("broken video")))
    with pytest.raises(RefusedError, match=r"^broken video$"):
        check_evaluation(reply(Error(1, WRAPPED.format("broken video"))))


@pytest.mark.parametrize("reason", ["", WRAPPED.format("")])
def test_an_error_without_words_is_refused_too(reason: str):
    """As `assert` and `raise MemoryError` make them."""
    with pytest.raises(RefusedError, match=r"^.+$"):
        checked(Error(1, reason))


def without(record: str) -> Callable[[RecordDict], None]:
    return lambda content: content.pop(record)


def with_metric(name: str, value: float) -> Callable[[RecordDict], None]:
    return lambda content: content.metric_records[METRICS].update({name: value})


def without_metric(name: str) -> Callable[[RecordDict], None]:
    return lambda content: content.metric_records[METRICS].pop(name)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (without(ARRAYS), "it has no arrays"),
        (without(METRICS), "it has no metrics"),
        (without(CONFIG), "the SHA-256 of its arrays is not the sender's"),
        (with_metric("loss", float("nan")), "its loss is nan"),
        (with_metric("seconds", float("inf")), "its seconds is inf"),
        (with_metric("loss", 1e300), r"its loss is 1e\+300"),  # a mean of such is infinite
        (with_metric("steps", 10**400), "its steps is 1000"),
        (with_metric("update-norm", [0.1, 0.2]), r"its update-norm is \[0.1, 0.2\]"),
        (without_metric(NUM_EXAMPLES), "claims None examples"),
    ],
)
def test_a_reply_that_lacks_something_or_has_no_number_is_refused(
    spoil: Callable[[RecordDict], None], reason: str
):
    content = trained()
    spoil(content)
    with pytest.raises(RefusedError, match=reason):
        checked(content)


@pytest.mark.parametrize(
    "name", ["round", "time", "event", "client", "self", "loss.a\nb", "x" * 99]
)
def test_a_metric_of_a_clients_own_is_left_out(name: str):
    """By its name it could be the record's own, such as the time of an event."""
    training, evaluation = trained(), evaluated()
    for content in (training, evaluation):
        with_metric(name, 1.0)(content)
    assert checked(training).metrics == checked(trained()).metrics
    found = check_evaluation(reply(evaluation, MessageType.EVALUATE))
    assert found == {NUM_EXAMPLES: 30, "loss": 0.75, "standard-error": 0.01}


def test_losses_and_errors_by_joint_are_known():
    joints = {"shoulder_pan": 0.5, "joint-7 x": 0.25}
    content = pack_evaluation(PolicyLoss(0.75, 0.01, 30, joints, joints))
    metrics = check_evaluation(reply(content, MessageType.EVALUATE))
    assert (metrics["loss.joint-7 x"], metrics["error.shoulder_pan"]) == (0.25, 0.5)


@pytest.mark.parametrize("name", ["loss", "first-loss", "last-loss", "steps", "seconds"])
def test_a_reply_without_a_metric_that_the_record_needs_is_refused(name: str):
    content = trained()
    without_metric(name)(content)
    with pytest.raises(RefusedError, match=name):
        checked(content)


@pytest.mark.parametrize("frames", [0, -FRAMES, FRAMES + 1, 10 * FRAMES, 2**62])
def test_another_number_of_examples_than_introduced_is_refused(frames: int):
    with pytest.raises(
        RefusedError, match=f"claims {frames} examples, but introduced itself with {FRAMES}"
    ):
        checked(trained(frames=frames))


# --- arrays of another model ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({**GLOBAL, "x": GLOBAL["w"]}, "x is on one side only"),
        ({"w": GLOBAL["w"]}, "b is on one side only"),
        ({"w": GLOBAL["w"], "B": GLOBAL["b"]}, "B is on one side only"),
        ({**GLOBAL, "w": GLOBAL["w"].T.copy()}, r"w is float32 \(3, 2\)"),
        ({**GLOBAL, "b": GLOBAL["b"].reshape(1)}, r"b is float32 \(1,\)"),
        ({**GLOBAL, "w": GLOBAL["w"].astype(np.float64)}, r"w is float64 \(2, 3\)"),
        ({**GLOBAL, "w": GLOBAL["w"].astype(np.int32)}, r"w is int32 \(2, 3\)"),
        ({**GLOBAL, "w": np.full((2, 3), np.nan, np.float32)}, "w is not finite"),
        ({**GLOBAL, "b": np.array(-np.inf, np.float32)}, "b is not finite"),
    ],
)
def test_arrays_of_another_model_or_without_numbers_are_refused(
    arrays: dict[str, np.ndarray], reason: str
):
    with pytest.raises(RefusedError, match=reason):
        checked(trained(arrays))
    with pytest.raises(RefusedError, match=reason):
        checked(trained(control=arrays), scaffold=True)


def test_a_scaffold_reply_without_control_is_refused():
    with pytest.raises(RefusedError, match="it has no control"):
        checked(trained(), scaffold=True)


# --- arrays that are not what they say ------------------------------------------------------------


def saved(values: np.ndarray) -> bytes:
    file = BytesIO()
    np.save(file, values)
    return file.getvalue()


def claiming(shape: tuple[int, ...], values: np.ndarray) -> bytes:
    """The file of `values` with a header that says `shape`."""
    file = BytesIO()
    description = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, description)
    return file.getvalue() + values.tobytes()


def archive(values: np.ndarray) -> bytes:
    file = BytesIO()
    np.savez(file, w=values)
    return file.getvalue()


WHOLE = saved(GLOBAL["w"])


BYTES = {
    "none": b"",
    "half a header": WHOLE[:5],
    "one byte less": WHOLE[:-1],
    "a header alone": WHOLE[:-24],
    "no header": WHOLE[-24:],
    "another shape": saved(GLOBAL["w"].ravel()),
    "fewer values": saved(GLOBAL["w"][:1]),
    "another dtype": saved(GLOBAL["w"].astype(np.float64)),
    "another byte order": saved(GLOBAL["w"].astype(">f4")),
    "a larger claim": claiming((2, 4), GLOBAL["w"]),
    "a claim beyond all memory": claiming((10**9, 10**9), GLOBAL["w"]),
    "a negative claim": claiming((2, -3), GLOBAL["w"]),
    "an archive": archive(GLOBAL["w"]),
    "half an archive": archive(GLOBAL["w"])[:40],
    "a pickle": b"\x80\x04N.",
}


@pytest.mark.parametrize("data", BYTES.values(), ids=BYTES)
def test_bytes_that_are_not_the_declared_array_are_refused(data: bytes):
    content = trained()
    content.array_records[ARRAYS]["w"] = Array("float32", (2, 3), "numpy.ndarray", data)
    with pytest.raises(RefusedError, match=r"^w (cannot be decoded|is not the array that it is)"):
        checked(content)


def test_an_array_in_fortrans_order_is_the_same_array():
    """As PyTorch gives it of a transposed parameter."""
    arrays = {**GLOBAL, "w": np.asfortranarray(GLOBAL["w"])}
    np.testing.assert_array_equal(checked(trained(arrays)).arrays["w"], GLOBAL["w"])


def test_an_array_of_another_serialization_is_refused():
    content = trained()
    content.array_records[ARRAYS]["w"] = Array("float32", (2, 3), "torch.Tensor", WHOLE)
    with pytest.raises(RefusedError, match=r"^w (cannot be decoded|is not the array that it is)"):
        checked(content)


@pytest.mark.parametrize("said", ["0" * 64, "", [1, 2]])
def test_another_hash_than_the_senders_is_refused(said: str):
    content = trained(control=CHANGE)
    content.config_records[CONFIG]["control.sha256"] = said
    checked(content)  # where no control is asked for, none is looked at
    with pytest.raises(RefusedError, match="the SHA-256 of its control is not the sender's"):
        checked(content, scaffold=True)


def test_a_missing_hash_is_refused():
    content = trained()
    content[CONFIG] = ConfigRecord({})
    with pytest.raises(RefusedError, match="the SHA-256 of its arrays is not the sender's"):
        checked(content)


def test_swapped_arrays_are_refused():
    """Two parameters of one shape: only the hash tells them apart."""
    ours = {"a": np.zeros(3, np.float32), "b": np.ones(3, np.float32)}
    content = trained(ours)
    record = content.array_records[ARRAYS]
    content[ARRAYS] = ArrayRecord({"a": record["b"], "b": record["a"]})
    with pytest.raises(RefusedError, match="the SHA-256 of its arrays"):
        check_training(reply(content), CLIENT, pack_arrays(ours), False, 0.0)


def with_flipped(content: RecordDict, name: str, position: int, flip: int) -> None:
    whole = content.array_records[name]["w"]
    data = bytearray(whole.data)
    data[position] ^= flip
    record = content.array_records[name]
    record["w"] = Array(whole.dtype, whole.shape, whole.stype, bytes(data))


@given(offset=st.integers(0, 23), flip=st.integers(1, 255), name=st.sampled_from([ARRAYS, CONTROL]))
def test_a_flip_in_any_byte_of_the_values_is_refused(offset: int, flip: int, name: str):
    content = trained(control=CHANGE)
    with_flipped(content, name, len(WHOLE) - 24 + offset, flip)
    with pytest.raises(RefusedError, match=r"the SHA-256|w is not finite"):
        checked(content, scaffold=True)


def test_a_flipped_bit_in_the_header_is_refused_or_changes_nothing():
    """Blanks, for one, may be other blanks."""
    for position, bit in product(range(len(WHOLE) - 24), range(8)):
        content = trained()
        with_flipped(content, ARRAYS, position, 1 << bit)
        with suppress(RefusedError):
            arrays = checked(content).arrays
            assert arrays["w"].tobytes() == (GLOBAL["w"] + 1).tobytes()


# --- a step too far -------------------------------------------------------------------------------


@pytest.mark.parametrize(("limit", "passes"), [(0.0, True), (5.01, True), (4.99, False)])
def test_an_update_is_at_most_as_long_as_allowed(limit: float, passes: bool):
    moved = {"w": GLOBAL["w"] + np.array([[3, 0, 0], [0, 0, 0]], np.float32), "b": GLOBAL["b"] - 4}
    arrays = {name: np.asarray(values, np.float32) for name, values in moved.items()}
    if passes:
        assert checked(trained(arrays), max_norm=limit).examples == FRAMES
        return
    with pytest.raises(RefusedError, match=r"its update has norm 5, above max-update-norm = 4.99"):
        checked(trained(arrays), max_norm=limit)


# --- evaluations ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (without_metric("loss"), "loss"),
        (without_metric("standard-error"), "standard-error"),
        (without_metric(NUM_EXAMPLES), "its evaluation has no examples"),
        (with_metric(NUM_EXAMPLES, 0), "its evaluation has 0 examples"),
        (with_metric(NUM_EXAMPLES, -3), "its evaluation has -3 examples"),
        (with_metric(NUM_EXAMPLES, 10**20), "its evaluation has 1000000"),  # would be the mean
        (with_metric(NUM_EXAMPLES, float("nan")), "its num-examples is nan"),
        (with_metric("loss", float("nan")), "its loss is nan"),
        (with_metric("loss", [1.0, 2.0]), r"its loss is \[1.0, 2.0\]"),
        (with_metric("standard-error", float("inf")), "its standard-error is inf"),
        (without(METRICS), "it has no metrics"),
    ],
)
def test_an_evaluation_that_lacks_something_or_has_no_number_is_refused(
    spoil: Callable[[RecordDict], None], reason: str
):
    content = evaluated()
    spoil(content)
    with pytest.raises(RefusedError, match=reason):
        check_evaluation(reply(content, MessageType.EVALUATE))
