"""Each defect can be seen in the files it was planted in, and not in the clean dataset."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from lerobot.datasets.io_utils import load_tasks
from numpy.typing import NDArray

from tests.so100 import files
from tests.so100.defects import DEFECTS, EPISODE, FRAME, STRETCH, planted
from tests.so100.make import FRONT, SO100_JOINTS, WRIST, Spec, make
from tests.so100.recording import ACTION, STATE, read

ALL_FRAMES = 120
STILL = 3  # mean difference of 255 between equal pictures, of which the video codec makes up to 2.4
RESTATED = ("constant_joint", "outlier", "radians_mixed", "no_lag_shift", "other_order")


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("so100") / "clean", Spec(codec="h264"))


def _column(root: Path, name: str) -> NDArray[Any]:
    return files.read_rows(root)[name]


def _of_episode(root: Path, name: str, episode: int) -> NDArray[Any]:
    rows = files.read_rows(root)
    return rows[name][rows["episode_index"] == episode]


def _lengths(root: Path) -> list[int]:
    return [
        int(count) for count in np.unique(_column(root, "episode_index"), return_counts=True)[1]
    ]


def _films(root: Path, camera: str) -> list[NDArray[np.int64]]:
    """Each episode's pictures, (frames, height, width, 3), as numbers that can be subtracted."""
    return [
        np.stack([episode.images[camera](frame) for frame in range(len(episode))]).astype(int)
        for episode in read(root).episodes
    ]


def _change(root: Path, camera: str) -> NDArray[np.float64]:
    """Mean difference from each picture of the spoilt episode to the next one."""
    return np.abs(np.diff(_films(root, camera)[EPISODE], axis=0)).mean((1, 2, 3))


def _packets(root: Path, camera: str) -> int:
    with av.open(str(files.video(root, camera))) as video:
        return sum(packet.size > 0 for packet in video.demux(video=0))


def _names(root: Path) -> list[str] | None:
    return files.read_info(root)["features"][ACTION]["names"]


def _wrong_length(root: Path) -> bool:
    return any(
        episode["length"] != episode["dataset_to_index"] - episode["dataset_from_index"]
        for episode in files.read_episodes(root)
    )


def _wrong_time(root: Path) -> bool:
    gaps = np.abs(_column(root, "timestamp") - _column(root, "frame_index") / 30)
    return bool((gaps > 1e-4).sum() == 1)


def _doubled(root: Path) -> bool:
    states = _of_episode(root, STATE, EPISODE)
    same = [bool((before == after).all()) for before, after in pairwise(states)]
    pictures = _change(root, FRONT) < STILL
    first = np.arange(FRAME, FRAME + 2 * STRETCH, 2)
    return (
        np.flatnonzero(same).tolist() == first.tolist() == np.flatnonzero(pictures).tolist()
        and _lengths(root)[EPISODE] == 40 + STRETCH
    )


def _repeated(root: Path) -> bool:
    first, last = (_of_episode(root, STATE, episode) for episode in (0, len(_lengths(root)) - 1))
    films = _films(root, WRIST)
    return np.array_equal(first, last) and np.array_equal(films[0], films[-1])


def _damaged(root: Path) -> bool:
    try:
        return _packets(root, FRONT) < ALL_FRAMES
    except av.error.FFmpegError:
        return True


def _contradicts_statistics(root: Path, camera: str) -> bool:
    seen = np.concatenate(_films(root, camera)).mean((0, 1, 2)) / 255
    stated = np.ravel(files.read_stats(root)[camera]["mean"])
    return bool(np.abs(seen - stated).max() > 0.02)


def _wrong_statistics(root: Path) -> bool:
    actions, stated = _column(root, ACTION), files.read_stats(root)[ACTION]
    return np.allclose(stated["mean"], actions.mean(0) + 25, atol=1e-2) and np.allclose(
        stated["std"], 3 * actions.std(0), atol=1e-2
    )


def _lag(root: Path) -> int:
    """By how many frames the states of the spoilt episode come before its actions."""
    states, actions = (_of_episode(root, name, EPISODE) for name in (STATE, ACTION))
    gaps = {
        lag: np.abs(np.roll(actions, -lag, 0) - states)[15:-15].mean() for lag in range(-12, 13)
    }
    return min(gaps, key=gaps.__getitem__)


def _spread(root: Path, episode: int) -> float:
    return float(_of_episode(root, STATE, episode).std(0).max())


