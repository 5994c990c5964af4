"""Filling the prefix cache from mp4 against the backbone's bare forward pass on the same frames.

    .venv/bin/python benchmarks/fill_cache.py [--size full --frames 32]

The fill decodes, preprocesses, encodes and writes to a memory-mapped file with checksums; the bare
pass has its images in memory and keeps nothing. In turn in one process, medians. Runs without
Flower and Ray.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path
from statistics import median

import torch
from lerobot.utils.constants import OBS_LANGUAGE_ATTENTION_MASK, OBS_LANGUAGE_TOKENS
from train_step import SHAPES, WORDS, build_policy, synchronise

from zk0.data.frames import open_frames
from zk0.data.sources import Source, fetch
from zk0.learning.device import device_of, set_precision
from zk0.learning.frame_store import FrameStore, Layout
from zk0.learning.prefix import encode_prefix
from zk0.learning.prefix_cache import FILL_FRAMES, Encoder, fill

TURNS = 3


def main() -> None:
    options = parse()
    encoder = open_encoder(options)
    encode_all(encoder, min(options.frames, FILL_FRAMES))  # warms up
    fills, passes = [], []
    for _ in range(TURNS):
        fills.append(time_fill(encoder, options.frames))
        passes.append(encode_all(encoder, options.frames))
    filled, bare = options.frames / median(fills), options.frames / median(passes)
    print(f"cores: {os.cpu_count()}, {options}")
    print(f"fill: {filled:.1f} frames/s, bare forward pass: {bare:.1f} frames/s")
    print(f"ratio: {filled / bare:.0%}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SHAPES, default="tiny")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dataset", default="touch", help="a dataset of the embedded world")
    parser.add_argument("--frames", type=int, default=512)
    return parser.parse_args()


def open_encoder(options: argparse.Namespace) -> Encoder:
    policy = build_policy(options.size, torch.device(options.device))
    set_precision(policy, "auto")
    frames = open_frames(fetch(Source("sim", options.dataset)), options.dataset)
    words = torch.ones(len(frames), WORDS, dtype=torch.long, device=device_of(policy))
    instructions = {OBS_LANGUAGE_TOKENS: words, OBS_LANGUAGE_ATTENTION_MASK: words.bool()}
    return Encoder(policy, frames, instructions)


def time_fill(encoder: Encoder, frames: int) -> float:
    """Seconds to fill an empty store of the first `frames`."""
    rows = encoder.frames.selection[:1]
    content, mask = encoder.encode(rows, encoder.decode_images(rows), "prefix")
    layout = Layout(frames, tuple(content.shape[1:]), tuple(mask.shape[1:]), "bfloat16")
    with tempfile.TemporaryDirectory() as folder:
        store = FrameStore.create(Path(folder) / "store", layout)
        start = time.perf_counter()
        fill(store, encoder, "prefix")
        return time.perf_counter() - start


def encode_all(encoder: Encoder, frames: int) -> float:
    """Seconds of vision and language on as many images, in the fill's batches."""
    rows = encoder.frames.selection[: min(frames, FILL_FRAMES)]
    batch = {**encoder.words(rows), **encoder._images(encoder.decode_images(rows))}
    start = time.perf_counter()
    for _ in range(0, frames, len(rows)):
        encode_prefix(encoder.policy, batch)
    synchronise(encoder.device)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
