"""A hash that two sets of arrays share exactly where they are the same."""

import hashlib
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray


def hash_arrays(arrays: Mapping[str, torch.Tensor] | Mapping[str, NDArray[np.float32]]) -> str:
    """SHA-256 over the arrays' names, dtypes, shapes and bytes, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        dtype = f"torch.{array.dtype}" if isinstance(array, np.ndarray) else array.dtype
        digest.update(f"{name}|{dtype}|{tuple(array.shape)}|".encode())
        digest.update(_bytes(array))
    return digest.hexdigest()


def _bytes(array: torch.Tensor | NDArray[np.float32]) -> memoryview:
    if isinstance(array, torch.Tensor):
        array = array.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return memoryview(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
