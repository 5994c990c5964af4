"""The policy loss on held-out frames, with everything but the weights held fixed."""

from dataclasses import dataclass

import numpy as np
import torch
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy

from zk0.data.frames import Frames
from zk0.learning.policy import Processor
from zk0.learning.training import draw_noise


@dataclass(frozen=True)
class PolicyLoss:
    """Mean flow-matching loss over frames (in normalised action units) and its standard error."""

    loss: float
    standard_error: float
    frames: int


@torch.no_grad()
def policy_loss(
    policy: SmolVLAPolicy,
    frames: Frames,
    preprocess: Processor,
    batch_size: int,
    batches: int,
    seed: int,
) -> PolicyLoss:
    """Evaluate on `batches` * `batch_size` evenly spaced frames, on all where `batches` is 0.

    Frames, noise and flow times depend on the data and the seed only, so that two evaluations
    differ by the weights alone, whatever the batch size.
    """
    positions = _spread(len(frames), batches * batch_size)
    noise, times = draw_noise(policy, len(positions), torch.Generator().manual_seed(seed))
    policy.eval()
    losses = []
    for start in range(0, len(positions), batch_size):
        part = slice(start, start + batch_size)
        batch = preprocess(frames.batch(positions[part], policy.config.chunk_size))
        loss, _ = policy.forward(batch, noise[part], times[part], reduction="none")
        losses.append(loss)
    values = torch.cat(losses).double().cpu()
    error = values.std() / len(values) ** 0.5 if len(values) > 1 else torch.tensor(0.0)
    return PolicyLoss(values.mean().item(), error.item(), len(values))


def _spread(frames: int, wanted: int) -> np.ndarray:
    """`wanted` positions (all where 0), evenly over the frames, none twice."""
    count = min(wanted, frames) or frames
    return np.unique(np.linspace(0, frames - 1, count).round().astype(np.int64))
