"""Pre-training from samples to weights, at the smallest size."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from zk0.errors import Zk0Error
from zk0.learning import base
from zk0.learning.policy import EMBEDDED_RANDOM, build_policy, get_trainable
from zk0.pretraining import samples
from zk0.pretraining.samples import BASE, Extent, Samples, Shard
from zk0.pretraining.scenes import COLOURS
from zk0.pretraining.train import LOG, STATE_FILE, Course, Pretraining, rename
from zk0.sim import opengl

CPU = torch.device("cpu")
COURSE = Course(look_steps=2, act_steps=3, batch_size=8, warm_up=1, log_every=2)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[Shard]:
    if opengl.probe().backend is None:
        pytest.skip("samples need OpenGL")
    made = samples.plan(tmp_path_factory.mktemp("samples"), 100)
    samples.make(made, workers=2)
    return made


@pytest.fixture(scope="module")
def few(shards: list[Shard]) -> Samples:
    return Samples(shards)


def pretraining(few: Samples, folder: Path, course: Course = COURSE) -> Pretraining:
    return Pretraining(build_policy(EMBEDDED_RANDOM, 0, CPU), few, course, folder)


def weights(trained: Pretraining) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in trained.policy.named_parameters()}


def test_samples_hold_what_they_say(few: Samples) -> None:
    assert len(few) == 100
    images = few.frames(np.array([0, 99, 60]))
    assert images.shape == (3, 2, BASE.size, BASE.size, 3)
    assert images.std((1, 2, 3, 4)).min() > 5
    assert few.actions.shape == (100, BASE.chunk, 6)
    assert few.inside[:, 0].all()
    texts = [few.instructions[word] for word in few.words]
    to_carry = np.array(["circle" in text for text in texts])
    assert (np.isfinite(few.landmarks[:, 1, 0]) == to_carry).all()  # a goal, where there is one
    assert np.isfinite(few.landmarks[:, [0, 2, 4]]).all()
    assert 0.05 < few.crowded.mean() < 0.2


@pytest.mark.parametrize("camera", [0, 1])
def test_things_are_in_the_picture_where_the_landmarks_say(few: Samples, camera: int) -> None:
    """The picture has another colour than the table there, more often than elsewhere."""

    def differs(index: int, place: np.ndarray) -> bool:
        column, row, depth = place
        if depth < 0.03 or not (0 <= column < 1 and 0 <= row < 1):
            return False
        image = few.frames(np.array([index]))[0, camera].astype(int)
        found = image[int(row * BASE.size), int(column * BASE.size)]
        return np.abs(found - np.median(image, (0, 1))).sum() > 60

    places = few.landmarks[:, 2 + 2 * camera]
    own = sum(differs(index, places[index]) for index in range(len(few)))
    others = sum(differs(index, places[index - 37]) for index in range(len(few)))
    assert own > 30
    assert own > 1.5 * others


def test_made_samples_are_found_and_half_made_ones_made_anew(shards: list[Shard]) -> None:
    first = shards[0]
    before = (first.folder / "states.npy").read_bytes()
    done = first.folder / "instructions.json"
    written = done.stat().st_mtime_ns
    samples.make(shards, workers=1)
    assert done.stat().st_mtime_ns == written
    done.unlink()
    samples.make(shards, workers=1)
    assert (first.folder / "states.npy").read_bytes() == before


def test_samples_of_another_extent_are_the_same_episodes(
    shards: list[Shard], few: Samples, tmp_path: Path
) -> None:
    longer = samples.plan(tmp_path, 100, Extent(size=64, chunk=24))
    assert longer[0].folder.parent.name != shards[0].folder.parent.name
    samples.make(longer, workers=2)
    whole, cut = Samples(longer, 24), Samples(longer)
    assert whole.frames(np.array([0])).shape == (1, 2, 64, 64, 3)
    assert whole.actions.shape == (100, 24, 6)
    np.testing.assert_array_equal(cut.actions, few.actions)
    np.testing.assert_array_equal(cut.inside, few.inside)
    np.testing.assert_array_equal(cut.landmarks, few.landmarks)


def test_a_name_of_a_colour_may_be_any_word() -> None:
    draw = np.random.default_rng(0)
    found = {rename("Hold the cyan cube above the pink circle.", draw) for _ in range(50)}
    fixed = {(*text.split()[:2], *text.split()[3:6], text.split()[7]) for text in found}
    assert fixed == {("Hold", "the", "cube", "above", "the", "circle.")}
    assert len(found) > 40


def test_half_of_the_samples_are_renamed_but_not_where_names_tell_things_apart(
    few: Samples, tmp_path: Path
) -> None:
    trained = pretraining(few, tmp_path)
    every = np.arange(len(few))
    plain = trained._words(every, None)
    drawn = trained._words(every, torch.Generator().manual_seed(0))
    renamed = (drawn != plain).numpy()
    assert not renamed[few.crowded].any()
    assert 0.3 < renamed[~few.crowded].mean() < 0.7
    wordings = trained._wordings()
    for before, after in zip(plain[renamed], drawn[renamed], strict=True):
        pairs = zip(wordings[before].split(), wordings[after].split(), strict=True)
        assert {one for one, other in pairs if one != other} <= set().union(*COLOURS)


def test_killed_and_called_again_it_ends_as_if_never_killed(
    few: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = pretraining(few, tmp_path / "straight")
    straight.run()
    killed = pretraining(few, tmp_path / "killed")
    take = killed.take_step
    monkeypatch.setattr(
        killed, "take_step", lambda *given: take(*given) if killed.step < 3 else 1 / 0
    )
    with pytest.raises(ZeroDivisionError):
        killed.run()
    again = pretraining(few, tmp_path / "killed")
    again.run()
    assert again.step == straight.step == 5
    for name, values in weights(straight).items():
        torch.testing.assert_close(weights(again)[name], values, rtol=0, atol=0)


def test_all_of_the_policy_is_trained_and_the_log_tells_of_it(few: Samples, tmp_path: Path) -> None:
    trained = pretraining(few, tmp_path)
    before = weights(trained)
    trained.run()
    moved = {name for name, values in weights(trained).items() if not values.equal(before[name])}
    assert {name for name in moved if "vision_model" in name}
    assert {name for name in moved if "text_model.layers" in name}
    assert moved >= set(get_trainable(build_policy(EMBEDDED_RANDOM, 0, CPU)))
    lines = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 5]
    assert {"front", "front_hits", "place_cm"} < set(lines[0]["held_out"])
    assert "policy_loss" not in lines[0]["held_out"]  # not yet
    assert lines[-1]["held_out"]["policy_loss"] > 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_gpu_trains_to_the_same_loss_and_a_cpu_goes_on(few: Samples, tmp_path: Path) -> None:
    pretraining(few, tmp_path / "cpu").run()
    policy = build_policy(EMBEDDED_RANDOM, 0, torch.device("cuda"), "float32")
    Pretraining(policy, few, COURSE, tmp_path / "gpu").run()
    losses = [
        [json.loads(line)["loss"] for line in (tmp_path / device / LOG).read_text().splitlines()]
        for device in ("cpu", "gpu")
    ]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    again = pretraining(few, tmp_path / "gpu")
    again.run()
    assert again.step == COURSE.steps
    for name, values in weights(again).items():
        torch.testing.assert_close(policy.get_parameter(name).detach().cpu(), values)


def test_another_course_is_not_mixed_in(few: Samples, tmp_path: Path) -> None:
    pretraining(few, tmp_path).run()
    other = pretraining(few, tmp_path, replace(COURSE, learning_rate=1e-4))
    with pytest.raises(Zk0Error, match=f"{STATE_FILE} is of another course"):
        other.run()


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the base's files are looked for: weights of a policy drawn from a seed."""
    policy = build_policy(EMBEDDED_RANDOM, 7, CPU)
    base.save_base(policy, {"samples": 120}, tmp_path)
    monkeypatch.setattr(base, "WEIGHTS", tmp_path / base.WEIGHTS.name)
    monkeypatch.setattr(base, "RECIPE", tmp_path / base.RECIPE.name)
    for read in (base.base_hash, base.base_weights):
        read.cache_clear()
    yield tmp_path
    for read in (base.base_hash, base.base_weights):
        read.cache_clear()


