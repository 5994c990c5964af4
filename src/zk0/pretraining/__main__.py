"""Make the embedded base policy: samples, training, a trial in the simulator, weights to ship."""

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer
from loguru import logger

from zk0 import paths
from zk0.errors import Zk0Error
from zk0.evaluation.closed_loop import require_rendering
from zk0.learning import base
from zk0.learning.backbone import vocabulary_hash
from zk0.learning.device import select_device
from zk0.learning.policy import EMBEDDED_RANDOM, build_policy
from zk0.pretraining import samples
from zk0.pretraining.scenes import SHARES
from zk0.pretraining.train import Course, Pretraining
from zk0.pretraining.trial import try_out


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
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> None:
    """Pre-train the embedded base policy. May be killed and called again: it goes on."""
    where = select_device(device)
    folder = folder or paths.home() / "pretraining"
    workers = len(os.sched_getaffinity(0))
    require_rendering()
    shards = samples.plan(folder, count)
    samples.make(shards, workers)
    course = Course(look_steps, act_steps, batch_size, learning_rate, seed=seed)
    policy = build_policy(EMBEDDED_RANDOM, seed, where, "float32")
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
        "success": try_out(policy, pretraining.statistics, samples.BASE.size),
    }
    base.save_base(policy, recipe, into)
    logger.info("{}: {}", into / base.WEIGHTS.name, recipe["success"])


if __name__ == "__main__":
    try:
        typer.run(main)
    except Zk0Error as error:
        sys.exit(f"error: {error}")
