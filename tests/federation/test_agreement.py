import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zk0.federation.agreement import COORDINATES, Agreement

START = {"a": np.zeros((2, 3), np.float32), "b": np.full(4, 5, np.float32)}


def moved(direction: np.ndarray) -> dict[str, np.ndarray]:
    a, b = np.split(direction.astype(np.float32), [6])
    return {"b": START["b"] + b, "a": START["a"] + a.reshape(2, 3)}  # in another order


@given(st.integers(0, 100))
def test_small_models_cosines_are_exact(seed: int):
    directions = np.random.default_rng(seed).normal(size=(3, 10))
    agreement = Agreement(START)
    for client, direction in enumerate(directions):
        agreement.add(client, moved(direction))
    units = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    found = agreement.to_json()
    expected = {f"{i}-{j}": units[i] @ units[j] for i, j in ((0, 1), (0, 2), (1, 2))}
    assert found["pairs"] == pytest.approx(expected, abs=1e-5)
    assert found["mean"] == pytest.approx(sum(expected.values()) / 3, abs=1e-5)


def test_large_models_cosines_are_near():
    rng = np.random.default_rng(0)
    shared, *own = rng.normal(size=(3, 20 * COORDINATES)).astype(np.float32)
    agreement = Agreement({"w": np.zeros_like(shared)})
    for client, each in enumerate(own):
        agreement.add(client, {"w": shared + each})
    assert len(agreement._ends[0]) <= 1.1 * COORDINATES
    assert agreement.to_json()["mean"] == pytest.approx(0.5, abs=0.03)


def test_huge_updates_have_a_direction_too():
    """Whose squares are no float32."""
    agreement = Agreement(START)
    for client, size in enumerate((1e30, 3e38)):
        agreement.add(client, moved(np.full(10, size)))
    assert agreement.to_json()["pairs"] == {"0-1": pytest.approx(1)}


def test_an_update_that_is_none_points_nowhere():
    agreement = Agreement(START)
    agreement.add(2, START)
    agreement.add(0, moved(np.ones(10)))
    assert agreement.to_json() == {"mean": None, "pairs": {}}
    agreement.add(1, moved(-np.ones(10)))
    assert agreement.to_json()["pairs"] == {"0-1": pytest.approx(-1)}
