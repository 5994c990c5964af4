"""The policy loss on held-out frames, with everything but the weights held fixed."""

from dataclasses import dataclass

import numpy as np
import torch
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy

from zk0.learning.batches import Batches
from zk0.learning.prefix import loss_from_prefix
from zk0.learning.training import draw_noise

TOGETHER = 64  # frames at least: without gradients small batches only waste time


@dataclass(frozen=True)
class PolicyLoss:
    """Mean flow-matching loss over frames (in normalised action units) and its standard error."""

    loss: float
    standard_error: float
    frames: int


@torch.no_grad()
def policy_loss(
    policy: SmolVLAPolicy, batches: Batches, batch_size: int, limit: int, seed: int
) -> PolicyLoss:
    """Evaluate on `limit` batches of evenly spaced frames, on all frames where it is 0.

    Frames, noise and flow times depend on the data and the seed only, so that two evaluations
    differ by the weights alone, whatever the batch size.
    """
    positions = _spread(len(batches), limit * batch_size)
    noise, times = draw_noise(policy, len(positions), torch.Generator().manual_seed(seed))
    policy.eval()
    losses = []
    together = max(batch_size, TOGETHER)
    for start in range(0, len(positions), together):
        part = slice(start, start + together)
        batch, prefix = batches.take(positions[part])
        losses.append(loss_from_prefix(policy, prefix, batch, noise[part], times[part], "none"))
    values = torch.cat(losses).double().cpu()
    error = values.std() / len(values) ** 0.5 if len(values) > 1 else torch.tensor(0.0)
    return PolicyLoss(values.mean().item(), error.item(), len(values))


def _spread(frames: int, wanted: int) -> np.ndarray:
    """`wanted` positions (all where 0), evenly over the frames, none twice."""
    count = min(wanted, frames) or frames
    return np.unique(np.linspace(0, frames - 1, count).round().astype(np.int64))
