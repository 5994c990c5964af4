"""Which recorded camera the policy is shown as which of its own."""

import pytest

from zk0.data.cameras import PREFIX, assign, view_of
from zk0.errors import Zk0Error

BASE = ["camera1", "camera2", "camera3"]  # smolvla_base's
EMBEDDED = ["front", "wrist"]


def found(recorded: list[str], slots: list[str], **configured: str) -> dict[str, str]:
    full = [[PREFIX + name for name in names] for names in (recorded, slots)]
    assigned = assign(*full, configured).cameras
    return {slot.removeprefix(PREFIX): seen.removeprefix(PREFIX) for slot, seen in assigned.items()}


@pytest.mark.parametrize(
    ("recorded", "slots", "wanted"),
    [
        (["front", "wrist"], EMBEDDED, {"front": "front", "wrist": "wrist"}),
        (["wrist", "top", "front"], EMBEDDED, {"front": "front", "wrist": "wrist"}),
        (["camera2", "camera1"], BASE, {"camera1": "camera1", "camera2": "camera2"}),
        (["top", "wrist"], BASE, {"camera1": "top", "camera2": "wrist"}),
        (["front", "wrist"], BASE, {"camera1": "front", "camera2": "wrist"}),
        (["front"], BASE, {"camera1": "front"}),
        (["wrist_cam"], BASE, {"camera2": "wrist_cam"}),
        (
            ["laptop", "overhead", "gripper"],
            BASE,
            {"camera1": "overhead", "camera2": "gripper", "camera3": "laptop"},
        ),
        (["top", "wrist"], EMBEDDED, {"front": "top", "wrist": "wrist"}),
    ],
)
def test_names_and_views_decide(recorded: list[str], slots: list[str], wanted: dict[str, str]):
    assert found(recorded, slots) == wanted


@pytest.mark.parametrize(
    ("recorded", "slots"),
    [
        (["front", "side", "wrist"], BASE),
        (["Camera 1", "Camera 2"], BASE),
        (["phone", "wrist"], BASE),
        (["wrist_left", "wrist_right"], BASE),
        (["front", "laptop"], BASE),
        (["camera1", "phone"], BASE),
    ],
)
def test_where_there_is_a_choice_the_owner_has_to_make_it(recorded: list[str], slots: list[str]):
    with pytest.raises(Zk0Error, match=r"say which is which, such as cameras = \{ \"") as error:
        found(recorded, slots)
    assert all(name in str(error.value) for name in recorded)


def test_a_map_counts_alone():
    assert found(["front", "wrist"], BASE, front="camera3") == {"camera3": "front"}
    assert found(["a", "b"], BASE, **{"observation.images.b": "camera1"}) == {"camera1": "b"}


@pytest.mark.parametrize(
    ("configured", "message"),
    [
        ({"frnt": "camera1"}, "no 'frnt': did you mean 'front'"),
        ({"front": "camera9"}, "no 'camera9'"),
        ({"front": "camera1", "wrist": "camera1"}, "camera1 is given to front already"),
    ],
)
def test_a_wrong_map_is_refused(configured: dict[str, str], message: str):
    with pytest.raises(Zk0Error, match=message):
        found(["front", "wrist"], BASE, **configured)


def test_a_rule_says_what_it_did():
    names = [PREFIX + name for name in ("front", "wrist", "Phone")]
    slots = [PREFIX + name for name in EMBEDDED]
    assert (
        str(assign(names, slots, {}))
        == "front as front, wrist as wrist, without Phone (same names)"
    )


def test_views_by_name():
    views = [view_of(PREFIX + name) for name in ("camera1", "wrist_cam", "overhead", "cam_1")]
    assert views == ["top", "wrist", "top", "unknown"]
