"""The chart: a panel for each metric, in it a dot and a bar for each group."""

import io
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from zk0.comparison.metrics import family_name
from zk0.comparison.rows import Row
from zk0.comparison.tables import title


def draw(rows: Sequence[Row], confidence: float) -> bytes:
    """A PNG: a row of panels for each family of metrics.

    The shade is the reference's interval; it is there to guide the eye, the differences judge.
    """
    strips, labels = _strips(rows), list(rows[0].estimates)
    columns = max(map(len, strips))
    height = 0.75 + 0.27 * len(labels)
    size = (3.0 + 2.7 * columns, 0.5 + height * len(strips))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(len(strips), columns, squeeze=False)
    for axes_row, strip in zip(panels, strips, strict=True):
        for axes, row in zip(axes_row, strip, strict=False):
            _draw_panel(axes, row)
            _dress(axes, row, labels if axes is axes_row[0] else [""] * len(labels))
        for axes in axes_row[len(strip) :]:
            axes.set_axis_off()
    heading = f"Means over training seeds, {100 * confidence:g} % intervals; shade: {labels[0]}"
    figure.suptitle(heading, fontsize=10, x=0.01, ha="left")
    content = io.BytesIO()
    figure.savefig(content, dpi=150, format="png")
    return content.getvalue()


def _strips(rows: Sequence[Row]) -> list[list[Row]]:
    """The rows of each family together; plain counts are one family here."""
    strips: dict[str, list[Row]] = {}
    for row in rows:
        family = "plain" if row.family.kind == "plain" else family_name(row.metric)
        strips.setdefault(family, []).append(row)
    return list(strips.values())


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
