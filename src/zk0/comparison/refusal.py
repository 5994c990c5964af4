"""What runs must have in common to be compared: data, budget, evaluation."""

import hashlib
from collections.abc import Iterator, Sequence
from fractions import Fraction

from zk0.comparison.runs import Run
from zk0.errors import Zk0Error


def refuse_incomparable(runs: Sequence[Run], which_round: str) -> None:
    """Raise `Zk0Error` with the first thing that two runs must have in common and have not."""
    first, *others = runs
    for other in others:
        by_round = which_round != "best" and not (first.has_own_round or other.has_own_round)
        wanted, found = (dict(_facts(run, by_round)) for run in (first, other))
        if first.rollouts and other.rollouts:
            wanted |= _played(first)
            found |= _played(other)
        for what in wanted | found:
            one, two = wanted.get(what, "none"), found.get(what, "none")
            if one != two:
                raise Zk0Error(
                    f"{first.path} and {other.path} cannot be compared: {what}: {one} in the "
                    f"first, {two} in the second. Compare runs that have this in common."
                )


def _facts(run: Run, by_round: bool) -> Iterator[tuple[str, str]]:
    """What has to be the same in all runs, in words."""
    yield "model-name", str(run.about.config["model-name"])
    yield "the frozen backbone", run.about.backbone[:12] or "not recorded"
    yield from _data(run)
    yield from _budget(run, by_round)
    for key, value in sorted(run.about.evaluation.items()):
        yield f"the evaluation's {key}", str(value)
    for slug, part in sorted(run.frames.items()):
        digest = hashlib.sha256(part.rows.astype("<i8").tobytes()).hexdigest()[:12]
        yield f"the evaluated frames of {slug}", f"{len(part.rows)} rows, sha256 {digest}"


def _data(run: Run) -> Iterator[tuple[str, str]]:
    for client in sorted(run.about.clients, key=lambda each: each.client):
        frames = f"{client.training_frames} training frames"
        yield f"client {client.client}", f"{client.slug}, {frames}, {client.fingerprint}"
    for each in sorted(run.about.server, key=lambda each: each.slug):
        yield f"the server's {each.slug}", f"{each.frames} frames, {each.fingerprint}"


def _budget(run: Run, by_round: bool) -> Iterator[tuple[str, str]]:
    yield "the budget's batch_size", str(run.about.budget.batch_size)
    for client in sorted(run.about.budget.steps_per_client, key=int):
        budget = f"the budget of client {client}"
        yield budget, f"{_steps(run, client, run.ended)} steps"
        if by_round:
            steps = _steps(run, client, run.chosen)
            yield f"{budget} by the round compared", f"{steps} steps"


def _steps(run: Run, client: str, until: int) -> Fraction:
    """Gradient steps on a client's data up to a round, from what was planned at the start."""
    planned = run.about.config["num-server-rounds"]
    return Fraction(run.about.budget.steps_per_client[client] * until, planned)


def _played(run: Run) -> dict[str, str]:
    return {
        f"rollouts of {task}": f"seeds {', '.join(str(each.seed) for each in rollouts)}"
        for task, rollouts in run.rollouts.items()
    }
