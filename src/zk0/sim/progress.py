"""How the making of datasets is shown: bars on a terminal, else lines."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from zk0.sim.recipes import Recipe


class Progress(Protocol):
    def note(self, line: str) -> None: ...

    def started(self, recipe: Recipe) -> None: ...

    def advanced(self, recipe: Recipe, episode: int) -> None: ...

    def finished(self, recipe: Recipe, frames: int, seconds: float) -> None: ...


@contextmanager
def progress(report: Callable[[str], None] | None) -> Iterator[Progress]:
    """Lines to `report` where given, else bars on a terminal, else lines on standard error."""
    if report is not None:
        yield Lines(report)
    elif sys.stderr.isatty():
        with Bars() as bars:
            yield bars
    else:
        yield Lines(lambda line: print(line, file=sys.stderr, flush=True))


class Lines:
    """A line at the start and the end of each dataset."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self.note = report

    def started(self, recipe: Recipe) -> None:
        self.note(f"dataset '{recipe.name}': making {recipe.episodes} episodes")

    def advanced(self, recipe: Recipe, episode: int) -> None:
        """Lines say nothing in between."""

    def finished(self, recipe: Recipe, frames: int, seconds: float) -> None:
        self.note(f"dataset '{recipe.name}': {frames} frames in {seconds:.1f} s")


class Bars:
    """A bar for each dataset, counting episodes."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as RichProgress

        self._bars = RichProgress(
            TextColumn("{task.description:<14}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("episodes"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
        )
        self._tasks: dict[str, Any] = {}

    def note(self, line: str) -> None:
        self._bars.console.print(line, markup=False, highlight=False)

    def started(self, recipe: Recipe) -> None:
        self._tasks[recipe.name] = self._bars.add_task(recipe.name, total=recipe.episodes)

    def advanced(self, recipe: Recipe, episode: int) -> None:
        self._bars.update(self._tasks[recipe.name], completed=episode)

    def finished(self, recipe: Recipe, frames: int, seconds: float) -> None:
        if recipe.name not in self._tasks:  # another process made it
            self.started(recipe)
        self.advanced(recipe, recipe.episodes)

    def __enter__(self) -> "Bars":
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()
