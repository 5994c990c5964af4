"""Small real things that many tests share: datasets from the simulator, a policy, a federation."""

import os
import sys
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import settings

from zk0.sim import opengl

opengl.configure()  # before any test imports MuJoCo
if "PYTEST_XDIST_WORKER" in os.environ:  # others want the other cores; before PyTorch is imported
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Other work may share the machine: no test fails for its time alone.
settings.register_profile("tests", settings.default, deadline=None)
settings.load_profile("tests")

PROJECT = Path(__file__).resolve().parents[1]
EPISODES = 3


@pytest.fixture(scope="session", autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A `ZK0_HOME` of the tests' own."""
    folder = tmp_path_factory.mktemp("zk0-home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZK0_HOME", str(folder))
        yield folder


@pytest.fixture
def loaded_app(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """As Flower loads an app: unpacked below its home, on sys.path behind what Ray put there."""
    home = tmp_path_factory.mktemp("flower-home")
    monkeypatch.setenv("FLWR_HOME", str(home))
    app = home / "apps" / "zk0.zk0.0.1.0.abc"
    app.mkdir(parents=True)
    (app / "pyproject.toml").write_text((PROJECT / "pyproject.toml").read_text())
    monkeypatch.syspath_prepend(app)
    monkeypatch.syspath_prepend(home)


@pytest.fixture(scope="session")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Four LeRobotDatasets of a few simulated episodes each, by name."""
    from zk0.sim.recipes import RECIPES
    from zk0.sim.writer import write

    root = tmp_path_factory.mktemp("datasets")
    for name in ("touch", "picklift", "near", "far"):
        recipe = RECIPES[name]
        scenes = tuple(replace(scene, episodes=EPISODES) for scene in recipe.scenes[:1])
        write(replace(recipe, scenes=scenes), root / name)
    return {folder.name: folder for folder in sorted(root.iterdir())}


@pytest.fixture(scope="session")
def touch(datasets: dict[str, Path]):
    from zk0.data.frames import open_frames

    return open_frames(datasets["touch"], "touch")


@pytest.fixture(scope="session")
def sources(datasets: dict[str, Path]):
    """Two clients and what the server evaluates on."""
    from zk0.config import Datasets

    clients, server = (
        [{"source": f"local:{datasets[name]}"} for name in names]
        for names in (("touch", "picklift"), ("near", "far"))
    )
    return Datasets.model_validate({"clients": clients, "server": server})


@pytest.fixture(scope="session")
def flower(sources, tmp_path_factory: pytest.TempPathFactory):
    """A SuperLink whose app has these clients."""
    from tests.flower import flower_at

    clients, server = (
        [Path(each.parsed.name) for each in part] for part in (sources.clients, sources.server)
    )
    with flower_at(tmp_path_factory.mktemp("flower"), clients, server) as flower:
        yield flower


@pytest.fixture(scope="session")
def federation(flower, tmp_path_factory: pytest.TempPathFactory):
    """A small federation's run; its folder is not to be written to."""
    from tests.flower import SETTINGS, FlowerRun

    outputs = tmp_path_factory.mktemp("outputs")
    log = flower.run(SETTINGS, f"output-dir='{outputs}'")
    (folder,) = outputs.iterdir()
    return FlowerRun(folder, log)


@pytest.fixture(scope="session")
def controls(sources, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs of baselines: centralized, and both clients alone. Not to be written to."""
    from tests.controls import make_controls

    return make_controls(tmp_path_factory.mktemp("controls"), sources)


@pytest.fixture(scope="session")
def built_policy():
    """The embedded policy on the CPU; not to be changed."""
    import torch

    from zk0.learning.policy import build_policy

    return build_policy("embedded", 0, torch.device("cpu"))


@pytest.fixture
def policy(built_policy):
    """The same, the test's own."""
    return deepcopy(built_policy)


@pytest.fixture(scope="session")
def exact():
    """A prefix cache without rounding."""
    from zk0.learning.prefix_cache import CacheOptions

    return CacheOptions("prefix", 0.0, "float32")


@pytest.fixture
def zk0(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Call `zk0 ...`; its exit status, and what it wrote to stdout and stderr."""

    from zk0.cli import main

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["zk0", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0), *capsys.readouterr()

    return call
