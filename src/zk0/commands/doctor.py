"""`zk0 data doctor`: what is wrong with a dataset, before anybody trains on it."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from zk0.errors import Zk0Error
from zk0.files import write_json

if TYPE_CHECKING:
    from zk0.data.doctor.findings import Finding
    from zk0.data.doctor.report import Report

_COLOURS = {"error": "red", "warning": "yellow", "note": "cyan"}


class Thoroughness(StrEnum):
    """How much of a dataset is read."""

    cheap = "cheap"
    quick = "quick"
    thorough = "thorough"


def doctor(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...", help="sim:NAME, local:/path, hf:owner/name, or a folder."
        ),
    ],
    level: Annotated[
        Thoroughness,
        typer.Option(help="cheap: no pictures; quick: some of each episode; thorough: all."),
    ] = Thoroughness.quick,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write findings and measurements there too.")
    ] = None,
    fix: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write a repaired copy there.")
    ] = None,
) -> None:
    """Find what is wrong with datasets of an SO-100 or SO-101 arm; several are also compared.

    Exit status 1 where there is an error, with --fix where one remains in the copy.
    """
    from zk0.data.doctor.report import report, shared_episodes

    folders = _folders(sources)
    if fix is not None and len(folders) != 1:
        raise Zk0Error(f"--fix repairs one dataset at a time: {len(folders)} are named.")
    reports = [report(folder, slug, level.value) for slug, folder in folders.items()]
    both = shared_episodes(reports)
    console = _console()
    for each in reports:
        _show(console, each)
    if len(reports) > 1:
        _show_shared(console, both)
    if fix is not None:
        ((slug, folder),) = folders.items()
        reports.append(_fix(console, slug, folder, fix, reports[0]))
    _write(json_file, reports, both)
    if reports[-1].errors if fix is not None else any(each.errors for each in reports):
        raise typer.Exit(1)


def _folders(sources: Sequence[str]) -> dict[str, Path]:
    """Each dataset's folder by a name of its own; one that is named twice is there once."""
    from zk0.data.sources import Source, fetch

    named = {}
    for text in sources:
        source = Source("local", text) if Path(text).is_dir() else Source.parse(text).whole
        named[source.key] = source
    folders: dict[str, Path] = {}
    for source in named.values():
        slug, number = source.slug, 2
        while slug in folders:
            slug, number = f"{source.slug} ({number})", number + 1
        folders[slug] = fetch(source)
    return folders


def _console() -> Console:
    console = Console()
    if not console.is_terminal:
        console.width = 200  # a file has no edge to fold at
    return console


def _show(console: Console, report: "Report") -> None:
    console.print(f"[bold]{escape(report.slug)}[/]{escape(_summary(report))}")
    if report.findings:
        console.print(_table(report.findings))
    else:
        console.print("no findings")
    console.print()


def _summary(report: "Report") -> str:
    """Size and units in a few words."""
    from zk0.data.doctor.arm import units

    if (recording := report.recording) is None:
        return ""
    found = units(recording)
    name = (
        "degrees or normalised" if (found.name, found.certain) == ("degrees", False) else found.name
    )
    return (
        f": {len(recording.stretches)} episodes, {len(recording.columns)} frames, "
        f"{recording.fps:g} frames/s, {len(recording.cameras)} cameras, units {name} "
        f"({report.level}, {report.seconds:.1f} s)"
    )


def _show_shared(console: Console, findings: "Sequence[Finding]") -> None:
    if findings:
        console.print(_table(findings, "dataset"))
    else:
        console.print("no episode is in two of these datasets")


def _table(findings: "Sequence[Finding]", *more: str) -> Table:
    table = Table(*more, "severity", "code", "what", "what to do", box=None, header_style="bold")
    for each in findings:
        severity = f"[{_COLOURS[each.severity]}]{each.severity}[/]"
        texts = [escape(text) for text in (each.code, each.message, each.fix)]
        table.add_row(*(escape(each.dataset) for _ in more), severity, *texts)
    return table


def _fix(console: Console, slug: str, folder: Path, target: Path, found: "Report") -> "Report":
    """Write the repaired copy, say what was done, and examine it."""
    from zk0.data.doctor.repair import repair
    from zk0.data.doctor.report import report

    told = repair(folder, slug, target, found.findings, found.level)
    for line in told.done:
        console.print(f"done: {escape(line)}")
    for line in told.not_done:
        console.print(f"not done: {escape(line)}")
    console.print(f"repaired copy: {escape(str(target.absolute()))}\n")
    remaining = report(target, f"{slug}, repaired", found.level)
    _show(console, remaining)
    return remaining


def _write(path: Path | None, reports: "Sequence[Report]", both: "Sequence[Finding]") -> None:
    content = {
        "datasets": [report.to_json() for report in reports],
        "shared": [finding.to_json() for finding in both],
    }
    write_json(path, content)
