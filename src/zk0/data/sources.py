"""Where a dataset comes from, `sim:NAME`, `local:/path` or `hf:owner/name`, and how it is read."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Literal, Self, cast

from zk0.errors import Zk0Error

Kind = Literal["sim", "local", "hf"]

FORMS = '"sim:NAME", "local:/path" and "hf:owner/name"'
PART = re.compile(r"#(\d+/\d+)$")
REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
REVISION = re.compile(r"[\w-][\w./-]*")


@dataclass(frozen=True)
class Source:
    """A dataset's origin. `name` is a recipe of the simulator, a folder, or a Hub repository.

    Written `hf:owner/name@revision#i/n` where a revision (a branch, tag or commit) is wanted and
    only the i-th of n shares of the episodes.
    """

    kind: Kind
    name: str
    revision: str = ""
    part: tuple[int, int] | None = None  # i of n, from 0 on
    cameras: tuple[tuple[str, str], ...] = ()  # recorded camera, the policy's name for it
    fps: int = 0  # frames a second to take; 0 takes those that were recorded

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `kind:name`; raises `Zk0Error` for anything else."""
        kind, separator, rest = text.partition(":")
        if not separator or kind not in ("sim", "local", "hf") or not rest:
            raise Zk0Error(f'dataset source "{text}" is none of {FORMS}.')
        found = PART.search(rest)
        name = rest[: found.start()] if found else rest
        part = parse_part(found[1]) if found else None
        revision = ""
        if kind == "hf":
            name, at, revision = name.partition("@")
            _check_repository(text, name, revision if at else None)
        return cls(cast(Kind, kind), name, revision, part)

    def read_as(self, part: str, cameras: Mapping[str, str], fps: int) -> Self:
        """The same with options given apart from it; raises `Zk0Error` where they do not fit."""
        if part and self.part:
            raise Zk0Error(f'partition = "{part}": {self} names its part already. Give it once.')
        chosen = parse_part(part) if part else self.part
        return replace(self, part=chosen, cameras=tuple(cameras.items()), fps=fps)

    @property
    def whole(self) -> Self:
        """The dataset, without a word on how it is read."""
        return replace(self, part=None, cameras=(), fps=0)

    @property
    def slug(self) -> str:
        """A short name for tables and files; of a local folder its last part, never the path."""
        last = Path(self.name).name if self.kind == "local" else self.name
        slug = re.sub(r"[^\w.-]+", "--", last).strip(".-") or self.kind
        return slug if self.part is None else f"{slug}-{self.part[0]}of{self.part[1]}"

    @property
    def key(self) -> str:
        """Equal for two sources exactly where they name the same dataset, in whatever revision."""
        name = str(Path(self.name).expanduser().resolve()) if self.kind == "local" else self.name
        return f"{self.kind}:{name.casefold() if self.kind == 'hf' else name}"

    def shares_with(self, other: "Source") -> bool:
        """Whether the two may have episodes in common."""
        if self.key != other.key:
            return False
        apart = self.part and other.part and self.part[1] == other.part[1]
        return not apart or self.part == other.part

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        part = f"#{self.part[0]}/{self.part[1]}" if self.part else ""
        return f"{self.kind}:{self.name}{revision}{part}"


def parse_part(text: str) -> tuple[int, int]:
    """`i/n` as a pair; raises `Zk0Error` unless 0 <= i < n."""
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if not found or not int(found[1]) < int(found[2]):
        raise Zk0Error(f'partition "{text}" has to be i/n with 0 <= i < n, such as 0/4.')
    return int(found[1]), int(found[2])


def find_shared(sources: Iterable[Source]) -> tuple[Source, Source] | None:
    """Two of them that may have episodes in common."""
    pairs = combinations(sources, 2)
    return next(((one, two) for one, two in pairs if one.shares_with(two)), None)


def _check_repository(text: str, name: str, revision: str | None) -> None:
    if not REPOSITORY.fullmatch(name) or ".." in name:
        raise Zk0Error(f'dataset source "{text}" has to name a Hub repository as hf:owner/name.')
    if revision is not None and (not REVISION.fullmatch(revision) or ".." in revision):
        raise Zk0Error(f'dataset source "{text}" has to name a revision after the @.')


# --- on this machine ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Located:
    """A dataset's folder here, and the commit it is of where it came from the Hub."""

    folder: Path
    commit: str = ""


def check(source: Source) -> None:
    """Raise `Zk0Error` where the source can be seen not to exist, without making or loading it."""
    if source.kind == "sim":
        from zk0.sim.recipes import recipe

        recipe(source.name)
    elif source.kind == "local":
        from zk0.data.formats import readable_format

        readable_format(_local_folder(source), source.slug)


def obtain(source: Source) -> Located:
    """The dataset as it comes: simulated ones are made, Hub ones downloaded, where need be. Raises
    `Zk0Error` where that fails."""
    if source.kind == "sim":
        from zk0.sim.demonstrations import prepare

        return Located(prepare([source.name])[source.name])
    if source.kind == "local":
        return Located(_local_folder(source))
    from zk0.data.hub import download

    snapshot = download(source.name, source.revision)
    return Located(snapshot.folder, snapshot.commit)


def locate(source: Source) -> Located:
    """`obtain`, with older formats converted where need be."""
    from zk0.data.formats import ready

    found = obtain(source)
    return replace(found, folder=ready(found.folder, source.slug))


def fetch(source: Source) -> Path:
    """The folder of `locate`."""
    return locate(source).folder


def _local_folder(source: Source) -> Path:
    folder = Path(source.name).expanduser()
    if not (folder / "meta" / "info.json").is_file():
        raise Zk0Error(f"{folder} is not a LeRobotDataset: it has no meta/info.json.")
    return folder
