"""The simulator's scenes that a dataset was recorded in: where a policy can be tried out.

Nothing heavy is imported here.
"""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

from loguru import logger

from zk0.data.sources import Source
from zk0.errors import Zk0Error
from zk0.sim import manifest
from zk0.sim.recipes import GENERATION, RECIPES, Recipe, Scene, recipe


@dataclass(frozen=True)
class Twin:
    """A scene by the name under which its rollouts are recorded."""

    name: str
    dataset: str
    scene: Scene
    fps: int
    image_size: int

    def seeds(self, episodes: int) -> range:
        """Of its rollouts. No demonstration has them, and no other task: its scenes are its own, so
        that rollouts of several tasks tell as much as they are many."""
        return range(first := _first_seed(self.name), first + episodes)


def _first_seed(name: str) -> int:
    return 10_000_000 + 10_000 * (crc32(name.encode()) % 9_000)


def twins_of(source: Source) -> list[Twin]:
    """The scenes of a simulated dataset, also of a copy in a folder; none of any other, nor of one
    that was made when the simulator was another."""
    if source.kind == "sim":
        return _scenes(recipe(source.name), source.whole.slug)
    recorded = manifest.read(Path(source.name).expanduser()) if source.kind == "local" else {}
    if not recorded:
        return []
    if recorded.get("generation") != GENERATION:
        logger.warning("{} was made by an older zk0: there are no rollouts of it", source.name)
        return []
    return _scenes(Recipe.from_json(recorded["recipe"]), source.whole.slug)


def all_twins(sources: Iterable[Source]) -> dict[str, Twin]:
    """The scenes of all these datasets by name."""
    return {twin.name: twin for source in sources for twin in twins_of(source)}


def choose(names: Iterable[str]) -> list[Twin]:
    """The scenes of the embedded world called by these names, those of datasets for all that they
    have; all where there is no name. Raises `Zk0Error` where there is none of a name."""
    known = {name: _scenes(entry, name) for name, entry in RECIPES.items()}
    known.update({twin.name: [twin] for twins in [*known.values()] for twin in twins})
    chosen = list(names) or list(RECIPES)
    for name in chosen:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(known)}."
            raise Zk0Error(f"no simulated task is called '{name}': {hint}")
    return list({twin.name: twin for name in chosen for twin in known[name]}.values())


def _scenes(recipe: Recipe, dataset: str) -> list[Twin]:
    several = len(recipe.scenes) > 1
    return [
        Twin(
            f"{dataset}-{scene.task}" if several else dataset,
            dataset,
            scene,
            recipe.fps,
            recipe.image_size,
        )
        for scene in recipe.scenes
    ]
