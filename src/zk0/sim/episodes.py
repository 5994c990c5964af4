"""Episodes played by a scene's expert; those that fail are left out."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from zk0.errors import Zk0Error
from zk0.sim.experts import Unreachable
from zk0.sim.world import Observation, World

_SETTLED = 0.3  # seconds of unbroken success after which an episode ends
_PATIENCE = 4  # failures that are always forgiven
_STRAYING = 2  # keeps these draws apart from those of an episode's places and look
_PACES = (0.8, 1.2)
_PERSISTENCE, _RENEWAL = 0.8, 0.6  # of the drift from frame to frame; its deviation stays the same
_KNOCK = 6.0  # degrees, deviation
_LETS_GO = 0.3


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
    try:
        frames = [Frame(world.observe(), action) for action in expert_steps(world, seed)]
    except Unreachable:
        return None
    return Episode(seed, world.instruction, frames) if world.success else None


def expert_steps(world: World, seed: int) -> Iterator[np.ndarray]:
    """Play the episode of `seed`: the expert's action (6,) at every frame, before it is taken.

    What is taken strays from it by the scene's `drift` (Laskey et al. 2017, DART,
    arXiv:1703.09327): the expert's targets are absolute, so its next action is the correction.
    Ends once success is settled, or the plan is at its end. May raise Unreachable.
    """
    world.reset(seed)
    variety, draw = world.scene.variety, np.random.default_rng([seed, _STRAYING])
    pace = draw.uniform(*_PACES) if variety.drift else 1.0
    if draw.random() < variety.late:
        _leave_the_path(world, draw, pace)
    stray: np.ndarray = np.zeros(6)
    streak = 0
    for action in world.expert_actions(pace):
        yield action
        stray = _PERSISTENCE * stray + _RENEWAL * draw.normal(0, variety.drift, 6)
        world.step(action + stray * world.freedom)
        streak = streak + 1 if world.success else 0
        if streak >= _SETTLED * world.fps:
            return


def _leave_the_path(world: World, draw: np.random.Generator, pace: float) -> None:
    """Go some of the way, then be knocked off it; the gripper sometimes opens or closes."""
    plan = world.expert_actions(pace)
    for action in plan[: draw.integers(len(plan))]:
        world.step(action)
    knocked = world.target + draw.normal(0, _KNOCK, 6)
    if draw.random() < _LETS_GO:
        knocked[5] = draw.uniform(0, 60)
    for _ in range(3):
        world.step(knocked)


def _give_up_if_hopeless(world: World, done: int, failed: int) -> None:
    if failed > _PATIENCE and failed > done:
        raise Zk0Error(
            f"the scripted expert failed {failed} of {done + failed} times at "
            f"'{world.scene.task}' in {world.scene.regions}: choose a place within its reach"
        )
