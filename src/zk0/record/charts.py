"""Charts of a run as PNG."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

Curve = Mapping[int, float]  # a value by round


class Plan(Protocol):
    """What a schedule decided for a round."""

    @property
    def learning_rate(self) -> float: ...
    @property
    def proximal_mu(self) -> float: ...
    @property
    def boosted(self) -> Mapping[int, float]: ...
    @property
    def rules(self) -> Sequence[str]: ...


@dataclass(frozen=True)
class Planned:
    """A plan as the record has it."""

    learning_rate: float
    proximal_mu: float
    boosted: Mapping[int, float]  # learning rates of hard clients
    rules: Sequence[str]


# The rules that can move each of a schedule's two curves, and the rules' colours.
RATE_RULES = ("spike-hold", "divergence", "stall", "cap", "plateau", "hard-client")
MU_RULES = ("spike-hold", "divergence", "mu-spread")
COLOURS = {rule: f"C{i}" for i, rule in enumerate(dict.fromkeys(RATE_RULES + MU_RULES))}
ROW = 0.06  # height of a row of marks, as a share of the panel


def loss_chart(path: Path, server: Mapping[str, Curve], clients: Mapping[str, Curve]) -> None:
    """Draw policy loss over rounds: the server's unseen sets left, the clients' own right."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw(left, "Unseen by every client (server)", server, emphasised="composite")
    _draw(right, "Each client's held-out episodes", clients)
    left.set_ylabel("policy loss (flow matching, normalised)")
    _save(figure, path)


def schedule_chart(path: Path, plans: Sequence[tuple[int, Plan]]) -> None:
    """Draw learning rate (left) and mu (right) over rounds, from each round's plan.

    A row of marks above a curve shows the rounds in which the rule named beside it acted.
    """
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_curve(left, {number: plan.learning_rate for number, plan in plans}, strong=True)
    boosted = [(number, rate) for number, plan in plans for rate in plan.boosted.values()]
    for number, rate in boosted:
        left.plot(number, rate, "x", color=COLOURS["hard-client"])
    _dress(left, "Learning rate (crosses: hard clients)" if boosted else "Learning rate")
    _mark(left, RATE_RULES, plans)
    _draw_curve(right, {number: plan.proximal_mu for number, plan in plans}, strong=True)
    _dress(right, "Proximal mu")
    _mark(right, MU_RULES, plans)
    _save(figure, path)


def _draw(axes: Axes, title: str, curves: Mapping[str, Curve], emphasised: str = "") -> None:
    for name, curve in curves.items():
        _draw_curve(axes, curve, name == emphasised, name)
    _dress(axes, title)
    if curves:
        axes.legend(frameon=False, fontsize=9)


def _draw_curve(axes: Axes, curve: Curve, strong: bool, name: str = "") -> None:
    axes.plot(
        list(curve),
        list(curve.values()),
        label=name,
        marker="o",
        markersize=3.5,
        linewidth=2.4 if strong else 1.4,
        color="black" if strong else None,
    )


def _dress(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=11, loc="left")
    axes.set_xlabel("round")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _mark(axes: Axes, rules: Sequence[str], plans: Sequence[tuple[int, Plan]]) -> None:
    """A row of marks for each rule that acted, in room made above the curve."""
    acted = {rule: [number for number, plan in plans if rule in plan.rules] for rule in rules}
    rows = [(rule, rounds) for rule, rounds in acted.items() if rounds]
    axes.set_ylim(top=1.05 * axes.dataLim.y1 / (1 - ROW * len(rows)) or 1)
    along = axes.get_xaxis_transform()  # x in rounds, y as a share of the panel
    for row, (rule, rounds) in enumerate(rows):
        height, colour = 1 - ROW * (row + 0.5), COLOURS[rule]
        axes.plot(rounds, [height] * len(rounds), "v", ms=5, color=colour, transform=along)
        axes.text(
            1.01, height, rule, fontsize=9, va="center", color=colour, transform=axes.transAxes
        )


def _save(figure: Figure, path: Path) -> None:
    """Write the chart in one step: whoever looks at `path` sees a whole one."""
    partial = path.with_name(f".{path.name}")
    try:
        figure.savefig(partial, dpi=150, format="png")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
