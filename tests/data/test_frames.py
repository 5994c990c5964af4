import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from tests.conftest import EPISODES
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


def test_truncated_video_names_file_and_episode(datasets: dict[str, Path], tmp_path: Path):
    damaged = tmp_path / "damaged"
    shutil.copytree(datasets["touch"], damaged)
    video = next((damaged / "videos" / "observation.images.wrist").rglob("*.mp4"))
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    with pytest.raises(Zk0Error, match=r"observation\.images\.wrist.*\.mp4: frame .*episode"):
        _ = open_frames(damaged, "damaged").videos.kept


def test_what_is_no_dataset_is_refused(tmp_path: Path):
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "info.json").write_text("{}")
    with pytest.raises(Zk0Error, match="cannot be read as a LeRobotDataset"):
        open_frames(tmp_path, "nothing")


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
