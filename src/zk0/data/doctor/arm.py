"""Whether this is one SO-100 or SO-101 arm, its joints in order, and in which units."""

from collections.abc import Iterator, Sequence

import numpy as np

from zk0.data.doctor.findings import Finding, in_episodes
from zk0.data.doctor.recording import Recording
from zk0.data.joints import JOINTS, canonical, listed, other_robot
from zk0.data.statistics import ACTION, STATE
from zk0.data.units import Units, old_calibration, ranges, recognise

OLD_PREFIX = "main_"


def check_robot(recording: Recording) -> Iterator[Finding]:
    """Six joints of one SO-100 or SO-101 arm, named and in the usual order."""
    said = set()
    for feature in (STATE, ACTION):
        names = listed(recording.features[feature].get("names"))
        width = recording.values(feature).shape[1]
        reason = other_robot(names, width, recording.robot_type)
        if reason and reason not in said:
            said.add(reason)
            yield recording.finding(
                "other-robot",
                "error",
                f"{feature}: {reason}.",
                "zk0 trains one SO-100 or SO-101 arm: choose another dataset.",
            )
        elif not reason:
            yield from _check_names(recording, feature, names)


def _check_names(
    recording: Recording, feature: str, names: Sequence[str] | None
) -> Iterator[Finding]:
    order = "the order is " + ", ".join(JOINTS)
    if not names:
        yield recording.finding(
            "unnamed-joints",
            "warning",
            f"meta/info.json does not name the joints of {feature}.",
            f"Name them there, where {order}.",
        )
    elif canonical(names) != JOINTS:
        yield recording.finding(
            "joint-order",
            "error",
            f"the joints of {feature} come as {', '.join(canonical(names))}.",
            f"Reorder names and values: {order}.",
        )


def units(recording: Recording, feature: str = STATE) -> Units:
    """The units of state or action over the whole dataset."""
    return recognise(recording.ranges(feature))


def check_units(recording: Recording) -> Iterator[Finding]:
    """Degrees throughout; else in which units, and where they differ."""
    state, action = units(recording), units(recording, ACTION)
    if {state.name, action.name} > {"radians"} and "unknown" not in (state.name, action.name):
        yield recording.finding(
            "mixed-units",
            "error",
            f"states in {state.name}, actions in {action.name}.",
            "Convert both to degrees.",
        )
    elif state.name != "radians" and (radians := _in_radians(recording)):
        yield recording.finding(
            "mixed-units",
            "error",
            f"{in_episodes(radians)} in radians, the others not.",
            "Convert them to degrees, or delete them: --fix does so in a copy.",
            radians,
        )
    if state.name in _IN_WORDS:
        yield recording.finding(
            f"units-{state.name}",
            "warning",
            f"the joints are {_IN_WORDS[state.name]}: {state.reason}.",
            "Train it only together with datasets in the same units, or convert it to degrees.",
        )
    yield from _check_calibration(recording, state)


_IN_WORDS = {"radians": "in radians", "normalised": "normalised to -100..100"}


def _in_radians(recording: Recording) -> list[int]:
    """Episodes whose states are in radians."""
    joints = recording.joints_of(STATE)
    return [
        stretch.episode
        for stretch in recording.stretches
        if recognise(ranges(joints, recording.columns.states[stretch.rows])).name == "radians"
    ]


def _check_calibration(recording: Recording, found: Units) -> Iterator[Finding]:
    names = listed(recording.features[STATE].get("names")) or ()
    beyond = old_calibration(recording.ranges(STATE)) if found.name == "degrees" else ()
    named = any(name.startswith(OLD_PREFIX) for name in names)
    if not beyond and not named:
        return
    signs = [f"{' and '.join(beyond)} beyond 120 degrees"] if beyond else []
    signs += [f'names with "{OLD_PREFIX}"'] if named else []
    sure = "so zero and sign are" if beyond else "so zero and sign, if nobody converted them, are"
    yield recording.finding(
        "old-calibration",
        "warning",
        f"{' and '.join(signs)}: recorded before lerobot's calibration of 2025, {sure} the old "
        "ones; how far this arm's own calibration was off, no file says.",
        "Convert shoulder_lift to 90 - x and elbow_flex to x - 90 (lerobot: backward "
        "compatibility), and look at a replay before mixing it with newer data.",
    )


def check_constant(recording: Recording) -> Iterator[Finding]:
    """Every joint moves at some time; only a gripper may have nothing to do."""
    if len(recording.columns) < 2:
        return
    for feature in (STATE, ACTION):
        values = recording.values(feature)
        still = {
            joint: float(values[0, number])
            for number, joint in enumerate(recording.joints_of(feature))
            if np.ptp(values[:, number]) == 0
        }
        if still:
            at = ", ".join(f"{joint} ({value:.4g})" for joint, value in still.items())
            yield recording.finding(
                "constant-joint",
                "note" if set(still) == {"gripper"} else "warning",
                f"{feature}: {at} never changes; where lerobot-train divides by its standard "
                "deviation of 0, any other value becomes enormous (zk0 divides by 1).",
                "Check the joint's cable and calibration.",
            )
