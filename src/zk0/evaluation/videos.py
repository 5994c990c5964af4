"""What a folder of videos and rollouts shows, by round, model, kind and task.

Success comes from the JSON beside a video and from `rollouts.json`, never from pixels. A video that
has a problem does not count; its episode still does where `rollouts.json` has it.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from zk0.errors import Zk0Error
from zk0.record.evidence import ROLLOUTS, Rollout, load_rollouts
from zk0.record.videos import VIDEOS, Kind, VideoFacts, facts_path, load_facts


@dataclass(frozen=True, order=True)
class Group:
    """What is tabulated together."""

    round: int
    who: str  # "server" or "client_0"
    kind: Kind
    task: str


@dataclass(frozen=True)
class Row:
    """A group's episodes; a mean is None where there is nothing to take it over."""

    group: Group
    videos: int
    episodes: int  # filmed or not
    judged: int  # episodes of which it is known whether they succeeded
    successes: int
    completion_seconds: float | None  # mean simulated time of the successful ones
    smoothness: float | None  # mean, degrees / s^2
    policy_loss: float | None  # mean over those that have one


@dataclass(frozen=True)
class Analysis:
    """Rows in the order of their groups, and what is wrong: each a line that names the file."""

    rows: tuple[Row, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True)
class _Episode:
    group: Group
    identity: tuple[int | None, int | None] | Path  # seed and recorded episode, or its only video
    source: Path
    filmed: bool
    success: bool | None
    seconds: float
    smoothness: float
    policy_loss: float | None


def analyze(folder: Path) -> Analysis:
    """Everything that is below `folder`: a run's, or any part of one.

    Raises `Zk0Error` where there is nothing to analyze, or more than one run.
    """
    if not folder.is_dir():
        raise Zk0Error(f"{folder} is not a folder. Name a run's folder, or a part of it.")
    folder = folder.resolve()
    videos = {*folder.rglob(VIDEOS)}
    videos |= {file.with_suffix(".mp4") for file in folder.rglob(facts_path(Path(VIDEOS)).name)}
    tables = sorted(folder.rglob(ROLLOUTS))
    if not videos and not tables:
        raise Zk0Error(f"{folder}: neither videos ({VIDEOS}) nor {ROLLOUTS} are below it.")
    _check_one_run([*videos, *tables])
    filmed, problems = _read_videos(sorted(videos))
    played, more_problems = _read_tables(tables, filmed)
    episodes, contradictions = _merge([*filmed, *played])
    lines = [*problems, *more_problems, *contradictions]
    return Analysis(_rows(episodes), tuple(line.replace(f"{folder}/", "") for line in lines))


def _check_one_run(files: Iterable[Path]) -> None:
    """Rounds of two runs would be taken for one."""
    places = [_place(file) for file in files]
    runs = sorted({place[0] for place in places if place})
    if len(runs) > 1:
        raise Zk0Error(f"{runs[0]} and {runs[1]} are of different runs. Name one run's folder.")


def _place(file: Path) -> tuple[Path, int, str] | None:
    """The folder of all rounds, the round and the model, where `file` is in round_N/<who>."""
    for folder in file.parents:
        found = re.fullmatch(r"round_(\d+)", folder.parent.name)
        if found:
            return folder.parent.parent, int(found[1]), folder.name
    return None


# --- reading --------------------------------------------------------------------------------


def _read_videos(videos: Sequence[Path]) -> tuple[list[_Episode], list[str]]:
    """The sound videos' episodes, and what is wrong with the others."""
    episodes, problems = [], []
    for video in videos:
        try:
            facts = _facts(video)
            _check_pictures(video, facts.frames)
        except Zk0Error as error:
            problems.append(str(error))
        else:
            episodes.append(_filmed(video, facts))
    return episodes, problems


def _facts(video: Path) -> VideoFacts:
    if not video.exists():
        raise Zk0Error(f"{facts_path(video)}: no video beside it")
    if not facts_path(video).exists():
        raise Zk0Error(f"{video}: no JSON beside it")
    return load_facts(video)


