"""The embedded backbone: a tiny SmolVLM in a folder, made on this machine from a fixed seed.

SmolVLA reads its backbone's shape, tokenizer and processor from a folder or a Hub repository, so a
folder with the same files makes the whole policy build with nothing downloaded.
"""

import hashlib
import inspect
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from safetensors.torch import save_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    PreTrainedTokenizerFast,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMImageProcessor,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
)

from zk0.errors import Zk0Error
from zk0.learning.base import base_hash, base_weights
from zk0.paths import home

SEED = 20_25  # of the frozen weights, whatever a run's own seed: caches and checkpoints rely on it
IMAGE_SIZE = 128
WEIGHTS = "model.safetensors"
BACKBONE = "model.vlm_with_expert.vlm."  # where it is in a policy
VOCABULARY = 512  # of the tokenizer; a shape may have more word embeddings


@dataclass(frozen=True)
class Shape:
    """A SmolVLM's sizes, and how many patches a side its pixel shuffle joins into one token."""

    text: Mapping[str, Any]
    vision: Mapping[str, Any]
    patches_per_token: int


TINY = Shape(
    text={
        "model_type": "llama",
        "hidden_size": 192,
        "intermediate_size": 512,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "num_hidden_layers": 4,
        "head_dim": 32,
        "vocab_size": VOCABULARY,
    },
    vision={
        "model_type": "smolvlm_vision",
        "hidden_size": 128,
        "image_size": IMAGE_SIZE,
        "patch_size": 16,
        "num_attention_heads": 4,
        "num_hidden_layers": 3,
        "intermediate_size": 512,
    },
    patches_per_token=2,  # 64 patches become 16 tokens per camera
)
FULL = Shape(  # SmolVLM2-500M's; SmolVLA keeps 16 of its language layers
    text={
        "model_type": "llama",
        "hidden_size": 960,
        "intermediate_size": 2560,
        "num_attention_heads": 15,
        "num_key_value_heads": 5,
        "num_hidden_layers": 32,
        "head_dim": 64,
        "vocab_size": 49_280,
    },
    vision={
        "model_type": "smolvlm_vision",
        "hidden_size": 768,
        "image_size": 512,
        "patch_size": 16,
        "num_attention_heads": 12,
        "num_hidden_layers": 12,
        "intermediate_size": 3072,
    },
    patches_per_token=4,  # 1024 patches become 64 tokens per camera
)

_SPECIAL_TOKENS = {
    "bos_token": "<|im_start|>",
    "eos_token": "<end_of_utterance>",
    "pad_token": "<pad>",
    "unk_token": "<|endoftext|>",
}
_IMAGE_TOKENS = {
    "fake_image_token": "<fake_token_around_image>",
    "image_token": "<image>",
    "end_of_utterance_token": "<end_of_utterance>",
    "global_image_token": "<global-img>",
}
_COLOURS = (
    "red orange yellow green blue purple black white gray "
    "cyan pink brown lime navy teal magenta silver gold maroon"
)
_CORPUS = (  # the words that instructions are made of; others are spelled out in bytes
    f"Touch the {_COLOURS} cube.",
    "Pick up the cube. Pick up the cube and place it on the circle.",
    "Pick up the cube and return the arm to rest while holding it.",
    "Push the cube to the left. Pull the cube closer.",
    "Stack the cube on the cube.",
    "Rest the gripper beside the cube.",
    "Move above the cube. Move above the circle.",
    "Close the gripper on the cube.",
    "Hold the cube above the circle.",
    "pick up the cube and place it in the bucket",
)


WORDS = sorted({word.strip(".").lower() for text in _CORPUS for word in text.split()})


def embedded_backbone(random: bool = False) -> Path:
    """The backbone's folder under `ZK0_HOME`: the base policy's, or one with `random` weights.

    Made on first use, safely beside other processes; raises `Zk0Error` where it cannot be.
    """
    recipe = inspect.getsource(sys.modules[__name__]) + ("" if random else base_hash())
    name = hashlib.sha256(recipe.encode()).hexdigest()[:16]
    folder = home() / "backbones" / f"embedded-{name}"
    if not folder.is_dir():
        try:
            _make_embedded(folder, random)
        except OSError as error:
            reason = error.strerror or error
            raise Zk0Error(
                f"{folder} cannot be written ({reason}): set ZK0_HOME to a folder that can be."
            ) from error
    return folder


def _make_embedded(folder: Path, random: bool) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            partial = folder.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            _write_embedded(partial, random)
            partial.replace(folder)


def _write_embedded(folder: Path, random: bool) -> None:
    config = write_backbone(folder, TINY)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = SmolVLMForConditionalGeneration(config)
    if not random:
        weights = base_weights()
        own = {name: weights[BACKBONE + name] for name, _ in model.named_parameters()}
        model.load_state_dict(own, strict=False)
    save_model(model, str(folder / WEIGHTS))


def write_backbone(folder: Path, shape: Shape) -> SmolVLMConfig:
    """Config, tokenizer and processor of a backbone, without weights.

    A policy whose `vlm_model_name` is the folder builds where `load_vlm_weights` is false.
    """
    tokenizer = _tokenizer()
    config = SmolVLMConfig(
        text_config=dict(shape.text),
        vision_config=dict(shape.vision),
        scale_factor=shape.patches_per_token,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        pad_token_id=tokenizer.pad_token_id,
    )
    config.save_pretrained(folder)
    SmolVLMProcessor(
        image_processor=SmolVLMImageProcessor(),
        tokenizer=tokenizer,
        video_processor=SmolVLMVideoProcessor(),
        image_seq_len=64,
    ).save_pretrained(folder)
    return config


def vocabulary_hash() -> str:
    """SHA-256 of the tokenizer, 64 hexadecimal digits: weights fit no other."""
    return hashlib.sha256(_tokenizer().backend_tokenizer.to_str().encode()).hexdigest()


def _tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = [*_SPECIAL_TOKENS.values(), *_IMAGE_TOKENS.values()]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(dict.fromkeys(special)),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **_SPECIAL_TOKENS, extra_special_tokens=_IMAGE_TOKENS
    )
