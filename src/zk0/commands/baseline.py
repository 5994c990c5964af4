"""`zk0 baseline`: the runs that a federated one has to be compared with."""

from pathlib import Path
from typing import Annotated

import typer

from zk0.errors import Zk0Error

app = typer.Typer(
    help="Controls with the federation's data, steps and evaluation.", no_args_is_help=True
)

App = Annotated[Path, typer.Option("--app", help="The app's folder.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--run-config", "-c", help="As for flwr run; repeatable.")
]


@app.command("centralized")
def centralized(app_folder: App = Path(), run_config: Overrides = None) -> None:
    """Train on all clients' data in one place."""
    from zk0.config import check, load_logging
    from zk0.controls import run_control

    config, datasets = check(app_folder, run_config or [])
    everybody = list(range(len(datasets.clients)))
    run_control("centralized", config, datasets, load_logging(app_folder), [everybody])


@app.command("local")
def local(
    app_folder: App = Path(),
    run_config: Overrides = None,
    client: Annotated[
        list[int] | None, typer.Option(help="Its number; every client where none is named.")
    ] = None,
) -> None:
    """Train on each client's data alone: a run for each."""
    from zk0.config import check, load_logging
    from zk0.controls import run_control

    config, datasets = check(app_folder, run_config or [])
    numbers = range(len(datasets.clients))
    for number in client or ():
        if number not in numbers:
            raise Zk0Error(f"--client {number}: the clients are 0 to {numbers[-1]}.")
    alone = [[number] for number in client or numbers]
    run_control("local", config, datasets, load_logging(app_folder), alone)
