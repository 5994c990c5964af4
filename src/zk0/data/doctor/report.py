"""A dataset's findings with the facts that they rest on."""

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zk0.data.doctor.arm import units
from zk0.data.doctor.doubled import doubled_rows, doubled_share
from zk0.data.doctor.duplicates import hashes, shared
from zk0.data.doctor.examine import Level, examine_recording
from zk0.data.doctor.findings import Finding
from zk0.data.doctor.licence import licence
from zk0.data.doctor.motion import lag
from zk0.data.doctor.reading import Unreadable, read
from zk0.data.doctor.recording import Recording
from zk0.data.statistics import ACTION, STATE


@dataclass(frozen=True, eq=False)
class Report:
    """What was found in one dataset; `recording` is None where it could not be read."""

    slug: str
    level: Level
    seconds: float
    findings: Sequence[Finding]
    recording: Recording | None

    @property
    def errors(self) -> int:
        return sum(finding.severity == "error" for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        return {
            "dataset": self.slug,
            "level": self.level,
            "seconds": round(self.seconds, 3),
            "findings": [finding.to_json() for finding in self.findings],
            "facts": facts(self.recording) if self.recording else None,
        }


def report(root: Path, slug: str, level: Level) -> Report:
    """`examine` with what was measured; raises `Zk0Error` where `root` is no dataset."""
    start = time.monotonic()
    try:
        recording = read(root, slug)
    except Unreadable as broken:
        return Report(slug, level, time.monotonic() - start, [broken.finding], None)
    findings = examine_recording(recording, level)
    return Report(slug, level, time.monotonic() - start, findings, recording)


def shared_episodes(reports: Iterable[Report]) -> list[Finding]:
    """Episodes that two of these datasets share."""
    return list(shared(each.recording for each in reports if each.recording))


def facts(recording: Recording) -> dict[str, Any]:
    """What was measured, for JSON."""
    found, rows = lag(recording), doubled_rows(recording)
    state = units(recording)
    return {
        "episodes": len(recording.stretches),
        "frames": len(recording.columns),
        "fps": recording.fps,
        "robot_type": recording.robot_type,
        "tasks": sorted(set(recording.tasks.values())),
        "cameras": {key: recording.features[key].get("shape") for key in recording.cameras},
        "licence": licence(recording),
        "units": {"name": state.name, "certain": state.certain, "reason": state.reason},
        "ranges": {feature: _ranges(recording, feature) for feature in (STATE, ACTION)},
        "action_lead_s": found.seconds if found else None,
        "action_state_correlation": found.correlation if found else None,
        "doubled_rows": len(rows),
        "doubled_share": doubled_share(recording, rows),
        "episode_hashes": list(hashes(recording).values()),
    }


def _ranges(recording: Recording, feature: str) -> dict[str, list[float | None]]:
    """Minimum and maximum of each joint's finite values."""
    return {
        joint: [end if math.isfinite(end) else None for end in (each.minimum, each.maximum)]
        for joint, each in recording.ranges(feature).items()
    }
