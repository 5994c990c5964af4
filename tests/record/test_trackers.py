from pathlib import Path

import numpy as np
import pytest

from tests.conftest import PROJECT
from zk0.config import Config, load
from zk0.record.trackers import Trackers, open_trackers
from zk0.record.videos import write_video

METRICS = {"server-evaluate": {"loss": 1.5, "datasets": {"near": {"loss": 1.0, "frames": 8}}}}


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "rollout_touch_1.mp4"
    write_video(path, [np.full((64, 64, 3), 90 * shade, np.uint8) for shade in range(3)], 10)
    return path


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)


def configured(**changes: object) -> Config:
    return load(PROJECT, {key.replace("_", "-"): value for key, value in changes.items()})[0]


def test_nothing_is_tracked_unless_asked_for(tmp_path: Path):
    with open_trackers(configured(), tmp_path) as trackers:
        trackers.log(1, METRICS)
        trackers.show(1, {"touch": tmp_path / "none.mp4"})
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("offline")
def test_weights_and_biases_works_offline_without_a_key(tmp_path: Path, video: Path):
    config = configured(use_wandb=True, wandb_project="arms")
    with open_trackers(config, tmp_path) as trackers:
        trackers.log(1, METRICS)
        trackers.show(1, {"touch": video})
    (run,) = (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")
    content = run.read_bytes()
    for part in (b"server-evaluate/datasets/near/loss", b"videos/touch", b"arms", b"proximal-mu"):
        assert part in content
    (kept,) = (tmp_path / "wandb").glob("offline-run-*/files/media/videos/**/*.mp4")
    assert kept.read_bytes() == video.read_bytes()


def test_tensorboard_gets_every_number_and_the_configuration(tmp_path: Path, video: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with open_trackers(configured(use_tensorboard=True), tmp_path) as trackers:
        for server_round in (1, 2):
            trackers.log(server_round, METRICS)
        trackers.show(2, {"touch": video})
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert events.Tags()["scalars"] == [
        "server-evaluate/loss",
        "server-evaluate/datasets/near/loss",
        "server-evaluate/datasets/near/frames",
    ]
    found = [(e.step, e.value) for e in events.Scalars("server-evaluate/datasets/near/loss")]
    assert found == [(1, 1.0), (2, 1.0)]
    text = events.Tensors("configuration/text_summary")[0].tensor_proto.string_val[0]
    assert b"| proximal-mu | 0.01 |" in text


class Failing:
    def __init__(self, at: str) -> None:
        self.at = at
        self.heard: list[str] = []

    def log(self, server_round: int, metrics: object) -> None:
        self._hear("log")

    def show(self, server_round: int, videos: object) -> None:
        self._hear("show")

    def finish(self, failed: bool) -> None:
        self._hear("finish")

    def _hear(self, what: str) -> None:
        self.heard.append(what)
        if what == self.at:
            raise ConnectionError("the server is gone")


@pytest.mark.parametrize("at", ["log", "show", "finish"])
def test_a_tracker_that_fails_ends_neither_the_run_nor_the_other_trackers(at: str):
    failing, sound = Failing(at), Failing("never")
    with Trackers([failing, sound]) as trackers:
        for server_round in (1, 2):
            trackers.log(server_round, METRICS)
            trackers.show(server_round, {"touch": Path("touch.mp4")})
    assert sound.heard == ["log", "show", "log", "show", "finish"]
    assert failing.heard == sound.heard[: sound.heard.index(at) + 1]


@pytest.mark.usefixtures("offline")
def test_a_tracker_that_cannot_be_opened_is_left_out(tmp_path: Path):
    (tmp_path / "tensorboard").write_text("a file where its folder should be")
    config = configured(use_wandb=True, use_tensorboard=True)
    with open_trackers(config, tmp_path) as trackers:
        names = [type(each).__name__ for each in trackers._trackers]
    assert names == ["WandbTracker"]
