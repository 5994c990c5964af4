"""A sweep's trials: an Optuna study in a journal file, which outlives a killed process.

A trial is known by its number, from 1 on. One that was running when the process ended is run again
under its number, with its values; of two attempts the newer one counts. What is drawn for a trial
depends on the sweep's seed, the trial's number and the results before it alone, so that a sweep in
two parts makes the trials of one in a single part. (Only "halving" counts earlier attempts, too.)
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from zk0.errors import Zk0Error
from zk0.sweep.file import Range, Scalar, Sweep, Values, takes_whole_numbers

State = Literal["done", "pruned", "failed", "running", "waiting"]
STATES: Mapping[TrialState, State] = {
    TrialState.COMPLETE: "done",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}
PRUNERS: Mapping[str, Callable[[], optuna.pruners.BasePruner]] = {
    "none": optuna.pruners.NopPruner,
    "median": optuna.pruners.MedianPruner,
    "halving": optuna.pruners.SuccessiveHalvingPruner,
}


@dataclass(frozen=True)
class Trial:
    """What is known of one trial."""

    number: int
    values: Values
    state: State
    result: float | None
    """What the sweep minimises, of a trial that is done."""
    losses: dict[int, float]
    """The metric by evaluated round; round 0 is before any training."""
    run: str | None
    """The name of the run's folder."""
    reason: str | None
    """Why it failed, in one line."""
    minutes: float | None


class OpenTrial:
    """The trial that is being run."""

    def __init__(self, trial: optuna.Trial, number: int, values: Values) -> None:
        self.trial = trial
        self.number = number
        self.values = values

    def note(self, name: str, value: Any) -> None:
        """Keep a fact about the trial; at once, as the process may be killed."""
        self.trial.set_user_attr(name, value)

    def is_hopeless(self, server_round: int, loss: float) -> bool:
        """Tell the pruner the loss of a round after which others follow; its judgement."""
        self.trial.report(loss, server_round)
        return self.trial.should_prune()


