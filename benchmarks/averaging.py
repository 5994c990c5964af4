"""Federated averaging in one process, for quick questions about rates, rounds and optimizers.

    .venv/bin/python benchmarks/averaging.py --cosine --momentum 0.7 --episodes 50
    .venv/bin/python benchmarks/averaging.py --pooled    # all data in one place, as many steps

No Flower, no proximal term, one thread: each round the weighted mean of the clients' weights, and
now and then the policy loss on the server's datasets; rollouts at the end, where wished. 2,000
steps take about three minutes.
"""

import argparse
import math
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from zk0.config import load
from zk0.data.statistics import pool_statistics
from zk0.evaluation import closed_loop
from zk0.evaluation.tally import by_task
from zk0.evaluation.twins import all_twins
from zk0.evaluation.unseen import Unseen
from zk0.learning.batches import Batches, PooledBatches
from zk0.learning.policy import get_trainable, set_trainable
from zk0.learning.training import LocalSteps, build_optimizer, train
from zk0.node import Node, cache_options, warm_frames, warm_policy

PROJECT = Path(__file__).resolve().parents[1]


class Averaging:
    """The clients' batches and moments, and the global weights."""

    def __init__(self, options: argparse.Namespace) -> None:
        torch.set_num_threads(1)
        self.options = options
        config, datasets = load(PROJECT, {"seed": options.seed})
        self.policy = warm_policy(config)
        nodes = [Node(config, each.parsed) for each in datasets.clients]
        statistics = pool_statistics([node.training_frames.statistics for node in nodes])
        batches: Sequence[Batches] = [node.batches(statistics, False) for node in nodes]
        self.steps = options.local_steps * (len(nodes) if options.pooled else 1)
        self.parts = [PooledBatches(batches)] if options.pooled else batches
        frames = {
            each.parsed.slug: warm_frames(self.policy, each.parsed) for each in datasets.server
        }
        self.unseen = Unseen(self.policy, frames, cache_options(config), 32, options.eval_batches)
        self.server = self.unseen.normalised(statistics)
        self.statistics = statistics
        self.twins = all_twins(each.parsed for each in (*datasets.clients, *datasets.server))
        self.moments: list[dict | None] = [None] * len(self.parts)
        self.velocity: dict[str, torch.Tensor] = {}  # of the global weights

    def run(self) -> None:
        start = time.perf_counter()
        for number in range(1, self.options.rounds + 1):
            self.round(number)
            if not number % max(1, self.options.rounds // 5):
                losses = self.unseen.summarise(self.unseen.evaluate(self.server, False))
                shown = ", ".join(f"{slug} {each.loss:.4f}" for slug, each in losses.items())
                print(f"round {number}: {shown} ({time.perf_counter() - start:.0f} s)", flush=True)
        if self.options.episodes:
            self.try_out()

    def try_out(self) -> None:
        closed_loop.require_rendering()
        for twin in self.twins.values():
            seeds = twin.seeds(self.options.episodes)
            played = closed_loop.play_policy(self.policy, self.statistics, twin, seeds)
            for task, tally in by_task(played).items():
                near = f"{100 * tally.nearest:.1f} cm at the nearest"
                print(f"{task}: {tally.successes}/{tally.episodes}, {near}", flush=True)

    def round(self, number: int) -> None:
        begin = {name: values.clone() for name, values in get_trainable(self.policy).items()}
        weights = [1 if self.options.equally else len(part) for part in self.parts]
        mean = {name: torch.zeros_like(v, dtype=torch.float64) for name, v in begin.items()}
        for client, weight in enumerate(weights):
            set_trainable(self.policy, begin)
            self.train(client, number)
            for name, values in get_trainable(self.policy).items():
                mean[name] += values.double() * (weight / sum(weights))
        for name, values in mean.items():
            kept = self.options.momentum * self.velocity.get(name, 0.0)
            self.velocity[name] = kept + values - begin[name]
        moved = {name: (begin[name] + step).float() for name, step in self.velocity.items()}
        set_trainable(self.policy, moved)

    def rate(self, number: int) -> float:
        """Of a round: the same in all, or down to nothing along half a cosine."""
        done = (number - 1) / self.options.rounds if self.options.cosine else 0.0
        return self.options.learning_rate * (1 + math.cos(math.pi * done)) / 2

    def train(self, client: int, number: int) -> None:
        optimizer = build_optimizer(self.policy)
        if self.moments[client] is not None:
            optimizer.load_state_dict(self.moments[client])
        local = LocalSteps(self.steps, 32, self.rate(number), 0.0)
        seed = [self.options.seed, client, number]
        train(self.policy, self.parts[client], local, seed, optimizer=optimizer)
        if self.options.keep_moments or self.options.pooled:
            self.moments[client] = optimizer.state_dict()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--local-steps", type=int, default=5)
    parser.add_argument("--eval-batches", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cosine", action="store_true", help="a rate that falls, over the rounds")
    parser.add_argument("--keep-moments", action="store_true", help="AdamW's, between rounds")
    parser.add_argument("--equally", action="store_true", help="each client counts as much")
    parser.add_argument("--momentum", type=float, default=0.0, help="the server's, as in FedAvgM")
    parser.add_argument("--episodes", type=int, default=0, help="rollouts of each task")
    parser.add_argument("--pooled", action="store_true", help="all data in one place")
    Averaging(parser.parse_args()).run()


if __name__ == "__main__":
    main()
