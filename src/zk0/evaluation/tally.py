"""A task's rollouts in a few numbers."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from zk0.evaluation.intervals import wilson
from zk0.record.evidence import Rollout


@dataclass(frozen=True)
class Tally:
    """One task's rollouts together; shares are of the episodes, None where the task has no such
    stage."""

    task: str
    episodes: int
    successes: int
    low: float  # Wilson's 95 % interval of the success rate
    high: float
    nearest: float  # metres, mean of each episode's least distance from the object
    grasped: float | None
    lifted: float | None
    moved: float | None
    seconds: float | None  # mean simulated time of the successful ones
    smoothness: float  # degrees / s^2, mean

    @property
    def rate(self) -> float:
        return self.successes / self.episodes

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def tally(rollouts: Sequence[Rollout]) -> Tally:
    """The rollouts of one task, at least one."""
    won = [each for each in rollouts if each.success]
    low, high = wilson(len(won), len(rollouts), 0.95)
    return Tally(
        task=rollouts[0].task,
        episodes=len(rollouts),
        successes=len(won),
        low=low,
        high=high,
        nearest=float(np.mean([each.nearest for each in rollouts])),
        grasped=_share([each.grasped for each in rollouts]),
        lifted=_share([each.lifted for each in rollouts]),
        moved=_share([each.moved for each in rollouts]),
        seconds=float(np.mean([each.seconds for each in won])) if won else None,
        smoothness=float(np.mean([each.smoothness for each in rollouts])),
    )


def by_task(rollouts: Sequence[Rollout]) -> dict[str, Tally]:
    """A tally for each task, in the order of their first rollouts."""
    tasks = dict.fromkeys(each.task for each in rollouts)
    return {task: tally([each for each in rollouts if each.task == task]) for task in tasks}


def _share(reached: Sequence[bool | None]) -> float | None:
    return None if None in reached else float(np.mean([bool(each) for each in reached]))
