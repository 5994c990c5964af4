"""A checkpoint elsewhere: moved, with another home, and with lerobot alone."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from safetensors.torch import load_file, save_file

from tests.federation.test_wire import STATISTICS
from tests.record.test_card import CARD
from zk0.errors import Zk0Error
from zk0.learning.backbone import embedded_backbone
from zk0.learning.policy import _find_backbone, build_policy, load_checkpoint, make_processors
from zk0.record.checkpoint import _make_portable, save_checkpoint

CPU = torch.device("cpu")

WITHOUT_ZK0 = """
import os, subprocess, sys, torch

class NoZk0:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in ("zk0", "flwr"):
            raise ImportError(f"{name} is not installed")

sys.meta_path.insert(0, NoZk0())
torch.set_num_threads(1)
from safetensors.torch import load_file, save_file

def play(policy, preprocess, postprocess):
    given = load_file(inputs)
    noise = given.pop("noise")
    batch = preprocess({**given, "task": "pick up the cube"})
    return postprocess(policy.predict_action_chunk(batch, noise=noise)).contiguous()

inputs, moved, elsewhere, block, pin, outputs = sys.argv[1:]
found = {}

os.chdir(elsewhere)
names = {}
exec(block, names)
found["python"] = play(names["policy"], names["preprocess"], names["postprocess"])

from lerobot.policies.factory import make_pre_post_processors
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy

os.chdir(moved)
policy = SmolVLAPolicy.from_pretrained(".")
found["inside"] = play(policy, *make_pre_post_processors(policy.config, "."))

os.chdir(elsewhere)
try:
    SmolVLAPolicy.from_pretrained(moved)
except OSError as error:
    assert "./backbone-" in str(error), error
else:
    raise AssertionError("the card says that it does not open from here")

subprocess.run(pin, shell=True, check=True, cwd=moved)
policy = SmolVLAPolicy.from_pretrained(moved)
found["pinned"] = play(policy, *make_pre_post_processors(policy.config, moved))
assert not any(name.partition(".")[0] in ("zk0", "flwr") for name in sys.modules)
save_file(found, outputs)
"""


@pytest.fixture
def folder(tmp_path: Path, policy: SmolVLAPolicy) -> Path:
    return save_checkpoint(tmp_path / "models", 7, policy, STATISTICS, ("last",), 1, CARD)


@pytest.fixture(scope="module")
def inputs() -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(3)
    return {
        "observation.state": torch.randn(6, generator=draw),
        "observation.images.front": torch.rand(3, 128, 128, generator=draw),
        "observation.images.wrist": torch.rand(3, 128, 128, generator=draw),
        "noise": torch.randn(1, 16, 32, generator=draw),
    }


def actions(policy: SmolVLAPolicy, statistics, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Of one thread, as the order of sums depends on their number."""
    preprocess, postprocess = make_processors(policy, statistics)
    given = {name: values for name, values in inputs.items() if name != "noise"}
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        batch = preprocess({**given, "task": "pick up the cube"})
        return postprocess(policy.predict_action_chunk(batch, noise=inputs["noise"]))
    finally:
        torch.set_num_threads(before)


