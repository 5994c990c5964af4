"""What a run comes down to."""

from collections.abc import Mapping
from typing import Literal

Judgement = Literal["better", "worse", "no verdict"]
Successes = Mapping[int, tuple[int, int]]
"""By round: how many rollouts succeeded, of how many, all tasks together."""


def judge(curve: Mapping[int, float]) -> Judgement:
    """The last evaluated policy against that before round 1, by their losses in `curve`, which has
    them by round."""
    if 0 not in curve or max(curve) == 0:
        return "no verdict"
    return "better" if curve[max(curve)] < curve[0] else "worse"


def verdict(losses: Mapping[str, Mapping[int, float]], successes: Successes) -> str:
    """One honest sentence: is the last policy better than the one before round 1, and the best?"""
    curve = losses["composite"]
    judgement = judge(curve)
    if judgement == "no verdict":
        return "no verdict: the server's evaluation failed before round 1 or in all rounds after it"
    start, end, best = curve[0], curve[max(curve)], min(curve, key=curve.__getitem__)
    change = f"{start:.4f} -> {end:.4f} ({end / start - 1:+.0%})"
    parts = ", ".join(
        f"{name} {values[0]:.4f} -> {values[max(values)]:.4f}"
        for name, values in losses.items()
        if name != "composite"
    )
    return (
        f"policy loss {change}: {'' if judgement == 'better' else 'NOT '}better than its start"
        f"{_in_the_simulator(successes)}; best in round {best} ({curve[best]:.4f}); {parts}"
    )


def _in_the_simulator(successes: Successes) -> str:
    """Of the newest rollouts, beside the start's where that was tried out; else nothing."""
    if not successes:
        return ""
    newest = max(successes)
    won, played = successes[newest]
    before = "" if newest == 0 or 0 not in successes else "{} of {} -> ".format(*successes[0])
    return f", success in {before}{won} of {played} rollouts"
