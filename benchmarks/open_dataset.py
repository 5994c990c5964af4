"""How long a client with a large dataset takes before its first step, and how much it reads.

    .venv/bin/python benchmarks/open_dataset.py --folder /tmp/doctor-benchmark

Uses the dataset of `benchmarks/doctor.py` (20,000 frames, two cameras of 640x480), which that
script makes; then times what a node does with it, twice in processes of their own: the first time
fills the caches, the second one finds them.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import psutil

SETTINGS = "local-steps=1 eval-episodes=1"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="the dataset")
    parser.add_argument("--measure", action="store_true", help="(one of the two processes)")
    options = parser.parse_args()
    if options.measure:
        measure(options.folder)
        return
    size = sum(path.stat().st_size for path in options.folder.rglob("*") if path.is_file())
    print(f"the dataset has {size / 1e6:.0f} MB")
    for when in ("first", "again"):
        print(f"--- {when}", flush=True)
        own = [sys.executable, __file__, "--folder", str(options.folder), "--measure"]
        subprocess.run(own, check=True)


def measure(folder: Path) -> None:
    from zk0.config import load, parse_overrides
    from zk0.data.frames import open_frames
    from zk0.data.sources import Source
    from zk0.learning.policy import get_trainable
    from zk0.node import Node

    config, _ = load(Path(__file__).resolve().parents[1], parse_overrides([SETTINGS]))
    node = Node(config, Source("local", str(folder)))
    arrays = {name: tensor.clone() for name, tensor in get_trainable(node.policy).items()}
    report("open the dataset", lambda: open_frames(folder, "arm"))
    report("check it", node.examine)
    statistics = node.training_frames.statistics
    report("normalise, tokenise, open the prefix cache", lambda: node.batches(statistics, False))
    report("one local step", lambda: node.fit(arrays, statistics, (1e-4, 1e-4), 0.0, [0]))


def report(what: str, do) -> None:
    start, before = time.perf_counter(), psutil.Process().io_counters().read_chars
    do()
    seconds = time.perf_counter() - start
    megabytes = (psutil.Process().io_counters().read_chars - before) / 1e6
    print(f"{what}: {seconds:.2f} s, {megabytes:.1f} MB read", flush=True)


if __name__ == "__main__":
    main()
