"""Every `zk0` command of README and docs, typed where runs and data are small."""

import os
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import PROJECT
from tests.flower import Flower, FlowerRun
from tests.test_docs import commands
from tests.test_sweep import Written, falling
from zk0.sim.recipes import RECIPES

pytestmark = pytest.mark.slow

# What they are called in the documentation.
BASELINES = {"CENTRALIZED": "centralized", "LOCAL_0": "first", "LOCAL_1": "second"}
SMALL = "num-server-rounds=1 local-steps=1 batch-size=4 eval-batches=1 eval-episodes=1"
LESS = {  # of two values for one option the last counts
    "baseline": ["-c", f"{SMALL} rollout-episodes=0 rollout-videos=0 output-dir='made'"],
    "rollout": ["--task", "near", "--episodes", "1"],
}
SAID = {
    "evaluate": "policy loss",
    "rollout": "expert",
    "videos": "smoothness",
    "baseline": "Outputs: ",
    "compare": "local 1 picklift",
    "sweep": "proximal-mu",
    "runs": "CENTRALIZED",
    "watch": "2 of 2 rounds",
    "report": "report: ",
    "data": "touch",
    "push": "README.md",
}
FAILS = {("push", False): "hf auth login"}  # there is no token here


@pytest.fixture
def workplace(
    flower: Flower,
    federation: FlowerRun,
    controls: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A project's folder with runs, in a world of three small simulated datasets."""
    app = tmp_path / "app"
    app.mkdir()
    shutil.copy(flower.app / "pyproject.toml", app)
    shutil.copytree(PROJECT / "examples", app / "examples")
    runs = {name: controls[run] for name, run in BASELINES.items()}
    for name in ("RUN", "FEDERATED"):
        runs[name] = federation.folder
    for name, run in runs.items():
        shutil.copytree(run, app / "outputs" / name, symlinks=True, copy_function=link)
    monkeypatch.chdir(app)
    monkeypatch.setattr("zk0.paths.PROJECT", app)
    monkeypatch.setattr("webbrowser.open", lambda address: address.startswith("file:"))
    monkeypatch.setattr("zk0.sweep.flower.FlowerRunner", lambda *arguments: Written(falling))
    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
    for name, recipe in list(RECIPES.items()):
        if name in ("touch", "near", "far"):
            scenes = tuple(replace(scene, episodes=2) for scene in recipe.scenes[:1])
            monkeypatch.setitem(RECIPES, name, replace(recipe, scenes=scenes))
        else:
            monkeypatch.delitem(RECIPES, name)
    return app


def link(file: str, at: str) -> None:
    """In place of a copy, where the file is one that is only ever replaced or read."""
    os.link(file, at) if Path(file).suffix == ".safetensors" else shutil.copy2(file, at)


def expanded(words: Sequence[str], folder: Path, datasets: dict[str, Path]) -> list[str]:
    """With file names for patterns, as a shell hands them on, and data for those of examples."""
    examples = {"local:/data/my_arm": "touch", "hf:owner/name": "picklift"}
    named = [f"local:{datasets[examples[word]]}" if word in examples else word for word in words]
    return [
        name
        for word in named
        for name in (
            sorted(str(path.relative_to(folder)) for path in folder.glob(word))
            if "*" in word
            else [word]
        )
    ]


@pytest.mark.parametrize("command", sorted({shlex.join(words) for _, words in commands("zk0")}))
def test_documented_command(zk0, workplace: Path, datasets: dict[str, Path], command: str):
    words = shlex.split(command)
    status, out, err = zk0(*expanded(words, workplace, datasets), *LESS.get(words[0], []))
    problem = FAILS.get((words[0], "--dry-run" in words))
    assert (status == 0) == (problem is None), err
    assert (problem or SAID[words[0]]) in out + err
