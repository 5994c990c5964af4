"""Which of a dataset's cameras stands for which of the policy's.

SmolVLA was trained with cameras called camera1, camera2 and camera3; datasets call theirs front,
top, wrist, laptop and so on. A wrong mapping raises no error and costs success, so that nothing is
guessed where more than one mapping makes sense.
"""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from zk0.errors import Zk0Error

PREFIX = "observation.images."
View = Literal["wrist", "top", "side", "unknown"]
Rule = Literal["configured", "same names", "by view"]

WORDS: Mapping[View, frozenset[str]] = {
    "wrist": frozenset({"wrist", "gripper", "hand", "handeye", "eef", "ego"}),
    "top": frozenset({"top", "overhead", "above", "up", "birdseye", "ceiling"}),
    "side": frozenset({"side", "front", "left", "right", "back", "laptop", "third", "scene"}),
}
# The order in which SmolVLA's authors named the cameras of their pre-training data: top, wrist,
# side (Shukor et al. 2025, arXiv:2506.01844, on standardised viewpoints).
NUMBERED: Mapping[str, View] = {"camera1": "top", "camera2": "wrist", "camera3": "side"}


@dataclass(frozen=True)
class Assignment:
    """The policy's cameras, each by the recorded one that it is shown; and why."""

    cameras: Mapping[str, str]
    rule: Rule
    left_out: tuple[str, ...] = ()

    def __str__(self) -> str:
        pairs = (f"{short(seen)} as {short(slot)}" for slot, seen in self.cameras.items())
        unused = f", without {_listed(self.left_out)}" if self.left_out else ""
        return f"{', '.join(pairs)}{unused} ({self.rule})"


def assign(
    recorded: Sequence[str], slots: Sequence[str], configured: Mapping[str, str]
) -> Assignment:
    """Find for the policy's cameras `slots` those of the `recorded` ones that they are shown.

    What is `configured` (recorded camera to slot) counts alone. Without it recorded cameras that
    are called as a slot take that one; of what is left over on both sides, views decide, as far as
    names tell them (see `by_view`). A slot that gets none is masked. Raises `Zk0Error`, with a map
    to copy, where that leaves a choice.
    """
    if configured:
        return _assignment(_configured(recorded, slots, configured), recorded, slots, "configured")
    same = {slot: slot for slot in slots if slot in recorded}
    cameras = [name for name in recorded if name not in same]
    free = [slot for slot in slots if slot not in same]
    if not (cameras and free):
        return _assignment(same, recorded, slots, "same names")
    found = by_view(cameras, free)
    if not found:
        raise Zk0Error(
            f"cameras {_listed(cameras)} could be any of the policy's {_listed(free)}: say which "
            f"is which, such as {_example(recorded, slots, same)}"
        )
    return _assignment({**same, **found}, recorded, slots, "by view")


def by_view(recorded: Sequence[str], slots: Sequence[str]) -> dict[str, str]:
    """Slot by slot, the recorded camera of the same view; {} where that is not certain.

    A wrist camera takes the wrist's slot, one from above that of the top, where there is one of
    each. One camera that is left over, of the scene, takes the first slot of the scene that is.
    """
    found: dict[str, str] = {}
    for view in ("wrist", "top"):
        seen = [name for name in recorded if view_of(name) == view]
        free = [slot for slot in slots if view_of(slot) == view]
        if len(seen) > 1:
            return {}
        if seen and free:
            found[free[0]] = seen[0]
    used = set(found.values())
    left = [name for name in recorded if name not in used]
    room = [slot for slot in slots if slot not in found and view_of(slot) != "wrist"]
    if not left:
        return found
    if len(left) > 1 or not room or view_of(left[0]) in ("wrist", "unknown"):
        return {}
    return {**found, room[0]: left[0]}


def view_of(camera: str) -> View:
    """What a camera shows, as far as its name says."""
    name = short(camera).lower()
    if name in NUMBERED:
        return NUMBERED[name]
    words = set(re.split(r"[^a-z]+", name))
    views = [view for view, known in WORDS.items() if words & known]
    return views[0] if views else "unknown"


def _assignment(
    found: Mapping[str, str], recorded: Sequence[str], slots: Sequence[str], rule: Rule
) -> Assignment:
    ordered = {slot: found[slot] for slot in slots if slot in found}
    unused = tuple(name for name in recorded if name not in found.values())
    return Assignment(ordered, rule, unused)


def short(camera: str) -> str:
    return camera.removeprefix(PREFIX)


def _configured(
    recorded: Sequence[str], slots: Sequence[str], configured: Mapping[str, str]
) -> dict[str, str]:
    found: dict[str, str] = {}
    for camera, slot in configured.items():
        seen = _known(camera, recorded, "the dataset has")
        taken = _known(slot, slots, "the policy takes")
        if taken in found:
            raise Zk0Error(f"cameras: {short(taken)} is given to {short(found[taken])} already.")
        found[taken] = seen
    return found


def _known(name: str, among: Sequence[str], who: str) -> str:
    """The full name of a camera that may be given without its prefix."""
    for full in (name, PREFIX + name):
        if full in among:
            return full
    near = difflib.get_close_matches(short(name), [short(each) for each in among], n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"{who} {_listed(among)}."
    raise Zk0Error(f"cameras: there is no '{name}': {hint}")


def _listed(cameras: Iterable[str]) -> str:
    return ", ".join(short(each) for each in cameras)


def _example(recorded: Sequence[str], slots: Sequence[str], same: Mapping[str, str]) -> str:
    """A map of all cameras, the certain ones as they are."""
    left = zip(
        (name for name in recorded if name not in same),
        (slot for slot in slots if slot not in same),
        strict=False,
    )
    pairs = [*same.items(), *left]
    return f"cameras = {{ {', '.join(f'"{short(one)}" = "{short(two)}"' for one, two in pairs)} }}"
