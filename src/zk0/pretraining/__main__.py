"""Make the embedded base policy: samples, training, a trial in the simulator, weights to ship."""

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from loguru import logger

from zk0 import paths
from zk0.errors import Zk0Error
from zk0.evaluation.closed_loop import play_policy, require_rendering
from zk0.evaluation.twins import Twin
from zk0.learning import base
from zk0.learning.backbone import vocabulary_hash
from zk0.learning.policy import EMBEDDED_RANDOM, build_policy
from zk0.pretraining import samples
from zk0.pretraining.scenes import SHARES, scenes
from zk0.pretraining.train import Course, Pretraining

_TRIAL_SEEDS = range(2_000_000, 2_000_050)


def main(
    folder: Annotated[
        Path | None, typer.Option(help="Where samples and state are; by default in ZK0_HOME.")
    ] = None,
    into: Annotated[Path, typer.Option(help="Where the weights go.")] = base.WEIGHTS.parent,
    count: Annotated[int, typer.Option("--samples")] = 80_000,
    look_steps: int = Course.look_steps,
    act_steps: int = Course.act_steps,
    batch_size: int = Course.batch_size,
    learning_rate: float = Course.learning_rate,
    seed: int = 0,
) -> None:
    """Pre-train the embedded base policy. May be killed and called again: it goes on."""
    folder = folder or paths.home() / "pretraining"
    workers = len(os.sched_getaffinity(0))
    require_rendering()
    shards = samples.plan(folder, count)
    samples.make(shards, workers)
    course = Course(look_steps, act_steps, batch_size, learning_rate, seed=seed)
    policy = build_policy(EMBEDDED_RANDOM, seed, torch.device("cpu"))
    state = shards[0].folder.with_name("training")  # of these samples: of no others it goes on
    pretraining = Pretraining(policy, samples.Samples(shards), course, state)
    pretraining.run()
    recipe = {
        "samples": count,
        "fingerprint": samples.fingerprint(),
        "course": asdict(course),
        "shares": [asdict(share) for share in SHARES],
        "first_seed": samples.FIRST_SEED,
        "vocabulary": vocabulary_hash(),
        "held_out": pretraining.judge(),
        "success": _try_out(pretraining),
    }
    base.save_base(policy, recipe, into)
    logger.info("{}: {}", into / base.WEIGHTS.name, recipe["success"])


def _try_out(pretraining: Pretraining) -> dict[str, Any]:
    """Success at the base's own tasks, in episodes that it was not trained on."""
    found: dict[str, Any] = {}
    for share in SHARES:
        if share.distractors == 0:
            twin = Twin(share.task, "base", scenes(share)[0], fps=10, image_size=samples.SIZE)
            played = play_policy(
                pretraining.policy, pretraining.statistics, twin, list(_TRIAL_SEEDS)
            )
            successes = sum(rollout.success for rollout in played)
            found[share.task] = {"successes": successes, "of": len(played)}
    return found


if __name__ == "__main__":
    try:
        typer.run(main)
    except Zk0Error as error:
        sys.exit(f"error: {error}")
