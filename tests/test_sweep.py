"""`zk0 sweep`: the file, the trials, what survives an interruption, and the table."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

import pytest
import typer

from tests.conftest import PROJECT
from tests.flower import CONNECTION, Flower, flower_at
from zk0 import simulate
from zk0.commands.sweep import sweep as sweep_command
from zk0.config import parse_overrides
from zk0.errors import Zk0Error
from zk0.flower import STARTED, Interrupted
from zk0.record.run_folder import RunFolder
from zk0.sweep import report
from zk0.sweep.file import Sweep, read_sweep
from zk0.sweep.flower import FlowerRunner
from zk0.sweep.loop import Pruned, RunFailedError, Watch, run
from zk0.sweep.study import Trial

ROUNDS = 3
GRID = """
[search]
proximal-mu = [0.0, 0.1, 0.1]
local-steps = [5, 10]
"""
DRAWN = """
[search]
initial-lr = { low = 1e-4, high = 1e-2, log = true }
local-steps = { low = 20, high = 100, step = 20 }
strategy = ["fedprox", "fedavg"]
"""
Loss = Callable[[dict, int], float]


class Interruption(BaseException):
    """Stands for the end of the process in the middle of a trial."""


class Written:
    """A runner whose runs write what a federation would, with losses from a formula.

    At the trial `interrupted` (from 0 on) the process ends after round 1; those in `failing` fail.
    """

    def __init__(
        self, loss: Loss, interrupted: int | None = None, failing: Sequence[int] = ()
    ) -> None:
        self.loss = loss
        self.interrupted = interrupted
        self.failing = failing
        self.started: list[dict] = []
        self.pruned: list[int] = []
        self.stopped: list[str] = []

    def __call__(self, run_config: str, output_dir: str, log: Path, watch: Watch) -> None:
        number, values = len(self.started), parse_overrides([run_config])
        self.started.append(values)
        run_id = str(1000 + number)
        watch(run_id)
        folder = RunFolder.create(output_dir)
        folder.write("config.json", {"flower_run_id": run_id})
        if number in self.failing:
            line = f"{datetime.now():%Y-%m-%d %H:%M:%S.000} ERROR   zk0: client 1 lost its arm\n"
            (folder.path / "simulation.log").write_text(line)
            raise RunFailedError("run did not complete")
        history = {}
        for server_round in range(ROUNDS + 1):
            loss = self.loss(values, server_round)
            history[str(server_round)] = {"composite": loss, "near": 2 * loss, "far": 0.0}
            datasets = {"near": {"loss": 2 * loss}, "far": {"loss": 0.0}}
            folder.append("server-evaluate", round=server_round, loss=loss, datasets=datasets)
            folder.write("server/policy_loss_history.json", history)
            try:
                watch(run_id)
            except Pruned:
                self.pruned.append(number)
                raise
            if number == self.interrupted and server_round == 1:
                raise Interruption
        folder.append("run-end", round=ROUNDS, hash="0")

    def stop(self, run_id: str) -> None:
        self.stopped.append(run_id)


def falling(values: dict, server_round: int) -> float:
    """Best with the least mu and the most steps; in each setting the last round but one is best."""
    start = 1.0 + values.get("proximal-mu", 0.0) - values.get("local-steps", 0) / 1000
    return start - 0.1 * server_round + (0.15 if server_round == ROUNDS else 0.0)


@pytest.fixture
def make(tmp_path: Path):
    """A sweep of the project from the text of its file, with its outputs in a folder here."""

    def make(text: str, head: str = "", eval_frequency: int = 1) -> Sweep:
        path = tmp_path / "mu.toml"
        rounds = f"num-server-rounds = {ROUNDS}\neval-frequency = {eval_frequency}\n"
        fixed = f"[fixed]\n{rounds}output-dir = '{tmp_path / 'outputs'}'\n"
        path.write_text(f'name = "mu"\n{head}\n{fixed}{text}')
        return read_sweep(path, PROJECT)

    return make


def sweep_with(sweep: Sweep, runner: Written, retry_failed: bool = False) -> list[Trial]:
    return run(sweep, runner, runner.stop, retry_failed)


# --- the file -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "text", "message"),
    [
        ("sampeler = 'grid'", GRID, "sampeler is not known. Did you mean sampler?"),
        ("sampler = 'gird'", GRID, "sampler = 'gird' is not valid: it has to be 'grid', 'random'"),
        ("metric = 'nera'", GRID, "metric: nera is not known. Did you mean near?"),
        ("trials = 0", GRID, "trials = 0 is not valid"),
        ("", "[search]\nproximal-nu = [0.1]", "Did you mean proximal-mu?"),
        ("", "[search]\nproximal-mu = [0.1, -1]", "proximal-mu = -1 is not valid"),
        ("", "[search]\nstrategy = ['fedprox', 'fedsgd']", "strategy = 'fedsgd' is not valid"),
        ("", "local-steps = 5\n" + GRID, "local-steps is in [fixed] and in [search]"),
        ("", "local-steps = 5.5\n[search]\nseed = [0]", "local-steps = 5.5 is not valid"),
        ("", "[search]\nproximal-mu = []", "[search] proximal-mu = [] is not valid"),
        ("", "[search]\nproximal-mu = 0.1", "it has to be a list of values, or { low"),
        ("", "[search]\nresume = ['last']", "resume: a sweep's runs begin anew"),
        ("", '[search]\nmodel-name = ["it\'s"]', "must have no single quote"),
        ("", "[search]\nmin-train-nodes = [3]", "min-train-nodes = 3 is more than"),
        ("", DRAWN, "a grid takes a list of values"),
        (
            "sampler = 'tpe'",
            "[search]\nproximal-mu = { low = 1, high = 0 }",
            "has to be below high",
        ),
        ("sampler = 'tpe'", "[search]\nproximal-mu = { low = 0, hihg = 1 }", "Did you mean high?"),
        ("sampler = 'tpe'", "[search]\nseed = { low = 0, high = 3.5 }", "seed = 3.5 is not valid"),
        (
            "sampler = 'tpe'",
            "[search]\nseed = { low = 0, high = 3, step = 2 }",
            "step = 2 does not",
        ),
        ("sampler = 'tpe'", "[search]\neta-min = { low = 0, high = 1, log = true }", "low above 0"),
    ],
)
def test_a_wrong_file_is_refused_with_one_line_before_anything_starts(make, head, text, message):
    with pytest.raises(Zk0Error) as error:
        make(text, head)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert "mu.toml: " in str(error.value)


def test_a_missing_file_is_refused(tmp_path: Path):
    with pytest.raises(Zk0Error, match=r"none.toml cannot be read \(No such file"):
        read_sweep(tmp_path / "none.toml", PROJECT)


def test_a_grid_has_each_run_once(make):
    text = '[search]\nstrategy = ["fedprox", "fedavg"]\nproximal-mu = [0, 0.0, 0.1]\n'
    points = make(text).points()
    assert points == [
        {"strategy": "fedprox", "proximal-mu": 0.0},
        {"strategy": "fedprox", "proximal-mu": 0.1},
        {"strategy": "fedavg", "proximal-mu": 0.0},
    ]


def test_the_example_reads_as_a_user_would_type_it():
    sweep = read_sweep(PROJECT / "examples" / "sweep.toml", PROJECT)
    first, *others = [sweep.overrides(point) for point in sweep.points()]
    assert first == (
        "num-server-rounds=2 local-steps=4 batch-size=8 eval-batches=2 "
        "strategy='fedprox' proximal-mu=0.0"
    )
    assert len(others) == 2


# --- the trials -----------------------------------------------------------------------------------


def test_a_grid_is_run_in_order_and_ranked(make):
    runner = Written(falling)
    trials = sweep_with(make(GRID), runner)
    tried = [(values["proximal-mu"], values["local-steps"]) for values in runner.started]
    assert tried == [(0.0, 5), (0.0, 10), (0.1, 5), (0.1, 10)]
    assert [trial.number for trial in report.ranked(trials)] == [2, 1, 4, 3]
    assert trials[1].result == falling(runner.started[1], ROUNDS)


def test_the_best_round_of_one_dataset_can_be_what_counts(make):
    trials = sweep_with(make(GRID, "metric = 'near'\nat = 'best'"), Written(falling))
    assert trials[0].result == pytest.approx(2 * falling({"local-steps": 5}, ROUNDS - 1))


@pytest.mark.parametrize("sampler", ["grid", "random", "tpe"])
def test_an_interrupted_sweep_goes_on_as_if_it_had_not_been(make, tmp_path, sampler: str):
    text = GRID if sampler == "grid" else DRAWN
    head = f"sampler = '{sampler}'\ntrials = 13\nseed = 7"
    whole = Written(falling)
    undisturbed = sweep_with(make(text, head), whole)
    (tmp_path / "outputs").rename(tmp_path / "before")
    first, second = Written(falling, interrupted=2), Written(falling)
    with pytest.raises(Interruption):
        sweep_with(make(text, head), first)
    trials = sweep_with(make(text, head), second)
    assert second.stopped == ["1002"]
    assert [*first.started[:2], *second.started] == whole.started
    assert [(t.number, t.values, t.losses) for t in trials] == [
        (t.number, t.values, t.losses) for t in undisturbed
    ]
    third = Written(falling)
    assert sweep_with(make(text, head), third) == trials
    assert third.started == []


def test_what_is_drawn_depends_on_the_seed_and_lies_in_its_range(make, tmp_path):
    runners = []
    for seed in (0, 1):
        runners.append(Written(falling))
        sweep_with(make(DRAWN, f"sampler = 'random'\ntrials = 8\nseed = {seed}"), runners[-1])
        (tmp_path / "outputs").rename(tmp_path / f"seed_{seed}")
    assert runners[0].started != runners[1].started
    for values in runners[0].started:
        assert 1e-4 <= values["initial-lr"] <= 1e-2
        assert len(f"{values['initial-lr']:g}") >= len(repr(values["initial-lr"])) - 1
        assert values["local-steps"] in (20, 40, 60, 80, 100)
    assert len({str(values) for values in runners[0].started}) == 8


def test_a_killed_process_leaves_nothing_in_the_way(make):
    """A torn last line of the journal, and the lock of the process that wrote it."""
    sweep = make(GRID)
    with pytest.raises(Interruption):
        sweep_with(sweep, Written(falling, interrupted=1))
    journal = sweep.folder / "study.journal"
    with journal.open("a") as file:
        file.write('{"op_code":8,"torn')
    os.symlink(journal, f"{journal}.lock")
    assert [trial.state for trial in sweep_with(sweep, Written(falling))] == ["done"] * 4


def test_a_grid_may_grow(make):
    sweep_with(make("[search]\nlocal-steps = [5]\n"), Written(falling))
    runner = Written(falling)
    trials = sweep_with(make("[search]\nlocal-steps = [10, 5]\n"), runner)
    assert [values["local-steps"] for values in runner.started] == [10]
    assert [trial.values["local-steps"] for trial in trials] == [5, 10]


@pytest.mark.parametrize(
    ("head", "text", "difference"),
    [
        ("", f"batch-size = 4\n{GRID}", "batch-size was 32 and is 4"),
        ("at = 'best'", GRID, "at was 'last' and is 'best'"),
        ("", "[search]\nlocal-steps = [5]", "[search] was ['local-steps', 'proximal-mu'] and is"),
        ("sampler = 'random'", GRID, "sampler was 'grid' and is 'random or tpe'"),
    ],
)
def test_a_file_whose_trials_would_not_compare_is_refused(make, head, text, difference):
    sweep_with(make(GRID), Written(falling))
    runner = Written(falling)
    with pytest.raises(Zk0Error) as error:
        sweep_with(make(text, head), runner)
    assert difference in str(error.value)
    assert runner.started == []


def test_a_failed_trial_is_told_and_the_others_go_on(make):
    sweep = make(GRID)
    trials = sweep_with(sweep, Written(falling, failing=[1]))
    assert [trial.state for trial in trials] == ["done", "failed", "done", "done"]
    assert trials[1].reason == "run did not complete: client 1 lost its arm"
    again = Written(falling)
    assert sweep_with(sweep, again)[1].state == "failed"
    assert again.started == []
    trials = sweep_with(sweep, again, retry_failed=True)
    assert [trial.state for trial in trials] == ["done"] * 4
    assert len(again.started) == 1


def test_a_run_without_a_loss_for_its_last_round_has_failed(make):
    def run_to_round_2(run_config: str, output_dir: str, log: Path, watch: Watch) -> None:
        watch("7")
        folder = RunFolder.create(output_dir)
        folder.write("config.json", {"flower_run_id": "7"})
        folder.write("server/policy_loss_history.json", {"2": {"composite": 0.5}})
        folder.append("run-end", round=3)

    trials = run(make("[search]\nseed = [0]\n"), run_to_round_2, lambda run_id: None)
    assert trials[0].reason == "the server has no loss for the last round"
    assert trials[0].losses == {2: 0.5}


def test_values_that_do_not_go_together_fail_their_trial_alone(make):
    text = "[search]\nmin-train-nodes = [2, 4]\nmin-available-nodes = [4, 2]\n"
    runner = Written(falling)
    trials = sweep_with(make(text, "sampler = 'random'\ntrials = 8"), runner)
    refused = [trial for trial in trials if trial.state == "failed"]
    assert 0 < len(refused) < 8
    assert len(runner.started) == 8 - len(refused)
    assert refused[0].reason.startswith("min-train-nodes = 4 is more than min-available-nodes = 2")


def test_what_no_run_could_do_without_ends_the_sweep(make):
    def refuse(run_config: str, output_dir: str, log: Path, watch: Watch) -> None:
        raise Zk0Error("port 39091 is taken")

    sweep = make(GRID)
    with pytest.raises(Zk0Error, match="39091"):
        run(sweep, refuse, lambda run_id: None)
    assert [trial.state for trial in sweep_with(sweep, Written(falling))] == ["done"] * 4


def test_two_processes_do_not_share_a_sweep(make):
    sweep = make(GRID)

    def begin_another(run_config: str, output_dir: str, log: Path, watch: Watch) -> None:
        sweep_with(sweep, Written(falling))

    with pytest.raises(Zk0Error, match="belongs to a sweep that is running"):
        run(sweep, begin_another, lambda run_id: None)


def test_the_pruner_stops_runs_that_promise_nothing(make):
    text = "[search]\nproximal-mu = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.05]\n"
    runner = Written(falling)
    trials = sweep_with(make(text, "pruner = 'median'"), runner)
    assert runner.pruned == [5]
    assert trials[5].state == "pruned"
    assert list(trials[5].losses) == [0, 1]
    assert [trial.number for trial in report.ranked(trials)][-1] == 6


def test_a_pruner_without_losses_to_judge_by_is_refused(make):
    with pytest.raises(Zk0Error, match=r"'?median.*eval-frequency below num-server-rounds = 3"):
        make(GRID, "pruner = 'median'", eval_frequency=3)
    swept = "[search]\nnum-server-rounds = [2, 19]\n"
    path = make(GRID).path
    path.write_text(f"name = 'mu'\npruner = 'median'\n{swept}")
    assert read_sweep(path, PROJECT).base.eval_frequency == 10


def test_halving_stops_runs_too(make):
    text = f"[search]\nproximal-mu = {[n / 10 for n in range(9)]}\n"
    runner = Written(falling)
    trials = sweep_with(make(text, "pruner = 'halving'"), runner)
    assert runner.pruned
    assert report.best(trials).values == {"proximal-mu": 0.0}


# --- the report -----------------------------------------------------------------------------------


def test_the_table_is_kept_in_three_forms(make, capsys: pytest.CaptureFixture[str]):
    sweep = make(GRID)
    trials = sweep_with(sweep, Written(falling, failing=[2]))
    content = json.loads((sweep.folder / "sweep.json").read_text())
    assert [trial["trial"] for trial in content["trials"]] == [2, 1, 4, 3]
    assert content["best"]["run-config"] == sweep.overrides({"proximal-mu": 0.0, "local-steps": 10})
    with (sweep.folder / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["trial"] for row in rows] == ["2", "1", "4", "3"]
    assert float(rows[0]["last loss"]) == trials[1].result
    assert (rows[0]["best round"], rows[0]["run"]) == ("2", trials[1].run)
    lines = (sweep.folder / "sweep.md").read_text().splitlines()
    assert "- trial 3 failed: run did not complete: client 1 lost its arm" in lines
    assert any(line.startswith("| 2 | 0.0 | 10 | 0.9900 | 0.8400 | 0.7900 | 2 |") for line in lines)
    told = capsys.readouterr().out.splitlines()
    assert told[1].startswith(
        "trial 1 of 4: proximal-mu=0.0 local-steps=5 ... "
        "composite 0.9950 -> 0.8450, best 0.7950 in round 2, 0.0 min; about"
    )


def test_the_best_setting_can_be_pasted_into_a_shell(make):
    sweep = make("[search]\nmodel-name = ['a \"$HOME\" `b`']\n")
    option = report.paste(sweep, sweep_with(sweep, Written(falling))[0])
    said = subprocess.run(
        ["bash", "-c", f"printf '%s\\n' {option}"], capture_output=True, text=True, check=True
    )
    name, text = said.stdout.splitlines()
    assert name == "--run-config"
    assert parse_overrides([text])["model-name"] == 'a "$HOME" `b`'


def test_the_terminals_table_names_what_was_searched(make):
    from rich.console import Console

    trials = sweep_with(make(GRID), Written(falling))
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(report.table(trials))
    heading, first, *_ = console.export_text().splitlines()
    assert "proximal-mu" in heading
    assert first.split()[:6] == ["2", "0.0", "10", "0.9900", "0.8400", "0.7900"]


# --- the command ----------------------------------------------------------------------------------


class Stopped(Written):
    """Its second run is ended by Ctrl-C."""

    def __call__(self, run_config: str, output_dir: str, log: Path, watch: Watch) -> None:
        if self.started:
            raise Interrupted(signal.SIGINT)
        super().__call__(run_config, output_dir, log, watch)


@pytest.mark.parametrize(
    ("runner", "status", "said"),
    [
        (Written(falling, failing=[2]), 1, "To run those again, add --retry-failed."),
        (Stopped(falling), 130, "Stopped. The same command goes on where it was: zk0 sweep"),
    ],
)
def test_the_exit_status_tells_how_a_sweep_ended(
    make, monkeypatch, capsys: pytest.CaptureFixture[str], runner: Written, status: int, said: str
):
    monkeypatch.setattr("zk0.sweep.flower.FlowerRunner", lambda *arguments: runner)
    with pytest.raises(typer.Exit) as end:
        sweep_command(make(GRID).path, PROJECT)
    assert end.value.exit_code == status
    assert said in capsys.readouterr().out


def test_help_needs_no_optuna():
    done = subprocess.run(
        [sys.executable, "-c", "import sys, zk0.commands.sweep; print('optuna' in sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "False\n"


# --- a run, with a stand-in for the `flwr` command ------------------------------------------------

FLWR = """\
#!/bin/sh
echo "$@" >>"$CALLS"
case $1 in
  run) echo "Successfully started run 42"; echo "round 1"; echo "a warning" >&2; $THEN ;;
  ls) echo '{"runs": [{"status": "'$STATUS'", "status-details": "why"}]}' ;;
