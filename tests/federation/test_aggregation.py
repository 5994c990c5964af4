"""The mean of clients' arrays, against exact arithmetic and NumPy's own."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from zk0.federation.aggregation import RunningMean

Values = NDArray[np.float32]

FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
MODERATE = st.floats(-1e3, 1e3, width=32)
# Multiples of 2^-20 below 8: with frames below 2^21, sums of ten of them are exact in float64.
EXACT = st.integers(-(2**23), 2**23).map(lambda steps: np.float32(steps / 2**20))
FRAMES = st.integers(1, 2**20)


def mean_of(sets: list[dict[str, Values]], weights: list[int]) -> dict[str, Values]:
    mean = RunningMean()
    for values, weight in zip(sets, weights, strict=True):
        mean.add(values, weight)
    return mean.take()


def draw_clients(data: st.DataObject, elements: st.SearchStrategy) -> tuple[NDArray, list[int]]:
    """One array per client, stacked, and their frames."""
    count = data.draw(st.integers(1, 8))
    shape = (count, *data.draw(array_shapes(min_dims=0, max_dims=3, max_side=4)))
    values = data.draw(arrays(np.float32, shape, elements=elements))
    return values, data.draw(st.lists(FRAMES, min_size=count, max_size=count))


@given(st.data())
def test_the_order_of_clients_changes_no_bit(data: st.DataObject):
    values, weights = draw_clients(data, EXACT)
    order = data.draw(st.permutations(range(len(values))))
    ours = mean_of([{"w": each} for each in values], weights)
    theirs = mean_of([{"w": values[i]} for i in order], [weights[i] for i in order])
    assert ours["w"].tobytes() == theirs["w"].tobytes()


def test_the_order_of_clients_changes_no_bit_of_a_models_worth_of_weights():
    """Clients that moved a little away from one global model, as in training."""
    rng = np.random.default_rng(0)
    shared = rng.normal(scale=0.02, size=200_000)
    sets = [
        {"w": (shared + rng.normal(scale=1e-3, size=shared.size)).astype(np.float32)}
        for _ in range(4)
    ]
    weights = [4513, 812, 99_991, 27]
    ours = mean_of(sets, weights)
    for order in ([3, 2, 1, 0], [1, 3, 0, 2]):
        theirs = mean_of([sets[i] for i in order], [weights[i] for i in order])
        assert ours["w"].tobytes() == theirs["w"].tobytes()


@given(st.data())
def test_identical_replies_are_their_own_mean_bit_for_bit(data: st.DataObject):
    """So that the weights sum to one: also for the smallest and the largest numbers there are."""
    values = data.draw(arrays(np.float32, array_shapes(min_dims=0, max_side=4), elements=FINITE))
    weights = data.draw(st.lists(FRAMES, min_size=1, max_size=8))
    mean = mean_of([{"w": values}] * len(weights), weights)["w"]
    assert (mean.dtype, mean.shape) == (np.float32, values.shape)
    assert mean.tobytes() == values.tobytes()


@given(st.data())
def test_the_mean_is_numpys_weighted_average(data: st.DataObject):
    values, weights = draw_clients(data, MODERATE)
    mean = mean_of([{"w": each} for each in values], weights)["w"]
    expected = np.average(values.astype(np.float64), axis=0, weights=weights)
    np.testing.assert_allclose(mean, expected, rtol=1e-6, atol=1e-9)


@given(st.data())
def test_a_mean_lies_between_the_lowest_and_the_highest(data: st.DataObject):
    values, weights = draw_clients(data, MODERATE)
    mean = mean_of([{"w": each} for each in values], weights)["w"]
    assert (values.min(0) <= mean).all()
    assert (mean <= values.max(0)).all()


def test_a_client_of_a_million_frames_does_not_drown_one_of_ten():
    sets = [{"w": np.zeros(1, np.float32)}, {"w": np.ones(1, np.float32)}]
    assert mean_of(sets, [10**6, 10])["w"] == np.float32(10 / (10**6 + 10))


def test_the_mean_is_an_array_in_every_number_of_dimensions():
    """NumPy makes scalars of arrays without dimensions, which no message takes."""
    shapes = [(), (1,), (2, 3)]
    mean = mean_of([{str(shape): np.ones(shape, np.float32) for shape in shapes}] * 2, [1, 2])
    assert [each.shape for each in mean.values() if isinstance(each, np.ndarray)] == shapes


def test_what_is_added_stays_as_it_was():
    values = np.ones(3, np.float32)
    mean = RunningMean()
    mean.add({"w": values}, 5)
    mean.add({"w": values}, 7)
    mean.take()
    np.testing.assert_array_equal(values, np.ones(3))


def test_the_sums_are_given_up_while_the_mean_is_taken():
    """Peak memory is that of the sums and of one array more, not of sums and mean at once."""
    count, size = 16, 65_536
    values = np.ones(size, np.float32)
    mean = RunningMean()
    tracemalloc.start()
    try:
        mean.add(dict.fromkeys(map(str, range(count)), values), 3)
        tracemalloc.reset_peak()
        taken = mean.take()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (len(taken), mean.take()) == (count, {})
    assert peak < (count + 3) * 8 * size


def test_the_mean_of_nothing_is_empty():
    assert RunningMean().take() == {}


@pytest.mark.parametrize("weights", [[1, 1], [3, 5], [2**28, 2**28]])
def test_weight_and_count_are_those_that_were_added(weights: list[int]):
    mean = RunningMean()
    for weight in weights:
        mean.add({"w": np.ones(1, np.float32)}, weight)
    assert (mean.weight, mean.count) == (sum(weights), 2)
