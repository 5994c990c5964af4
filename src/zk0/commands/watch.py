"""`zk0 watch` and `zk0 runs`: what a run is at, and which there are."""

from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

OutputDir = Annotated[str, typer.Option(help="Parent of the run folders.")]


def watch(
    run: Annotated[
        str | None, typer.Argument(help="A run's folder or its name; the newest run without.")
    ] = None,
    output_dir: OutputDir = "outputs",
) -> None:
    """Show a run as it goes on; a finished one as it ended. Ctrl-C ends the watching only."""
    from zk0.watching.find import choose_run
    from zk0.watching.follow import Watched
    from zk0.watching.lines import watch_in_lines
    from zk0.watching.screen import picture, watch_on_screen

    watched, console = Watched(choose_run(output_dir, run)), Console()
    if not console.is_terminal:
        console.width = 120  # a file has no edge
    try:
        events = watched.poll()
        if watched.story.is_over:
            console.print(picture(watched, console.width))
        elif console.is_interactive:
            watch_on_screen(watched, console)
        else:
            watch_in_lines(watched, events)
    except KeyboardInterrupt:
        print("Watching ended; the run itself goes on.")


def runs(
    output_dir: OutputDir = "outputs",
    json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
) -> None:
    """List all runs, the newest first; success is the mean over tasks, seen are the clients'."""
    from datetime import datetime
    from json import dumps

    from zk0.paths import from_project
    from zk0.watching.find import find_runs
    from zk0.watching.overview import rows, table

    root = from_project(output_dir)
    found = rows(root, find_runs(root), datetime.now().astimezone())
    if json:
        print(dumps([row.to_json() for row in found], indent=1))
        return
    console = Console()
    if not console.is_terminal:
        console.width = 200
    if not found:
        print(f"There is no run below {root}.")
        return
    console.print(table(found, console.width))
    for row in found:
        if row.problem:
            console.print(Text(f"{row.name}: {row.problem}", style="red"), soft_wrap=True)
