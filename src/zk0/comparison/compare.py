"""Comparing finished runs, from their folders to compare.json, compare.md and compare.png."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zk0.comparison import chart, notes, tables
from zk0.comparison.choice import choose_metrics, left_out
from zk0.comparison.findings import Finding
from zk0.comparison.groups import Group, group_runs
from zk0.comparison.refusal import refuse_incomparable
from zk0.comparison.rows import Row, compare_metric
from zk0.comparison.runs import read_run
from zk0.errors import Zk0Error
from zk0.files import write_whole

SCHEMA = "zk0-comparison/1"


def compare_runs(
    paths: Sequence[Path],
    metrics: Sequence[str] = (),
    confidence: float = 0.95,
    which_round: str = "last",
) -> "Comparison":
    """Compare the runs in `paths`; the group of the first one is the reference.

    `which_round` is "last", "best" or a number. Raises `Zk0Error` where runs have not finished,
    are not comparable, or lack a metric.
    """
    if not 0.5 <= confidence < 1:
        raise Zk0Error(f"--confidence {confidence:g}: give a share from 0.5 up to, not with, 1.")
    runs = [read_run(Path(path), which_round) for path in paths]
    refuse_incomparable(runs, which_round)
    groups = group_runs(runs)
    rows = [compare_metric(each, groups, confidence) for each in choose_metrics(metrics, runs)]
    remarks = [
        *notes.note_seeds(groups),
        *notes.note_single_episodes(groups[0], rows),
        *notes.note_picks(rows, which_round),
        *notes.note_incidents([run for group in groups for run in group.runs]),
        *left_out(metrics, runs),
        *notes.note_chance(rows, confidence),
    ]
    return Comparison(confidence, which_round, groups, rows, remarks)


@dataclass(frozen=True, eq=False)
class Comparison:
    """What `compare_runs` found."""

    confidence: float
    which_round: str
    groups: Sequence[Group]
    rows: Sequence[Row]
    notes: Sequence[str]

    @property
    def reference(self) -> str:
        return self.groups[0].label

    @property
    def findings(self) -> list[Finding]:
        """All, metric by metric."""
        found = [each for row in self.rows for each in (*row.findings, row.best_local)]
        return [each for each in found if each]

    @property
    def sentences(self) -> list[str]:
        return [each for row in self.rows for each in row.sentences]

    def to_json(self) -> dict[str, Any]:
        """All of it, in the units of `Family.unit`."""
        return {
            "schema": SCHEMA,
            "confidence": self.confidence,
            "round": self.which_round,
            "reference": self.reference,
            "groups": [group.to_json() for group in self.groups],
            "metrics": [row.to_json() for row in self.rows],
            "findings": [each.to_json() for each in self.findings],
            "notes": list(self.notes),
        }

    def to_markdown(self) -> str:
        """Tables and sentences."""
        parts = [
            f"# {' against '.join(group.label for group in self.groups)}",
            f"Means over training seeds, {100 * self.confidence:g} % intervals in brackets. The "
            "best value of a row is bold; whether it is better is for the differences to say.",
            tables.to_markdown(tables.estimate_table(self.rows)),
        ]
        if len(self.groups) > 1:
            about = f'"Better" and "worse" are said of {self.reference}, "open" claims neither.'
            parts += [f"## {self.reference} less the others", about]
            parts += [tables.to_markdown(tables.difference_table(self.rows))]
            parts += ["## Findings", _bullets(self.sentences)]
        if self.notes:
            parts += ["## To keep in mind", _bullets(self.notes)]
        return "\n\n".join([*parts, "## Runs", _bullets(self._origins())]) + "\n"

    def _origins(self) -> list[str]:
        return [
            f"{group.label}, seed {run.seed}: {run.path}, round {run.chosen} of {run.ended}"
            for group in self.groups
            for run in group.runs
        ]

    def save(self, folder: Path) -> list[Path]:
        """Write compare.json, compare.md and compare.png; raises `Zk0Error` where it cannot."""
        text = json.dumps(self.to_json(), indent=2, allow_nan=False) + "\n"
        contents = {
            "compare.json": text.encode(),
            "compare.md": self.to_markdown().encode(),
            "compare.png": chart.draw(self.rows, self.confidence),
        }
        for name, content in contents.items():
            _write(folder / name, content)
        return [folder / name for name in contents]


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _write(path: Path, content: bytes) -> None:
    try:
        write_whole(path, content)
    except OSError as error:
        raise Zk0Error(
            f"--output: {path} cannot be written ({error.strerror}). Name another folder."
        ) from error
