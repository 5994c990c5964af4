from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lerobot.configs import NormalizationMode
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from torch.utils.data import default_collate

from tests.learning.test_normalisation import known, normalising_by
from zk0.data.frames import Frames, open_frames
from zk0.errors import Zk0Error
from zk0.learning.batches import Batches, PooledBatches
from zk0.learning.integrity import hash_arrays
from zk0.learning.policy import build_policy, get_trainable, make_processors, set_trainable
from zk0.learning.prefix import loss_from_prefix
from zk0.learning.prefix_cache import CacheOptions
from zk0.learning.training import (
    LocalResult,
    LocalSteps,
    add_proximal_gradient,
    build_optimizer,
    count_steps,
    draw_noise,
    train,
)

CPU = torch.device("cpu")
SHORT = LocalSteps(steps=3, batch_size=8, learning_rate=1e-3, proximal_mu=0.1)


def _train(policy, frames: Frames, local: LocalSteps = SHORT, seed=(0, 0, 1)) -> LocalResult:
    return train(policy, _batches(policy, frames), local, list(seed))


def _batches(policy, frames: Frames) -> Batches:
    return Batches(policy, frames, known(policy, frames), CacheOptions("prefix", 0.0, "float32"))


def test_proximal_gradient_is_that_of_the_quadratic_term():
    rng = np.random.default_rng(0)
    weights, anchor, gradient = rng.normal(size=(3, 5, 4))
    parameter = torch.nn.Parameter(torch.tensor(weights))
    parameter.grad = torch.tensor(gradient)
    add_proximal_gradient([parameter], [torch.tensor(anchor)], 0.3)
    np.testing.assert_allclose(parameter.grad.numpy(), gradient + 0.3 * (weights - anchor))


def test_one_step_equals_plain_torch_with_the_term_in_the_loss(touch: Frames):
    """Two steps, since in the first w = w_global and the proximal term vanishes. By updates as a
    whole: Adam divides by a gradient's size, so that rounding, which differs from processor to
    processor, may turn the step of a parameter whose gradient is nearly zero (0.003 for one)."""
    local = LocalSteps(steps=2, batch_size=4, learning_rate=1e-3, proximal_mu=5.0)
    ours, plain, without = (build_policy("embedded", 0, CPU) for _ in range(3))
    start = _flat(ours)
    _train(ours, touch, local)
    _train(without, touch, replace(local, proximal_mu=0.0))
    _plain_training(plain, touch, local)
    expected = _flat(plain)
    moved = (expected - start).norm()
    assert (_flat(ours) - expected).norm() < 0.02 * moved
    assert (_flat(without) - expected).norm() > 0.1 * moved


def _flat(policy) -> torch.Tensor:
    """A copy of all trainable parameters in a row."""
    return torch.cat([tensor.flatten() for tensor in get_trainable(policy).values()])


@pytest.mark.parametrize(
    "mode", [mode for mode in NormalizationMode if mode is not NormalizationMode.MEAN_STD]
)
def test_policy_of_another_normalisation_is_trained_as_plain_torch_would(
    touch: Frames, tmp_path: Path, mode: NormalizationMode
):
    """A policy from a folder, through the prefix cache, against lerobot's preprocessor and forward;
    by updates as a whole, as Adam makes much of a gradient that is nearly zero."""
    normalising_by(build_policy("embedded", 0, CPU), mode).save_pretrained(tmp_path)
    ours, plain = (build_policy(str(tmp_path), 0, CPU) for _ in range(2))
    local = LocalSteps(steps=3, batch_size=4, learning_rate=1e-3, proximal_mu=5.0)
    result = _train(ours, touch, local)
    losses = _plain_training(plain, touch, local)
    assert [result.first_loss, result.last_loss] == pytest.approx([losses[0], losses[-1]], rel=1e-5)
    start = get_trainable(build_policy(str(tmp_path), 0, CPU))
    for name, tensor in get_trainable(ours).items():
        expected = get_trainable(plain)[name]
        assert (tensor - expected).norm() < 0.02 * (expected - start[name]).norm(), name


