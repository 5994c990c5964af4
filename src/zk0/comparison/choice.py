"""Which metrics are compared: those asked for, if all runs have them."""

import difflib
from collections.abc import Iterator, Sequence

from zk0.comparison.metrics import family_name, in_order
from zk0.comparison.runs import Run
from zk0.errors import Zk0Error


def choose_metrics(wanted: Sequence[str], runs: Sequence[Run]) -> list[str]:
    """The metrics named, or of the families named, that all runs have; all where none is named.

    Raises `Zk0Error` for a name that no run has, or that one of them lacks.
    """
    known = in_order(name for run in runs for name in run.samples)
    if not wanted:
        return [each for each in known if _lacking(runs, each) is None]
    chosen = [each for name in wanted for each in _matching(name, known, runs)]
    return list(dict.fromkeys(chosen))


def left_out(wanted: Sequence[str], runs: Sequence[Run]) -> Iterator[str]:
    """A sentence for each metric that some runs have and others lack."""
    for metric in dict.fromkeys(name for run in runs for name in run.samples):
        lacking = _lacking(runs, metric)
        if lacking and (not wanted or family_name(metric) in wanted):
            yield _sentence(lacking, metric)


def _matching(name: str, known: Sequence[str], runs: Sequence[Run]) -> list[str]:
    matching = [each for each in known if name in (each, family_name(each))]
    if not matching:
        raise _unknown(name, known)
    shared = [each for each in matching if _lacking(runs, each) is None]
    lacking = _lacking(runs, matching[0])
    if lacking and not shared:
        raise Zk0Error(f"{_sentence(lacking, matching[0])} Name another metric or round.")
    return shared


def _lacking(runs: Sequence[Run], metric: str) -> Run | None:
    return next((run for run in runs if metric not in run.samples), None)


def _sentence(lacking: Run, metric: str) -> str:
    return f"{metric} is not compared: {lacking.path} has none in round {lacking.chosen}."


def _unknown(name: str, known: Sequence[str]) -> Zk0Error:
    families = list(dict.fromkeys(map(family_name, known)))
    near = difflib.get_close_matches(name, [*known, *families], n=1, cutoff=0.4)
    hint = f"Did you mean {near[0]}?" if near else f"There are {', '.join(families)}."
    return Zk0Error(f"--metrics: {name} is not a metric of these runs. {hint}")
