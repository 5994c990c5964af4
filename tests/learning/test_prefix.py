"""Training and inference from a prefix against lerobot's own: same losses, gradients, actions."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from torch import Tensor

from zk0.learning.backbone import FULL, write_backbone
from zk0.learning.policy import EMBEDDED_CAMERAS
from zk0.learning.prefix import (
    Prefix,
    embed_images,
    encode_prefix,
    loss_from_prefix,
    predict_action_chunk,
    read_prefix,
    require_frozen,
)
from zk0.learning.training import draw_noise

FRONT, WRIST = EMBEDDED_CAMERAS
FRAMES = 4
WORDS = 7
TOLERANCE = 1e-5  # relative, in float32
WORD_MASK = "observation.language.attention_mask"

Batch = dict[str, Any]


def make_batch(policy: SmolVLAPolicy, frames: int = FRAMES, seed: int = 0) -> Batch:
    """Random frames as the policy's preprocessor hands them over, one near its episode's end."""
    config, generator = policy.config, torch.Generator().manual_seed(seed)
    width, height = config.resize_imgs_with_padding
    padded = torch.zeros(frames, config.chunk_size, dtype=torch.bool)
    padded[-1, config.chunk_size // 4 :] = True
    return {
        FRONT: torch.rand(frames, 3, height, width, generator=generator),
        WRIST: torch.rand(frames, 3, height, width, generator=generator),
        "observation.state": torch.randn(frames, 6, generator=generator),
        "action": torch.randn(frames, config.chunk_size, 6, generator=generator),
        "action_is_pad": padded,
        "observation.language.tokens": torch.randint(20, 400, (frames, WORDS), generator=generator),
        WORD_MASK: torch.ones(frames, WORDS, dtype=torch.bool),
    }


def _mask_front(batch: Batch) -> None:
    batch[f"{FRONT}_padding_mask"] = torch.tensor([False, True] * (FRAMES // 2))


def _shorten_instructions(batch: Batch) -> None:
    lengths = torch.arange(WORDS, WORDS - FRAMES, -1)
    batch[WORD_MASK] = torch.arange(WORDS) < lengths[:, None]


def _add_time_dimension(batch: Batch) -> None:
    for key in (FRONT, WRIST, "observation.state"):
        batch[key] = batch[key][:, None]


def _crop(batch: Batch) -> None:
    batch[FRONT] = batch[FRONT][..., :96, :]


@dataclass(frozen=True)
class Case:
    """What differs from the embedded policy's config and from a plain batch."""

    config: Mapping[str, Any]
    change: Callable[[Batch], Any] = lambda batch: None


CASES = {
    "plain": Case({}),
    "episodes not padded": Case({}, lambda batch: batch.pop("action_is_pad")),
    "nothing but padding": Case({}, lambda batch: batch["action_is_pad"].fill_(True)),
    "masked camera": Case({}, _mask_front),
    "missing camera": Case({"empty_cameras": 1}),
    "instructions of different lengths": Case({}, _shorten_instructions),
    "time dimension": Case({}, _add_time_dimension),
    "images that are not square": Case({}, _crop),
    "image markers": Case({"add_image_special_tokens": True}, _mask_front),
    "self-attention only": Case({"attention_mode": "self_attn"}, _mask_front),
    "cross-attention only": Case({"self_attn_every_n_layers": 0}, _mask_front),
    "half the expert layers": Case({"num_expert_layers": 2, "self_attn_every_n_layers": 0}),
    "half the expert layers, self-attention": Case(
        {"num_expert_layers": 2, "attention_mode": "self_attn"}
    ),
    "fewer language layers": Case({"num_vlm_layers": 3}),
    "prefix length": Case({"prefix_length": 60}, _shorten_instructions),
    "frozen state projection": Case({"train_state_proj": False}),
}
# lerobot's own inference fails where a self-attention layer has no expert layer beside it.
INFERENCE_CASES = CASES.keys() - {"half the expert layers, self-attention"}


def vary(policy: SmolVLAPolicy, changes: Mapping[str, Any]) -> SmolVLAPolicy:
    """The policy, or one with another config and random weights (backbone included)."""
    if not changes:
        return policy
    torch.manual_seed(1)
    return SmolVLAPolicy(replace(deepcopy(policy.config), **changes))


