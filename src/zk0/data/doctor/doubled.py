"""Rows that were written twice while the arm moved: a recording loop that was too slow."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from zk0.data.doctor.findings import Finding, in_episodes
from zk0.data.doctor.recording import Recording

SHARE = 0.03  # of the moving rows, from which doubled ones are worth a look
FEWEST = 3
_OF_SPEED = 0.25  # of the median moving step: slower is no clear motion
_TICKS = 3.0  # encoder ticks a step, below which a repeat is rounding


def check_doubled(recording: Recording) -> Iterator[Finding]:
    """Few rows repeat the row before, state and action, in the middle of a motion."""
    rows = doubled_rows(recording)
    if len(rows) < FEWEST or doubled_share(recording, rows) < SHARE:
        return
    episodes = np.unique(recording.columns.episode_indices[rows]).tolist()
    yield recording.finding(
        "doubled-frames",
        "warning",
        f"{len(rows)} rows repeat the one before, state and action, while the arm moves "
        f"({doubled_share(recording, rows):.0%} of the moving rows, in {in_episodes(episodes)}"
        f"{_rhythm(rows)}).",
        "Record at a frame rate that the machine keeps up with, or drop the repeats.",
        episodes,
    )


def doubled_rows(recording: Recording) -> NDArray[np.int64]:
    """Rows equal to the row before although the arm moves fast right before and right after.

    An arm that rests repeats its rows too, but it slows down first and starts again slowly; one
    that moves cannot stand still for a frame and go on as fast. Repeats at an episode's start or
    end have no motion on one side and do not count.
    """
    steps = np.abs(recording.strides).max(1)
    fast = steps > threshold(recording)
    rows: list[NDArray[np.int64]] = []
    for stretch in recording.stretches:
        inside = steps[stretch.start + 1 : stretch.stop]
        rows += [
            stretch.start + 1 + np.arange(start, stop)
            for start, stop in _runs(inside == 0)
            if start > 0 and stop < len(inside)
            if fast[stretch.start + start] and fast[stretch.start + 1 + stop]
        ]
    return np.concatenate(rows) if rows else np.empty(0, np.int64)


def doubled_share(recording: Recording, rows: NDArray[np.int64]) -> float:
    """`rows` among all rows that move or ought to."""
    moving = int((np.abs(recording.strides).max(1) > 0).sum())
    return len(rows) / max(1, moving + len(rows))


def threshold(recording: Recording) -> float:
    """The step, the largest of any joint, from which on an arm moves beyond doubt.

    A slow joint goes on by a tick of its encoder now and then and repeats in between: three ticks
    a step are needed, and a quarter of the median step.
    """
    steps = np.abs(recording.strides)
    moving = steps[steps > 0]
    if not len(moving):
        return np.inf
    tick = float(np.quantile(moving, 0.01))
    return max(_TICKS * tick, _OF_SPEED * float(np.median(steps.max(1)[steps.max(1) > 0])))


def _rhythm(rows: NDArray[np.int64]) -> str:
    """ ", every 2 rows" where doubled rows come at an even distance."""
    gaps = np.diff(rows)
    if len(gaps) < 3:
        return ""
    values, counts = np.unique(gaps, return_counts=True)
    common = int(values[counts.argmax()])
    return f", every {common} rows" if common > 1 and counts.max() / len(gaps) > 0.8 else ""


def _runs(flags: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Start and stop of each stretch of true values."""
    edges = np.diff(flags.astype(np.int8), prepend=0, append=0)
    return list(
        zip(np.flatnonzero(edges == 1).tolist(), np.flatnonzero(edges == -1).tolist(), strict=True)
    )
