"""Batches by index: frames normalised and tokenised once, their prefixes from the cache."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from lerobot.utils.constants import OBS_LANGUAGE_ATTENTION_MASK, OBS_LANGUAGE_TOKENS
from numpy.typing import NDArray
from torch import Tensor

from zk0.ahead import one_ahead
from zk0.data.frames import Frames
from zk0.data.statistics import ACTION, STATE, Statistics
from zk0.learning.device import device_of, upload
from zk0.learning.normalisation import mode_of, to_units
from zk0.learning.policy import make_processors
from zk0.learning.prefix import Prefix, join_prefixes
from zk0.learning.prefix_cache import CacheOptions, open_prefixes

Batch = dict[str, Tensor]


class Batches:
    """A view's frames as the policy takes them, on its device, in any order.

    lerobot's processor normalises and tokenises all frames at once, which gives what it gives batch
    by batch; a batch is then a matter of indexing.
    """

    def __init__(
        self, policy: SmolVLAPolicy, frames: Frames, statistics: Statistics, cache: CacheOptions
    ) -> None:
        self.frames = frames
        self.device = device_of(policy)
        preprocess, _ = make_processors(policy, statistics)
        processed = preprocess(
            {
                STATE: torch.from_numpy(frames.states),
                ACTION: torch.from_numpy(frames.actions),
                "task": list(frames.tasks),
            }
        )
        self._columns: dict[str, Tensor] = {key: processed[key] for key in (STATE, ACTION)}
        self._last = upload(frames.ends - 1, self.device)
        units = to_units(mode_of(policy.config, ACTION), statistics[ACTION])
        # (action dim,): normalised actions times the scale plus the offset are in the data's units.
        self.action_offset = upload(units.offset, self.device)
        self.action_scale = upload(units.scale, self.device)
        self._ahead = torch.arange(policy.config.chunk_size, device=self.device)
        words = {key: processed[key] for key in (OBS_LANGUAGE_TOKENS, OBS_LANGUAGE_ATTENTION_MASK)}
        self._prefixes = open_prefixes(policy, frames, words, cache)

    def __len__(self) -> int:
        return len(self.frames)

    def take(self, positions: NDArray[np.int64]) -> tuple[Batch, Prefix]:
        """The frames at `positions` of the view: state, actions and padding as lerobot's processor
        gives them for items of its DataLoader, and the prefix for images and instruction.

        Past an episode's end its last action is repeated and marked as padding, as lerobot does.
        """
        rows = self.frames.selection[positions]
        index = upload(rows, self.device)
        wanted, last = index[:, None] + self._ahead, self._last[index, None]
        batch = {
            STATE: self._columns[STATE][index],
            ACTION: self._columns[ACTION][torch.minimum(wanted, last)],
            f"{ACTION}_is_pad": wanted > last,
        }
        return batch, self._prefixes.take(rows)

    def stream(self, order: Iterable[NDArray[np.int64]]) -> Iterator[tuple[Batch, Prefix]]:
        """`take` for each element of `order`; beside a GPU, the next one while it computes."""
        return _stream(self, order)


class PooledBatches:
    """Several datasets' frames as one, in the order of `parts`, all normalised alike."""

    def __init__(self, parts: Sequence[Batches]) -> None:
        self.parts = parts
        self.device = parts[0].device
        self._starts = np.cumsum([0, *(len(part) for part in parts)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def take(self, positions: NDArray[np.int64]) -> tuple[Batch, Prefix]:
        """The frames at `positions` of all, as `Batches.take`; shorter prefixes are padded."""
        owners = np.searchsorted(self._starts, positions, side="right") - 1
        present = np.unique(owners)
        taken = [
            self.parts[owner].take(positions[owners == owner] - self._starts[owner])
            for owner in present
        ]
        if len(taken) == 1:
            return taken[0]
        found = np.concatenate([np.flatnonzero(owners == owner) for owner in present])
        order = upload(np.argsort(found), self.device)
        batches, prefixes = zip(*taken, strict=True)
        batch = {key: torch.cat([each[key] for each in batches])[order] for key in batches[0]}
        return batch, join_prefixes(prefixes, order)

    def stream(self, order: Iterable[NDArray[np.int64]]) -> Iterator[tuple[Batch, Prefix]]:
        return _stream(self, order)


def _stream(
    batches: Batches | PooledBatches, order: Iterable[NDArray[np.int64]]
) -> Iterator[tuple[Batch, Prefix]]:
    on_gpu = batches.device.type != "cpu"  # without one, the cores are busy with the step
    return one_ahead(batches.take, order) if on_gpu else map(batches.take, order)
