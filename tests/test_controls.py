"""Controls: pooled data and each client alone, with the federation's steps and evaluation."""

import json
from pathlib import Path

import pytest
from lerobot.configs import NormalizationMode

from tests.controls import QUIET, configured
from tests.learning.test_normalisation import normalising_by
from zk0.config import Config, Datasets
from zk0.controls import Control, run_control
from zk0.errors import Zk0Error
from zk0.evaluation.closed_loop import play_policy
from zk0.evaluation.twins import twins_of
from zk0.learning.integrity import hash_arrays
from zk0.learning.policy import Arrays, build_policy, load_checkpoint
from zk0.node import starting_arrays
from zk0.record.evidence import folder_of, load_frames, load_rollouts
from zk0.record.run_folder import RunFolder


def read(run: Path, name: str) -> dict:
    return json.loads((run / name).read_text())


def test_all_begin_with_the_same_policy_and_see_the_same_frames(controls: dict[str, Path]):
    if len({str(read(run, "config.json")["kind"]) for run in controls.values()}) != 2:
        pytest.fail("one centralized run and two local ones were made")
    losses = [read(run, "server/policy_loss_history.json")["0"] for run in controls.values()]
    assert losses[0] == losses[1] == losses[2]
    rows = [load_frames(folder_of(run, 2))["near"].rows.tolist() for run in controls.values()]
    assert rows[0] == rows[1] == rows[2]


def test_steps_are_the_federations(controls: dict[str, Path]):
    """Pooled training makes all clients' steps; a client alone its own."""
    steps = {
        name: [each["train"]["steps"] for each in rounds[1:]]
        for name, run in controls.items()
        for rounds in [read(run, "server/federated_metrics.json")["rounds"]]
    }
    assert steps == {"centralized": [6, 6], "first": [3, 3], "second": [3, 3]}
    for run in controls.values():
        budget = read(run, "config.json")["budget"]
        assert budget == {"steps_per_client": {"0": 6, "1": 6}, "batch_size": 8}


def test_description_says_who_was_trained_on_and_names_all_clients(controls: dict[str, Path]):
    described = {name: read(run, "config.json") for name, run in controls.items()}
    assert [each["trained_on"] for each in described.values()] == [[0, 1], [0], [1]]
    for each in described.values():
        assert [client["slug"] for client in each["clients"]] == ["touch", "picklift"]
        assert each["evaluation"] == described["first"]["evaluation"]


def test_run_folders_have_the_form_of_a_federated_one(controls: dict[str, Path]):
    for name, clients in (("centralized", [0, 1]), ("first", [0]), ("second", [1])):
        run = controls[name]
        events = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        assert events[-1]["event"] == "run-end"
        assert [each["round"] for each in events if each["event"] == "server-evaluate"] == [0, 1, 2]
        held_out = [path.name for path in sorted((run / "clients").iterdir())]
        assert held_out == [f"client_{number}" for number in clients]
        assert (run / "server" / "policy_loss.png").is_file()
        videos = sorted(path.parent.name for path in run.rglob("rollout_*.mp4"))
        assert videos == [f"client_{number}" for number in clients]


def test_last_checkpoint_is_the_trained_policy(controls: dict[str, Path]):
    import torch

    from zk0.learning.policy import get_trainable

    for run in controls.values():
        policy, _ = load_checkpoint(run / "models" / "last", torch.device("cpu"))
        end = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
        assert hash_arrays(get_trainable(policy)) == end["hash"]


def test_another_seed_is_another_run(controls: dict[str, Path], sources: Datasets, tmp_path: Path):
    run_control("local", configured(tmp_path, seed=1), sources, QUIET, [[1]])
    hashes = [
        json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["hash"]
        for run in (*tmp_path.iterdir(), controls["second"])
    ]
    assert hashes[0] != hashes[1]


