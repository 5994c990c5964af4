"""How far the clients' updates of a round point the same way."""

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[np.float32]]

COORDINATES = 8_192  # of an update that are looked at: a cosine is off by about 0.01


class Agreement:
    """Cosines between updates, from the same evenly spread coordinates of each.

    Little is kept of a client, whatever the size of the model: 32 KB.
    """

    def __init__(self, start: Arrays) -> None:
        size = sum(values.size for values in start.values())
        self._stride = max(1, size // COORDINATES)
        self._start = self._sample(start)
        self._ends: dict[int, NDArray[np.float32]] = {}

    def add(self, client: int, arrays: Arrays) -> None:
        self._ends[client] = self._sample(arrays)

    def to_json(self) -> dict[str, Any]:
        """The cosine of each pair of clients by "I-J", and their mean; None without a pair. An
        update of length 0 points nowhere and is left out."""
        # In float64, in which the square of no float32 is infinite.
        updates = {client: end - self._start.astype(float) for client, end in self._ends.items()}
        lengths = {client: float(np.linalg.norm(update)) for client, update in updates.items()}
        moved = sorted(client for client, length in lengths.items() if length > 0)
        pairs = {
            f"{i}-{j}": float(updates[i] @ updates[j]) / (lengths[i] * lengths[j])
            for i, j in combinations(moved, 2)
        }
        return {"mean": sum(pairs.values()) / len(pairs) if pairs else None, "pairs": pairs}

    def _sample(self, arrays: Arrays) -> NDArray[np.float32]:
        parts = [arrays[name].reshape(-1)[:: self._stride] for name in sorted(arrays)]
        return np.concatenate(parts).astype(np.float32)
