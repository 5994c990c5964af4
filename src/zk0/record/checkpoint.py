"""A checkpoint is a LeRobot policy folder: config, safetensors, both processors, and what its
backbone is made from. With a `Card` it also has the round's metrics and a README.

Nothing in it names a place on this machine. lerobot resolves the path of a backbone against the
current directory and knows no other base, so that lerobot alone opens a checkpoint from within its
folder; zk0 opens it from anywhere.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from safetensors import SafetensorError

from zk0.data.statistics import Moments
from zk0.errors import cannot_write
from zk0.learning.policy import make_processors
from zk0.record.card import Card, write_card

BEST, LAST = "best", "last"  # links beside the checkpoints, to one of them
CONFIG = "config.json"
SMALL = {".json", ".txt", ".model", ".jinja"}  # a backbone's files besides its weights


def save_checkpoint(
    models: Path,
    server_round: int,
    policy: SmolVLAPolicy,
    statistics: Mapping[str, Moments],
    names: tuple[str, ...],
    keep: int,
    card: Card | None = None,
) -> Path:
    """Write the policy and its normalisation to `models/checkpoint_round_N`, which appears whole or
    not at all, point `names` ("best", "last") to it, and keep the newest `keep` beside those.

    Where the round has its checkpoint already, only `card` is written anew.
    """
    folder = models / f"checkpoint_round_{server_round}"
    try:
        if not folder.is_dir():
            _write(folder, policy, statistics, server_round, card)
        elif card is not None:
            write_card(folder, server_round, card)
        for name in names:
            _point(models / name, folder)
    except (OSError, SafetensorError) as error:
        raise cannot_write(f"checkpoint {folder}", error) from error
    _prune(models, keep)
    return folder


def _write(
    folder: Path,
    policy: SmolVLAPolicy,
    statistics: Mapping[str, Moments],
    server_round: int,
    card: Card | None,
) -> None:
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        policy.save_pretrained(partial)
        for processor in make_processors(policy, statistics):
            processor.save_pretrained(partial)
        _make_portable(partial)
        if card is not None:
            write_card(partial, server_round, card)
        os.replace(partial, folder)
    except (OSError, SafetensorError):
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _make_portable(folder: Path) -> None:
    """Let the backbone's small files go along, and a device be named that every machine has."""
    config = json.loads((folder / CONFIG).read_text())
    changes: dict[str, Any] = {"device": "cpu"}
    backbone = Path(config["vlm_model_name"])
    if backbone.is_absolute() or backbone.is_dir():  # else a Hub's name, which holds anywhere
        changes |= {"vlm_model_name": _pack(backbone, folder), "load_vlm_weights": False}
    config |= changes
    (folder / CONFIG).write_text(json.dumps(config, indent=4))
    steps = {
        "device_processor": {"device": "cpu"},
        "tokenizer_processor": {"tokenizer_name": config["vlm_model_name"]},
    }
    for path in folder.glob("policy_*processor.json"):
        content = json.loads(path.read_text())
        for step in content["steps"]:
            step["config"] |= steps.get(step["registry_name"], {})
        path.write_text(json.dumps(content, indent=2))


def _pack(backbone: Path, folder: Path) -> str:
    """Copy the backbone's files, except for its weights, into `folder`; how lerobot finds them from
    there. Named after their content, so that no other checkpoint's can be taken for them."""
    files = sorted(
        path
        for path in backbone.iterdir()
        if path.suffix in SMALL and not path.name.endswith(".index.json")
    )
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.name}\0".encode() + path.read_bytes())
    packed = folder / f"backbone-{digest.hexdigest()[:8]}"
    packed.mkdir()
    for path in files:
        shutil.copyfile(path, packed / path.name)
    return f"./{packed.name}"


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
