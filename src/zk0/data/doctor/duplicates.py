"""The same episode twice, within a dataset or in two."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from zk0.data.doctor.findings import Finding, in_episodes
from zk0.data.doctor.reading import read
from zk0.data.doctor.recording import Recording


def episode_hashes(root: Path, slug: str) -> dict[int, str]:
    """SHA-256 over each episode's float32 states and actions, whatever its number.

    Raises `Zk0Error` where the dataset cannot be read.
    """
    return hashes(read(root, slug))


def hashes(recording: Recording) -> dict[int, str]:
    """`episode_hashes` of a dataset that has been read."""
    columns = recording.columns
    found = {}
    for stretch in recording.stretches:
        digest = hashlib.sha256(str(columns.states[stretch.rows].shape).encode())
        for values in (columns.states, columns.actions):
            digest.update(values[stretch.rows].astype("<f4").tobytes())
        found[stretch.episode] = digest.hexdigest()
    return found


def check_duplicates(recording: Recording) -> Iterator[Finding]:
    """No episode is there twice."""
    groups = defaultdict(list)
    for episode, digest in hashes(recording).items():
        groups[digest].append(episode)
    for group in groups.values():
        if len(group) > 1:
            yield recording.finding(
                "duplicate-episodes",
                "warning",
                f"{in_episodes(group)} have the same states and actions.",
                "Keep one: the same episode may be trained on and evaluated with.",
                group,
            )


def compare(datasets: Mapping[str, Path]) -> list[Finding]:
    """Episodes that two of `datasets`, by slug, share.

    Raises `Zk0Error` where one of them cannot be read.
    """
    return list(shared({slug: read(root, slug) for slug, root in datasets.items()}.values()))


def shared(recordings: Iterable[Recording]) -> Iterator[Finding]:
    """`compare`, of datasets that have been read."""
    seen: dict[str, Recording] = {}
    for recording in recordings:
        own = hashes(recording)
        both = defaultdict(list)
        for episode, digest in own.items():
            if digest in seen:
                both[seen[digest].slug].append(episode)
        for slug, episodes in both.items():
            yield recording.finding(
                "shared-episodes",
                "warning",
                f"{in_episodes(episodes)} also in {slug}.",
                "Remove them from one of the two, above all where one evaluates the other.",
                episodes,
            )
        for digest in own.values():
            seen.setdefault(digest, recording)
