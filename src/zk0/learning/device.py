"""Where a policy computes, and in what precision."""

from typing import Literal

import numpy as np
import torch
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from numpy.typing import NDArray
from torch import Tensor, nn

from zk0.errors import Zk0Error

Precision = Literal["auto", "float32", "bfloat16"]


def select_device(device: str) -> torch.device:
    """`auto`, `cpu` or `cuda` as a device; raises `Zk0Error` for CUDA where there is none."""
    if device == "cuda" and not torch.cuda.is_available():
        raise Zk0Error('device = "cuda", but PyTorch finds no CUDA GPU. Use device = "auto".')
    cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    return torch.device("cuda" if cuda else "cpu")


def device_of(policy: SmolVLAPolicy) -> torch.device:
    """Where the policy's steps are computed; its vision may wait elsewhere (`let_go_of_vision`)."""
    return policy.model.state_proj.weight.device


def set_precision(policy: SmolVLAPolicy, precision: Precision) -> None:
    """Compute in `precision` from now on, as lerobot's `use_amp` says it in the policy's config.

    "auto" is bfloat16 autocast, and TF32 for what stays in float32, on a CUDA GPU that has them,
    else float32: on CPUs autocast is slower (docs/experiments.md).
    """
    on_gpu = device_of(policy).type == "cuda"
    mixed = on_gpu and torch.cuda.is_bf16_supported(including_emulation=False)
    policy.config.use_amp = precision == "bfloat16" or (precision == "auto" and mixed)
    if on_gpu:
        torch.set_float32_matmul_precision("highest" if precision == "float32" else "high")


def autocast(policy: SmolVLAPolicy) -> torch.autocast:
    """The context in which the policy computes."""
    return torch.autocast(device_of(policy).type, torch.bfloat16, enabled=policy.config.use_amp)


def upload(values: NDArray, device: torch.device) -> Tensor:
    """An array on the device, without waiting for the device's work."""
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor


def wake_vision(policy: SmolVLAPolicy) -> None:
    """Bring what reads images and words onto the policy's device, if it is not there."""
    for part in _perception(policy):
        part.to(device_of(policy))


def let_go_of_vision(policy: SmolVLAPolicy) -> None:
    """Keep off the device what steps from cached prefixes never use; other parts stay."""
    for part in _perception(policy):
        part.to("cpu")


def _perception(policy: SmolVLAPolicy) -> list[nn.Module]:
    vlm = policy.model.vlm_with_expert.vlm
    model = vlm.model
    return [model.vision_model, model.connector, model.text_model.embed_tokens, vlm.lm_head]
