"""What a process does once, however many rounds it takes part in."""

from collections import Counter
from pathlib import Path

import pytest

from tests.controls import configured
from zk0 import node
from zk0.config import Datasets
from zk0.data.statistics import pool_statistics
from zk0.node import Node, starting_arrays

WARM = (node._build, node.warm_folder, node.warm_frames, node.warm_batches)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch):
    """How often this process, which has nothing open yet, builds and opens things."""
    counts: Counter[str] = Counter()
    for name in ("build_policy", "open_frames", "Batches"):
        original = getattr(node, name)

        def counted(*given, name=name, original=original):
            counts[name] += 1
            return original(*given)

        monkeypatch.setattr(node, name, counted)
    for each in WARM:
        each.cache_clear()
    yield counts
    for each in WARM:
        each.cache_clear()


def test_rounds_of_two_clients_build_one_policy_and_open_each_dataset_once(
    opened: Counter[str], sources: Datasets, tmp_path: Path
):
    config = configured(tmp_path, local_steps=1, batch_size=4)
    arrays = {name: array.clone() for name, array in starting_arrays(config).items()}
    opened.clear()
    statistics = pool_statistics([Node(config, each.parsed).statistics for each in sources.clients])
    for server_round in (1, 2, 3):
        for number, each in enumerate(sources.clients):
            client = Node(config, each.parsed)  # a new one for each message, as the app makes them
            arrays, _ = client.fit(arrays, statistics, (1e-3, 1e-3), 0.0, [0, number, server_round])
            arrays = {name: array.clone() for name, array in arrays.items()}
            client.evaluate(arrays, statistics, predict=False)
    assert opened == {"build_policy": 1, "open_frames": 2, "Batches": 4}
