"""A sweep's trials as a table: on the terminal, and as sweep.csv, sweep.json and sweep.md."""

import csv
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from zk0.files import write_whole
from zk0.sweep.file import Scalar, Sweep, write_value
from zk0.sweep.study import State, Trial

ORDER: Sequence[State] = ("done", "pruned", "failed", "running", "waiting")
LOSSES = ("first loss", "last loss", "best loss")


def ranked(trials: Sequence[Trial]) -> list[Trial]:
    """The best first; after all that are done, the pruned ones by their last loss."""

    def rank(trial: Trial) -> tuple[int, float, int]:
        last = trial.losses[max(trial.losses)] if trial.losses else math.inf
        loss = last if trial.result is None else trial.result
        return ORDER.index(trial.state), loss, trial.number

    return sorted(trials, key=rank)


def best(trials: Sequence[Trial]) -> Trial | None:
    """The trial with the least result; None where none is done."""
    first = next(iter(ranked(trials)), None)
    return first if first is not None and first.state == "done" else None


def describe_values(values: Mapping[str, Scalar]) -> str:
    return " ".join(f"{key}={write_value(value)}" for key, value in values.items())


def describe_result(sweep: Sweep, trial: Trial) -> str:
    """A trial's end in one line."""
    if trial.state == "failed":
        return f"failed: {trial.reason}"
    row = _row(trial)
    losses = "{first loss:.4f} -> {last loss:.4f}, best {best loss:.4f} in round {best round}"
    told = losses.format(**row) if trial.losses else "no loss"
    state = "" if trial.state == "done" else f"{trial.state}, "
    return f"{state}{sweep.file.metric} {told}, {row['minutes']:.1f} min"


def paste(sweep: Sweep, trial: Trial) -> str:
    """The trial's setting as an option for a shell's command line."""
    escaped = re.sub(r'([$`"\\])', r"\\\1", sweep.overrides(trial.values))
    return f'--run-config "{escaped}"'


def table(trials: Sequence[Trial]) -> Table:
    """All trials, the best first."""
    rows = [_texts(trial) for trial in ranked(trials)]
    made = Table(box=None, header_style="bold")
    for heading in rows[0] if rows else ():
        name = heading in ("run", "state")
        made.add_column(heading, justify="left" if name else "right", no_wrap=name)
    for row in rows:
        made.add_row(*row.values())
    return made


def write(sweep: Sweep, trials: Sequence[Trial]) -> None:
    """Replace the sweep's table files; raises `OSError` where they cannot be written."""
    for name, text in (
        ("sweep.csv", _as_csv(trials)),
        ("sweep.json", _as_json(sweep, trials)),
        ("sweep.md", _as_markdown(sweep, trials)),
    ):
        write_whole(sweep.folder / name, text)


def _row(trial: Trial) -> dict[str, Any]:
    """A trial's facts by their headings; None is what it does not have."""
    losses = trial.losses
    best_round = min(losses, key=losses.__getitem__) if losses else None
    return {
        "trial": trial.number,
        **trial.values,
        "first loss": losses[min(losses)] if losses else None,
        "last loss": losses[max(losses)] if losses else None,
        "best loss": None if best_round is None else losses[best_round],
        "best round": best_round,
        "minutes": trial.minutes,
        "run": trial.run,
        "state": trial.state,
    }


def _texts(trial: Trial) -> dict[str, str]:
    """The row as people read it."""
    row = _row(trial)
    digits = {**dict.fromkeys(LOSSES, ".4f"), "minutes": ".1f"}
    shown = {
        heading: "" if value is None else format(value, digits.get(heading, ""))
        for heading, value in row.items()
    }
    return shown | {key: write_value(value).strip("'") for key, value in trial.values.items()}


def _as_csv(trials: Sequence[Trial]) -> str:
    rows = [{**_row(trial), "reason": trial.reason} for trial in ranked(trials)]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _as_json(sweep: Sweep, trials: Sequence[Trial]) -> str:
    first = best(trials)
    content = {
        "sweep": sweep.file.model_dump(mode="json"),
        "best": first and {"trial": first.number, "run-config": sweep.overrides(first.values)},
        "trials": [
            {
                "trial": trial.number,
                "values": trial.values,
                "state": trial.state,
                "result": trial.result,
                "losses": trial.losses,
                "minutes": trial.minutes,
                "run": trial.run,
                "reason": trial.reason,
            }
            for trial in ranked(trials)
        ],
    }
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def _as_markdown(sweep: Sweep, trials: Sequence[Trial]) -> str:
    rows = [_texts(trial) for trial in ranked(trials)]
    file, first = sweep.file, best(trials)
    lines = [f"# Sweep {file.name}", "", f"Policy loss: {file.metric}, {file.at} round.", ""]
    if rows:
        cells = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
        lines += [f"| {' | '.join(row)} |" for row in cells]
    if first is not None:
        lines += ["", f"Best: trial {first.number}", "", f"    {paste(sweep, first)}"]
    failed = [trial for trial in trials if trial.state == "failed"]
    lines += ["", *(f"- trial {trial.number} failed: {trial.reason}" for trial in failed)]
    return "\n".join(lines).rstrip() + "\n"
