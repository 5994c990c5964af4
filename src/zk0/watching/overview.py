"""All runs of a folder, a row each."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from rich.table import Table
from rich.text import Text

from zk0.errors import Zk0Error
from zk0.record.verdict import Judgement, judge
from zk0.watching import forms
from zk0.watching.about import About
from zk0.watching.events import Successes, seconds_between
from zk0.watching.follow import Watched
from zk0.watching.story import COMPOSITE, Story, change

STYLES: Mapping[str | None, str] = {"better": "green", "worse": "red"}
WIDE = 150  # columns from which a run fits into one line


@dataclass(frozen=True)
class Row:
    """A run; where its folder is broken, only `problem` says something."""

    name: str
    path: str
    problem: str | None = None
    kind: str | None = None
    trained_on: tuple[int, ...] = ()
    label: str | None = None  # the kind for a person: "local 2 push"
    strategy: str | None = None
    preset: str | None = None
    seed: int | None = None
    rounds: int = 0
    planned: int = 0
    state: Literal["finished", "failed", "unfinished", "broken"] = "broken"
    last_event_seconds_ago: float | None = None
    first_loss: float | None = None  # the server's composite
    last_loss: float | None = None
    change: float | None = None
    best_round: int | None = None
    seen: float | None = None  # mean success of the clients' tasks
    unseen: float | None = None  # and of the server's
    seconds: float = 0.0  # from the first event to the last, without breaks before a resumption
    verdict: Judgement | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def rows(root: Path, runs: Iterable[Path], now: datetime) -> list[Row]:
    return [_row(root, path, now) for path in runs]


def _row(root: Path, path: Path, now: datetime) -> Row:
    name, run = str(path.relative_to(root)), Watched(path)
    try:
        run.poll()
        if run.about is None and run.story.failure:
            raise Zk0Error(f"it failed before round 1: {run.story.failure}")
        if run.about is None:
            ago = forms.ago(run.began, now)
            raise Zk0Error(f"it has no config.json: it met no clients; made {ago}")
        return _summary(name, run, run.about, now)
    except Zk0Error as error:
        return Row(name, str(path), problem=_shortened(error, path))


def _shortened(error: Zk0Error, path: Path) -> str:
    """Without the folder, whose name stands in front of it."""
    return str(error).replace(f"{path}/", "").replace(f"{path} ", "it ").rstrip(".")


def _summary(name: str, run: Watched, about: About, now: datetime) -> Row:
    story, settings = run.story, about.settings
    curve = story.losses[COMPOSITE]
    played = story.latest_rollouts
    tasks = {} if played is None else played.tasks
    return Row(
        name,
        str(run.folder),
        kind=about.kind,
        trained_on=tuple(about.names),
        label=about.label,
        strategy=settings.strategy if about.kind == "federated" else None,
        preset=settings.preset,
        seed=settings.seed,
        rounds=story.finished,
        planned=about.planned,
        state=_state_of(story),
        last_event_seconds_ago=seconds_between(story.last or run.began, now),
        first_loss=curve.get(0),
        last_loss=curve[max(curve)] if curve else None,
        change=change(curve) if curve else None,
        best_round=min(curve, key=curve.__getitem__) if curve else None,
        seen=_mean(tasks, lambda task: not about.is_unseen(task)),
        unseen=_mean(tasks, about.is_unseen),
        seconds=story.seconds,
        verdict=judge(story.losses[COMPOSITE]),
    )


def _state_of(story: Story) -> Literal["finished", "failed", "unfinished"]:
    if story.failure is not None:
        return "failed"
    return "finished" if story.has_ended else "unfinished"


def _mean(tasks: Mapping[str, Successes], chosen: Callable[[str], bool]) -> float | None:
    """Mean success rate over the tasks."""
    rates = [each.successes / each.episodes for task, each in tasks.items() if chosen(task)]
    return sum(rates) / len(rates) if rates else None


# --- on the terminal ------------------------------------------------------------------------------


def table(found: Sequence[Row], width: int) -> Table:
    """A run in one line where `width` allows it, else in two."""
    return _wide(found) if width >= WIDE else _narrow(found)


def _wide(found: Sequence[Row]) -> Table:
    made = _empty(("run", "kind", "method", "seed", "state"), ("rounds", "policy loss", "change"))
    for heading in ("best round", "seen", "unseen", "time", "verdict"):
        made.add_column(heading, justify="right", no_wrap=True)
    for row in found:
        if row.problem:
            made.add_row(Text(row.name), Text("broken", style="red"))
            continue
        made.add_row(
            *(Text(each) for each in (row.name, row.label or "", _method(row), _seed(row))),
            Text(_state(row)),
            f"{row.rounds} of {row.planned}",
            _moved(row),
            Text(forms.percent(row.change), style=STYLES.get(row.verdict, "")),
            "" if row.best_round is None else str(row.best_round),
            *(_rate(row.seen), _rate(row.unseen), forms.span(row.seconds), _word(row)),
        )
    return made


def _narrow(found: Sequence[Row]) -> Table:
    made = _empty(("run", "state"), ("policy loss", "success"))
    for row in found:
        if row.problem:
            made.add_row(Text(row.name), Text("broken", style="red"))
            continue
        moved = Text(f"{forms.percent(row.change)} ", style=STYLES.get(row.verdict, ""))
        success = "" if row.seen is None else f"{_rate(row.seen)} seen"
        success += "" if row.unseen is None else f"\n{_rate(row.unseen)} unseen"
        spent = f" in {forms.span(row.seconds)}" if row.state == "finished" else ""
        made.add_row(
            Text.assemble(row.name, "\n", (_described(row), "dim")),
            Text(f"{row.rounds} of {row.planned} rounds\n{_state(row)}{spent}"),
            Text.assemble(_moved(row), "\n", moved, _word(row)),
            Text(success),
        )
    return made


def _described(row: Row) -> str:
    """Kind, unless the strategy says it, method and seed."""
    kind = "" if row.strategy else row.label
    seed = "" if row.seed is None else f"seed {row.seed}"
    return ", ".join(filter(None, (" ".join(filter(None, (kind, _method(row)))), seed)))


def _empty(left: Sequence[str], right: Sequence[str]) -> Table:
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in left:
        made.add_column(heading, overflow="fold")
    for heading in right:
        made.add_column(heading, justify="right", no_wrap=True)
    return made


def _method(row: Row) -> str:
    return " ".join(filter(None, (row.strategy, row.preset)))


def _seed(row: Row) -> str:
    return "" if row.seed is None else str(row.seed)


def _state(row: Row) -> str:
    if row.state != "unfinished" or row.last_event_seconds_ago is None:
        return row.state
    return f"unfinished, {forms.span(row.last_event_seconds_ago)} ago"


def _moved(row: Row) -> str:
    if row.last_loss is None:
        return ""
    return f"{forms.loss(row.first_loss) or '-'} -> {forms.loss(row.last_loss)}"


def _rate(rate: float | None) -> str:
    return "" if rate is None else f"{rate:.0%}"


def _word(row: Row) -> Text:
    return Text(row.verdict or "", style=STYLES.get(row.verdict, ""))
