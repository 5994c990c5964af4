"""A hash that two sets of arrays share exactly where they are the same."""

import hashlib
from collections.abc import Mapping

import torch


def hash_arrays(arrays: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over the arrays' names, dtypes, shapes and bytes, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        tensor = arrays[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(memoryview(tensor.reshape(-1).view(torch.uint8).numpy()))
    return digest.hexdigest()
