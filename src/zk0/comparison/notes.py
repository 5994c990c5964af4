"""Notes: what a reader has to keep in mind."""

from collections.abc import Iterator, Sequence

from zk0.comparison.groups import Group, shared_seeds
from zk0.comparison.rows import Row
from zk0.comparison.runs import Run


def note_seeds(groups: Sequence[Group]) -> Iterator[str]:
    reference = groups[0]
    for group in groups:
        if len(group.runs) == 1:
            yield f"{group.label}: one seed: the interval says nothing about other seeds."
        shared = shared_seeds(reference, group)
        if len(shared) < max(len(group.runs), len(reference.runs)):
            pair, seeds = f"{reference.label} less {group.label}", ", ".join(map(str, shared))
            yield f"{pair}: over the seeds that both have, {seeds}."


def note_single_episodes(reference: Group, rows: Sequence[Row]) -> Iterator[str]:
    for row in rows:
        if row.family.kind == "mean" and len(set(reference.clusters(row.metric))) == 1:
            yield f"{row.metric}: one episode: the interval says nothing about other episodes."


def note_picks(rows: Sequence[Row], which_round: str) -> Iterator[str]:
    """What was picked by its result looks better than it is."""
    if which_round == "best":
        yield (
            "--round best picks each run's round by the loss on the same frames: the values "
            "are better than those of a round fixed beforehand."
        )
    if any(row.best_local for row in rows):
        yield "The best local one is picked by its result, which flatters it, not the reference."


def note_incidents(runs: Sequence[Run]) -> Iterator[str]:
    for run in runs:
        void = sum(each.void for each in run.rounds)
        failures = sum(len(each.failures) for each in run.rounds)
        if void or failures:
            yield (
                f"{run.path}: {void} void rounds, {failures} failures of clients: it trained less "
                "than its budget."
            )
        if run.about.resumed:
            yield f"{run.path} was resumed: its wall-time contains the pause."


def note_chance(rows: Sequence[Row], confidence: float) -> Iterator[str]:
    count = sum(each.difference.low is not None for row in rows for each in row.findings)
    if count > 1:
        yield (
            f"{count} differences: where nothing differs, up to {count * (1 - confidence):.0f} of "
            f"them on average would hold by chance at {100 * confidence:g} %."
        )
