"""What a killed run goes on from: kept whole or not at all, read sound or not at all."""

import json
import os
import resource
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loguru import logger
from numpy.typing import NDArray

from tests.conftest import PROJECT
from zk0.config import Config, check
from zk0.errors import Zk0Error
from zk0.federation.plan import schedule_settings
from zk0.federation.resume import FREE_KEYS, Kept, pack_state, unpack_state
from zk0.federation.roster import Client
from zk0.federation.rounds import Progress
from zk0.federation.schedules import advance, begin, observe_start
from zk0.federation.state import State, load_state, save_state
from zk0.federation.wire import hash_record, pack_arrays, to_numpy

from .test_roster import CLIENTS, client
from .test_wire import RANKED, STATISTICS

THREE = CLIENTS[:3]
FACTS = {"best_loss": 0.1 + 0.2, "history": {"rounds": {"1": {"void": True}}}, "none": None}


def drawn(seed: int, size: int = 50) -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    return {
        "w": rng.normal(size=(size, 2)).astype(np.float32),
        "layers.0/b": rng.normal(size=3).astype(np.float32),
        "scale": np.array(rng.normal(), np.float32),
    }


def state_of(server_round: int, size: int = 50) -> State:
    moments = {f"m/{name}": values for name, values in drawn(99).items()}
    return State(server_round, drawn(server_round, size), moments, drawn(7), FACTS)


def assert_same(state: State, expected: State) -> None:
    assert (state.server_round, state.facts) == (expected.server_round, expected.facts)
    for part in ("arrays", "optimizer", "control"):
        ours, theirs = getattr(state, part), getattr(expected, part)
        assert ours.keys() == theirs.keys()
        for name, values in theirs.items():
            assert (ours[name].dtype, ours[name].shape) == (values.dtype, values.shape)
            assert ours[name].tobytes() == values.tobytes()


def folder_names(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "state").iterdir())


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    lines: list[str] = []
    sink = logger.add(lines.append, level="WARNING", format="{message}")
    yield lines
    logger.remove(sink)


# --- save and load --------------------------------------------------------------------------------


def test_a_state_comes_back_as_it_was_saved(tmp_path: Path, warnings: list[str]):
    save_state(tmp_path, state_of(12), keep=2)
    assert_same(load_state(tmp_path), state_of(12))
    assert warnings == []


def test_parts_may_be_empty(tmp_path: Path):
    bare = State(1, drawn(1), {}, {}, {})
    save_state(tmp_path, bare, keep=1)
    assert_same(load_state(tmp_path), bare)


@pytest.mark.parametrize("keep", [1, 2, 5])
def test_the_newest_are_kept_by_number_not_by_name(tmp_path: Path, keep: int):
    for server_round in (8, 9, 10, 11):
        save_state(tmp_path, state_of(server_round), keep)
    assert len(folder_names(tmp_path)) == min(keep, 4)
    assert load_state(tmp_path).server_round == 11


def test_a_round_that_is_run_again_takes_the_place_of_the_one_before(tmp_path: Path):
    save_state(tmp_path, replace(state_of(3), facts={"first": True}), keep=2)
    save_state(tmp_path, state_of(3), keep=2)
    assert_same(load_state(tmp_path), state_of(3))
    assert folder_names(tmp_path) == ["round_3"]


def test_what_a_killed_save_left_is_no_state_and_in_nobodys_way(tmp_path: Path):
    save_state(tmp_path, state_of(1), keep=2)
    partial = tmp_path / "state" / ".round_2.partial"
    shutil.copytree(tmp_path / "state" / "round_1", partial)
    (partial / "arrays.safetensors").write_bytes(b"half")
    assert load_state(tmp_path).server_round == 1
    save_state(tmp_path, state_of(2), keep=2)
    assert folder_names(tmp_path) == ["round_1", "round_2"]
    assert_same(load_state(tmp_path), state_of(2))


def test_damaged_states_of_later_rounds_do_not_count_as_kept(tmp_path: Path):
    """A run goes on from round 1 and is killed again after round 2."""
    for server_round in (1, 3, 4):
        save_state(tmp_path, state_of(server_round), keep=3)
    for server_round in (3, 4):
        (tmp_path / f"state/round_{server_round}/state.json").unlink()
    assert load_state(tmp_path).server_round == 1
    save_state(tmp_path, state_of(2), keep=2)
    assert load_state(tmp_path).server_round == 2


# --- damage ---------------------------------------------------------------------------------------


def flip(path: Path, position: float) -> None:
    """Flip a bit at a share of the file's length."""
    content = bytearray(path.read_bytes())
    content[int(position * len(content))] ^= 4
    path.write_bytes(content)


def cut(path: Path, share: float) -> None:
    os.truncate(path, int(share * path.stat().st_size))


