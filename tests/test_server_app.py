"""What becomes of a run's folder where the run cannot begin, or not go on."""

import json
from pathlib import Path

import pytest
from flwr.app import Context, RecordDict

from zk0.errors import Zk0Error
from zk0.record.run_folder import RunFolder
from zk0.server_app import main

pytestmark = pytest.mark.usefixtures("loaded_app")


def start(output_dir: Path, **run_config: str) -> None:
    """A run that fails before it asks anything of a client: there is no such model."""
    config = {
        "output-dir": str(output_dir),
        "model-name": str(output_dir / "no-model"),
        **{key.replace("_", "-"): value for key, value in run_config.items()},
    }
    context = Context(run_id=7, node_id=0, node_config={}, state=RecordDict(), run_config=config)
    main(None, context)


@pytest.fixture
def ended(tmp_path: Path) -> RunFolder:
    """A run that has come to its end, and that could go on."""
    folder = RunFolder.create(str(tmp_path))
    folder.write("config.json", {"flower_run_id": "1"})
    folder.write("state/round_1/state.json", {})
    folder.append("run-end", round=1)
    return folder


def events(folder: Path) -> list[str]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["event"] for line in lines]


def test_a_folder_that_cannot_be_written_is_one_clear_line():
    with pytest.raises(Zk0Error, match="output-dir: /proc/zk0 cannot be written"):
        start(Path("/proc/zk0"))


def test_a_run_that_cannot_begin_says_so_in_its_record(tmp_path: Path):
    with pytest.raises(Zk0Error, match="no-model"):
        start(tmp_path)
    (folder,) = tmp_path.iterdir()
    assert events(folder) == ["run-error"]


def test_a_run_that_cannot_go_on_is_left_as_it_was(tmp_path: Path, ended: RunFolder):
    with pytest.raises(Zk0Error, match="no-model"):
        start(tmp_path, resume="last")
    assert events(ended.path) == ["run-end"]
    assert ended.read("config.json") == {"flower_run_id": "1"}
    assert "no-model" in (ended.path / "simulation.log").read_text()


def test_a_run_that_is_still_going_on_is_not_taken_up(tmp_path: Path, ended: RunFolder):
    with ended.held(), pytest.raises(Zk0Error, match="is still going on"):
        start(tmp_path, resume="last")
    assert not (ended.path / "simulation.log").exists()
