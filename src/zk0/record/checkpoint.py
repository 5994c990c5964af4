"""A checkpoint is a LeRobot policy folder: config, safetensors and both processors."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy

from zk0.data.statistics import Moments
from zk0.errors import Zk0Error
from zk0.learning.policy import make_processors


def save_checkpoint(folder: Path, policy: SmolVLAPolicy, statistics: Mapping[str, Moments]) -> Path:
    """Write the policy and its normalisation to `folder`, which appears whole or not at all."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        policy.save_pretrained(partial)
        for processor in make_processors(policy, statistics):
            processor.save_pretrained(partial)
        os.replace(partial, folder)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise Zk0Error(f"checkpoint {folder} cannot be written: {error.strerror}.") from error
    return folder
