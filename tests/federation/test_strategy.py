"""The strategy on real Flower messages, against plain NumPy."""

from pathlib import Path

import numpy as np
import pytest
from flwr.app import ArrayRecord, Error, Message, MessageType, MetricRecord, RecordDict

from tests.conftest import PROJECT
from zk0.config import check
from zk0.errors import Zk0Error
from zk0.federation.strategy import RecordedFedProx
from zk0.federation.wire import ARRAYS, METRICS, NUM_EXAMPLES
from zk0.record.history import History
from zk0.record.run_folder import RunFolder
from zk0.record.trackers import Tracker

from .test_roster import CLIENTS
from .test_wire import STATISTICS

# A client's exception as it arrives: through Flower, then Ray, then Flower's simulation engine.
WRAPPED = """<class 'ray.exceptions.RayTaskError(ClientAppException)'>:<'ray::ClientAppActor.run()
  File "ray_actor.py", line 65, in run
    raise ClientAppException(str(ex)) from ex
flwr.clientapp.client_app.ClientAppException:
Exception ClientAppException occurred. Message: {}'>"""
METRIC_NAMES = ("loss", "first-loss", "last-loss", "steps", "seconds")


@pytest.fixture
def strategy(tmp_path: Path) -> RecordedFedProx:
    config, _ = check(PROJECT, [f"output-dir='{tmp_path}'"])
    history = History(RunFolder.create(str(tmp_path)), Tracker())
    return RecordedFedProx(config, 1e-3, CLIENTS[:3], STATISTICS, history)


def train_message(node_id: int) -> Message:
    message = Message(RecordDict(), dst_node_id=node_id, message_type=MessageType.TRAIN)
    message.metadata._message_id = "m"  # as the grid stamps it on its way out
    return message


def reply(client: int, values: np.ndarray, examples: int, loss: float = 1.0) -> Message:
    metrics = {NUM_EXAMPLES: examples, **dict.fromkeys(METRIC_NAMES, loss)}
    content = RecordDict({ARRAYS: ArrayRecord([values]), METRICS: MetricRecord(metrics)})
    return Message(content, reply_to=train_message(CLIENTS[client].node_id))


def failure(client: int, reason: str) -> Message:
    return Message(Error(1, reason), reply_to=train_message(CLIENTS[client].node_id))


def aggregated(strategy: RecordedFedProx, replies: list[Message]) -> np.ndarray:
    arrays, _ = strategy.aggregate_train(1, replies)
    assert arrays is not None
    return arrays.to_numpy_ndarrays()[0]


def test_aggregate_is_the_mean_weighted_by_frames(strategy: RecordedFedProx):
    rng = np.random.default_rng(0)
    values, frames = rng.normal(size=(3, 4, 5)).astype(np.float32), [10, 200, 3000]
    result = aggregated(strategy, [reply(i, values[i], frames[i]) for i in range(3)])
    expected = np.average(values, axis=0, weights=frames)
    np.testing.assert_allclose(result, expected, rtol=1e-5)


def test_order_of_arrival_changes_no_bit(strategy: RecordedFedProx):
    values = np.random.default_rng(1).normal(size=(3, 1000)).astype(np.float32)
    replies = [reply(i, values[i], 7 + i) for i in range(3)]
    np.testing.assert_array_equal(
        aggregated(strategy, replies), aggregated(strategy, replies[::-1])
    )


def test_failed_client_costs_its_own_reply_and_is_in_the_record(strategy: RecordedFedProx):
    ones = np.ones(4, np.float32)
    replies = [reply(0, ones, 5), failure(1, WRAPPED.format("broken video")), reply(2, ones, 5)]
    np.testing.assert_array_equal(aggregated(strategy, replies), ones)
    assert strategy.history.rounds[1]["failures"] == [
        {"client": 1, "slug": "arm-1", "reason": "broken video"}
    ]


def test_round_in_which_nobody_trained_ends_the_run_with_the_reason(strategy: RecordedFedProx):
    with pytest.raises(Zk0Error, match="no client finished training in round 1: no space"):
        strategy.aggregate_train(1, [failure(0, WRAPPED.format("no space"))])


def test_clients_are_told_round_rate_mu_and_statistics(strategy: RecordedFedProx):
    messages = list(strategy.configure_train(4, ArrayRecord(), None, None))
    assert [m.metadata.dst_node_id for m in messages] == [c.node_id for c in CLIENTS[:3]]
    sent = messages[0].content.config_records["config"]
    assert (sent["server-round"], sent["learning-rate"], sent["proximal-mu"]) == (4, 1e-3, 0.01)
    assert sent["action.count"] == 7
