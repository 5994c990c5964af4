"""Defects planted in a copy of a clean dataset, one at a time.

Each function changes the LeRobotDataset v3 in `root` in place and is found in `DEFECTS` by its
name. The dataset needs the two cameras, six joints, three episodes of 30 frames or more and the
degrees of `Spec()`. Unless a function says otherwise, the statistics in meta/ agree with the rows,
as those of a recorder would.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from lerobot.datasets.io_utils import load_tasks, write_tasks
from numpy.typing import NDArray

from tests.so100 import changes, files
from tests.so100.make import FRONT, LEAD, SO100_JOINTS, WRIST
from tests.so100.recording import ACTION, STATE, card

Defect = Callable[[Path], None]

DEFECTS: dict[str, Defect] = {}

EPISODE = 1  # the one that is spoilt, where one is
FRAME = 12  # of that episode, or the first of a stretch
STRETCH = 10  # frames


def planted(name: str, clean: Path, folder: Path) -> Path:
    """Copy the dataset in `clean` to `folder`, which must not exist, and plant a defect there."""
    shutil.copytree(clean, folder)
    DEFECTS[name](folder)
    return folder


def _defect(plant: Defect) -> Defect:
    DEFECTS[plant.__name__] = plant
    return plant


# --- counts, numbering, time ---------------------------------------------------------------------


@_defect
def wrong_counts(root: Path) -> None:
    """meta/info.json counts five frames too many."""
    with files.info(root) as info:
        info["total_frames"] += 5


@_defect
def wrong_length(root: Path) -> None:
    """meta/episodes gives one episode five frames too many; its first and last index are right."""
    with files.episodes(root) as episodes:
        episodes[EPISODE]["length"] += 5


@_defect
def index_gap(root: Path) -> None:
    """`index` skips a number in the middle of an episode; `frame_index` and time do not."""
    with files.rows(root) as rows:
        rows["index"][_row(rows) :] += 1


@_defect
def frame_gap(root: Path) -> None:
    """`frame_index` and timestamp skip one frame within an episode; `index` and videos do not.

    The last timestamp of the episode therefore lies behind its video's end.
    """
    fps = files.read_info(root)["fps"]
    with files.rows(root) as rows:
        late = (rows["episode_index"] == EPISODE) & (rows["frame_index"] >= FRAME)
        rows["frame_index"][late] += 1
        rows["timestamp"][late] = rows["frame_index"][late] / fps


@_defect
def index_not_monotone(root: Path) -> None:
    """Two neighbours have exchanged their `index` and `frame_index`; timestamps still rise."""
    with files.rows(root) as rows:
        _exchange(rows["index"], _row(rows))
        _exchange(rows["frame_index"], _row(rows))


@_defect
def timestamps_off(root: Path) -> None:
    """One timestamp is 5 ms late: 50 times the tolerance."""
    with files.rows(root) as rows:
        rows["timestamp"][_row(rows)] += 0.005


@_defect
def timestamps_backwards(root: Path) -> None:
    """Two neighbours have exchanged their timestamps, so that time once runs backwards."""
    with files.rows(root) as rows:
        _exchange(rows["timestamp"], _row(rows))


@_defect
def doubled_frames(root: Path) -> None:
    """For a stretch of an episode the recorder wrote each row and picture twice."""
    files.rewrite(root, changes.in_episode(EPISODE, changes.doubling(FRAME, STRETCH)))


@_defect
def one_frame_episode(root: Path) -> None:
    """The last episode has a single frame.

    lerobot joins no h264 videos after one of a single frame, hence the last.
    """
    only = np.array([FRAME])
    files.rewrite(root, changes.in_episode(-1, lambda episode: episode.pick(only)))


@_defect
def duplicate_episode(root: Path) -> None:
    """The first episode is there once more as the last one, rows and videos."""
    files.rewrite(root, changes.ending_with(0))


# --- videos --------------------------------------------------------------------------------------


@_defect
def truncated_video(root: Path) -> None:
    """The second half of one camera's file is gone."""
    video = files.video(root, FRONT)
    content = video.read_bytes()
    video.write_bytes(content[: len(content) // 2])


@_defect
def missing_video(root: Path) -> None:
    """One camera's file is gone."""
    files.video(root, FRONT).unlink()


@_defect
def wrong_video_length(root: Path) -> None:
    """One camera's video ends five frames before the last episode's rows do."""
    shorter = changes.in_episode(-1, changes.without_last(5))
    files.replace_videos(root, [FRONT], shorter)


@_defect
def frozen_camera(root: Path) -> None:
    """One camera shows its first picture through a whole episode."""
    still = changes.filming(FRONT, lambda _, first: first)
    files.rewrite(root, changes.in_episode(EPISODE, still))


@_defect
def black_camera(root: Path) -> None:
    """One camera shows nothing but its sensor's noise, 0 to 5 of 255, through a whole episode.

    Video codecs take that noise away: what is decoded hardly changes from frame to frame.
    """
    dark = changes.filming(WRIST, changes.darkness)
    files.rewrite(root, changes.in_episode(EPISODE, dark))


@_defect
def swapped_cameras(root: Path) -> None:
    """Both cameras' files have been exchanged: front shows what wrist saw, in all episodes.

    Where the cameras have different sizes the videos contradict meta/info.json. With equal sizes,
    only the statistics of the pictures in meta/ tell; had the cables been swapped before recording,
    these would agree too, and nothing in the files could.
    """
    front, wrist = files.video(root, FRONT), files.video(root, WRIST)
    aside = front.with_suffix(".aside")
    front.rename(aside)
    wrist.rename(front)
    aside.rename(wrist)


# --- states and actions --------------------------------------------------------------------------


@_defect
def constant_joint(root: Path) -> None:
    """The fourth joint never moves, in no episode."""
    with files.rows(root) as rows:
        rows[STATE][:, 3] = rows[ACTION][:, 3] = 12.5
    files.restate(root)


@_defect
def outlier(root: Path) -> None:
    """In one frame a joint stands 400 degrees from where it is."""
    with files.rows(root) as rows:
        rows[STATE][_row(rows), 0] += 400
    files.restate(root)


@_defect
def nan_action(root: Path) -> None:
    """One number of one action is no number; the statistics are those from before."""
    with files.rows(root) as rows:
        rows[ACTION][_row(rows), 2] = np.nan


@_defect
def infinite_state(root: Path) -> None:
    """One number of one state is infinite; the statistics are those from before."""
    with files.rows(root) as rows:
        rows[STATE][_row(rows), 2] = np.inf


@_defect
def radians_mixed(root: Path) -> None:
    """One episode is in radians, the others are in degrees."""
    with files.rows(root) as rows:
        chosen = rows["episode_index"] == EPISODE
        for feature in (STATE, ACTION):
            rows[feature][chosen] = np.deg2rad(rows[feature][chosen])
    files.restate(root)


@_defect
def no_lag_shift(root: Path) -> None:
    """In all episodes the actions come 10 frames after the states that they should lead to.

    A leader leads by `LEAD` frames, so they have been moved by 10 more than that; the first action
    is repeated until the moved ones begin.
    """
    with files.rows(root) as rows:
        starts = np.searchsorted(rows["episode_index"], rows["episode_index"])
        rows[ACTION] = rows[ACTION][np.maximum(np.arange(len(starts)) - 10 - LEAD, starts)]
    files.restate(root)


# --- descriptions --------------------------------------------------------------------------------


@_defect
def wrong_statistics(root: Path) -> None:
    """meta/stats.json: the action's mean is 25 degrees off and its deviation three times as large.

    The episodes' own statistics in meta/episodes are right.
    """
    with files.stats(root) as stats:
        action = stats[ACTION]
        action["mean"] = [mean + 25 for mean in action["mean"]]
        action["std"] = [3 * deviation for deviation in action["std"]]


@_defect
def empty_tasks(root: Path) -> None:
    """All instructions are blank."""
    tasks = load_tasks(root)
    write_tasks(tasks.rename(index=lambda _: ""), root)
    with files.episodes(root) as episodes:
        for episode in episodes:
            episode["tasks"] = [""]


@_defect
def no_license(root: Path) -> None:
    """README.md names no license."""
    (root / "README.md").write_text(card(None))


@_defect
def joints_missing_names(root: Path) -> None:
    """meta/info.json does not name the dimensions of state and action."""
    with files.info(root) as info:
        for feature in (STATE, ACTION):
            info["features"][feature]["names"] = None


# --- robots --------------------------------------------------------------------------------------


@_defect
def bimanual(root: Path) -> None:
    """Two arms, 12 joints: the right one does what the left one did, backwards."""
    joints = tuple(f"{arm}_{joint}" for arm in ("left", "right") for joint in SO100_JOINTS)
    mirrored = changes.with_robot(
        "bi_so100_follower", joints, lambda values: np.hstack([values, values[::-1]])
    )
    files.rewrite(root, mirrored)


@_defect
def other_robot(root: Path) -> None:
    """A robot with seven joints of other names; the seventh moves as the first."""
    joints = tuple(f"panda_joint{number}" for number in range(1, 8))
    panda = changes.with_robot("panda", joints, lambda values: np.hstack([values, values[:, :1]]))
    files.rewrite(root, panda)


@_defect
def same_joints_other_robot(root: Path) -> None:
    """A Koch arm: six joints of the same names, another robot."""
    with files.info(root) as info:
        info["robot_type"] = "koch_follower"


@_defect
def other_order(root: Path) -> None:
    """The gripper comes first, in values and in names."""
    with files.rows(root) as rows, files.info(root) as info:
        for feature in (STATE, ACTION):
            rows[feature] = np.roll(rows[feature], 1, axis=1)
            names = info["features"][feature]["names"]
            info["features"][feature]["names"] = [names[-1], *names[:-1]]
    files.restate(root)


def _row(rows: files.Columns) -> int:
    """Where frame `FRAME` of episode `EPISODE` is."""
    return int(np.searchsorted(rows["episode_index"], EPISODE)) + FRAME


def _exchange(column: NDArray[np.generic], row: int) -> None:
    column[[row, row + 1]] = column[[row + 1, row]]
