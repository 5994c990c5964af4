"""A training step of SmolVLA: lerobot's own against zk0's, from a prefix held in memory.

    .venv/bin/python benchmarks/train_step.py --size full --batch-size 4 --steps 5

Both sides train the same policy (random weights: time does not depend on them) on the same
batches, noise and flow times, in turn, in one process; each figure is the median over `--steps` of
its own. lerobot's step is `lerobot_train.update_policy` without accelerator and scheduler: forward,
backward, clipping over all parameters, the preset's AdamW, and the values read back for its log.
zk0's has the same clipping and AdamW, fused, and reads nothing back. With `--precision auto` each
has its own default: lerobot float32, zk0 what `precision = "auto"` means on the device. The prefix
is made before, once per frame: its cost is printed by itself. Other processes on the same cores
slow both sides down, by tens of times where OpenMP threads wait for one another: see the ranges.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Any

import torch
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from torch import Tensor, nn

from zk0.data.joints import JOINTS
from zk0.learning.backbone import FULL, TINY, write_backbone
from zk0.learning.device import device_of, set_precision
from zk0.learning.policy import EMBEDDED_CAMERAS
from zk0.learning.prefix import Prefix, encode_prefix, loss_from_prefix, require_frozen
from zk0.learning.training import build_optimizer, draw_noise

SHAPES = {"full": FULL, "tiny": TINY}
CONFIGS: dict[str, dict[str, Any]] = {
    "full": {},  # SmolVLA's own: chunks of 50, 16 language layers
    "tiny": {"chunk_size": 16, "n_action_steps": 8, "num_vlm_layers": 0},
}
PARTS = ("forward_backward", "step", "evaluate")
WORDS = 12
BATCHES = 2  # different ones, taken in turn


def main() -> None:
    options = parse()
    device = torch.device(options.device)
    policy = build_policy(options.size, device)
    set_precision(policy, options.precision)
    examples = [make_example(policy, options.batch_size, seed) for seed in range(BATCHES)]
    sides = Lerobot(policy, options.precision == "bfloat16"), Zk0(policy, options.compile)
    describe(options, policy, examples)
    check(*sides, examples[0])
    ratios = {}
    for name in options.parts:
        works = [partial(_each, getattr(side, name), cycle(examples)) for side in sides]
        ratios[name] = compare(name, works, options.steps, device)
    print("ratios:", ", ".join(f"{name} {ratio:.1f}x" for name, ratio in ratios.items()))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SHAPES, default="full")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--precision", choices=["float32", "bfloat16", "auto"], default="float32")
    parser.add_argument("--compile", action="store_true", help="zk0's loss through torch.compile")
    parser.add_argument("--steps", type=int, default=5, help="timed repetitions of each side")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    return parser.parse_args()


# --- what is measured -----------------------------------------------------------------------


@dataclass(frozen=True)
class Example:
    """A preprocessed batch, its prefix, and the noise and flow times of its loss."""

    batch: dict[str, Any]
    prefix: Prefix
    noise: Tensor
    times: Tensor


class Lerobot:
    """The work as lerobot does it, with its reads of device values (`item`) where it has them."""

    def __init__(self, policy: SmolVLAPolicy, mixed: bool) -> None:
        self.policy, self.mixed = policy, mixed
        self.preset = policy.config.get_optimizer_preset()
        self.optimizer = self.preset.build(policy.get_optim_params())

    def loss(self, example: Example, reduction: str = "mean") -> Tensor:
        device = device_of(self.policy).type
        with torch.autocast(device, torch.bfloat16, enabled=self.mixed):
            return self.policy.forward(example.batch, example.noise, example.times, reduction)[0]

    def loss_and_gradients(self, example: Example) -> Tensor:
        self.policy.train()
        loss = self.loss(example)
        loss.backward()
        return loss

    def forward_backward(self, example: Example) -> None:
        self.loss_and_gradients(example)
        self.optimizer.zero_grad()

    def step(self, example: Example) -> None:
        loss = self.loss_and_gradients(example)
        norm = nn.utils.clip_grad_norm_(self.policy.parameters(), self.preset.grad_clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        loss.item(), norm.item()

    @torch.no_grad()
    def evaluate(self, example: Example) -> Tensor:
        return self.loss(example, "none")


class Zk0:
    """The same work from the prefix."""

    def __init__(self, policy: SmolVLAPolicy, compiled: bool) -> None:
        require_frozen(policy)
        self.policy = policy
        self.loss_of = torch.compile(loss_from_prefix) if compiled else loss_from_prefix
        self.parameters = [p for p in policy.parameters() if p.requires_grad]
        self.optimizer = build_optimizer(policy)
        self.max_norm = policy.config.get_optimizer_preset().grad_clip_norm

    def loss(self, example: Example, reduction: str = "mean") -> Tensor:
        return self.loss_of(
            self.policy, example.prefix, example.batch, example.noise, example.times, reduction
        )

    def loss_and_gradients(self, example: Example) -> Tensor:
        loss = self.loss(example)
        loss.backward()
        return loss

    def forward_backward(self, example: Example) -> None:
        self.loss_and_gradients(example)
        self.optimizer.zero_grad()

    def step(self, example: Example) -> None:
        self.loss_and_gradients(example)
        nn.utils.clip_grad_norm_(self.parameters, self.max_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()

    @torch.no_grad()
    def evaluate(self, example: Example) -> Tensor:
        return self.loss(example, "none")


def check(lerobot: Lerobot, zk0: Zk0, example: Example) -> None:
    """Print both sides' loss of one batch: they are one and the same."""
    with torch.no_grad():
        print(f"loss: lerobot {lerobot.loss(example):.6f}, zk0 {zk0.loss(example):.6f}")


