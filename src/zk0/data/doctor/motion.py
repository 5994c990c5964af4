"""Whether states and actions can be an arm's: finite, continuous, one following the other."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zk0.data.doctor.arm import units
from zk0.data.doctor.findings import Finding, in_episodes, shortened
from zk0.data.doctor.recording import Recording
from zk0.data.statistics import ACTION, STATE

FASTEST = 1000.0  # degrees per second; an SO-101's servos turn about 300 without a load
FARTHEST = 360.0  # degrees
LEAST_LAG_S, MOST_LAG_S = 0.0, 0.5
LEAST_CORRELATION = 0.3  # of the speeds, at the best lag
CLEAR = 0.1  # by which a lag outside has to beat all inside

_SEARCHED_S = 2.0
_MOST_FRAMES = 150  # either way
_SPEED_S = 0.1  # over which a speed is taken: less is the encoder's noise where an arm is slow
_USUAL = 0.995  # quantile of the speeds above which they are clipped


def check_finite(recording: Recording) -> Iterator[Finding]:
    """No NaN, nothing infinite."""
    for feature in (STATE, ACTION):
        bad = np.logical_not(np.isfinite(recording.values(feature)))
        if bad.any():
            episodes = _episodes(recording, bad.any(1))
            yield recording.finding(
                "not-finite",
                "error",
                f"{int(bad.sum())} values of {feature} are NaN or infinite: "
                f"{_joints(recording, feature, bad)} in {in_episodes(episodes)}.",
                "Delete the episodes: zk0 data doctor --fix does so in a copy.",
                episodes,
            )


def check_outliers(recording: Recording) -> Iterator[Finding]:
    """No angle beyond a full turn, no jump that no servo makes."""
    scale = np.deg2rad(1.0) if units(recording).name == "radians" else 1.0
    for feature in (STATE, ACTION):
        raw = recording.values(feature)
        lost = np.logical_not(np.isfinite(raw))
        values = np.where(lost, 0, raw)
        far = np.greater(np.abs(values), FARTHEST * scale)
        if far.any():
            episodes = _episodes(recording, far.any(1))
            yield recording.finding(
                "outliers",
                "error",
                f"{feature}: {_joints(recording, feature, far)} up to {np.abs(values).max():.4g} "
                f"in {in_episodes(episodes)}, beyond a full turn.",
                "Delete or correct: zk0 data doctor --fix deletes the episodes in a copy.",
                episodes,
            )
        yield from _check_jumps(
            recording, feature, values, FASTEST * scale / recording.fps, far | lost
        )


def _check_jumps(
    recording: Recording,
    feature: str,
    values: NDArray[np.float32],
    limit: float,
    told: NDArray[np.bool_],
) -> Iterator[Finding]:
    steps = np.abs(np.diff(values, axis=0, prepend=values[:1]))
    steps[[stretch.start for stretch in recording.stretches]] = 0
    jumps = (steps > limit) & ~told
    jumps[1:] &= ~told[:-1]  # the way back is no second fault
    if jumps.any():
        episodes = _episodes(recording, jumps.any(1))
        yield recording.finding(
            "outliers",
            "warning",
            f"{feature}: {_joints(recording, feature, jumps)} jumps by up to "
            f"{steps[jumps].max():.4g} from one frame to the next in {in_episodes(episodes)}; "
            f"more than {limit:.4g} is faster than the servos.",
            "Look at these episodes; delete them where a reading or a frame was lost.",
            episodes,
        )


@dataclass(frozen=True)
class Lag:
    """By how many seconds the action leads the state, and how closely, from -1 to 1.

    `within` is the closest correlation at a lead of 0 to 0.5 s.
    """

    seconds: float
    correlation: float
    within: float


def lag(recording: Recording) -> Lag | None:
    """The lead at which the speeds of action and state correlate best; None where nothing moves."""
    if recording.columns.states.shape != recording.columns.actions.shape:
        return None
    curve, leads = _curve(recording)
    if curve is None:
        return None
    best = int(np.nanargmax(curve))
    edge = 1.5 / recording.fps  # a frame more: whether state or action is read first
    inside = (leads >= LEAST_LAG_S - edge) & (leads <= MOST_LAG_S + edge)
    return Lag(float(leads[best]), float(curve[best]), float(curve[inside].max()))


def check_lag(recording: Recording) -> Iterator[Finding]:
    """Actions lead the states that they cause by up to half a second."""
    found = lag(recording)
    if found is None:
        return
    if found.correlation < LEAST_CORRELATION:
        yield recording.finding(
            "action-unrelated",
            "error",
            f"actions and states do not move together: their speeds correlate by "
            f"{found.correlation:.2f} at best.",
            "Check that both come from the same arm and are absolute positions.",
        )
    elif found.correlation > found.within + CLEAR:
        side = "lag behind" if found.seconds < 0 else "lead"
        yield recording.finding(
            "action-lag",
            "error" if found.seconds < 0 else "warning",
            f"the actions {side} the states by {abs(found.seconds):.2f} s; usual is a lead of 0 to "
            f"{MOST_LAG_S:g} s.",
            "Shift the actions, or record again; check what the recorder stores as the action.",
        )


def _curve(recording: Recording) -> tuple[NDArray[np.float64] | None, NDArray[np.float64]]:
    """Correlation of the joints' speeds at each lead of the action, and the leads in seconds.

    In the dataset's units, so that a joint that only trembles weighs next to nothing.
    """
    longest = max(len(stretch) for stretch in recording.stretches)
    reach = min(round(_SEARCHED_S * recording.fps), longest // 2, _MOST_FRAMES)
    leads = np.arange(-reach, reach + 1)
    products, states, actions = np.zeros((3, len(leads)))
    for state_speeds, action_speeds in _speeds(recording):
        count = len(state_speeds)
        for place, lead in enumerate(range(-reach, reach + 1)):
            early, late = max(0, -lead), max(0, lead)
            action = action_speeds[early : max(0, count - late)]
            state = state_speeds[late : max(0, count - early)]
            products[place] += np.vdot(action, state)
            actions[place] += np.vdot(action, action)
            states[place] += np.vdot(state, state)
    norm = np.sqrt(states * actions)
    if not norm.all():
        return None, leads / recording.fps
    return products / norm, leads / recording.fps


def _speeds(recording: Recording) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Each episode's changes of state and action over a tenth of a second, without outliers."""
    window = max(1, round(_SPEED_S * recording.fps))
    both = []
    for values in (recording.columns.states, recording.columns.actions):
        finite = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
        parts = [finite[stretch.rows] for stretch in recording.stretches]
        speeds = [part[window:] - part[:-window] for part in parts]
        moving = np.concatenate([np.abs(part).ravel() for part in speeds])
        most = float(np.quantile(moving, _USUAL)) if len(moving) else 0.0
        both.append([part.clip(-most, most) for part in speeds])
    return list(zip(*both, strict=True))


def _joints(recording: Recording, feature: str, where: NDArray[np.bool_]) -> str:
    joints = recording.joints_of(feature)
    return shortened(joints[number] for number in np.flatnonzero(where.any(0)))


def _episodes(recording: Recording, rows: NDArray[np.bool_]) -> list[int]:
    return np.unique(recording.columns.episode_indices[rows]).tolist()
