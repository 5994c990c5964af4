"""Who plays rollouts: a policy, and those it has to be compared with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy

from zk0.data.statistics import STATE, Moments
from zk0.evaluation.rollouts import Episode
from zk0.learning.device import device_of, wake_vision
from zk0.learning.policy import make_processors
from zk0.learning.prefix import encode_prefix, predict_action_chunk
from zk0.sim.experts import Unreachable
from zk0.sim.world import World

IMAGES = "observation.images."
SECOND = 10  # frames that the simple controllers decide about at once


class PolicyController:
    """A policy: it sees all episodes at once and decides on `n_action_steps` frames of each."""

    def __init__(self, policy: SmolVLAPolicy, statistics: Mapping[str, Moments]) -> None:
        self.policy = policy
        self.preprocess, self.postprocess = make_processors(policy, statistics)

    @torch.no_grad()
    def decide(self, episodes: Sequence[Episode]) -> Sequence[np.ndarray]:
        """Noise depends on an episode's seed and frame only, not on the episodes beside it."""
        policy = self.policy.eval()
        wake_vision(policy)
        batch = self.preprocess(_observed(episodes))
        noise = torch.stack([self._noise(episode) for episode in episodes])
        prefix = encode_prefix(policy, batch)
        chunk = predict_action_chunk(policy, prefix, batch, noise.to(device_of(policy)))
        actions = self.postprocess(chunk[:, : policy.config.n_action_steps])
        return list(actions.float().cpu().numpy())

    def _noise(self, episode: Episode) -> torch.Tensor:
        seed = np.random.SeedSequence([episode.seed, len(episode.actions)]).generate_state(1)[0]
        shape = self.policy.config.chunk_size, self.policy.config.max_action_dim
        return torch.randn(shape, generator=torch.Generator().manual_seed(int(seed)))


def _observed(episodes: Sequence[Episode]) -> dict[str, object]:
    """As lerobot's processor takes it: states, float images (n, 3, h, w) in [0, 1], tasks."""
    seen = [episode.observation for episode in episodes]
    images = {
        f"{IMAGES}{camera}": torch.from_numpy(np.stack([each.images[camera] for each in seen]))
        .permute(0, 3, 1, 2)
        .float()
        / 255
        for camera in seen[0].images
    }
    states = torch.from_numpy(np.stack([each.state for each in seen]))
    return {STATE: states, **images, "task": [episode.instruction for episode in episodes]}


class Hold:
    """Stays where the arm is."""

    def decide(self, episodes: Sequence[Episode]) -> list[np.ndarray]:
        return [_held(episode.observation.state) for episode in episodes]


@dataclass(frozen=True)
class Random:
    """Another pose each second, drawn evenly from all that the joints allow."""

    world: World

    def decide(self, episodes: Sequence[Episode]) -> list[np.ndarray]:
        low, high = self.world.limits
        draws = [np.random.default_rng([each.seed, len(each.actions)]) for each in episodes]
        return [_held(draw.uniform(low, high)) for draw in draws]


@dataclass(frozen=True)
class Expert:
    """The scripted expert, which knows the simulator's state. It plans once, and stays where its
    plan ends, or at the start where it cannot reach."""

    world: World

    def decide(self, episodes: Sequence[Episode]) -> list[np.ndarray]:
        return [self._plan(episode) for episode in episodes]

    def _plan(self, episode: Episode) -> np.ndarray:
        if episode.actions:
            return _held(episode.actions[-1])
        self.world.load(episode.moment)
        try:
            return np.stack(self.world.expert_actions())
        except Unreachable:
            return _held(episode.observation.state)


def _held(pose: np.ndarray) -> np.ndarray:
    return np.tile(pose, (SECOND, 1))
