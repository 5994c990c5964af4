"""Named federations are what a run can be configured with."""

from collections import Counter

import pytest

from zk0.config import parse_datasets
from zk0.data.presets import preset
from zk0.errors import Zk0Error
from zk0.sim.recipes import recipe


@pytest.mark.parametrize(
    ("name", "kind", "clients", "server"),
    [
        ("so100-community", "hf", 12, 1),
        ("lerobot-so100", "hf", 3, 1),
        ("embedded-2", "sim", 2, 2),
        ("embedded-8", "sim", 8, 2),
    ],
)
def test_each_is_a_federation(name: str, kind: str, clients: int, server: int) -> None:
    datasets = parse_datasets(preset(name))
    assert (len(datasets.clients), len(datasets.server)) == (clients, server)
    for dataset in (*datasets.clients, *datasets.server):
        assert dataset.parsed.kind == kind
        assert dataset.description


@pytest.mark.parametrize("name", ["embedded-2", "embedded-8"])
def test_the_embedded_worlds_data_are_shared_out_whole(name: str) -> None:
    """Among fewer or more clients there are the same scenes, and as many episodes of each."""
    shared: Counter[str] = Counter()
    for dataset in parse_datasets(preset(name)).clients:
        parts = dataset.parsed.part[1] if dataset.parsed.part else 1
        for scene in recipe(dataset.parsed.name).scenes:
            shared[scene.task] += scene.episodes // parts
    assert shared == dict.fromkeys(["touch", "picklift", "push", "pull"], 30)


def test_datasets_of_the_same_last_name_stay_apart() -> None:
    sources = [entry["source"] for entry in preset("so100-community")["clients"]]
    assert [source for source in sources if source.endswith("/record-test")] == [
        "hf:shaunkirby/record-test",
        "hf:giovipeg/record-test",
    ]


def test_a_misspelt_name_is_told_the_right_one() -> None:
    with pytest.raises(Zk0Error, match='Did you mean "so100-community"'):
        preset("so100-comunity")
    with pytest.raises(
        Zk0Error, match="There are so100-community, lerobot-so100, embedded-2, embedded-8"
    ):
        preset("x")