@pytest.mark.parametrize("tier", ["prefix", "vision", "off"])
def test_twenty_steps_from_every_tier_are_lerobots(touch: Frames, tier: str):
    """From the cache on disk, through `train`, against lerobot's preprocessor and forward."""
    ours, plain = (build_policy("embedded", 0, CPU) for _ in range(2))
    local = LocalSteps(steps=20, batch_size=4, learning_rate=1e-3, proximal_mu=0.1)
    batches = Batches(ours, touch, known(ours, touch), CacheOptions(tier, 0.0, "float32"))
    result, losses = train(ours, batches, local, [0, 0, 1]), _plain_training(plain, touch, local)
    found = [result.loss, result.first_loss, result.last_loss]
    assert found == pytest.approx(
        [np.mean(losses), np.mean(losses[:2]), np.mean(losses[-2:])], rel=1e-4
    )


def _plain_training(policy, frames: Frames, local: LocalSteps) -> list[float]:
    """The losses without the proximal term."""
    preprocess, _ = make_processors(policy, known(policy, frames))
    parameters = [p for p in policy.parameters() if p.requires_grad]
    start = [p.detach().clone() for p in parameters]
    optimizer = torch.optim.AdamW(
        parameters, lr=local.learning_rate, betas=(0.9, 0.95), eps=1e-8, weight_decay=1e-10
    )
    order = np.random.default_rng([0, 0, 1]).permutation(len(frames))
    state = np.random.SeedSequence([0, 0, 1]).generate_state(1, np.uint64)[0]
    generator = torch.Generator().manual_seed(int(state >> np.uint64(1)))
    losses = []
    policy.train()
    for step in range(local.steps):
        rows = order[step * local.batch_size : (step + 1) * local.batch_size]
        batch = preprocess(_lerobot_batch(frames, rows))
        noise, times = draw_noise(policy, len(rows), generator)
        loss = policy.forward(batch, noise, times)[0]
        distance = sum(((p - a) ** 2).sum() for p, a in zip(parameters, start, strict=True))
        optimizer.zero_grad()
        (loss + local.proximal_mu / 2 * distance).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 10.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


def _lerobot_batch(frames: Frames, rows: np.ndarray) -> dict:
    """What lerobot's DataLoader gives, images included."""
    dataset = LeRobotDataset(
        "zk0/touch",
        root=frames.videos.metadata.root,
        delta_timestamps={"action": [step / 10 for step in range(16)]},
    )
    return default_collate([dataset[int(row)] for row in rows])


def test_batches_are_what_lerobots_loader_and_processor_give(policy, touch: Frames):
    """Every frame, so that all padded ends of episodes are among them."""
    preprocess, _ = make_processors(policy, touch.statistics)
    batches = _batches(policy, touch)
    for rows in np.array_split(np.arange(len(touch)), 4):
        ours, _ = batches.take(rows)
        theirs = preprocess(_lerobot_batch(touch, rows))
        for key in ("observation.state", "action", "action_is_pad"):
            assert torch.equal(ours[key], theirs[key]), key


def test_camera_under_another_name_and_one_that_is_missing(policy, touch: Frames):
    """The wrist's images as those of the front, and nothing as the wrist's: as lerobot has it."""
    front, wrist = touch.videos.cameras
    rows = np.arange(3, 7)
    batch, prefix = _batches(policy, touch.seen_as({front: wrist})).take(rows)
    preprocess, _ = make_processors(policy, touch.statistics)
    theirs = preprocess(_lerobot_batch(touch, rows))
    theirs[front] = theirs.pop(wrist)
    noise, times = draw_noise(policy, len(rows), torch.Generator().manual_seed(0))
    loss = loss_from_prefix(policy, prefix, batch, noise, times)
    torch.testing.assert_close(loss, policy.forward(theirs, noise, times)[0], rtol=1e-5, atol=0)


