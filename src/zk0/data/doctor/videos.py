"""Whether the video files are what the metadata says, without decoding them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from zk0.data.doctor.counts import AGAIN
from zk0.data.doctor.findings import Finding, in_episodes
from zk0.data.doctor.recording import Recording
from zk0.data.doctor.timing import TOLERANCE_S

_RATE = 1e-2  # frames per second by which a stream's rate may differ


@dataclass(frozen=True, eq=False)
class Track:
    """A video file's pictures: their size, nominal rate, and times in seconds, sorted."""

    width: int
    height: int
    rate: float
    times: NDArray[np.float64]

    def missing(self, wanted: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Where no picture lies within lerobot's tolerance of the `wanted` times."""
        if not len(self.times):
            return np.ones(len(wanted), bool)
        place = np.searchsorted(self.times, wanted).clip(1, max(1, len(self.times) - 1))
        near = np.stack([self.times[place - 1], self.times[np.minimum(place, len(self.times) - 1)]])
        return np.logical_not(np.abs(near - wanted).min(0) < TOLERANCE_S)


@dataclass(frozen=True, eq=False)
class Videos:
    """The video files of a dataset as far as they can be opened."""

    recording: Recording

    @cached_property
    def opened(self) -> dict[PurePosixPath, Track | str]:
        """Each file's track, or why there is none; files that are missing are left out."""
        files = {clip.file for span in self.recording.spans for clip in span.clips.values()}
        present = sorted(file for file in files if (self.recording.root / file).is_file())
        return {file: read_track(self.recording.root / file) for file in present}

    def track(self, file: PurePosixPath) -> Track | None:
        found = self.opened.get(file)
        return found if isinstance(found, Track) else None

    def times(self, episode: int, camera: str) -> NDArray[np.float64]:
        """When, in its file, the pictures of an episode's rows are due."""
        span = next(span for span in self.recording.spans if span.episode == episode)
        frames = np.arange(self.recording.lengths.get(episode, 0))
        return span.clips[camera].start + frames / self.recording.fps


def read_track(path: Path) -> Track | str:
    """The video at `path` by its packets, which are counted and not decoded; else what is wrong."""
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                return "there is no video in it"
            stream = container.streams.video[0]
            pts = [each.pts for each in container.demux(stream) if each.pts is not None]
            times = np.sort(np.array(pts, np.float64)) * float(stream.time_base or 0)
            return Track(stream.width, stream.height, float(stream.average_rate or 0), times)
    except (av.FFmpegError, OSError, ValueError) as error:
        return str(getattr(error, "strerror", None) or error)


def check_cameras(recording: Recording) -> Iterator[Finding]:
    """There are videos at all."""
    if not recording.cameras:
        yield recording.finding(
            "no-videos",
            "error",
            "there is no video; zk0 reads cameras from mp4.",
            "Record with cameras, or convert images: lerobot-edit-dataset "
            "--operation.type convert_image_to_video.",
        )


def check_tracks(videos: Videos) -> Iterator[Finding]:
    """Each file opens, and has the size, rate and pictures that metadata and rows ask for."""
    recording = videos.recording
    for camera in recording.cameras:
        files: dict[PurePosixPath, list[int]] = {}
        for span in recording.spans:
            files.setdefault(span.clips[camera].file, []).append(span.episode)
        for file, episodes in files.items():
            found = videos.opened.get(file)
            if isinstance(found, str):
                yield undecodable(recording, camera, episodes, found)
            elif found is not None:
                yield from _check_stream(recording, camera, file, found)
                yield from _check_frames(videos, camera, found, episodes)


def undecodable(recording: Recording, camera: str, episodes: list[int], why: str) -> Finding:
    return recording.finding(
        "video-undecodable",
        "error",
        f"{camera}: the video of {in_episodes(episodes)} cannot be decoded ({why}).",
        AGAIN + " Else record the episodes again.",
        episodes,
    )


def _check_stream(
    recording: Recording, camera: str, file: PurePosixPath, track: Track
) -> Iterator[Finding]:
    size = _size(recording.features[camera])
    if size is not None and size != (track.height, track.width):
        yield recording.finding(
            "video-size",
            "error",
            f"{file} is {track.width}x{track.height}, where meta/info.json says "
            f"{size[1]}x{size[0]}.",
            "Check whether cameras were exchanged; correct meta/info.json or encode again.",
        )
    if abs(track.rate - recording.fps) > _RATE:
        yield recording.finding(
            "video-fps",
            "error",
            f"{file} has {track.rate:g} frames/s, where meta/info.json says {recording.fps:g}.",
            "Encode the video again at the dataset's rate, or correct fps.",
        )


def _check_frames(
    videos: Videos, camera: str, track: Track, episodes: list[int]
) -> Iterator[Finding]:
    recording = videos.recording
    lost = {
        episode: int(track.missing(videos.times(episode, camera)).sum()) for episode in episodes
    }
    if short := [episode for episode, count in lost.items() if count]:
        yield recording.finding(
            "video-frames",
            "error",
            f"{camera}: {sum(lost.values())} frames of {in_episodes(short)} are not in the video, "
            f"which has {len(track.times)} frames for "
            f"{sum(recording.lengths.get(episode, 0) for episode in episodes)} rows.",
            AGAIN + " Else delete the episodes.",
            short,
        )


def _size(feature: Mapping[str, Any]) -> tuple[int, int] | None:
    """(height, width) as info.json says it; None where it does not."""
    shape, names = feature.get("shape"), feature.get("names")
    if not isinstance(shape, list) or len(shape) != 3:
        return None
    if not isinstance(names, list) or not {"height", "width"} <= set(map(str, names)):
        names = (
            ["channels", "height", "width"] if shape[0] == 3 else ["height", "width", "channels"]
        )
    if len(names) != 3 or not all(isinstance(each, int) for each in shape):
        return None
    return shape[names.index("height")], shape[names.index("width")]
