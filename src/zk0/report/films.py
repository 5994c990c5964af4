"""The videos of a run, by round and by whose policy acts, with their facts."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from urllib.parse import quote

from pydantic import TypeAdapter, ValidationError

from zk0.record.evidence import SERVER
from zk0.record.videos import VIDEOS, VideoFacts, facts_path

FACTS = TypeAdapter(VideoFacts)
KINDS: dict[str | None, str] = {
    "rollout": "rollouts in the simulator",
    "open-loop": "predicted against recorded actions",
}


@dataclass(frozen=True)
class Film:
    """One video."""

    round: int
    who: str
    source: str  # relative to the run's folder, as a URL
    facts: VideoFacts | None
    problem: str = ""  # why there are no facts

    @property
    def title(self) -> str:
        name = self.facts.task if self.facts else self.source.rpartition("/")[2]
        return name if self.who == SERVER else f"{self.who.replace('_', ' ')}: {name}"

    @property
    def outcome(self) -> str:
        if self.facts is None or self.facts.success is None:
            return ""
        return "success" if self.facts.success else "no success"

    @property
    def details(self) -> list[tuple[str, str]]:
        """What is known beside the picture."""
        facts = self.facts
        if facts is None:
            return [("facts", self.problem)]
        joints = facts.action_error or {}
        known = [
            ("seed", facts.seed),
            ("episode", facts.episode),
            ("time", f"{facts.seconds:.1f} s"),
            ("policy loss", None if facts.policy_loss is None else f"{facts.policy_loss:.4f}"),
            ("smoothness", f"{facts.smoothness:.0f} °/s²"),
            ("action error", ", ".join(f"{_joint(n)} {v:.1f}" for n, v in joints.items()) or None),
        ]
        return [(name, str(value)) for name, value in known if value is not None]


@dataclass(frozen=True)
class Reel:
    """A round's videos on the server, or on its clients."""

    round: int
    who: str
    films: Sequence[Film]

    @property
    def kind(self) -> str:
        """What they show, in words; empty where it differs or is not known."""
        kinds = {each.facts.kind if each.facts else None for each in self.films}
        return KINDS.get(kinds.pop(), "") if len(kinds) == 1 else ""


def find_films(run: Path) -> list[Reel]:
    """Newest round first, the server before the clients."""
    videos = sorted(run.glob(f"evaluate/round_*/*/{VIDEOS}"))
    films = sorted((_film(run, video) for video in videos), key=_place)
    return [
        Reel(number, who, list(group))
        for (number, who), group in groupby(films, key=lambda film: (film.round, _side(film)))
    ]


def in_rounds(reels: Iterable[Reel]) -> list[tuple[int, list[Reel]]]:
    return [(number, list(group)) for number, group in groupby(reels, key=lambda reel: reel.round)]


def _side(film: Film) -> str:
    return SERVER if film.who == SERVER else "clients"


def _place(film: Film) -> tuple[int, int, str]:
    """The server first, then clients by their number."""
    number = film.who.rpartition("_")[2]
    return -film.round, int(number) if number.isdecimal() else -1, film.who


def _film(run: Path, video: Path) -> Film:
    folder = video.parent
    number = int(folder.parent.name.removeprefix("round_"))
    source = quote(video.relative_to(run).as_posix())
    try:
        facts = FACTS.validate_json(facts_path(video).read_bytes())
    except OSError as error:
        return Film(number, folder.name, source, None, f"not to be read: {error.strerror}")
    except ValidationError as error:
        return Film(number, folder.name, source, None, f"wrong: {error.errors()[0]['msg']}")
    return Film(number, folder.name, source, facts)


def _joint(name: str) -> str:
    return name.replace("_", " ")
