"""`zk0 evaluate` and `zk0 rollout` on a checkpoint outside of any run."""

import json
import shutil
from pathlib import Path

import pytest

from zk0.config import load
from zk0.evaluation.twins import choose
from zk0.learning.policy import build_policy
from zk0.record.checkpoint import save_checkpoint
from zk0.record.videos import load_facts

from .conftest import PROJECT


@pytest.fixture(scope="module")
def checkpoint(touch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    models = tmp_path_factory.mktemp("models")
    policy = build_policy("embedded", 0, torch.device("cpu"))
    return save_checkpoint(models, 1, policy, touch.statistics, ("last",), 1)


@pytest.fixture(autouse=True)
def in_the_app(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PROJECT)


def test_rollout_sets_simple_controllers_beside_the_policy(zk0, checkpoint, tmp_path: Path):
    status, out, err = zk0(
        *("rollout", str(checkpoint), "--task", "touch", "--episodes", "3"),
        *("--videos", str(tmp_path / "videos"), "--filmed", "2"),
        *("--json", str(tmp_path / "numbers.json")),
    )
    assert status == 0, err
    assert "3/3" in next(line for line in out.splitlines() if "expert" in line)
    assert "0/3" in next(line for line in out.splitlines() if "hold" in line)
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    assert list(numbers) == ["policy", "hold", "random", "expert"]
    assert numbers["expert"][0]["successes"] == 3
    videos = sorted((tmp_path / "videos").glob("*.mp4"))
    assert len(videos) == 2
    assert load_facts(videos[0]).seed == choose(["touch"])[0].seeds(1)[0]


def test_evaluate_takes_settings_of_the_app_where_there_is_no_run(
    zk0, checkpoint, datasets, tmp_path: Path
):
    numbers = tmp_path / "numbers.json"
    status, out, err = zk0(
        *("evaluate", str(checkpoint), "--dataset", f"local:{datasets['touch']}"),
        *("-c", "eval-batches=1 batch-size=4", "--json", str(numbers)),
    )
    assert status == 0, err
    found = json.loads(numbers.read_text())["touch"]
    assert found["frames"] == 4
    assert found["error.elbow_flex"] > 0
    assert "touch" in out


def test_evaluate_reads_a_dataset_as_the_run_did(zk0, checkpoint, datasets, tmp_path: Path):
    """Of the same frames a second, through the same cameras."""
    run, numbers = tmp_path / "run", tmp_path / "numbers.json"
    shutil.copytree(checkpoint, run / "models" / "last")
    front, wrist = "observation.images.front", "observation.images.wrist"

    def evaluated(fps: int, cameras: dict[str, str]) -> dict:
        entry = {"slug": "touch", "fps": fps, "cameras": cameras}
        config = load(PROJECT, {"eval-batches": 0})[0].to_run_config()
        described = {"config": config, "clients": [entry], "server": []}
        (run / "config.json").write_text(json.dumps(described))
        status, _, err = zk0(
            *("evaluate", str(run / "models" / "last"), "--dataset", f"local:{datasets['touch']}"),
            *("--json", str(numbers)),
        )
        assert status == 0, err
        return json.loads(numbers.read_text())["touch"]

    plain = evaluated(10, {front: front, wrist: wrist})
    slow = evaluated(5, {front: front, wrist: wrist})
    assert slow["frames"] == pytest.approx(plain["frames"] / 2, abs=3)
    swapped = evaluated(10, {front: wrist, wrist: front})
    assert swapped["frames"] == plain["frames"]
    assert swapped["loss"] != pytest.approx(plain["loss"], rel=0.01)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "/nowhere", "--dataset", "sim:near"], "/nowhere is not a folder"),
        (["evaluate", "CHECKPOINT", "--dataset", "near"], 'dataset source "near" is none of'),
        (["evaluate", "CHECKPOINT", "--dataset", "local:/nowhere"], "is not a LeRobotDataset"),
        (["rollout", "CHECKPOINT", "--task", "tuch"], "did you mean 'touch'"),
        (["rollout", "CHECKPOINT", "-c", "eval-batch=3"], "Did you mean eval-batches?"),
        (["evaluate", "EMPTY", "--dataset", "sim:near"], "is no checkpoint that can be loaded"),
    ],
)
def test_wrong_input_is_one_clear_line(zk0, checkpoint, tmp_path, arguments, message):
    names = {"CHECKPOINT": str(checkpoint), "EMPTY": str(tmp_path)}
    status, _, err = zk0(*(names.get(argument, argument) for argument in arguments))
    assert status == 1
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1


def test_damaged_checkpoint_is_refused(zk0, checkpoint, datasets, tmp_path: Path):
    broken = tmp_path / "models" / "broken"
    shutil.copytree(checkpoint, broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    status, _, err = zk0("evaluate", str(broken), "--dataset", f"local:{datasets['touch']}")
    assert status == 1
    assert "is no checkpoint that can be loaded" in err


def test_dataset_with_other_cameras_is_refused(zk0, checkpoint, datasets, tmp_path: Path):
    folder = tmp_path / "top"
    shutil.copytree(datasets["touch"], folder)
    info = folder / "meta" / "info.json"
    info.write_text(info.read_text().replace("observation.images.wrist", "observation.images.top"))
    status, _, err = zk0("evaluate", str(checkpoint), "--dataset", f"local:{folder}")
    assert status == 1
    assert "top: cameras top could be any of the policy's wrist: say which is which" in err


def test_without_opengl_there_are_no_rollouts(zk0, checkpoint, monkeypatch: pytest.MonkeyPatch):
    from zk0.sim.opengl import Choice

    monkeypatch.setattr("zk0.sim.opengl.configure", lambda: Choice(None, "", "no OpenGL here"))
    status, _, err = zk0("rollout", str(checkpoint))
    assert status == 1
    assert err == "error: the simulator's cameras need OpenGL: no OpenGL here\n"
