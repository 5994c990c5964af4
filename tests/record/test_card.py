"""The model card: what the Hub reads in it, and what must never be in it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from zk0.record.card import Card, escape, is_hub_name, make_card, metrics_of, write_card

JOINTS = ("shoulder_pan", "gripper")


def result(loss: float, **more: float) -> dict[str, Any]:
    parts = {f"loss.{joint}": loss for joint in JOINTS}
    return {"loss": loss, "standard-error": 0.01, **parts, **more, "frames": 256}


CARD = Card(
    run={
        "kind": "federated",
        "trained_on": [0, 1],
        "config": {
            "num-server-rounds": 10,
            "local-epochs": 1,
            "local-steps": 50,
            "batch-size": 32,
            "strategy": "fedprox",
            "proximal-mu": 0.01,
            "normalization": "federated",
            "model-name": "embedded",
            "start-from": "/home/alice/secret/models/last",
            "resume": "/home/alice/runs/1",
            "output-dir": "/home/alice/outputs",
            "use-wandb": False,
        },
        "versions": {"zk0": "0.1.0", "lerobot": "0.6.1"},
        "git_revision": "ab12",
        "clients": [
            {
                "client": number,
                "node_id": "9876543210",
                "slug": slug,
                "description": f"pick {slug}",
                "fingerprint": "f" * 64,
                "training_episodes": 27,
                "training_frames": 707,
            }
            for number, slug in enumerate(("touch", "stack"))
        ],
        "server": [
            {
                "slug": "far",
                "description": "a task that no client has",
                "fingerprint": "e" * 64,
                "episodes": 30,
                "frames": 1771,
            }
        ],
    },
    metrics={
        "clients": {"0 touch": 0.51, "1 stack": 0.72},
        "server": {
            "loss": 0.6,
            "datasets": {"far": result(0.6, **{"error.shoulder_pan": 12.5, "error.gripper": 3.0})},
        },
        "rollouts": {"touch": {"episodes": 10, "successes": 7, "low": 0.397, "high": 0.892}},
    },
)
POLICY = {
    "type": "smolvla",
    "vlm_model_name": "./backbone-0123abcd",
    "input_features": {
        "observation.state": {},
        "observation.images.front": {},
        "observation.images.wrist $(reboot)": {},
    },
}


def text_of(card: Card, policy: dict[str, Any] = POLICY) -> str:
    return str(make_card(7, card, policy))


def front_matter(text: str) -> dict[str, Any]:
    _, head, _ = text.split("---\n", 2)
    return yaml.safe_load(head)


def test_the_hub_reads_what_the_model_is(tmp_path: Path):
    path = tmp_path / "README.md"
    path.write_text(text_of(CARD))
    data = ModelCard.load(path).data.to_dict()
    assert data == front_matter(path.read_text())
    assert data == {
        "library_name": "lerobot",
        "license": "apache-2.0",
        "pipeline_tag": "robotics",
        "tags": ["robotics", "lerobot", "smolvla", "so101", "zk0", "federated-learning"],
    }


def test_hub_datasets_and_base_model_are_named_where_they_are_known():
    config = {**CARD.run["config"], "model-name": "lerobot/smolvla_base", "start-from": ""}
    names = ("alice/pens", "bob/cups")
    clients = [{**each, "hub": name} for each, name in zip(CARD.run["clients"], names, strict=True)]
    run = {**CARD.run, "config": config, "clients": clients, "kind": "local", "trained_on": [1]}
    card = replace(CARD, run=run)
    text = text_of(card, {**POLICY, "vlm_model_name": "HuggingFaceTB/SmolVLM2-500M"})
    data = front_matter(text)
    assert data["base_model"] == "lerobot/smolvla_base"
    assert data["datasets"] == ["bob/cups"]
    assert "federated-learning" not in data["tags"]
    assert "from the Hub (`HuggingFaceTB/SmolVLM2-500M`)" in text
    assert "sed -i" not in text
    assert "| 1 | stack |" in text
    assert "| 0 | touch |" not in text


def test_mu_is_told_of_the_one_strategy_that_has_it():
    assert "- Strategy: fedprox, proximal term mu 0.01\n" in text_of(CARD)
    config = {**CARD.run["config"], "strategy": "fedadam"}
    card = replace(CARD, run={**CARD.run, "config": config})
    assert "- Strategy: fedadam\n" in text_of(card)


def test_settings_are_those_that_the_run_went_on_with():
    config = {**CARD.run["config"], "num-server-rounds": 25}
    resumed = [{"after_round": 5, "flower_run_id": "2", "config": config}]
    assert "- Rounds: 7 of 10 planned" in text_of(CARD)
    text = text_of(replace(CARD, run={**CARD.run, "resumed": resumed}))
    assert "- Rounds: 7 of 25 planned" in text
    assert "| num-server-rounds | 25 |" in text


def test_figures_of_the_round_are_in_the_text():
    text = text_of(CARD)
    assert "round 7" in text
    assert "| policy loss | 0.6000 ± 0.0100 |" in text
    assert r"| shoulder\_pan | 12.50° (0.600) |" in text
    assert "| gripper | 3.00 % (0.600) |" in text
    assert "| 1 stack | 0.7200 |" in text
    assert "| touch | 7/10 | 40% to 89% |" in text


def test_a_round_may_have_no_figures():
    assert "None was measured." in text_of(replace(CARD, metrics={}))


def test_no_path_node_or_fingerprint_is_published():
    text = text_of(CARD)
    for private in ("alice", "9876543210", "ffff", "eeee", "output-dir"):
        assert private not in text
    assert "| start-from | a folder |" in text


HOSTILE = (
    "a|b",
    "x\n\n# heading",
    "<img src=x onerror=alert(1)>",
    "[click](https://evil.example)",
    "`code` **bold** _it_",
    "\u202egnp.exe \u200b",
    "---\nlicense: other",
)


@pytest.mark.parametrize("slug", HOSTILE)
def test_what_comes_from_clients_stays_one_cell_of_text(slug: str):
    client = {**CARD.run["clients"][0], "slug": slug, "description": slug}
    card = replace(CARD, run={**CARD.run, "clients": [client, CARD.run["clients"][1]]})
    card = replace(card, metrics={"clients": {f"0 {slug}": 0.5}})
    plain = text_of(replace(card, run=CARD.run, metrics={"clients": {"0 touch": 0.5}}))
    text = text_of(card)
    assert text.count("\n") == plain.count("\n")
    assert front_matter(text) == front_matter(plain)
    for mark in "|<>[]()`*#":
        bare = [text[i - 1] != "\\" for i, each in enumerate(text) if each == mark]
        allowed = [plain[i - 1] != "\\" for i, each in enumerate(plain) if each == mark]
        assert sum(bare) == sum(allowed)
    assert "\u202e" not in text


def test_escaped_text_is_what_it_was():
    assert escape(" pick  up\tthe cube ") == "pick up the cube"
    assert escape("a_b") == r"a\_b"


def test_a_camera_name_is_nothing_to_a_shell():
    line = next(each for each in text_of(CARD).splitlines() if "--robot.cameras" in each)
    assert "front: {type" in line
    assert "wrist___reboot_: {type" in line


def test_metrics_are_the_rounds_own_and_name_no_failure():
    content = {
        "server": {"loss": 0.5, "datasets": {}},
        "evaluate": {"loss": 0.7},
        "failures": [{"reason": "/home/alice is full"}],
        "seconds": {"train": 3.0},
    }
    losses = {"10 lift": {7: 0.3}, "2 touch": {6: 0.9, 7: 0.8}, "1 stack": {6: 0.4}}
    found = metrics_of(7, content, losses)
    assert list(found["clients"]) == ["2 touch", "10 lift"]
    assert found == {
        "clients": {"2 touch": 0.8, "10 lift": 0.3},
        "server": content["server"],
        "evaluate": content["evaluate"],
    }


def test_both_files_are_written(tmp_path: Path):
    folder = tmp_path / "checkpoint_round_7"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(POLICY))
    write_card(folder, 7, CARD)
    assert json.loads((folder / "metrics.json").read_text())["round"] == 7
    assert {path.name for path in folder.iterdir()} == {"config.json", "metrics.json", "README.md"}
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize(
    ("name", "fits"),
    [
        ("lerobot/smolvla_base", True),
        ("a-b.c/d_e", True),
        ("embedded", False),
        ("", False),
        ("./here", False),
        ("/abs/path", False),
        ("a/b/c", False),
        ("../up", False),
        ("owner/", False),
        ("owner/na me", False),
        ("owner/" + "n" * 200, False),
    ],
)
def test_hub_names(name: str, fits: bool):
    assert is_hub_name(name) is fits
