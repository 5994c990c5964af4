"""The embedded base policy that ships with zk0: what `zk0.pretraining` made, and how it is read."""

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from safetensors.torch import load, save

from zk0.errors import Zk0Error
from zk0.files import write_whole

WEIGHTS = Path(__file__).with_name("base.safetensors")
RECIPE = Path(__file__).with_name("base.json")  # how they were made, how good they are, their hash


@cache
def base_hash() -> str:
    """SHA-256 of the weights as they are on record, 64 hexadecimal digits."""
    try:
        return str(json.loads(_read(RECIPE))["sha256"])
    except (ValueError, KeyError) as error:
        raise Zk0Error(f"{RECIPE} is damaged ({error}); install zk0 again.") from error


@cache
def base_weights() -> Mapping[str, torch.Tensor]:
    """All parameters by name, float32. Raises `Zk0Error` where they are not those on record."""
    content = _read(WEIGHTS)
    found = hashlib.sha256(content).hexdigest()
    if found != base_hash():
        raise Zk0Error(
            f"{WEIGHTS} is damaged: its SHA-256 is {found[:16]}..., not {base_hash()[:16]}...; "
            "install zk0 again."
        )
    return {name: tensor.float() for name, tensor in load(content).items()}


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise Zk0Error(f"{file} cannot be read ({error.strerror}); install zk0 again.") from error


def save_base(policy: SmolVLAPolicy, recipe: Mapping[str, Any], folder: Path) -> None:
    """Write a policy's weights in bfloat16, and their recipe, as the files read here."""
    parameters = {name: p.detach().bfloat16().cpu() for name, p in policy.named_parameters()}
    content = save({name: tensor.contiguous() for name, tensor in parameters.items()})
    write_whole(folder / WEIGHTS.name, content)
    described = {**recipe, "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    write_whole(folder / RECIPE.name, json.dumps(described, indent=1) + "\n")
