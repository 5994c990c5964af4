"""lerobot's ways to normalise state and action: what each has to know of the data, and the way back
into the data's units.

Into normalised units lerobot's own processor takes them (`zk0.learning.policy.make_processors`).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from lerobot.configs import NormalizationMode
from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig
from lerobot.processor import NormalizerProcessorStep
from numpy.typing import NDArray

from zk0.data.statistics import ACTION, STATE, Moments, Statistics
from zk0.errors import Zk0Error

KINDS = {STATE: "STATE", ACTION: "ACTION"}  # lerobot's name for a feature's type
BOUNDS = {  # what becomes -1 and what becomes 1
    NormalizationMode.MIN_MAX: ("min", "max"),
    NormalizationMode.QUANTILES: ("q01", "q99"),
    NormalizationMode.QUANTILE10: ("q10", "q90"),
}
EPSILON = NormalizerProcessorStep.eps  # lerobot's width where both bounds are the same


@dataclass(frozen=True, eq=False)
class Affine:
    """offset + scale * x per dimension of a feature, in float32 as lerobot computes."""

    offset: NDArray[np.float32]
    scale: NDArray[np.float32]


def mode_of(config: SmolVLAConfig, feature: str) -> NormalizationMode:
    return config.normalization_mapping.get(KINDS[feature], NormalizationMode.IDENTITY)


def needed_order(config: SmolVLAConfig) -> dict[str, tuple[str, ...]]:
    """By feature, the names of the order statistics that a policy normalises by."""
    return {feature: BOUNDS.get(mode_of(config, feature), ()) for feature in KINDS}


def to_units(mode: NormalizationMode, moments: Moments) -> Affine:
    """From normalised values to the data's units, as lerobot's `UnnormalizerProcessorStep` does."""
    if mode is NormalizationMode.IDENTITY:
        ones = np.ones(len(moments.mean), np.float32)
        return Affine(np.zeros_like(ones), ones)
    if mode is NormalizationMode.MEAN_STD:
        return Affine(moments.mean.astype(np.float32), moments.scale.astype(np.float32))
    low, high = (moments.order[name].astype(np.float32) for name in BOUNDS[mode])
    half = (np.where(high == low, np.float32(EPSILON), high - low) / 2).astype(np.float32)
    return Affine(low + half, half)


def to_lerobot(moments: Moments) -> Mapping[str, NDArray[np.float64]]:
    """All that is known of a feature, under lerobot's names."""
    return {"mean": moments.mean, "std": moments.scale, **moments.order}


def check_statistics(config: SmolVLAConfig, statistics: Statistics, whose: str) -> None:
    """Raise `Zk0Error` unless the statistics are of as many dimensions as the policy takes, and
    have all that it normalises by."""
    wanted = {STATE: config.robot_state_feature, ACTION: config.action_feature}
    for feature, names in needed_order(config).items():
        found = statistics[feature]
        if found.mean.shape != tuple(wanted[feature].shape):
            raise Zk0Error(
                f"{whose} of {feature} have {len(found.mean)} dimensions, the policy takes "
                f"{wanted[feature].shape[0]}."
            )
        if lacking := [name for name in names if name not in found.order]:
            raise Zk0Error(
                f"{whose} of {feature} lack {' and '.join(lacking)}, by which the policy "
                f"normalises ({mode_of(config, feature).value})."
            )
