"""The cache on disk: what it gives back, what it survives, when it gives way."""

import dataclasses
import json
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from zk0.data.frames import Frames, open_frames
from zk0.learning import device, prefix_cache
from zk0.learning.batches import Batches
from zk0.learning.policy import build_policy
from zk0.learning.prefix import loss_from_prefix
from zk0.learning.prefix_cache import Cached, CacheOptions, Encoder, Fresh
from zk0.learning.training import LocalSteps, draw_noise, train

ROWS = np.array([40, 3, 77, 3, 12])


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty `ZK0_HOME`, and a process that has opened nothing yet; the backbone is there."""
    from zk0.learning.backbone import embedded_backbone

    backbone = embedded_backbone()
    monkeypatch.setenv("ZK0_HOME", str(tmp_path))
    monkeypatch.setattr(prefix_cache, "_OPEN", {})
    shutil.copytree(backbone, tmp_path / "backbones" / backbone.name)
    return tmp_path


def open_batches(policy, frames: Frames, tier="prefix", gigabytes=0.0, dtype="float32") -> Batches:
    return Batches(policy, frames, frames.statistics, CacheOptions(tier, gigabytes, dtype))


def losses(policy, batches: Batches) -> torch.Tensor:
    noise, times = draw_noise(policy, len(ROWS), torch.Generator().manual_seed(0))
    batch, prefix = batches.take(ROWS)
    with torch.no_grad():
        return loss_from_prefix(policy, prefix, batch, noise, times, "none")


def restart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what this process has open, as a new one would."""
    monkeypatch.setattr(prefix_cache, "_OPEN", {})


@pytest.mark.parametrize("tier", ["prefix", "vision"])
def test_every_tier_gives_the_loss_of_no_cache(home, policy, touch: Frames, tier: str):
    expected = losses(policy, open_batches(policy, touch, "off"))
    cached = open_batches(policy, touch, tier)
    assert isinstance(cached._prefixes, Cached)
    torch.testing.assert_close(losses(policy, cached), expected, rtol=1e-5, atol=1e-6)
    rounded = open_batches(policy, touch, tier, dtype="bfloat16")
    torch.testing.assert_close(losses(policy, rounded), expected, rtol=2e-3, atol=2e-3)


def test_second_opening_computes_nothing(home, policy, touch, monkeypatch):
    expected = losses(policy, open_batches(policy, touch))
    restart(monkeypatch)
    monkeypatch.setattr(prefix_cache, "encode_prefix", None)  # would raise, were it called
    assert torch.equal(losses(policy, open_batches(policy, touch)), expected)


def test_what_a_killed_fill_left_is_filled_up(home, policy, touch, monkeypatch):
    expected = losses(policy, open_batches(policy, touch))
    store = open_batches(policy, touch)._prefixes.store
    store.forget(np.arange(30, 60))
    restart(monkeypatch)
    encoded = []
    encode = prefix_cache.encode_prefix

    def count(policy, batch):
        encoded.append(len(batch["observation.images.front"]))
        return encode(policy, batch)

    monkeypatch.setattr(prefix_cache, "encode_prefix", count)
    assert torch.equal(losses(policy, open_batches(policy, touch)), expected)
    assert sum(encoded) == 30


@pytest.mark.parametrize("name", ["content.bin", "masks.bin"])
def test_damaged_records_are_made_again(home, policy, touch, monkeypatch, name: str):
    batches = open_batches(policy, touch)
    expected = losses(policy, batches)
    store = batches._prefixes.store
    file = np.memmap(store.folder / name, np.uint8, "r+")
    width = len(file) // store.layout.frames
    file[3 * width] ^= 1  # a bit of frame 3, which the batch reads twice
    file.flush()
    restart(monkeypatch)
    assert torch.equal(losses(policy, open_batches(policy, touch)), expected)


@pytest.mark.parametrize("spoil", ["shorten", "no layout", "other layout"])
def test_store_that_is_not_whole_is_rebuilt(home, policy, touch, monkeypatch, spoil: str):
    batches = open_batches(policy, touch)
    expected = losses(policy, batches)
    folder = batches._prefixes.store.folder
    if spoil == "shorten":
        content = folder / "content.bin"
        content.write_bytes(content.read_bytes()[:1000])
    elif spoil == "no layout":
        (folder / "layout.json").unlink()
    else:
        layout = json.loads((folder / "layout.json").read_text())
        (folder / "layout.json").write_text(json.dumps({**layout, "frames": 5}))
    restart(monkeypatch)
    assert torch.equal(losses(policy, open_batches(policy, touch)), expected)


def test_key_follows_everything_that_the_content_depends_on(home, policy, touch):
    def key(policy=policy, frames=touch, words=None, tier="prefix", dtype="float32") -> str:
        return Encoder(policy, frames, words or instructions).key(tier, dtype)

    instructions = open_batches(policy, touch, "off")._prefixes.encoder.instructions
    videos = dataclasses.replace(touch.videos, fingerprint="0" * 64)
    other = build_policy("embedded", 0, torch.device("cpu"))
    with torch.no_grad():
        other.model.vlm_with_expert.vlm.model.connector.modality_projection.proj.weight.add_(1)
    keys = {
        key(),
        key(tier="vision"),
        key(dtype="bfloat16"),
        key(frames=dataclasses.replace(touch, videos=videos)),
        key(words={name: column.flip(1) for name, column in instructions.items()}),
        key(policy=other),
    }
    assert len(keys) == 6
    expert = next(p for p in other.parameters() if p.requires_grad)
    reached = key(policy=other)
    with torch.no_grad():
        expert.add_(1)
    assert key(policy=other) == reached


