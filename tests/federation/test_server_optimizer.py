"""The server's optimizers against plain NumPy, in float64."""

import logging
from collections.abc import Callable, Iterator
from itertools import pairwise
from logging.handlers import BufferingHandler
from threading import Thread

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from zk0.errors import Zk0Error
from zk0.federation.server_optimizer import (
    Arrays,
    ServerOptimizer,
    _without_flowers_log,
    open_server_optimizer,
)

from .conftest import task_identity as task_identity  # autouse; here it needs no conftest

AVERAGING = ("fedavg", "scaffold")
REMEMBERING = ("fedprox", "fedavgm", "fedadam", "fedyogi", "fedadagrad")
SHAPES = {"z.weight": (3, 4), "a.bias": (4,), "m.scale": ()}  # not in the names' order
GROUPS = dict.fromkeys(("fedprox", "fedavgm"), ("momentum",))
GROUPS |= dict.fromkeys(("fedadam", "fedyogi", "fedadagrad"), ("m", "v"))
MOMENTUM, BETA_2, TAU = 0.8, 0.95, 0.01  # none is Flower's default
ROUNDS = (1, 2, 3)

Floats = NDArray[np.float64]
Rule = Callable[[list[Floats], float], Floats]  # from all updates so far and eta to the last step


def opened(
    strategy: str, learning_rate: float = 0.0, momentum: float = MOMENTUM
) -> ServerOptimizer:
    return open_server_optimizer(strategy, learning_rate, momentum, BETA_2, TAU)


def drawn(seed: int, scale: float = 1.0) -> Arrays:
    rng = np.random.default_rng(seed)
    return {
        name: np.asarray(rng.normal(scale=scale, size=shape), np.float32)
        for name, shape in SHAPES.items()
    }


def mean_of(server_round: int, current: Arrays) -> Arrays:
    """A round's mean; its updates shrink and grow, which Yogi's sign answers to."""
    updates = drawn(server_round, scale=(0.1, 0.001, 1.0)[server_round % 3])
    return {name: np.asarray(values + updates[name]) for name, values in current.items()}


def played(
    optimizer: ServerOptimizer, current: Arrays, rounds: tuple[int, ...]
) -> Iterator[Arrays]:
    """The global arrays after each round."""
    for server_round in rounds:
        current = optimizer.step(server_round, current, mean_of(server_round, current))
        yield current


def first_moment(updates: list[Floats], beta_1: float) -> Floats:
    rounds = len(updates)
    return sum((1 - beta_1) * beta_1 ** (rounds - 1 - i) * d for i, d in enumerate(updates))


def fedavgm(updates: list[Floats], eta: float) -> Floats:
    return eta * sum(MOMENTUM ** (len(updates) - 1 - i) * d for i, d in enumerate(updates))


def fedadam(updates: list[Floats], eta: float) -> Floats:
    later = len(updates) + 1  # Flower counts one round more than Adam does
    eta *= np.sqrt(1 - BETA_2**later) / (1 - MOMENTUM**later)
    v = first_moment([d**2 for d in updates], BETA_2)
    return eta * first_moment(updates, MOMENTUM) / (np.sqrt(v) + TAU)


def fedyogi(updates: list[Floats], eta: float) -> Floats:
    v = np.zeros_like(updates[0])
    for d in updates:
        v = v + (1 - BETA_2) * d**2 * np.where(v < d**2, 1, -1)
    return eta * first_moment(updates, MOMENTUM) / (np.sqrt(v) + TAU)


def fedadagrad(updates: list[Floats], eta: float) -> Floats:
    return eta * updates[-1] / (np.sqrt(sum(d**2 for d in updates)) + TAU)


def same(ours: Arrays, theirs: Arrays) -> None:
    """The same names in the same order, and the same bits."""
    assert list(ours) == list(theirs)
    for name, values in ours.items():
        assert (values.dtype, values.shape) == (theirs[name].dtype, theirs[name].shape)
        assert values.tobytes() == theirs[name].tobytes()


