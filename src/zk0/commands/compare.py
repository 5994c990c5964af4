"""`zk0 compare`: did one training beat another?"""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(
            help="Run folders, or FOLDER@ROUND; the first one's group is the reference."
        ),
    ],
    metrics: Annotated[
        list[str] | None,
        typer.Option(help="near/loss, or a family such as success; repeatable, or with commas."),
    ] = None,
    confidence: Annotated[float, typer.Option(help="Of the intervals.")] = 0.95,
    which_round: Annotated[
        str, typer.Option("--round", help='Round evaluated: "last", "best" or a number.')
    ] = "last",
    output: Annotated[Path, typer.Option(help="Folder for the table and the chart.")] = Path(
        "comparison"
    ),
) -> None:
    """Compare finished runs with intervals; runs that differ in the seed alone are one group."""
    from zk0.comparison.compare import compare_runs
    from zk0.comparison.tables import difference_table, estimate_table, to_rich

    names = [name.strip() for each in metrics or [] for name in each.split(",")]
    comparison = compare_runs(runs, names, confidence, which_round)
    files = comparison.save(output)
    console = Console()
    console.print(to_rich(estimate_table(comparison.rows)))
    if len(comparison.groups) > 1:
        console.print(Text(f"\n{comparison.reference}, less the others:", style="bold"))
        console.print(to_rich(difference_table(comparison.rows)))
    for line in (*comparison.sentences, *comparison.notes):
        print(line)
    print(f"table, chart: {', '.join(str(path) for path in files)}")