DAMAGE: dict[str, Callable[[Path], None]] = {
    "bit in the values": lambda folder: flip(folder / "arrays.safetensors", 0.9),
    "bit in the header": lambda folder: flip(folder / "arrays.safetensors", 0.05),
    "arrays cut": lambda folder: cut(folder / "arrays.safetensors", 0.5),
    "arrays empty": lambda folder: cut(folder / "arrays.safetensors", 0),
    "arrays missing": lambda folder: (folder / "arrays.safetensors").unlink(),
    "facts torn": lambda folder: cut(folder / "state.json", 0.6),
    "facts empty": lambda folder: cut(folder / "state.json", 0),
    "facts of another kind": lambda folder: (folder / "state.json").write_text("[1]"),
    "facts without a hash": lambda folder: (folder / "state.json").write_text('{"format": 1}'),
    "facts not text": lambda folder: (folder / "state.json").write_bytes(b"\xff\xfe{"),
    "facts missing": lambda folder: (folder / "state.json").unlink(),
    "folder empty": lambda folder: [path.unlink() for path in folder.iterdir()] and None,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_state_gives_way_to_the_one_before_with_a_warning(
    tmp_path: Path, warnings: list[str], damage: str
):
    for server_round in (9, 10):
        save_state(tmp_path, state_of(server_round), keep=2)
    DAMAGE[damage](tmp_path / "state" / "round_10")
    assert_same(load_state(tmp_path), state_of(9))
    assert len(warnings) == 1
    assert "round_10 is damaged" in warnings[0]


def test_a_state_of_another_format_gives_way_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warnings: list[str]
):
    save_state(tmp_path, state_of(9), keep=2)
    with monkeypatch.context() as later_version:
        later_version.setattr("zk0.federation.state.FORMAT", 2)
        save_state(tmp_path, state_of(10), keep=2)
    assert load_state(tmp_path).server_round == 9
    assert "its format is 2, not 1" in warnings[0]


def test_without_a_sound_state_there_is_nothing_to_resume_from(tmp_path: Path):
    with pytest.raises(Zk0Error, match="has no state to resume from"):
        load_state(tmp_path)
    for server_round in (1, 2):
        save_state(tmp_path, state_of(server_round), keep=2)
        flip(tmp_path / f"state/round_{server_round}/arrays.safetensors", 0.5)
    with pytest.raises(Zk0Error, match="has no state to resume from"):
        load_state(tmp_path)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("run")
    for server_round in (1, 2):
        save_state(run, state_of(server_round), keep=2)
    return run