SEEN: dict[str, Callable[[Path], bool]] = {
    "wrong_counts": lambda root: files.read_info(root)["total_frames"] == ALL_FRAMES + 5,
    "wrong_length": _wrong_length,
    "index_gap": lambda root: np.diff(_column(root, "index")).max() == 2,
    "frame_gap": lambda root: np.diff(_of_episode(root, "frame_index", EPISODE)).max() == 2,
    "index_not_monotone": lambda root: np.diff(_column(root, "index")).min() == -1,
    "timestamps_off": _wrong_time,
    "timestamps_backwards": lambda root: np.diff(_of_episode(root, "timestamp", EPISODE)).min() < 0,
    "doubled_frames": _doubled,
    "one_frame_episode": lambda root: _lengths(root) == [40, 40, 1],
    "duplicate_episode": _repeated,
    "truncated_video": _damaged,
    "missing_video": lambda root: not files.video(root, FRONT).exists(),
    "wrong_video_length": lambda root: _packets(root, FRONT) == ALL_FRAMES - 5,
    "frozen_camera": lambda root: _change(root, FRONT).max() < STILL < _change(root, WRIST).min(),
    "black_camera": lambda root: _films(root, WRIST)[EPISODE].max() < 10,
    "swapped_cameras": lambda root: all(
        _contradicts_statistics(root, camera) for camera in (FRONT, WRIST)
    ),
    "constant_joint": lambda root: np.ptp(_column(root, STATE)[:, 3]) == 0,
    "outlier": lambda root: (np.abs(np.diff(_column(root, STATE)[:, 0])) > 200).sum() == 2,
    "nan_action": lambda root: np.isnan(_column(root, ACTION)).sum() == 1,
    "infinite_state": lambda root: np.isinf(_column(root, STATE)).sum() == 1,
    "radians_mixed": lambda root: _spread(root, EPISODE) < 2 < _spread(root, 0),
    "no_lag_shift": lambda root: _lag(root) == 10,
    "wrong_statistics": _wrong_statistics,
    "empty_tasks": lambda root: list(load_tasks(root).index) == [""],
    "no_license": lambda root: "license" not in (root / "README.md").read_text(),
    "joints_missing_names": lambda root: _names(root) is None,
    "bimanual": lambda root: _column(root, STATE).shape[1] == len(_names(root) or ()) == 12,
    "other_robot": lambda root: _column(root, STATE).shape[1] == len(_names(root) or ()) == 7,
    "same_joints_other_robot": lambda root: files.read_info(root)["robot_type"] == "koch_follower",
    "other_order": lambda root: (_names(root) or [""])[0] == "gripper.pos",
}


def test_every_defect_is_looked_for() -> None:
    assert SEEN.keys() == DEFECTS.keys()


@pytest.mark.parametrize("name", DEFECTS)
def test_a_defect_is_where_it_was_planted(name: str, clean: Path, tmp_path: Path) -> None:
    assert SEEN[name](planted(name, clean, tmp_path / name))
    assert not SEEN[name](clean)


@pytest.mark.parametrize("name", RESTATED)
def test_statistics_are_those_of_the_spoilt_rows(name: str, clean: Path, tmp_path: Path) -> None:
    root = planted(name, clean, tmp_path / name)
    for feature in (STATE, ACTION):
        stated, values = files.read_stats(root)[feature], _column(root, feature)
        assert np.allclose(stated["mean"], values.mean(0), atol=1e-3)
        assert np.allclose(stated["std"], values.std(0), rtol=1e-4, atol=1e-3)
        part = files.read_episodes(root)[EPISODE][f"stats/{feature}/max"]
        assert np.allclose(part, _of_episode(root, feature, EPISODE).max(0))


@pytest.mark.parametrize("name", ["doubled_frames", "duplicate_episode", "bimanual"])
def test_what_is_written_anew_agrees_with_itself(name: str, clean: Path, tmp_path: Path) -> None:
    root = planted(name, clean, tmp_path / name)
    count = len(_column(root, "index"))
    assert files.read_info(root)["total_frames"] == count
    assert _packets(root, FRONT) == _packets(root, WRIST) == count
    assert not _wrong_length(root)


def test_gripper_first_means_values_and_names(clean: Path, tmp_path: Path) -> None:
    root = planted("other_order", clean, tmp_path / "other")
    order = [SO100_JOINTS.index(name) for name in _names(root) or ()]
    assert np.array_equal(_column(root, STATE), _column(clean, STATE)[:, order])
