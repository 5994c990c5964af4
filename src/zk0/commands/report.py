"""`zk0 report`: a run as one HTML file."""

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from zk0.errors import Zk0Error


def report(
    run: Annotated[
        str | None, typer.Argument(help="A run's folder, or its name; by default the newest.")
    ] = None,
    output_dir: Annotated[str, typer.Option(help="Where the runs are.")] = "outputs",
    others: Annotated[
        list[Path] | None,
        typer.Option("--compare", metavar="RUN", help="A run to compare with; repeatable."),
    ] = None,
    show: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
) -> None:
    """Write a run's report: one HTML file with its verdict, charts and videos; works offline."""
    from zk0.report.page import write_report
    from zk0.watching.find import choose_run

    for other in others or []:
        if not (other / "config.json").is_file():
            raise Zk0Error(f"--compare: {other} is no run folder: it has no config.json.")
    path = write_report(choose_run(output_dir, run), others or []).absolute()
    print(f"report: {path}")
    if show and not webbrowser.open(path.as_uri()):
        print("no browser could be opened: open the file yourself.")