def block_of(folder: Path, language: str, part: str) -> str:
    """The README's code block in which `part` is."""
    blocks = re.findall(rf"```{language}\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    return next(block for block in blocks if part in block)


def test_lerobot_alone_acts_the_same_in_another_place_as_the_card_says(
    tmp_path: Path, folder: Path, policy: SmolVLAPolicy, inputs: dict[str, torch.Tensor]
):
    expected = actions(policy, STATISTICS, inputs)
    moved, elsewhere = tmp_path / "another place", tmp_path / "elsewhere"
    folder.rename(moved)
    elsewhere.mkdir()
    save_file(inputs, tmp_path / "inputs.safetensors")
    block = block_of(moved, "python", "SmolVLAPolicy").replace("/path/to/policy", str(moved))
    done = subprocess.run(
        [
            *(sys.executable, "-I", "-c", WITHOUT_ZK0, str(tmp_path / "inputs.safetensors")),
            *(str(moved), str(elsewhere), block, block_of(moved, "bash", "sed -i")),
            str(tmp_path / "outputs.safetensors"),
        ],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(elsewhere),
            "ZK0_HOME": str(elsewhere / "zk0"),
            "HF_HUB_OFFLINE": "1",
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = load_file(tmp_path / "outputs.safetensors")
    assert set(found) == {"inside", "python", "pinned"}
    assert expected.shape == (1, 16, 6)
    for name, values in found.items():
        assert torch.equal(values, expected), name


def test_zk0_opens_it_from_anywhere_also_where_it_was_pinned_to_another_place(
    tmp_path: Path, folder: Path, policy: SmolVLAPolicy, inputs: dict[str, torch.Tensor]
):
    expected = actions(policy, STATISTICS, inputs)
    subprocess.run(block_of(folder, "bash", "sed -i"), shell=True, check=True, cwd=folder)
    assert str(folder) in (folder / "config.json").read_text()
    moved = tmp_path / "moved"
    folder.rename(moved)
    loaded, statistics = load_checkpoint(moved, CPU)
    assert torch.equal(actions(loaded, statistics, inputs), expected)
    assert torch.equal(actions(build_policy(str(moved), 0, CPU), STATISTICS, inputs), expected)


def test_a_checkpoint_of_a_loaded_checkpoint_is_whole_too(tmp_path: Path, folder: Path):
    loaded, statistics = load_checkpoint(folder, CPU)
    again = save_checkpoint(tmp_path / "again", 1, loaded, statistics, (), 1)
    shutil.rmtree(folder)
    names = [path.name for path in again.glob("backbone-*/*")]
    assert "tokenizer.json" in names
    assert "model.safetensors" not in names
    assert load_checkpoint(again, CPU)[0].config.vlm_model_name.startswith(str(again))


def test_nothing_in_it_names_a_place_or_a_device_of_this_machine(
    tmp_path: Path, folder: Path, own_home: Path
):
    texts = [path.read_text() for path in folder.rglob("*") if path.suffix in (".json", ".md")]
    assert len(texts) >= 8
    for text in texts:
        for private in (str(own_home), str(tmp_path), str(Path.home()), "alice"):
            assert private not in text
    steps = json.loads((folder / "policy_preprocessor.json").read_text())["steps"]
    devices = [step["config"]["device"] for step in steps if "device" in step["config"]]
    assert devices == [json.loads((folder / "config.json").read_text())["device"]] == ["cpu"]


def test_the_backbones_folder_is_named_after_its_content(tmp_path: Path, policy: SmolVLAPolicy):
    def packed(name: str) -> str:
        folder = save_checkpoint(tmp_path / name, 1, policy, STATISTICS, (), 1)
        return next(folder.glob("backbone-*")).name

    first, second = packed("first"), packed("second")
    other = tmp_path / "backbone"
    shutil.copytree(embedded_backbone(), other)
    (other / "config.json").write_text((other / "config.json").read_text() + "\n")
    policy.config.vlm_model_name = str(other)
    assert first == second != packed("third")


def test_a_checkpoint_from_before_finds_this_machines_backbone(folder: Path):
    """Its config.json names a folder under the `ZK0_HOME` of the machine that made it."""
    packed = next(folder.glob("backbone-*"))
    path = folder / "config.json"
    config = json.loads(path.read_text())
    own = embedded_backbone().name
    path.write_text(json.dumps({**config, "vlm_model_name": f"/home/bob/zk0/backbones/{own}"}))
    shutil.rmtree(packed)
    assert load_checkpoint(folder, CPU)[0].config.vlm_model_name == str(embedded_backbone())
    path.write_text(json.dumps({**config, "vlm_model_name": "/home/bob/backbones/embedded-0"}))
    with pytest.raises(Zk0Error, match="no checkpoint that can be loaded"):
        load_checkpoint(folder, CPU)


def test_without_its_backbone_it_is_no_checkpoint(folder: Path):
    shutil.rmtree(next(folder.glob("backbone-*")))
    with pytest.raises(Zk0Error, match="no checkpoint that can be loaded"):
        load_checkpoint(folder, CPU)


def test_a_hub_name_stays_a_hub_name(folder: Path):
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), "vlm_model_name": "owner/vlm"}
    path.write_text(json.dumps({**config, "load_vlm_weights": True, "device": "cuda"}))
    _make_portable(folder)
    assert json.loads(path.read_text()) == {**config, "load_vlm_weights": True}
    steps = json.loads((folder / "policy_preprocessor.json").read_text())["steps"]
    names = {step["config"].get("tokenizer_name", "owner/vlm") for step in steps}
    assert names == {"owner/vlm"}


def test_a_policy_on_the_hub_brings_its_backbone(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    asked = []

    def snapshot_download(repo_id: str, allow_patterns: str) -> str:
        asked.append((repo_id, allow_patterns))
        return str(folder)

    monkeypatch.setattr("zk0.learning.policy.snapshot_download", snapshot_download)
    packed = next(folder.glob("backbone-*"))
    assert _find_backbone(Path("owner/name"), f"./{packed.name}") == str(packed)
    assert asked == [("owner/name", f"{packed.name}/*")]
