import dataclasses
import json

import pytest
import torch
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from safetensors.torch import load_file, save_file

from zk0.data.frames import Frames
from zk0.errors import Zk0Error
from zk0.learning.backbone import vocabulary_hash
from zk0.learning.base import RECIPE, base_weights
from zk0.learning.device import select_device
from zk0.learning.integrity import hash_arrays
from zk0.learning.policy import (
    EMBEDDED_RANDOM,
    build_policy,
    check_fit,
    get_trainable,
    make_processors,
    set_trainable,
)

CPU = torch.device("cpu")


def test_embedded_policy_is_lerobots_class_of_the_stated_size(policy):
    assert type(policy) is SmolVLAPolicy
    trainable = get_trainable(policy)
    assert sum(tensor.numel() for tensor in trainable.values()) == 1_238_688
    assert sum(parameter.numel() for parameter in policy.parameters()) == 3_809_888
    assert all(name.startswith("model.") and ".vlm." not in name for name in trainable)


def test_seed_fixes_the_untrained_expert_and_never_changes_its_backbone():
    first, same, other = (build_policy(EMBEDDED_RANDOM, seed, CPU) for seed in (0, 0, 1))
    assert hash_arrays(get_trainable(first)) == hash_arrays(get_trainable(same))
    assert hash_arrays(get_trainable(first)) != hash_arrays(get_trainable(other))
    assert _frozen_hash(first) == _frozen_hash(other)


def test_the_base_policy_s_words_are_those_that_it_was_trained_with():
    assert json.loads(RECIPE.read_text())["vocabulary"] == vocabulary_hash()


def test_the_base_policy_is_the_one_that_ships_whatever_the_seed(policy):
    other = build_policy("embedded", 1, CPU)
    for name, p in policy.named_parameters():
        torch.testing.assert_close(p, dict(other.named_parameters())[name], rtol=0, atol=0)
        torch.testing.assert_close(p.detach(), base_weights()[name], rtol=0, atol=0)
    untrained = dict(build_policy(EMBEDDED_RANDOM, 0, CPU).named_parameters())
    moved = [name for name, p in policy.named_parameters() if not torch.equal(p, untrained[name])]
    assert any("vision_model" in name for name in moved)
    assert any("lm_expert" in name for name in moved)


def _frozen_hash(policy: SmolVLAPolicy) -> str:
    return hash_arrays({n: p for n, p in policy.named_parameters() if not p.requires_grad})


def test_building_leaves_the_global_random_state_alone():
    before = torch.random.get_rng_state()
    build_policy(EMBEDDED_RANDOM, 5, CPU)
    build_policy("embedded", 5, CPU)
    assert torch.equal(before, torch.random.get_rng_state())


def test_arrays_go_out_and_in(policy):
    other = build_policy(EMBEDDED_RANDOM, 1, CPU)
    set_trainable(policy, get_trainable(other))
    assert hash_arrays(get_trainable(policy)) == hash_arrays(get_trainable(other))


def _renamed(arrays):
    name = next(iter(arrays))
    return {("x" if key == name else key): value for key, value in arrays.items()}


def _reshaped(arrays):
    name = next(iter(arrays))
    return {**arrays, name: arrays[name].flatten()}


def _retyped(arrays):
    name = next(iter(arrays))
    return {**arrays, name: arrays[name].double()}


@pytest.mark.parametrize("spoil", [_renamed, _reshaped, _retyped])
def test_arrays_that_do_not_fit_change_nothing(policy, spoil):
    before = hash_arrays(get_trainable(policy))
    foreign = spoil({name: tensor + 1 for name, tensor in get_trainable(policy).items()})
    with pytest.raises(Zk0Error, match="do not fit the policy"):
        set_trainable(policy, foreign)
    assert hash_arrays(get_trainable(policy)) == before


def test_processors_normalise_with_the_given_statistics(policy, touch: Frames):
    preprocess, postprocess = make_processors(policy, touch.statistics)
    batch = preprocess(
        {
            "observation.state": torch.from_numpy(touch.states),
            "action": torch.from_numpy(touch.actions),
            "task": list(touch.tasks),
        }
    )
    state = batch["observation.state"]
    spread = touch.statistics["observation.state"].variance > 1e-6
    torch.testing.assert_close(state.mean(0), torch.zeros(6), atol=1e-3, rtol=0)
    torch.testing.assert_close(
        state.std(0, correction=0)[spread], torch.ones(int(spread.sum())), atol=1e-2, rtol=0
    )
    restored = postprocess(batch["action"])
    torch.testing.assert_close(restored, torch.from_numpy(touch.actions), atol=1e-2, rtol=1e-4)


@pytest.mark.parametrize("change", ["state", "action"])
def test_dataset_that_does_not_fit_is_named(policy, touch: Frames, change: str):
    wrong = {
        "state": {"states": touch.states[:, :5]},
        "action": {"actions": touch.actions[:, :5]},
    }[change]
    with pytest.raises(Zk0Error, match=r"touch.*policy takes"):
        check_fit(policy, dataclasses.replace(touch, **wrong))


@pytest.mark.parametrize("name", ["/nowhere", "./nowhere"])
def test_model_folder_that_is_not_there(name: str):
    with pytest.raises(Zk0Error, match="is not a folder"):
        build_policy(name, 0, CPU)


def test_saved_policy_loads_back_by_folder(policy, tmp_path):
    policy.save_pretrained(tmp_path)
    loaded = build_policy(str(tmp_path), 9, CPU)
    assert hash_arrays(get_trainable(loaded)) == hash_arrays(get_trainable(policy))
    assert _frozen_hash(loaded) == _frozen_hash(policy)


def test_folder_with_other_weights_is_refused(policy, tmp_path):
    policy.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights.pop("model.state_proj.weight")
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(Zk0Error, match="cannot be loaded"):
        build_policy(str(tmp_path), 0, CPU)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_that_is_not_there():
    assert select_device("auto") == CPU
    with pytest.raises(Zk0Error, match="no CUDA GPU"):
        select_device("cuda")
