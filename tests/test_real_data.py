"""Training on datasets such as people record them: other cameras, sizes, rates; and bad ones."""

import json
import shutil
from pathlib import Path

import pytest

from tests.controls import QUIET, configured
from tests.so100.defects import planted
from tests.so100.make import FRONT, TOP, WRIST, Spec, make
from zk0.config import Datasets, parse_datasets
from zk0.controls import run_control
from zk0.errors import Zk0Error

EPISODES = (24, 24, 24)


@pytest.fixture(scope="module")
def arms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("arms")
    specs = {
        "ada": Spec(EPISODES, seed=1, cameras={TOP: (48, 64), WRIST: (96, 72)}),
        "bob": Spec((48, 48, 48), seed=2, fps=60, cameras={FRONT: (54, 96)}),
        "eve": Spec(EPISODES, seed=3, units="radians"),
        "unseen": Spec(EPISODES, seed=4),
    }
    return {name: make(root / name, spec) for name, spec in specs.items()}


def federation(arms: dict[str, Path], *clients: dict, server: str = "unseen") -> Datasets:
    entries = [{**each, "source": f"local:{arms[each['source']]}"} for each in clients]
    return parse_datasets({"clients": entries, "server": [{"source": f"local:{arms[server]}"}]})


def run(datasets: Datasets, outputs: Path, **changes: object) -> dict:
    """A centralized run: the nodes, checks and evaluation are the federation's. Its config.json."""
    config = configured(outputs, local_steps=1, num_server_rounds=1, **changes)
    run_control("centralized", config, datasets, QUIET, [range(len(datasets.clients))])
    (folder,) = outputs.iterdir()
    return json.loads((folder / "config.json").read_text())


def test_other_cameras_sizes_and_rates_are_trained_on_together(arms, tmp_path: Path):
    ada, bob = {"source": "ada"}, {"source": "bob", "fps": 30}
    described = run(federation(arms, ada, bob), tmp_path)
    first, second = described["clients"]
    assert first["cameras"] == {FRONT: TOP, WRIST: WRIST}
    assert second["cameras"] == {FRONT: FRONT}
    assert [each["fps"] for each in (first, second, *described["server"])] == [30, 30, 30]
    assert [each["units"] for each in (first, second)] == ["degrees", "degrees"]
    assert first["training_frames"] == second["training_frames"] == 48


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        ({"source": "bob"}, r"different frame rates .*bob\): 60.*take all at 30"),
        ({"source": "eve"}, r"different units .*eve\): radians"),
        ({"source": "bob", "fps": 30, "cameras": {"front": "top"}}, "bob: cameras: there is no"),
    ],
)
def test_what_does_not_fit_the_others_is_refused(arms, tmp_path: Path, odd: dict, message: str):
    with pytest.raises(Zk0Error, match=message):
        run(federation(arms, {"source": "ada"}, odd), tmp_path)


def test_bad_data_are_refused_unless_their_owner_allows_them(arms, tmp_path: Path):
    bad = planted("radians_mixed", arms["ada"], tmp_path / "bad")
    datasets = federation({**arms, "bad": bad}, {"source": "bad"})
    with pytest.raises(Zk0Error, match=r"^bad: .* allow-dataset-issues='(.*)'") as refusal:
        run(datasets, tmp_path / "refused")
    code = str(refusal.value).rsplit("'", 2)[1]
    run(datasets, tmp_path / "allowed", allow_dataset_issues=code)


def test_an_episode_that_the_server_evaluates_on_is_nobodys_to_train_on(arms, tmp_path: Path):
    copy = shutil.copytree(arms["ada"], tmp_path / "copy")
    datasets = federation({**arms, "copy": copy}, {"source": "ada"}, server="copy")
    with pytest.raises(Zk0Error, match="have the same data"):
        run(datasets, tmp_path / "same")
    other = shutil.copytree(copy, tmp_path / "other")
    (other / "meta" / "note.txt").write_text("not the same files")
    datasets = federation({**arms, "other": other}, {"source": "ada"}, server="other")
    with pytest.raises(Zk0Error, match="have 3 episodes in common"):
        run(datasets, tmp_path / "shared")
