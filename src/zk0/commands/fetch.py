"""`zk0 data fetch`: datasets brought here before a run needs them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer
from loguru import logger
from rich.console import Console
from rich.table import Table

from zk0.errors import Zk0Error

if TYPE_CHECKING:
    from zk0.data.sources import Source


@dataclass(frozen=True)
class Fetched:
    """A dataset that is here, as it came."""

    commit: str  # "" where it is not from the Hub
    version: str
    episodes: int
    frames: int
    size: int  # bytes
    state: str


def fetch(
    names: Annotated[
        list[str],
        typer.Argument(metavar="NAME...", help="Of federations, or sources of single datasets."),
    ],
) -> None:
    """Download the datasets of a named federation (so100-community, lerobot-so100), or single ones
    (hf:owner/name, hf:owner/name@revision, sim:NAME), and convert older formats. One that fails
    does not keep the others from being fetched."""
    sources = _sources(names)
    found: dict[Source, Fetched | None] = {}
    for number, source in enumerate(sources, 1):
        logger.info("{} of {}: {}", number, len(sources), source)
        try:
            found[source] = _fetch(source)
        except Zk0Error as error:
            found[source] = None
            logger.error("{}", error)
    Console().print(_table(found))
    if failed := list(found.values()).count(None):
        raise Zk0Error(f"{failed} of {len(sources)} datasets are not here; the reasons are above.")


def _sources(names: list[str]) -> "list[Source]":
    """All datasets that are named, each once; raises `Zk0Error` for a name that cannot be."""
    from zk0.data.presets import preset
    from zk0.data.sources import Source

    texts: list[str] = []
    for name in names:
        federation = {} if ":" in name else preset(name)
        texts += [entry["source"] for part in federation.values() for entry in part] or [name]
    return list(dict.fromkeys(Source.parse(text).whole for text in texts))


def _fetch(source: "Source") -> Fetched:
    from zk0.data import formats
    from zk0.data.sources import obtain

    found = obtain(source)
    folder, info = found.folder, formats.read_info(found.folder, str(source))
    converted = formats.ready(folder, str(source)) != folder
    return Fetched(
        commit=found.commit,
        version=info.version,
        episodes=info.episodes,
        frames=info.frames,
        size=sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
        state=f"converted to {formats.READ}" if converted else "ready",
    )


def _table(found: "dict[Source, Fetched | None]") -> Table:
    table = Table(box=None, header_style="bold")
    table.add_column("source", overflow="fold")
    for heading in ("commit", "format"):
        table.add_column(heading, no_wrap=True)
    for heading in ("episodes", "frames", "MB"):
        table.add_column(heading, no_wrap=True, justify="right")
    table.add_column("state", no_wrap=True)
    for source, each in found.items():
        table.add_row(str(source), *(_cells(each) if each else [""] * 5 + ["failed"]))
    return table


def _cells(found: Fetched) -> list[str]:
    counts = f"{found.episodes:,}", f"{found.frames:,}", f"{found.size / 1e6:,.1f}"
    return [found.commit[:8], found.version, *counts, found.state]