def test_joint_that_never_moved_is_no_danger(policy, touch: Frames):
    """Its deviation is 0; elsewhere it moves, and lerobot would divide that by 1e-8."""
    still = replace(touch, states=touch.states.copy(), actions=touch.actions.copy())
    still.states[:, 4] = still.actions[:, 4] = 37.2
    moved = replace(touch, states=touch.states.copy())
    batches = Batches(policy, moved, still.statistics, CacheOptions("prefix", 0.0, "float32"))
    batch, prefix = batches.take(np.arange(8))
    assert batch["observation.state"].abs().max() < 1e3
    noise, times = draw_noise(policy, 8, torch.Generator().manual_seed(0))
    assert loss_from_prefix(policy, prefix, batch, noise, times) < 1e5


def test_streamed_batches_are_the_taken_ones(policy, touch: Frames, monkeypatch):
    batches = _batches(policy, touch)
    order = [np.array([3, 1]), np.array([0, 5]), np.array([2, 2])]
    expected = [batches.take(positions) for positions in order]
    monkeypatch.setattr(batches, "device", torch.device("meta"))  # takes the path beside a GPU
    monkeypatch.setattr("zk0.learning.batches.upload", lambda array, _: torch.from_numpy(array))
    for (batch, prefix), (own, own_prefix) in zip(batches.stream(order), expected, strict=True):
        assert torch.equal(batch["action"], own["action"])
        assert torch.equal(prefix.keys_values, own_prefix.keys_values)


def test_training_moves_the_expert_and_no_bit_of_the_frozen_backbone(policy, touch: Frames):
    frozen = {n: p.detach().clone() for n, p in policy.named_parameters() if not p.requires_grad}
    before = hash_arrays(get_trainable(policy))
    result = _train(policy, touch)
    assert hash_arrays(get_trainable(policy)) != before
    assert result.update_norm > 0
    for name, parameter in policy.named_parameters():
        if name in frozen:
            assert torch.equal(parameter, frozen[name]), name


def test_same_seed_same_result_and_another_seed_another(touch: Frames):
    hashes = []
    for seed in ((0, 0, 1), (0, 0, 1), (0, 0, 2), (0, 1, 1)):
        policy = build_policy("embedded", 0, CPU)
        _train(policy, touch, seed=seed)
        hashes.append(hash_arrays(get_trainable(policy)))
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3


def test_loss_falls_and_a_strong_proximal_term_holds_the_weights_back(touch: Frames):
    free, held = (build_policy("embedded", 0, CPU) for _ in range(2))
    steps = {"steps": 20, "batch_size": 16, "learning_rate": 1e-3}
    result = _train(free, touch, LocalSteps(**steps, proximal_mu=0.0))
    assert result.last_loss < 0.8 * result.first_loss
    assert result.proximal_term == 0
    pulled = _train(held, touch, LocalSteps(**steps, proximal_mu=100.0))
    assert pulled.update_norm < 0.5 * result.update_norm


def test_fewer_frames_than_a_batch_trains_on_what_there_is(policy, touch: Frames):
    few = touch.select(np.arange(len(touch)) < 5)
    result = _train(policy, few, LocalSteps(2, 32, 1e-3, 0.0))
    assert result.steps == 2


def test_loss_that_is_not_finite_ends_the_round(policy, touch: Frames):
    with pytest.raises(Zk0Error, match="policy loss became"):
        _train(policy, touch, LocalSteps(6, 4, 1e12, 0.0))


def test_bfloat16_autocast_stays_near_float32(touch: Frames):
    policies = [
        build_policy("embedded", 0, CPU, precision) for precision in ("float32", "bfloat16")
    ]
    exact, rounded = (_train(policy, touch, LocalSteps(5, 8, 1e-3, 0.0)) for policy in policies)
    assert rounded.loss == pytest.approx(exact.loss, rel=0.02)
    assert rounded.loss != exact.loss
    dtypes = {tensor.dtype for tensor in get_trainable(policies[1]).values()}
    assert dtypes == {torch.float32}


