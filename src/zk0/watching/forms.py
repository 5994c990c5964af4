"""Numbers as a person reads them."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from zk0.watching.events import Successes

BLOCKS = "▁▂▃▄▅▆▇█"


def span(seconds: float) -> str:
    """A duration in the one or two units that matter."""
    whole = round(seconds)
    if whole < 100:
        return f"{whole} s"
    if whole < 100 * 60:
        return f"{round(whole / 60)} min"
    hours, minutes = divmod(round(whole / 60), 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def ago(then: datetime, now: datetime) -> str:
    return f"{span(max(0.0, (now - then).total_seconds()))} ago"


def size(count: float) -> str:
    """Bytes, in units of a thousand."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def loss(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def percent(value: float | None) -> str:
    """A relative change, with its sign."""
    return "" if value is None else f"{value:+.0%}"


def counted(rules: Iterable[str]) -> str:
    """Words with how often each occurs, where more than once."""
    every = list(rules)
    return ", ".join(
        f"{rule} {every.count(rule)}x" if every.count(rule) > 1 else rule
        for rule in dict.fromkeys(every)
    )


def successes(tasks: Mapping[str, Successes]) -> str:
    return ", ".join(f"{name} {each.successes}/{each.episodes}" for name, each in tasks.items())


def sparkline(values: Sequence[float], width: int) -> str:
    """A curve in one line of at most `width` characters, from its lowest value to its highest;
    of a longer one every n-th value, and the last."""
    if len(values) > width:
        last = len(values) - 1
        values = [values[round(place * last / (width - 1))] for place in range(width)]
    low, high = min(values, default=0.0), max(values, default=0.0)
    scale = (len(BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(BLOCKS[round((value - low) * scale)] for value in values)
