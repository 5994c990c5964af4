"""The run against others: what `zk0 compare` would say, and which of them cannot be compared."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from zk0.comparison.compare import Comparison, compare_runs
from zk0.comparison.metrics import family_name
from zk0.comparison.refusal import refuse_incomparable
from zk0.comparison.runs import read_run
from zk0.comparison.tables import difference_table
from zk0.errors import Zk0Error

TOLD = ("loss", "success")  # families whose findings are told without being asked


@dataclass(frozen=True)
class Standing:
    """How often the run's group is better or worse than another, of the metrics with intervals."""

    other: str
    better: int
    worse: int
    open: int

    @property
    def sentence(self) -> str:
        total = self.better + self.worse + self.open
        return (
            f"Than {self.other}: better in {self.better} of {total} metrics, worse in "
            f"{self.worse}; in {self.open} no difference can be claimed."
        )


@dataclass(frozen=True)
class Against:
    """A comparison as the report shows it; empty where no run was named."""

    reference: str = ""
    standings: Sequence[Standing] = ()
    told: Sequence[str] = ()
    notes: Sequence[str] = ()
    table: Sequence[Sequence[str]] = ()
    refused: Sequence[str] = ()


def compare_with(run: Path, others: Sequence[Path]) -> Against:
    """Compare `run` with those of `others` that it can be compared with; why not with the rest."""
    if not others:
        return Against()
    comparable, refused = _sift(run, others)
    if not comparable:
        return Against(refused=refused)
    try:
        comparison = compare_runs([run, *comparable])
    except Zk0Error as error:  # they fit the run, but not each other
        return Against(refused=[*refused, str(error)])
    return Against(
        comparison.reference,
        _standings(comparison),
        [
            finding.sentence()
            for row in comparison.rows
            for finding in row.findings
            if family_name(row.metric) in TOLD and finding.verdict != "open"
        ],
        comparison.notes,
        difference_table(comparison.rows) if len(comparison.groups) > 1 else [],
        refused,
    )


def _sift(run: Path, others: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """The comparable ones, and a reason for each that is not."""
    comparable, refused = [], []
    try:
        mine = read_run(run)
    except Zk0Error as error:
        return [], [str(error)]
    for other in others:
        try:
            refuse_incomparable([mine, read_run(other)], "last")
        except Zk0Error as error:
            refused.append(str(error))
        else:
            comparable.append(other)
    return comparable, refused


def _standings(comparison: Comparison) -> list[Standing]:
    verdicts = [
        (each.other.label, each.verdict)
        for row in comparison.rows
        for each in row.findings
        if each.difference.low is not None
    ]
    counts = Counter(verdicts)
    return [
        Standing(label, *(counts[label, verdict] for verdict in ("better", "worse", "open")))
        for label in dict.fromkeys(label for label, _ in verdicts)
    ]
