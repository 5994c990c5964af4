"""A checkpoint evaluated by itself, after its run."""

from collections.abc import Sequence
from pathlib import Path

from zk0.config import Config
from zk0.data.sources import Source
from zk0.evaluation import closed_loop
from zk0.evaluation.policy_loss import PolicyLoss, evaluate_frames, summarise
from zk0.evaluation.tally import Tally, tally
from zk0.evaluation.twins import Twin
from zk0.learning.batches import Batches
from zk0.learning.device import select_device
from zk0.learning.policy import load_checkpoint
from zk0.node import cache_options, warm_frames
from zk0.progress import counting


def evaluate_checkpoint(
    folder: Path, sources: Sequence[Source], held_out: bool, config: Config
) -> dict[str, PolicyLoss]:
    """Policy loss and action errors on each dataset, or on its held-out episodes; by slug."""
    policy, statistics = load_checkpoint(folder, select_device(config.device), config.precision)
    results = {}
    for source in sources:
        frames = warm_frames(policy, source)
        view = frames.split(config.eval_episodes)[1] if held_out else frames
        batches = Batches(policy, view, statistics, cache_options(config))
        found = evaluate_frames(
            policy, batches, config.batch_size, config.eval_batches, predict=True
        )
        results[source.slug] = summarise(found, frames.joints)
    return results


def roll_out_checkpoint(
    folder: Path,
    twins: Sequence[Twin],
    episodes: int,
    config: Config,
    videos: Path | None,
    filmed: int,
) -> dict[str, list[Tally]]:
    """Tallies of the policy's rollouts, then of the simple controllers'; task by task."""
    closed_loop.require_rendering()
    policy, statistics = load_checkpoint(folder, select_device(config.device), config.precision)
    closed_loop.check_twin(policy)
    rows: dict[str, list[Tally]] = {who: [] for who in ("policy", *closed_loop.SIMPLE)}
    with counting(len(twins) * len(rows), "rollouts") as advance:
        for twin in twins:
            seeds = twin.seeds(episodes)
            films = {seed: closed_loop.Film() for seed in seeds[: filmed if videos else 0]}
            played = closed_loop.play_policy(policy, statistics, twin, seeds, films)
            rows["policy"].append(tally(played))
            advance(1)
            for who in closed_loop.SIMPLE:
                rows[who].append(tally(closed_loop.play_simple(twin, who, seeds)))
                advance(1)
            if videos is not None:
                closed_loop.save_films(films, played, videos, "server", 0, None)
    return rows
