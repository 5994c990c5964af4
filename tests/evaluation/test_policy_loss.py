import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zk0.data.frames import Frames
from zk0.evaluation.open_loop import film, predict_episode
from zk0.evaluation.policy_loss import evaluate_frames, standard_error, summarise
from zk0.learning.batches import Batches
from zk0.learning.policy import build_policy, make_processors
from zk0.learning.prefix import loss_from_prefix, predict_action_chunk
from zk0.learning.training import draw_noise
from zk0.record.evidence import FrameLosses, load_frames, save_frames
from zk0.record.videos import load_facts

JOINTS = ["shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper"]


@pytest.fixture
def batches(policy, touch: Frames, exact) -> Batches:
    return Batches(policy, touch, touch.statistics, exact)


@pytest.fixture
def evaluate(policy, batches: Batches):
    def run(batch_size: int = 8, limit: int = 2, seed: int = 0, predict: bool = False):
        return evaluate_frames(policy, batches, batch_size, limit, predict, seed)

    return run


def equal(one: FrameLosses, other: FrameLosses) -> bool:
    return np.array_equal(one.losses, other.losses) and np.array_equal(one.rows, other.rows)


def test_two_evaluations_are_equal_and_leave_the_random_state_alone(evaluate):
    before = torch.random.get_rng_state()
    assert equal(evaluate(), evaluate())
    assert torch.equal(before, torch.random.get_rng_state())
    assert not equal(evaluate(), evaluate(seed=1))


def test_batch_size_does_not_matter(evaluate):
    small, large = evaluate(4, 4, predict=True), evaluate(16, 1, predict=True)
    assert len(small.rows) == 16
    np.testing.assert_array_equal(small.rows, large.rows)
    np.testing.assert_allclose(small.losses, large.losses, rtol=1e-4)
    np.testing.assert_allclose(small.errors, large.errors, rtol=1e-3)


def test_no_limit_takes_every_frame(evaluate, touch: Frames):
    assert len(evaluate(limit=0).rows) == len(touch)
    assert len(evaluate(limit=10_000).rows) == len(touch)


def test_frames_are_spread_over_all_episodes(evaluate, touch: Frames):
    found = evaluate(4, 4)
    assert set(found.episodes) == set(touch.episodes)
    np.testing.assert_array_equal(touch.episodes[found.rows], found.episodes)


def test_losses_by_joint_have_the_training_loss_as_their_mean(policy, batches: Batches, evaluate):
    """Over frames without padding, where frames and steps count alike."""
    found = evaluate(limit=0, seed=3)
    noise, times = draw_noise(policy, len(found.rows), torch.Generator().manual_seed(3))
    inside = np.flatnonzero(batches.frames.ends - found.rows >= policy.config.chunk_size)
    batch, prefix = batches.take(inside)
    loss = loss_from_prefix(policy, prefix, batch, noise[inside], times[inside])
    assert found.losses[inside].mean() == pytest.approx(loss.item(), rel=1e-5)


def test_policy_that_predicts_nothing_has_a_loss_known_in_closed_form(
    policy, touch: Frames, batches: Batches, evaluate
):
    """With a velocity of zero the loss is the mean square of noise - action over unpadded steps,
    and the predicted chunk is the noise."""
    torch.nn.init.zeros_(policy.model.action_out_proj.weight)
    torch.nn.init.zeros_(policy.model.action_out_proj.bias)
    found = evaluate(64, 0, 5, predict=True)
    noise, _ = draw_noise(policy, len(touch), torch.Generator().manual_seed(5))
    batch, _ = batches.take(np.arange(len(touch)))
    off = noise[:, :, :6] - batch["action"]
    kept = ~batch["action_is_pad"][:, :, None]
    expected = (off.square() * kept).sum(1) / kept.sum(1)
    np.testing.assert_allclose(found.losses, expected.numpy(), rtol=1e-4)
    degrees = touch.statistics["action"].scale
    errors = (off.abs() * kept).sum(1) / kept.sum(1) * degrees
    np.testing.assert_allclose(found.errors, errors.numpy(), rtol=1e-4)


