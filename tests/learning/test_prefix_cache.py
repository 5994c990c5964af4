"""The cache on disk: what it gives back, what it survives, when it gives way."""

import dataclasses
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from loguru import logger

from zk0.data.frames import Frames, open_frames
from zk0.errors import Zk0Error
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


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """What is logged."""
    kept: list[str] = []
    sink = logger.add(lambda message: kept.append(message.record["message"]), level="INFO")
    yield kept
    logger.remove(sink)


@pytest.mark.parametrize("tier", ["prefix", "vision"])
def test_every_tier_gives_the_loss_of_no_cache(home, policy, touch: Frames, tier: str):
    expected = losses(policy, open_batches(policy, touch, "off"))
    cached = open_batches(policy, touch, tier)
    assert isinstance(cached._prefixes, Cached)
    torch.testing.assert_close(losses(policy, cached), expected, rtol=1e-5, atol=1e-6)
    rounded = open_batches(policy, touch, tier, dtype="bfloat16")
    torch.testing.assert_close(losses(policy, rounded), expected, rtol=2e-3, atol=2e-3)


def test_second_opening_computes_nothing(home, policy, touch, monkeypatch, lines):
    expected = losses(policy, open_batches(policy, touch))
    restart(monkeypatch)
    monkeypatch.setattr(prefix_cache, "encode_prefix", None)  # would raise, were it called
    assert torch.equal(losses(policy, open_batches(policy, touch)), expected)
    assert lines[-1] == "prefix cache of touch: tier prefix is there"


def test_what_a_killed_fill_left_is_filled_up(home, policy, touch, monkeypatch):
    expected = losses(policy, open_batches(policy, touch))
    store = open_batches(policy, touch)._prefixes.store
    store.forget(np.arange(30, 60))
    restart(monkeypatch)
    encoded = counting_encoded(monkeypatch)
    assert torch.equal(losses(policy, open_batches(policy, touch)), expected)
    assert sum(encoded) == 30


def counting_encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many frames are encoded from now on, batch by batch."""
    encoded = []
    encode = prefix_cache.encode_prefix

    def count(policy, batch):
        encoded.append(len(batch["observation.images.front"]))
        return encode(policy, batch)

    monkeypatch.setattr(prefix_cache, "encode_prefix", count)
    return encoded


def test_a_fill_that_was_killed_goes_on(home, policy, touch, datasets, monkeypatch):
    """By SIGKILL, in the middle."""
    slowly = """
from zk0.learning import prefix_cache
import time
prefix_cache.FILL_FRAMES = 4
encode = prefix_cache.Encoder.encode
def slow(*given):
    time.sleep(0.2)
    return encode(*given)
prefix_cache.Encoder.encode = slow
"""
    process = subprocess.Popen([sys.executable, "-c", slowly + opening(datasets["touch"])])
    try:
        while not written(home):
            assert process.poll() is None
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()
    (left,) = [np.count_nonzero(checksums == 0) for checksums in written(home)]
    assert 0 < left < len(touch)
    encoded = counting_encoded(monkeypatch)
    resumed = open_batches(policy, touch, dtype="bfloat16")
    assert sum(encoded) == left
    fresh = losses(policy, open_batches(policy, touch, "off"))
    torch.testing.assert_close(losses(policy, resumed), fresh, rtol=2e-3, atol=2e-3)


def written(home: Path) -> list[np.ndarray]:
    """The checksums in all caches that have some."""
    files = (home / "prefixes").glob("*/checksums.bin")
    found = [np.fromfile(file, np.uint64) for file in files]
    return [checksums for checksums in found if checksums.any()]


def opening(dataset: Path) -> str:
    """A program that opens a dataset's prefixes and says where they come from."""
    return f"""
import torch
from pathlib import Path
from zk0.data.frames import open_frames
from zk0.learning.batches import Batches
from zk0.learning.policy import build_policy
from zk0.learning.prefix_cache import CacheOptions
torch.set_num_threads(1)
frames = open_frames(Path({str(dataset)!r}), "touch")
policy = build_policy("embedded", 0, torch.device("cpu"))
for dtype in ("bfloat16", "float32"):
    batches = Batches(policy, frames, frames.statistics, CacheOptions("auto", 0.0, dtype))
    print(type(batches._prefixes).__name__, len(batches.take(frames.selection[:2])[1].mask))
"""


