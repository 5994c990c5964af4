"""SmolVLA's training and inference from a prefix that was computed before.

A step of SmolVLA reads the keys and values of the image and language tokens, the *prefix*, at every
language layer. With the backbone frozen (SmolVLA's fine-tuning default) and images not augmented,
they are constants of the frame: image and language tokens attend to each other only. What is
trained stays outside: the state token (`state_proj`), which passes through the frozen layers with
its gradients, one token long, and the action expert. The loss and all gradients are those of
`SmolVLAPolicy.forward`; the vision encoder and nearly all of the language model are left out.

Cost at full size (450 M parameters, two cameras of 512 x 512, per frame): the prefix takes about
430 GFLOP of vision and 46 of language once; a step from it about 30, forward and backward.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
import torch.nn.functional as F
from lerobot.policies.common.flow_matching import euler_integrate
from lerobot.policies.common.vla_utils import make_att_2d_masks
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from lerobot.utils.constants import ACTION, OBS_LANGUAGE_ATTENTION_MASK, OBS_LANGUAGE_TOKENS
from torch import Tensor

from zk0.learning.device import autocast

Layer = Any  # a decoder layer of transformers' Llama
KeysValues = tuple[Tensor, Tensor]  # each (batch, tokens, key-value heads, head dim)
Rotation = tuple[Tensor, Tensor]  # cosines and signed sines, each (batch, tokens, 1, head dim)

ROPE_WAVELENGTH = 10_000  # of lerobot's `apply_rope`, in both language model and expert


@dataclass(frozen=True)
class Prefix:
    """Keys and values (batch, layers, 2, tokens, heads, head dim) after rotary embedding, and which
    tokens are real: (batch, tokens), false for padded words and missing cameras."""

    keys_values: Tensor
    mask: Tensor

    def layer(self, index: int) -> KeysValues:
        keys, values = self.keys_values[:, index].unbind(1)
        return keys, values


def join_prefixes(prefixes: Sequence[Prefix], order: Tensor) -> Prefix:
    """Prefixes one after the other, then as `order` says; shorter ones get masked tokens at their
    end, as the tokenizer gives shorter instructions in a batch."""
    longest = max(prefix.mask.shape[1] for prefix in prefixes)
    keys_values, masks = [], []
    for prefix in prefixes:
        missing = longest - prefix.mask.shape[1]
        keys_values.append(F.pad(prefix.keys_values, (0, 0, 0, 0, 0, missing)))
        masks.append(F.pad(prefix.mask, (0, missing), value=False))
    return Prefix(torch.cat(keys_values)[order], torch.cat(masks)[order])


def require_frozen(policy: SmolVLAPolicy) -> None:
    """Raise `ValueError` where a prefix is no constant of its frame (a trainable backbone), or
    where the policy converts states and actions on the way in, which is not repeated here."""
    if policy.config.adapt_to_pi_aloha:
        raise ValueError("adapt_to_pi_aloha is for another robot and not supported")
    for name, parameter in policy.model.vlm_with_expert.vlm.named_parameters():
        if parameter.requires_grad:
            raise ValueError(f"the prefix depends on {name}, which is trainable")


def encode_prefix(policy: SmolVLAPolicy, batch: dict[str, Any]) -> Prefix:
    """The prefix of a preprocessed batch: one pass of vision and language, the costly part."""
    return read_prefix(policy, embed_images(policy, batch), batch)


@dataclass(frozen=True)
class ImageTokens:
    """The connector's output (batch, cameras, tokens, hidden) and which cameras are there
    (batch, cameras)."""

    embeddings: Tensor
    present: Tensor


def embed_images(policy: SmolVLAPolicy, batch: dict[str, Any]) -> ImageTokens:
    """Vision encoder and connector on all cameras of a batch."""
    images, present = policy.prepare_images(batch)
    backbone = policy.model.vlm_with_expert
    with autocast(policy):
        embeddings = torch.stack([backbone.embed_image(image) for image in images], 1)
    return ImageTokens(embeddings, torch.stack(list(present), 1))


def read_prefix(policy: SmolVLAPolicy, images: ImageTokens, batch: dict[str, Any]) -> Prefix:
    """The language model on image tokens and the batch's instruction."""
    embeddings, mask = _join(policy, images, batch)
    with autocast(policy):
        _, cache = policy.model.vlm_with_expert.forward(
            attention_mask=make_att_2d_masks(mask, torch.zeros_like(mask)),
            position_ids=torch.cumsum(mask, 1) - 1,
            past_key_values=None,
            inputs_embeds=[embeddings, None],
            use_cache=True,
        )
    layers = [torch.stack([layer.keys, layer.values], 1) for layer in cache.layers]
    return Prefix(torch.stack(layers, 1).transpose(3, 4), mask)


