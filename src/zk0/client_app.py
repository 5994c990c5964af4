"""Flower's door to a client: unpack the message, call the node, pack the reply."""

import faulthandler
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from flwr.app import ConfigRecord, Context, Message, RecordDict, UserConfigValue
from flwr.clientapp import ClientApp
from loguru import logger

from zk0.config import Config, Datasets, Level, app_folder, load, load_logging
from zk0.data.sources import Source
from zk0.errors import Zk0Error
from zk0.federation.wire import (
    Introduction,
    close_variates,
    open_variates,
    pack_evaluation,
    pack_introduction,
    pack_training,
    unpack_arrays,
    unpack_assignment,
)
from zk0.node import Node
from zk0.paths import from_project
from zk0.record import evidence
from zk0.record.log import ensure_terminal, keeping_lines
from zk0.record.run_folder import RunFolder

DATASET = "dataset"  # what a node keeps of its own between messages

app = ClientApp()
ensure_terminal()


@app.query()
def introduce(message: Message, context: Context) -> Message:
    """Say which dataset this node has, and its statistics, if it is one to train on."""
    node = _open_node(context)
    node.examine()
    if node.frames.commit:
        context.state[DATASET] = ConfigRecord({"commit": node.frames.commit})
    partition = int(context.node_config.get("partition-id", -1))
    introduction = Introduction.of(
        node.frames, node.training_frames, node.statistics, node.backbone, partition
    )
    return Message(pack_introduction(introduction), reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Run the local steps from the global arrays."""
    node, task = _open_node(context), unpack_assignment(message)
    with recorded(context, task.client), ends_within(task.timeout):
        logger.info("round {}: training on {}", task.server_round, node.source.slug)
        variates = open_variates(message.content, context.state)
        seed = [node.config.seed, task.client, task.server_round]
        rates = task.learning_rate, task.final_learning_rate
        arrays, result = node.fit(
            unpack_arrays(message.content), task.statistics, rates, task.proximal_mu, seed, variates
        )
        control = close_variates(variates, context.state)
    frames = len(node.training_frames)
    return Message(pack_training(arrays, result, task, frames, control), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Evaluate the global arrays on the held-out episodes, and film some where that is due."""
    node, task = _open_node(context), unpack_assignment(message)
    thorough = node.config.is_thorough(task.server_round)
    with recorded(context, task.client), ends_within(task.timeout):
        result = node.evaluate(unpack_arrays(message.content), task.statistics, thorough)
        if thorough:
            who = f"client_{task.client}"
            folder = evidence.folder_of(_own_record(context), task.server_round, who)
            node.film(task.statistics, folder, who, task.server_round, result.loss)
    return Message(pack_evaluation(result), reply_to=message)


@contextmanager
def ends_within(seconds: float) -> Iterator[None]:
    """End this process where the block takes longer: the server has given it up by then, and a
    simulation's or SuperNode's place would stay taken. Works where Python itself hangs."""
    faulthandler.dump_traceback_later(seconds, exit=True, file=2)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


@contextmanager
def recorded(context: Context, client: int) -> Iterator[None]:
    """Keep the block's log lines, and what it raises, in the client's own log."""
    folder = _own_record(context) / "clients" / f"client_{client}"
    with keeping_lines(folder / "client.log", _load(context).level):
        try:
            yield
        except Exception:
            logger.opt(exception=True).debug("where it was raised")
            raise


def _own_record(context: Context) -> Path:
    """Where this node keeps what only it may see: in a simulation the run's own folder, elsewhere
    one of the node's, named after Flower's run."""
    output_dir = str(context.run_config["output-dir"])
    found = RunFolder.find(output_dir, context.run_id)
    return found.path if found else from_project(output_dir) / f"flower-run-{context.run_id}"


def _open_node(context: Context) -> Node:
    loaded = _load(context)
    source = _find_source(context, loaded.datasets)
    return Node(loaded.config, _pinned(source, context.state))


class Loaded(NamedTuple):
    config: Config
    datasets: Datasets
    level: Level  # of the client's own log


def _load(context: Context) -> Loaded:
    """The app's settings, read once for all of a run's messages to this process."""
    return _load_once(app_folder(), tuple(sorted(context.run_config.items())))


@lru_cache(maxsize=4)
def _load_once(folder: Path, run_config: tuple[tuple[str, UserConfigValue], ...]) -> Loaded:
    return Loaded(*load(folder, dict(run_config)), load_logging(folder).file)


def _pinned(source: Source, state: RecordDict) -> Source:
    """At the commit that this node introduced: the Hub may have a newer one by now."""
    kept = state.config_records.get(DATASET)
    return source if kept is None else replace(source, revision=str(kept["commit"]))


def _find_source(context: Context, datasets: Datasets) -> Source:
    """This node's dataset: its own `dataset-uri` in a deployment, else its partition's."""
    own = context.node_config
    if "dataset-uri" in own:
        cameras = _pairs(str(own.get("dataset-cameras", "")))
        return Source.parse(str(own["dataset-uri"])).read_as("", cameras, _fps(own))
    return _partition(context, datasets)


def _pairs(text: str) -> dict[str, str]:
    """`top=camera1 wrist=camera2` as pairs."""
    pairs = [word.partition("=") for word in text.replace(",", " ").split()]
    if not all(name and slot for name, _, slot in pairs):
        raise Zk0Error(
            f'dataset-cameras = "{text}" has to name the policy\'s camera for each recorded one, '
            'such as "top=camera1 wrist=camera2".'
        )
    return {name: slot for name, _, slot in pairs}


def _fps(own: Mapping[str, object]) -> int:
    fps = own.get("dataset-fps", 0)
    if not isinstance(fps, int) or fps < 0:
        raise Zk0Error(f"dataset-fps = {fps!r} has to be a whole number of 0 or more.")
    return fps


def _partition(context: Context, datasets: Datasets) -> Source:
    node = context.node_config
    if "partition-id" not in node:
        raise Zk0Error(
            "this node has no dataset: start it with --node-config \"dataset-uri='...'\"."
        )
    if node["num-partitions"] != len(datasets.clients):
        raise Zk0Error(
            f"{node['num-partitions']} simulated clients for {len(datasets.clients)} datasets in "
            "[tool.zk0.datasets]: run ./train-fl-simulation.sh, which sets their number, or "
            f"flwr run with --federation-config num-supernodes={len(datasets.clients)}."
        )
    return datasets.clients[int(node["partition-id"])].parsed