@pytest.mark.slow
def test_compiled_steps_are_the_eager_ones(touch: Frames):
    local = LocalSteps(3, 8, 1e-3, 0.1)
    results = []
    for compiled in (False, True):
        policy = build_policy("embedded", 0, CPU)
        results.append(train(policy, _batches(policy, touch), local, [0], compiled))
    assert results[1].loss == pytest.approx(results[0].loss, rel=1e-5)
    assert results[1].update_norm == pytest.approx(results[0].update_norm, rel=1e-3)


def test_steps_win_over_epochs():
    assert count_steps(100, 32, local_epochs=2, local_steps=0) == 8
    assert count_steps(100, 32, local_epochs=2, local_steps=5) == 5


def test_flow_times_follow_smolvlas_distribution(policy):
    """Beta(1.5, 1) has mean 0.6 and variance 0.6 - 0.36 - ... = 1.5 / (2.5^2 * 3.5)."""
    _, times = draw_noise(policy, 20_000, torch.Generator().manual_seed(0))
    theirs = policy.model.sample_time(20_000, CPU)
    assert times.min() >= 0.001
    assert times.max() <= 1.0
    torch.testing.assert_close(times.mean(), theirs.mean(), atol=0.01, rtol=0)
    torch.testing.assert_close(times.std(), theirs.std(), atol=0.01, rtol=0)


def test_pooled_batches_hold_every_dataset_in_turn(policy, touch: Frames, datasets):
    """Instructions of other lengths make prefixes of other lengths: the losses have to be those
    that each frame has by itself."""
    far = open_frames(datasets["far"], "far")
    parts = [
        Batches(policy, frames, touch.statistics, CacheOptions("prefix", 0.0, "float32"))
        for frames in (touch, far)
    ]
    pooled = PooledBatches(parts)
    assert len(pooled) == len(touch) + len(far)
    positions = np.array([len(touch) + 3, 0, len(touch) - 1, len(touch), 5])
    noise, times = draw_noise(policy, len(positions), torch.Generator().manual_seed(0))
    batch, prefix = pooled.take(positions)
    found = loss_from_prefix(policy, prefix, batch, noise, times, "none")
    for place, position in enumerate(positions):
        owner, start = (1, len(touch)) if position >= len(touch) else (0, 0)
        batch, prefix = parts[owner].take(np.array([position - start]))
        own = slice(place, place + 1)
        alone = loss_from_prefix(policy, prefix, batch, noise[own], times[own], "none")
        torch.testing.assert_close(found[own], alone, rtol=1e-5, atol=1e-6)
    widths = [part.take(np.array([0]))[1].mask.shape[1] for part in parts]
    assert widths[0] != widths[1]  # else this test would show nothing


def test_pooling_one_dataset_changes_nothing(policy, touch: Frames):
    start = {name: values.clone() for name, values in get_trainable(policy).items()}
    batches, local = _batches(policy, touch), LocalSteps(2, 8, 1e-3, 0.0)
    train(policy, batches, local, [0])
    plain = hash_arrays(get_trainable(policy))
    set_trainable(policy, start)
    train(policy, PooledBatches([batches]), local, [0])
    assert hash_arrays(get_trainable(policy)) == plain


def test_optimizer_that_is_handed_on_keeps_its_moments(policy, touch: Frames):
    batches, local = _batches(policy, touch), LocalSteps(2, 8, 1e-3, 0.0)
    optimizer = build_optimizer(policy)
    for server_round in (1, 2):
        train(policy, batches, local, [0, server_round], optimizer=optimizer)
    assert {int(state["step"]) for state in optimizer.state.values()} == {4}
