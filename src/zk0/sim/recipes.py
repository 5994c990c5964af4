"""What each embedded dataset holds: which task, in which colours, in which part of the table."""

import difflib
import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from zk0.errors import Zk0Error

TaskName = Literal[
    "touch",
    "picklift",
    "pickreturn",
    "pickandplace",
    "stackcube",
    # What only the base policy was trained on:
    "hover",
    "grasp",
    "carry",
    "point",
]

GENERATION = 2
"""To be raised when experts or cameras change: part of every fingerprint, it remakes datasets."""


@dataclass(frozen=True)
class Region:
    """A ring on the table where objects appear; the arm stands at x = 0.04 m and looks along +x."""

    centre: tuple[float, float]  # (x, y), metres
    radius: tuple[float, float]  # (least, greatest) distance from the centre, metres
    half_angle: float = 180.0  # degrees to either side of +x; 180 is the whole ring


@dataclass(frozen=True)
class View:
    """Where the front camera stands: on a tripod opposite the arm, looking down on the table."""

    lookat: tuple[float, float, float] = (0.15, 0.005, 0.07)  # metres
    distance: float = 0.52  # metres
    elevation: float = -42.0  # degrees
    azimuth: float = 165.0  # degrees


@dataclass(frozen=True)
class Variety:
    """How episodes of a scene differ beyond the places of things. Zeros: not at all."""

    sizes: tuple[float, ...] = (0.0125,)  # of cubes, half an edge in metres, one per colour in turn
    distractors: int = 0  # other objects that lie about, at most
    paint: float = 0.0  # of colours and lamps, up or down, in 0..1
    camera: float = 0.0  # degrees that cameras turn by, and centimetres that the front one moves
    drift: float = 0.0  # degrees: how far the arm is driven off the expert's path, as a deviation
    late: float = 0.0  # share of episodes that begin on the way, somewhere beside the path


@dataclass(frozen=True)
class Scene:
    """One task in one place; `goal_colours` are of what objects go onto, where the task has it."""

    task: TaskName
    colours: tuple[str, ...]
    region: Region
    episodes: int
    goal_colours: tuple[str, ...] = ()
    view: View = View()
    variety: Variety = Variety()


@dataclass(frozen=True)
class Recipe:
    """One dataset. Episodes take the seeds `seed`, `seed` + 1, ..., leaving out those that fail."""

    name: str
    description: str
    seed: int
    scenes: tuple[Scene, ...] = field(default_factory=tuple)
    fps: int = 10
    image_size: int = 128  # pixels, square

    @property
    def episodes(self) -> int:
        return sum(scene.episodes for scene in self.scenes)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything that determines the recorded states and actions."""
        content = json.dumps({"generation": GENERATION, **asdict(self)}, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Recipe":
        return cls(**{**content, "scenes": tuple(map(_scene_from_json, content["scenes"]))})


def _scene_from_json(content: dict[str, Any]) -> Scene:
    place = content["region"]
    region = Region(tuple(place["centre"]), tuple(place["radius"]), place["half_angle"])
    colours = {key: tuple(content[key]) for key in ("colours", "goal_colours")}
    view, variety = content["view"], content["variety"]
    seen = View(**{**view, "lookat": tuple(view["lookat"])})
    varied = Variety(**{**variety, "sizes": tuple(variety["sizes"])})
    return Scene(**{**content, **colours, "region": region, "view": seen, "variety": varied})


_RIGHT = Region(centre=(0.115, -0.150), radius=(0.0, 0.045))
_HALF_RIGHT = Region(centre=(0.205, -0.105), radius=(0.0, 0.045))
_AHEAD = Region(centre=(0.265, 0.0), radius=(0.025, 0.055))
_HALF_LEFT = Region(centre=(0.205, 0.115), radius=(0.025, 0.055))
_LEFT = Region(centre=(0.090, 0.165), radius=(0.0, 0.045))
_CLOSE = Region(centre=(0.175, 0.0), radius=(0.0, 0.033))

# Each owner paints, lights and films the scene in their own way, and demonstrates recoveries too.
_HOME = Variety(paint=0.3, camera=0.5, drift=2.0, late=0.4)

_CATALOGUE = (
    Recipe(
        "touch",
        "Touch a red cube, far right",
        0,
        (Scene("touch", ("red",), _RIGHT, 30, view=View(azimuth=164.0), variety=_HOME),),
    ),
    Recipe(
        "picklift",
        "Lift a blue cube, half right",
        10_000,
        (Scene("picklift", ("blue",), _HALF_RIGHT, 30, view=View(azimuth=166.0), variety=_HOME),),
    ),
    Recipe(
        "pickandplace",
        "Carry a green cube onto a yellow disc, straight ahead",
        20_000,
        (
            Scene(
                "pickandplace",
                ("green",),
                _AHEAD,
                30,
                goal_colours=("yellow",),
                view=View(elevation=-43.0),
                variety=_HOME,
            ),
        ),
    ),
    Recipe(
        "stackcube",
        "Stack a purple cube on a black one, half left",
        30_000,
        (
            Scene(
                "stackcube",
                ("purple",),
                _HALF_LEFT,
                30,
                goal_colours=("black",),
                view=View(elevation=-41.0),
                variety=_HOME,
            ),
        ),
    ),
    Recipe(
        "near",
        "Tasks that clients know, in a colour and a place that none of them has",
        40_000,
        (
            Scene("touch", ("orange",), _CLOSE, 15, variety=_HOME),
            Scene("picklift", ("orange",), _CLOSE, 15, variety=_HOME),
        ),
    ),
    Recipe(
        "far",
        "An instruction and a goal that no client has: lift, then return to rest, far left",
        50_000,
        (Scene("pickreturn", ("white",), _LEFT, 30, variety=_HOME),),
    ),
)

RECIPES: dict[str, Recipe] = {entry.name: entry for entry in _CATALOGUE}


def recipe(name: str) -> Recipe:
    """The recipe of that name, "touch+stackcube" having the scenes of both; a Zk0Error naming the
    nearest one where there is none."""
    if "+" in name:
        return _together(name, [recipe(part) for part in name.split("+")])
    if name in RECIPES:
        return RECIPES[name]
    nearest = difflib.get_close_matches(name, RECIPES, n=1, cutoff=0.5)
    guess = f"did you mean '{nearest[0]}'?" if nearest else "choose one of these."
    known = ", ".join(RECIPES)
    raise Zk0Error(f"no embedded dataset is called '{name}' ({known}): {guess}")


def _together(name: str, parts: list[Recipe]) -> Recipe:
    scenes = tuple(scene for part in parts for scene in part.scenes)
    return replace(
        parts[0], name=name, description="; ".join(p.description for p in parts), scenes=scenes
    )


def resolve(names: Iterable[str | Recipe]) -> list[Recipe]:
    """Recipes for names (recipes pass through), without repetition, in the order given."""
    found = (entry if isinstance(entry, Recipe) else recipe(entry) for entry in names)
    return list({entry.name: entry for entry in found}.values())
