"""The tiny policy in other shapes, each pre-trained on the same short course and tried out.

    .venv/bin/python benchmarks/shapes.py [--shape "in use" "96 pixels"] [--at-once 2]

Sizes and resolutions begin from nothing. Chunks begin from the base, whose weights fit any: what it
has seen of "held-out" episodes flatters their errors, not their successes. All of it takes hours on
two cores, may be killed and goes on when called again. What a step costs is measured at the end,
shape after shape in turn.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy

from zk0.comparison.tables import to_markdown
from zk0.evaluation.closed_loop import require_rendering
from zk0.files import write_whole
from zk0.learning.backbone import TINY, Shape, write_backbone
from zk0.learning.base import base_weights
from zk0.learning.policy import EMBEDDED_CAMERAS, EMBEDDED_RANDOM, build_policy
from zk0.pretraining import samples
from zk0.pretraining.train import Course, Pretraining
from zk0.pretraining.trial import try_out

FROM_NOTHING = Course(look_steps=600, act_steps=1800)  # a fifth of the base's
FROM_BASE = Course(look_steps=200, act_steps=900)
SAMPLES = 20_000  # a quarter of the base's
LONGEST = 32  # frames of action
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Variant:
    """A policy's shape where it is another than the one in use."""

    pixels: int = samples.BASE.size
    chunk: int = samples.BASE.chunk
    text: Mapping[str, int] = field(default_factory=dict)
    vision: Mapping[str, int] = field(default_factory=dict)
    course: Course = FROM_NOTHING

    @property
    def shape(self) -> Shape:
        vision = {**TINY.vision, **self.vision, "image_size": self.pixels}
        return Shape({**TINY.text, **self.text}, vision, TINY.patches_per_token)

    @property
    def extent(self) -> samples.Extent:
        return samples.Extent(self.pixels, LONGEST)


VARIANTS = {
    "in use": Variant(),
    "half the size": Variant(
        text={"hidden_size": 128, "intermediate_size": 384, "num_attention_heads": 4},
        vision={"hidden_size": 96, "intermediate_size": 384},
    ),
    "twice the size": Variant(
        text={"hidden_size": 256, "intermediate_size": 768, "num_attention_heads": 8},
        vision={"hidden_size": 192, "intermediate_size": 768},
    ),
    "96 pixels": Variant(pixels=96),
    "160 pixels": Variant(pixels=160),
    "chunks of 8": Variant(chunk=8, course=FROM_BASE),
    "chunks of 16": Variant(chunk=16, course=FROM_BASE),
    "chunks of 32": Variant(chunk=32, course=FROM_BASE),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--at-once", type=int, default=1, help="shapes that share the cores")
    parser.add_argument("--folder", type=Path, default=Path("outputs/shapes"))
    options = parser.parse_args()
    require_rendering()
    for pixels in {VARIANTS[name].pixels for name in options.shape}:
        samples.make(_plan(options.folder, samples.Extent(pixels, LONGEST)), _cores())
    threads = max(1, _cores() // options.at_once)
    jobs = [(name, options.folder, threads) for name in options.shape]
    with get_context("spawn").Pool(options.at_once, maxtasksperchild=1) as pool:
        found = dict(pool.imap(_measure, jobs, chunksize=1))
    print(to_markdown(_tabulate(found, _costs(options.shape, options.folder))))


def _plan(folder: Path, extent: samples.Extent) -> list[samples.Shard]:
    return samples.plan(folder / "samples", SAMPLES, extent)


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _measure(job: tuple[str, Path, int]) -> tuple[str, dict[str, Any]]:
    """Pre-train a shape, or go on with it, and try it out; or read what was found before."""
    name, folder, threads = job
    result = _own(folder, name) / "result.json"
    if not result.exists():
        torch.set_num_threads(threads)
        require_rendering()
        pretraining = _prepare(name, folder)
        pretraining.run()
        policy = pretraining.policy
        found = {
            "parameters": sum(p.numel() for p in policy.parameters()),
            "held_out": pretraining.judge(),
            "success": try_out(policy, pretraining.statistics, VARIANTS[name].pixels),
        }
        write_whole(result, json.dumps(found, indent=1) + "\n")
    return name, json.loads(result.read_text())


def _prepare(name: str, folder: Path) -> Pretraining:
    variant, own = VARIANTS[name], _own(folder, name)
    shown = samples.Samples(_plan(folder, variant.extent), variant.chunk)
    policy = _build(variant, own / "backbone")
    return Pretraining(policy, shown, variant.course, own / "training")


def _own(folder: Path, name: str) -> Path:
    return folder / name.replace(" ", "_")


def _build(variant: Variant, backbone: Path) -> SmolVLAPolicy:
    """As `embedded-random` or the base is, but for its shape."""
    write_backbone(backbone, variant.shape)
    config = build_policy(EMBEDDED_RANDOM, 0, CPU).config
    camera = PolicyFeature(FeatureType.VISUAL, (3, variant.pixels, variant.pixels))
    config = replace(
        config,
        input_features=config.input_features | dict.fromkeys(EMBEDDED_CAMERAS, camera),
        vlm_model_name=str(backbone),
        chunk_size=variant.chunk,
        resize_imgs_with_padding=(variant.pixels, variant.pixels),
    )
    torch.manual_seed(0)
    policy = SmolVLAPolicy(config)
    if variant.course is FROM_BASE:
        policy.load_state_dict(base_weights(), strict=False)
    return policy


def _costs(names: Iterable[str], folder: Path, turns: int = 10) -> dict[str, float]:
    """Seconds of a step of the half that acts, by all cores."""
    prepared = {name: _prepare(name, folder) for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in prepared}
    for _ in range(turns):
        for name, pretraining in prepared.items():
            seconds[name].append(_time_step(pretraining))
    return {name: statistics.median(times) for name, times in seconds.items()}


def _time_step(pretraining: Pretraining) -> float:
    course = pretraining.course
    indices = pretraining.training[: course.batch_size]
    images = pretraining.samples.frames(indices)
    pretraining.step = course.look_steps
    start = time.perf_counter()
    pretraining.take_step(indices, images)
    return time.perf_counter() - start


def _tabulate(found: dict[str, dict[str, Any]], costs: dict[str, float]) -> list[list[str]]:
    tasks = list(next(iter(found.values()))["success"])
    errors = ("place_cm", "heard_cm", "policy_loss")
    rows = [["shape", "parameters", "seconds a step", *tasks, *errors]]
    for name, each in found.items():
        successes = [f"{each['success'][task]['successes']}" for task in tasks]
        losses = [f"{each['held_out'][error]:.3f}" for error in errors]
        parameters = f"{each['parameters'] / 1e6:.1f} M"
        rows.append([name, parameters, f"{costs[name]:.2f}", *successes, *losses])
    return rows


if __name__ == "__main__":
    main()
