"""SmolVLA, built or loaded; its trainable arrays in and out by name."""

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import hf_hub_download, snapshot_download
from lerobot.configs import FeatureType, PolicyFeature, PreTrainedConfig
from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from lerobot.policies.smolvla.processor_smolvla import make_smolvla_pre_post_processors
from lerobot.processor import PolicyProcessorPipeline
from loguru import logger
from safetensors import SafetensorError
from safetensors.torch import load_file, load_model

from zk0.data.frames import Frames
from zk0.data.joints import JOINTS
from zk0.data.statistics import ACTION, ORDER, STATE, Moments
from zk0.errors import Zk0Error, first_line
from zk0.learning.backbone import IMAGE_SIZE, WEIGHTS, embedded_backbone
from zk0.learning.base import base_weights
from zk0.learning.device import Precision, device_of, set_precision
from zk0.learning.integrity import hash_arrays
from zk0.learning.normalisation import check_statistics, to_lerobot
from zk0.paths import from_project

EMBEDDED, EMBEDDED_RANDOM = "embedded", "embedded-random"
EMBEDDED_CAMERAS = ("observation.images.front", "observation.images.wrist")
BACKBONE = re.compile(r"backbone-[0-9a-f]{8}")  # the folder of a backbone inside a checkpoint

Arrays = Mapping[str, torch.Tensor]


def build_policy(
    model_name: str, seed: int, device: torch.device, precision: Precision = "auto"
) -> SmolVLAPolicy:
    """SmolVLA with vision and language frozen, action expert and state projection trainable.

    `model_name` is "embedded" (the base policy that comes with zk0), "embedded-random" (the same
    untrained: its action expert is drawn from `seed`), a Hub name or a folder.
    """
    if model_name == EMBEDDED:
        policy = _base()
    elif model_name == EMBEDDED_RANDOM:
        policy = _random(seed)
    else:
        policy = _pretrained(model_name)
    policy = policy.to(device)
    set_precision(policy, precision)
    return policy


def _base() -> SmolVLAPolicy:
    policy = _embedded(embedded_backbone(), seed=0, learning_rate=1e-3)
    weights = base_weights()
    policy.load_state_dict({name: weights[name] for name in get_trainable(policy)}, strict=False)
    return policy


def _random(seed: int) -> SmolVLAPolicy:
    return _embedded(embedded_backbone(random=True), seed, learning_rate=2e-3)


