"""A run as its events tell it: pure functions from one frozen state to the next."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import reduce
from statistics import mean
from typing import Literal

from zk0.record.tasks import together
from zk0.watching.about import About
from zk0.watching.events import (
    AllTrained,
    Begin,
    Error,
    Evaluated,
    Event,
    Failure,
    Other,
    Plan,
    Resume,
    Rollouts,
    RunEnd,
    RunError,
    ServerEvaluated,
    Successes,
    Trained,
    Void,
    seconds_between,
)

COMPOSITE = "composite"
State = Literal["waiting", "training", "evaluating", "done", "left out"]


@dataclass(frozen=True)
class Training:
    """Local steps in one round."""

    first: float  # policy loss
    last: float
    speed: float | None  # gradient steps per second


@dataclass(frozen=True)
class Round:
    number: int
    began: datetime
    last: datetime
    plan: Plan | None = None
    states: Mapping[int, State] = field(default_factory=dict)  # of the clients that were asked
    trainings: Mapping[int, Training] = field(default_factory=dict)
    mean: Training | None = None  # over the clients; a centralized run's only one
    held_out: Mapping[int, float] = field(default_factory=dict)
    left_out: Mapping[int, str] = field(default_factory=dict)  # with the reasons
    has_trained: bool = False
    is_void: bool = False
    losses: Mapping[str, float] = field(default_factory=dict)  # the server's
    tasks: Mapping[str, Successes] = field(default_factory=dict)
    troubles: tuple[str, ...] = ()  # as they came

    @property
    def seconds(self) -> float:
        return seconds_between(self.began, self.last)


@dataclass(frozen=True)
class Story:
    """All that happened so far, without what a resumed run plays again."""

    rounds: Mapping[int, Round] = field(default_factory=dict)
    first: datetime | None = None
    last: datetime | None = None
    seconds: float = 0.0  # from event to event, without the breaks before a run went on
    resumes: int = 0
    has_ended: bool = False  # after its last round
    failure: str | None = None  # what ended it before that

    @property
    def is_over(self) -> bool:
        return self.has_ended or self.failure is not None

    @property
    def current(self) -> Round | None:
        return self.rounds[max(self.rounds)] if self.rounds else None

    @property
    def finished(self) -> int:
        """Rounds that are over; the next one's plan, or the run's end, says so."""
        latest = max(self.rounds, default=0)
        return latest if self.has_ended else max(0, latest - 1)

    @property
    def losses(self) -> dict[str, dict[int, float]]:
        """The server's policy losses by dataset and round."""
        curves: dict[str, dict[int, float]] = {COMPOSITE: {}}
        for number, each in sorted(self.rounds.items()):
            for name, loss in each.losses.items():
                curves.setdefault(name, {})[number] = loss
        return curves

    @property
    def successes(self) -> dict[int, tuple[int, int]]:
        """How many rollouts succeeded, of how many, by round."""
        return {n: together(each.tasks.values()) for n, each in self.rounds.items() if each.tasks}

    @property
    def latest_rollouts(self) -> Round | None:
        played = [number for number, each in self.rounds.items() if each.tasks]
        return self.rounds[max(played)] if played else None

    @property
    def troubles(self) -> list[tuple[int, str]]:
        """What went wrong, with its round."""
        return [(n, text) for n, each in sorted(self.rounds.items()) for text in each.troubles]


def tell_all(events: Iterable[Event], story: Story | None = None) -> Story:
    return reduce(tell, events, story or Story())


def tell(story: Story, event: Event) -> Story:
    """The story with one event more."""
    if story.last and not isinstance(event, Resume):
        story = replace(story, seconds=story.seconds + seconds_between(story.last, event.time))
    story = replace(story, first=story.first or event.time, last=event.time)
    match event:
        case Resume():
            kept = {number: each for number, each in story.rounds.items() if number <= event.round}
            resumes = story.resumes + 1
            return replace(story, rounds=kept, resumes=resumes, has_ended=False, failure=None)
        case RunEnd():
            return replace(story, has_ended=True)
        case RunError():
            return replace(story, failure=event.reason)
        case Other():
            return story
        case _:
            before = story.rounds.get(event.round, Round(event.round, event.time, event.time))
            after = replace(_in_round(before, event), last=event.time)
            return replace(story, rounds={**story.rounds, event.round: after})


