from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from zk0.data.frames import Frames, open_frames
from zk0.data.statistics import ACTION, ORDER, QUANTILES, STATE, Moments, pool, pool_statistics

parts = st.lists(
    st.integers(1, 20).flatmap(
        lambda rows: arrays(np.float32, (rows, 2), elements=st.floats(-1e3, 1e3, width=32))
    ),
    min_size=1,
    max_size=6,
)


@given(parts)
def test_pooled_moments_are_those_of_the_concatenated_data(values: list[np.ndarray]):
    pooled = pool([Moments.of(part) for part in values])
    together = np.concatenate(values).astype(np.float64)
    assert pooled.count == len(together)
    np.testing.assert_allclose(pooled.mean, together.mean(0), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(pooled.variance, together.var(0), rtol=1e-6, atol=1e-3)


@given(parts, st.randoms())
def test_order_of_clients_does_not_matter(values: list[np.ndarray], chance):
    moments = [Moments.of(part) for part in values]
    shuffled = chance.sample(moments, len(moments))
    np.testing.assert_allclose(
        pool(moments).variance, pool(shuffled).variance, rtol=1e-9, atol=1e-9
    )


def test_pooling_equals_lerobots_aggregation():
    from lerobot.datasets.compute_stats import aggregate_stats, get_feature_stats

    rng = np.random.default_rng(0)
    values = [rng.normal(rng.normal(), 3, (n, 6)).astype(np.float32) for n in (5, 40, 300)]
    theirs = aggregate_stats(
        [{ACTION: get_feature_stats(part, axis=0, keepdims=False)} for part in values]
    )[ACTION]
    ours = pool_statistics([{f: Moments.of(part) for f in (STATE, ACTION)} for part in values])[
        ACTION
    ]
    np.testing.assert_allclose(ours.mean, theirs["mean"], rtol=1e-6)
    np.testing.assert_allclose(np.sqrt(ours.variance), theirs["std"], rtol=1e-6)


@given(parts)
def test_order_statistics_are_in_their_order_after_pooling_too(values: list[np.ndarray]):
    """Also of single frames and of joints that do not move, where rounding would reverse them."""
    moments = [Moments.of(part, names=ORDER) for part in values]
    for each in (*moments, pool(moments)):
        assert tuple(each.order) == ORDER
        for lower, upper in pairwise(each.order.values()):
            assert (lower <= upper).all()
    together = np.concatenate(values)
    np.testing.assert_array_equal(pool(moments).order["min"], together.min(0))
    np.testing.assert_array_equal(pool(moments).order["max"], together.max(0))


@given(st.floats(-1e3, 1e3, width=32), st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_joint_that_never_moved_has_one_value_for_all(value: float, lengths: list[int]):
    """lerobot divides by 1e-8 where two quantiles are the same; of this one's, nearly the same, it
    would divide by the rounding."""
    still = [Moments.of(np.full((n, 1), value, np.float32), names=ORDER) for n in lengths]
    assert {float(row[0]) for row in pool(still).order.values()} == {value}


@given(parts)
def test_quantiles_of_clients_are_pooled_as_lerobot_pools_episodes(values: list[np.ndarray]):
    """However episodes are shared out among clients; each of `values` is one."""
    from lerobot.datasets.compute_stats import aggregate_stats, get_feature_stats

    stats = [{ACTION: get_feature_stats(part, axis=0, keepdims=False)} for part in values]
    theirs = aggregate_stats(stats)[ACTION]
    middle = (len(values) + 1) // 2
    clients = [_as_dataset(part) for part in (values[:middle], values[middle:]) if part]
    ours = pool(clients).order
    for name in QUANTILES:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-6, atol=1e-6)


def _as_dataset(episodes: list[np.ndarray]) -> Moments:
    numbers = np.repeat(np.arange(len(episodes)), [len(each) for each in episodes])
    return Moments.of(np.concatenate(episodes), numbers, ORDER)


def test_statistics_are_those_that_lerobot_recorded(touch: Frames, datasets: dict[str, Path]):
    """meta/stats.json of a dataset, and of two that are made one."""
    from lerobot.datasets.compute_stats import aggregate_stats

    both = [touch, open_frames(datasets["picklift"], "picklift")]
    recorded = [frames.videos.metadata.stats for frames in both]
    found = [frames.statistics_with(dict.fromkeys((STATE, ACTION), ORDER)) for frames in both]
    pairs = [(found[0], recorded[0]), (pool_statistics(found), aggregate_stats(recorded))]
    for ours, theirs in pairs:
        for feature in (STATE, ACTION):
            for name in ORDER:
                np.testing.assert_allclose(
                    ours[feature].order[name], theirs[feature][name], rtol=1e-6, atol=1e-6
                )


def test_only_what_all_parts_have_is_pooled():
    values = np.arange(6, dtype=np.float32)[:, None]
    known = [("min", "q01"), ("q01", "q99"), ("q01",)]
    assert list(pool([Moments.of(values, names=names) for names in known]).order) == ["q01"]


@pytest.mark.parametrize("names", [(), ("q01", "q99"), ("min", "max")])
def test_no_more_is_known_than_was_asked_for(touch: Frames, names: tuple[str, ...]):
    found = touch.statistics_with({ACTION: names})
    assert set(found[ACTION].order) == set(names)
    assert not found[STATE].order
    plain = touch.statistics[ACTION]
    assert plain.mean.tobytes() == found[ACTION].mean.tobytes()
    assert (plain == found[ACTION]) == (names == ())
