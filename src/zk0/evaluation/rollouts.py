"""Episodes that a controller plays in a world, many of them side by side."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from zk0.record.evidence import Rollout
from zk0.record.videos import smoothness
from zk0.sim.world import Moment, Observation, Stages, World

SETTLED_S = 0.3  # of unbroken success, after which an episode counts as one
TIME_LIMIT_S = {  # about one and a half times what the experts take
    "touch": 4.0,
    "picklift": 6.5,
    "pickreturn": 9.0,
    "push": 6.5,
    "pull": 8.5,
    "hover": 3.0,
    "grasp": 5.0,
    "beside": 5.0,
    "carry": 7.5,
    "point": 3.0,
}

Film = Callable[[Observation, np.ndarray, bool], None]  # what was seen, the action, success


@dataclass
class Episode:
    """One episode under way: where it stands, and what was reached on the way."""

    seed: int
    instruction: str
    moment: Moment
    observation: Observation
    limit: int  # frames
    film: Film | None = None
    actions: list[np.ndarray] = field(default_factory=list)
    stages: list[Stages] = field(default_factory=list)
    streak: int = 0  # frames of unbroken success
    success: bool = False

    @property
    def ended(self) -> bool:
        return self.success or len(self.actions) >= self.limit


class Controller(Protocol):
    """Whoever decides: for episodes under way, each one's next actions (frames, 6)."""

    def decide(self, episodes: Sequence[Episode]) -> Sequence[np.ndarray]: ...


def roll_out(
    world: World,
    name: str,
    controller: Controller,
    seeds: Sequence[int],
    films: Mapping[int, Film] | None = None,
) -> list[Rollout]:
    """Play the episodes of `seeds` in `world`; `films`, by seed, get every frame of theirs.

    The episodes take turns in the one world, so that the controller is asked for all of them
    together; each is what it would be alone.
    """
    episodes = [_begin(world, seed, (films or {}).get(seed)) for seed in seeds]
    while running := [episode for episode in episodes if not episode.ended]:
        for episode, actions in zip(running, controller.decide(running), strict=True):
            _play(world, episode, actions)
    return [_conclude(world, name, episode) for episode in episodes]


def _begin(world: World, seed: int, film: Film | None) -> Episode:
    world.reset(seed)
    limit = round(TIME_LIMIT_S[world.scene.task] * world.fps)
    return Episode(seed, world.instruction, world.save(), world.observe(), limit, film)


def _play(world: World, episode: Episode, actions: np.ndarray) -> None:
    world.load(episode.moment)
    for number, action in enumerate(actions, 1):
        world.step(action)
        _take_note(world, episode, action)
        if episode.film is not None:
            episode.film(episode.observation, action, world.success)
        if episode.ended:
            return
        if episode.film is not None or number == len(actions):
            episode.observation = world.observe()
    episode.moment = world.save()


def _take_note(world: World, episode: Episode, action: np.ndarray) -> None:
    episode.actions.append(np.asarray(action, np.float64))
    episode.stages.append(world.stages)
    episode.streak = episode.streak + 1 if world.success else 0
    episode.success = episode.streak >= SETTLED_S * world.fps


def _conclude(world: World, name: str, episode: Episode) -> Rollout:
    stages = episode.stages
    return Rollout(
        task=name,
        seed=episode.seed,
        instruction=episode.instruction,
        success=episode.success,
        frames=len(episode.actions),
        fps=world.fps,
        nearest=min(stage.distance for stage in stages),
        grasped=_ever([stage.grasped for stage in stages]),
        lifted=_ever([stage.lifted for stage in stages]),
        moved=_ever([stage.moved for stage in stages]),
        smoothness=smoothness(np.stack(episode.actions), world.fps),
    )


def _ever(reached: Sequence[bool | None]) -> bool | None:
    return None if None in reached else any(reached)
