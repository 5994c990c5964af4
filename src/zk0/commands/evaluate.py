"""`zk0 evaluate` and `zk0 rollout`: a checkpoint on recorded data, and in the simulator."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from zk0.errors import Zk0Error
from zk0.files import write_json

if TYPE_CHECKING:
    from zk0.config import Config
    from zk0.data.sources import Source
    from zk0.evaluation.policy_loss import PolicyLoss
    from zk0.evaluation.tally import Tally

Checkpoint = Annotated[Path, typer.Argument(help="A policy folder, such as RUN/models/last.")]
Json = Annotated[Path | None, typer.Option("--json", help="Write the numbers there too.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--run-config", "-c", help="As for flwr run; repeatable.")
]


def evaluate(
    checkpoint: Checkpoint,
    dataset: Annotated[
        list[str], typer.Option(help="sim:NAME, local:/path or hf:owner/name; repeatable.")
    ],
    held_out: Annotated[
        bool, typer.Option("--held-out", help="Only the last eval-episodes, as clients do.")
    ] = False,
    run_config: Overrides = None,
    json_file: Json = None,
) -> None:
    """Policy loss and action error of a checkpoint, as its run measured them.

    Settings (eval-batches, batch-size, ...) are those of the run that the checkpoint lies in, else
    those of pyproject.toml in the current folder. A dataset of the run's is read as the run did:
    the same cameras, the same frames a second.
    """
    from zk0.checkpoints import evaluate_checkpoint
    from zk0.data.sources import Source

    run = _run_of(checkpoint)
    config = _config_of(run, run_config or [])
    sources = [_as_in(run, Source.parse(text)) for text in dataset]
    results = evaluate_checkpoint(checkpoint, sources, held_out, config)
    Console().print(_loss_table(results))
    write_json(json_file, {slug: result.to_json() for slug, result in results.items()})


def rollout(
    checkpoint: Checkpoint,
    task: Annotated[
        list[str] | None, typer.Option(help="A simulated task or dataset; all where none is named.")
    ] = None,
    episodes: Annotated[int, typer.Option(min=1, max=10_000, help="Of each task.")] = 50,
    videos: Annotated[Path | None, typer.Option(help="A folder for videos.")] = None,
    filmed: Annotated[int, typer.Option(min=1, help="Episodes of each task to film.")] = 1,
    run_config: Overrides = None,
    json_file: Json = None,
) -> None:
    """Success rates of a checkpoint in the simulator, beside those of arms that hold still, move at
    random, or know the solution."""
    from zk0.checkpoints import roll_out_checkpoint
    from zk0.evaluation.twins import choose

    twins = choose(task or [])
    config = _config_of(_run_of(checkpoint), run_config or [])
    table = roll_out_checkpoint(checkpoint, twins, episodes, config, videos, filmed)
    Console().print(_tally_table(table))
    write_json(json_file, {who: [each.to_json() for each in rows] for who, rows in table.items()})


def _run_of(checkpoint: Path) -> dict[str, Any] | None:
    """The record of the run that the checkpoint lies in, if it lies in one."""
    from zk0.record.run_folder import RunFolder

    if not checkpoint.is_dir():
        raise Zk0Error(f"{checkpoint} is not a folder: name a checkpoint, such as RUN/models/last.")
    folder = checkpoint.resolve().parents[1]
    if not (folder / "config.json").is_file():
        return None
    run = RunFolder(folder).read("config.json")
    if missing := {"config", "clients", "server"} - set(run):
        raise Zk0Error(f"{folder / 'config.json'} is no run's: it has no {min(missing)}.")
    return dict(run)


def _config_of(run: dict[str, Any] | None, overrides: Sequence[str]) -> "Config":
    """The run's configuration; that of the app in the current folder where there is none."""
    from zk0.config import load, parse_config, parse_overrides

    changes = parse_overrides(overrides)
    return load(Path(), changes)[0] if run is None else parse_config({**run["config"], **changes})


def _as_in(run: dict[str, Any] | None, source: "Source") -> "Source":
    """The dataset as the run read it, if it did."""
    read = [*run["clients"], *run["server"]] if run else []
    for entry in read:
        if entry["slug"] == source.slug:
            cameras = {recorded: slot for slot, recorded in entry["cameras"].items()}
            return source.read_as("", cameras, entry["fps"])
    return source


def _loss_table(results: "dict[str, PolicyLoss]") -> Table:
    """A column for each dataset; below the loss, each joint's action error and loss."""
    table = Table("", box=None, header_style="bold")
    for slug in results:
        table.add_column(slug, justify="right")
    found = list(results.values())
    table.add_row("frames", *(str(each.frames) for each in found))
    table.add_row(
        "policy loss", *(f"{each.loss:.4f} ± {each.standard_error:.4f}" for each in found)
    )
    table.add_row()
    table.add_row("action error (policy loss)")
    for joint in found[0].errors:
        unit = " %" if joint == "gripper" else "°"
        cells = (f"{each.errors[joint]:.2f}{unit} ({each.losses[joint]:.3f})" for each in found)
        table.add_row(f"  {joint}", *cells)
    return table


def _tally_table(rows: "dict[str, list[Tally]]") -> Table:
    table = Table("task", "who", box=None, header_style="bold")
    for heading in ("success", "95 % interval", "nearest", "grasped", "lifted", "moved", "time"):
        table.add_column(heading, justify="right", no_wrap=True)
    tasks = [each.task for each in next(iter(rows.values()))]
    for number, task in enumerate(tasks):
        for who, tallies in rows.items():
            table.add_row(task if who == next(iter(rows)) else "", who, *_cells(tallies[number]))
    return table


def _cells(tally: "Tally") -> list[str]:
    def share(value: float | None) -> str:
        return "" if value is None else f"{value:.0%}"

    return [
        f"{tally.successes}/{tally.episodes}",
        f"{tally.low:.0%} to {tally.high:.0%}",
        f"{100 * tally.nearest:.1f} cm",
        *map(share, (tally.grasped, tally.lifted, tally.moved)),
        "" if tally.seconds is None else f"{tally.seconds:.1f} s",
    ]
