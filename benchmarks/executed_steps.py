"""How many frames of a chunk to execute before looking again: success of a checkpoint.

    .venv/bin/python benchmarks/executed_steps.py outputs/RUN/models/last [--executed 2 4 8 16]

Each line is a task, each column so many executed frames of the 16 that are predicted.
"""

import argparse
from pathlib import Path

import torch

from zk0.evaluation import closed_loop
from zk0.evaluation.tally import tally
from zk0.evaluation.twins import choose
from zk0.learning.policy import load_checkpoint


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--executed", type=int, nargs="+", default=[2, 4, 8, 16])
    parser.add_argument("--task", nargs="*", default=[])
    parser.add_argument("--episodes", type=int, default=50)
    options = parser.parse_args()
    closed_loop.require_rendering()
    policy, statistics = load_checkpoint(options.checkpoint, torch.device("cpu"))
    print(f"{'executed frames':16}" + "".join(f"{count:9d}" for count in options.executed))
    for twin in choose(options.task):
        print(f"{twin.name:16}", end="", flush=True)
        seeds = twin.seeds(options.episodes)
        for count in options.executed:
            policy.config.n_action_steps = count
            found = tally(closed_loop.play_policy(policy, statistics, twin, seeds))
            print(f"{found.successes:6d}/{found.episodes}", end="", flush=True)
        print()


if __name__ == "__main__":
    main()
