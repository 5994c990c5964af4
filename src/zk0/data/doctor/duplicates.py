"""The same episode twice, within a dataset or in two."""

from collections import defaultdict
from collections.abc import Iterable, Iterator

from zk0.data.doctor.findings import Finding, in_episodes
from zk0.data.doctor.recording import Recording
from zk0.data.fingerprint import hash_episode


def hashes(recording: Recording) -> dict[int, str]:
    """`hash_episode` of each episode, by its number."""
    columns = recording.columns
    return {
        stretch.episode: hash_episode(columns.states[stretch.rows], columns.actions[stretch.rows])
        for stretch in recording.stretches
    }


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


def shared(recordings: Iterable[Recording]) -> Iterator[Finding]:
    """Episodes that two of these datasets share."""
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