def _join(
    policy: SmolVLAPolicy, images: ImageTokens, batch: dict[str, Any]
) -> tuple[Tensor, Tensor]:
    """Image and word embeddings in SmolVLA's order and scale, (batch, tokens, hidden), and mask."""
    backbone, words = policy.model.vlm_with_expert, batch[OBS_LANGUAGE_TOKENS]
    scale = images.embeddings.shape[-1] ** 0.5
    parts, masks = [], []
    for camera, present in zip(
        (images.embeddings * scale).unbind(1), images.present.unbind(1), strict=True
    ):
        for tokens, real in _with_markers(policy, camera, present):
            parts.append(tokens)
            masks.append(real[:, None].expand(tokens.shape[:2]))
    parts.append(backbone.embed_language_tokens(words) * scale)
    masks.append(batch[OBS_LANGUAGE_ATTENTION_MASK])
    return torch.cat(parts, 1), torch.cat(masks, 1)


def _with_markers(
    policy: SmolVLAPolicy, camera: Tensor, present: Tensor
) -> list[tuple[Tensor, Tensor]]:
    """A camera's tokens, between SmolVLM's image markers where the policy wants them."""
    model = policy.model
    if not model.add_image_special_tokens:
        return [(camera, present)]
    opening, closing = (
        model.vlm_with_expert.embed_language_tokens(marker.to(camera.device))
        .expand(len(camera), -1, -1)
        .to(camera.dtype)
        for marker in (model.global_image_start_token, model.image_end_token)
    )
    always = torch.ones_like(present)
    return [(opening, always), (camera, present), (closing, always)]


def flow_losses(
    policy: SmolVLAPolicy, prefix: Prefix, batch: dict[str, Any], noise: Tensor, times: Tensor
) -> Tensor:
    """Squared error of the predicted velocity (batch, chunk, action dim), as in the policy's loss.

    `noise` is (batch, chunk, max action dim), `times` (batch,). Flow matching as in SmolVLA
    (Shukor et al. 2025, arXiv:2506.01844, section 3.1), in lerobot's convention:
    x_t = t * noise + (1 - t) * actions, and the target is noise - actions.
    """
    actions = policy.prepare_action(batch)
    mix = times[:, None, None]
    noisy, target = mix * noise + (1 - mix) * actions, noise - actions
    with autocast(policy):
        memory = attend_state(policy, prefix, policy.prepare_state(batch))
        velocity = predict_velocity(policy, memory, noisy, times)
    action_dim = policy.config.action_feature.shape[0]
    return F.mse_loss(velocity, target, reduction="none")[:, :, :action_dim]


@torch.no_grad()
def predict_action_chunk(
    policy: SmolVLAPolicy, prefix: Prefix, batch: dict[str, Any], noise: Tensor
) -> Tensor:
    """`SmolVLAPolicy.predict_action_chunk` from a prefix, (batch, chunk, action dim).

    Raises `ValueError` for a policy with real-time chunking, which guides the integration.
    """
    if policy.config.rtc_config is not None and policy.config.rtc_config.enabled:
        raise ValueError("rtc_config (real-time chunking) is not supported")
    with autocast(policy):
        memory = attend_state(policy, prefix, policy.prepare_state(batch))
        actions = euler_integrate(
            lambda noisy, times: predict_velocity(policy, memory, noisy, times),
            noise,
            policy.config.num_steps,
        )
    return actions[:, :, : policy.config.action_feature.shape[0]]


