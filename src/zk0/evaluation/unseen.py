"""The server's evaluation: policy loss on datasets that no client has."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy

from zk0.data.frames import Frames
from zk0.data.statistics import Moments
from zk0.evaluation.policy_loss import PolicyLoss, policy_loss
from zk0.learning.batches import Batches
from zk0.learning.policy import check_fit, make_processors
from zk0.learning.prefix_cache import CacheOptions


@dataclass(frozen=True)
class Unseen:
    """Datasets of the server's own, by slug, and how to evaluate on them."""

    policy: SmolVLAPolicy
    datasets: Mapping[str, Frames]
    cache: CacheOptions
    batch_size: int
    limit: int  # batches; 0 takes all frames
    seed: int

    def __post_init__(self) -> None:
        for frames in self.datasets.values():
            check_fit(self.policy, frames)

    def normalised(self, statistics: Mapping[str, Moments]) -> dict[str, Batches]:
        """Each dataset with all its frames normalised by `statistics`."""
        preprocess, _ = make_processors(self.policy, statistics)
        return {
            slug: Batches(self.policy, frames, preprocess, self.cache)
            for slug, frames in self.datasets.items()
        }

    def evaluate(self, batches: Mapping[str, Batches]) -> dict[str, PolicyLoss]:
        """The policy's loss on each of the `normalised` datasets."""
        return {
            slug: policy_loss(self.policy, each, self.batch_size, self.limit, self.seed)
            for slug, each in batches.items()
        }


def composite(losses: Mapping[str, PolicyLoss]) -> float:
    """The plain mean over the datasets, so that a long one does not count for more."""
    return sum(result.loss for result in losses.values()) / len(losses)


def to_json(losses: Mapping[str, PolicyLoss]) -> dict[str, dict[str, float]]:
    return {slug: asdict(result) for slug, result in losses.items()}
