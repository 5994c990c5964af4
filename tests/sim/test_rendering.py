"""Both renderers draw the same world; OpenGL is guarded against its own traps."""

import numpy as np
import pytest

from zk0.sim import opengl
from zk0.sim.recipes import RECIPES
from zk0.sim.rendering import CAMERAS, Images, RendererName
from zk0.sim.world import World

SCENE = RECIPES["picklift"].scenes[0]


def pictures(rendering: RendererName, size: int = 128) -> Images:
    with World(SCENE, image_size=size, rendering=rendering) as world:
        world.reset(0)
        return world.observe().images


@pytest.fixture(scope="module")
def cast() -> Images:
    return pictures("raycast")


@pytest.fixture(scope="module")
def drawn(choice: opengl.Choice) -> Images:
    if choice.backend is None:
        pytest.skip(choice.message)
    return pictures("opengl")


@pytest.mark.parametrize("camera", CAMERAS)
def test_images_show_something(cast: Images, camera: str) -> None:
    image = cast[camera]
    assert image.shape == (128, 128, 3)
    assert image.dtype == np.uint8
    assert image.std() > 15


@pytest.mark.parametrize("camera", CAMERAS)
def test_renderers_agree(cast: Images, drawn: Images, camera: str) -> None:
    assert np.abs(cast[camera].astype(int) - drawn[camera]).mean() < 12  # of 255
    assert np.abs(cast[camera].mean((0, 1)) - drawn[camera].mean((0, 1))).max() < 12


def test_one_after_the_other_is_the_same(drawn: Images) -> None:
    again = pictures("opengl")
    for camera in CAMERAS:
        np.testing.assert_array_equal(again[camera], drawn[camera])


def test_two_at_once_are_refused(drawn: Images) -> None:
    with World(SCENE, rendering="opengl") as world:
        with pytest.raises(RuntimeError, match="close the other world first"):
            World(SCENE, rendering="opengl")
        world.reset(0)
        np.testing.assert_array_equal(world.observe().images["front"], drawn["front"])


def test_drawing_does_not_change_physics(drawn: Images) -> None:
    states = []
    for rendering in (None, "opengl"):
        with World(SCENE, rendering=rendering) as world:
            world.reset(0)
            for action in world.expert_actions()[:45]:
                world.step(action)
            states.append(world.state)
    np.testing.assert_array_equal(*states)


def test_without_rendering_there_are_no_images() -> None:
    with World(SCENE) as world:
        world.reset(0)
        assert world.observe().images == {}
