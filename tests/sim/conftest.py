"""Small recipes, and one dataset and one machine probe for the whole session."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from zk0.sim import opengl
from zk0.sim.recipes import Recipe, Region, Scene

CHOICE = opengl.configure() if "mujoco" not in sys.modules else opengl.probe()


PLACE = Region(centre=(0.2, 0.0), radius=(0.0, 0.03))


@pytest.fixture(scope="session")
def tiny() -> Recipe:
    """One short episode."""
    return Recipe("tiny", "for tests", 3, (Scene("touch", ("red",), (PLACE,), 1),))


@pytest.fixture(scope="session")
def pair() -> Recipe:
    """Two episodes, each of another task."""
    scenes = (Scene("touch", ("red",), (PLACE,), 1), Scene("picklift", ("blue",), (PLACE,), 1))
    return Recipe("pair", "for tests", 1, scenes)


@pytest.fixture(scope="session")
def choice() -> opengl.Choice:
    return CHOICE


@pytest.fixture(scope="session")
def dataset(pair: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`pair`, written in this process."""
    from zk0.sim.writer import write

    folder = tmp_path_factory.mktemp("datasets") / "pair"
    write(pair, folder)
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "home"
    leftovers = [path.name for path in tmp_path.rglob("*.draft")]
    assert not leftovers
