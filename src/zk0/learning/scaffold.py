"""SCAFFOLD's control variates on a client: Karimireddy et al. 2020 (arXiv:1910.06378), algorithm 1.

Every local gradient g_i(y) is corrected by c - c_i, and afterwards c_i becomes the mean of the
round's own gradients. With SGD that is the paper's option II, c_i - c + (x - y_i) / (K eta), as
x - y_i = eta * sum(g_i - c_i + c); it also holds under AdamW, whose steps are no multiples of
gradients.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

Variates = dict[str, Tensor]  # by the names of the trainable parameters


class ControlVariates:
    """Those of one client during one round."""

    def __init__(self, server: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
        self._own = dict(own)
        self._correction = {name: c - own[name] for name, c in server.items()}
        self._sums = zeros_like(own)
        self._steps = 0

    def to(self, device: torch.device) -> None:
        for variates in (self._own, self._correction, self._sums):
            variates.update({name: tensor.to(device) for name, tensor in variates.items()})

    @torch.no_grad()
    def correct(self, parameters: Mapping[str, torch.nn.Parameter]) -> None:
        """Take note of the step's gradients g_i and turn them into g_i - c_i + c."""
        self._steps += 1
        for name, parameter in parameters.items():
            if parameter.grad is not None:
                self._sums[name].add_(parameter.grad)
                parameter.grad.add_(self._correction[name])

    def close(self) -> tuple[Variates, Variates]:
        """The client's next control variates c_i+, and their change c_i+ - c_i for the server."""
        following = {name: total / self._steps for name, total in self._sums.items()}
        return following, {name: new - self._own[name] for name, new in following.items()}


def zeros_like(arrays: Mapping[str, Tensor]) -> Variates:
    """Control variates before the first round."""
    return {name: torch.zeros_like(tensor) for name, tensor in arrays.items()}
