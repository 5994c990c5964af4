"""How well a policy predicts recorded actions, with everything but the weights held fixed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from lerobot.utils.constants import ACTION
from numpy.typing import NDArray

from zk0.learning.batches import Batches
from zk0.learning.prefix import flow_losses, mean_by_dimension, predict_action_chunk
from zk0.learning.training import draw_noise
from zk0.record.evidence import FrameLosses

TOGETHER = 64  # frames at least: without gradients small batches only waste time
NOISE_SEED = 0  # whatever a run's own seed, so that runs can be compared frame by frame


@dataclass(frozen=True)
class PolicyLoss:
    """The mean flow-matching loss over frames (in normalised action units), its standard error, and
    the means of each joint: its loss, and the absolute error of the predicted chunk in degrees
    (percent for the gripper) where it was measured."""

    loss: float
    standard_error: float
    frames: int
    losses: Mapping[str, float] = field(default_factory=dict)
    errors: Mapping[str, float] = field(default_factory=dict)

    def to_metrics(self) -> dict[str, float]:
        """The numbers by their names in messages and in the record, one level deep."""
        by_joint = {"loss": self.losses, "error": self.errors}
        return {
            "loss": self.loss,
            "standard-error": self.standard_error,
            **{
                f"{kind}.{joint}": x for kind, part in by_joint.items() for joint, x in part.items()
            },
        }

    def to_json(self) -> dict[str, float]:
        return {**self.to_metrics(), "frames": self.frames}


@torch.no_grad()
def evaluate_frames(
    policy: SmolVLAPolicy,
    batches: Batches,
    batch_size: int,
    limit: int,
    predict: bool,
    seed: int = NOISE_SEED,
) -> FrameLosses:
    """Evaluate on `limit` batches of evenly spaced frames, on all frames where it is 0.

    With `predict` the policy's action chunks are compared with the recorded ones too, which takes
    about four times as long. Frames, noise and flow times depend on the data and the seed only, so
    that two evaluations differ by the weights alone, whatever the batch size.
    """
    positions = _spread(len(batches), limit * batch_size)
    noise, times = draw_noise(policy, len(positions), torch.Generator().manual_seed(seed))
    policy.eval()
    losses, errors = [], []
    together = max(batch_size, TOGETHER)
    for start in range(0, len(positions), together):
        part = slice(start, start + together)
        batch, prefix = batches.take(positions[part])
        padded = batch[f"{ACTION}_is_pad"]
        flow = flow_losses(policy, prefix, batch, noise[part], times[part])
        losses.append(mean_by_dimension(flow, padded))
        if predict:
            chunk = predict_action_chunk(policy, prefix, batch, noise[part])
            error = (chunk - batch[ACTION]).abs() * batches.action_scale
            errors.append(mean_by_dimension(error, padded))
    rows = batches.frames.selection[positions]
    episodes, measured = batches.frames.episodes[rows], _to_numpy(errors) if predict else None
    return FrameLosses(rows, episodes, _to_numpy(losses), measured)


def _to_numpy(parts: Sequence[torch.Tensor]) -> NDArray[np.float32]:
    return torch.cat(list(parts)).float().cpu().numpy()


def summarise(frames: FrameLosses, joints: Sequence[str]) -> PolicyLoss:
    """Means over the frames, and what the loss's would vary by with other episodes."""
    values = frames.losses.mean(1, dtype=np.float64)
    return PolicyLoss(
        loss=float(values.mean()),
        standard_error=standard_error(values, frames.episodes),
        frames=len(values),
        losses=_by_joint(frames.losses, joints),
        errors={} if frames.errors is None else _by_joint(frames.errors, joints),
    )


def standard_error(values: NDArray[np.float64], episodes: NDArray[np.int64]) -> float:
    """Of the mean of frames that come in episodes, within which they are alike.

    The mean is a ratio of sums over C episodes; its variance is C/(C-1) * sum((s_c - mean n_c)^2) /
    n^2 (Cochran 1977, equation 6.13). Frames count as independent where there is one episode.
    """
    _, episode = np.unique(episodes, return_inverse=True)
    if episode.max() == 0:
        episode = np.arange(len(values))
    deviations = np.bincount(episode, values - values.mean())
    count = len(deviations)
    return float(np.sqrt(count / max(1, count - 1) * np.square(deviations).sum()) / len(values))


def _by_joint(values: NDArray[np.float32], joints: Sequence[str]) -> dict[str, float]:
    means = values.mean(0, dtype=np.float64).tolist()
    return dict(zip(joints, means, strict=True))


def _spread(frames: int, wanted: int) -> np.ndarray:
    """`wanted` positions (all where 0), evenly over the frames, none twice."""
    count = min(wanted, frames) or frames
    return np.unique(np.linspace(0, frames - 1, count).round().astype(np.int64))
