"""The trials of a sweep, one run after the other, until all have ended."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import mean
from typing import Protocol

from filelock import FileLock, Timeout

from zk0.errors import Zk0Error
from zk0.record.run_folder import EVENTS, RunFolder
from zk0.sweep import report
from zk0.sweep.file import Sweep
from zk0.sweep.study import OpenTrial, Study, Trial

Watch = Callable[[str], None]
"""Called with the run's Flower number whenever there may be news; it ends the run by raising."""


class RunFailedError(Zk0Error):
    """The run of a trial failed, and others may succeed."""


class Pruned(BaseException):
    """The run's losses promise nothing: it is to be stopped."""


class Runner(Protocol):
    """Makes one run with these settings and returns once it has completed.

    Raises `RunFailedError` where it did not, any other `Zk0Error` where no run would, and what
    `watch` raised, once the run has been stopped.
    """

    def __call__(self, run_config: str, output_dir: str, log: Path, watch: Watch) -> None: ...


def run(
    sweep: Sweep, runner: Runner, stop_run: Callable[[str], None], retry_failed: bool = False
) -> list[Trial]:
    """Run all trials that have not ended yet, and return all there are, by number.

    Raises `Zk0Error` where the sweep's folder is another process's, cannot be written, or has
    trials that could not be compared with new ones.
    """
    try:
        with _locked(sweep.folder):
            study = Study(sweep)
            study.recover(stop_run, retry_failed)
            _run_all(study, runner)
            report.write(sweep, study.trials())
            return study.trials()
    except OSError as error:
        raise Zk0Error(
            f"{sweep.folder} cannot be written: {error.strerror or error}. Put that right, then "
            "start the sweep again: it goes on where it was."
        ) from error


def _run_all(study: Study, runner: Runner) -> None:
    sweep, total = study.sweep, study.count()
    ended = sum(trial.state != "waiting" for trial in study.trials())
    print(f"sweep {sweep.file.name}: {ended} of {total} trials have ended; {sweep.folder}")
    while (trial := study.begin()) is not None:
        values = report.describe_values(trial.values)
        print(f"trial {trial.number} of {total}: {values} ...", end=" ", flush=True)
        result = _run_one(study, trial, runner)
        report.write(sweep, study.trials())
        print(f"{report.describe_result(sweep, result)}{_time_left(study, total)}", flush=True)


def _time_left(study: Study, total: int) -> str:
    minutes = [t.minutes for t in study.trials() if t.state != "waiting" and t.minutes is not None]
    left = total - len(minutes)
    return f"; about {left * mean(minutes):.1f} min left" if left and minutes else ""


def _run_one(study: Study, trial: OpenTrial, runner: Runner) -> Trial:
    """Run a trial to its end. What ends the whole sweep passes, and the trial stays "running"."""
    sweep = study.sweep
    follower = Follower(sweep, trial)
    log = sweep.folder / f"trial_{trial.number}.log"
    log.unlink(missing_ok=True)
    try:
        runner(_overrides(sweep, trial), sweep.base.output_dir, log, follower)
        follower.note_losses()
        return study.complete(trial, follower.result())
    except Pruned:
        follower.note_losses()
        return study.prune(trial)
    except RunFailedError as error:
        follower.note_losses()
        return study.fail(trial, f"{error}{follower.last_error()}")


def _overrides(sweep: Sweep, trial: OpenTrial) -> str:
    try:
        return sweep.overrides(trial.values)
    except Zk0Error as error:  # values that are fine each, but not together
        raise RunFailedError(str(error)) from None


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock").acquire(blocking=False):
            yield
    except Timeout:
        raise Zk0Error(
            f"{folder} belongs to a sweep that is running: wait for it, or stop it with Ctrl-C."
        ) from None


class Follower:
    """Watches a trial's run by what it writes into its folder."""

    def __init__(self, sweep: Sweep, trial: OpenTrial) -> None:
        self.sweep = sweep
        self.trial = trial
        self.run_id: str | None = None
        self.offset = 0
        self._folder: RunFolder | None = None

    def __call__(self, run_id: str) -> None:
        """Raises `Pruned` where the pruner sees no promise in the losses so far."""
        if self.run_id is None:
            self.run_id = run_id
            self.trial.note("flower_run_id", run_id)
        if self.sweep.file.pruner == "none":
            return
        rounds = self.sweep.config(self.trial.values).num_server_rounds
        for server_round, loss in self._new_losses():
            # Before round 1 all trials are the same, and after the last round there is no more.
            if 0 < server_round < rounds and self.trial.is_hopeless(server_round, loss):
                raise Pruned

    @property
    def folder(self) -> RunFolder | None:
        """The run's folder, once it is there."""
        if self._folder is None and self.run_id is not None:
            self._folder = RunFolder.find(self.sweep.base.output_dir, int(self.run_id))
        return self._folder

    def note_losses(self) -> None:
        """Keep the run's name and its losses after each round that was evaluated."""
        if self.folder is None:
            return
        self.trial.note("run", self.folder.path.name)
        self.trial.note("losses", self._losses(self.folder))

    def result(self) -> float:
        """What the sweep minimises; raises `RunFailedError` where the run has no such loss."""
        if self.folder is None:
            raise RunFailedError(f"run {self.run_id} has no folder in {self.sweep.base.output_dir}")
        losses = self._losses(self.folder)
        if self.sweep.file.at == "best" and losses:
            return min(losses.values())
        last = [event["round"] for event in self._read_events(0) if event["event"] == "run-end"]
        if not last or last[-1] not in losses:
            raise RunFailedError("the server has no loss for the last round")
        return losses[last[-1]]

    def last_error(self) -> str:
        """What the run itself said of its end, to be added to a sentence; empty for nothing."""
        log = self.folder.path / "simulation.log" if self.folder else None
        text = log.read_text(errors="replace") if log and log.is_file() else ""
        errors = re.findall(r"^\S+ \S+ ERROR +zk0: (.+)$", text, re.MULTILINE)
        return f": {errors[-1]}" if errors else ""

    def _losses(self, folder: RunFolder) -> dict[int, float]:
        if not (folder.path / "server" / "policy_loss_history.json").is_file():
            return {}  # it ended before the first evaluation
        history = folder.read("server/policy_loss_history.json")
        return {int(number): curve[self.sweep.file.metric] for number, curve in history.items()}

    def _new_losses(self) -> Iterator[tuple[int, float]]:
        metric = self.sweep.file.metric
        for event in self._read_events(self.offset):
            if event["event"] == "server-evaluate":
                whole = metric == "composite"
                loss = event["loss"] if whole else event["datasets"][metric]["loss"]
                yield event["round"], loss

    def _read_events(self, offset: int) -> list[dict]:
        """The whole lines of metrics.jsonl from `offset` on; moves `self.offset` behind them."""
        path = self.folder.path / EVENTS if self.folder else None
        if path is None or not path.is_file():
            return []
        content = path.read_bytes()[offset:]
        whole = content[: content.rfind(b"\n") + 1]
        self.offset = offset + len(whole)
        return [json.loads(line) for line in whole.splitlines()]
