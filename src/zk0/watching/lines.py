"""A run where nobody sits in front of a terminal: a line for each event that matters."""

import time
from collections.abc import Iterator, Sequence
from datetime import datetime

from zk0.record.verdict import verdict
from zk0.watching import forms
from zk0.watching.about import About
from zk0.watching.events import (
    AllTrained,
    Error,
    Evaluated,
    Event,
    Failure,
    Plan,
    Resume,
    Rollouts,
    RunEnd,
    ServerEvaluated,
    Trained,
    Void,
)
from zk0.watching.follow import POLL_S, Watched
from zk0.watching.story import COMPOSITE, Story, change, tell

QUIET_S = 60.0  # without any event, until a line says so; then after twice as long, and so on


def watch_in_lines(run: Watched, events: Sequence[Event]) -> None:
    """Print the `events` that `run` has told already, then more until its end. Raises `Zk0Error`
    where its files cannot be read."""
    story, quiet, heard = Story(), QUIET_S, time.monotonic()
    while True:
        for event in events:
            story = tell(story, event)
            for line in lines_of(event, story, run.about) if run.about else ():
                print(line, flush=True)
        if story.is_over:
            if story.failure is not None and story.last is not None:
                print(f"{story.last.astimezone():%H:%M:%S} the run failed: {story.failure}")
            return
        now = time.monotonic()
        if events:
            quiet, heard = QUIET_S, now
        elif now - heard >= quiet:
            print(_silence(run), flush=True)
            quiet *= 2
        time.sleep(POLL_S)
        events = run.poll()


def _silence(run: Watched) -> str:
    now = datetime.now().astimezone()
    if run.story.last is None:
        return f"{now:%H:%M:%S} no event yet; the folder was made {forms.ago(run.began, now)}"
    return f"{now:%H:%M:%S} the last event was {forms.ago(run.story.last, now)}"


def lines_of(event: Event, story: Story, about: About) -> Iterator[str]:
    """What `event` says, after which the run is at `story`."""
    text = _text(event, story, about)
    if text is not None:
        yield f"{event.time.astimezone():%H:%M:%S} {text}"
    if isinstance(event, RunEnd):
        yield f"{event.time.astimezone():%H:%M:%S} {verdict(story.losses, story.successes)}"


def _text(event: Event, story: Story, about: About) -> str | None:
    where = f"round {event.round}"
    match event:
        case Plan():
            rules = f" ({', '.join(event.rules)})" if event.rules else ""
            mu = f", mu {event.proximal_mu:.3g}" if about.kind == "federated" else ""
            rate = f"learning rate {event.learning_rate:.3g}{mu}{rules}"
            return f"{where} of {about.planned} begins: {rate}"
        case Trained() | AllTrained():
            return _training(event, story, about)
        case Evaluated():
            return f"{where}: client {event.client} {event.slug} held out, {event.loss:.4f}"
        case Failure():
            return f"{where}: client {event.client} {event.slug} left out: {event.reason}"
        case Void() | Error():
            return f"{where}: {story.rounds[event.round].troubles[-1]}"
        case ServerEvaluated():
            return f"{where}: policy loss {_losses(event, story)}"
        case Rollouts():
            return f"{where}: rollouts succeeded: {forms.successes(event.tasks)}"
        case Resume():
            return f"resumed after {where}: what came later is played again"
        case RunEnd():
            return f"the run ended after {where} of {about.planned}, {forms.span(story.seconds)}"
    return None


def _training(event: Trained | AllTrained, story: Story, about: About) -> str | None:
    """A client's; the mean only of a centralized run, which has no other."""
    now = story.rounds[event.round]
    if isinstance(event, Trained):
        who, training = f"client {event.client} {event.slug}", now.trainings[event.client]
    elif about.kind == "centralized" and now.mean is not None:
        who, training = "all data", now.mean
    else:
        return None
    speed = "" if training.speed is None else f", {training.speed:.1f} steps/s"
    moved = f"{training.first:.4f} -> {training.last:.4f}"
    return f"round {event.round}: {who} trained, policy loss {moved}{speed}"


def _losses(event: ServerEvaluated, story: Story) -> str:
    curves = story.losses
    composite = f"{event.loss:.4f}{_moved(change(curves[COMPOSITE]))}"
    parts = [
        f"{name} {each.loss:.4f}{_moved(change(curves[name]))}"
        for name, each in event.datasets.items()
    ]
    return f"{composite}: {', '.join(parts)}"


def _moved(moved: float | None) -> str:
    return "" if moved is None else f" ({forms.percent(moved)})"
