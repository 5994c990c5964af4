"""Which runs there are, and the two commands."""

import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from tests.watching.runs import REAL, START, Script, make_run
from zk0.commands.watch import runs, watch
from zk0.errors import Zk0Error
from zk0.watching.find import choose_run, find_runs
from zk0.watching.overview import Row, rows, table

WHOLE = Script().judge(0, 2.0).play(1).play(2).play(3).say("run-end", 3).text


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    root = tmp_path / "outputs"
    make_run(root / "2026-11-22_10-00-00", REAL)
    make_run(root / "2026-11-22_10-00-00-2", WHOLE)
    make_run(root / "results" / "2026-11-22_11-00-00", Script().judge(0, 2.0).play(1).text)
    make_run(root / "2026-11-22_12-00-00", kind="local", trained_on=[1])
    (root / "2026-11-22_13-00-00").mkdir()
    make_run(root / "2026-11-22_09-00-00", REAL + "{\n")
    make_run(root / "2026-11-22_08-00-00", REAL, config={"seed": 1})
    (root / "sweeps").mkdir()
    return root


def listed(root: Path) -> list[Row]:
    return rows(root, find_runs(root), START + timedelta(hours=1))


def test_runs_newest_first_with_what_became_of_them(outputs: Path):
    found = {row.name: row for row in listed(outputs)}
    assert list(found) == [
        "2026-11-22_13-00-00",
        "2026-11-22_12-00-00",
        "results/2026-11-22_11-00-00",
        "2026-11-22_10-00-00-2",
        "2026-11-22_10-00-00",
        "2026-11-22_09-00-00",
        "2026-11-22_08-00-00",
    ]
    whole = found["2026-11-22_10-00-00-2"]
    assert (whole.state, whole.rounds, whole.planned, whole.best_round) == ("finished", 3, 3, 3)
    assert (whole.first_loss, whole.change) == (2.0, pytest.approx(-0.15))
    assert (whole.verdict, whole.label, whole.seed) == ("better", "federated", 7)
    real = found["2026-11-22_10-00-00"]
    assert (real.verdict, real.seen, real.unseen) == ("worse", 1 / 3, 2 / 3)
    going = found["results/2026-11-22_11-00-00"]
    assert (going.state, going.rounds) == ("unfinished", 0)
    assert going.last_event_seconds_ago == pytest.approx(3600 - 9)
    begun = found["2026-11-22_12-00-00"]
    assert (begun.label, begun.verdict, begun.strategy) == ("local 1 picklift", "no verdict", None)


def test_broken_folders_say_why(outputs: Path):
    problems = {row.name[11:13]: row.problem or "" for row in listed(outputs) if row.problem}
    assert sorted(problems) == ["08", "09", "13"]
    assert "it has no config.json" in problems["13"]
    assert "metrics.jsonl: line 12 is no event of a run" in problems["09"]
    assert "config.json cannot be read: config.num-server-rounds: Field required" in problems["08"]


def test_a_run_that_failed_says_so(tmp_path: Path):
    failure = {"time": START.isoformat(), "event": "run-error", "reason": "too few clients"}
    begun = Script().judge(0, 2.0).text + json.dumps(failure) + "\n"
    make_run(tmp_path / "begun", begun)
    folder = make_run(tmp_path / "unmet", json.dumps(failure) + "\n")
    (folder / "config.json").unlink()
    found = {row.name: row for row in listed(tmp_path)}
    assert found["begun"].state == "failed"
    assert found["unmet"].problem == "it failed before round 1: too few clients"


def test_the_table_fits(outputs: Path):
    for width in (80, 200):
        console = Console(width=width, color_system=None)
        with console.capture() as capture:
            console.print(table(listed(outputs), width))
        text = capture.get()
        assert "2026-11-22_09-00-00" in text
        assert "2.0000 -> 1.7000" in text
        assert max(map(len, text.splitlines())) <= width
        assert text.count("broken") == 3


def test_the_oldest_runs_count_as_federated(tmp_path: Path):
    folder = make_run(tmp_path / "run", WHOLE)
    content = json.loads((folder / "config.json").read_text())
    del content["kind"], content["config"]["preset"]
    (folder / "config.json").write_text(json.dumps(content))
    (row,) = listed(tmp_path)
    assert (row.kind, row.strategy, row.preset) == ("federated", "fedprox", None)


def test_the_run_that_is_watched(outputs: Path):
    older = outputs / "2026-11-22_10-00-00"
    for place, path in enumerate(reversed(find_runs(outputs))):
        config = path / "config.json"
        os.utime(config if config.exists() else path, (place, place))
    assert choose_run(str(outputs), None).name == "2026-11-22_13-00-00"
    os.utime(older / "config.json", (99, 99))  # resumed
    assert choose_run(str(outputs), None) == older
    assert choose_run(str(outputs), "2026-11-22_12-00-00").name == "2026-11-22_12-00-00"
    assert choose_run("elsewhere", str(older)) == older
    with pytest.raises(Zk0Error, match="did you mean '2026-11-22_10-00-00"):
        choose_run(str(outputs), "2026-11-22_10-00-01")
    with pytest.raises(Zk0Error, match="is no folder of a run"):
        choose_run(str(outputs), "sweeps")
    with pytest.raises(Zk0Error, match="there is no run below"):
        choose_run(str(outputs / "sweeps"), None)


# --- the commands ---------------------------------------------------------------------------------


def call(*arguments: str) -> str:
    app = typer.Typer()
    app.command()(watch)
    app.command()(runs)
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    return done.output


def test_runs_as_json(outputs: Path):
    found = json.loads(call("runs", "--output-dir", str(outputs), "--json"))
    assert len(found) == 7
    assert found[3]["name"] == "2026-11-22_10-00-00-2"
    assert found[3]["verdict"] == "better"
    assert found[0]["problem"]


def test_runs_as_a_table(outputs: Path):
    text = call("runs", "--output-dir", str(outputs))
    assert "2026-11-22_09-00-00: metrics.jsonl: line 12 is no event of a run" in text
    assert "There is no run below" in call("runs", "--output-dir", str(outputs / "sweeps"))


def test_watching_a_finished_run_prints_how_it_ended(outputs: Path):
    text = call("watch", "2026-11-22_10-00-00-2", "--output-dir", str(outputs))
    assert "3 of 3 rounds" in text
    assert "policy loss 2.0000 -> 1.7000 (-15%): better than its start" in text


def test_ctrl_c_ends_the_watching_only(outputs: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("zk0.watching.lines.time.sleep", interrupt)
    text = call("watch", "results/2026-11-22_11-00-00", "--output-dir", str(outputs))
    assert "round 1: client 0 touch trained" in text
    assert text.endswith("Watching ended; the run itself goes on.\n")


def test_nothing_heavy_is_imported():
    program = (
        "import sys; import zk0.commands.watch, zk0.watching.find, zk0.watching.lines\n"
        "import zk0.watching.screen, zk0.watching.overview\n"
        "sys.exit(' '.join({'torch', 'flwr', 'numpy', 'lerobot'} & set(sys.modules)) or 0)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
