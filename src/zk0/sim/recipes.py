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
    "push",
    "pull",
    "pickreturn",
    # What only the base policy was trained on:
    "hover",
    "grasp",
    "beside",
    "carry",
    "point",
]

GENERATION = 3
"""To be raised when experts or cameras change: part of every fingerprint, it remakes datasets."""


SHOULDER = (0.0388, 0.0)
"""Where the arm turns on the table, (x, y) in metres; it looks along +x."""


@dataclass(frozen=True)
class Region:
    """A ring on the table where objects appear."""

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
    """One task; each episode is in one of the regions. `goal_colours` are of what objects go onto,
    where the task has it."""

    task: TaskName
    colours: tuple[str, ...]
    regions: tuple[Region, ...]
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
    regions = tuple(
        Region(tuple(each["centre"]), tuple(each["radius"]), each["half_angle"])
        for each in content["regions"]
    )
    colours = {key: tuple(content[key]) for key in ("colours", "goal_colours")}
    view, variety = content["view"], content["variety"]
    seen = View(**{**view, "lookat": tuple(view["lookat"])})
    varied = Variety(**{**variety, "sizes": tuple(variety["sizes"])})
    return Scene(**{**content, **colours, "regions": regions, "view": seen, "variety": varied})


def _places(*centres: tuple[float, float]) -> tuple[Region, ...]:
    return tuple(Region(centre, (0.0, 0.03)) for centre in centres)


# Every place of the clients is shared by two of them, so that the place does not tell what is to be
# done there: the words have to. (A, B, ... stand nowhere else.)
_A, _B, _C, _D = (0.130, -0.145), (0.230, 0.120), (0.215, -0.095), (0.135, 0.115)
_E, _F, _G, _H = (0.190, 0.055), (0.200, -0.190), (0.255, -0.040), (0.160, 0.190)
_TOUCHED = _places(_A, _B, _F, _H)
_LIFTED = _places(_C, _D, _A, _G)
_PUSHED = _places(_E, _F, _C, _D)
_PULLED = _places(_G, _H, _B, _E)
_NEAR = _places((0.180, -0.030), (0.268, 0.050))
_FAR = _places((0.070, 0.165))

# Each owner paints, lights and films the scene in their own way, and demonstrates recoveries too.
_HOME = Variety(paint=0.3, camera=0.5, drift=2.0, late=0.4)

_CATALOGUE = (
    Recipe(
        "touch",
        "Touch a red cube",
        0,
        (Scene("touch", ("red",), _TOUCHED, 30, view=View(azimuth=164.0), variety=_HOME),),
    ),
    Recipe(
        "picklift",
        "Lift a blue cube",
        10_000,
        (Scene("picklift", ("blue",), _LIFTED, 30, view=View(azimuth=166.0), variety=_HOME),),
    ),
    Recipe(
        "push",
        "Push a green cube to the left",
        20_000,
        (Scene("push", ("green",), _PUSHED, 30, view=View(elevation=-43.0), variety=_HOME),),
    ),
    Recipe(
        "pull",
        "Pull a purple cube closer",
        30_000,
        (Scene("pull", ("purple",), _PULLED, 30, view=View(elevation=-41.0), variety=_HOME),),
    ),
    Recipe(
        "near",
        "All tasks that clients know, in a colour and in places that none of them has",
        40_000,
        (
            Scene("touch", ("orange",), _NEAR, 8, variety=_HOME),
            Scene("picklift", ("orange",), _NEAR, 8, variety=_HOME),
            Scene("push", ("orange",), _NEAR, 8, variety=_HOME),
            Scene("pull", ("orange",), _NEAR, 8, variety=_HOME),
        ),
    ),
    Recipe(
        "far",
        "An instruction and a goal that no client has: lift, then return to rest, far left",
        50_000,
        (Scene("pickreturn", ("white",), _FAR, 30, variety=_HOME),),
    ),
)

RECIPES: dict[str, Recipe] = {entry.name: entry for entry in _CATALOGUE}


def recipe(name: str) -> Recipe:
    """The recipe of that name, "touch+pull" having the scenes of both; a Zk0Error naming the
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
