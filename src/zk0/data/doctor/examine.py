"""All checks on a dataset, as thorough as there is time for."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from zk0.data.doctor.arm import check_constant, check_robot, check_units
from zk0.data.doctor.counts import (
    check_counts,
    check_files,
    check_indices,
    check_short,
    check_tasks,
)
from zk0.data.doctor.doubled import check_doubled
from zk0.data.doctor.duplicates import check_duplicates
from zk0.data.doctor.findings import Finding, by_severity
from zk0.data.doctor.licence import check_licence
from zk0.data.doctor.motion import check_finite, check_lag, check_outliers
from zk0.data.doctor.pictures import (
    Views,
    check_dark,
    check_decoded,
    check_doubled_pictures,
    check_frozen,
    check_same,
    check_swapped,
    every,
    look,
    sampled,
)
from zk0.data.doctor.reading import Unreadable, read
from zk0.data.doctor.recording import Recording
from zk0.data.doctor.statistics import check_statistics
from zk0.data.doctor.timing import check_clips, check_timestamps
from zk0.data.doctor.videos import Videos, check_cameras, check_tracks

Level = Literal["cheap", "quick", "thorough"]

Check = Callable[[Recording], Iterator[Finding]]

_ROWS: tuple[Check, ...] = (
    check_counts,
    check_files,
    check_indices,
    check_timestamps,
    check_clips,
    check_short,
    check_tasks,
    check_robot,
    check_units,
    check_constant,
    check_finite,
    check_outliers,
    check_lag,
    check_statistics,
    check_duplicates,
    check_licence,
    check_cameras,
)
_VIEWS: tuple[Callable[[Views], Iterator[Finding]], ...] = (
    check_decoded,
    check_dark,
    check_frozen,
    check_same,
    check_swapped,
    check_doubled_pictures,
)


def examine(root: Path, slug: str, level: Level = "quick") -> list[Finding]:
    """What is wrong with the dataset in folder `root`, errors first.

    "cheap" reads metadata and columns, "quick" also decodes a few frames of each episode and
    camera, "thorough" all of them. Raises `Zk0Error` where the folder is no LeRobotDataset; one
    that is broken has a finding that says so.
    """
    try:
        recording = read(root, slug)
    except Unreadable as broken:
        return [broken.finding]
    return examine_recording(recording, level)


@np.errstate(invalid="ignore", over="ignore")  # strange numbers become findings
def examine_recording(recording: Recording, level: Level = "quick") -> list[Finding]:
    """`examine`, of a dataset that has been read."""
    findings = [finding for check in _ROWS for finding in check(recording)]
    if level == "cheap":
        findings += check_doubled(recording)
    else:
        findings += _examine_videos(recording, level)
    return by_severity(findings)


def _examine_videos(recording: Recording, level: Level) -> Iterator[Finding]:
    videos = Videos(recording)
    yield from check_tracks(videos)
    places = every(recording) if level == "thorough" else sampled(recording)
    views = look(videos, places)
    for check in _VIEWS:
        yield from check(views)
