"""What a comparison writes and prints."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from PIL import Image

from tests.comparison.fakes import FEDERATED, LOCALS
from zk0.commands.compare import compare
from zk0.comparison.compare import SCHEMA, compare_runs
from zk0.errors import Zk0Error


def test_json_markdown_and_chart(make, tmp_path: Path):
    found = compare_runs([make(each) for each in (FEDERATED, *LOCALS)])
    files = found.save(tmp_path / "out")
    content = json.loads(files[0].read_text())
    assert content["schema"] == SCHEMA
    assert content["reference"] == "federated fedprox"
    metric = next(each for each in content["metrics"] if each["name"] == "touch/nearest")
    assert metric["unit"] == "metres"
    assert 0 < metric["estimates"]["local 0 touch"]["estimate"] < 0.1
    assert {each["verdict"] for each in content["findings"]} >= {"better", None}
    assert "| near/loss | **0.3" in files[1].read_text()
    with Image.open(files[2]) as image:
        assert image.width > 900


def test_output_that_cannot_be_written_is_named(make, tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(Zk0Error, match=r"--output: .*compare.json cannot be written"):
        compare_runs([make(FEDERATED)], ["bytes"]).save(tmp_path / "file")


def test_command_prints_saves_and_takes_commas(make, tmp_path: Path, capsys):
    app = typer.Typer()
    app.command()(compare)
    runs = [str(make(each)) for each in (FEDERATED, *LOCALS)]
    output = tmp_path / "deep" / "out"
    app(
        [*runs, "--metrics", "loss,success", "--metrics", "bytes", "--output", str(output)],
        standalone_mode=False,
    )
    out = capsys.readouterr().out
    assert "the difference holds." in out
    assert (output / "compare.md").is_file()
    with pytest.raises(Zk0Error, match="--confidence 95"):
        app([*runs, "--confidence", "95"], standalone_mode=False)


def test_needs_neither_torch_nor_flower():
    program = (
        "import sys, zk0.comparison.compare, zk0.commands.compare\n"
        "print([m for m in ('torch', 'flwr', 'lerobot', 'mujoco') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
