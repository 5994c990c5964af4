"""The world in LeRobot's units, and experts that do their tasks."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from zk0.errors import Zk0Error
from zk0.sim.episodes import demonstrate, demonstrations
from zk0.sim.recipes import RECIPES, Recipe, Region, Scene
from zk0.sim.rendering import available
from zk0.sim.tasks import leftwards, outwards
from zk0.sim.world import World

SCENES = [
    pytest.param(entry, scene, id=f"{entry.name}-{scene.task}")
    for entry in RECIPES.values()
    for scene in entry.scenes
]
FRAMES = 12
LOWEST = np.array([-110.0, -100.0, -97.0, -95.0, -157.5, -1.0])
HIGHEST = np.array([110.0, 100.0, 97.0, 95.0, 163.5, 101.0])


@pytest.mark.parametrize(("entry", "scene"), SCENES)
def test_expert_succeeds_within_joint_range(entry: Recipe, scene: Scene) -> None:
    """Not after every knock, but in each of the places."""
    with World(scene) as world:
        seeds = range(entry.seed, entry.seed + max(5, 2 * len(scene.regions)))
        tried = {seed: demonstrate(world, seed) for seed in seeds}
    episodes = [episode for episode in tried.values() if episode is not None]
    assert len(episodes) >= 0.6 * len(tried)
    done = {seed // 2 % len(scene.regions) for seed, episode in tried.items() if episode}
    assert done == set(range(len(scene.regions)))
    for episode in episodes:
        assert scene.colours[0] in episode.instruction
        states = np.stack([frame.observation.state for frame in episode.frames])
        actions = np.stack([frame.action for frame in episode.frames])
        assert states.dtype == actions.dtype == np.float32
        for rows, give in ((states, 0.5), (actions, 0.0)):  # MuJoCo's joint limits are soft
            assert (rows > LOWEST - give).all()
            assert (rows < HIGHEST + give).all()


@pytest.mark.parametrize(("entry", "scene"), SCENES)
def test_holding_still_does_not_succeed(entry: Recipe, scene: Scene) -> None:
    with World(scene) as world:
        for seed in (entry.seed, entry.seed + 1):
            world.reset(seed)
            start = world.state
            for _ in range(20):
                world.step(start)
                assert not world.success


def test_objects_appear_in_all_of_the_regions() -> None:
    scene, found = RECIPES["pull"].scenes[0], []
    with World(scene) as world:
        for seed in range(10):
            world.reset(seed)
            (place,) = world.places
            offsets = [np.hypot(*(place[:2] - region.centre)) for region in scene.regions]
            found.append(int(np.argmin(offsets)))
            assert min(offsets) < scene.regions[0].radius[1] + 1e-3
    assert set(found) == set(range(len(scene.regions)))


def test_arm_goes_where_the_action_says() -> None:
    with World(RECIPES["touch"].scenes[0]) as world:
        world.reset(0)
        action = np.array([20.0, -30.0, 30.0, 40.0, 10.0, 60.0])
        for _ in range(30):
            world.step(action)
        np.testing.assert_allclose(world.state, action, atol=2.0)


def test_same_seed_same_episode() -> None:
    with World(RECIPES["picklift"].scenes[0]) as world:
        first, second = demonstrate(world, 5), demonstrate(world, 5)
    assert first is not None
    assert second is not None
    for a, b in zip(first.frames, second.frames, strict=True):
        np.testing.assert_array_equal(a.action, b.action)
        np.testing.assert_array_equal(a.observation.state, b.observation.state)


def test_place_out_of_reach_is_an_error() -> None:
    scene = Scene("touch", ("red",), (Region((0.8, 0.0), (0.0, 0.01)),), 3)
    with World(scene) as world, pytest.raises(Zk0Error, match="expert failed 5 of 5 times"):
        list(demonstrations(world, 3, first_seed=0))


def test_fps_has_to_divide_the_control_rate() -> None:
    with pytest.raises(ValueError, match="control rate, 50 Hz"):
        World(RECIPES["touch"].scenes[0], fps=15)


def test_read_only_assets_are_copied(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import so101_nexus

    from zk0.sim import tasks

    monkeypatch.setenv("ZK0_HOME", str(tmp_path))
    monkeypatch.setattr(so101_nexus, "ASSETS_DIR", so101_nexus.ASSETS_DIR)
    monkeypatch.setattr(tasks.os, "access", lambda path, mode: False)
    for _ in range(2):
        monkeypatch.setattr(so101_nexus, "ASSETS_DIR", so101_nexus.ASSETS_DIR)
        with World(RECIPES["touch"].scenes[0]) as world:
            world.reset(0)
    copies = list((tmp_path / "so101-assets").iterdir())
    assert [copy.name for copy in copies] == [so101_nexus.__version__]


@pytest.mark.parametrize(("entry", "scene"), SCENES)
def test_episodes_that_take_turns_are_what_each_is_alone(entry: Recipe, scene: Scene) -> None:
    """Every task's reset changes something else in the environment: states, stages and images have
    to be equal to the last bit."""

    def look(world: World) -> list[bytes]:
        seen = world.observe()
        return [seen.state.tobytes(), *(image.tobytes() for image in seen.images.values())]

    def alone(seed: int) -> list[object]:
        world.reset(seed)
        plan = world.expert_actions()[:FRAMES]
        found: list[object] = [world.instruction]
        for action in plan:
            world.step(action)
            found += [world.success, world.stages]
        return found + look(world)

    with World(scene, entry.fps, 64, available()) as world:
        expected = {seed: alone(seed) for seed in (7, 8)}
        moments, plans = {}, {}
        for seed in expected:
            world.reset(seed)
            plans[seed] = world.expert_actions()[:FRAMES]
            moments[seed] = world.save()
        found: dict[int, list[object]] = {seed: [] for seed in expected}
        for frame in range(FRAMES):
            for seed, moment in moments.items():
                world.load(moment)
                if not frame:
                    found[seed].append(world.instruction)
                world.step(plans[seed][frame])
                found[seed] += [world.success, world.stages]
                moments[seed] = world.save()
                if frame == FRAMES - 1:
                    found[seed] += look(world)
    assert found == expected


def test_stages_follow_the_expert() -> None:
    for name, expected in (("picklift", {"grasped", "lifted"}), ("push", {"moved"})):
        with World(RECIPES[name].scenes[0]) as world:
            world.reset(1)
            assert world.stages.distance > 0.03
            assert not any((world.stages.grasped, world.stages.lifted, world.stages.moved))
            reached = set()
            for action in world.expert_actions():
                world.step(action)
                reached |= {stage for stage, there in asdict(world.stages).items() if there is True}
            assert reached == expected


@pytest.mark.parametrize("name", ["push", "pull"])
def test_an_object_moved_the_wrong_way_is_no_success(name: str) -> None:
    """Nor one that moved to the side, not by far enough, or through the air."""
    with World(RECIPES[name].scenes[0]) as world:
        world.reset(1)
        env, begin = world._env, world.places[0][:2]

        def moved(along: float, aside: float = 0.0, height: float = 0.0) -> bool:
            way, at = env.way, env._slots[0].qpos_addr
            env.data.qpos[at : at + 2] = begin + along * way + aside * np.array([-way[1], way[0]])
            env.data.qpos[at + 2] = env._begin[2] + height
            return bool(env._get_info()["success"])

        expected = leftwards(begin) if name == "push" else -outwards(begin)
        np.testing.assert_allclose(env.way, expected)
        assert moved(along=0.04)
        assert moved(along=0.04, aside=0.02, height=0.005)
        assert not moved(along=0.02)
        assert not moved(along=-0.04)
        assert not moved(along=0.04, aside=0.035)
        assert not moved(along=0.04, height=0.03)


def test_touching_has_no_further_stages() -> None:
    with World(RECIPES["touch"].scenes[0]) as world:
        world.reset(1)
        stages = world.stages
        assert (stages.grasped, stages.lifted, stages.moved) == (None, None, None)


def test_limits_are_those_that_actions_are_clipped_to() -> None:
    with World(RECIPES["touch"].scenes[0]) as world:
        low, high = world.limits
        assert (low < high).all()
        assert (low >= LOWEST).all()
        assert (high <= HIGHEST).all()
        assert (low[5], high[5]) == pytest.approx((0.0, 100.0), abs=1e-3)
