"""lerobot opens what the generator writes, and it is what was asked for."""

from pathlib import Path

import numpy as np
import pytest
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.scripts.convert_dataset_v21_to_v30 import convert_dataset

from tests.so100 import files
from tests.so100.make import FRONT, LEAD, OLD_JOINTS, SO100_JOINTS, TOP, WRIST, Spec, make, record
from tests.so100.old_formats import as_v20, as_v21
from tests.so100.recording import ACTION, STATE, Episode, Recording, read

TASKS = ("pick up the cube", "push the cube")
DRAWN_TO_DECODED = 12  # mean difference of 255 that the video codec makes of these small pictures


@pytest.fixture(scope="module", params=["libsvtav1", "h264"])
def clean(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = Spec(episodes=(40, 30, 35), tasks=TASKS, codec=request.param)
    return make(tmp_path_factory.mktemp("so100") / "clean", spec)


@pytest.fixture(scope="module")
def decoded(clean: Path) -> Recording:
    return read(clean)


def _film(episode: Episode, camera: str) -> np.ndarray:
    """All pictures of a camera, (frames, height, width, 3), as numbers that can be subtracted."""
    return np.stack([episode.images[camera](frame) for frame in range(len(episode))]).astype(int)


def test_lerobot_opens_the_dataset(clean: Path) -> None:
    dataset = LeRobotDataset("local/clean", root=clean, video_backend="pyav")
    assert dataset.num_episodes == 3
    assert len(dataset) == 105
    assert dataset.fps == 30
    assert dataset.meta.robot_type == "so101_follower"
    assert tuple(dataset.meta.features[ACTION]["names"]) == SO100_JOINTS
    assert [dataset[index]["task"] for index in (0, 40, 70)] == [TASKS[0], TASKS[1], TASKS[0]]


def test_what_is_read_is_what_was_recorded(decoded: Recording) -> None:
    made = record(Spec(episodes=(40, 30, 35), tasks=TASKS))
    for left, right in zip(decoded.episodes, made.episodes, strict=True):
        assert np.array_equal(left.states, right.states)
        assert np.array_equal(left.actions, right.actions)
        for camera in (FRONT, WRIST):
            difference = np.abs(_film(left, camera) - _film(right, camera))
            assert difference.mean() < DRAWN_TO_DECODED


def test_pictures_change_and_differ_between_cameras_and_episodes(decoded: Recording) -> None:
    for episode in decoded.episodes:
        front, wrist = _film(episode, FRONT), _film(episode, WRIST)
        for film in (front, wrist):
            assert film.mean() > 80
            assert np.abs(np.diff(film, axis=0)).mean((1, 2, 3)).min() > 2
        assert np.abs(front - wrist).mean() > 15
    first, second, _ = (_film(episode, FRONT)[0] for episode in decoded.episodes)
    assert np.abs(first - second).mean() > 5


def test_actions_lead_states() -> None:
    for episode in record(Spec(episodes=(90, 90))).episodes:
        gaps = {
            lead: np.abs(episode.actions[: 90 - lead] - episode.states[lead:]).mean()
            for lead in range(10)
        }
        assert min(gaps, key=gaps.__getitem__) == LEAD


def test_statistics_and_times_agree_with_the_rows(clean: Path) -> None:
    rows, stats = files.read_rows(clean), files.read_stats(clean)
    for feature in (STATE, ACTION):
        assert np.allclose(stats[feature]["mean"], rows[feature].mean(0), atol=1e-3)
        assert np.allclose(stats[feature]["std"], rows[feature].std(0), atol=1e-3)
    assert np.array_equal(rows["index"], np.arange(105))
    assert np.allclose(rows["timestamp"], rows["frame_index"] / 30, atol=1e-5)


def test_restating_a_clean_dataset_changes_no_statistics(tmp_path: Path) -> None:
    root = make(tmp_path / "clean", Spec(codec="h264"))
    before = files.read_stats(root)
    files.restate(root)
    after = files.read_stats(root)
    assert after.keys() == before.keys()
    for feature in (STATE, ACTION):
        for name, values in before[feature].items():
            assert np.allclose(after[feature][name], values, rtol=1e-6)


def test_the_seed_decides() -> None:
    first, again, other = (record(Spec(seed=seed)).episodes[0] for seed in (1, 1, 2))
    assert np.array_equal(first.states, again.states)
    assert np.array_equal(first.images[FRONT](7), again.images[FRONT](7))
    assert not np.array_equal(first.states, other.states)


def test_units() -> None:
    degrees, radians, normalised = (
        record(Spec(units=units)).episodes[0].states
        for units in ("degrees", "radians", "normalised")
    )
    assert np.abs(degrees).max() > 30
    assert np.allclose(np.rad2deg(radians), degrees, atol=1e-3)
    assert np.allclose(normalised[:, 0] * 1.1, degrees[:, 0], atol=1e-3)
    assert np.allclose(normalised[:, 5], degrees[:, 5], atol=1e-3)
    assert np.abs(normalised).max() <= 101


@pytest.mark.parametrize(
    "spec",
    [
        Spec(episodes=(6, 6), cameras={FRONT: (480, 640), WRIST: (240, 320), TOP: (480, 640)}),
        Spec(episodes=(4, 4), fps=60, cameras={FRONT: (1080, 1920)}),
        Spec(joints=OLD_JOINTS, robot_type="so100", license=None),
        Spec(episodes=(5, 1), cameras={"observation.images.phone": (50, 38)}),
    ],
    ids=["three cameras", "1080p at 60", "old names", "one frame"],
)
def test_any_shape_is_opened(spec: Spec, tmp_path: Path) -> None:
    recording = read(make(tmp_path / "made", spec))
    assert tuple(len(episode) for episode in recording.episodes) == spec.episodes
    assert (recording.fps, recording.joints) == (spec.fps, spec.joints)
    assert recording.cameras == spec.cameras
    for camera, size in spec.cameras.items():
        assert _film(recording.episodes[0], camera).shape == (spec.episodes[0], *size, 3)
    readme = (tmp_path / "made" / "README.md").read_text()
    assert ("license:" in readme) == (spec.license is not None)


def test_v21_is_what_lerobot_converts_back(clean: Path, decoded: Recording, tmp_path: Path) -> None:
    root = as_v21(clean, tmp_path / "old")
    assert (root / "videos" / "chunk-000" / FRONT / "episode_000002.mp4").is_file()
    convert_dataset("local/old", root=root, push_to_hub=False)
    for before, after in zip(decoded.episodes, read(root).episodes, strict=True):
        assert after.task == before.task
        assert np.array_equal(after.states, before.states)
        assert np.array_equal(after.actions, before.actions)
        for camera in (FRONT, WRIST):
            assert np.array_equal(_film(after, camera), _film(before, camera))


def test_v20_has_statistics_of_all_episodes_together(clean: Path, tmp_path: Path) -> None:
    root = as_v20(clean, tmp_path / "old")
    assert files.read_info(root)["codebase_version"] == "v2.0"
    assert not (root / "meta" / "episodes_stats.jsonl").exists()
    assert files.read_stats(root)[STATE]["mean"] == files.read_stats(clean)[STATE]["mean"]
    assert len((root / "meta" / "episodes.jsonl").read_text().splitlines()) == 3
    assert len(list((root / "data").rglob("*.parquet"))) == 3
