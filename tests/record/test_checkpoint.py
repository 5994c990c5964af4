"""Checkpoints, the names that point to them, and which ones stay."""

import json
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy

from tests.federation.test_wire import STATISTICS
from tests.record.test_card import CARD
from zk0.errors import Zk0Error
from zk0.learning.policy import get_trainable, load_trainable, set_trainable
from zk0.record.card import Card
from zk0.record.checkpoint import forget_after, save_checkpoint


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> SmolVLAPolicy:
    """Only what `save_checkpoint` asks of a policy, where its weights do not matter."""

    class Small:
        def save_pretrained(self, folder: Path) -> None:
            folder.mkdir(parents=True)
            config = {"vlm_model_name": "owner/backbone", "input_features": {}}
            (folder / "config.json").write_text(json.dumps(config))

    monkeypatch.setattr("zk0.record.checkpoint.make_processors", lambda *_: ())
    return Small()


def rounds_in(models: Path) -> list[int]:
    return sorted(int(path.name.rpartition("_")[2]) for path in models.glob("checkpoint_round_*"))


def save(
    models: Path,
    policy: SmolVLAPolicy,
    server_round: int,
    *names: str,
    keep: int = 2,
    card: Card | None = None,
) -> Path:
    return save_checkpoint(models, server_round, policy, STATISTICS, names, keep, card)


def test_a_checkpoint_is_a_policy_with_its_statistics(tmp_path: Path, policy: SmolVLAPolicy):
    arrays = get_trainable(policy)
    moved = {name: tensor + 0.25 for name, tensor in arrays.items()}
    set_trainable(policy, moved)
    folder = save(tmp_path, policy, 7, "best", "last")
    set_trainable(policy, arrays)
    for name in ("best", "last"):
        loaded = load_trainable(policy, str(tmp_path / name))
        assert all(torch.equal(tensor, moved[key]) for key, tensor in loaded.items())
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint_round_7", "best", "last"}
    assert json.loads((folder / "config.json").read_text())["type"] == "smolvla"
    assert len(list(folder.glob("policy_*processor*.json"))) == 2


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


@pytest.mark.parametrize("limit", [100, 100_000])
def test_a_full_disk_is_a_clear_end_and_leaves_no_half_checkpoint(
    tmp_path: Path, policy: SmolVLAPolicy, limit: int
):
    """The first limit stops the configuration, the second the weights."""
    with (
        no_file_above(limit),
        pytest.raises(Zk0Error, match=r"checkpoint .*round_1 cannot be written: .*File too large"),
    ):
        save(tmp_path, policy, 1, "best")
    assert list(tmp_path.iterdir()) == []


def test_no_room_for_the_card_leaves_nothing_half(tmp_path: Path, small: SmolVLAPolicy):
    with no_file_above(500), pytest.raises(Zk0Error, match="File too large"):
        save(tmp_path, small, 1, "best", card=CARD)
    assert list(tmp_path.iterdir()) == []


def test_names_follow_the_round_that_they_were_given_last(tmp_path: Path, small: SmolVLAPolicy):
    save(tmp_path, small, 1, "best", keep=9)
    save(tmp_path, small, 2, "last", keep=9)
    assert (tmp_path / "best").readlink() == Path("checkpoint_round_1")
    save(tmp_path, small, 3, "best", "last", keep=9)
    for name in ("best", "last"):
        assert (tmp_path / name).readlink() == Path("checkpoint_round_3")  # a moved run keeps them
    assert rounds_in(tmp_path) == [1, 2, 3]


def test_a_round_that_has_its_checkpoint_only_gets_a_name(tmp_path: Path, small: SmolVLAPolicy):
    folder = save(tmp_path, small, 2, "best")
    (folder / "mark").touch()
    save(tmp_path, small, 2, "last")
    assert (tmp_path / "last" / "mark").exists()


def test_a_later_card_replaces_only_the_card(tmp_path: Path, small: SmolVLAPolicy):
    folder = save(tmp_path, small, 2, "best", card=CARD)
    config = (folder / "config.json").stat().st_mtime_ns
    save(tmp_path, small, 2, "last")
    assert json.loads((folder / "metrics.json").read_text()) == {"round": 2, **CARD.metrics}
    later = replace(CARD, metrics={"server": {"loss": 0.25, "datasets": {}}})
    save(tmp_path, small, 2, "last", card=later)
    assert json.loads((folder / "metrics.json").read_text()) == {"round": 2, **later.metrics}
    assert "0.2500" in (folder / "README.md").read_text()
    assert (folder / "config.json").stat().st_mtime_ns == config
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint_round_2", "best", "last"}


@pytest.mark.parametrize(("keep", "stay"), [(1, [1, 2, 12]), (2, [1, 2, 11, 12]), (9, None)])
def test_the_newest_stay_and_those_that_have_a_name(
    tmp_path: Path, small: SmolVLAPolicy, keep: int, stay: list[int] | None
):
    for server_round in range(1, 13):
        names = {1: ["best"], 2: ["last"]}.get(server_round, [])
        save(tmp_path, small, server_round, *names, keep=keep)
    assert rounds_in(tmp_path) == (stay or [1, 2, *range(4, 13)])
    assert (tmp_path / "best" / "config.json").exists()
    assert (tmp_path / "last" / "config.json").exists()


def test_a_killed_save_is_no_checkpoint_and_is_cleared_away(tmp_path: Path, small: SmolVLAPolicy):
    partial = tmp_path / ".checkpoint_round_4.partial"
    partial.mkdir()
    (partial / "half").touch()
    folder = save(tmp_path, small, 4)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint_round_4"]
    assert not (folder / "half").exists()


def test_a_save_killed_at_its_last_moment_has_no_name_yet(
    tmp_path: Path, small: SmolVLAPolicy, monkeypatch: pytest.MonkeyPatch
):
    child = os.fork()
    if not child:  # dies when all is written, before the checkpoint gets its name
        monkeypatch.setattr("os.replace", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        save(tmp_path, small, 4, "last")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert all(path.name.startswith(".checkpoint_round_4.") for path in tmp_path.iterdir())
    save(tmp_path, small, 4, "last", card=CARD)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint_round_4", "last"}


def test_a_resumed_run_forgets_the_rounds_that_it_makes_anew(tmp_path: Path, small: SmolVLAPolicy):
    for server_round in (2, 9, 10, 11):
        save(tmp_path, small, server_round, *(["best"] if server_round == 9 else []), keep=9)
    forget_after(tmp_path, 9, 0)
    assert rounds_in(tmp_path) == [2, 9]
    assert (tmp_path / "best" / "config.json").exists()


def test_no_name_points_to_a_forgotten_round(tmp_path: Path, small: SmolVLAPolicy):
    save(tmp_path, small, 3, "best")
    save(tmp_path, small, 5, "best", "last")
    forget_after(tmp_path, 4, 3)
    assert all(path.exists() for path in tmp_path.iterdir())


def test_there_may_be_nothing_to_forget(tmp_path: Path):
    forget_after(tmp_path / "models", 3, 0)
    assert not list(tmp_path.iterdir())