@pytest.mark.skipif(not shutil.which("setpriv") and not os.geteuid(), reason="root writes anywhere")
def test_what_may_only_be_read_is_read_and_the_rest_computed(home, policy, touch, datasets):
    """A cache that somebody else has filled, in a folder that is theirs."""
    open_batches(policy, touch, dtype="bfloat16")
    for path in [home, *home.rglob("*")]:
        path.chmod(path.stat().st_mode & ~0o222)
    may_not = ["setpriv", "--inh-caps=-dac_override", "--bounding-set=-dac_override"]
    command = [sys.executable, "-c", opening(datasets["touch"])]
    try:
        done = subprocess.run(
            command if os.geteuid() else may_not + command, capture_output=True, text=True
        )
    finally:
        for path in [home, *home.rglob("*")]:
            path.chmod(path.stat().st_mode | 0o200)
    assert done.stdout.splitlines() == ["Cached 2", "Fresh 2"], done.stderr
    assert "tier prefix cannot be kept" in done.stderr
    assert "Permission denied" in done.stderr
    assert "every step decodes its images anew" in done.stderr


def test_a_disk_that_does_not_keep_what_is_written_is_named(home, policy, touch, monkeypatch):
    cached = open_batches(policy, touch)._prefixes
    cached.store.forget(ROWS)
    restart(monkeypatch)
    monkeypatch.setattr(prefix_cache, "fill", lambda *given: None)
    monkeypatch.setattr(cached.store, "_verified", np.zeros(len(touch), bool))
    with pytest.raises(Zk0Error, match=r"prefixes/[0-9a-f]{32}: 4 damaged records once more"):
        cached.take(ROWS[[0, 1, 2, 4]])


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
    swapped = dict(zip(touch.videos.cameras, reversed(touch.videos.cameras.values()), strict=True))
    keys.add(key(frames=touch.seen_as(swapped)))
    for setting in (
        {"empty_cameras": 1},
        {"resize_imgs_with_padding": (64, 64)},
        {"add_image_special_tokens": True},
        {"num_vlm_layers": 2},
    ):
        with pytest.MonkeyPatch.context() as patch:
            for name, value in setting.items():
                patch.setattr(policy.config, name, value)
            keys.add(key())
    assert len(keys) == 11
    expert = next(p for p in other.parameters() if p.requires_grad)
    reached = key(policy=other)
    with torch.no_grad():
        expert.add_(1)
    assert key(policy=other) == reached


def test_auto_takes_the_largest_tier_that_fits(home, policy, touch, lines):
    assert open_batches(policy, touch, "auto")._prefixes.tier == "prefix"
    assert any("tier prefix, 0.0" in line and "GB, fits" in line for line in lines)
    sizes = {
        t: open_batches(policy, touch, t)._prefixes.store.layout.total_bytes
        for t in ("prefix", "vision")
    }
    assert sizes["vision"] < sizes["prefix"]


def test_limit_brings_the_tier_down(home, policy, touch, lines):
    nothing = open_batches(policy, touch, "auto", gigabytes=1e-9)
    assert isinstance(nothing._prefixes, Fresh)
    assert nothing._prefixes.kept is None
    assert not list((home / "frames").glob("*/*"))
    assert lines[-1] == "prefix cache of touch: every step decodes its images anew"
    kept = open_batches(policy, touch, "off")
    assert kept._prefixes.kept is not None
    assert torch.equal(losses(policy, nothing), losses(policy, kept))
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


def test_a_disk_without_room_for_anything_costs_time_not_the_run(home, policy, touch):
    expected = losses(policy, open_batches(policy, touch, "off"))
    shutil.rmtree(home / "frames", ignore_errors=True)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    again = dataclasses.replace(touch, videos=dataclasses.replace(touch.videos))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        batches = open_batches(policy, again, "auto")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert batches._prefixes.kept is None
    assert not [*(home / "frames").rglob("*.npy"), *(home / "frames").rglob("*.partial")]
    assert torch.equal(losses(policy, batches), expected)


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
    program = opening(datasets["touch"]).replace('("bfloat16", "float32")', '("bfloat16",)')
    both = [
        subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    errors = [process.communicate(timeout=120)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    fills = sum(" frames in " in line for error in errors for line in error.splitlines())
    assert fills == 1
    assert len(list((home / "prefixes").glob("*/layout.json"))) == 1


def test_who_waits_for_anothers_fill_says_so(home, monkeypatch, lines):
    monkeypatch.setattr(prefix_cache, "PATIENCE_S", 0.01)
    folder = home / "prefixes" / "key"
    folder.parent.mkdir()

    def take_a_turn() -> None:
        with prefix_cache._locked(folder, "touch"):
            lines.append("filled")

    with ThreadPoolExecutor(1) as other:
        with FileLock(f"{folder}.lock"):
            waiting = other.submit(take_a_turn)
            assert not wait([waiting], timeout=0.5).done
        waiting.result(timeout=30)
    assert lines == ["prefix cache of touch: waiting for another process that fills it", "filled"]
