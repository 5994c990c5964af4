"""Whether metadata and rows agree: counts, numbering, files and instructions."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from zk0.data.doctor.findings import Finding, in_episodes, shortened
from zk0.data.doctor.recording import Recording

REPAIR = "zk0 data doctor --fix makes a copy with these numbers put right."
AGAIN = "Download or copy the dataset again."


def check_counts(recording: Recording) -> Iterator[Finding]:
    """info.json, meta/episodes and the rows count the same episodes and frames."""
    found = {
        "total_episodes": len(recording.stretches),
        "total_frames": len(recording.columns),
        "total_tasks": len(recording.tasks),
    }
    for name, count in found.items():
        if recording.totals.get(name, count) != count:
            yield recording.finding(
                "counts",
                "warning" if name == "total_tasks" else "error",
                f"meta/info.json has {name} = {recording.totals[name]}; there are {count}.",
                REPAIR,
            )
    numbers = [span.episode for span in recording.spans]
    if numbers != list(range(found["total_episodes"])):
        yield recording.finding(
            "counts",
            "error",
            f"meta/episodes describes {len(numbers)} episodes ({in_episodes(numbers)}); "
            f"the rows have {found['total_episodes']}.",
            AGAIN,
        )
    if wrong := wrong_lengths(recording):
        yield recording.finding(
            "counts",
            "error",
            f"meta/episodes has another length than the rows for {in_episodes(wrong)}.",
            REPAIR,
            wrong,
        )


def wrong_lengths(recording: Recording) -> list[int]:
    """Episodes whose length, first or last index in the metadata are not those of the rows."""
    rows = recording.lengths
    starts = {each.episode: each.start for each in reversed(recording.stretches)}
    return [
        span.episode
        for span in recording.spans
        if span.episode in rows
        and (span.length, span.start, span.end - span.start)
        != (rows[span.episode], starts[span.episode], rows[span.episode])
    ]


def check_files(recording: Recording) -> Iterator[Finding]:
    """Every file that the metadata names is there."""
    named: dict[str, list[int]] = {}
    for span in recording.spans:
        for file in (span.data, *(clip.file for clip in span.clips.values())):
            named.setdefault(str(file), []).append(span.episode)
    missing = [file for file in named if not (recording.root / file).is_file()]
    if missing:
        episodes = sorted({episode for file in missing for episode in named[file]})
        yield recording.finding(
            "missing-file",
            "error",
            f"{shortened(missing)} missing, of {in_episodes(episodes)}.",
            AGAIN,
            episodes,
        )


def check_indices(recording: Recording) -> Iterator[Finding]:
    """index, frame_index and episode_index count up by one, each episode's frames from 0."""
    columns, stretches = recording.columns, recording.stretches
    numbers = [stretch.episode for stretch in stretches]
    if numbers != list(range(len(numbers))):
        odd = [each for place, each in enumerate(numbers) if each != place]
        yield recording.finding(
            "indices",
            "error",
            f"episode_index does not count up from 0 without gaps, first at {odd[0]}.",
            REPAIR,
        )
    for name, values, expected in (
        ("index", columns.indices, np.arange(len(columns))),
        ("frame_index", columns.frame_indices, places(recording)),
    ):
        wrong = np.flatnonzero(values != expected)
        if len(wrong):
            episodes = np.unique(columns.episode_indices[wrong]).tolist()
            yield recording.finding(
                "indices",
                "error",
                f"{name} does not count up by one in {in_episodes(episodes)}: row {wrong[0]} has "
                f"{values[wrong[0]]} instead of {expected[wrong[0]]}.",
                REPAIR,
                episodes,
            )


def places(recording: Recording) -> NDArray[np.int64]:
    """(frames,): each row's place in its episode, from 0."""
    return np.concatenate([np.arange(len(stretch)) for stretch in recording.stretches])


def check_tasks(recording: Recording) -> Iterator[Finding]:
    """Every frame has an instruction."""
    columns = recording.columns
    used = np.unique(columns.task_indices).tolist()
    if lost := [number for number in used if number not in recording.tasks]:
        episodes = np.unique(columns.episode_indices[np.isin(columns.task_indices, lost)]).tolist()
        yield recording.finding(
            "missing-task",
            "error",
            f"{in_episodes(episodes)}: meta/tasks.parquet has no task {shortened(lost)}.",
            "Add the instruction to meta/tasks.parquet.",
            episodes,
        )
    blank = [n for n in used if n in recording.tasks and not recording.tasks[n].strip()]
    if blank:
        rows = np.isin(columns.task_indices, blank)
        episodes = np.unique(columns.episode_indices[rows]).tolist()
        yield recording.finding(
            "blank-instruction",
            "warning",
            f"the instruction of {in_episodes(episodes)} is blank.",
            "Write what the arm does: lerobot-edit-dataset --operation.type modify_tasks.",
            episodes,
        )


def check_short(recording: Recording) -> Iterator[Finding]:
    """No episode of a single frame."""
    if short := [stretch.episode for stretch in recording.stretches if len(stretch) < 2]:
        yield recording.finding(
            "one-frame-episode",
            "warning",
            f"{in_episodes(short)}: a single frame, which shows no motion to learn.",
            "Delete: lerobot-edit-dataset --operation.type delete_episodes.",
            short,
        )
