import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from zk0.data.statistics import ACTION, STATE, Moments, pool, pool_statistics

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