class Study:
    """The trials of one sweep; raises `Zk0Error` where those of its folder are incomparable."""

    def __init__(self, sweep: Sweep) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.sweep = sweep
        self.study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(_repair(sweep.folder)))),
            study_name=sweep.file.name,
            pruner=PRUNERS[sweep.file.pruner](),
            direction="minimize",
            load_if_exists=True,
        )
        self._check_premises()

    def trials(self) -> list[Trial]:
        """All trials by number; those that wait to be run again are "waiting"."""
        return [_read(trial) for trial in self._attempts()]

    def count(self) -> int:
        """How many trials the sweep will have in the end."""
        return len(self.trials()) + len(self._missing())

    def recover(self, stop_run: Callable[[str], None], retry_failed: bool) -> None:
        """Let trials that never ended wait to be run again, and failed ones if `retry_failed`.

        `stop_run` is given the Flower number of a run that may still be going on.
        """
        for trial in self._attempts():
            unended = trial.state == TrialState.RUNNING
            if unended and "flower_run_id" in trial.user_attrs:
                stop_run(trial.user_attrs["flower_run_id"])
            if unended or (retry_failed and trial.state == TrialState.FAIL):
                facts = {name: trial.user_attrs[name] for name in ("number", "values")}
                self.study.enqueue_trial(trial.params, user_attrs=facts)
        for trial in self.study.get_trials(states=[TrialState.RUNNING]):
            self.study.tell(trial.number, state=TrialState.FAIL)

    def begin(self) -> OpenTrial | None:
        """The next trial; None once all have ended."""
        trials, missing = self.trials(), self._missing()
        if not missing and all(trial.state != "waiting" for trial in trials):
            return None
        number = 1 + len(trials)
        self.study.sampler = _sampler(self.sweep, number)
        trial = self.study.ask(self._distributions())  # one that waits, where there is one
        number = trial.user_attrs.get("number", number)
        values = trial.user_attrs.get("values") or missing[0] or self._drawn(trial.params)
        trial.set_user_attr("values", values)
        trial.set_user_attr("number", number)
        return OpenTrial(trial, number, values)

    def complete(self, trial: OpenTrial, result: float) -> Trial:
        return _read(self.study.tell(trial.trial, result))

    def prune(self, trial: OpenTrial) -> Trial:
        return _read(self.study.tell(trial.trial, state=TrialState.PRUNED))

    def fail(self, trial: OpenTrial, reason: str) -> Trial:
        trial.note("reason", " ".join(reason.split()))
        return _read(self.study.tell(trial.trial, state=TrialState.FAIL))

    def _check_premises(self) -> None:
        now, before = self.sweep.premises(), self.study.user_attrs.get("premises")
        if before is None:
            self.study.set_user_attr("premises", now)
            return
        differences = [
            f"{key} was {before.get(key, 'absent')!r} and is {now.get(key, 'absent')!r}"
            for key in dict.fromkeys([*before, *now])
            if before.get(key) != now.get(key)
        ]
        if differences:
            raise Zk0Error(
                f"{self.sweep.path}: the trials in {self.sweep.folder} cannot be compared with new "
                f"ones: {'; '.join(differences)}. Change it back, or give the sweep another name."
            )

    def _attempts(self) -> list[FrozenTrial]:
        """The newest attempt at each trial; killed while it drew its values, it is none."""
        newest = {
            trial.user_attrs["number"]: trial
            for trial in self.study.get_trials(deepcopy=False)
            if "number" in trial.user_attrs
        }
        return [newest[number] for number in sorted(newest)]

    def _missing(self) -> list[Values]:
        """The trials that there are not yet: a grid's points, or as many empty settings."""
        trials = self.trials()
        if self.sweep.file.sampler != "grid":
            return [{}] * (self.sweep.file.trials - len(trials))
        there = {self.sweep.identity(trial.values) for trial in trials}
        return [point for point in self.sweep.points() if self.sweep.identity(point) not in there]

    def _distributions(self) -> dict[str, BaseDistribution]:
        if self.sweep.file.sampler == "grid":  # which may grow, and Optuna's choices may not
            return {}
        return {key: _distribution(key, each) for key, each in self.sweep.file.search.items()}

    def _drawn(self, params: Mapping[str, Scalar]) -> Values:
        """What Optuna drew, to six digits: a setting that can be read and typed."""
        return {
            key: float(f"{value:.6g}") if isinstance(value, float) else value
            for key, value in params.items()
        }


def _read(trial: FrozenTrial) -> Trial:
    facts, seconds = trial.user_attrs, trial.duration.total_seconds() if trial.duration else None
    return Trial(
        number=facts["number"],
        values=facts["values"],
        state=STATES[trial.state],
        result=trial.value if trial.state == TrialState.COMPLETE else None,
        losses={int(number): loss for number, loss in facts.get("losses", {}).items()},
        run=facts.get("run"),
        reason=facts.get("reason"),
        minutes=None if seconds is None else seconds / 60,
    )


def _distribution(key: str, candidates: tuple[Scalar, ...] | Range) -> BaseDistribution:
    if not isinstance(candidates, Range):
        return CategoricalDistribution(candidates)
    low, high, log, step = candidates.low, candidates.high, candidates.log, candidates.step
    if takes_whole_numbers(key):
        return IntDistribution(int(low), int(high), log, int(step or 1))
    return FloatDistribution(low, high, log, step)


def _sampler(sweep: Sweep, number: int) -> optuna.samplers.BaseSampler:
    """A sampler of this trial's own: one for all would begin again with the first trial's draw
    whenever the sweep goes on."""
    seed = int(np.random.SeedSequence([sweep.file.seed, number]).generate_state(1)[0])
    if sweep.file.sampler == "tpe":
        return optuna.samplers.TPESampler(seed=seed)
    return optuna.samplers.RandomSampler(seed=seed)


def _repair(folder: Path) -> Path:
    """The journal's path, without what a process that was killed while it wrote left behind."""
    path = folder / "study.journal"
    path.with_name(f"{path.name}.lock").unlink(missing_ok=True)
    if path.exists():
        content = path.read_bytes()
        os.truncate(path, content.rfind(b"\n") + 1)
    return path