esac
"""


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What `flwr` was called with, a line per call."""
    flwr = tmp_path / "flwr"
    flwr.write_text(FLWR)
    flwr.chmod(0o755)
    monkeypatch.setattr("zk0.flower.SCRIPTS", tmp_path)
    monkeypatch.setattr(simulate, "choose_connection", lambda named: named)
    monkeypatch.setattr(simulate, "prepare_data", lambda datasets: None)
    monkeypatch.setattr("zk0.superlink.ensure_own", lambda *arguments: None)
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    return tmp_path / "calls"


def test_a_pruned_run_is_stopped_and_its_log_kept(
    calls: Path, make, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("THEN", "exec sleep 60")
    heard: list[str] = []

    def prune_at_round_1(run_id: str) -> None:
        heard.append(run_id)
        if len(heard) == 2:
            raise Pruned

    runner = FlowerRunner(PROJECT, "local-simulation", make(GRID).datasets)
    handler, log = signal.getsignal(signal.SIGINT), calls.parent / "trial_1.log"
    with pytest.raises(Pruned):
        runner("seed=1", str(calls.parent), log, prune_at_round_1)
    assert signal.getsignal(signal.SIGINT) == handler
    assert heard == ["42", "42"]
    first, last = calls.read_text().splitlines()
    clients = "--federation-config num-supernodes=4"  # whatever the connection says
    assert first == f"run {PROJECT} local-simulation --stream {clients} --run-config seed=1"
    assert last == "stop 42 local-simulation"
    kept = log.read_text().splitlines()
    assert {"Successfully started run 42", "round 1"} <= set(kept)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("then", "status", "reason"),
    [
        ("exit 3", "", r"exit status 3: see \S+/trial_1.log"),
        ("exit 0", "finished:failed", r"run 42 did not complete: finished:failed \(why\)"),
    ],
)
def test_a_failed_run_says_why(calls: Path, make, monkeypatch, then: str, status: str, reason: str):
    monkeypatch.setenv("THEN", then)
    monkeypatch.setenv("STATUS", status)
    runner = FlowerRunner(PROJECT, "local-simulation", make(GRID).datasets)
    log = calls.parent / "trial_1.log"
    with pytest.raises(RunFailedError, match=reason):
        runner("seed=1", str(calls.parent / "outputs"), log, lambda run_id: None)
    assert "a warning" in log.read_text()