@pytest.fixture
def example(request: pytest.FixtureRequest, policy: SmolVLAPolicy) -> tuple[SmolVLAPolicy, Batch]:
    """The policy and the batch of a case by its name, which the test is parametrised with."""
    case = CASES[request.param]
    varied = vary(policy, case.config)
    batch = make_batch(varied)
    case.change(batch)
    return varied, batch


def draw(policy: SmolVLAPolicy, frames: int = FRAMES, seed: int = 0) -> tuple[Tensor, Tensor]:
    return draw_noise(policy, frames, torch.Generator().manual_seed(seed))


def gradients(policy: SmolVLAPolicy, loss: Tensor) -> dict[str, Tensor]:
    """The loss's gradient of every trainable parameter that it depends on."""
    policy.zero_grad(set_to_none=True)
    loss.backward()
    return {name: p.grad for name, p in policy.named_parameters() if p.grad is not None}


def relative_error(value: Tensor, expected: Tensor) -> float:
    return ((value - expected).norm() / expected.norm().clamp_min(1e-30)).item()


def assert_same_loss_and_gradients(
    policy: SmolVLAPolicy, loss: Tensor, expected: Tensor, weights: Tensor | None = None
) -> None:
    torch.testing.assert_close(loss, expected, rtol=TOLERANCE, atol=0)
    ours = gradients(policy, loss if weights is None else loss @ weights)
    theirs = gradients(policy, expected if weights is None else expected @ weights)
    trainable = {name for name, p in policy.named_parameters() if p.requires_grad}
    assert ours.keys() == theirs.keys() <= trainable
    errors = {name: relative_error(ours[name], theirs[name]) for name in theirs}
    assert max(errors.values()) < TOLERANCE, max(errors, key=errors.__getitem__)


@pytest.mark.parametrize("example", CASES, indirect=True)
def test_loss_and_gradients_are_lerobots(example):
    policy, batch = example
    noise, times = draw(policy)
    loss = loss_from_prefix(policy, encode_prefix(policy, batch), batch, noise, times)
    expected, _ = policy.forward(batch, noise, times)
    assert_same_loss_and_gradients(policy, loss, expected)


@pytest.mark.parametrize("example", ["plain", "episodes not padded"], indirect=True)
def test_loss_of_each_frame_is_lerobots(example):
    policy, batch = example
    noise, times = draw(policy)
    loss = loss_from_prefix(policy, encode_prefix(policy, batch), batch, noise, times, "none")
    expected, _ = policy.forward(batch, noise, times, reduction="none")
    assert loss.shape == (FRAMES,)
    assert_same_loss_and_gradients(policy, loss, expected, torch.arange(1.0, FRAMES + 1))


@pytest.mark.parametrize("example", sorted(INFERENCE_CASES), indirect=True)
def test_actions_are_lerobots(example):
    policy, batch = example
    noise, _ = draw(policy)
    policy.eval()
    actions = predict_action_chunk(policy, encode_prefix(policy, batch), batch, noise)
    assert actions.shape == (FRAMES, policy.config.chunk_size, 6)
    expected = policy.predict_action_chunk(batch, noise)
    assert relative_error(actions, expected) < TOLERANCE


def test_every_trainable_parameter_has_a_gradient(policy):
    batch = make_batch(policy)
    loss = loss_from_prefix(policy, encode_prefix(policy, batch), batch, *draw(policy))
    received = gradients(policy, loss)
    assert received.keys() == {name for name, p in policy.named_parameters() if p.requires_grad}
    assert all(gradient.norm() > 0 for gradient in received.values())


def test_prefix_in_two_parts_is_the_prefix(policy):
    batch = make_batch(policy)
    _mask_front(batch)
    whole = encode_prefix(policy, batch)
    parts = read_prefix(policy, embed_images(policy, batch), batch)
    assert torch.equal(parts.keys_values, whole.keys_values)
    assert torch.equal(parts.mask, whole.mask)


def test_prefix_has_the_stated_layout(policy):
    prefix = encode_prefix(policy, make_batch(policy))
    tokens = 2 * 16 + WORDS
    assert prefix.keys_values.shape == (FRAMES, 4, 2, tokens, 2, 32)
    assert prefix.mask.shape == (FRAMES, tokens)
    assert not prefix.keys_values.requires_grad


