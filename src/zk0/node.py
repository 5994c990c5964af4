"""One node: a policy, one dataset, and what they are asked to do each round."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import torch
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from loguru import logger

from zk0.config import Config
from zk0.data.cameras import assign
from zk0.data.doctor.examine import examine
from zk0.data.frames import Frames, open_frames
from zk0.data.sources import Located, Source, locate
from zk0.data.statistics import Moments
from zk0.errors import Zk0Error
from zk0.evaluation.open_loop import film, predict_episode
from zk0.evaluation.policy_loss import PolicyLoss, evaluate_frames, summarise
from zk0.learning.batches import Batches
from zk0.learning.device import Precision, device_of, select_device
from zk0.learning.normalisation import needed_order
from zk0.learning.policy import (
    Arrays,
    build_policy,
    check_fit,
    get_trainable,
    hash_backbone,
    load_trainable,
    set_trainable,
)
from zk0.learning.prefix_cache import CacheOptions
from zk0.learning.scaffold import ControlVariates
from zk0.learning.training import LocalResult, LocalSteps, count_steps, train


def warm_policy(config: Config) -> SmolVLAPolicy:
    """The process's one policy: its trainable arrays are set anew for every task."""
    return _build(config.model_name, config.seed, config.device, config.precision)


@lru_cache(maxsize=1)
def _build(model_name: str, seed: int, device: str, precision: Precision) -> SmolVLAPolicy:
    return build_policy(model_name, seed, select_device(device), precision)


def starting_arrays(config: Config, policy: SmolVLAPolicy | None = None) -> Arrays:
    """The trainable arrays that a run begins with; `policy` may be given where nothing has trained
    it yet."""
    if policy is None:
        policy = build_policy(config.model_name, config.seed, torch.device("cpu"))
    return load_trainable(policy, config.start_from) if config.start_from else get_trainable(policy)


@lru_cache(maxsize=16)
def warm_folder(source: Source) -> Located:
    """Where a dataset is; asked of the Hub once, so that one process sees one commit of it."""
    return locate(source)


@lru_cache(maxsize=16)
def warm_frames(policy: SmolVLAPolicy, source: Source) -> Frames:
    """A dataset's frames as the policy takes them; memory-mapped, so that keeping many of them open
    costs little. Raises `Zk0Error` where they are none that the policy can take."""
    found = warm_folder(source.whole)
    frames = open_frames(found.folder, source.slug, found.commit)
    recorded, slots = list(frames.videos.cameras), list(policy.config.image_features)
    try:
        assigned = assign(recorded, slots, dict(source.cameras))
    except Zk0Error as error:
        raise Zk0Error(f"{source.slug}: {error}") from None
    if assigned.rule != "same names" or assigned.left_out:
        logger.info("{}: cameras {}", source.slug, assigned)
    frames = frames.seen_as(assigned.cameras)
    if source.fps:
        frames = frames.resampled(source.fps)
    if source.part:
        frames = frames.take_part(*source.part)
    check_fit(policy, frames)
    return frames


@lru_cache(maxsize=32)
def warm_batches(
    policy: SmolVLAPolicy,
    source: Source,
    eval_episodes: int,
    held_out: bool,
    statistics: tuple[tuple[str, Moments], ...],
    cache: CacheOptions,
) -> Batches:
    """A dataset's training or held-out frames, normalised once for all rounds."""
    frames = warm_frames(policy, source).split(eval_episodes)[held_out]
    return Batches(policy, frames, dict(statistics), cache)


def refuse_issues(source: Source, allowed: Collection[str]) -> None:
    """Raise `Zk0Error` where the dataset has errors other than those `allowed`, by their codes;
    what a person should look at is logged. To be called before anything trusts its files."""
    for finding in examine(warm_folder(source.whole).folder, source.slug, "cheap"):
        if finding.severity == "error" and finding.code not in allowed:
            raise Zk0Error(
                f"{source.slug}: {finding.message} {finding.fix} To train in spite of it: "
                f"allow-dataset-issues='{finding.code}'."
            )
        if finding.severity != "note":
            logger.warning("{}: {} ({})", source.slug, finding.message, finding.code)


