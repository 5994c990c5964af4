"""A checkpoint is a LeRobot policy folder: config, safetensors and both processors."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from safetensors import SafetensorError

from zk0.data.statistics import Moments
from zk0.errors import cannot_write
from zk0.learning.policy import make_processors

BEST, LAST = "best", "last"  # links beside the checkpoints, to one of them


def save_checkpoint(
    models: Path,
    server_round: int,
    policy: SmolVLAPolicy,
    statistics: Mapping[str, Moments],
    names: tuple[str, ...],
    keep: int,
) -> Path:
    """Write the policy and its normalisation to `models/checkpoint_round_N`, which appears whole or
    not at all, point `names` ("best", "last") to it, and keep the newest `keep` beside those."""
    folder = models / f"checkpoint_round_{server_round}"
    try:
        if not folder.is_dir():
            _write(folder, policy, statistics)
        for name in names:
            _point(models / name, folder)
    except (OSError, SafetensorError) as error:
        raise cannot_write(f"checkpoint {folder}", error) from error
    _prune(models, keep)
    return folder


def _write(folder: Path, policy: SmolVLAPolicy, statistics: Mapping[str, Moments]) -> None:
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        policy.save_pretrained(partial)
        for processor in make_processors(policy, statistics):
            processor.save_pretrained(partial)
        os.replace(partial, folder)
    except (OSError, SafetensorError):
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _point(link: Path, folder: Path) -> None:
    fresh = link.with_name(f".{link.name}")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(folder.name)
    os.replace(fresh, link)


def _prune(models: Path, keep: int) -> None:
    named = {(models / name).resolve() for name in (BEST, LAST)}
    folders = sorted(
        models.glob("checkpoint_round_*"), key=lambda path: int(path.name.rpartition("_")[2])
    )
    for old in folders[:-keep]:
        if old.resolve() not in named:
            shutil.rmtree(old, ignore_errors=True)


def forget_after(models: Path, server_round: int, best_round: int) -> None:
    """Remove the checkpoints of later rounds, which a resumed run makes anew; "best" means that of
    `best_round` again, where it is still there."""
    for folder in models.glob("checkpoint_round_*"):
        if int(folder.name.rpartition("_")[2]) > server_round:
            shutil.rmtree(folder)
    for name in (BEST, LAST):
        if not (models / name).exists():
            (models / name).unlink(missing_ok=True)
    best = models / f"checkpoint_round_{best_round}"
    if best.is_dir():
        _point(models / BEST, best)
