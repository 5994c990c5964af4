"""Recipes: known names, places, separate colours, fingerprints, JSON there and back."""

import itertools
import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from zk0.errors import Zk0Error
from zk0.sim.recipes import RECIPES, Recipe, Region, recipe, resolve

SERVER = ("near", "far")


def test_catalogue() -> None:
    assert list(RECIPES) == ["touch", "picklift", "push", "pull", "near", "far"]
    episodes = {name: entry.episodes for name, entry in RECIPES.items()}
    assert episodes == {**dict.fromkeys(RECIPES, 30), "near": 32}
    assert {scene.task for scene in RECIPES["near"].scenes} == {
        "touch",
        "picklift",
        "push",
        "pull",
    }
    assert {scene.task for scene in RECIPES["far"].scenes} == {"pickreturn"}


def regions(entry: Recipe) -> set[Region]:
    return {region for scene in entry.scenes for region in scene.regions}


def test_places_do_not_overlap() -> None:
    everywhere = set().union(*map(regions, RECIPES.values()))
    for a, b in itertools.combinations(everywhere, 2):
        gap = np.hypot(*np.subtract(a.centre, b.centre)) - a.radius[1] - b.radius[1]
        assert gap > 0


def test_two_clients_share_each_of_their_places_and_nobody_the_server_s() -> None:
    holders = Counter(region for entry in RECIPES.values() for region in regions(entry))
    for name, entry in RECIPES.items():
        assert {holders[region] for region in regions(entry)} == {1 if name in SERVER else 2}


@pytest.mark.parametrize(("one", "other"), itertools.combinations(RECIPES.values(), 2))
def test_no_colour_is_shared(one: Recipe, other: Recipe) -> None:
    def colours(entry: Recipe) -> set[str]:
        return {c for scene in entry.scenes for c in (*scene.colours, *scene.goal_colours)}

    assert not colours(one) & colours(other)


def test_seeds_leave_room() -> None:
    seeds = sorted(entry.seed for entry in RECIPES.values())
    assert np.diff(seeds).min() > 10 * 30


@pytest.mark.parametrize("entry", RECIPES.values(), ids=RECIPES)
def test_json_there_and_back(entry: Recipe) -> None:
    again = Recipe.from_json(json.loads(json.dumps(entry.to_json())))
    assert again == entry
    assert again.fingerprint == entry.fingerprint


def test_a_dataset_can_hold_the_scenes_of_several() -> None:
    both = recipe("touch+pull")
    assert both.scenes == RECIPES["touch"].scenes + RECIPES["pull"].scenes
    assert (both.name, both.episodes) == ("touch+pull", 60)
    assert both.fingerprint not in {entry.fingerprint for entry in RECIPES.values()}
    with pytest.raises(Zk0Error, match="no embedded dataset is called 'poke'"):
        recipe("touch+poke")


def test_fingerprint_sees_every_change() -> None:
    entry = RECIPES["touch"]
    moved = replace(entry.scenes[0], regions=(Region((0.2, 0.0), (0.0, 0.01)),))
    variants = [replace(entry, seed=1), replace(entry, fps=5), replace(entry, scenes=(moved,))]
    assert len({variant.fingerprint for variant in (entry, *variants)}) == 4


@pytest.mark.parametrize(
    ("wrong", "nearest"), [("pick-lift", "picklift"), ("pul", "pull"), ("Near", "near")]
)
def test_unknown_name_names_the_nearest(wrong: str, nearest: str) -> None:
    with pytest.raises(Zk0Error, match=f"'{wrong}'.*did you mean '{nearest}'"):
        recipe(wrong)


def test_resolve_drops_repetitions() -> None:
    assert resolve(["touch", RECIPES["touch"], "far"]) == [RECIPES["touch"], RECIPES["far"]]
