import numpy as np
import pytest
import torch

from zk0.data.frames import Frames
from zk0.evaluation.policy_loss import policy_loss
from zk0.learning.batches import Batches
from zk0.learning.policy import build_policy, make_processors
from zk0.learning.training import draw_noise


@pytest.fixture
def batches(policy, touch: Frames, exact) -> Batches:
    preprocess, _ = make_processors(policy, touch.statistics)
    return Batches(policy, touch, preprocess, exact)


@pytest.fixture
def evaluate(policy, batches: Batches):
    def run(batch_size: int = 8, limit: int = 2, seed: int = 0):
        return policy_loss(policy, batches, batch_size, limit, seed)

    return run


def test_two_evaluations_are_equal_and_leave_the_random_state_alone(evaluate):
    before = torch.random.get_rng_state()
    assert evaluate() == evaluate()
    assert torch.equal(before, torch.random.get_rng_state())
    assert evaluate() != evaluate(seed=1)


def test_batch_size_does_not_matter(evaluate):
    small, large = evaluate(4, 4), evaluate(16, 1)
    assert small.frames == large.frames == 16
    assert small.loss == pytest.approx(large.loss, rel=1e-5)


def test_no_limit_takes_every_frame(evaluate, touch: Frames):
    assert evaluate(limit=0).frames == len(touch)
    assert evaluate(limit=10_000).frames == len(touch)


def test_policy_that_predicts_nothing_has_a_loss_known_in_closed_form(
    policy, touch: Frames, batches: Batches
):
    """With a velocity of zero the loss is the mean square of noise - action over unpadded steps."""
    torch.nn.init.zeros_(policy.model.action_out_proj.weight)
    torch.nn.init.zeros_(policy.model.action_out_proj.bias)
    result = policy_loss(policy, batches, 64, 0, 5)
    noise, _ = draw_noise(policy, len(touch), torch.Generator().manual_seed(5))
    batch, _ = batches.take(np.arange(len(touch)))
    squares = (noise[:, :, :6] - batch["action"]).square().mean(2)
    kept = ~batch["action_is_pad"]
    expected = (squares * kept).sum(1) / kept.sum(1)
    assert result.loss == pytest.approx(expected.mean().item(), rel=1e-5)
    assert result.standard_error == pytest.approx(
        expected.std().item() / len(touch) ** 0.5, rel=1e-4
    )


def test_another_policy_has_another_loss(evaluate, touch: Frames, exact):
    other = build_policy("embedded", 3, torch.device("cpu"))
    preprocess, _ = make_processors(other, touch.statistics)
    batches = Batches(other, touch, preprocess, exact)
    assert policy_loss(other, batches, 8, 2, 0).loss != evaluate().loss
