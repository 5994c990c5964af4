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
        tensor = torch.as_tensor(arrays[name]).detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(memoryview(tensor.reshape(-1).view(torch.uint8).numpy()))
    return digest.hexdigest()
