"""What the frozen backbone says of every frame, computed once per machine and kept on disk.

Two tiers: `prefix` keeps the keys and values of every language layer (2.9 MB a frame at full size
with two cameras in bfloat16), `vision` keeps the connector's output (0.25 MB) and recomputes the
language layers, a tenth of the work. `off` recomputes everything from decoded images.

A cache lies in `ZK0_HOME/prefixes/<key>`; the key is a hash of all that its content depends on, so
that a stale one is never found. One that was cut short is filled up, what is damaged made again.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from filelock import AcquireReturnProxy, FileLock, Timeout
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from loguru import logger
from numpy.typing import NDArray
from torch import Tensor

from zk0.ahead import one_ahead
from zk0.data.frames import Frames
from zk0.errors import Zk0Error
from zk0.learning.device import device_of, let_go_of_vision, upload, wake_vision
from zk0.learning.frame_store import DamagedError, FrameStore, Layout
from zk0.learning.integrity import hash_arrays
from zk0.learning.policy import hash_backbone
from zk0.learning.prefix import (
    ImageTokens,
    Prefix,
    embed_images,
    encode_prefix,
    read_prefix,
    require_frozen,
)
from zk0.paths import home
from zk0.progress import counting

Tier = Literal["prefix", "vision", "off"]
CacheDtype = Literal["bfloat16", "float32"]
Pixels = Mapping[str, NDArray[np.uint8]]  # images (frames, height, width, 3) by camera
Instructions = Mapping[str, Tensor]  # tokens and their mask (frames, words), by lerobot's keys

FILL_FRAMES = 32  # encoded together
SHARE_OF_DISK = 0.5  # of what is free, where the user sets no limit
SHARE_OF_GPU = 0.5  # of the free memory that one dataset's prefixes may take
PATIENCE_S = 1.0  # that another process is waited for without a word
FORMAT = 1  # raised when the content of a record changes


@dataclass(frozen=True)
class CacheOptions:
    """`tier` "auto" takes the largest that fits `gigabytes` (0: half of the free disk)."""

    tier: Tier | Literal["auto"]
    gigabytes: float
    dtype: CacheDtype


class Prefixes(Protocol):
    """Where the prefixes of a dataset's frames come from."""

    def take(self, rows: NDArray[np.int64]) -> Prefix: ...


def open_prefixes(
    policy: SmolVLAPolicy, frames: Frames, instructions: Instructions, options: CacheOptions
) -> Prefixes:
    """The prefixes of all frames of the dataset, computed now as far as they are not on disk.

    Falls back a tier, with a warning, where the disk is full or cannot be written; at last to
    decoding and computing at every step. Raises `ValueError` where part of the backbone is
    trainable.
    """
    require_frozen(policy)
    encoder = Encoder(policy, frames, instructions)
    for tier in _candidates(options.tier):
        if tier == "off":
            break
        try:
            store = _open_store(encoder, tier, options)
        except OSError as error:
            _warn_of(error, f"tier {tier}", frames.slug)
            continue
        if store is not None:
            return _serve(encoder, tier, store)
    if options.tier != "off":
        logger.warning("prefix cache: off for {}; every step runs the backbone", frames.slug)
    return _open_images(encoder, options)


def _warn_of(error: OSError, what: str, slug: str) -> None:
    reason = error.strerror or error
    logger.warning("prefix cache of {}: {} cannot be kept in {} ({})", slug, what, home(), reason)


def _candidates(tier: Tier | Literal["auto"]) -> tuple[Tier, ...]:
    """The tiers to try, the largest first."""
    tiers: tuple[Tier, ...] = ("prefix", "vision", "off")
    return tiers if tier == "auto" else tiers[tiers.index(tier) :]


