"""Training from mp4 on disk: lerobot's DataLoader loop against zk0's, on the embedded policy.

    .venv/bin/python benchmarks/samples_per_second.py [--dataset touch] [--steps 30]

Both train the same policy on the same dataset with the same batch size, each from its own data
path, in turn in one process. lerobot: a DataLoader with workers and the full forward pass. zk0:
batches by index and cached prefixes. Filling the cache is timed apart, and told as the number of
epochs after which it has paid. Runs without Flower and Ray.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from torch.utils.data import DataLoader

from zk0.data.frames import Frames, open_frames
from zk0.data.sources import Source, fetch
from zk0.learning.batches import Batches
from zk0.learning.device import autocast, select_device
from zk0.learning.policy import build_policy, make_processors
from zk0.learning.prefix_cache import CacheOptions
from zk0.learning.training import LocalSteps, train

TURNS = 3


def main() -> None:
    options = parse()
    folder = fetch(Source("sim", options.dataset))
    frames = open_frames(folder, options.dataset)
    device = select_device(options.device)
    with tempfile.TemporaryDirectory() as cache:
        fill = [time_fill(frames, device, Path(cache) / str(turn)) for turn in range(TURNS)]
        theirs, ours = [], []
        for _ in range(TURNS):
            theirs.append(lerobot_rate(folder, frames, device, options))
            ours.append(zk0_rate(frames, device, options))
    medians = (statistics.median(times) for times in (fill, theirs, ours))
    report(frames, *medians)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="touch", help="a dataset of the embedded world")
    parser.add_argument("--steps", type=int, default=50, help="steps in each measurement")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2, help="of lerobot's DataLoader")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    return parser.parse_args()


def time_fill(frames: Frames, device: torch.device, cache: Path) -> float:
    """Seconds to compute every frame's prefix from the videos, into an empty cache."""
    os.environ["ZK0_HOME"] = str(cache)
    policy = build_policy("embedded", 0, device)
    start = time.perf_counter()
    make_batches(policy, frames)
    return time.perf_counter() - start


def make_batches(policy, frames: Frames) -> Batches:
    return Batches(policy, frames, frames.statistics, CacheOptions("prefix", 0.0, "bfloat16"))


def zk0_rate(frames: Frames, device: torch.device, options: argparse.Namespace) -> float:
    """Samples per second of a client's round, its batches being there from the round before."""
    policy = build_policy("embedded", 0, device)
    batches = make_batches(policy, frames)
    start = time.perf_counter()
    train(policy, batches, LocalSteps(options.steps, options.batch_size, 1e-3, 0.0), [0])
    return options.steps * options.batch_size / (time.perf_counter() - start)


def lerobot_rate(
    folder: Path, frames: Frames, device: torch.device, options: argparse.Namespace
) -> float:
    """Samples per second of a loop as lerobot-train has it; workers are up before time counts."""
    policy = build_policy("embedded", 0, device)
    preprocess, _ = make_processors(policy, frames.statistics)
    preset = policy.config.get_optimizer_preset()
    optimizer = preset.build([p for p in policy.parameters() if p.requires_grad])
    batches = endless(loader(folder, policy.config.chunk_size, options))
    policy.train()
    next(batches)
    start = time.perf_counter()
    for _ in range(options.steps):
        with autocast(policy):
            loss, _ = policy.forward(preprocess(next(batches)))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), preset.grad_clip_norm)
        optimizer.step()
        optimizer.zero_grad()
    return options.steps * options.batch_size / (time.perf_counter() - start)


def loader(folder: Path, chunk_size: int, options: argparse.Namespace) -> DataLoader:
    dataset = LeRobotDataset(folder.name, root=folder)
    steps = [step / dataset.fps for step in range(chunk_size)]
    dataset = LeRobotDataset(folder.name, root=folder, delta_timestamps={"action": steps})
    return DataLoader(
        dataset,
        options.batch_size,
        shuffle=True,
        num_workers=options.workers,
        drop_last=True,
        persistent_workers=options.workers > 0,
        multiprocessing_context="spawn" if options.workers else None,
    )


def endless(loader: DataLoader) -> Iterator[dict]:
    while True:
        yield from loader


def report(frames: Frames, fill: float, theirs: float, ours: float) -> None:
    count = len(frames)
    saved = count / theirs - count / ours
    print(f"cores: {os.cpu_count()}, {frames.slug}: {count} frames")
    print(f"lerobot's loop: {theirs:.0f} samples/s")
    print(f"zk0's loop: {ours:.0f} samples/s")
    print(f"filling the cache: {fill:.1f} s ({count / fill:.0f} frames/s)")
    print(f"it has paid after {fill / saved:.1f} epochs")
    print(f"ratio: {ours / theirs:.1f}x")


if __name__ == "__main__":
    main()