@pytest.mark.parametrize(
    ("status", "stopped"), [("running", True), ("starting", True), ("finished:stopped", False)]
)
def test_a_run_that_a_killed_sweep_left_is_stopped(
    calls: Path, make, monkeypatch: pytest.MonkeyPatch, status: str, stopped: bool
):
    monkeypatch.setenv("STATUS", status)
    FlowerRunner(PROJECT, "local-simulation", make(GRID).datasets).stop("42")
    assert ("stop 42 local-simulation" in calls.read_text().splitlines()) == stopped


# --- a federation ---------------------------------------------------------------------------------

COMMAND = "import typer; from zk0.commands.sweep import sweep; typer.run(sweep)"
TINY = """\
name = "tiny"
[fixed]
num-server-rounds = 1
local-steps = 2
batch-size = 4
eval-batches = 1
eval-episodes = 1
rollout-episodes = 0
rollout-videos = 0
output-dir = '{outputs}'
[search]
proximal-mu = [0.1]
"""


def call(flower: Flower, file: Path) -> "subprocess.Popen[str]":
    options = ["--app", str(flower.app), "--federation", CONNECTION]
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, str(file), *options],
        env=flower.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def await_run(log: Path) -> str:
    """The number of the run whose log this is, once Flower has started it."""
    deadline = time.monotonic() + 60
    while True:
        text = log.read_text() if log.exists() else ""
        if started := STARTED.search(text):
            return started[1]
        assert time.monotonic() < deadline, text
        time.sleep(0.1)


