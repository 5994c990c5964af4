"""Every way to normalise against lerobot's own steps on lerobot's own statistics."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lerobot.configs import FeatureType, NormalizationMode
from lerobot.datasets.compute_stats import aggregate_stats, get_feature_stats
from lerobot.lerobot_types import TransitionKey
from lerobot.policies.factory import make_pre_post_processors
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from lerobot.processor import NormalizerProcessorStep, UnnormalizerProcessorStep
from safetensors.torch import load_file, save_file

from zk0.data.frames import Frames
from zk0.data.statistics import ACTION, ORDER, STATE, Moments, Statistics
from zk0.errors import Zk0Error
from zk0.learning.batches import Batches
from zk0.learning.normalisation import check_statistics, mode_of, needed_order, to_units
from zk0.learning.policy import build_policy, load_checkpoint, make_processors
from zk0.learning.prefix_cache import CacheOptions
from zk0.record.checkpoint import save_checkpoint

CPU = torch.device("cpu")
MODES = list(NormalizationMode)
JOINT = 4  # the one that does not move
EXACT = CacheOptions("prefix", 0.0, "float32")


def normalising_by(policy: SmolVLAPolicy, mode: NormalizationMode) -> SmolVLAPolicy:
    kinds = policy.config.normalization_mapping
    policy.config.normalization_mapping = {**kinds, "STATE": mode, "ACTION": mode}
    return policy


def with_still_joint(frames: Frames, value: float) -> Frames:
    still = replace(frames, states=frames.states.copy(), actions=frames.actions.copy())
    still.states[:, JOINT] = still.actions[:, JOINT] = value
    return still


def known(policy: SmolVLAPolicy, frames: Frames) -> Statistics:
    return frames.statistics_with(needed_order(policy.config))


def lerobots_statistics(frames: Frames) -> Mapping[str, Any]:
    """As lerobot has them for a dataset: episode by episode, then aggregated."""
    rows = frames.selection
    episodes = [
        {
            feature: get_feature_stats(values[rows[frames.episodes[rows] == episode]], 0, False)
            for feature, values in ((STATE, frames.states), (ACTION, frames.actions))
        }
        for episode in np.unique(frames.episodes[rows])
    ]
    return aggregate_stats(episodes)


@pytest.fixture(params=["all", "a joint that never moved", "at zero", "one frame"])
def frames(request: pytest.FixtureRequest, touch: Frames) -> Frames:
    if request.param == "one frame":
        return touch.select(np.arange(len(touch)) == 7)
    value = {"a joint that never moved": 37.2, "at zero": 0.0}.get(request.param)
    return touch if value is None else with_still_joint(touch, value)


@pytest.mark.parametrize("mode", MODES)
def test_units_are_those_of_lerobots_step(policy, frames: Frames, mode: NormalizationMode):
    normalising_by(policy, mode)
    statistics = known(policy, frames)
    _, postprocess = make_processors(policy, statistics)
    units = to_units(mode_of(policy.config, ACTION), statistics[ACTION])
    normalised = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    ours = normalised * torch.from_numpy(units.scale) + torch.from_numpy(units.offset)
    torch.testing.assert_close(ours, postprocess(normalised), rtol=1e-6, atol=1e-5)
    assert units.scale.dtype == units.offset.dtype == np.float32


@pytest.mark.parametrize("mode", MODES)
def test_frames_are_normalised_as_lerobot_would(policy, touch: Frames, mode: NormalizationMode):
    """By the statistics that lerobot itself has of these episodes. Of a joint that does not move,
    here the gripper's action, deviations are rounding, and zk0 does not divide by them."""
    normalising_by(policy, mode)
    batch, _ = Batches(policy, touch, known(policy, touch), EXACT).take(np.arange(len(touch)))
    features = {**policy.config.input_features, **policy.config.output_features}
    modes = {FeatureType.STATE: mode, FeatureType.ACTION: mode}
    stats = lerobots_statistics(touch)
    given = {
        TransitionKey.OBSERVATION: {STATE: torch.from_numpy(touch.states)},
        TransitionKey.ACTION: torch.from_numpy(touch.actions),
    }
    theirs = NormalizerProcessorStep(features, modes, stats)(given)
    expected = theirs[TransitionKey.OBSERVATION][STATE], theirs[TransitionKey.ACTION]
    torch.testing.assert_close(batch[STATE], expected[0], rtol=1e-5, atol=1e-5)
    by_deviation = mode is NormalizationMode.MEAN_STD
    rows = torch.from_numpy(touch.actions.std(0) > 1e-3) if by_deviation else torch.ones(6) > 0
    actions = batch[ACTION][:, 0]
    torch.testing.assert_close(actions[:, rows], expected[1][:, rows], rtol=1e-5, atol=1e-5)
    back = UnnormalizerProcessorStep(features, modes, stats)(theirs)
    torch.testing.assert_close(
        back[TransitionKey.ACTION], torch.from_numpy(touch.actions), rtol=1e-5, atol=1e-4
    )


