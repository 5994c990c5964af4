import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from tests.conftest import EPISODES
from zk0.data.contact_sheet import contact_sheet
from zk0.data.frames import Frames, open_frames
from zk0.errors import Zk0Error


def test_frames_are_lerobots_own_items(datasets: dict[str, Path], touch: Frames):
    lerobot = LeRobotDataset("zk0/touch", root=datasets["touch"])
    assert len(touch) == len(lerobot)
    for index in range(len(lerobot)):
        item = lerobot[index]
        assert touch.tasks[index] == item["task"]
        assert np.array_equal(touch.states[index], item["observation.state"])
        assert np.array_equal(touch.actions[index], item["action"])
        for camera, images in touch.videos.kept.items():
            pixels = torch.from_numpy(images[index].copy()).permute(2, 0, 1).float() / 255
            assert torch.equal(pixels, item[camera]), (camera, index)


def test_decoding_in_order_gives_the_kept_frames(touch: Frames):
    for camera, images in touch.videos.kept.items():
        rows = np.arange(5, len(touch) - 3)  # across all episodes
        assert np.array_equal(touch.videos.decode(camera, rows), images[rows])


def test_any_frames_can_be_decoded_in_any_order(touch: Frames):
    rows = np.array([40, 3, len(touch) - 1, 3])
    for camera, images in touch.videos.kept.items():
        assert np.array_equal(touch.videos.decode_any(camera, rows), images[rows])


def test_split_is_by_whole_episodes(touch: Frames):
    training, held_out = touch.split(1)
    assert (training.episode_count, held_out.episode_count) == (EPISODES - 1, 1)
    assert len(training) + len(held_out) == len(touch)
    assert set(held_out.episodes[held_out.selection]) == {EPISODES - 1}
    moments = training.statistics["action"]
    np.testing.assert_allclose(moments.mean, touch.actions[: len(training)].mean(0), rtol=1e-5)


def test_holding_out_everything_is_refused(touch: Frames):
    with pytest.raises(Zk0Error, match="none is left to train on"):
        touch.split(EPISODES)


def test_kept_images_are_decoded_once(datasets: dict[str, Path], own_home: Path):
    camera = "observation.images.front"
    videos = open_frames(datasets["touch"], "touch").videos
    assert videos.kept
    file = own_home / "frames" / videos.fingerprint[:32] / f"{camera}.npy"
    before = file.stat().st_mtime_ns
    again = open_frames(datasets["touch"], "touch").videos.kept
    assert file.stat().st_mtime_ns == before
    assert isinstance(again[camera], np.memmap)


def test_truncated_video_names_file_episode_and_frame(datasets: dict[str, Path], tmp_path: Path):
    damaged = tmp_path / "damaged"
    shutil.copytree(datasets["touch"], damaged)
    video = next((damaged / "videos" / "observation.images.wrist").rglob("*.mp4"))
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    videos = open_frames(damaged, "damaged").videos
    with pytest.raises(Zk0Error, match=r"\.mp4: frame (\d+) of episode (\d+) cannot") as refused:
        _ = videos.kept
    frame, episode = map(int, re.findall(r"frame (\d+) of episode (\d+)", str(refused.value))[0])
    row = int(np.searchsorted(videos.episodes, episode)) + frame
    videos.decode("observation.images.wrist", np.arange(row))  # all before it are there
    with pytest.raises(Zk0Error, match=r"observation\.images\.wrist/.*frame"):
        videos.decode("observation.images.wrist", np.array([row]))


def test_what_is_no_dataset_is_refused(tmp_path: Path):
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "info.json").write_text("{}")
    with pytest.raises(Zk0Error, match=r"info\.json is damaged"):
        open_frames(tmp_path, "nothing")


@pytest.mark.parametrize("lost", ["meta/tasks.parquet", "meta/episodes/chunk-000/file-000.parquet"])
def test_a_dataset_without_a_file_is_not_asked_for_on_the_hub(
    datasets: dict[str, Path], tmp_path: Path, lost: str
):
    """lerobot would get what "local/..." has there."""
    folder = tmp_path / "arm"
    shutil.copytree(datasets["touch"], folder)
    (folder / lost).unlink()
    with pytest.raises(Zk0Error, match=f"arm is incomplete: no {lost}"):
        open_frames(folder, "arm")
    with pytest.raises(Zk0Error, match=f"arm is incomplete: no {lost}"):
        contact_sheet(folder, tmp_path / "sheet.png")


def test_empty_dataset_is_refused(tmp_path: Path):
    folder = tmp_path / "empty"
    LeRobotDataset.create(
        "zk0/empty",
        10,
        {"action": {"dtype": "float32", "shape": (6,), "names": None}},
        root=folder,
        use_videos=True,
    ).finalize()
    with pytest.raises(Zk0Error, match="has no frames"):
        open_frames(folder, "empty")


# --- views ----------------------------------------------------------------------------------------


def test_parts_are_whole_episodes_and_all_of_them(touch: Frames):
    parts = [touch.take_part(index, 2) for index in range(2)]
    assert [part.episode_count for part in parts] == [2, 1]
    assert sorted(np.concatenate([part.selection for part in parts])) == list(range(len(touch)))
    assert len({touch.fingerprint, *(part.fingerprint for part in parts)}) == 3
    assert parts[0].hashes + parts[1].hashes == [touch.hashes[n] for n in (0, 2, 1)]
    training, held_out = parts[0].split(1)
    assert set(training.episodes[training.selection]) == {0}
    assert set(held_out.episodes[held_out.selection]) == {2}
    with pytest.raises(Zk0Error, match="fewer episodes than 4 parts"):
        touch.take_part(3, 4)


def test_fewer_frames_a_second_are_recorded_ones(touch: Frames):
    slow = touch.resampled(5)
    assert slow.fps == 5
    first = np.flatnonzero(touch.episodes == 0)
    kept = np.flatnonzero(slow.episodes == 0)
    np.testing.assert_array_equal(slow.states[kept], touch.states[first[::2]])
    np.testing.assert_allclose(slow.videos.timestamps[kept], np.arange(len(kept)) / 5, atol=1e-5)
    assert slow.ends[kept[0]] == len(kept)
    camera = "observation.images.front"
    images = slow.videos.decode(camera, kept[:6])
    assert np.array_equal(images, touch.videos.decode(camera, first[:11])[::2])
    assert slow.fingerprint != touch.fingerprint
    assert touch.resampled(10) is touch
    with pytest.raises(Zk0Error, match=r"recorded at 10 frames a second.*cannot be taken at 15"):
        touch.resampled(15)


def test_a_rate_that_does_not_divide_takes_the_nearest_frames(touch: Frames):
    third = touch.resampled(3)
    times = third.videos.timestamps[third.episodes == 0]
    assert np.abs(times - np.arange(len(times)) / 3).max() <= 0.05 + 1e-6


def test_cameras_under_other_names_show_the_same(touch: Frames):
    seen = touch.seen_as({"camera2": "observation.images.wrist"})
    rows = np.arange(3)
    wrist = touch.videos.decode("observation.images.wrist", rows)
    assert np.array_equal(seen.videos.decode("camera2", rows), wrist)
    assert list(seen.videos.kept) == ["camera2"]
    assert seen.fingerprint == touch.fingerprint
