"""What the cameras show: pictures decoded, looked at as small ones."""

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path, PurePosixPath
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from zk0.data.doctor.doubled import check_doubled, doubled_rows
from zk0.data.doctor.duplicates import hashes
from zk0.data.doctor.findings import Finding, in_episodes
from zk0.data.doctor.recording import Recording, Stretch
from zk0.data.doctor.timing import TOLERANCE_S
from zk0.data.doctor.videos import Videos, undecodable
from zk0.progress import Advance, counting

SAMPLED = 3  # frames of an episode between its first and last
PAIRS = 6  # doubled rows of which the pictures are compared
WIDTH, HEIGHT = 32, 24  # of a small picture

_SAME = 4  # of 255, in every cell of two small pictures: what encoding one picture twice changes
_FLAT = 12  # of 255, over a picture of one colour with a sensor's noise
_MOVED = 0.1  # of a joint's range: what every camera ought to see
_STANDING_S = 1.0  # seconds of equal pictures that count as frozen
_WORKERS = 2

Places = Mapping[int, NDArray[np.int64]]  # by episode: which of its frames


@dataclass(frozen=True, eq=False)
class View:
    """Small pictures (frames, HEIGHT, WIDTH, 3) of the frames `places` of one episode."""

    places: NDArray[np.int64]
    pictures: NDArray[np.uint8]

    @property
    def equal(self) -> bool:
        """Whether all pictures equal the first one."""
        return bool((_difference(self.pictures, self.pictures[0]) <= _SAME).all())

    @property
    def flat(self) -> bool:
        """Whether every picture is of one colour."""
        cells = self.pictures.reshape(len(self.pictures), -1, 3).astype(int)
        return bool((np.ptp(cells, axis=1) <= _FLAT).all())


@dataclass(frozen=True, eq=False)
class Views:
    """What was decoded of a dataset, by camera and episode, and what could not be."""

    recording: Recording
    views: dict[tuple[str, int], View] = field(default_factory=dict)
    failures: dict[str, dict[int, str]] = field(default_factory=dict)

    def of(self, camera: str) -> Iterator[tuple[Stretch, View]]:
        stretches = {stretch.episode: stretch for stretch in self.recording.stretches}
        for stretch in stretches.values():
            if (view := self.views.get((camera, stretch.episode))) is not None:
                yield stretch, view


