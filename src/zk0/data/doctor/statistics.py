"""Whether meta/stats.json describes the data."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zk0.data.doctor.findings import Finding
from zk0.data.doctor.recording import Recording
from zk0.data.statistics import ACTION, STATE

TOLERANCE = 1e-3  # of a joint's range
_FIX = "zk0 data doctor --fix computes them anew in a copy."


def check_statistics(recording: Recording) -> Iterator[Finding]:
    """mean, std, min and max of state and action are those of the rows."""
    if recording.statistics is None:
        yield recording.finding(
            "statistics",
            "warning",
            "there is no meta/stats.json: zk0 does without, lerobot-train does not.",
            _FIX,
        )
        return
    for feature in (STATE, ACTION):
        if wrong := _wrong(recording.values(feature), recording.statistics.get(feature)):
            yield recording.finding(
                "statistics",
                "warning",
                f"meta/stats.json: {', '.join(wrong)} of {feature} not those of the rows; zk0 "
                "computes its own, lerobot-train normalises with these.",
                _FIX,
            )


def moments(values: NDArray[np.float32]) -> dict[str, NDArray[np.float64]]:
    """mean, std, min and max of each joint of `values` (frames, joints)."""
    exact = values.astype(np.float64)
    return {
        "mean": exact.mean(0),
        "std": exact.std(0),
        "min": exact.min(0),
        "max": exact.max(0),
    }


def _wrong(values: NDArray[np.float32], told: object) -> list[str]:
    """Names of the statistics that are missing or off; none where the data are not finite."""
    if not np.isfinite(values).all():
        return []
    if not isinstance(told, Mapping):
        return ["all"]
    found = moments(values)
    span, largest = found["max"] - found["min"], np.abs(values).max(0)
    scale = span + 0.1 * largest + 1e-3  # rounding alone gives a constant joint a deviation
    return [name for name, true in found.items() if not _close(told.get(name), true, scale)]


def _close(told: Any, true: NDArray[np.float64], scale: NDArray[np.float64]) -> bool:
    try:
        numbers = np.asarray(told, np.float64).reshape(-1)
    except (TypeError, ValueError):
        return False
    return numbers.shape == true.shape and bool((np.abs(numbers - true) <= TOLERANCE * scale).all())