class Encoder:
    """The frozen backbone over a dataset's frames."""

    def __init__(self, policy: SmolVLAPolicy, frames: Frames, instructions: Instructions) -> None:
        self.policy = policy
        self.frames = frames
        self.instructions = instructions

    @property
    def device(self) -> torch.device:
        return device_of(self.policy)

    def decode_images(self, rows: NDArray[np.int64]) -> Pixels:
        """Every camera's images of consecutive `rows`, straight from the videos."""
        videos = self.frames.videos
        return {camera: videos.decode(camera, rows) for camera in videos.cameras}

    def encode(self, rows: NDArray[np.int64], pixels: Pixels, tier: Tier) -> tuple[Tensor, Tensor]:
        """Content and mask of the records of `rows`, which show `pixels`."""
        wake_vision(self.policy)
        batch = {**self.words(rows), **self._images(pixels)}
        if tier == "vision":
            images = embed_images(self.policy, batch)
            return images.embeddings, images.present
        prefix = encode_prefix(self.policy, batch)
        return prefix.keys_values, prefix.mask

    def decode(self, rows: NDArray[np.int64], tier: Tier, content: Tensor, mask: Tensor) -> Prefix:
        """The prefix from records of `tier`."""
        content = content.to(self.device, non_blocking=True)
        mask = mask.to(self.device, non_blocking=True)
        if tier == "prefix":
            return Prefix(content, mask)
        wake_vision(self.policy)
        images = ImageTokens(content.to(self.policy.model.state_proj.weight.dtype), mask)
        return read_prefix(self.policy, images, self.words(rows))

    def words(self, rows: NDArray[np.int64]) -> dict[str, Tensor]:
        index = upload(rows, self.device)
        return {key: column[index] for key, column in self.instructions.items()}

    def _images(self, pixels: Pixels) -> dict[str, Tensor]:
        """As lerobot's items hold them: float32 (frames, 3, height, width) in [0, 1]."""
        return {
            camera: upload(images, self.device).permute(0, 3, 1, 2).float() / 255
            for camera, images in pixels.items()
        }

    def key(self, tier: Tier, dtype: CacheDtype) -> str:
        """A hash of everything that the records depend on."""
        config, cameras = self.policy.config, self.frames.videos.cameras
        words = {name: column.cpu() for name, column in self.instructions.items()}
        content: dict[str, Any] = {
            "format": FORMAT,
            "tier": tier,
            "dtype": dtype,
            "dataset": self.frames.videos.fingerprint,
            "cameras": {slot: cameras.get(slot) for slot in config.image_features},
            "empty cameras": config.empty_cameras,
            "size": config.resize_imgs_with_padding,
            "markers": config.add_image_special_tokens,
            "layers": config.num_vlm_layers,
            "words": hash_arrays(words),
            "mixed precision": config.use_amp,
            "backbone": hash_backbone(self.policy),
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Fresh:
    """No cache: vision and language at every step, on images that are decoded once where there is
    room for them (`kept`), else at every step too."""

    encoder: Encoder
    kept: Mapping[str, NDArray[np.uint8]] | None

    def take(self, rows: NDArray[np.int64]) -> Prefix:
        return Prefix(*self.encoder.encode(rows, self._pixels(rows), "prefix"))

    def _pixels(self, rows: NDArray[np.int64]) -> Pixels:
        if self.kept is not None:
            return {camera: images[rows] for camera, images in self.kept.items()}
        videos = self.encoder.frames.videos
        return {camera: videos.decode_any(camera, rows) for camera in videos.cameras}


def _open_images(encoder: Encoder, options: CacheOptions) -> Fresh:
    """Without a cache, its images decoded now as far as they are not on disk and fit there."""
    videos, slug = encoder.frames.videos, encoder.frames.slug
    try:
        if videos.are_kept or _fits(videos.kept_bytes, "decoded images", options, slug):
            return Fresh(encoder, videos.kept)
    except OSError as error:
        _warn_of(error, "decoded images", slug)
    logger.warning("prefix cache of {}: every step decodes its images anew", slug)
    return Fresh(encoder, None)


@dataclass(frozen=True)
class Cached:
    """One of the tiers, from its store."""

    encoder: Encoder
    tier: Tier
    store: FrameStore

    def take(self, rows: NDArray[np.int64]) -> Prefix:
        return self.encoder.decode(rows, self.tier, *self.read(rows))

    def read(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Content and mask of any `rows`; damaged records are made again. Raises `Zk0Error` where
        they cannot be, or the disk does not keep them."""
        pinned = self.encoder.device.type == "cuda"
        try:
            return self.store.read(rows, pinned)
        except DamagedError as damage:
            self._repair(damage)
        try:
            return self.store.read(rows, pinned)
        except DamagedError as damage:
            raise self._beyond_repair(f"{damage} once more") from damage

    def _repair(self, damage: DamagedError) -> None:
        name = self.encoder.frames.slug
        logger.warning("prefix cache: {} damaged frames of {}", len(damage.rows), name)
        if self.store.mode == "r":
            raise self._beyond_repair(f"{damage}, and no right to write")
        with _locked(self.store.folder, name):
            self.store.forget(damage.rows)
            fill(self.store, self.encoder, self.tier)

    def _beyond_repair(self, what: str) -> Zk0Error:
        return Zk0Error(f"{self.store.folder}: {what}. Delete it or set ZK0_HOME to a sound disk.")


@dataclass(frozen=True)
class Resident:
    """One of the tiers, whole in the device's memory."""

    encoder: Encoder
    tier: Tier
    content: Tensor
    mask: Tensor

    def take(self, rows: NDArray[np.int64]) -> Prefix:
        index = upload(rows, self.encoder.device)
        return self.encoder.decode(rows, self.tier, self.content[index], self.mask[index])


def _serve(encoder: Encoder, tier: Tier, store: FrameStore) -> Prefixes:
    """The store's prefixes: from the GPU's memory where all fit there, else from the disk's."""
    cached = Cached(encoder, tier, store)
    device = encoder.device
    if device.type == "cuda":
        if tier == "prefix":
            let_go_of_vision(encoder.policy)
        free, _ = torch.cuda.mem_get_info(device)
        if store.folder in _RESIDENT or store.layout.total_bytes <= SHARE_OF_GPU * free:
            try:
                return make_resident(cached)
            except torch.cuda.OutOfMemoryError:  # another process was faster
                logger.warning("prefix cache: the GPU's memory is full; prefixes are streamed")
    return cached


def make_resident(cached: Cached) -> Resident:
    """Copy all records to the device, once in a process however often they are asked for."""
    folder = cached.store.folder
    if folder not in _RESIDENT:
        layout, device = cached.store.layout, cached.encoder.device
        content, mask = layout.empty(device)
        for rows in _runs(np.arange(layout.frames), FILL_FRAMES):
            for whole, part in zip((content, mask), cached.read(rows), strict=True):
                whole[rows[0] : rows[-1] + 1].copy_(part, non_blocking=True)
        _RESIDENT[folder] = content, mask
    return Resident(cached.encoder, cached.tier, *_RESIDENT[folder])


_RESIDENT: dict[Path, tuple[Tensor, Tensor]] = {}


def _open_store(encoder: Encoder, tier: Tier, options: CacheOptions) -> FrameStore | None:
    """The store of this tier, complete; None where it would be larger than the limit."""
    folder = home() / "prefixes" / encoder.key(tier, options.dtype)
    if folder in _OPEN:
        return _OPEN[folder]
    store = FrameStore.open(folder, len(encoder.frames.episodes))
    if store is None or len(store.missing):
        store = _complete_store(folder, encoder, tier, options)
    else:
        logger.info("prefix cache of {}: tier {} is there", encoder.frames.slug, tier)
    if store is not None:
        _OPEN[folder] = store
    return store


def _complete_store(
    folder: Path, encoder: Encoder, tier: Tier, options: CacheOptions
) -> FrameStore | None:
    """The store in `folder`, made where it is not there, and filled; None as above."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder, encoder.frames.slug):
        store = FrameStore.open(folder, len(encoder.frames.episodes))
        if store is None:
            shutil.rmtree(folder, ignore_errors=True)
            layout = _measure(encoder, tier, options.dtype)
            if not _fits(layout.total_bytes, f"tier {tier}", options, encoder.frames.slug):
                return None
            store = _create(folder, layout)
        fill(store, encoder, tier)
    return store


_OPEN: dict[Path, FrameStore] = {}  # a process verifies a frame once, however often it is asked


def _locked(folder: Path, slug: str) -> AcquireReturnProxy:
    """As long as its block runs, the store in `folder` is this process's to write."""
    lock = FileLock(f"{folder}.lock")
    try:
        return lock.acquire(timeout=PATIENCE_S)
    except Timeout:
        logger.info("prefix cache of {}: waiting for another process that fills it", slug)
        return lock.acquire()


def _create(folder: Path, layout: Layout) -> FrameStore:
    try:
        return FrameStore.create(folder, layout)
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _measure(encoder: Encoder, tier: Tier, dtype: CacheDtype) -> Layout:
    """The shape of a record, from the first frame's."""
    first = np.arange(1)
    content, mask = encoder.encode(first, encoder.decode_images(first), tier)
    frames = len(encoder.frames.episodes)
    return Layout(frames, tuple(content.shape[1:]), tuple(mask.shape[1:]), dtype)


def _fits(size: int, what: str, options: CacheOptions, slug: str) -> bool:
    """Whether so many bytes are within the limit; says so, and what the limit is."""
    free = shutil.disk_usage(home()).free * SHARE_OF_DISK / 1e9
    limit, needed = options.gigabytes or free, size / 1e9
    limited = "prefix-cache-gb" if options.gigabytes else "half of the free disk"
    verdict = "fits" if needed <= limit else "does not fit"
    logger.info(
        f"prefix cache of {slug}: {what}, {needed:.2f} GB, {verdict} {limit:.2f} GB ({limited})"
    )
    return needed <= limit


def fill(store: FrameStore, encoder: Encoder, tier: Tier) -> None:
    """Compute the records that are missing, in the videos' order, and say how fast."""
    missing = store.missing
    if not len(missing):
        return
    start = time.perf_counter()
    runs = one_ahead(lambda rows: (rows, encoder.decode_images(rows)), _runs(missing, FILL_FRAMES))
    with counting(len(missing), f"prefix cache of {encoder.frames.slug}") as advance:
        for rows, pixels in runs:
            store.write(rows, *encoder.encode(rows, pixels, tier))
            advance(len(rows))
    seconds = time.perf_counter() - start
    logger.info(
        "prefix cache of {}: {} frames in {:.1f} s ({:.0f} frames/s)",
        encoder.frames.slug,
        len(missing),
        seconds,
        len(missing) / seconds,
    )


def _runs(rows: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    """Consecutive rows together, at most `size`."""
    starts = np.flatnonzero(np.diff(rows, prepend=rows[0] - 2) != 1)
    for run in np.split(rows, starts[1:]):
        for start in range(0, len(run), size):
            yield run[start : start + size]
