"""An episode's look: drawn from its seed, and without influence on what happens."""

from dataclasses import replace

import numpy as np
import pytest

from zk0.sim.recipes import Region, Scene, Variety, View
from zk0.sim.rendering import available
from zk0.sim.world import World

PLAIN = Scene("picklift", ("blue",), (Region((0.2, 0.0), (0.0, 0.03)),), 1)
VARIED = replace(PLAIN, variety=Variety(paint=0.6, camera=2.0))


def images(scene: Scene, *seeds: int) -> list[np.ndarray]:
    found = []
    with World(scene, image_size=48, rendering=available()) as world:
        for seed in seeds:
            world.reset(seed)
            seen = world.observe().images
            found.append(np.concatenate([seen["front"], seen["wrist"]]))
    return found


def test_the_seed_decides_on_the_look_whatever_was_seen_before() -> None:
    first, other, again = images(VARIED, 1, 2, 1)
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.5  # the table alone has another colour


def test_without_variety_the_table_is_always_the_same() -> None:
    first, other = images(PLAIN, 1, 2)
    assert (first != other).mean() < 0.3  # cube and arm have moved a little


def test_what_happens_does_not_depend_on_the_look() -> None:
    ends = []
    for scene in (PLAIN, VARIED):
        with World(scene) as world:
            world.reset(3)
            for action in world.expert_actions():
                world.step(action)
            ends.append(world.state)
            assert world.success
    np.testing.assert_array_equal(*ends)


def test_an_episode_can_be_painted_anew() -> None:
    with World(VARIED, image_size=48, rendering=available()) as world:
        world.reset(1)
        before = world.observe()
        world.repaint(np.random.default_rng(0))
        after = world.observe()
    np.testing.assert_array_equal(before.state, after.state)
    assert (before.images["front"] != after.images["front"]).mean() > 0.5


@pytest.mark.parametrize("view", [View(azimuth=155.0), View(distance=0.6), View(elevation=-50.0)])
def test_owners_put_their_cameras_where_they_like(view: View) -> None:
    size = 48  # the wrist camera's image comes below the front camera's
    (usual,), (own,) = images(PLAIN, 1), images(replace(PLAIN, view=view), 1)
    assert (usual[:size] != own[:size]).mean() > 0.05
    np.testing.assert_array_equal(usual[size:], own[size:])
