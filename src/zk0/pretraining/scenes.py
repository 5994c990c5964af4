"""What the base policy learns from: tasks and colours that no embedded dataset has, beginning in
places where none of theirs begins."""

from dataclasses import dataclass

import numpy as np

from zk0.sim.recipes import RECIPES, SHOULDER, Region, Scene, TaskName, Variety

COLOURS = (
    ("cyan", "pink", "brown", "lime", "navy"),
    ("teal", "magenta", "silver", "gold", "maroon"),
)
SIZES = (0.0115, 0.015, 0.010, 0.0135, 0.0125)  # of cubes, half an edge in metres
AROUND = Region(centre=SHOULDER, radius=(0.11, 0.28), half_angle=95)  # all within reach
_MARGIN = 0.003  # metres


@dataclass(frozen=True)
class Share:
    """A task's part of the samples, with so many other cubes lying about at most."""

    task: TaskName
    part: float
    distractors: int = 0


SHARES = (
    Share("hover", 0.12),
    Share("beside", 0.18),
    Share("grasp", 0.26),
    Share("grasp", 0.08, distractors=2),
    Share("carry", 0.26),
    Share("point", 0.10),
)


def scenes(share: Share) -> list[Scene]:
    """One scene for each way round of cubes' and circles' colours."""
    variety = Variety(SIZES, share.distractors, paint=0.4, camera=1.5, drift=2.5, late=0.6)
    return [
        Scene(share.task, cubes, (AROUND,), 1, goals, variety=variety)
        for cubes, goals in (COLOURS, COLOURS[::-1])
    ]


def is_taken(position: np.ndarray) -> bool:
    """Whether an embedded dataset has things at `position` (2,), metres."""
    return any(
        np.hypot(*(position - np.array(place.centre))) < place.radius[1] + _MARGIN
        for place in taken_places()
    )


def taken_places() -> list[Region]:
    """Where the embedded datasets' things lie, each place once, whoever has it."""
    scenes = (scene for recipe in RECIPES.values() for scene in recipe.scenes)
    places = {place for scene in scenes for place in scene.regions}
    return sorted(places, key=lambda place: place.centre)
