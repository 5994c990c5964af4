"""Policy loss on the server's datasets, which no client has."""

from collections.abc import Mapping
from dataclasses import dataclass

from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy

from zk0.data.frames import Frames
from zk0.data.statistics import Moments
from zk0.evaluation.policy_loss import PolicyLoss, evaluate_frames, summarise
from zk0.learning.batches import Batches
from zk0.learning.prefix_cache import CacheOptions
from zk0.record.evidence import FrameLosses


@dataclass(frozen=True)
class Unseen:
    """Datasets of the server's own, by slug, and how to evaluate on them."""

    policy: SmolVLAPolicy
    datasets: Mapping[str, Frames]
    cache: CacheOptions
    batch_size: int
    limit: int  # batches; 0 takes all frames

    def normalised(self, statistics: Mapping[str, Moments]) -> dict[str, Batches]:
        """Each dataset with all its frames normalised by `statistics`."""
        return {
            slug: Batches(self.policy, frames, statistics, self.cache)
            for slug, frames in self.datasets.items()
        }

    def evaluate(self, batches: Mapping[str, Batches], predict: bool) -> dict[str, FrameLosses]:
        """The policy's losses on each of the `normalised` datasets; with `predict` also the errors
        of its actions."""
        return {
            slug: evaluate_frames(self.policy, each, self.batch_size, self.limit, predict)
            for slug, each in batches.items()
        }

    def summarise(self, losses: Mapping[str, FrameLosses]) -> dict[str, PolicyLoss]:
        return {slug: summarise(part, self.datasets[slug].joints) for slug, part in losses.items()}


def composite(losses: Mapping[str, PolicyLoss]) -> float:
    """The plain mean over the datasets, so that a long one does not count for more."""
    return sum(result.loss for result in losses.values()) / len(losses)