def test_auto_takes_the_largest_tier_that_fits(home, policy, touch):
    assert open_batches(policy, touch, "auto")._prefixes.tier == "prefix"
    sizes = {
        t: open_batches(policy, touch, t)._prefixes.store.layout.total_bytes
        for t in ("prefix", "vision")
    }
    assert sizes["vision"] < sizes["prefix"]


def test_limit_brings_the_tier_down(home, policy, touch):
    nothing = open_batches(policy, touch, "auto", gigabytes=1e-9)
    assert isinstance(nothing._prefixes, Fresh)
    enough = bytes_needed(policy, touch, "vision") * 1.01 / 1e9
    assert open_batches(policy, touch, "auto", gigabytes=enough)._prefixes.tier == "vision"


def bytes_needed(policy, frames: Frames, tier: str) -> int:
    encoder = open_batches(policy, frames, "off")._prefixes.encoder
    return prefix_cache._measure(encoder, tier, "float32").total_bytes


def test_folder_that_cannot_be_written_costs_the_cache_not_the_run(home, policy, touch):
    (home / "prefixes").write_text("in the way")
    expected = losses(policy, open_batches(policy, touch, "off"))
    batches = open_batches(policy, touch, "auto")
    assert isinstance(batches._prefixes, Fresh)
    assert torch.equal(losses(policy, batches), expected)


def test_full_disk_costs_a_tier_not_the_run(home, policy, touch):
    """No file may grow beyond what the vision tier needs."""
    limit = bytes_needed(policy, touch, "vision")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        batches = open_batches(policy, touch, "auto")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert batches._prefixes.tier == "vision"
    assert len(list((home / "prefixes").glob("*/layout.json"))) == 1


@pytest.mark.parametrize("tier", ["prefix", "vision"])
def test_records_in_device_memory_are_the_stores_own(home, policy, touch, monkeypatch, tier: str):
    monkeypatch.setattr(prefix_cache, "_RESIDENT", {})
    cached = open_batches(policy, touch, tier)._prefixes
    expected, resident = cached.take(ROWS), prefix_cache.make_resident(cached).take(ROWS)
    assert torch.equal(resident.keys_values, expected.keys_values)
    assert torch.equal(resident.mask, expected.mask)
    again = prefix_cache.make_resident(cached)
    assert again.content is prefix_cache.make_resident(cached).content


def test_steps_from_cached_prefixes_use_nothing_that_reads_images(home, policy, touch):
    """Meta tensors have no values: an operation on them beside real ones raises."""
    batches = open_batches(policy, touch)
    for part in device._perception(policy):
        part.to("meta")
    train(policy, batches, LocalSteps(2, 4, 1e-3, 0.0), [0])
    assert policy.model.state_proj.weight.device.type == "cpu"


def test_vision_that_was_let_go_comes_back_for_the_next_dataset(home, policy, touch):
    device.let_go_of_vision(policy)
    expected = losses(policy, open_batches(policy, touch, "off"))
    torch.testing.assert_close(
        losses(policy, open_batches(policy, touch, "vision")), expected, rtol=1e-5, atol=1e-6
    )


def test_precision_is_part_of_the_key(home, policy, touch):
    encoder = open_batches(policy, touch, "off")._prefixes.encoder
    before = encoder.key("prefix", "float32")
    device.set_precision(policy, "bfloat16")
    assert encoder.key("prefix", "float32") != before


def test_trainable_backbone_is_refused(home, policy, touch):
    policy.model.vlm_with_expert.vlm.model.text_model.layers[
        0
    ].mlp.up_proj.weight.requires_grad = True
    with pytest.raises(ValueError, match="which is trainable"):
        open_batches(policy, touch)


def test_dataset_changed_under_the_cache_gets_another(home, policy, datasets, tmp_path):
    folder = tmp_path / "changed"
    shutil.copytree(datasets["touch"], folder)
    first = open_batches(policy, open_frames(folder, "arm"))._prefixes.store.folder
    info = json.loads((folder / "meta" / "info.json").read_text())
    (folder / "meta" / "info.json").write_text(json.dumps(info, indent=1))
    second = open_batches(policy, open_frames(folder, "arm"))._prefixes.store.folder
    assert first != second


def test_two_processes_fill_one_cache(home, datasets: dict[str, Path]):
    program = f"""
import torch
from pathlib import Path
from zk0.data.frames import open_frames
from zk0.learning.batches import Batches
from zk0.learning.policy import build_policy, make_processors
from zk0.learning.prefix_cache import CacheOptions
torch.set_num_threads(1)
frames = open_frames(Path({str(datasets["touch"])!r}), "touch")
policy = build_policy("embedded", 0, torch.device("cpu"))
Batches(policy, frames, frames.statistics, CacheOptions("prefix", 0.0, "bfloat16"))
"""
    both = [
        subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    errors = [process.communicate(timeout=120)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    fills = sum(" frames in " in line for error in errors for line in error.splitlines())
    assert fills == 1
    assert len(list((home / "prefixes").glob("*/layout.json"))) == 1