def test_shipped_weights_are_the_policy_s_in_bfloat16(shipped: Path) -> None:
    kept = base.base_weights()
    for name, p in build_policy(EMBEDDED_RANDOM, 7, CPU).named_parameters():
        torch.testing.assert_close(kept[name], p.detach().bfloat16().float(), rtol=0, atol=0)
    assert json.loads((shipped / base.RECIPE.name).read_text())["samples"] == 120
    assert (shipped / base.WEIGHTS.name).stat().st_size < 8e6


def test_the_recipe_is_that_of_the_samples_one_would_make_today() -> None:
    assert json.loads(base.RECIPE.read_text())["fingerprint"] == samples.fingerprint()


@pytest.mark.parametrize(("file", "content"), [("base.safetensors", None), ("base.json", b"{")])
def test_missing_or_broken_files_of_the_base_are_named(
    shipped: Path, file: str, content: bytes | None
) -> None:
    (shipped / file).unlink()
    if content is not None:
        (shipped / file).write_bytes(content)
    with pytest.raises(Zk0Error, match=rf"{file} .*; install zk0 again"):
        base.base_weights()


def test_a_damaged_state_is_refused(few: Samples, tmp_path: Path) -> None:
    pretraining(few, tmp_path).run()
    (tmp_path / STATE_FILE).write_bytes(b"nothing of the kind")
    with pytest.raises(Zk0Error, match=rf"{STATE_FILE} is damaged: .*; delete it"):
        pretraining(few, tmp_path).run()


def test_damaged_weights_are_refused_by_their_hash(shipped: Path) -> None:
    content = bytearray((shipped / base.WEIGHTS.name).read_bytes())
    content[-1] ^= 1
    (shipped / base.WEIGHTS.name).write_bytes(content)
    wanted = base.base_hash()[:16]
    with pytest.raises(Zk0Error, match=rf"SHA-256 is [0-9a-f]{{16}}\.\.\., not {wanted}"):
        base.base_weights()
