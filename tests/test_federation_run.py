"""A real federation: `flwr run`, the Simulation Engine, Ray, two clients, two rounds."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
import torch

from tests.flower import SETTINGS, Flower, FlowerRun, flower_at, make_app
from tests.so100.make import Spec, make
from zk0.comparison.compare import compare_runs
from zk0.evaluation.videos import analyze
from zk0.record.evidence import folder_of, load_frames, load_rollouts
from zk0.record.run_folder import RunFolder

NUMBER, COUNT = {"type": "number"}, {"type": "integer", "minimum": 0}
LOSS = {"type": "number", "exclusiveMinimum": 0}
SHA256 = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")


def strict(properties: dict[str, object], *optional: str) -> dict[str, object]:
    """A JSON object with exactly these properties."""
    required = [name for name in properties if name not in optional]
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


JOINT_LOSSES = {f"loss.{joint}": LOSS for joint in JOINTS}
JOINT_ERRORS = {f"error.{joint}": LOSS for joint in JOINTS}  # where actions were predicted
POLICY_LOSS = strict(
    {
        "loss": LOSS,
        "standard-error": NUMBER,
        "frames": COUNT,
        **JOINT_LOSSES,
        **JOINT_ERRORS,
    },
    *JOINT_ERRORS,
)
TRAIN = {
    "num-examples": COUNT,
    "loss": LOSS,
    "first-loss": LOSS,
    "last-loss": LOSS,
    "proximal-term": NUMBER,
    "update-norm": LOSS,
    "steps": COUNT,
    "seconds": LOSS,
    "learning-rate": LOSS,
    "proximal-mu": NUMBER,
}
EVALUATE = {
    "num-examples": COUNT,
    "loss": LOSS,
    "standard-error": NUMBER,
    **JOINT_LOSSES,
    **JOINT_ERRORS,
}
MEANS = {
    "train": {**dict.fromkeys(TRAIN, NUMBER), "failures": COUNT},
    "evaluate": {**dict.fromkeys(EVALUATE, NUMBER), "failures": COUNT},
}
for means in MEANS.values():
    del means["num-examples"]
SERVER = strict({"loss": LOSS, "datasets": strict({"near": POLICY_LOSS, "far": POLICY_LOSS})})
PLAN = {
    "learning-rate": LOSS,
    "proximal-mu": NUMBER,
    "boosted": {"type": "object", "additionalProperties": LOSS},
    "rules": {"type": "array", "items": {"type": "string"}},
}
SHARE = {"type": ["number", "null"], "minimum": 0, "maximum": 1}
TALLY = {
    "task": {"type": "string"},
    "episodes": COUNT,
    "successes": COUNT,
    "low": SHARE,
    "high": SHARE,
    "nearest": NUMBER,
    "grasped": SHARE,
    "lifted": SHARE,
    "moved": SHARE,
    "seconds": {"type": ["number", "null"]},
    "smoothness": NUMBER,
}
ROUND = strict(
    {
        "round": COUNT,
        "plan": strict(PLAN),
        "server": SERVER,
        "train": strict(MEANS["train"]),
        "evaluate": strict(MEANS["evaluate"], *JOINT_ERRORS),
        "rollouts": {"type": "object", "additionalProperties": strict(TALLY)},
        "bytes": strict({"down": COUNT, "up": COUNT}),
        "cosine": strict(
            {
                "mean": {"type": "number", "minimum": -1, "maximum": 1},
                "pairs": strict({"0-1": {"type": "number", "minimum": -1, "maximum": 1}}),
            }
        ),
        "seconds": {"type": "object", "additionalProperties": LOSS},
    },
    "plan",
    "train",
    "evaluate",
    "rollouts",
    "bytes",
    "cosine",
)
CLIENT_ROUND = strict(
    {
        "round": COUNT,
        "client": COUNT,
        "slug": {"enum": ["touch", "picklift"]},
        "node_id": {"type": "string", "pattern": "^[0-9]+$"},
        "train": strict(TRAIN),
        "evaluate": strict(EVALUATE, *JOINT_ERRORS),
    }
)
RECORDING = {
    "fps": {"const": 10},
    "commit": {"const": ""},
    "units": {"const": "degrees"},
    "cameras": {"type": "object", "additionalProperties": {"type": "string"}},
}
CLIENT = {
    "client": COUNT,
    "node_id": {"type": "string"},
    "slug": {"type": "string"},
    "description": {"type": "string"},
    "fingerprint": SHA256,
    "hub": {"const": ""},
    "training_episodes": COUNT,
    "training_frames": COUNT,
    **RECORDING,
}
DATASET = {
    "slug": {"type": "string"},
    "description": {"type": "string"},
    "fingerprint": SHA256,
    "episodes": COUNT,
    "frames": COUNT,
    **RECORDING,
}
CONFIG = strict(
    {
        "flower_run_id": {"type": "string", "pattern": "^[0-9]+$"},
        "kind": {"const": "federated"},
        "trained_on": {"const": [0, 1]},
        "budget": {"const": {"steps_per_client": {"0": 6, "1": 6}, "batch_size": 8}},
        "evaluation": strict(
            {
                "batches": {"const": 2},
                "batch_size": {"const": 8},
                "noise_seed": {"const": 0},
                "normalization": {"type": "string", "pattern": "^[0-9a-f]{16}$"},
            }
        ),
        "config": {"type": "object"},
        "versions": {"type": "object", "additionalProperties": {"type": "string"}},
        "git_revision": {"type": ["string", "null"]},
        "backbone": SHA256,
        "clients": {"type": "array", "items": strict(CLIENT)},
        "server": {"type": "array", "items": strict(DATASET)},
    }
)


@pytest.fixture
def run(federation: FlowerRun) -> FlowerRun:
    return federation


def test_every_file_follows_its_schema(run: FlowerRun):
    jsonschema.validate(run.read("config.json"), CONFIG)
    metrics = run.read("server/federated_metrics.json")
    jsonschema.validate(metrics, strict({"rounds": {"type": "array", "items": ROUND}}))
    assert [entry["round"] for entry in metrics["rounds"]] == [0, 1, 2]
    for client in (0, 1):
        for number in (1, 2):
            content = run.read(f"clients/client_{client}/round_{number}.json")
            jsonschema.validate(content, CLIENT_ROUND)
            assert (content["client"], content["round"]) == (client, number)
    losses = run.read("server/policy_loss_history.json")
    curve = strict({"composite": LOSS, "near": LOSS, "far": LOSS})
    jsonschema.validate(losses, strict(dict.fromkeys(("0", "1", "2"), curve)))


def test_time_is_told_by_phase(run: FlowerRun):
    first, second = run.read("server/federated_metrics.json")["rounds"][1:]
    phases = {"train", "aggregate", "evaluate", "server-evaluate"}
    assert set(first["seconds"]) == phases
    assert set(second["seconds"]) == phases | {"rollouts"}
    assert min(first["seconds"].values()) > 0


def test_composite_is_the_mean_of_the_servers_datasets(run: FlowerRun):
    for losses in run.read("server/policy_loss_history.json").values():
        assert losses["composite"] == pytest.approx((losses["near"] + losses["far"]) / 2)


def test_events_tell_the_same_story_in_order(run: FlowerRun):
    events = run.events
    assert events[0]["event"] == "server-evaluate"
    assert events[-1]["event"] == "run-end"
    rounds = [event["round"] for event in events]
    assert rounds == sorted(rounds)
    trained = [(e["round"], e["client"]) for e in events if e["event"] == "client-train"]
    assert sorted(trained) == [(1, 0), (1, 1), (2, 0), (2, 1)]
    assert [e["round"] for e in events if e["event"] == "plan"] == [1, 2]
    rates = {(e["round"], e["learning-rate"]) for e in events if e["event"] == "client-train"}
    assert rates == {(1, 1e-3), (2, 1e-6)}  # half a cosine over two rounds


def test_log_has_zk0s_and_flowers_lines_and_no_dataset_path(
    run: FlowerRun, datasets: dict[str, Path]
):
    log = (run.folder / "simulation.log").read_text()
    assert "zk0: round 2: policy loss" in log
    assert "flwr: Initialising: RayBackend" in log
    record = "".join(p.read_text() for p in run.folder.rglob("*.json*") if "models" not in p.parts)
    assert str(datasets["touch"].parent) not in record


def test_every_client_has_a_log_of_its_own(run: FlowerRun):
    for number, name, other in ((0, "touch", "picklift"), (1, "picklift", "touch")):
        log = (run.folder / "clients" / f"client_{number}" / "client.log").read_text()
        assert [f"round {each}: training on {name}" in log for each in (1, 2)] == [True, True]
        assert f"training on {other}" not in log


@pytest.mark.parametrize("name", ["policy_loss.png", "schedule.png"])
def test_charts_are_pictures(run: FlowerRun, name: str):
    from PIL import Image

    with Image.open(run.folder / "server" / name) as image:
        assert image.width > 1000
        assert len(image.convert("RGB").getcolors(1 << 24)) > 50


def test_last_checkpoint_is_the_final_model_for_lerobot(
    run: FlowerRun, monkeypatch: pytest.MonkeyPatch
):
    from lerobot.policies.factory import make_pre_post_processors
    from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy

    from zk0.learning.integrity import hash_arrays
    from zk0.learning.policy import get_trainable

    names = sorted(path.name for path in (run.folder / "models").iterdir())
    assert {"best", "checkpoint_round_1", "checkpoint_round_2", "last"} <= set(names)
    folder = run.folder / "models" / "last"
    monkeypatch.chdir(folder)  # lerobot finds the backbone from there
    assert folder.resolve().name == "checkpoint_round_2"
    policy = SmolVLAPolicy.from_pretrained(folder)
    for parameter in policy.model.vlm_with_expert.vlm.parameters():
        parameter.requires_grad = False
    assert hash_arrays(get_trainable(policy)) == run.events[-1]["hash"]
    preprocess, _ = make_pre_post_processors(policy.config, str(folder))
    assert "NormalizerProcessorStep" in [type(step).__name__ for step in preprocess.steps]


def test_run_is_found_by_its_flower_number(run: FlowerRun):
    number = int(run.read("config.json")["flower_run_id"])
    found = RunFolder.find(str(run.folder.parent), number)
    assert found is not None
    assert found.path == run.folder


def test_unknown_key_is_refused_by_plain_flwr_run(flower: Flower):
    done = flower.call("local-steeps=3")
    assert done.returncode == 1
    assert "Invalid run configuration" in done.stdout + done.stderr


def test_one_dataset_that_does_not_fit_ends_a_simulation_before_round_1(
    flower: Flower, datasets: dict[str, Path], tmp_path: Path
):
    cameras = dict.fromkeys(("observation.images.front", "observation.images.side"), (48, 64))
    folder = make(tmp_path / "other-camera", Spec(cameras=cameras, fps=10))
    app = make_app(tmp_path / "app", [datasets["touch"], folder], [datasets["near"]])
    outputs = f"output-dir='{tmp_path / 'outputs'}'"
    log = replace(flower, app=app).run(SETTINGS, outputs, completes=False)
    reason = "1 of 2 clients can take part: other-camera: cameras side could be any"
    assert reason in log
    assert "round 1" not in log
    (run,) = (tmp_path / "outputs").iterdir()
    assert not list(run.rglob("models/*"))
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["event"] == "run-error"
    assert reason in last["reason"]


# --- evaluation -----------------------------------------------------------------------------------


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As many as Ray gives a client with one CPU."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_actions_are_predicted_before_round_1_and_in_the_last(run: FlowerRun):
    rounds = run.read("server/federated_metrics.json")["rounds"]
    measured = ["error.gripper" in each["server"]["datasets"]["near"] for each in rounds]
    assert measured == [True, False, True]
    evidence = load_frames(folder_of(run.folder, 2))
    kept = rounds[2]["server"]["datasets"]["far"]
    assert evidence["far"].losses.mean() == pytest.approx(kept["loss"], rel=1e-6)
    assert evidence["far"].errors[:, 5].mean() == pytest.approx(kept["error.gripper"], rel=1e-6)


def test_rollouts_of_every_task_are_played_once_and_filmed(run: FlowerRun):
    tasks = run.read("server/federated_metrics.json")["rounds"][-1]["rollouts"]
    assert list(tasks) == ["touch", "picklift", "near", "far"]
    rollouts = load_rollouts(folder_of(run.folder, 2))
    assert [each.task for each in rollouts] == [task for task in tasks for _ in range(2)]
    analysis = analyze(run.folder)
    assert analysis.problems == ()
    kinds = {(row.group.who, row.group.kind): row.videos for row in analysis.rows}
    assert kinds == {
        ("client_0", "open-loop"): 1,
        ("client_1", "open-loop"): 1,
        ("server", "rollout"): 1,
    }
    assert not (run.folder / "evaluate/round_1/client_0").exists()


def test_what_travels_is_counted(run: FlowerRun):
    """The arrays go down twice a round, to train and to evaluate, and up once."""
    sizes = [each["bytes"] for each in run.read("server/federated_metrics.json")["rounds"][1:]]
    assert len(sizes) == 2
    for size in sizes:
        assert size["down"] == 2 * size["up"]
        assert 2 * 4.9e6 < size["up"] < 2 * 5.0e6


def test_checkpoint_evaluated_afterwards_gives_the_same_numbers(
    run: FlowerRun, zk0, one_thread, datasets: dict[str, Path], tmp_path: Path
):
    last = run.read("server/federated_metrics.json")["rounds"][-1]["server"]["datasets"]
    numbers = tmp_path / "numbers.json"
    sources = [
        part for name in ("near", "far") for part in ("--dataset", f"local:{datasets[name]}")
    ]
    checkpoint = str(run.folder / "models" / "last")
    status, out, err = zk0("evaluate", checkpoint, *sources, "--json", str(numbers))
    assert status == 0, err
    assert "near" in out
    for name, found in json.loads(numbers.read_text()).items():
        assert found == pytest.approx(last[name], rel=1e-4)


def test_clients_held_out_episodes_can_be_evaluated_afterwards(
    run: FlowerRun, zk0, one_thread, datasets: dict[str, Path], tmp_path: Path
):
    kept = run.read("clients/client_0/round_2.json")["evaluate"]
    numbers, source = tmp_path / "numbers.json", f"local:{datasets['touch']}"
    checkpoint = str(run.folder / "models" / "last")
    status, _, err = zk0(
        "evaluate", checkpoint, "--dataset", source, "--held-out", "--json", str(numbers)
    )
    assert status == 0, err
    found = json.loads(numbers.read_text())["touch"]
    assert found.pop("frames") == kept.pop("num-examples")
    assert found == pytest.approx(kept, rel=1e-4)


def test_one_client_in_one_round_is_the_centralized_run(
    zk0, one_thread, datasets: dict[str, Path], tmp_path: Path
):
    """Bit by bit, with the plain mean and nothing that holds the client back (mu = 0)."""
    other = (
        "num-server-rounds=1 local-steps=6 strategy='fedavg' rollout-episodes=0 rollout-videos=0 "
        "min-train-nodes=1 min-available-nodes=1"
    )
    with flower_at(
        tmp_path / "flower", [datasets["touch"]], [datasets["near"], datasets["far"]]
    ) as flower:
        flower.run(SETTINGS, other, f"output-dir='{tmp_path / 'federated'}'")
        status, _, err = zk0(
            *("baseline", "centralized", "--app", str(flower.app)),
            *("-c", SETTINGS, "-c", other, "-c", f"output-dir='{tmp_path / 'centralized'}'"),
        )
    assert status == 0, err
    federated, centralized = (
        FlowerRun(next((tmp_path / kind).iterdir()), "") for kind in ("federated", "centralized")
    )
    assert centralized.read("config.json")["kind"] == "centralized"
    assert federated.events[-1]["hash"] == centralized.events[-1]["hash"]
    name = "server/policy_loss_history.json"
    for number, losses in federated.read(name).items():  # evaluated with more threads
        assert centralized.read(name)[number] == pytest.approx(losses, rel=1e-6)
    comparison = compare_runs([federated.folder, centralized.folder])
    assert "holds" not in " ".join(comparison.sentences)
