"""How long `zk0 data doctor` takes at each level.

    .venv/bin/python benchmarks/doctor.py --folder /tmp/doctor-benchmark

Makes a dataset of 50 episodes of 400 frames with two cameras of 640x480, encoded as lerobot
records (AV1, a key frame every second frame), in some minutes. A folder
that is there is used again.
"""

import argparse
import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from lerobot.configs.video import RGBEncoderConfig
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from numpy.typing import NDArray

from zk0.data.doctor.examine import Level, examine
from zk0.data.joints import JOINTS

CAMERAS = ("observation.images.front", "observation.images.wrist")
HEIGHT, WIDTH, FPS = 480, 640, 30
LEVELS: tuple[Level, ...] = ("cheap", "quick", "thorough")


def make(folder: Path, episodes: int, frames: int) -> None:
    """A dataset of smooth motions, filmed as a block that moves over a textured ground."""
    dataset = LeRobotDataset.create(
        "zk0/doctor-benchmark",
        FPS,
        _features(),
        root=folder,
        robot_type="so101_follower",
        rgb_encoder=RGBEncoderConfig(),
        streaming_encoding=True,
        encoder_queue_maxsize=10_000,
        encoder_threads=1,
    )
    random = np.random.default_rng(0)
    ground = random.integers(40, 120, (2, HEIGHT // 16, WIDTH // 16, 3), np.uint8)
    grounds = ground.repeat(16, 1).repeat(16, 2)
    for _ in range(episodes):
        path = _path(random, frames + 2)
        for frame in range(frames):
            images = {
                camera: _picture(grounds[number], path[frame])
                for number, camera in enumerate(CAMERAS)
            }
            vectors = {"observation.state": path[frame], "action": path[frame + 2]}
            dataset.add_frame({**vectors, **images, "task": "pick up the cube"})
        dataset.save_episode()
    dataset.finalize()
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")


def _features() -> dict[str, dict[str, object]]:
    names = [f"{joint}.pos" for joint in JOINTS]
    vector = {"dtype": "float32", "shape": (len(names),), "names": names}
    shape = (HEIGHT, WIDTH, 3)
    video = {"dtype": "video", "shape": shape, "names": ["height", "width", "channels"]}
    cameras = {camera: dict(video) for camera in CAMERAS}
    return {"action": dict(vector), "observation.state": dict(vector), **cameras}


def _path(random: np.random.Generator, frames: int) -> NDArray[np.float32]:
    """(frames, joints): sums of slow sines, in degrees, with an encoder's noise."""
    seconds = np.arange(frames)[:, None] / FPS
    rates, phases = random.uniform(0.5, 3, (3, 6)), random.uniform(0, 6, (3, 6))
    waves = sum(np.sin(rate * seconds + phase) for rate, phase in zip(rates, phases, strict=True))
    scale, middle = np.array([25, 30, 30, 25, 50, 15]), np.array([0, -10, 10, 0, 0, 50])
    noise = random.normal(0, 0.05, (frames, 6))
    return (scale * waves + middle + noise).astype(np.float32)


def _picture(ground: NDArray[np.uint8], pose: NDArray[np.float32]) -> NDArray[np.uint8]:
    picture = ground.copy()
    top = int(np.interp(pose[1], (-100, 80), (0, HEIGHT - 120)))
    left = int(np.interp(pose[0], (-75, 75), (0, WIDTH - 120)))
    picture[top : top + 120, left : left + 120] = (230, 120, 40)
    return picture


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--folder", type=Path, help="where the dataset is, or is to be made")
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--frames", type=int, default=400, help="of each episode")
    options = parser.parse_args()
    with TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch) / "doctor-benchmark"
        if not folder.exists():
            start = time.perf_counter()
            make(folder, options.episodes, options.frames)
            print(f"made in {time.perf_counter() - start:.0f} s")
        for level in LEVELS:
            start = time.perf_counter()
            findings = examine(folder, folder.name, level)
            took = time.perf_counter() - start
            print(f"{level}: {took:.2f} s, {len(findings)} findings, {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
