"""One run that is stopped at every bad moment, against the same run without any.

Each leg goes on in the folder of the one before, and the arrays that it has reached are compared
with those of the straight run.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.faults.conftest import Faults
from tests.faults.runs import Record, settings
from tests.flower import Flower

ROUNDS = 5
pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@dataclass(frozen=True)
class Federation:
    """A SuperLink with faults, and the outputs of the run that they stop."""

    flower: Flower
    faults: Faults
    outputs: Path

    def told(self, **run_config: int | str) -> str:
        return settings(self.outputs, num_server_rounds=ROUNDS, **run_config)

    def run_until(self, point: str, server_round: int, **who: str) -> Record:
        """Resume, and `kill -9` the server once a round has come to `point` and the state of the
        round before is kept: it is written at the same time."""
        self.faults.set({"do": point, "round": server_round, **who})
        self.flower.start(self.told(resume="'last'"))
        self.faults.await_process(point)
        record = Record.only_one_in(self.outputs)
        record.await_state(server_round - 1)
        self.flower.kill_server()
        return record


@pytest.fixture(scope="module")
def federation(
    pair: Flower, faults: Faults, tmp_path_factory: pytest.TempPathFactory
) -> Federation:
    return Federation(pair, faults, tmp_path_factory.mktemp("stopped"))


@pytest.fixture(scope="module")
def begun(sound_pair: Flower, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The run without faults, which keeps all its states; it goes on beside the first leg of the
    other."""
    outputs = tmp_path_factory.mktemp("straight")
    told = settings(outputs, num_server_rounds=ROUNDS, keep_checkpoints=ROUNDS + 1)
    return sound_pair.start(told), outputs


@pytest.fixture(scope="module")
def straight(begun: tuple[str, Path], sound_pair: Flower) -> Record:
    run_id, outputs = begun
    sound_pair.await_end(run_id)
    return Record.only_one_in(outputs)


@pytest.fixture(scope="module")
def disk_full(begun: tuple[str, Path], federation: Federation) -> str:
    """The run up to round 2, whose state has no room; its output."""
    federation.faults.set({"do": "fill_disk", "round": 2})
    return federation.flower.run(federation.told(), completes=False)


@pytest.fixture(scope="module")
def killed_in_training(federation: Federation, disk_full: str) -> Record:
    return federation.run_until("pause_in_training", 3, slug="touch")


@pytest.fixture(scope="module")
def killed_in_aggregation(federation: Federation, killed_in_training: Record) -> Record:
    return federation.run_until("pause_in_aggregation", 4)


@pytest.fixture(scope="module")
def killed_in_checkpointing(federation: Federation, killed_in_aggregation: Record) -> Record:
    return federation.run_until("pause_in_checkpoint", 5)


@pytest.fixture(scope="module")
def damaged(federation: Federation, killed_in_checkpointing: Record) -> Record:
    """The run to its end, after a byte of its newest state has been flipped and its last event cut
    short."""
    arrays = killed_in_checkpointing.path / "state" / "round_4" / "arrays.safetensors"
    content = bytearray(arrays.read_bytes())
    content[-1] ^= 1
    arrays.write_bytes(content)
    with (killed_in_checkpointing.path / "metrics.jsonl").open("a") as file:
        file.write('{"time": "2026-')
    federation.faults.set()
    federation.flower.run(federation.told(resume="'last'"))
    return killed_in_checkpointing


def assert_same_arrays(record: Record, straight: Record, server_round: int) -> None:
    """The newest state is that of the round, with the straight run's arrays."""
    assert record.kept_rounds()[-1] == server_round
    assert np.array_equal(record.arrays(server_round), straight.arrays(server_round))


def assert_resumed(record: Record, *after: int) -> None:
    assert [each["round"] for each in record.events("resume")] == list(after)
    assert [each["after_round"] for each in record.read("config.json")["resumed"]] == list(after)


def test_a_full_disk_ends_the_run_with_one_line_that_says_what_to_do(
    disk_full: str, federation: Federation
):
    told = [line for line in disk_full.splitlines() if " ERROR " in line]
    assert len(told) == 1
    assert "state/round_2 cannot be written: No space left on device. Free some space" in told[0]
    assert """goes on with --run-config "resume='last'\"""" in told[0]
    assert not list(federation.outputs.rglob("*.partial"))


def test_after_a_full_disk_the_run_goes_on_from_the_round_before(
    straight: Record, killed_in_training: Record
):
    assert_same_arrays(killed_in_training, straight, 2)
    assert_resumed(killed_in_training, 1)


def test_killed_in_training(straight: Record, killed_in_aggregation: Record):
    assert_same_arrays(killed_in_aggregation, straight, 3)
    assert_resumed(killed_in_aggregation, 1, 2)


def test_killed_in_aggregation(straight: Record, killed_in_checkpointing: Record):
    assert_same_arrays(killed_in_checkpointing, straight, 4)
    assert_resumed(killed_in_checkpointing, 1, 2, 3)


def test_a_damaged_state_is_told_of_and_the_one_before_it_taken(damaged: Record):
    assert "state/round_4 is damaged (the SHA-256 of arrays.safetensors" in damaged.log
    assert_resumed(damaged, 1, 2, 3, 3)


def test_the_end_and_the_record_are_those_of_the_straight_run(straight: Record, damaged: Record):
    """As, with one seed, those of any two runs are: on SuperLinks of their own, in these."""
    assert_same_arrays(damaged, straight, ROUNDS)
    (end,), (straight_end,) = damaged.events("run-end"), straight.events("run-end")
    assert (end["round"], end["hash"]) == (ROUNDS, straight_end["hash"])
    assert without_seconds(damaged.rounds) == without_seconds(straight.rounds)
    name = "server/policy_loss_history.json"
    assert damaged.read(name) == straight.read(name)


def without_seconds(content: Any) -> Any:
    """The same without what no two runs share."""
    if isinstance(content, dict):
        return {k: without_seconds(v) for k, v in content.items() if k != "seconds"}
    return [without_seconds(each) for each in content] if isinstance(content, list) else content
