"""What a report says in words and tables. Pure, but for `defaults`, which reads pyproject.toml."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from zk0.config import read_pyproject
from zk0.evaluation.intervals import wilson
from zk0.paths import PROJECT
from zk0.record import verdict
from zk0.report.reading import Record, Round
from zk0.watching.forms import size

Mark = Literal["better", "worse", "open"]
SHOWN: Mapping[verdict.Judgement, tuple[Mark, str]] = {
    "better": ("better", "Better than its start"),
    "worse": ("worse", "Not better than its start"),
    "no verdict": ("open", "No verdict"),
}


@dataclass(frozen=True)
class Verdict:
    mark: Mark
    headline: str
    sentence: str


@dataclass(frozen=True)
class KeyFigure:
    label: str
    value: str
    detail: str = ""


@dataclass(frozen=True)
class Incident:
    """Something that went otherwise than planned."""

    round: int
    what: str  # "excluded reply", "void round", ...
    who: str
    reason: str


@dataclass(frozen=True)
class Setting:
    key: str
    value: str
    default: str  # empty where there is none to differ from


@dataclass(frozen=True)
class Settings:
    """The run-config: what differs from pyproject.toml's, and the rest; or all, and why."""

    changed: Sequence[Setting]
    others: Sequence[Setting]
    note: str


# --- verdict --------------------------------------------------------------------------------------


def judge(record: Record) -> Verdict:
    """Is the newest policy better than the one before round 1?"""
    losses = record.losses
    curve = losses["composite"]
    so_far = "" if record.ended else f"so far, round {max(curve, default=0)} of {record.planned}: "
    if not record.ended and max(curve, default=0) == 0:
        return Verdict("open", "No verdict yet", "No round has been evaluated yet.")
    sentence = _capitalise(
        f"{so_far}{verdict.verdict(losses, record.successes)}.".replace(" -> ", " → ")
    )
    return Verdict(*SHOWN[verdict.judge(curve)], sentence)


def _capitalise(text: str) -> str:
    return text[:1].upper() + text[1:]


# --- key figures ----------------------------------------------------------------------------------


def key_figures(record: Record) -> list[KeyFigure]:
    return [
        *_loss_figures(record),
        *_success_figures(record),
        _rounds_figure(record),
        _clients_figure(record),
        *_traffic_figures(record),
        KeyFigure("time", duration(record.seconds), "first to last event"),
    ]


def _loss_figures(record: Record) -> Iterator[KeyFigure]:
    curve = record.losses["composite"]
    if not curve:
        return
    newest, best = max(curve), min(curve, key=curve.__getitem__)
    start = curve.get(0)
    change = f"{curve[newest] / start - 1:+.0%} since the start" if start and newest else ""
    yield KeyFigure("policy loss", f"{curve[newest]:.4f}", change)
    yield KeyFigure("best policy loss", f"{curve[best]:.4f}", f"round {best}")


def _success_figures(record: Record) -> Iterator[KeyFigure]:
    """Of the newest rollouts, all tasks together."""
    if not record.successes:
        return
    won, all_of_them = record.successes[max(record.successes)]
    low, high = wilson(won, all_of_them, 0.95)
    bounds = f"95 % interval [{100 * low:.0f}, {100 * high:.0f}]"
    detail = f"{won} of {all_of_them} rollouts, {bounds}"
    yield KeyFigure("success", f"{won / all_of_them:.0%}", detail)


def _rounds_figure(record: Record) -> KeyFigure:
    void = sum(each.void for each in record.rounds)
    state = "finished" if record.ended else "not finished"
    detail = f"{state}, {void} void" if void else state
    return KeyFigure("rounds", f"{record.last} of {record.planned}", detail)


def _clients_figure(record: Record) -> KeyFigure:
    excluded = sum(len(each.failures) for each in record.rounds)
    detail = f"{excluded} replies excluded" if excluded else "no reply excluded"
    return KeyFigure("clients", str(len(record.about.clients)), detail)


def _traffic_figures(record: Record) -> Iterator[KeyFigure]:
    down, up = (sum(each.traffic.get(way, 0) for each in record.rounds) for way in ("down", "up"))
    if down or up:
        detail = f"{size(down)} to, {size(up)} from clients"
        yield KeyFigure("traffic", size(down + up), detail)


def duration(seconds: float) -> str:
    """Such as 1 h 05 min, or 42 s."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


# --- incidents ------------------------------------------------------------------------------------


def incidents(record: Record) -> list[Incident]:
    """By round."""
    resumed = [
        Incident(each.after_round, "resumed", "", f"the run went on after round {each.after_round}")
        for each in record.about.resumed
    ]
    found = [*resumed, *(incident for each in record.rounds for incident in _in_round(each))]
    return sorted(found, key=lambda each: each.round)


def _in_round(each: Round) -> Iterator[Incident]:
    for failure in each.failures:
        who = f"{failure.client} {failure.slug}"
        yield Incident(each.round, "excluded reply", who, failure.reason)
    if each.void:
        yield Incident(each.round, "void round", "", "too few valid replies; the weights stayed")
    if each.server_error:
        yield Incident(each.round, "no evaluation", "server", each.server_error)
    if each.rollout_error:
        yield Incident(each.round, "no rollouts", "server", each.rollout_error)


def rules(record: Record) -> list[tuple[str, str]]:
    """Each rule of the schedule that acted, and its rounds."""
    acted: dict[str, list[int]] = {}
    for each in record.rounds:
        for rule in each.plan.rules if each.plan else ():
            acted.setdefault(rule, []).append(each.round)
    return [(rule, ", ".join(map(str, numbers))) for rule, numbers in acted.items()]


# --- configuration --------------------------------------------------------------------------------


def defaults() -> Mapping[str, Any] | None:
    """The run-config in the project's pyproject.toml; None where zk0 is installed without it."""
    if not (PROJECT / "pyproject.toml").is_file():
        return None
    return dict(read_pyproject(PROJECT)["tool"]["flwr"]["app"]["config"])


def settings(record: Record, usual: Mapping[str, Any] | None) -> Settings:
    values = record.about.settings
    if usual is None:
        rest = [Setting(key, text(value), "") for key, value in values.items()]
        return Settings(
            [], rest, "The defaults are not known: there is no pyproject.toml of zk0's."
        )
    changed = [
        Setting(key, text(value), text(usual[key]) if key in usual else "no such key")
        for key, value in values.items()
        if key not in usual or usual[key] != value
    ]
    different = {each.key for each in changed}
    rest = [Setting(key, text(v), "") for key, v in values.items() if key not in different]
    note = "" if changed else "All keys are pyproject.toml's."
    return Settings(changed, rest, note)


def text(value: Any) -> str:
    """A setting as one writes it in TOML."""
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else f"{value}"