def _in_round(now: Round, event: Event) -> Round:
    match event:
        case Plan():
            return Round(event.round, event.time, event.time, plan=event)
        case Begin() | Trained() | AllTrained() | Evaluated() | Failure():
            return _of_clients(now, event)
        case Void():
            text = f"void: {event.valid} valid replies of {event.needed} needed; the weights stay"
            return replace(now, is_void=True, troubles=(*now.troubles, text))
        case Error():
            what = "the server's evaluation failed" if event.event == "server-error" else "rollouts"
            return replace(now, troubles=(*now.troubles, f"{what}: {event.reason}"))
        case ServerEvaluated():
            parts = {name: each.loss for name, each in event.datasets.items()}
            return replace(now, losses={COMPOSITE: event.loss, **parts})
        case Rollouts():
            return replace(now, tasks=event.tasks)
    return now


def _of_clients(now: Round, event: Begin | Trained | AllTrained | Evaluated | Failure) -> Round:
    match event:
        case Begin():
            state: State = "training" if event.event == "train-begin" else "evaluating"
            return replace(now, states={**now.states, **dict.fromkeys(event.clients, state)})
        case Trained():
            training = _training(event.first_loss, event.last_loss, event.steps, event.seconds)
            trainings = {**now.trainings, event.client: training}
            return replace(_settled(now, event.client), trainings=trainings)
        case AllTrained():
            done: dict[int, State] = dict.fromkeys(now.states, "done")
            done.update(dict.fromkeys(now.left_out, "left out"))
            return replace(now, states=done, mean=_mean(event), has_trained=True)
        case Evaluated():
            held_out = {**now.held_out, event.client: event.loss}
            return replace(_settled(now, event.client), held_out=held_out)
        case Failure():
            text = f"{event.client} {event.slug}: {event.reason}"
            left_out = {**now.left_out, event.client: event.reason}
            now = replace(now, left_out=left_out, troubles=(*now.troubles, text))
            return _settled(now, event.client)


def _settled(now: Round, client: int) -> Round:
    """With nothing more to wait for from `client`; once left out it stays so for the round."""
    state: State = "left out" if client in now.left_out else "done"
    return replace(now, states={**now.states, client: state})


def _mean(event: AllTrained) -> Training | None:
    if event.first_loss is None or event.last_loss is None:
        return None
    return _training(event.first_loss, event.last_loss, event.steps, event.seconds)


def _training(first: float, last: float, steps: float, seconds: float) -> Training:
    return Training(first, last, steps / seconds if seconds > 0 else None)


def phase(story: Story, about: About) -> str:
    """What the run is at, in a few words."""
    now = story.current
    if story.is_over:
        return "finished" if story.has_ended else "failed"
    if now is None or not now.number:
        return "before round 1"
    if not now.has_trained:
        return "training"
    if "evaluating" in now.states.values():
        return "clients evaluate"
    if now.is_void:
        return "void round"
    if not now.losses and about.is_evaluated(now.number):
        return "server evaluates"
    if about.plays_rollouts(now.number) and not now.tasks:
        return "rollouts"
    return "closing the round"


def state_of(story: Story, client: int) -> State:
    """Of a client in the current round."""
    now = story.current
    state: State = "done" if story.has_ended else "waiting"
    return state if now is None else now.states.get(client, state)


def latest_training(story: Story, client: int | None) -> tuple[int, Training] | None:
    """A client's newest training with its round; the mean of all where `client` is None."""
    for number, each in sorted(story.rounds.items(), reverse=True):
        training = each.mean if client is None else each.trainings.get(client)
        if training is not None:
            return number, training
    return None


def latest_held_out(story: Story, client: int) -> tuple[int, float] | None:
    """The newest policy loss on a client's held-out episodes, with its round."""
    found = [
        (n, each.held_out[client]) for n, each in story.rounds.items() if client in each.held_out
    ]
    return max(found, default=None)


def seconds_left(story: Story, planned: int, now: datetime) -> float | None:
    """From the mean of the finished rounds, as only some have an evaluation; None before one."""
    finished = [each.seconds for n, each in story.rounds.items() if 0 < n <= story.finished]
    if not finished or story.current is None:
        return None
    usual = mean(finished)
    spent = min(usual, seconds_between(story.current.began, now))
    return max(0.0, usual * (planned - story.finished) - spent)


def is_quiet(story: Story, now: datetime) -> bool:
    """Whether nothing was heard for so long that the run may be gone: two minutes at least, and
    three times the longest round."""
    if story.last is None or story.is_over:
        return False
    rounds = [each.seconds for number, each in story.rounds.items() if 0 < number <= story.finished]
    return seconds_between(story.last, now) > max(120.0, 3 * max(rounds, default=0.0))


def change(curve: Mapping[int, float]) -> float | None:
    """Of the last loss, relative to the one before round 1; None where one of them is missing."""
    return curve[max(curve)] / curve[0] - 1 if 0 in curve and max(curve) else None
