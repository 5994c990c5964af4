from pathlib import Path

import pytest

from zk0.record.trackers import Tracker, WandbTracker, open_tracker


def test_tracker_is_off_unless_asked_for(tmp_path: Path):
    with open_tracker(False, tmp_path, {}) as tracker:
        tracker.log(1, {"loss": 1.0})
    assert type(tracker) is Tracker
    assert not list(tmp_path.iterdir())


def test_weights_and_biases_works_offline_without_a_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("HOME", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    with open_tracker(True, tmp_path, {"seed": 0}) as tracker:
        assert isinstance(tracker, WandbTracker)
        tracker.log(1, {"server-evaluate": {"loss": 1.5, "datasets": {"near": {"loss": 1.0}}}})
    (run,) = (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")
    content = run.read_bytes()
    assert b"server-evaluate/datasets/near/loss" in content