def mean_loss(losses: Tensor, padded: Tensor | None, reduction: str = "mean") -> Tensor:
    """SmolVLA's mean over the steps inside the episode; per frame (batch,) with "none"."""
    if padded is None:
        return losses.mean() if reduction == "mean" else losses.mean((1, 2))
    inside = ~padded
    total = (losses * inside[:, :, None]).sum((1, 2))
    valid = inside.sum(1) * losses.shape[-1]
    if reduction == "none":
        return total / valid.clamp_min(1)
    return total.sum() / valid.sum().clamp_min(1)


def mean_by_dimension(values: Tensor, padded: Tensor) -> Tensor:
    """Each frame's mean over the steps inside its episode: (batch, chunk, dim) -> (batch, dim)."""
    inside = ~padded
    return (values * inside[:, :, None]).sum(1) / inside.sum(1, keepdim=True).clamp_min(1)


@dataclass(frozen=True)
class Memory:
    """What the expert reads: the prefix's keys and values with the state token's behind them."""

    layers: list[KeysValues]
    mask: Tensor  # (batch, tokens + 1)


def attend_state(policy: SmolVLAPolicy, prefix: Prefix, state: Tensor) -> Memory:
    """Pass the state token through the frozen language layers; differentiable in `state_proj`."""
    backbone, text = policy.model.vlm_with_expert, policy.model.vlm_with_expert.get_vlm_model()
    hidden = policy.model.state_proj(state)[:, None]  # (batch, 1, hidden)
    mask = F.pad(prefix.mask, (0, 1), value=True)
    rotation = _rotation(prefix.mask.sum(1, keepdim=True), backbone)
    layers = []
    for index, layer in enumerate(text.text_model.layers[: backbone.num_vlm_layers]):
        query, key, value = _project(layer, hidden)
        query, key = _rotate(query, rotation), _rotate(key, rotation)
        keys, values = prefix.layer(index)
        keys = torch.cat([keys.to(key.dtype), key], 1)
        values = torch.cat([values.to(value.dtype), value], 1)
        layers.append((keys, values))
        if index + 1 < backbone.num_vlm_layers:  # nothing reads the last layer's output
            hidden = _finish(layer, hidden, _attend(query, keys, values, mask[:, None, :]))
    return Memory(layers, mask)


def predict_velocity(policy: SmolVLAPolicy, memory: Memory, noisy: Tensor, times: Tensor) -> Tensor:
    """The action expert on noisy actions (batch, chunk, max action dim) at `times` (batch,)."""
    model, backbone = policy.model, policy.model.vlm_with_expert
    hidden, _, _ = model.embed_suffix(noisy, times)
    steps = hidden.shape[1]
    order = torch.arange(steps, device=hidden.device)
    past = memory.mask[:, None, :].expand(-1, steps, -1)
    causal = (order[:, None] >= order).expand(len(hidden), -1, -1)
    everything = torch.cat([past, causal], 2)
    behind = _rotation(memory.mask.sum(1, keepdim=True) + order, backbone)
    alone = _rotation(order[None], backbone)
    for index, layer in _expert_layers(backbone):
        keys, values = memory.layers[index]
        if _is_self_attention(backbone, index):
            query, key, value = _project(layer, hidden)
            query, key = _rotate(query, behind), _rotate(key, behind)
            keys, values = torch.cat([keys, key], 1), torch.cat([values, value], 1)
            attended = _attend(query, keys, values, everything)
        else:
            query = _rotate(_query(layer, hidden), alone)
            keys, values = _translate(layer, keys, values)
            attended = _attend(query, keys, values, past)
        hidden = _finish(layer, hidden, attended)
    return model.action_out_proj(_norm(backbone.lm_expert.norm, hidden)).float()


def _expert_layers(backbone: Any) -> list[tuple[int, Layer]]:
    """The expert's layers with the index of the language layer that each one reads."""
    every = backbone.num_vlm_layers // backbone.num_expert_layers
    return list(zip(count(0, every), backbone.lm_expert.layers, strict=False))