@pytest.mark.parametrize("mode", MODES)
def test_what_is_constant_is_safe(policy, frames: Frames, mode: NormalizationMode):
    """Finite and small where it has its one value, and the value itself on the way back."""
    normalising_by(policy, mode)
    statistics = known(policy, frames)
    batch, _ = Batches(policy, frames, statistics, EXACT).take(np.arange(len(frames)))
    if mode is not NormalizationMode.IDENTITY:
        assert batch[STATE].abs().max() < 100
    _, postprocess = make_processors(policy, statistics)
    first = frames.selection[0]
    restored = postprocess(batch[ACTION][0, 0]).numpy()
    np.testing.assert_allclose(restored, frames.actions[first], rtol=1e-5, atol=1e-5)


def test_modes_need_their_own_bounds_and_no_others(policy):
    wanted = {
        NormalizationMode.MEAN_STD: (),
        NormalizationMode.IDENTITY: (),
        NormalizationMode.MIN_MAX: ("min", "max"),
        NormalizationMode.QUANTILES: ("q01", "q99"),
        NormalizationMode.QUANTILE10: ("q10", "q90"),
    }
    assert wanted.keys() == set(MODES)
    for mode, names in wanted.items():
        assert needed_order(normalising_by(policy, mode).config) == {STATE: names, ACTION: names}
    policy.config.normalization_mapping["STATE"] = NormalizationMode.MEAN_STD
    assert needed_order(policy.config) == {STATE: (), ACTION: ("q10", "q90")}


def test_statistics_that_lack_what_the_mode_needs_are_refused(policy, touch: Frames):
    normalising_by(policy, NormalizationMode.QUANTILES)
    with pytest.raises(Zk0Error, match=r"observation.state lack q01 and q99.*\(QUANTILES\)"):
        make_processors(policy, touch.statistics)


@pytest.mark.parametrize("mode", MODES)
def test_checkpoint_keeps_what_its_mode_needs(
    policy, touch: Frames, tmp_path: Path, mode: NormalizationMode, monkeypatch
):
    """zk0 and lerobot open it, and give the actions that the policy gave in the data's units."""
    statistics = known(normalising_by(policy, mode), touch)
    folder = save_checkpoint(tmp_path, 1, policy, statistics, (), 1)
    chunk = torch.randn(1, 16, 6, generator=torch.Generator().manual_seed(1))
    expected = make_processors(policy, statistics)[1](chunk)
    loaded, kept = load_checkpoint(folder, CPU)
    assert mode_of(loaded.config, STATE) is mode_of(loaded.config, ACTION) is mode
    assert kept[ACTION].order.keys() == statistics[ACTION].order.keys()
    assert torch.equal(make_processors(loaded, kept)[1](chunk), expected)
    base = build_policy(str(folder), 0, CPU)
    assert torch.equal(make_processors(base, statistics)[1](chunk), expected)
    monkeypatch.chdir(folder)
    lerobots = make_pre_post_processors(loaded.config, ".")[1]
    assert torch.equal(lerobots(chunk), expected)


def test_all_that_is_known_is_kept(policy, touch: Frames, tmp_path: Path):
    statistics = touch.statistics_with(dict.fromkeys((STATE, ACTION), ORDER))
    folder = save_checkpoint(tmp_path, 1, policy, statistics, (), 1)
    (file,) = folder.glob("policy_preprocessor_step_*_normalizer_processor.safetensors")
    names = {f"{feature}.{name}" for feature in (STATE, ACTION) for name in ("mean", "std", *ORDER)}
    assert set(load_file(file)) == names
    assert tuple(load_checkpoint(folder, CPU)[1][ACTION].order) == ORDER


def test_checkpoint_that_lacks_what_its_mode_needs_is_refused(
    policy, touch: Frames, tmp_path: Path
):
    statistics = known(normalising_by(policy, NormalizationMode.MIN_MAX), touch)
    folder = save_checkpoint(tmp_path, 1, policy, statistics, (), 1)
    (file,) = folder.glob("policy_preprocessor_step_*_normalizer_processor.safetensors")
    save_file({name: x for name, x in load_file(file).items() if name != "action.max"}, file)
    with pytest.raises(Zk0Error, match=r"checkpoint_round_1: .* action lack max, .*\(MIN_MAX\)"):
        load_checkpoint(folder, CPU)


def test_statistics_of_other_dimensions_are_refused(policy, touch: Frames):
    """As a client might claim them, before they are pooled with those of others."""
    five = {name: Moments.of(touch.actions[:, :5]) for name in (STATE, ACTION)}
    with pytest.raises(Zk0Error, match=r"client 1: .* have 5 dimensions, the policy takes 6"):
        check_statistics(policy.config, five, "client 1: the statistics")
