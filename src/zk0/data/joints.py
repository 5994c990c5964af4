"""The joints of an SO-100 or SO-101 arm, by the names that datasets give them."""

from collections.abc import Sequence

JOINTS = (
    "shoulder_pan",
    "shoulder_lift",
    "elbow_flex",
    "wrist_flex",
    "wrist_roll",
    "gripper",
)
ARM = JOINTS[:-1]  # angles; the gripper is a percentage of its opening

_OURS = ("so100", "so101", "sofollower", "soarm")
_UNSAID = ("", "unknown", "none")


def canonical(names: Sequence[str]) -> tuple[str, ...]:
    """`names` without what lerobot's versions put around a joint: "main_" before, ".pos" after."""
    return tuple(name.removeprefix("main_").removesuffix(".pos") for name in names)


def listed(names: object) -> tuple[str, ...] | None:
    """A feature's `names` as info.json has them (a list, or lists in a mapping); None without."""
    if isinstance(names, dict):
        parts = [listed(part) for part in names.values()]
        return tuple(name for part in parts for name in part or ()) or None
    if isinstance(names, list | tuple) and names and all(isinstance(name, str) for name in names):
        return tuple(names)
    return None


def other_robot(
    names: Sequence[str] | None, dimension: int, robot_type: str | None = None
) -> str | None:
    """Why these joints are no single SO-100 or SO-101 arm's; None where they may be."""
    kind = (robot_type or "").lower()
    bare = canonical(names or ())
    unnamed_pair = not bare and dimension == 2 * len(JOINTS)
    if kind.startswith("bi_") or _two_arms(bare) or unnamed_pair:
        return f"two arms ({dimension} joints, robot_type {robot_type}); one arm has {len(JOINTS)}"
    if dimension != len(JOINTS):
        return f"{dimension} joints, where an SO-100 or SO-101 arm has {len(JOINTS)}"
    if strangers := sorted(set(bare) - set(JOINTS)):
        return f"joints that an SO-100 or SO-101 arm has not: {', '.join(strangers)}"
    if kind not in _UNSAID and not _is_ours(kind):
        return f'robot_type "{robot_type}" is neither an SO-100 nor an SO-101'
    return None


def _two_arms(bare: Sequence[str]) -> bool:
    return all(any(name.startswith(side) for name in bare) for side in ("left", "right"))


def _is_ours(kind: str) -> bool:
    plain = kind.replace("_", "").replace("-", "").replace(" ", "")
    return any(each in plain for each in _OURS)
