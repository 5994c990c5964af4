"""Batches by index: frames normalised and tokenised once, their prefixes from the cache."""

import numpy as np
import torch
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from lerobot.utils.constants import OBS_LANGUAGE_ATTENTION_MASK, OBS_LANGUAGE_TOKENS
from numpy.typing import NDArray
from torch import Tensor

from zk0.data.frames import Frames
from zk0.data.statistics import ACTION, STATE
from zk0.learning.policy import Processor
from zk0.learning.prefix import Prefix
from zk0.learning.prefix_cache import CacheOptions, open_prefixes

Batch = dict[str, Tensor]


class Batches:
    """A view's frames as the policy takes them, on its device, in any order.

    lerobot's processor normalises and tokenises all frames at once, which gives what it gives batch
    by batch; a batch is then a matter of indexing.
    """

    def __init__(
        self, policy: SmolVLAPolicy, frames: Frames, preprocess: Processor, cache: CacheOptions
    ) -> None:
        self.frames = frames
        self.chunk_size = policy.config.chunk_size
        processed = preprocess(
            {
                STATE: torch.from_numpy(frames.states),
                ACTION: torch.from_numpy(frames.actions),
                "task": list(frames.tasks),
            }
        )
        self._columns: dict[str, Tensor] = {key: processed[key] for key in (STATE, ACTION)}
        words = {key: processed[key] for key in (OBS_LANGUAGE_TOKENS, OBS_LANGUAGE_ATTENTION_MASK)}
        self._prefixes = open_prefixes(policy, frames, words, cache)

    def __len__(self) -> int:
        return len(self.frames)

    def take(self, positions: NDArray[np.int64]) -> tuple[Batch, Prefix]:
        """The frames at `positions` of the view: state, actions and padding as lerobot's processor
        gives them for items of its DataLoader, and the prefix for images and instruction."""
        rows = self.frames.selection[positions]
        ahead, padded = self.frames.chunks(rows, self.chunk_size)
        device = self._columns[ACTION].device
        index = torch.from_numpy(rows).to(device)
        batch = {
            STATE: self._columns[STATE][index],
            ACTION: self._columns[ACTION][torch.from_numpy(ahead).to(device)],
            f"{ACTION}_is_pad": torch.from_numpy(padded).to(device),
        }
        return batch, self._prefixes.take(rows)