@given(position=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_no_flipped_bit_of_the_facts_is_taken_for_a_fact(saved: Path, position: float, bit: int):
    path = saved / "state" / "round_2" / "state.json"
    sound = path.read_bytes()
    spoilt = bytearray(sound)
    spoilt[int(position * len(spoilt))] ^= 1 << bit
    path.write_bytes(spoilt)
    try:
        found = load_state(saved)
    finally:
        path.write_bytes(sound)
    assert found.facts == FACTS
    assert found.server_round in (1, 2)


# --- disk -----------------------------------------------------------------------------------------


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("limit", [0, 1000, 40_000])
def test_a_full_disk_is_a_clear_end_and_costs_no_older_state(tmp_path: Path, limit: int):
    save_state(tmp_path, state_of(1), keep=1)
    with (
        no_file_above(limit),
        pytest.raises(
            Zk0Error, match=r"round_2 cannot be written: .*File too large.*resume='last'"
        ),
    ):
        save_state(tmp_path, state_of(2, size=10_000), keep=1)
    assert folder_names(tmp_path) == ["round_1"]
    assert_same(load_state(tmp_path), state_of(1))


def test_a_disk_with_room_again_takes_the_round_that_it_refused(tmp_path: Path):
    with no_file_above(100), pytest.raises(Zk0Error):
        save_state(tmp_path, state_of(2), keep=1)
    save_state(tmp_path, state_of(2), keep=1)
    assert_same(load_state(tmp_path), state_of(2))


def test_facts_that_json_cannot_hold_are_no_state(tmp_path: Path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        save_state(tmp_path, replace(state_of(1), facts={"loss": float("nan")}), keep=1)
    with pytest.raises(Zk0Error, match="no state to resume from"):
        load_state(tmp_path)


@pytest.mark.slow
def test_a_model_of_100_million_parameters_is_saved_in_seconds(tmp_path: Path):
    values = np.random.default_rng(0).random(99_900_000, np.float32)
    arrays = {f"layer{i}": part for i, part in enumerate(np.array_split(values, 50))}
    start = time.perf_counter()
    save_state(tmp_path, State(1, arrays, {}, {}, FACTS), keep=1)
    seconds = time.perf_counter() - start
    print(f"99.9 M float32 parameters were saved in {seconds:.2f} s")
    assert seconds < 3


# --- a run's progress as a state ------------------------------------------------------------------


def config_with(*run_config: str) -> Config:
    config, _ = check(PROJECT, list(run_config))
    return config


def progress_after(config: Config, scaffold: bool = False) -> Progress:
    """After round 1 of a run whose schedule has seen losses."""
    settings = schedule_settings(config, 1e-3)
    schedule = begin(settings)
    schedule = observe_start(schedule, 1.25)
    schedule = advance(settings, schedule, 0.1 + 0.2, {0: 1.0, 1: 9.0, 2: 1.1})
    control = pack_arrays(drawn(5)) if scaffold else None
    return Progress(1, pack_arrays(drawn(1)), control, schedule, 0.1 + 0.2, 1, 0, 0)


def through_disk(run: Path, kept: Kept, config: Config) -> State:
    save_state(run, pack_state(kept, config, THREE), keep=1)
    return load_state(run)


def test_a_progress_survives_the_disk(tmp_path: Path):
    config = config_with("preset='dynamic'")
    history = {"rounds": {"1": {"plan": {"boosted": {"1": 1e-3}}}}}
    kept = Kept(progress_after(config), STATISTICS, history, {"m/w": drawn(3)["w"]})
    state = through_disk(tmp_path, kept, config)
    again = unpack_state(state, config, THREE)
    assert replace(again.progress, arrays=kept.progress.arrays) == kept.progress
    assert hash_record(again.progress.arrays) == hash_record(kept.progress.arrays)
    assert again.progress.schedule.plan.boosted  # a client's number is a number again
    assert (again.statistics, again.history) == (STATISTICS, history)
    assert again.optimizer.keys() == {"m/w"}
    assert again.optimizer["m/w"].tobytes() == drawn(3)["w"].tobytes()


def test_order_statistics_survive_the_disk_and_a_state_from_before_has_none(tmp_path: Path):
    config = config_with()
    statistics = {"observation.state": RANKED, "action": STATISTICS["action"]}
    state = through_disk(tmp_path, Kept(progress_after(config), statistics, {}, {}), config)
    assert unpack_state(state, config, THREE).statistics == statistics
    before = state.facts["statistics"]["action"]
    assert set(before) == {"count", "mean", "variance"}


def test_void_rounds_are_forgiven_and_scaffold_starts_again(tmp_path: Path, warnings: list[str]):
    config = config_with("strategy='scaffold'")
    progress = replace(progress_after(config, scaffold=True), void_rounds=2)
    state = through_disk(tmp_path, Kept(progress, STATISTICS, {}, {}), config)
    again = unpack_state(state, config, THREE).progress
    assert again.void_rounds == 0
    assert again.control is not None
    control = to_numpy(again.control)
    assert control.keys() == drawn(5).keys()
    assert not any(values.any() for values in control.values())
    assert any("SCAFFOLD starts again" in line for line in warnings)


def state_under(config: Config) -> State:
    return pack_state(Kept(progress_after(config), STATISTICS, {}, {}), config, THREE)


@pytest.mark.parametrize(
    "setting",
    [
        "seed=1",
        "strategy='fedavg'",
        "proximal-mu=0.02",
        "local-steps=51",
        "fraction-train=0.5",
        "eta-min=1e-5",
        "start-from='elsewhere'",
    ],
)
def test_another_configuration_is_refused_by_its_key(setting: str):
    key = setting.partition("=")[0]
    with pytest.raises(Zk0Error, match=f"the run to resume has {key} = "):
        unpack_state(state_under(config_with()), config_with(setting), THREE)


@pytest.mark.parametrize(
    "setting",
    [
        "num-server-rounds=99",
        "keep-checkpoints=7",
        "target-loss=0.5",
        "round-timeout=60.0",
        "resume='last'",
        "device='cpu'",
        "output-dir='/elsewhere'",
    ],
)
def test_what_shapes_no_result_may_differ(setting: str):
    state = state_under(config_with())
    kept = unpack_state(state, config_with(setting), THREE)
    assert kept.progress.server_round == state.server_round


def test_every_free_key_is_a_key():
    assert config_with().to_run_config().keys() >= FREE_KEYS


def test_a_key_that_the_run_did_not_know_is_refused():
    config = config_with()
    state = state_under(config)
    state.facts["config"].pop("server-tau")
    with pytest.raises(Zk0Error, match="the run to resume has server-tau = None"):
        unpack_state(state, config, THREE)


@pytest.mark.parametrize(
    ("clients", "reason"),
    [
        ([*THREE[:2], client(2, "another dataset")], "has another client 2"),
        (THREE[:2], "has another client 2"),
        (CLIENTS[:4], "has 3 clients, 4 are connected"),
        ([client(0, "1"), client(1, "0"), THREE[2]], "has another client 0"),
        ([], "has another client 0"),
    ],
)
def test_other_clients_are_refused(clients: list[Client], reason: str):
    config = config_with()
    with pytest.raises(Zk0Error, match=reason):
        unpack_state(state_under(config), config, clients)


def test_the_same_data_on_another_node_may_go_on():
    config = config_with()
    moved = [replace(each, node_id=each.node_id + 5) for each in THREE]
    assert unpack_state(state_under(config), config, moved).progress.server_round == 1


def test_a_state_holds_what_json_holds():
    config = config_with("preset='dynamic'")
    facts = state_under(config).facts
    assert json.loads(json.dumps(facts)) == facts
