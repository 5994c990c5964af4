import json
import os
from datetime import datetime
from pathlib import Path

import pytest

from zk0.errors import Zk0Error
from zk0.paths import PROJECT, from_project
from zk0.record.run_folder import RunFolder, describe_software, flatten

NOON = datetime(2030, 1, 2, 12, 0, 0)


def test_folder_is_named_after_the_time_and_never_shared(tmp_path: Path):
    names = [RunFolder.create(str(tmp_path), NOON).path.name for _ in range(3)]
    assert names == ["2030-01-02_12-00-00", "2030-01-02_12-00-00-2", "2030-01-02_12-00-00-3"]


def test_relative_output_dir_counts_from_the_project_not_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    assert from_project("outputs") == PROJECT / "outputs"
    assert from_project(str(tmp_path / "mine")) == tmp_path / "mine"


def test_folder_that_cannot_be_written_is_one_clear_line(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Zk0Error, match=r"output-dir: .*cannot be written"):
        RunFolder.create(str(tmp_path / "file" / "outputs"))


def test_events_are_lines_in_order(tmp_path: Path):
    folder = RunFolder.create(str(tmp_path))
    folder.append("server-evaluate", round=0, loss=1.5)
    folder.append("run-end", round=1)
    lines = [json.loads(line) for line in (folder.path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["event"], line["round"]) for line in lines] == [
        ("server-evaluate", 0),
        ("run-end", 1),
    ]
    assert datetime.fromisoformat(lines[0]["time"]) <= datetime.fromisoformat(lines[1]["time"])


def test_number_that_is_none_is_never_written(tmp_path: Path):
    folder = RunFolder.create(str(tmp_path))
    with pytest.raises(ValueError, match="not JSON compliant"):
        folder.append("train", loss=float("nan"))
    with pytest.raises(ValueError, match="not JSON compliant"):
        folder.write("server/x.json", {"loss": float("inf")})
    assert not (folder.path / "server" / "x.json").exists()


def test_file_is_replaced_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = RunFolder.create(str(tmp_path))
    folder.write("server/a.json", {"round": 1})

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", die)
        with pytest.raises(KeyboardInterrupt):
            folder.write("server/a.json", {"round": 2})
    assert json.loads((folder.path / "server" / "a.json").read_text()) == {"round": 1}


def test_run_is_found_by_flowers_number(tmp_path: Path):
    folder = RunFolder.create(str(tmp_path))
    folder.write("config.json", {"flower_run_id": "42"})
    found = RunFolder.find(str(tmp_path), 42)
    assert found is not None
    assert found.path == folder.path
    assert RunFolder.find(str(tmp_path), 43) is None


def test_software_is_described():
    software = describe_software()
    assert software["versions"]["lerobot"] == "0.6.1"
    assert software["git_revision"] is None or len(software["git_revision"]) >= 40


def test_flatten_keeps_numbers_by_path():
    nested = {"loss": 1.0, "datasets": {"near": {"loss": 2.0, "name": "near"}}}
    assert flatten(nested) == {"loss": 1.0, "datasets/near/loss": 2.0}