def _embedded(backbone: Path, seed: int, learning_rate: float) -> SmolVLAPolicy:
    """The tiny policy on the backbone in that folder, with an action expert drawn from `seed`, and
    the rate that its fine-tuning takes."""
    camera = PolicyFeature(FeatureType.VISUAL, (3, IMAGE_SIZE, IMAGE_SIZE))
    config = SmolVLAConfig(
        input_features={
            STATE: PolicyFeature(FeatureType.STATE, (len(JOINTS),)),
            **dict.fromkeys(EMBEDDED_CAMERAS, camera),
        },
        output_features={ACTION: PolicyFeature(FeatureType.ACTION, (len(JOINTS),))},
        vlm_model_name=str(backbone),
        load_vlm_weights=False,
        chunk_size=16,
        n_action_steps=8,
        resize_imgs_with_padding=(IMAGE_SIZE, IMAGE_SIZE),
        num_vlm_layers=0,  # all there are
        optimizer_lr=learning_rate,
        device="cpu",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        policy = SmolVLAPolicy(config)
    load_model(policy.model.vlm_with_expert.vlm, backbone / WEIGHTS)
    return policy


def _pretrained(model_name: str) -> SmolVLAPolicy:
    folder = from_project(model_name)
    if model_name.startswith((".", "/", "~")) and not folder.is_dir():
        raise Zk0Error(f'model-name = "{model_name}" is not a folder.')
    try:
        policy = _open(folder if folder.is_dir() else Path(model_name))
    except (OSError, RuntimeError, ValueError) as error:  # not there, other weights, other policy
        raise Zk0Error(
            f'model-name = "{model_name}" cannot be loaded: {first_line(error)}'
        ) from error
    if _freeze_backbone(policy):
        logger.info("{}: its backbone stays as it is, the action expert is trained", model_name)
    return policy


def _freeze_backbone(policy: SmolVLAPolicy) -> bool:
    """Whether any of it was meant to be trained."""
    parameters = list(policy.model.vlm_with_expert.vlm.parameters())
    trainable = any(parameter.requires_grad for parameter in parameters)
    for parameter in parameters:
        parameter.requires_grad = False
    return trainable


def _open(source: Path) -> SmolVLAPolicy:
    """The policy in a folder or a Hub repository, from whatever directory and wherever it was."""
    config = PreTrainedConfig.from_pretrained(source)
    if not isinstance(config, SmolVLAConfig):
        raise ValueError(f"it holds a policy of type {config.type}, not smolvla")
    config.vlm_model_name = _find_backbone(source, config.vlm_model_name)
    return SmolVLAPolicy.from_pretrained(source, config=config, strict=True)


def _find_backbone(source: Path, name: str) -> str:
    """Where the backbone's config, tokenizer and processor are: in the checkpoint itself; in
    `ZK0_HOME`, for the embedded policy's checkpoints that do not carry them; else where it says."""
    own = Path(name).name
    if BACKBONE.fullmatch(own):
        folder = source
        if not source.is_dir():
            folder = Path(snapshot_download(str(source), allow_patterns=f"{own}/*"))
        return str(folder.resolve() / own)
    if own.startswith("embedded-") and not Path(name).is_dir():
        here = {folder.name: folder for folder in (embedded_backbone(), embedded_backbone(True))}
        return str(here.get(own, name))
    return name


def load_checkpoint(
    folder: Path, device: torch.device, precision: Precision = "auto"
) -> tuple[SmolVLAPolicy, dict[str, Moments]]:
    """A checkpoint's policy with its backbone frozen, and the statistics that it normalises with.

    Raises `Zk0Error` where `folder` does not hold a whole SmolVLA with both processors.
    """
    try:
        policy = _open(folder)
        (normalizer,) = folder.glob("policy_preprocessor_step_*_normalizer_processor.safetensors")
        values = load_file(normalizer)
        statistics = {feature: _read_moments(values, feature) for feature in (STATE, ACTION)}
    except (OSError, RuntimeError, ValueError, KeyError, SafetensorError) as error:
        raise Zk0Error(
            f"{folder} is no checkpoint that can be loaded: {first_line(error)}"
        ) from error
    check_statistics(policy.config, statistics, f"{folder}: the statistics")
    _freeze_backbone(policy)
    policy = policy.to(device)
    set_precision(policy, precision)
    return policy, statistics


def _read_moments(values: Arrays, feature: str) -> Moments:
    """What a normalizer keeps of a feature; it does not say of how many frames."""
    known = {
        name: values[f"{feature}.{name}"].double().numpy()
        for name in ("mean", "std", *ORDER)
        if f"{feature}.{name}" in values
    }
    mean, deviation = known.pop("mean"), known.pop("std")
    return Moments(1, mean, np.square(deviation), known)


@lru_cache(maxsize=2)
def hash_backbone(policy: SmolVLAPolicy) -> str:
    """SHA-256 of the frozen weights, for which alone an action expert means anything; once per
    policy, as nothing changes them."""
    return hash_arrays(dict(policy.model.vlm_with_expert.vlm.named_parameters()))


def get_trainable(policy: SmolVLAPolicy) -> dict[str, torch.Tensor]:
    """The trainable parameters by name, detached and sharing memory with the policy."""
    return {name: p.detach() for name, p in policy.named_parameters() if p.requires_grad}


@torch.no_grad()
def set_trainable(policy: SmolVLAPolicy, arrays: Arrays) -> None:
    """Copy `arrays` into the trainable parameters.

    Raises `Zk0Error`, and copies nothing, unless names, shapes and dtypes are the policy's.
    """
    own = get_trainable(policy)
    foreign = sorted(own.keys() ^ arrays.keys())
    if foreign:
        raise Zk0Error(f"arrays do not fit the policy: {foreign[0]} is on one side only.")
    for name, tensor in own.items():
        given = arrays[name]
        if (given.shape, given.dtype) != (tensor.shape, tensor.dtype):
            raise Zk0Error(
                f"arrays do not fit the policy: {name} is {given.dtype} {tuple(given.shape)}, not "
                f"{tensor.dtype} {tuple(tensor.shape)}."
            )
    for name, tensor in own.items():
        tensor.copy_(arrays[name])


def load_trainable(policy: SmolVLAPolicy, source: str) -> dict[str, torch.Tensor]:
    """The trainable arrays of a checkpoint folder or Hub name, for a policy on the same backbone.

    Raises `Zk0Error` where the checkpoint is not there, is another policy's, or its frozen part is
    not the policy's own, for which the weights would mean nothing.
    """
    path = from_project(source) / WEIGHTS
    try:
        arrays = load_file(path if path.is_file() else hf_hub_download(source, WEIGHTS))
    except (OSError, ValueError, SafetensorError) as error:
        raise Zk0Error(f'start-from = "{source}" cannot be loaded: {first_line(error)}') from error
    for name, own in policy.named_parameters():
        given = arrays.get(name)
        if given is None:
            if own.requires_grad:  # of tied frozen weights only one is kept
                raise Zk0Error(f'start-from = "{source}" has no {name}.')
        elif given.shape != own.shape:
            raise Zk0Error(f'start-from = "{source}" is of another size: {name} differs.')
        elif not own.requires_grad and not torch.equal(given.to(own.dtype), own.detach().cpu()):
            raise Zk0Error(f'start-from = "{source}" has another backbone: {name} differs.')
    return {name: arrays[name].to(own.dtype) for name, own in get_trainable(policy).items()}


type Processor = PolicyProcessorPipeline[dict[str, Any], dict[str, Any]]


def make_processors(
    policy: SmolVLAPolicy, statistics: Mapping[str, Moments]
) -> tuple[Processor, PolicyProcessorPipeline]:
    """lerobot's pre- and post-processor with these statistics as normalisation.

    Raises `Zk0Error` where they lack what the policy normalises by.
    """
    check_statistics(policy.config, statistics, "the statistics")
    stats = {
        feature: {name: torch.from_numpy(x).float() for name, x in to_lerobot(moments).items()}
        for feature, moments in statistics.items()
    }
    policy.config.device = str(device_of(policy))
    return make_smolvla_pre_post_processors(policy.config, stats)


def check_fit(policy: SmolVLAPolicy, frames: Frames) -> None:
    """Raise `Zk0Error` where a dataset's dimensions are not what the policy takes."""
    config = policy.config
    for feature, values, wanted in (
        (STATE, frames.states, config.robot_state_feature),
        (ACTION, frames.actions, config.action_feature),
    ):
        if values.shape[1:] != tuple(wanted.shape):
            raise Zk0Error(
                f"{frames.slug}: {feature} has {values.shape[1]} dimensions, the policy takes "
                f"{wanted.shape[0]}."
            )
