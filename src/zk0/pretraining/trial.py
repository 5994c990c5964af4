"""How well a base does what it was pre-trained for."""

from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy

from zk0.data.statistics import Statistics
from zk0.evaluation.closed_loop import play_policy
from zk0.evaluation.twins import Twin
from zk0.pretraining.scenes import SHARES, scenes

_SEEDS = range(2_000_000, 2_000_050)


def try_out(policy: SmolVLAPolicy, statistics: Statistics, size: int) -> dict[str, dict[str, int]]:
    """Successes at the base's own tasks, in episodes that it was not trained on, seen by cameras of
    `size` pixels a side."""
    found: dict[str, dict[str, int]] = {}
    for share in SHARES:
        if share.distractors == 0:
            twin = Twin(share.task, "base", scenes(share)[0], fps=10, image_size=size)
            played = play_policy(policy, statistics, twin, list(_SEEDS))
            successes = sum(rollout.success for rollout in played)
            found[share.task] = {"successes": successes, "of": len(played)}
    return found
