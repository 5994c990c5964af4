"""`zk0 videos`: what the videos of a run show."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from zk0.evaluation.videos import Analysis, Row

app = typer.Typer(help="The videos of a run.", no_args_is_help=True)

_LEFT = ("who", "kind", "task")
_RIGHT = ("episodes", "videos", "success", "completion", "smoothness", "policy loss")


@app.command("analyze")
def analyze_videos(
    folder: Annotated[Path, typer.Argument(help="A run's folder, or a part of it.")],
    json: Annotated[Path | None, typer.Option(help="Where the table goes as JSON.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Where the table goes as CSV.")] = None,
) -> None:
    """Tabulate rollouts and open-loop videos by round, model, kind and task.

    Exit status 1 where a video or its JSON is missing, unreadable or in contradiction.
    """
    from zk0.evaluation.videos import analyze

    analysis = analyze(folder)
    console = Console()
    if not console.is_terminal:
        console.width = 200  # a file has no edge to fold at
    console.print(_table(analysis))
    print("completion: simulated seconds of successful episodes; smoothness: degrees/s^2, rms")
    for option, path, text in (("--json", json, _json), ("--csv", csv, _csv)):
        if path is not None:
            _write(option, path, text(analysis))
    for problem in analysis.problems:
        console.print(Text(f"problem: {problem}", style="red"), soft_wrap=True)
    if analysis.problems:
        raise typer.Exit(1)


def _table(analysis: "Analysis") -> Table:
    table = Table(box=None, header_style="bold")
    for heading in ("round", *_LEFT, *_RIGHT):
        table.add_column(heading, justify="left" if heading in _LEFT else "right")
    for row in analysis.rows:
        group = row.group
        table.add_row(str(group.round), group.who, group.kind, group.task, *_cells(row))
    return table


def _cells(row: "Row") -> tuple[str, ...]:
    return (
        str(row.episodes),
        str(row.videos),
        f"{row.successes}/{row.judged}" if row.judged else "-",
        _number(row.completion_seconds, ".1f", " s"),
        _number(row.smoothness, ".0f"),
        _number(row.policy_loss, ".4f"),
    )


def _number(value: float | None, form: str, unit: str = "") -> str:
    return "-" if value is None else f"{value:{form}}{unit}"


def _flat(row: "Row") -> dict[str, Any]:
    """A row's group and numbers side by side."""
    from dataclasses import asdict

    numbers = asdict(row)
    return {**numbers.pop("group"), **numbers}


def _json(analysis: "Analysis") -> str:
    import json

    rows = [_flat(row) for row in analysis.rows]
    return json.dumps({"rows": rows, "problems": analysis.problems}, indent=1) + "\n"


def _csv(analysis: "Analysis") -> str:
    import csv
    from io import StringIO

    rows, text = [_flat(row) for row in analysis.rows], StringIO()
    writer = csv.DictWriter(text, rows[0] if rows else (), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _write(option: str, path: Path, text: str) -> None:
    from zk0.errors import Zk0Error

    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Zk0Error(
            f"{option}: {path} cannot be written ({error.strerror}). Name a file in a folder that "
            "is there."
        ) from None
    print(f"{option.removeprefix('--').upper()}: {path.absolute()}")
