"""The chart: a panel for each metric, in it a dot and a bar for each group."""

import io
import math
from collections.abc import Sequence
from itertools import zip_longest

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from zk0.comparison.rows import Row
from zk0.comparison.tables import title

WIDEST = 4  # panels side by side


def draw(rows: Sequence[Row], confidence: float) -> bytes:
    """A PNG with a panel for each metric, in as even rows as can be.

    The shade is the reference's interval; it is there to guide the eye, the differences judge.
    """
    labels = list(rows[0].estimates)
    strips = math.ceil(len(rows) / WIDEST)
    columns = math.ceil(len(rows) / strips)
    size = (3.0 + 2.7 * columns, 0.5 + (0.75 + 0.27 * len(labels)) * strips)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(strips, columns, squeeze=False)
    for axes, row in zip_longest(panels.flat, rows):
        if row is None:
            axes.set_axis_off()
        else:
            _draw_panel(axes, row)
            _dress(axes, row, labels if axes in panels[:, 0] else [""] * len(labels))
    heading = f"Means over training seeds, {100 * confidence:g} % intervals; shade: {labels[0]}"
    figure.suptitle(heading, fontsize=10, x=0.01, ha="left")
    content = io.BytesIO()
    figure.savefig(content, dpi=150, format="png")
    return content.getvalue()


def _draw_panel(axes: Axes, row: Row) -> None:
    scale = row.family.scale
    shade = next(iter(row.estimates.values())).interval
    if shade.low is not None and shade.high is not None:
        axes.axvspan(scale * shade.low, scale * shade.high, color="C0", alpha=0.12, lw=0)
    for line, (label, each) in enumerate(row.estimates.items()):
        found, colour = each.interval, f"C{line % 10}"
        if found.low is not None and found.high is not None:
            axes.plot([scale * found.low, scale * found.high], [line] * 2, color=colour, lw=2)
        face = colour if label in row.best else "white"
        axes.plot(scale * found.estimate, line, "o", ms=6, mec=colour, mfc=face, mew=1.6)


def _dress(axes: Axes, row: Row, labels: Sequence[str]) -> None:
    direction = "higher" if row.family.higher_is_better else "lower"
    heading = f"{title(row.metric, row.family.shown)}, {direction} is better"
    axes.set_title(heading, fontsize=9, loc="left")
    axes.set_yticks(range(len(labels)), labels, fontsize=9)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    if row.family.kind == "rate":
        axes.set_xlim(-4, 104)
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(axis="x", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
