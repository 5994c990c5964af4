"""`zk0 sweep`: runs with different settings, compared in one table."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zk0.sweep.file import Sweep
    from zk0.sweep.study import Trial


def sweep(
    file: Annotated[Path, typer.Argument(help="The sweep's TOML file (examples/sweep.toml).")],
    app_folder: Annotated[Path, typer.Option("--app", help="The app's folder.")] = Path(),
    federation: Annotated[
        str | None, typer.Option(help="A connection of this machine, as for flwr run.")
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Run the trials again that failed.")
    ] = False,
) -> None:
    """Run a grid or a random search over run-config values, or go on with one.

    Exit status: 0 all trials went well, 1 one failed, 130 stopped with Ctrl-C.
    """
    from zk0.flower import Interrupted, interruptible
    from zk0.sweep.file import read_sweep
    from zk0.sweep.flower import FlowerRunner
    from zk0.sweep.loop import run

    try:
        with interruptible():
            checked = read_sweep(file, app_folder)
            runner = FlowerRunner(app_folder, federation, checked.datasets)
            trials = run(checked, runner, runner.stop, retry_failed)
    except Interrupted as interruption:
        print(f"\nStopped. The same command goes on where it was: zk0 sweep {file}")
        raise typer.Exit(interruption.exit_status) from None
    _show(checked, trials)
    if any(trial.state == "failed" for trial in trials):
        raise typer.Exit(1)


def _show(checked: "Sweep", trials: "Sequence[Trial]") -> None:
    from zk0.sweep.report import best, paste, table

    console = Console()
    if not console.is_terminal:
        console.width = 200  # a file has no edge to fold at
    console.print(table(trials))
    failed = [trial for trial in trials if trial.state == "failed"]
    for trial in failed:
        print(f"trial {trial.number} failed: {trial.reason}")
    if failed:
        print("To run those again, add --retry-failed.")
    if (first := best(trials)) is not None:
        print(f"best, trial {first.number}: {paste(checked, first)}")
    print(f"table: {checked.folder / 'sweep.md'}")
