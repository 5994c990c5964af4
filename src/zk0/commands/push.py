"""`zk0 push`: a checkpoint to the Hugging Face Hub."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from zk0.record.hub import Upload


def push(
    checkpoint: Annotated[Path, typer.Argument(help="A policy folder, such as RUN/models/last.")],
    repository: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Made where missing.")],
    private: Annotated[
        bool, typer.Option("--private/--public", help="Who can see a new repository.")
    ] = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would be sent; asks nobody.")
    ] = False,
) -> None:
    """Upload a checkpoint to the Hugging Face Hub; without --public nobody else sees it, and a
    repository that is public already is refused."""
    from zk0.record.hub import plan_upload, push_checkpoint

    if dry_run:
        upload = plan_upload(checkpoint, repository)
        Console().print(_files(upload))
        seen = "private" if private else "public"
        print(f'dry run: nothing was sent to {repository} ({seen}): "{upload.message}"')
        return
    print(push_checkpoint(checkpoint, repository, private))


def _files(upload: "Upload") -> Table:
    table = Table("file", box=None, header_style="bold")
    table.add_column("bytes", justify="right")
    for name, size in upload.files.items():
        table.add_row(name, f"{size:,}")
    table.add_row("total", f"{sum(upload.files.values()):,}")
    return table
