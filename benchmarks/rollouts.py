"""How long rollouts take: 50 episodes of each simulated task, none of which succeeds early.

    .venv/bin/python benchmarks/rollouts.py [--episodes 50] [--task touch ...]

The policy is untrained ("embedded-random"), so that nearly every episode takes all the time that
its task allows.
"""

import argparse
import os
import time

import torch

from zk0.data.sources import Source
from zk0.evaluation import closed_loop
from zk0.evaluation.twins import choose
from zk0.learning.policy import build_policy
from zk0.node import warm_frames


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--task", nargs="*", default=[])
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    options = parser.parse_args()
    closed_loop.require_rendering()
    policy = build_policy("embedded-random", 0, torch.device(options.device))
    statistics = warm_frames(policy, Source("sim", "picklift")).statistics
    print(f"cores: {os.cpu_count()}")
    for twin in choose(options.task):
        start = time.perf_counter()
        seeds = twin.seeds(options.episodes)
        rollouts = closed_loop.play_policy(policy, statistics, twin, seeds)
        seconds, frames = time.perf_counter() - start, sum(each.frames for each in rollouts)
        rate = frames / seconds
        print(f"{twin.name}: {len(rollouts)} rollouts in {seconds:.1f} s ({rate:.0f} frames/s)")


if __name__ == "__main__":
    main()
