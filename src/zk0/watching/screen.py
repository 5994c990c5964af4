"""A run on a terminal: the state it has come to, drawn anew when something happens."""

import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from zk0.record.verdict import verdict
from zk0.watching import forms
from zk0.watching.about import About
from zk0.watching.events import Plan, seconds_between
from zk0.watching.follow import POLL_S, Watched
from zk0.watching.story import (
    COMPOSITE,
    State,
    Story,
    change,
    is_quiet,
    latest_held_out,
    latest_training,
    phase,
    seconds_left,
    state_of,
)

TICK_S = 2.0  # between frames where nothing happens
STYLES: Mapping[State, str] = {
    "waiting": "dim",
    "training": "cyan",
    "evaluating": "blue",
    "done": "green",
    "left out": "red",
}
# Columns that a part takes without the one that adapts to the terminal.
BESIDE_BAR = 66
BESIDE_STATE = 44
BESIDE_CHART = 62


def watch_on_screen(run: Watched, console: Console) -> None:
    """Until the run's end. Raises `Zk0Error` where its files cannot be read."""
    with Live(console=console, auto_refresh=False) as live:
        while not run.story.is_over:
            live.update(picture(run, console.width, console.height - 1), refresh=True)
            _wait(run)
        live.update(picture(run, console.width), refresh=True)


def _wait(run: Watched) -> None:
    """Until something happened, or the times on the screen are old."""
    drawn = time.monotonic()
    time.sleep(POLL_S)
    while not run.poll() and time.monotonic() - drawn < TICK_S:
        time.sleep(POLL_S)


def picture(
    run: Watched, width: int, height: int | None = None, now: datetime | None = None
) -> RenderableType:
    """The run as it stands; of many clients only as many as `height` has lines for."""
    now = now or datetime.now().astimezone()
    head: list[RenderableType] = [_title(run), _progress(run, width, now)]
    if run.about is None:
        failed = _failed(run.story.failure)
        return Group(*head, "", _facts([failed] if failed else [("", _begun(run, now))]))
    losses, facts = _losses(run.story, width), list(_said(run, run.about, now))
    extra = 4 if run.about.kind == "centralized" else 3
    used = len(head) + (losses.row_count + 2 if losses.row_count else 0) + len(facts) + extra
    room = None if height is None else height - used
    clients = _clients(run.story, run.about, width, room)
    if losses.row_count:
        head += ["", losses]
    return Group(*head, "", clients, "", _facts(facts))


def _title(run: Watched) -> Text:
    title = Text(run.folder.name, style="bold", no_wrap=True, overflow="ellipsis")
    if run.about is not None:
        about = run.about
        seed = "" if about.settings.seed is None else f"seed {about.settings.seed}"
        words = [each for each in (about.label, about.method, seed) if each]
        title.append("  " + ", ".join(words), style="not bold dim")
    return title


# --- rounds ---------------------------------------------------------------------------------------


def _progress(run: Watched, width: int, now: datetime) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    cells: list[RenderableType] = []
    if run.about is not None:
        done, planned = run.story.finished, run.about.planned
        style = "green" if run.story.has_ended else "cyan"
        room = min(40, max(8, width - BESIDE_BAR))
        bar = ProgressBar(planned, done, width=room, complete_style=style)
        cells = [_where(run.story, planned), bar, Text(_doing(run.story, run.about), no_wrap=True)]
    grid.add_row(*cells, Text(_times(run, now), no_wrap=True, overflow="ellipsis"))
    return grid


def _where(story: Story, planned: int) -> str:
    now = story.current
    if story.has_ended or now is None or not now.number:
        return f"{story.finished} of {planned} rounds"
    return f"round {now.number} of {planned}"


def _doing(story: Story, about: About) -> str:
    ended_early = story.has_ended and story.finished < about.planned
    return "ended early" if ended_early else phase(story, about)


def _times(run: Watched, now: datetime) -> str:
    story = run.story
    if story.is_over:
        return f"in {forms.span(story.seconds)}"
    spent = story.seconds + seconds_between(story.last or run.began, now)
    left = None if run.about is None else seconds_left(story, run.about.planned, now)
    return f"{forms.span(spent)} so far" + (f", ~{forms.span(left)} left" if left else "")


def _begun(run: Watched, now: datetime) -> Text:
    ago = forms.ago(run.began, now)
    return Text(f"The folder was made {ago}; the run waits for its clients.")


# --- the server's losses --------------------------------------------------------------------------


