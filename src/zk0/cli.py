"""`zk0 ...`: everything that is not a Flower run. Heavy libraries are imported by the command that
needs them, so that `zk0 --help` answers at once and on a machine without them."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from zk0.commands import baseline, videos
from zk0.commands.compare import compare
from zk0.commands.doctor import doctor
from zk0.commands.evaluate import evaluate, rollout
from zk0.commands.fetch import fetch
from zk0.commands.push import push
from zk0.commands.report import report
from zk0.commands.sweep import sweep
from zk0.commands.watch import runs, watch
from zk0.errors import Zk0Error

if TYPE_CHECKING:
    from zk0.config import Config
    from zk0.federation.plan import Outcome
    from zk0.federation.schedules import RoundPlan, ScheduleSettings

app = typer.Typer(
    help="Federated fine-tuning of SmolVLA on SO-100/SO-101 arms.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
config_app = typer.Typer(help="The configuration of a run.", no_args_is_help=True)
data_app = typer.Typer(help="Datasets: what there is, and what is wrong.", no_args_is_help=True)
app.add_typer(config_app, name="config")
app.add_typer(data_app, name="data")
app.add_typer(baseline.app, name="baseline")
app.add_typer(videos.app, name="videos")
for command in (watch, runs, report, compare, evaluate, rollout, sweep, push):
    app.command()(command)
data_app.command()(doctor)
data_app.command()(fetch)

Names = Annotated[list[str] | None, typer.Argument(help="Datasets; all where none is named.")]


def main() -> None:
    """The `zk0` command: a `Zk0Error` becomes one line on stderr and exit status 1."""
    try:
        app()
    except Zk0Error as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


@config_app.command("check")
def check_config(
    app_folder: Annotated[Path, typer.Option("--app", help="The app's folder.")] = Path(),
    run_config: Annotated[
        list[str] | None, typer.Option("--run-config", "-c", help="As for flwr run; repeatable.")
    ] = None,
) -> None:
    """Check pyproject.toml and overrides as a run would, and print what it would use."""
    from zk0.config import check

    config, datasets = check(app_folder, run_config or [])
    table = Table("key", "value", box=None, header_style="bold")
    for key, value in config.to_run_config().items():
        table.add_row(key, str(value))
    for number, dataset in enumerate(datasets.clients):
        table.add_row(f"client {number}", dataset.source)
    for dataset in datasets.server:
        table.add_row("server", dataset.source)
    Console().print(table)


@app.command("schedule")
def show_schedule(
    app_folder: Annotated[Path, typer.Option("--app", help="The app's folder.")] = Path(),
    run_config: Annotated[
        list[str] | None, typer.Option("--run-config", "-c", help="As for flwr run; repeatable.")
    ] = None,
    losses: Annotated[
        Path | None, typer.Option(help="A run folder, or a JSON list of losses from round 0 on.")
    ] = None,
    png: Annotated[Path, typer.Option(help="Where the chart goes.")] = Path("schedule.png"),
) -> None:
    """Print and draw each round's learning rate and mu, without training."""
    from zk0.config import load, parse_overrides
    from zk0.federation.plan import preview_rate, read_outcomes, schedule_settings, simulate
    from zk0.record.charts import schedule_chart

    config, _ = load(app_folder, parse_overrides(run_config or []))
    settings = schedule_settings(config, preview_rate(config))
    outcomes = read_outcomes(losses, settings.num_rounds) if losses else []
    plans = simulate(settings, outcomes)
    for line in _schedule_premises(config, settings, outcomes):
        print(line)
    Console().print(_schedule_table(plans))
    try:
        schedule_chart(png, plans)
    except OSError as error:
        raise Zk0Error(
            f"--png: {png} cannot be written ({error.strerror}). Name a file in a folder that is "
            "there."
        ) from None
    print(f"chart: {png.absolute()}")


def _schedule_premises(
    config: "Config", settings: "ScheduleSettings", outcomes: "Sequence[Outcome]"
) -> Iterator[str]:
    """What a schedule is computed from, in sentences."""
    switches = {
        "adjust-globally": settings.adjust_globally,
        "dynamic-mu": settings.dynamic_mu,
        "boost-hard-clients": settings.boost_hard_clients,
    }
    parts = [f"{key} {'on' if on else 'off'}" for key, on in switches.items()]
    yield f"preset {config.preset}: {settings.lr_schedule}, {', '.join(parts)}"
    if not config.initial_lr:
        yield (
            f"initial-lr 0: assuming {settings.initial_lr:g} for model-name "
            f'"{config.model_name}"; a run takes the rate that its model comes with'
        )
    if not outcomes:
        yield "losses: none, so that no rule acts"
        return
    server = sum(outcome.server_loss is not None for outcome in outcomes)
    clients = sum(len(outcome.client_losses) for outcome in outcomes)
    yield f"losses: {server} of the server, {clients} of clients"


def _schedule_table(plans: "Sequence[tuple[int, RoundPlan]]") -> Table:
    table = Table(box=None, header_style="bold")
    for heading in ("round", "learning rate", "mu"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("boosted clients", overflow="fold")
    table.add_column("rules", overflow="fold")
    for number, plan in plans:
        boosted = [f"{client}: {rate:.3e}" for client, rate in sorted(plan.boosted.items())]
        rate, mu = f"{plan.learning_rate:.3e}", f"{plan.proximal_mu:.3e}"
        table.add_row(str(number), rate, mu, ", ".join(boosted), ", ".join(plan.rules))
    return table


@data_app.command("prepare")
def prepare_data(names: Names = None) -> None:
    """Make the simulated demonstrations that are not there yet."""
    from zk0.sim.demonstrations import prepare
    from zk0.sim.recipes import RECIPES

    for name, folder in prepare(names or list(RECIPES)).items():
        print(f"{name}: {folder}")


@data_app.command("list")
def list_data() -> None:
    """The embedded world's datasets, and which of them are ready."""
    from zk0.sim.demonstrations import describe
    from zk0.sim.recipes import RECIPES

    table = Table("name", "state", "episodes", "what", box=None, header_style="bold")
    for name, recipe in RECIPES.items():
        table.add_row(name, describe(name).state, str(recipe.episodes), recipe.description)
    Console().print(table)


@data_app.command("show")
def show_data(
    source: Annotated[str, typer.Argument(help="sim:NAME, local:/path or hf:owner/name.")],
    png: Annotated[Path | None, typer.Option(help="Where the contact sheet goes.")] = None,
) -> None:
    """Print a dataset's frames, episodes and features, and draw a contact sheet."""
    from zk0.data.contact_sheet import contact_sheet
    from zk0.data.frames import open_metadata
    from zk0.data.sources import Source, fetch

    parsed = Source.parse(source if ":" in source else f"sim:{source}")
    folder = fetch(parsed)
    metadata = open_metadata(folder, parsed.slug)
    table = Table("feature", "type", "shape", box=None, header_style="bold")
    for name, feature in metadata.features.items():
        table.add_row(name, feature["dtype"], str(tuple(feature["shape"])))
    print(f"{folder}: {metadata.total_frames} frames, {metadata.total_episodes} episodes, ", end="")
    print(f"{metadata.fps} fps, robot {metadata.robot_type}")
    for task in metadata.tasks.index:
        print(f'"{task}"')
    Console().print(table)
    sheet = png or Path(f"{parsed.slug}.png")
    contact_sheet(folder, sheet)
    print(f"contact sheet: {sheet.absolute()}")


if __name__ == "__main__":
    main()