@pytest.mark.slow
def test_a_sweep_of_real_runs_goes_on_after_ctrl_c(datasets: dict[str, Path], tmp_path: Path):
    outputs, file = tmp_path / "outputs", tmp_path / "tiny.toml"
    folder = outputs / "sweeps" / "tiny"
    file.write_text(TINY.format(outputs=outputs))
    clients, server = [datasets["touch"], datasets["picklift"]], [datasets["near"]]
    with flower_at(tmp_path / "flower", clients, server) as flower:
        first = call(flower, file)
        assert first.stdout is not None
        told = [first.stdout.readline()]
        assert told[0].startswith("sweep tiny: 0 of 1 trials have ended")
        stopped = await_run(folder / "trial_1.log")
        first.send_signal(signal.SIGINT)
        told += first.stdout.readlines()
        assert first.wait(timeout=60) == 130, told
        assert told[-1].startswith("Stopped. The same command goes on"), told
        assert flower.status(stopped)[0] == "finished:stopped"
        second = call(flower, file)
        out, _ = second.communicate(timeout=240)
    assert second.returncode == 0, out
    (trial,) = json.loads((folder / "sweep.json").read_text())["trials"]
    assert (trial["trial"], trial["state"], list(trial["losses"])) == (1, "done", ["0", "1"])
    config = json.loads((outputs / trial["run"] / "config.json").read_text())["config"]
    assert config["proximal-mu"] == trial["values"]["proximal-mu"] == 0.1
    assert "Successfully started run" in (folder / "trial_1.log").read_text()