def test_error_is_that_of_the_actions_which_the_robot_would_get(
    policy, touch: Frames, batches: Batches, evaluate
):
    """lerobot's own postprocessor turns the chunk into degrees; the recorded ones are raw."""
    found = evaluate(4, 1, predict=True)
    noise, _ = draw_noise(policy, len(found.rows), torch.Generator().manual_seed(0))
    batch, prefix = batches.take(found.rows)
    _, postprocess = make_processors(policy, touch.statistics)
    chunk = postprocess(predict_action_chunk(policy, prefix, batch, noise)).numpy()
    for frame, row in enumerate(found.rows):
        recorded = touch.actions[row : touch.ends[row]][: policy.config.chunk_size]
        expected = np.abs(chunk[frame, : len(recorded)] - recorded).mean(0)
        np.testing.assert_allclose(found.errors[frame], expected, rtol=1e-3, atol=1e-3)


def test_summary_names_joints_and_adds_up(evaluate, touch: Frames):
    found = evaluate(predict=True)
    result = summarise(found, touch.joints)
    assert list(result.losses) == list(result.errors) == JOINTS
    assert result.loss == pytest.approx(np.mean(list(result.losses.values())))
    assert result.to_metrics()["error.gripper"] == pytest.approx(found.errors[:, 5].mean())
    assert summarise(evaluate(), touch.joints).errors == {}


def test_another_policy_has_another_loss(evaluate, touch: Frames, exact):
    other = build_policy("embedded-random", 3, torch.device("cpu"))
    batches = Batches(other, touch, touch.statistics, exact)
    assert not equal(evaluate_frames(other, batches, 8, 2, False), evaluate())


def test_standard_error_is_that_of_whole_episodes():
    """Frames of an episode that are all alike tell no more than one of them."""
    episodes = np.repeat(np.arange(5), 40)
    values = np.random.default_rng(0).normal(size=5)[episodes]
    means = values[::40]
    assert standard_error(values, episodes) == pytest.approx(means.std(ddof=1) / 5**0.5)
    frames = np.random.default_rng(1).normal(size=200)
    alone = frames.std(ddof=1) / 200**0.5
    assert standard_error(frames, np.zeros(200, np.int64)) == pytest.approx(alone)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.floats(-5, 5))
def test_standard_error_of_equal_values_is_nothing(episodes: list[int], value: float):
    values = np.full(len(episodes), value)
    assert standard_error(values, np.array(episodes)) == pytest.approx(0, abs=1e-9)


def test_evidence_survives_the_disk(evaluate, tmp_path):
    found = {"near": evaluate(predict=True), "far.away": evaluate()}
    save_frames(tmp_path, found)
    kept = load_frames(tmp_path)
    assert kept.keys() == found.keys()
    assert equal(kept["near"], found["near"])
    np.testing.assert_array_equal(kept["near"].errors, found["near"].errors)
    assert kept["far.away"].errors is None


def test_open_loop_predicts_every_frame_from_a_recorded_one(policy, touch: Frames, batches):
    found = predict_episode(policy, batches, 1)
    rows = np.flatnonzero(touch.episodes == 1)
    np.testing.assert_array_equal(found.rows, rows)
    np.testing.assert_array_equal(found.recorded, touch.actions[rows])
    chunk = policy.config.n_action_steps
    noise, _ = draw_noise(policy, -(-len(rows) // chunk), torch.Generator().manual_seed(0))
    batch, prefix = batches.take(rows[chunk : chunk + 1])
    _, postprocess = make_processors(policy, touch.statistics)
    second = postprocess(predict_action_chunk(policy, prefix, batch, noise[1:2]))[0].numpy()
    np.testing.assert_allclose(found.predicted[chunk : 2 * chunk], second[:chunk], atol=1e-2)


def test_open_loop_is_filmed_with_its_facts(policy, touch: Frames, batches, tmp_path):
    found = predict_episode(policy, batches, 2)
    video = film(found, batches, tmp_path, "client_0", 4, 0.5)
    facts = load_facts(video)
    assert (facts.kind, facts.round, facts.episode, facts.success) == ("open-loop", 4, 2, None)
    assert facts.frames == len(found.rows)
    expected = np.abs(found.predicted - found.recorded).mean(0)
    assert list(facts.action_error.values()) == pytest.approx(expected.tolist(), rel=1e-5)
