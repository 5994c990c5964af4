"""Which dataset a client takes: its own in a deployment, its partition's in a simulation."""

import pytest
from flwr.app import ConfigRecord, Context, RecordDict

from zk0 import client_app
from zk0.config import load
from zk0.data.sources import Source
from zk0.errors import Zk0Error

pytestmark = pytest.mark.usefixtures("loaded_app")


def context(**node_config: object) -> Context:
    config = {key.replace("_", "-"): value for key, value in node_config.items()}
    return Context(run_id=1, node_id=1, node_config=config, state=RecordDict(), run_config={})


def find_source(given: Context) -> Source:
    _, datasets = load(client_app.app_folder(), given.run_config)
    return client_app._find_source(given, datasets)


def test_simulated_client_takes_its_partitions_dataset():
    source = find_source(context(partition_id=2, num_partitions=4))
    assert source == Source("sim", "push")


def test_deployed_client_takes_its_owners_dataset():
    assert find_source(context(dataset_uri="local:/data/arm")) == Source("local", "/data/arm")


def test_owner_says_how_the_data_are_read():
    source = find_source(
        context(
            dataset_uri="hf:ada/arm@v3.0#1/4",
            dataset_cameras="top=camera1, wrist=camera2",
            dataset_fps=10,
        )
    )
    assert (source.revision, source.part, source.fps) == ("v3.0", (1, 4), 10)
    assert dict(source.cameras) == {"top": "camera1", "wrist": "camera2"}


@pytest.mark.parametrize(
    "own", [{"dataset_cameras": "top"}, {"dataset_cameras": "=a"}, {"dataset_fps": -1}]
)
def test_owner_who_says_it_wrongly_is_told(own: dict[str, object]):
    with pytest.raises(Zk0Error, match=r"dataset-(cameras|fps) = "):
        find_source(context(dataset_uri="local:/data/arm", **own))


@pytest.mark.parametrize("count", [2, 5])
def test_number_of_clients_that_is_not_that_of_datasets(count: int):
    with pytest.raises(Zk0Error, match=f"{count} simulated clients for 4 datasets"):
        find_source(context(partition_id=0, num_partitions=count))


def test_node_without_a_dataset_is_told_how_to_name_one():
    with pytest.raises(Zk0Error, match="--node-config"):
        find_source(context())


def test_the_commit_that_was_introduced_is_the_one_that_is_trained_on():
    """Whatever the Hub has by the next round, where each message is a process of its own."""
    state, source = RecordDict(), Source("hf", "ada/arm")
    assert client_app._pinned(source, state) == source
    state[client_app.DATASET] = ConfigRecord({"commit": "0a" * 20})
    assert client_app._pinned(source, state).revision == "0a" * 20
