"""A training curve pinned in a file: what is meant to change no number has to reproduce it.

After a change that is meant to: `python -m tests.learning.test_golden` writes the file anew; say
why in the commit.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from zk0.learning.policy import EMBEDDED_RANDOM, build_policy, get_trainable, set_trainable
from zk0.learning.prefix import Prefix, encode_prefix
from zk0.learning.training import LocalSteps, train

FILE = Path(__file__).with_name("golden_curve.json")
FRAMES = 24


class SyntheticBatches:
    """Noise as images, smooth random motion as actions: the same on every machine."""

    def __init__(self, policy) -> None:
        rng = np.random.default_rng(0)
        chunk = policy.config.chunk_size
        motion = rng.normal(size=(FRAMES, chunk, 6)).cumsum(1) / 4
        words = torch.from_numpy(rng.integers(10, 300, (FRAMES, 6)))
        self.batch = {
            "observation.state": torch.from_numpy(motion[:, 0]).float(),
            "action": torch.from_numpy(motion).float(),
            "action_is_pad": torch.from_numpy(np.arange(chunk) > rng.integers(4, 40, (FRAMES, 1))),
            "observation.language.tokens": words,
            "observation.language.attention_mask": torch.arange(6) < 6 - (words[:, :1] % 3),
        }
        images = {
            camera: torch.from_numpy(rng.random((FRAMES, 3, 128, 128))).float()
            for camera in policy.config.image_features
        }
        self.prefix = encode_prefix(policy, {**self.batch, **images})

    def __len__(self) -> int:
        return FRAMES

    def take(self, positions: np.ndarray) -> tuple[dict, Prefix]:
        batch = {key: column[positions] for key, column in self.batch.items()}
        return batch, Prefix(self.prefix.keys_values[positions], self.prefix.mask[positions])

    def stream(self, order: list[np.ndarray]) -> Iterator[tuple[dict, Prefix]]:
        return map(self.take, order)


def measure_curve() -> list[float]:
    """Mean loss, last loss and distance travelled after 1, 5, 10 and 20 steps."""
    policy = build_policy(EMBEDDED_RANDOM, 0, torch.device("cpu"))
    batches = SyntheticBatches(policy)
    start = {name: tensor.clone() for name, tensor in get_trainable(policy).items()}
    curve = []
    for steps in (1, 5, 10, 20):
        set_trainable(policy, start)
        result = train(policy, batches, LocalSteps(steps, 8, 1e-3, 0.05), [0, 1, 2])
        curve += [result.loss, result.last_loss, result.update_norm]
    return curve


def test_curve_is_the_pinned_one():
    assert measure_curve() == pytest.approx(json.loads(FILE.read_text()), rel=1e-4)


if __name__ == "__main__":
    FILE.write_text(json.dumps(measure_curve(), indent=1) + "\n")
