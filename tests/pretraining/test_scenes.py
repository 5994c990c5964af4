"""The base policy has seen nothing of what clients and server have."""

import numpy as np
import pytest

from zk0.pretraining.scenes import COLOURS, SHARES, is_taken, scenes
from zk0.sim.recipes import RECIPES

EMBEDDED = [scene for recipe in RECIPES.values() for scene in recipe.scenes]


def test_no_task_is_an_embedded_dataset_s() -> None:
    assert not {share.task for share in SHARES} & {scene.task for scene in EMBEDDED}


def test_no_colour_is_an_embedded_dataset_s() -> None:
    theirs = {c for scene in EMBEDDED for c in (*scene.colours, *scene.goal_colours)}
    assert not theirs & {colour for colours in COLOURS for colour in colours}


def test_no_place_is_an_embedded_dataset_s() -> None:
    draw = np.random.default_rng(0)
    for region in (region for scene in EMBEDDED for region in scene.regions):
        for _ in range(50):
            angle, radius = draw.uniform(0, 2 * np.pi), draw.uniform(*region.radius)
            place = np.array(region.centre) + radius * np.array([np.cos(angle), np.sin(angle)])
            assert is_taken(place)
    assert not is_taken(np.array([0.30, 0.10]))


def test_shares_make_a_whole() -> None:
    assert sum(share.part for share in SHARES) == pytest.approx(1.0)
    assert {scene.task for share in SHARES for scene in scenes(share)} == {
        "hover",
        "beside",
        "grasp",
        "carry",
        "point",
    }
