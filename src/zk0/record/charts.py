"""Charts of a run as PNG."""

import os
from collections.abc import Mapping
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

Curve = Mapping[int, float]  # policy loss by round


def loss_chart(path: Path, server: Mapping[str, Curve], clients: Mapping[str, Curve]) -> None:
    """Draw policy loss over rounds: the server's unseen sets left, the clients' own right."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw(left, "Unseen by every client (server)", server, emphasised="composite")
    _draw(right, "Each client's held-out episodes", clients)
    left.set_ylabel("policy loss (flow matching, normalised)")
    partial = path.with_name(f".{path.name}")
    figure.savefig(partial, dpi=150, format="png")
    os.replace(partial, path)


def _draw(axes: Axes, title: str, curves: Mapping[str, Curve], emphasised: str = "") -> None:
    for name, curve in curves.items():
        strong = name == emphasised
        axes.plot(
            list(curve),
            list(curve.values()),
            label=name,
            marker="o",
            markersize=3.5,
            linewidth=2.4 if strong else 1.4,
            color="black" if strong else None,
        )
    axes.set_title(title, fontsize=11, loc="left")
    axes.set_xlabel("round")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if curves:
        axes.legend(frameon=False, fontsize=9)