def sampled(recording: Recording) -> Places:
    """The first, the last and a few random frames of each episode; the same ones each time.

    Also pairs of rows that seem to be written twice.
    """
    pairs = doubled_rows(recording)[:: max(1, len(doubled_rows(recording)) // PAIRS)][:PAIRS]
    doubled = np.concatenate([pairs - 1, pairs])
    seeds = hashes(recording)
    places = {}
    for stretch in recording.stretches:
        random = np.random.default_rng(int(seeds[stretch.episode][:16], 16))
        inner = random.integers(0, len(stretch), SAMPLED)
        own = doubled[(doubled >= stretch.start) & (doubled < stretch.stop)] - stretch.start
        places[stretch.episode] = np.unique(np.concatenate([[0, len(stretch) - 1], inner, own]))
    return places


def every(recording: Recording) -> Places:
    """All frames."""
    return {stretch.episode: np.arange(len(stretch)) for stretch in recording.stretches}


def look(videos: Videos, places: Places) -> Views:
    """Decode the frames `places`; those that metadata or packets lack are not asked for."""
    views = Views(videos.recording)
    jobs = list(_jobs(videos, places))
    total = sum(len(job.wanted) for job in jobs)
    what = f"{videos.recording.slug}: episodes decoded"
    with counting(total, what) as advance, ThreadPoolExecutor(_WORKERS) as pool:
        done = pool.map(lambda job: _decode(job, advance), jobs)
        for job, (found, failures) in zip(jobs, done, strict=True):
            for episode, view in found.items():
                views.views[job.camera, episode] = view
            views.failures.setdefault(job.camera, {}).update(failures)
    return views


@dataclass(frozen=True, eq=False)
class _Job:
    """A video file, and by episode the frames to decode: their places and times in the file."""

    camera: str
    path: Path
    wanted: dict[int, tuple[NDArray[np.int64], NDArray[np.float64]]]


def _jobs(videos: Videos, places: Places) -> Iterator[_Job]:
    recording = videos.recording
    for camera in recording.cameras:
        jobs: dict[PurePosixPath, _Job] = {}
        for span in recording.spans:
            file = span.clips[camera].file
            track = videos.track(file)
            if track is None or span.episode not in places:
                continue
            chosen = places[span.episode]
            times = videos.times(span.episode, camera)[chosen]
            there = ~track.missing(times)
            job = jobs.setdefault(file, _Job(camera, recording.root / file, {}))
            if there.any():
                job.wanted[span.episode] = chosen[there], times[there]
        yield from jobs.values()


def _decode(job: _Job, advance: Advance) -> tuple[dict[int, View], dict[int, str]]:
    """Each episode's view, or why it has none."""
    views, failures = {}, {}
    for episode, (places, times) in job.wanted.items():
        try:
            parts = [_pass(job.path, times[part]) for part in _passes(places)]
            views[episode] = View(places, np.concatenate(parts))
        except (av.FFmpegError, OSError, ValueError) as error:
            failures[episode] = str(getattr(error, "strerror", None) or error)
        advance(1)
    return views, failures


def _passes(places: NDArray[np.int64]) -> list[NDArray[np.intp]]:
    """Which of `places` to decode in one go: those that follow each other closely."""
    return np.split(np.arange(len(places)), np.flatnonzero(np.diff(places) > 2) + 1)


def _pass(path: Path, times: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Small pictures (times, HEIGHT, WIDTH, 3), decoded on from the key frame before the first.

    Raises `ValueError` or FFmpeg's errors where one of them cannot be had.
    """
    found: list[NDArray[np.uint8]] = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1  # more would decode ahead what nobody asked for
        base = float(stream.time_base or 0)
        container.seek(round(times[0] / base), stream=stream)
        for frame in container.decode(stream):
            due = times[len(found)]
            when = float(frame.pts or 0) * base
            if when >= due + TOLERANCE_S:
                break
            if when > due - TOLERANCE_S:
                found.append(_small(frame))
            if len(found) == len(times):
                return np.stack(found)
    raise ValueError(f"no picture at {times[len(found)]:.3f} s")


def _small(frame: Any) -> NDArray[np.uint8]:
    if frame.is_corrupt:
        raise ValueError(f"damaged at {frame.time:.3f} s")
    small = frame.reformat(width=WIDTH, height=HEIGHT, format="rgb24", interpolation="AREA")
    return np.asarray(small.to_ndarray())


def check_decoded(views: Views) -> Iterator[Finding]:
    """Every frame that was asked for could be decoded."""
    for camera, failures in views.failures.items():
        if failures:
            why = next(iter(failures.values()))
            yield undecodable(views.recording, camera, sorted(failures), why)


def check_dark(views: Views) -> Iterator[Finding]:
    """No camera shows one colour alone through an episode."""
    for camera in views.recording.cameras:
        flat = [stretch.episode for stretch, view in views.of(camera) if view.flat]
        if flat:
            yield views.recording.finding(
                "black-camera",
                "error",
                f"{camera} is black or of a single colour in {in_episodes(flat)}.",
                "Check lens cap, cable and exposure; delete the episodes.",
                flat,
            )


def check_frozen(views: Views) -> Iterator[Finding]:
    """No camera shows the same picture while the arm moves."""
    for camera in views.recording.cameras:
        frozen = [
            stretch.episode
            for stretch, view in views.of(camera)
            if not view.flat and _stands(views.recording, stretch, view)
        ]
        if frozen:
            yield views.recording.finding(
                "frozen-camera",
                "error",
                f"{camera} shows the same picture while the arm moves in {in_episodes(frozen)}.",
                "Check the camera's cable and driver; delete the episodes.",
                frozen,
            )


def _stands(recording: Recording, stretch: Stretch, view: View) -> bool:
    """Whether all pictures are equal, or those of a second in a row, while the arm moves."""
    if view.equal:
        return travelled(recording, stretch, view.places) > _MOVED
    if len(view.places) < len(stretch):
        return False
    same = _difference(view.pictures[1:], view.pictures[:-1]) <= _SAME
    edges = np.flatnonzero(np.diff(same.astype(np.int8), prepend=0, append=0))
    for start, stop in edges.reshape(-1, 2):
        held = View(view.places[start : stop + 1], view.pictures[start : stop + 1])
        long = (stop - start) / recording.fps >= _STANDING_S
        if long and held.equal and travelled(recording, stretch, held.places) > _MOVED:
            return True
    return False


def travelled(recording: Recording, stretch: Stretch, places: NDArray[np.int64]) -> float:
    """How far the arm moved between these frames, as a share of the most mobile joint's range."""
    states = recording.columns.states
    moved = np.ptp(states[stretch.start + places], axis=0)
    return float(moved.max() / max(float(np.ptp(states, axis=0).max()), 1e-6))


def check_same(views: Views) -> Iterator[Finding]:
    """No two cameras show the same picture."""
    for one, other in combinations(views.recording.cameras, 2):
        same = [
            stretch.episode
            for stretch, view in views.of(one)
            if (second := views.views.get((other, stretch.episode))) is not None
            and not view.flat
            and _alike(view, second)
        ]
        if same:
            yield views.recording.finding(
                "same-camera",
                "error",
                f"{one} and {other} show the same picture in {in_episodes(same)}.",
                "Check which device each camera is given; record again, or remove one of the two.",
                same,
            )


def _alike(one: View, other: View) -> bool:
    _, mine, yours = np.intersect1d(one.places, other.places, return_indices=True)
    difference = _difference(one.pictures[mine], other.pictures[yours])
    return bool(len(mine) and (difference <= 2 * _SAME).all())


def check_swapped(views: Views) -> Iterator[Finding]:
    """Two cameras look like each other's statistics in meta/stats.json, not like their own."""
    seen = {camera: _mean(view for _, view in views.of(camera)) for camera in _colours(views)}
    told = _colours(views)
    for one, other in combinations(sorted(told), 2):
        own = min(_apart(seen[each], told[each]) for each in (one, other))
        crossed = max(_apart(seen[one], told[other]), _apart(seen[other], told[one]))
        if own > 3 * crossed and own > 0.02:
            yield views.recording.finding(
                "swapped-cameras",
                "warning",
                f"{one} has the colours that meta/stats.json gives {other}, and the other way.",
                "Exchange their videos, or compute the statistics anew.",
            )


def _colours(views: Views) -> dict[str, NDArray[np.float64]]:
    """The mean colour (3,) of each camera, 0 to 1, according to meta/stats.json."""
    found: dict[str, NDArray[np.float64]] = {}
    for camera in views.recording.cameras:
        told = (views.recording.statistics or {}).get(camera)
        mean = told.get("mean") if isinstance(told, dict) else None
        try:
            colour = np.asarray(mean, np.float64).reshape(-1)
        except (TypeError, ValueError):
            continue
        if colour.shape == (3,) and any(True for _ in views.of(camera)):
            found[camera] = colour
    return found


def _mean(views: Iterable[View]) -> NDArray[np.float64]:
    return np.stack([view.pictures.mean((0, 1, 2)) for view in views]).mean(0) / 255


def _apart(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    return float(np.abs(one - other).max())


def check_doubled_pictures(views: Views) -> Iterator[Finding]:
    """`check_doubled`, and whether the pictures repeat too."""
    for finding in check_doubled(views.recording):
        same, compared = _repeated(views)
        told = f" Their pictures repeat in {same} of {compared} compared." if compared else ""
        yield replace(finding, message=finding.message + told)


def _repeated(views: Views) -> tuple[int, int]:
    """Of the doubled rows whose pictures were decoded: how many repeat theirs, and how many."""
    rows = doubled_rows(views.recording)
    pairs = [
        pair
        for camera in views.recording.cameras
        for stretch, view in views.of(camera)
        for pair in _pairs(view, rows - stretch.start)
    ]
    return sum(bool(_difference(*pair) <= _SAME) for pair in pairs), len(pairs)


def _pairs(
    view: View, places: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """The pictures of each of `places` and of the one before, where both are in the view."""
    where = {int(place): number for number, place in enumerate(view.places)}
    for place in places.tolist():
        if place in where and place - 1 in where:
            yield view.pictures[where[place - 1]], view.pictures[where[place]]


def _difference(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.int16]:
    """The largest difference of any cell, (frames,) or a number."""
    cells = np.abs(one.astype(np.int16) - other.astype(np.int16))
    return np.asarray(cells.max((-3, -2, -1)))
