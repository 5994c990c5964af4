"""What is said of a dataset: one thing each."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")

_NAMED = 8  # parts of a list that a line names


@dataclass(frozen=True)
class Finding:
    """One thing found: a stable code, what it is and where, and what to do. Both are one line."""

    code: str
    severity: Severity
    dataset: str
    message: str
    fix: str
    episodes: tuple[int, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"episodes": list(self.episodes)}


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """Errors first, else in the order found."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def in_episodes(numbers: Iterable[int]) -> str:
    """Episode numbers as a phrase: "episode 3", "episodes 0-4, 9"."""
    stretches: list[list[int]] = []
    for number in sorted(set(numbers)):
        if stretches and number == stretches[-1][-1] + 1:
            stretches[-1][1:] = [number]
        else:
            stretches.append([number])
    parts = ["-".join(str(end) for end in stretch) for stretch in stretches]
    plural = len(stretches) != 1 or len(stretches[0]) > 1
    return f"episode{'s' if plural else ''} {shortened(parts)}"


def shortened(parts: Iterable[object]) -> str:
    """The first few of `parts`, and how many more there are."""
    every = [str(part) for part in parts]
    more = len(every) - _NAMED
    return ", ".join(every[:_NAMED]) + (f" and {more} more" if more > 0 else "")