def _is_self_attention(backbone: Any, index: int) -> bool:
    every = backbone.self_attn_every_n_layers
    return "cross" not in backbone.attention_mode or (every > 0 and index % every == 0)


def _project(layer: Layer, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value (batch, tokens, heads, head dim) of a layer's input."""
    attention = layer.self_attn
    normed = _norm(layer.input_layernorm, hidden).to(attention.q_proj.weight.dtype)
    query, key, value = (p(normed) for p in (attention.q_proj, attention.k_proj, attention.v_proj))
    return _heads(layer, query), _heads(layer, key), _heads(layer, value)


def _query(layer: Layer, hidden: Tensor) -> Tensor:
    projection = layer.self_attn.q_proj
    normed = _norm(layer.input_layernorm, hidden).to(projection.weight.dtype)
    return _heads(layer, projection(normed))


def _translate(layer: Layer, keys: Tensor, values: Tensor) -> KeysValues:
    """The language model's keys and values as a cross-attention layer of the expert reads them."""
    attention = layer.self_attn
    return (
        _heads(layer, attention.k_proj(keys.flatten(2).to(attention.k_proj.weight.dtype))),
        _heads(layer, attention.v_proj(values.flatten(2).to(attention.v_proj.weight.dtype))),
    )


def _norm(module: Any, hidden: Tensor) -> Tensor:
    """`LlamaRMSNorm` as the library's one operation, in float32 as there."""
    return F.rms_norm(hidden.float(), module.weight.shape, module.weight, module.variance_epsilon)


def _rotation(positions: Tensor, backbone: Any) -> Rotation:
    """Rotary embedding of `positions` (batch, tokens), once for all layers.

    RoPE (Su et al. 2021, arXiv:2104.09864, equation 34) in lerobot's layout: a head's first half
    holds the pairs' first coordinates. Swapping the halves turns (x1, x2) into (x2, x1), which the
    sines multiply with the signs (-, +).
    """
    half = backbone.lm_expert.layers[0].self_attn.head_dim // 2
    steps = torch.arange(half, dtype=torch.float32, device=positions.device)
    angles = positions[..., None].float() / ROPE_WAVELENGTH ** (steps / half)
    sines, cosines = angles.sin(), angles.cos()
    twice, signed = torch.cat([cosines, cosines], -1), torch.cat([-sines, sines], -1)
    return twice[:, :, None], signed[:, :, None]


def _rotate(heads: Tensor, rotation: Rotation) -> Tensor:
    cosines, sines = rotation
    x = heads.float()
    return torch.addcmul(x * cosines, x.roll(x.shape[-1] // 2, -1), sines).to(heads.dtype)


def _heads(layer: Layer, projected: Tensor) -> Tensor:
    return projected.unflatten(-1, (-1, layer.self_attn.head_dim))


def _attend(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """Scaled dot-product attention over grouped heads: (batch, queries, heads * head dim)."""
    attended = F.scaled_dot_product_attention(
        query.transpose(1, 2),
        keys.transpose(1, 2).to(query.dtype),
        values.transpose(1, 2).to(query.dtype),
        attn_mask=mask[:, None],
        enable_gqa=True,
    )
    return attended.transpose(1, 2).flatten(2)


def _finish(layer: Layer, hidden: Tensor, attended: Tensor) -> Tensor:
    """The rest of a transformer layer after its attention."""
    output = layer.self_attn.o_proj
    hidden = hidden + output(attended.to(output.weight.dtype))
    return hidden + layer.mlp(_norm(layer.post_attention_layernorm, hidden))


def loss_from_prefix(
    policy: SmolVLAPolicy,
    prefix: Prefix,
    batch: dict[str, Any],
    noise: Tensor,
    times: Tensor,
    reduction: str = "mean",
) -> Tensor:
    """`SmolVLAPolicy.forward`'s loss from a prefix; per frame (batch,) with reduction "none"."""
    losses = flow_losses(policy, prefix, batch, noise, times)
    return mean_loss(losses, batch.get(f"{ACTION}_is_pad"), reduction)
