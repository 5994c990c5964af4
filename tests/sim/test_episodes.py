"""Demonstrations that stray from the path, begin beside it, and come back."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from zk0.sim.episodes import demonstrate
from zk0.sim.experts import LIFT
from zk0.sim.recipes import RECIPES, Region, Scene, TaskName, Variety
from zk0.sim.tasks import object_pose
from zk0.sim.world import World

PLACE = Region((0.2, 0.0), (0.0, 0.03))
STEADY = Scene("picklift", ("blue",), (PLACE,), 1)


def straying(drift: float = 0.0, late: float = 0.0) -> Scene:
    return replace(STEADY, variety=Variety(drift=drift, late=late))


def distance_from_path(scene: Scene, seed: int) -> float:
    """How far states are from the action before, degrees, on average over the arm's joints."""
    with World(scene) as world:
        episode = demonstrate(world, seed)
    assert episode is not None
    states = np.stack([frame.observation.state for frame in episode.frames])[1:, :5]
    actions = np.stack([frame.action for frame in episode.frames])[:-1, :5]
    return float(np.abs(states - actions).mean())


def test_a_drifting_arm_is_off_its_path_and_still_arrives() -> None:
    steady, drifting = distance_from_path(STEADY, 3), distance_from_path(straying(drift=3.0), 3)
    assert drifting > steady + 0.5


def test_what_is_recorded_is_the_correction_and_not_the_disturbance() -> None:
    with World(straying(drift=3.0)) as world:
        episode = demonstrate(world, 3)
    assert episode is not None
    actions = np.stack([frame.action for frame in episode.frames])[:, :5]
    assert np.abs(np.diff(actions, 2, axis=0)).max() < 12.0  # as smooth as the expert's own path


def test_late_episodes_begin_elsewhere_and_are_shorter() -> None:
    def first_and_length(scene: Scene) -> tuple[np.ndarray, float]:
        with World(scene) as world:
            episodes = [each for seed in range(8) if (each := demonstrate(world, seed))]
        starts = np.stack([each.frames[0].observation.state for each in episodes])
        return starts, float(np.mean([len(each.frames) for each in episodes]))

    (usual, length), (late, shorter) = (
        first_and_length(STEADY),
        first_and_length(straying(late=1.0)),
    )
    assert usual.std(0).max() < 3.0
    assert late.std(0)[:5].max() > 10.0
    assert shorter < 0.8 * length


def test_what_is_in_the_hand_is_not_picked_up_again() -> None:
    with World(STEADY) as world:
        world.reset(1)
        plan = world.expert_actions()
        closed = next(step for step in range(len(plan)) if world_grasps(world, plan[step]))
        rest = world.expert_actions()
        assert len(rest) < len(plan) - closed + 5
        assert all(after[5] <= before[5] for before, after in pairwise(rest))  # it stays closed
        for action in rest:
            world.step(action)
        assert world.success


def world_grasps(world: World, action: np.ndarray) -> bool:
    world.step(action)
    return bool(world.stages.grasped)


def test_a_hand_above_the_object_goes_straight_down() -> None:
    with World(STEADY) as world:
        world.reset(1)
        plan = world.expert_actions()
        for action in plan:
            offset = world._arm.tip - object_pose(world._env)[:3]
            if np.hypot(*offset[:2]) < 0.008 and offset[2] < 0.8 * LIFT:
                break
            world.step(action)
        heights = []
        for action in world.expert_actions()[:4]:
            world.step(action)
            heights.append(world._arm.tip[2])
        assert heights == sorted(heights, reverse=True)


@pytest.mark.parametrize("task", ["hover", "grasp", "beside", "carry", "point"])
def test_experts_of_the_base_tasks_succeed(task: TaskName) -> None:
    goals = ("magenta",) if task in ("carry", "point") else ()
    scene = Scene(task, ("cyan",), (Region((0.2, 0.0), (0.03, 0.06)),), 1, goals)
    with World(scene) as world:
        done = [demonstrate(world, seed) for seed in range(6)]
        assert sum(episode is not None for episode in done) >= 5
        world.reset(0)
        start = world.state
        for _ in range(20):
            world.step(start)
            assert not world.success


def test_every_owner_demonstrates_recoveries() -> None:
    scenes = [scene for recipe in RECIPES.values() for scene in recipe.scenes]
    assert all(scene.variety.drift and scene.variety.late for scene in scenes)
    assert len({scene.view for scene in scenes}) >= 5