def _check_pictures(video: Path, frames: int) -> None:
    """The first picture has to decode, and as many as the JSON says have to be there."""
    import av

    try:
        with av.open(str(video)) as container:
            if not container.streams.video:
                raise Zk0Error(f"{video}: not a video")
            next(container.decode(video=0))
            container.seek(0)
            packets = [p for p in container.demux(video=0) if p.size and not p.is_corrupt]
    except (OSError, av.FFmpegError, StopIteration) as error:
        what = f"{video.stat().st_size} bytes"
        reason = getattr(error, "strerror", None) or "no picture in it"
        raise Zk0Error(f"{video}: cannot be decoded ({what}): {reason}") from error
    if len(packets) != frames:
        raise Zk0Error(f"{video}: {len(packets)} whole frames, but its JSON says {frames}")


def _filmed(video: Path, facts: VideoFacts) -> _Episode:
    known = facts.seed is not None or facts.episode is not None
    return _Episode(
        Group(facts.round, facts.who, facts.kind, facts.task),
        (facts.seed, facts.episode) if known else video,
        video,
        True,
        facts.success,
        facts.seconds,
        facts.smoothness,
        facts.policy_loss,
    )


def _read_tables(
    tables: Sequence[Path], filmed: Sequence[_Episode]
) -> tuple[list[_Episode], list[str]]:
    """The episodes of every `rollouts.json`, and what is wrong with those that cannot be used."""
    episodes, problems = [], []
    for table in tables:
        try:
            origin = _origin(table, filmed)
            episodes += [_played(table, *origin, each) for each in load_rollouts(table.parent)]
        except Zk0Error as error:
            problems.append(str(error))
    return episodes, problems


def _origin(table: Path, filmed: Sequence[_Episode]) -> tuple[int, str]:
    """Round and model: by the folder's name, else by the videos in it."""
    place = _place(table)
    if place:
        return place[1:]
    beside = [each.group for each in filmed if each.source.parent == table.parent]
    origins = {(group.round, group.who) for group in beside}
    if len(origins) != 1:
        raise Zk0Error(f"{table}: of which round and model is not known; expected in round_N/<who>")
    return origins.pop()


def _played(table: Path, server_round: int, who: str, rollout: Rollout) -> _Episode:
    group = Group(server_round, who, "rollout", rollout.task)
    identity, success = (rollout.seed, None), rollout.success
    measured = rollout.seconds, rollout.smoothness
    return _Episode(group, identity, table, False, success, *measured, None)


# --- tabulating -----------------------------------------------------------------------------


def _merge(episodes: Iterable[_Episode]) -> tuple[list[list[_Episode]], list[str]]:
    """What tells of the same episode together, filmed first; and where it differs on success."""
    by_identity = defaultdict(list)
    for each in episodes:
        by_identity[each.group, each.identity].append(each)
    problems = [
        f"{first.source} and {other.source} differ on whether {_spoken(first)} succeeded"
        for first, *others in by_identity.values()
        for other in others
        if other.success != first.success
    ]
    return list(by_identity.values()), problems


def _spoken(episode: _Episode) -> str:
    return f"{episode.group.task} (seed, episode: {episode.identity})"


def _rows(episodes: Iterable[Sequence[_Episode]]) -> tuple[Row, ...]:
    by_group = defaultdict(list)
    for sources in episodes:
        by_group[sources[0].group].append(sources)
    return tuple(_row(group, by_group[group]) for group in sorted(by_group))


def _row(group: Group, episodes: Sequence[Sequence[_Episode]]) -> Row:
    each = [sources[0] for sources in episodes]
    succeeded = [one for one in each if one.success]
    return Row(
        group,
        videos=sum(source.filmed for sources in episodes for source in sources),
        episodes=len(each),
        judged=sum(one.success is not None for one in each),
        successes=len(succeeded),
        completion_seconds=_mean([one.seconds for one in succeeded]),
        smoothness=_mean([one.smoothness for one in each]),
        policy_loss=_mean([one.policy_loss for one in each if one.policy_loss is not None]),
    )


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