def cache_options(config: Config) -> CacheOptions:
    return CacheOptions(config.prefix_cache, config.prefix_cache_gb, config.prefix_cache_dtype)


@dataclass(frozen=True)
class Node:
    """A client's policy and dataset. The last `eval-episodes` episodes are never trained on."""

    config: Config
    source: Source

    @property
    def policy(self) -> SmolVLAPolicy:
        return warm_policy(self.config)

    @property
    def backbone(self) -> str:
        """The hash of the frozen weights that this node's action expert reads."""
        return hash_backbone(self.policy)

    def examine(self) -> None:
        """The quickest checks of the data; raises `Zk0Error` where training would be wrong."""
        refuse_issues(self.source, self.config.allowed_issues)

    @cached_property
    def frames(self) -> Frames:
        """Of all episodes; raises `Zk0Error` where the policy cannot take them."""
        return warm_frames(self.policy, self.source)

    @cached_property
    def training_frames(self) -> Frames:
        return self.frames.split(self.config.eval_episodes)[False]

    @cached_property
    def statistics(self) -> dict[str, Moments]:
        """Of the training frames, as much as the policy normalises by and no more."""
        return self.training_frames.statistics_with(needed_order(self.policy.config))

    def fit(
        self,
        arrays: Arrays,
        statistics: Mapping[str, Moments],
        rates: tuple[float, float],
        proximal_mu: float,
        seed: list[int],
        variates: ControlVariates | None = None,
    ) -> tuple[dict[str, torch.Tensor], LocalResult]:
        """Train from the global `arrays`, the learning rate going from the first to the second of
        `rates`; the trained arrays and what the steps did."""
        config, batches = self.config, self.batches(statistics, held_out=False)
        set_trainable(self.policy, arrays)
        steps = count_steps(
            len(batches), config.batch_size, config.local_epochs, config.local_steps
        )
        local = LocalSteps(steps, config.batch_size, rates[0], proximal_mu, rates[1])
        compiled = config.compile == "on"
        if variates is not None:
            variates.to(device_of(self.policy))
        result = train(self.policy, batches, local, seed, compiled, variates)
        return get_trainable(self.policy), result

    def evaluate(
        self, arrays: Arrays, statistics: Mapping[str, Moments], predict: bool
    ) -> PolicyLoss:
        """The policy loss of the global `arrays` on this node's held-out episodes, and with
        `predict` the error of its actions."""
        config, batches = self.config, self.batches(statistics, held_out=True)
        set_trainable(self.policy, arrays)
        frames = evaluate_frames(
            self.policy, batches, config.batch_size, config.eval_batches, predict
        )
        return summarise(frames, batches.frames.joints)

    def film(
        self,
        statistics: Mapping[str, Moments],
        folder: Path,
        who: str,
        server_round: int,
        loss: float,
    ) -> None:
        """Film what the policy, as it was evaluated last, predicts for the first held-out episodes,
        as many as `rollout-videos`."""
        batches = self.batches(statistics, held_out=True)
        episodes = np.unique(batches.frames.episodes[batches.frames.selection])
        for episode in episodes[: self.config.rollout_videos].tolist():
            open_loop = predict_episode(self.policy, batches, episode)
            film(open_loop, batches, folder, who, server_round, loss)

    def batches(self, federated: Mapping[str, Moments], held_out: bool) -> Batches:
        """The training or the held-out frames, normalised as the configuration says."""
        local = self.config.normalization == "local"
        statistics = self.statistics if local else federated
        return warm_batches(
            self.policy,
            self.source,
            self.config.eval_episodes,
            held_out,
            tuple(sorted(statistics.items())),
            cache_options(self.config),
        )