def test_rollouts_of_the_start_come_with_the_first_others(
    controls: dict[str, Path], sources: Datasets, tmp_path: Path
):
    """And training goes on as if they had not been played: to the hash of the same seed's run."""
    import torch

    config = configured(tmp_path, rollout_frequency=1, rollout_episodes=1, rollout_videos=0)
    control = Control("local", config, sources, [1])
    run_control("local", config, sources, QUIET, [[1]])
    (run,) = tmp_path.iterdir()
    events = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    order = [
        (each["event"], each["round"])
        for each in events
        if each["event"] in ("train-aggregate", "rollouts")
    ]
    trained, played = "train-aggregate", "rollouts"
    assert order == [(trained, 1), (played, 0), (played, 1), (trained, 2), (played, 2)]
    (twin,) = twins_of(sources.clients[0].parsed)
    base = build_policy(config.model_name, config.seed, torch.device("cpu"))
    alone = play_policy(base, control.statistics, twin, twin.seeds(1))
    assert load_rollouts(folder_of(run, 0))[0] == alone[0]
    assert load_rollouts(folder_of(run, 2))[0] != alone[0]
    kept = json.loads((controls["second"] / "metrics.jsonl").read_text().splitlines()[-1])["hash"]
    assert events[-1]["hash"] == kept


def test_a_start_that_is_gone_costs_its_rollouts_alone(
    sources: Datasets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As where start-from names a folder that somebody has deleted since."""
    arrays = iter([starting_arrays(configured(tmp_path))])

    def gone(config: Config) -> Arrays:
        for there in arrays:
            return there
        raise Zk0Error("start-from is not there any more")

    monkeypatch.setattr("zk0.controls.starting_arrays", gone)
    config = configured(
        tmp_path, num_server_rounds=1, rollout_frequency=1, rollout_episodes=1, rollout_videos=0
    )
    run_control("local", config, sources, QUIET, [[1]])
    (run,) = tmp_path.iterdir()
    start, end = read(run, "server/federated_metrics.json")["rounds"]
    assert start["rollout-error"] == "Zk0Error: start-from is not there any more"
    assert "rollouts" in end


def test_local_normalization_is_the_clients_own(sources: Datasets, tmp_path: Path):
    config = configured(tmp_path, normalization="local")
    alone = Control("local", config, sources, [1])
    pooled = Control("local", configured(tmp_path), sources, [1])
    assert alone.statistics["action"] == alone.clients[1].statistics["action"]
    assert pooled.statistics["action"].count == sum(each.frames for each in pooled.clients)


def test_policy_that_normalises_by_quantiles(sources: Datasets, tmp_path: Path):
    """From what clients tell, which is no more than it needs, to a checkpoint."""
    import torch

    embedded = build_policy("embedded", 0, torch.device("cpu"))
    normalising_by(embedded, NormalizationMode.QUANTILES).save_pretrained(tmp_path / "policy")
    config = configured(tmp_path / "runs", model_name=str(tmp_path / "policy"))
    control = Control("local", config, sources, [1])
    for statistics in (*(each.statistics for each in control.clients), control.statistics):
        assert [set(moments.order) for moments in statistics.values()] == [{"q01", "q99"}] * 2
    run_control("local", config, sources, QUIET, [[1]])
    (run,) = (tmp_path / "runs").iterdir()
    assert list(read(run, "server/policy_loss_history.json")) == ["0", "1", "2"]
    _, kept = load_checkpoint(run / "models" / "last", torch.device("cpu"))
    for feature, moments in control.statistics.items():
        for name, values in moments.order.items():
            assert kept[feature].order[name] == pytest.approx(values, rel=1e-6)


def test_nobody_is_told_that_a_baseline_went_on(sources: Datasets, tmp_path: Path):
    with pytest.raises(Zk0Error, match="resume is for federated runs"):
        run_control("local", configured(tmp_path, resume="last"), sources, QUIET, [[0]])
    assert not any(tmp_path.iterdir())


def test_dataset_that_does_not_fit_is_refused_before_anything_is_written(
    sources: Datasets, tmp_path: Path
):
    config = configured(tmp_path, eval_episodes=3)
    control = Control("centralized", config, sources, [0, 1])
    with pytest.raises(Zk0Error, match="none is left to train on"):
        control.run(RunFolder.create(str(tmp_path)), starting_arrays(config))
    assert not list(tmp_path.rglob("metrics.jsonl"))