def _losses(story: Story, width: int) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("policy loss", no_wrap=True, max_width=20, overflow="ellipsis")
    for heading in ("round 0", "now", "change", "best (round)"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for name, curve in story.losses.items():
        if curve:
            table.add_row(*_loss_cells(name, curve, min(40, max(8, width - BESIDE_CHART))))
    return table


def _loss_cells(name: str, curve: Mapping[int, float], chart: int) -> list[Text]:
    best, last, moved = min(curve, key=curve.__getitem__), curve[max(curve)], change(curve)
    weight = "bold" if name == COMPOSITE else ""
    return [
        Text(name, style=weight),
        Text(forms.loss(curve.get(0))),
        Text(forms.loss(last), style=weight),
        Text(forms.percent(moved), style=_judged(moved)),
        Text(f"{curve[best]:.4f} ({best})", style="dim"),
        Text(forms.sparkline(list(curve.values()), chart), style="cyan"),
    ]


def _judged(moved: float | None) -> str:
    """A loss that falls is good."""
    if not moved:
        return ""
    return "green" if moved < 0 else "red"


# --- clients --------------------------------------------------------------------------------------


def _clients(story: Story, about: About, width: int, room: int | None) -> Table:
    """One client a line; where `room` has too few lines, its last one counts the others."""
    labels = {number: f"{number} {slug}"[:24] for number, slug in about.names.items()}
    named = max([len("all data"), *map(len, labels.values())])
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("client", no_wrap=True)
    left = max(12, width - named - BESIDE_STATE)
    table.add_column("state", no_wrap=True, min_width=10, max_width=left, overflow="ellipsis")
    for heading in ("policy loss", "steps/s", "held out"):
        table.add_column(heading, justify="right", no_wrap=True)
    shown = len(labels) if room is None or len(labels) <= room else max(0, room - 1)
    for number in list(labels)[:shown]:
        table.add_row(Text(labels[number]), *_client_cells(story, number))
    if rest := list(labels)[shown:]:
        counts = forms.counted(state_of(story, number) for number in rest)
        table.add_row(Text(f"{len(rest)} more", style="dim"), Text(counts, style="dim"))
    if about.kind == "centralized":
        table.add_row("all data", "", *_training_cells(story, None))
    return table


def _client_cells(story: Story, number: int) -> list[Text]:
    state = state_of(story, number)
    reason = f": {story.current.left_out[number]}" if story.current and state == "left out" else ""
    held_out = Text("")
    if found := latest_held_out(story, number):
        held_out = Text(forms.loss(found[1]), style=_aged(story, found[0]))
    return [Text(state + reason, style=STYLES[state]), *_training_cells(story, number), held_out]


def _training_cells(story: Story, client: int | None) -> list[Text]:
    """Policy loss and speed of the newest training."""
    found = latest_training(story, client)
    if found is None:
        return [Text(""), Text("")]
    number, training = found
    style = _aged(story, number)
    speed = "" if training.speed is None else f"{training.speed:.1f}"
    moved = f"{training.first:.4f} -> {training.last:.4f}"
    return [Text(moved, style=style), Text(speed, style=style)]


def _aged(story: Story, number: int) -> str:
    """Numbers of an earlier round stand back."""
    return "" if story.current and story.current.number == number else "dim"


# --- the rest -------------------------------------------------------------------------------------


def _facts(facts: Sequence[tuple[str, Text]]) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True, min_width=13)
    grid.add_column(no_wrap=True, overflow="ellipsis")
    for label, text in facts:
        grid.add_row(label, text)
    return grid


def _said(run: Watched, about: About, now: datetime) -> Iterator[tuple[str, Text]]:
    story = run.story
    if story.current and story.current.plan:
        yield "learning rate", _planned(story, story.current.plan, about)
    yield from _rollouts(story, about)
    down, up = run.bytes_sent
    if down or up:
        yield "arrays sent", Text(f"{forms.size(down)} to the clients, {forms.size(up)} back")
    if story.troubles:
        yield "failures", _troubles(story.troubles)
    if story.resumes:
        yield "resumed", Text("once" if story.resumes == 1 else f"{story.resumes} times")
    if story.has_ended:
        yield "verdict", Text(verdict(story.losses, story.successes).split(";")[0])
    elif failed := _failed(story.failure):
        yield failed
    else:
        yield "last event", _heard(run, now)


def _failed(reason: str | None) -> tuple[str, Text] | None:
    return None if reason is None else ("failed", Text(reason, style="red"))


def _planned(story: Story, plan: Plan, about: About) -> Text:
    """This round's, and the rules that acted, then and now."""
    mu = f", mu {plan.proximal_mu:.3g}" if about.kind == "federated" else ""  # baselines have none
    text = Text(f"{plan.learning_rate:.3g}{mu}")
    if plan.rules:
        text.append(f" by {', '.join(plan.rules)}", style="yellow")
    for client, rate in plan.boosted.items():
        text.append(f"; client {client}: {rate:.3g}")
    before = [rule for each in story.rounds.values() if each.plan for rule in each.plan.rules]
    if before:
        text.append(f"; rules so far: {forms.counted(before)}", style="dim")
    return text


def _rollouts(story: Story, about: About) -> Iterator[tuple[str, Text]]:
    played = story.latest_rollouts
    if played is None:
        return
    for kind, wanted in (("seen", False), ("unseen", True)):
        tasks = {n: each for n, each in played.tasks.items() if about.is_unseen(n) == wanted}
        if tasks:
            old = story.current is not None and played.number < story.current.number
            when = f"after round {played.number}: " if old else ""
            yield f"{kind} tasks", Text(when + forms.successes(tasks))


def _troubles(troubles: Sequence[tuple[int, str]]) -> Text:
    number, text = troubles[-1]
    return Text(f"{len(troubles)}; round {number}: {text}", style="red")


def _heard(run: Watched, now: datetime) -> Text:
    last = run.story.last
    if last is None:
        return Text(f"none yet; the folder was made {forms.ago(run.began, now)}")
    text = forms.ago(last, now)
    if is_quiet(run.story, now):
        return Text(f"{text}: slow, or gone; simulation.log may say more", style="yellow")
    return Text(text)