@pytest.mark.parametrize("learning_rate", [0.0, 0.3])
@pytest.mark.parametrize(
    ("strategy", "rule", "default"),
    [
        ("fedprox", fedavgm, 1.0),
        ("fedavgm", fedavgm, 1.0),
        ("fedadam", fedadam, 0.01),
        ("fedyogi", fedyogi, 0.01),
        ("fedadagrad", fedadagrad, 0.01),
        ("scaffold", lambda updates, eta: eta * updates[-1], 1.0),
        ("fedavg", lambda updates, eta: updates[-1], 1.0),
    ],
)
def test_three_rounds_are_those_of_plain_numpy(
    strategy: str, rule: Rule, default: float, learning_rate: float
):
    start = drawn(0)
    globals_ = [start, *played(opened(strategy, learning_rate), start, ROUNDS)]
    means = [mean_of(server_round, x) for server_round, x in zip(ROUNDS, globals_, strict=False)]
    for name in SHAPES:
        updates: list[Floats] = []
        for mean, (before, after) in zip(means, pairwise(globals_), strict=True):
            updates.append(mean[name].astype(np.float64) - before[name])
            expected = before[name] + rule(updates, learning_rate or default)
            np.testing.assert_allclose(after[name], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("learning_rate", [0.0, 0.3])
@pytest.mark.parametrize("strategy", AVERAGING + REMEMBERING)
def test_names_shapes_and_float32_stay(strategy: str, learning_rate: float):
    start, optimizer = drawn(0), opened(strategy, learning_rate)
    for after in played(optimizer, start, ROUNDS):
        assert [*after] == [*start]
        for values in [*after.values(), *optimizer.state().values()]:
            assert isinstance(values, np.ndarray)
            assert values.dtype == np.float32
        assert {name: values.shape for name, values in after.items()} == SHAPES


@pytest.mark.parametrize("strategy", REMEMBERING)
def test_a_mean_may_hold_numpys_scalars(strategy: str):
    current, mean = {"a": np.array(1, np.float32)}, {"a": np.array(2, np.float32)}
    scalar: Arrays = {"a": mean["a"][()]}
    same(opened(strategy).step(1, current, scalar), opened(strategy).step(1, current, mean))


@pytest.mark.parametrize("strategy", AVERAGING + REMEMBERING)
def test_a_step_leaves_its_arguments_as_they_were(strategy: str):
    current, mean = drawn(0), drawn(1)
    optimizer = opened(strategy, 0.3)
    optimizer.step(1, current, mean)
    optimizer.step(2, current, mean)
    same(current, drawn(0))
    same(mean, drawn(1))


@pytest.mark.parametrize("strategy", REMEMBERING)
def test_the_state_names_each_parameter(strategy: str):
    optimizer = opened(strategy)
    assert optimizer.state() == {}
    list(played(optimizer, drawn(0), ROUNDS))
    expected = {f"{group}/{name}" for group in GROUPS[strategy] for name in SHAPES}
    assert optimizer.state().keys() == expected


@pytest.mark.parametrize("strategy", AVERAGING + REMEMBERING)
def test_a_restored_optimizer_goes_on_bit_for_bit(strategy: str):
    whole = list(played(opened(strategy, 0.3), drawn(0), ROUNDS))
    first, second = opened(strategy, 0.3), opened(strategy, 0.3)
    *_, current = played(first, drawn(0), ROUNDS[:2])
    second.restore(dict(reversed(first.state().items())))
    same(dict(sorted(second.state().items())), dict(sorted(first.state().items())))
    *_, resumed = played(second, current, ROUNDS[2:])
    same(resumed, whole[-1])


@pytest.mark.parametrize("strategy", AVERAGING + REMEMBERING)
def test_an_empty_state_is_the_one_before_the_first_step(strategy: str):
    used = opened(strategy)
    list(played(used, drawn(0), ROUNDS))
    used.restore({})
    assert used.state() == {}
    same(next(played(used, drawn(0), ROUNDS)), next(played(opened(strategy), drawn(0), ROUNDS)))


def other_name(state: Arrays) -> Arrays:
    return {key.replace("a.bias", "b.bias"): values for key, values in state.items()}


def one_missing(state: Arrays) -> Arrays:
    return dict(list(state.items())[1:])


def one_more(state: Arrays) -> Arrays:
    return {**state, "n/a.bias": state[next(iter(state))]}


def other_shape(state: Arrays) -> Arrays:
    first, *_ = state
    return {**state, first: np.zeros((7,), np.float32)}


def other_dtype(state: Arrays) -> Arrays:
    return {key: values.astype(np.float64) for key, values in state.items()}


ODD = [other_name, one_missing, one_more, other_shape, other_dtype]


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("strategy", REMEMBERING)
def test_a_foreign_state_is_refused_and_changes_nothing(
    strategy: str, odd: Callable[[Arrays], Arrays]
):
    optimizer = opened(strategy)
    list(played(optimizer, drawn(0), ROUNDS))
    before = optimizer.state()
    with pytest.raises(Zk0Error, match="state of the server's optimizer does not fit"):
        optimizer.restore(odd(before))
    same(optimizer.state(), before)


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("strategy", REMEMBERING)
def test_a_foreign_state_ends_a_resumed_run_by_its_first_step(
    strategy: str, odd: Callable[[Arrays], Arrays]
):
    """A fresh optimizer knows its groups, and the model's arrays only from the first step."""
    used, fresh = opened(strategy), opened(strategy)
    list(played(used, drawn(0), ROUNDS))

    def resume() -> None:
        fresh.restore(odd(used.state()))
        fresh.step(4, drawn(0), drawn(1))

    with pytest.raises(Zk0Error, match="resume with the strategy"):
        resume()


@pytest.mark.parametrize(
    ("of", "into"),
    [(of, into) for of in REMEMBERING for into in REMEMBERING if GROUPS[of] != GROUPS[into]]
    + [(of, into) for of in REMEMBERING for into in AVERAGING],
)
def test_the_state_of_another_strategy_is_refused(of: str, into: str):
    optimizer = opened(of)
    list(played(optimizer, drawn(0), ROUNDS))
    with pytest.raises(Zk0Error, match="resume with the strategy"):
        opened(into).restore(optimizer.state())


@pytest.mark.parametrize("strategy", ["fedprox", "fedavgm"])
def test_without_momentum_there_is_no_state_and_none_is_taken(strategy: str):
    optimizer, other = opened(strategy, 0.5, momentum=0.0), opened(strategy)
    list(played(optimizer, drawn(0), ROUNDS))
    list(played(other, drawn(0), ROUNDS))
    assert optimizer.state() == {}
    with pytest.raises(Zk0Error, match="resume with the strategy"):
        optimizer.restore(other.state())


@pytest.mark.parametrize("strategy", AVERAGING + REMEMBERING)
@given(order=st.permutations(list(SHAPES)), current_order=st.permutations(list(SHAPES)))
def test_the_order_of_names_changes_no_bit(
    strategy: str, order: list[str], current_order: list[str]
):
    expected, shuffled = opened(strategy, 0.3), opened(strategy, 0.3)
    current = drawn(0)
    for server_round in ROUNDS:
        mean = mean_of(server_round, current)
        after = shuffled.step(
            server_round,
            {name: current[name] for name in current_order},
            {name: mean[name] for name in order},
        )
        current = expected.step(server_round, current, mean)
        same({name: after[name] for name in current}, current)
    same(shuffled.state(), expected.state())


FLOAT32 = arrays(np.float32, array_shapes(max_dims=2, max_side=4))  # nan and infinities too


@pytest.mark.parametrize("strategy", AVERAGING)
@given(values=FLOAT32)
def test_averaging_gives_the_mean_unchanged(strategy: str, values: NDArray[np.float32]):
    current, mean = {"a": np.ones_like(values)}, {"a": values}
    same(opened(strategy).step(1, current, mean), {"a": values.copy()})


@pytest.mark.parametrize("strategy", ["fedprox", "fedavgm"])
@given(
    values=arrays(np.float32, (5,), elements=st.floats(-1e6, 1e6, width=32)),
    learning_rate=st.floats(0, 2),
)
def test_without_momentum_the_mean_of_clients_that_stayed_is_where_they_are(
    strategy: str, values: NDArray[np.float32], learning_rate: float
):
    arrays_ = {"a": values, "b": -values}
    optimizer = opened(strategy, learning_rate, momentum=0.0)
    for server_round in ROUNDS:
        same(optimizer.step(server_round, arrays_, dict(arrays_)), arrays_)


@pytest.mark.parametrize("odd", [other_name, one_missing, other_shape, other_dtype])
@pytest.mark.parametrize("strategy", AVERAGING + REMEMBERING)
def test_a_mean_of_another_model_is_refused(strategy: str, odd: Callable[[Arrays], Arrays]):
    with pytest.raises(ValueError, match="the mean and the global arrays differ in"):
        opened(strategy).step(1, drawn(0), odd(drawn(1)))


def test_an_unknown_strategy_is_refused():
    with pytest.raises(ValueError, match="'fedsgd'"):
        opened("fedsgd")


@pytest.fixture
def flowers_log() -> Iterator[list[logging.LogRecord]]:
    flower, handler = logging.getLogger("flwr"), BufferingHandler(capacity=100)
    flower.addHandler(handler)
    yield handler.buffer
    flower.removeHandler(handler)


@pytest.mark.parametrize("strategy", REMEMBERING)
def test_a_step_logs_nothing_and_leaves_flowers_log_as_it_was(
    strategy: str, flowers_log: list[logging.LogRecord]
):
    opened(strategy).step(1, drawn(0), drawn(1))
    logging.getLogger("flwr").info("afterwards")
    assert [record.getMessage() for record in flowers_log] == ["afterwards"]


def test_warnings_and_other_threads_are_heard_during_a_step(flowers_log: list[logging.LogRecord]):
    flower = logging.getLogger("flwr")
    with _without_flowers_log():
        flower.info("unheard")
        flower.warning("a warning")
        other = Thread(target=flower.info, args=("another thread",))
        other.start()
        other.join()
    flower.info("afterwards")
    heard = [record.getMessage() for record in flowers_log]
    assert heard == ["a warning", "another thread", "afterwards"]