def test_prefix_of_a_frame_does_not_depend_on_state_action_or_neighbours(policy):
    batch = make_batch(policy)
    alone = {key: value[1:2] for key, value in batch.items()}
    alone["observation.state"] = alone["observation.state"] + 1
    prefix, single = encode_prefix(policy, batch), encode_prefix(policy, alone)
    assert relative_error(single.keys_values[0], prefix.keys_values[1]) < TOLERANCE


def halve_precision(prefix: Prefix) -> Prefix:
    return replace(prefix, keys_values=prefix.keys_values.bfloat16())


def test_bfloat16_prefix_keeps_the_loss(policy):
    batch, drawn = make_batch(policy), draw(policy)
    prefix = encode_prefix(policy, batch)
    loss = loss_from_prefix(policy, halve_precision(prefix), batch, *drawn)
    expected = loss_from_prefix(policy, prefix, batch, *drawn)
    assert loss.dtype is torch.float32
    torch.testing.assert_close(loss, expected, rtol=1e-3, atol=0)


def test_trainable_backbone_is_refused(policy):
    require_frozen(policy)
    layer = policy.model.vlm_with_expert.get_vlm_model().text_model.layers[2]
    layer.mlp.up_proj.weight.requires_grad = True
    with pytest.raises(ValueError, match=r"text_model\.layers\.2\.mlp\.up_proj\.weight.*trainable"):
        require_frozen(policy)


def train(policy: SmolVLAPolicy, loss_of: Callable[[int], Tensor], steps: int) -> Tensor:
    """The losses of `steps` of AdamW on the loss that `loss_of` gives for each step's number."""
    parameters = [p for p in policy.parameters() if p.requires_grad]
    optimizer = policy.config.get_optimizer_preset().build(parameters)
    policy.train()
    losses = []
    for step in range(steps):
        loss = loss_of(step)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 10)
        optimizer.step()
        losses.append(loss.item())
    return torch.tensor(losses)


def test_training_curve_is_lerobots(policy):
    batches = [make_batch(policy, seed=seed) for seed in range(4)]
    prefixes = [encode_prefix(policy, batch) for batch in batches]
    other = deepcopy(policy)

    def from_prefix(step: int) -> Tensor:
        number = step % len(batches)
        drawn = draw(policy, seed=step)
        return loss_from_prefix(policy, prefixes[number], batches[number], *drawn)

    def from_images(step: int) -> Tensor:
        return other.forward(batches[step % len(batches)], *draw(other, seed=step))[0]

    curve, expected = train(policy, from_prefix, 20), train(other, from_images, 20)
    torch.testing.assert_close(curve, expected, rtol=1e-4, atol=0)
    assert curve[-4:].mean() < curve[:4].mean()


def build_full_policy(folder: Path) -> SmolVLAPolicy:
    """SmolVLA of its published size on two 512 x 512 cameras, all weights random."""
    write_backbone(folder, FULL)
    camera = PolicyFeature(FeatureType.VISUAL, (3, 512, 512))
    config = SmolVLAConfig(
        input_features={
            "observation.state": PolicyFeature(FeatureType.STATE, (6,)),
            **dict.fromkeys(EMBEDDED_CAMERAS, camera),
        },
        output_features={"action": PolicyFeature(FeatureType.ACTION, (6,))},
        vlm_model_name=str(folder),
        device="cpu",
    )
    torch.manual_seed(0)
    return SmolVLAPolicy(config)


@pytest.mark.slow
def test_full_size(tmp_path: Path):
    policy = build_full_policy(tmp_path)
    sizes = {p: p.numel() for p in policy.parameters()}
    assert sum(sizes.values()) / 1e6 == pytest.approx(450.0, abs=0.1)
    trainable = sum(size for p, size in sizes.items() if p.requires_grad)
    assert trainable / 1e6 == pytest.approx(99.9, abs=0.1)
    batch, drawn = make_batch(policy, frames=2), draw(policy, frames=2)
    prefix = encode_prefix(policy, batch)
    assert prefix.keys_values.shape == (2, 16, 2, 2 * 64 + WORDS, 5, 64)
    loss = loss_from_prefix(policy, prefix, batch, *drawn)
    assert_same_loss_and_gradients(policy, loss, policy.forward(batch, *drawn)[0])