# --- timing ---------------------------------------------------------------------------------


def compare(
    name: str, works: list[Callable[[], Any]], repetitions: int, device: torch.device
) -> float:
    """Time lerobot's and zk0's work in turn, print both medians, return how many times faster."""
    seconds: list[list[float]] = [[], []]
    for repetition in range(repetitions + 1):
        for work, taken in zip(works, seconds, strict=True):
            duration = time_once(work, device)
            if repetition:  # the first of each warms up
                taken.append(duration)
    theirs, ours = map(median, seconds)
    spread = [f"{min(taken):.4f} to {max(taken):.4f}" for taken in seconds]
    print(
        f"{name.replace('_', ' + ')}: lerobot {theirs:.4f} s ({spread[0]}), zk0 {ours:.4f} s "
        f"({spread[1]}), {theirs / ours:.2f}x, load {os.getloadavg()[0]:.1f}",
        flush=True,
    )
    return theirs / ours


def time_once(work: Callable[[], Any], device: torch.device) -> float:
    synchronise(device)
    start = time.perf_counter()
    work()
    synchronise(device)
    return time.perf_counter() - start


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _each(work: Callable[[Example], Any], examples: Iterator[Example]) -> None:
    work(next(examples))


# --- policy and data ------------------------------------------------------------------------


def build_policy(size: str, device: torch.device) -> SmolVLAPolicy:
    """SmolVLA of the given size on two cameras, weights random, backbone frozen."""
    shape, pixels = SHAPES[size], SHAPES[size].vision["image_size"]
    camera = PolicyFeature(FeatureType.VISUAL, (3, pixels, pixels))
    with tempfile.TemporaryDirectory() as folder:
        write_backbone(Path(folder), shape)
        torch.manual_seed(0)
        config = SmolVLAConfig(
            input_features={
                "observation.state": PolicyFeature(FeatureType.STATE, (len(JOINTS),)),
                **dict.fromkeys(EMBEDDED_CAMERAS, camera),
            },
            output_features={"action": PolicyFeature(FeatureType.ACTION, (len(JOINTS),))},
            vlm_model_name=folder,
            resize_imgs_with_padding=(pixels, pixels),
            device="cpu",
            **CONFIGS[size],
        )
        return SmolVLAPolicy(config).to(device)


def make_example(policy: SmolVLAPolicy, frames: int, seed: int) -> Example:
    """Random frames, all actions inside their episodes; the prefix in zk0's precision."""
    generator = torch.Generator().manual_seed(seed)
    noise, times = draw_noise(policy, frames, generator)
    batch = make_batch(policy, frames, generator, noise.device)
    prefix = encode_prefix(policy, batch)
    dtype = torch.bfloat16 if policy.config.use_amp else torch.float32
    prefix = replace(prefix, keys_values=prefix.keys_values.to(dtype))
    return Example(batch, prefix, noise, times)


def make_batch(
    policy: SmolVLAPolicy, frames: int, generator: torch.Generator, device: torch.device
) -> dict[str, Any]:
    chunk, (width, height) = policy.config.chunk_size, policy.config.resize_imgs_with_padding
    batch = {
        "observation.state": torch.randn(frames, len(JOINTS), generator=generator),
        "action": torch.randn(frames, chunk, len(JOINTS), generator=generator),
        "action_is_pad": torch.zeros(frames, chunk, dtype=torch.bool),
        "observation.language.tokens": torch.randint(20, 400, (frames, WORDS), generator=generator),
        "observation.language.attention_mask": torch.ones(frames, WORDS, dtype=torch.bool),
    }
    for camera in EMBEDDED_CAMERAS:
        batch[camera] = torch.rand(frames, 3, height, width, generator=generator)
    return {key: value.to(device) for key, value in batch.items()}


def describe(options: argparse.Namespace, policy: SmolVLAPolicy, examples: list[Example]) -> None:
    sizes = [(p.numel(), p.requires_grad) for p in policy.parameters()]
    total, trained = sum(n for n, _ in sizes) / 1e6, sum(n for n, grad in sizes if grad) / 1e6
    print(f"{total:.1f} M parameters, {trained:.1f} M trainable, {options}")
    print(f"cores: {os.cpu_count()}, threads: {torch.get_num_threads()}, {device_name(options)}")
    keys_values = examples[0].prefix.keys_values
    print(f"prefix: {keys_values[0].nbytes / 1e6:.2f} MB per frame ({keys_values.dtype})")
    start = time.perf_counter()
    encode_prefix(policy, examples[0].batch)
    synchronise(keys_values.device)
    per_frame = (time.perf_counter() - start) / len(keys_values)
    print(f"prefix made in {per_frame:.3f} s per frame (float32)", flush=True)


def device_name(options: argparse.Namespace) -> str:
    return torch.cuda.get_device_name() if options.device == "cuda" else torch.__version__


if __name__ == "__main__":
    main()
