"""What is written is a LeRobotDataset, sealed, and the same each time."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from PIL import Image

from zk0.data.contact_sheet import contact_sheet
from zk0.data.joints import JOINTS
from zk0.sim import manifest
from zk0.sim.recipes import Recipe
from zk0.sim.writer import write


def columns(folder: Path) -> dict[str, np.ndarray]:
    table = pq.read_table(folder / "data")
    return {key: np.array(table[key].to_pylist()) for key in ("action", "observation.state")}


@pytest.fixture(scope="module")
def opened(dataset: Path) -> LeRobotDataset:
    return LeRobotDataset("zk0/pair", root=dataset, video_backend="pyav")


def test_opens_as_a_lerobot_dataset(opened: LeRobotDataset) -> None:
    meta = opened.meta
    assert (meta.total_episodes, meta.fps, meta.robot_type) == (2, 10, "so101_follower")
    assert meta.features["action"]["names"] == [f"{joint}.pos" for joint in JOINTS]
    assert meta.camera_keys == ["observation.images.front", "observation.images.wrist"]
    assert list(meta.tasks.index) == ["Touch the red cube.", "Pick up the blue cube."]


def test_last_frame_decodes(opened: LeRobotDataset) -> None:
    row = opened[len(opened) - 1]  # fails where the encoder dropped a frame
    for camera in opened.meta.camera_keys:
        assert row[camera].shape == (3, 128, 128)
        assert row[camera].std() > 0.05


def test_manifest_tells_how_it_was_made(dataset: Path, pair: Recipe) -> None:
    content = manifest.read(dataset)
    assert content["fingerprint"] == pair.fingerprint
    assert [episode["task"] for episode in content["episodes"]] == ["touch", "picklift"]
    assert content["frames"] == sum(episode["frames"] for episode in content["episodes"])
    assert {"mujoco", "lerobot", "so101-nexus"} <= set(content["versions"])
    assert manifest.state(dataset, pair) == "ready"


def test_written_twice_is_bit_equal(dataset: Path, pair: Recipe, tmp_path: Path) -> None:
    write(pair, tmp_path / "again")
    first, second = columns(dataset), columns(tmp_path / "again")
    for key in first:
        np.testing.assert_array_equal(first[key], second[key])


def test_contact_sheet(dataset: Path, tmp_path: Path) -> None:
    contact_sheet(dataset, tmp_path / "sheet.png", moments=3)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 3 * 144
        assert sheet.height > 4 * 144
