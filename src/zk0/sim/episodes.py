"""Episodes played by a scene's expert; those that fail are left out."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from zk0.errors import Zk0Error
from zk0.sim.experts import Unreachable
from zk0.sim.world import Observation, World

_SETTLED = 0.3  # seconds of unbroken success after which an episode ends
_PATIENCE = 4  # failures that are always forgiven


@dataclass(frozen=True)
class Frame:
    observation: Observation
    action: np.ndarray  # (6,) float32: degrees, gripper 0..100


@dataclass(frozen=True)
class Episode:
    seed: int
    instruction: str
    frames: list[Frame]


def demonstrations(world: World, count: int, first_seed: int) -> Iterator[Episode]:
    """`count` successful episodes, seeds counting up; Zk0Error once most attempts have failed."""
    done = failed = 0
    while done < count:
        episode = demonstrate(world, first_seed + done + failed)
        if episode is None:
            failed += 1
            _give_up_if_hopeless(world, done, failed)
        else:
            done += 1
            yield episode


def demonstrate(world: World, seed: int) -> Episode | None:
    """One episode by the expert; None where it cannot reach the goal or does not succeed."""
    world.reset(seed)
    try:
        actions = world.expert_actions()
    except Unreachable:
        return None
    frames: list[Frame] = []
    streak = 0
    for action in actions:
        frames.append(Frame(world.observe(), action))
        world.step(action)
        streak = streak + 1 if world.success else 0
        if streak >= _SETTLED * world.fps:
            break
    return Episode(seed, world.instruction, frames) if world.success else None


def _give_up_if_hopeless(world: World, done: int, failed: int) -> None:
    if failed > _PATIENCE and failed > done:
        raise Zk0Error(
            f"the scripted expert failed {failed} of {done + failed} times at "
            f"'{world.scene.task}' in {world.scene.region}: choose a place within its reach"
        )
