"""Whether time runs as the frame rate says."""

from collections.abc import Iterator

import numpy as np

from zk0.data.doctor.counts import REPAIR
from zk0.data.doctor.findings import Finding, Severity, in_episodes
from zk0.data.doctor.recording import Recording, Span

TOLERANCE_S = 1e-4  # lerobot's own between a timestamp and the video's frame
ROUNDING = 2.0**-23  # of a float32, relative


def check_timestamps(recording: Recording) -> Iterator[Finding]:
    """timestamp is frame_index / fps, and runs forward within an episode."""
    columns = recording.columns
    expected = columns.frame_indices / recording.fps
    off = np.abs(columns.timestamps - expected)
    wrong = ~(off <= TOLERANCE_S + ROUNDING * np.abs(expected))
    if wrong.any():
        row = int(np.argmax(np.where(np.isfinite(off), off, np.inf)))
        episodes = np.unique(columns.episode_indices[wrong]).tolist()
        yield recording.finding(
            "timestamps",
            "error",
            f"{int(wrong.sum())} timestamps of {in_episodes(episodes)} are not frame_index / fps, "
            f"by up to {off[row]:.4g} s in episode {columns.episode_indices[row]}.",
            REPAIR,
            episodes,
        )
    if backwards := _backwards(recording):
        yield recording.finding(
            "timestamps",
            "error",
            f"time does not run forward in {in_episodes(backwards)}.",
            REPAIR,
            backwards,
        )


def check_clips(recording: Recording) -> Iterator[Finding]:
    """An episode's part of each video is as long as its rows; a longer one does no harm."""
    for camera in recording.cameras:
        spare = {span.episode: _spare(recording, span, camera) for span in recording.spans}
        short = [episode for episode, frames in spare.items() if not frames > -0.5]
        long = [episode for episode, frames in spare.items() if frames >= 0.5]
        found: dict[Severity, list[int]] = {"error": short, "warning": long}
        for severity, wrong in found.items():
            if wrong:
                yield recording.finding(
                    "video-span",
                    severity,
                    f"{camera}: from_timestamp to to_timestamp of {in_episodes(wrong)} is "
                    f"{'shorter' if severity == 'error' else 'longer'} than the rows.",
                    "Download again, or record the episodes again.",
                    wrong,
                )


def _spare(recording: Recording, span: Span, camera: str) -> float:
    """By how many frames an episode's clip is longer than its rows."""
    clip = span.clips[camera]
    rows = recording.lengths.get(span.episode, span.length)
    return (clip.end - clip.start) * recording.fps - rows


def _backwards(recording: Recording) -> list[int]:
    return [
        stretch.episode
        for stretch in recording.stretches
        if (np.diff(recording.columns.timestamps[stretch.rows]) <= 0).any()
    ]
