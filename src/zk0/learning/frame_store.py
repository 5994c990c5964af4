"""A file with one record per frame, each written once, checked by its own checksum."""

import json
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zk0.files import reserve

_DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
_WRITTEN = np.uint64(1 << 32)  # set in a checksum's upper half: an unwritten frame has zero


class DamagedError(Exception):
    """Records do not have the checksum they were written with; `rows` says which."""

    def __init__(self, rows: NDArray[np.int64]) -> None:
        super().__init__(f"{len(rows)} damaged records")
        self.rows = rows


@dataclass(frozen=True)
class Layout:
    """Records of a dataset: floating-point content and a mask, of fixed shapes per frame."""

    frames: int
    shape: tuple[int, ...]
    mask_shape: tuple[int, ...]
    dtype: str  # "bfloat16" or "float32"

    @property
    def content_bytes(self) -> int:
        return int(np.prod(self.shape)) * _DTYPES[self.dtype].itemsize

    @property
    def mask_bytes(self) -> int:
        return int(np.prod(self.mask_shape))

    @property
    def total_bytes(self) -> int:
        return self.frames * (self.content_bytes + self.mask_bytes + 8)

    def empty(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Room for the content and the mask of all records."""
        content = torch.empty(self.frames, *self.shape, dtype=_DTYPES[self.dtype], device=device)
        return content, torch.empty(self.frames, *self.mask_shape, dtype=torch.bool, device=device)


class FrameStore:
    """Memory-mapped records in a folder, shared by all processes that open it."""

    def __init__(self, folder: Path, layout: Layout) -> None:
        self.folder = folder
        self.layout = layout
        self._verified = np.zeros(layout.frames, bool)

    @classmethod
    def create(cls, folder: Path, layout: Layout) -> Self:
        """An empty store with its disk space reserved; raises `OSError` where there is none."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, size in (
            ("content.bin", layout.content_bytes),
            ("masks.bin", layout.mask_bytes),
            ("checksums.bin", 8),
        ):
            (folder / name).unlink(missing_ok=True)  # nothing of an older one may be taken for this
            reserve(folder / name, layout.frames * size)
        # Written last: a store without it was never finished being made.
        (folder / "layout.json").write_text(json.dumps(layout.__dict__))
        return cls(folder, layout)

    @classmethod
    def open(cls, folder: Path, frames: int) -> Self | None:
        """The store in `folder`; None where there is none, or not one of that many frames."""
        try:
            content = json.loads((folder / "layout.json").read_text())
            content["shape"], content["mask_shape"] = (
                tuple(content["shape"]),
                tuple(content["mask_shape"]),
            )
            store = cls(folder, Layout(**content))
            sizes_fit = sum(path.stat().st_size for path in folder.glob("*.bin"))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        fits = store.layout.frames == frames and sizes_fit == store.layout.total_bytes
        return store if fits else None

    @property
    def mode(self) -> Literal["r", "r+"]:
        """Of the memory maps: whole stores are also read where this user may not write."""
        return "r+" if os.access(self.folder / "checksums.bin", os.W_OK) else "r"

    @property
    def missing(self) -> NDArray[np.int64]:
        """The rows that have no record yet."""
        return np.flatnonzero(self._checksums == 0)

    def write(self, rows: Sequence[int] | NDArray[np.int64], content: Tensor, mask: Tensor) -> None:
        """Store the records of `rows`; the checksums follow the data."""
        layout = self.layout
        bytes_ = content.to("cpu", _DTYPES[layout.dtype]).contiguous().view(torch.uint8)
        self._content[rows] = bytes_.reshape(len(rows), -1).numpy()
        self._masks[rows] = mask.cpu().contiguous().view(torch.uint8).reshape(len(rows), -1).numpy()
        self._checksums[rows] = [self._checksum(row) for row in rows]

    def read(self, rows: NDArray[np.int64], pinned: bool = False) -> tuple[Tensor, Tensor]:
        """Content (rows, *shape) and mask (rows, *mask shape); raises `DamagedError`.

        In page-locked memory, from which a GPU copies by itself, where `pinned`.
        """
        self._verify(rows[~self._verified[rows]])
        layout = self.layout
        content = _gather(self._content, rows, pinned).view(_DTYPES[layout.dtype])
        masks = _gather(self._masks, rows, pinned).view(torch.bool)
        return content.view(-1, *layout.shape), masks.view(-1, *layout.mask_shape)

    def forget(self, rows: NDArray[np.int64]) -> None:
        """Declare the records of `rows` missing."""
        self._checksums[rows] = 0

    def _verify(self, rows: NDArray[np.int64]) -> None:
        damaged = [row for row in rows if self._checksums[row] != self._checksum(row)]
        if damaged:
            raise DamagedError(np.array(damaged))
        self._verified[rows] = True

    def _checksum(self, row: int) -> np.uint64:
        content = zlib.crc32(self._content[row])
        return _WRITTEN | np.uint64(zlib.crc32(self._masks[row], content))

    @cached_property
    def _content(self) -> np.memmap:
        return self._map("content.bin", np.uint8, self.layout.content_bytes)

    @cached_property
    def _masks(self) -> np.memmap:
        return self._map("masks.bin", np.uint8, self.layout.mask_bytes)

    @cached_property
    def _checksums(self) -> np.memmap:
        return np.memmap(self.folder / "checksums.bin", np.uint64, self.mode)

    def _map(self, name: str, dtype: type, width: int) -> np.memmap:
        return np.memmap(self.folder / name, dtype, self.mode, shape=(self.layout.frames, width))


def _gather(source: np.memmap, rows: NDArray[np.int64], pinned: bool) -> Tensor:
    gathered = torch.empty((len(rows), source.shape[1]), dtype=torch.uint8, pin_memory=pinned)
    np.take(source, rows, axis=0, out=gathered.numpy(), mode="clip")  # "raise" would buffer
    return gathered
