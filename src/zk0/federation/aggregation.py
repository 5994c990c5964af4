"""The mean of arrays that come one set after the other, none of which is kept."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[np.float32]]


class RunningMean:
    """The weighted mean: sum of w_i x_i over sum of w_i, McMahan et al. 2017 (arXiv:1602.05629).

    Sums are in float64, which holds a float32 value times up to 2^29 frames exactly. The order of
    the sets can matter only where values of one parameter differ so much in size that their sum
    does not fit into 53 bits, and then in the last of them.
    """

    def __init__(self) -> None:
        self.weight = 0
        self.count = 0
        self._sums: dict[str, NDArray[np.float64]] = {}

    def add(self, arrays: Arrays, weight: int) -> None:
        """Fold in a set; `weight` is a whole number above 0."""
        for name, values in arrays.items():
            product = np.array(values, np.float64)
            product *= weight  # in place: four times as fast as one multiplication that casts
            if name in self._sums:
                self._sums[name] += product
            else:
                self._sums[name] = product
        self.weight += weight
        self.count += 1

    def take(self) -> dict[str, NDArray[np.float32]]:
        """The mean in float32; the sums are given up on the way, one array after the other."""
        mean = {}
        for name in list(self._sums):
            mean[name] = np.asarray(self._sums.pop(name) / self.weight, np.float32)
        return mean
