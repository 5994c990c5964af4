"""Control variates against the formulas of Karimireddy et al. 2020, algorithm 1, in plain NumPy."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from zk0.learning.scaffold import ControlVariates, zeros_like

SHAPES = {"w": (3, 2), "b": (4,), "scale": ()}
STEPS, RATE = 5, 0.1

Floats = dict[str, NDArray[np.float64]]


def drawn(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


def plain(arrays: dict[str, Tensor]) -> Floats:
    return {name: tensor.numpy().astype(np.float64) for name, tensor in arrays.items()}


def descend(
    variates: ControlVariates, start: dict[str, Tensor], targets: list[dict[str, Tensor]]
) -> dict[str, Tensor]:
    """SGD on |y - target|^2 / 2, whose target changes from step to step as a batch's would."""
    parameters = {name: torch.nn.Parameter(tensor.clone()) for name, tensor in start.items()}
    for target in targets:
        for name, parameter in parameters.items():
            parameter.grad = parameter.detach() - target[name]
        variates.correct(parameters)
        with torch.no_grad():
            for parameter in parameters.values():
                parameter -= RATE * parameter.grad
    return {name: parameter.detach() for name, parameter in parameters.items()}


START, SERVER, OWN = drawn(0), drawn(1), drawn(2)
TARGETS = [drawn(10 + step) for step in range(STEPS)]


def test_every_step_follows_the_corrected_gradient():
    """y <- y - eta (g_i(y) - c_i + c)."""
    moved = descend(ControlVariates(SERVER, OWN), START, TARGETS)
    c, c_i, y = plain(SERVER), plain(OWN), plain(START)
    for target in map(plain, TARGETS):
        y = {n: y[n] - RATE * ((y[n] - target[n]) - c_i[n] + c[n]) for n in y}
    for name, tensor in moved.items():
        np.testing.assert_allclose(tensor.numpy(), y[name], atol=1e-6)


def test_under_sgd_the_next_variates_are_option_two():
    """c_i+ = c_i - c + (x - y_i) / (K eta), and the server hears of c_i+ - c_i."""
    variates = ControlVariates(SERVER, OWN)
    moved = plain(descend(variates, START, TARGETS))
    following, change = variates.close()
    x, c, c_i = plain(START), plain(SERVER), plain(OWN)
    for name in SHAPES:
        expected = c_i[name] - c[name] + (x[name] - moved[name]) / (STEPS * RATE)
        np.testing.assert_allclose(following[name].numpy(), expected, atol=2e-6)
        np.testing.assert_allclose(change[name].numpy(), expected - c_i[name], atol=2e-6)


def test_equal_variates_leave_gradients_as_they_are_and_take_their_mean():
    parameter = torch.nn.Parameter(torch.zeros(3))
    same = {"w": torch.tensor([1.0, 2.0, 3.0])}
    variates = ControlVariates(same, same)
    gradients = [torch.tensor([1.0, 0.0, -1.0]), torch.tensor([3.0, 4.0, 5.0])]
    for gradient in gradients:
        parameter.grad = gradient.clone()
        variates.correct({"w": parameter})
        assert torch.equal(parameter.grad, gradient)
    following, change = variates.close()
    assert torch.equal(following["w"], torch.tensor([2.0, 2.0, 2.0]))
    assert torch.equal(change["w"], torch.tensor([1.0, 0.0, -1.0]))


def test_a_parameter_that_a_step_does_not_reach_is_left_alone():
    reached, other = (torch.nn.Parameter(torch.zeros(2)) for _ in range(2))
    server = {"reached": torch.ones(2), "other": torch.ones(2)}
    variates = ControlVariates(server, zeros_like(server))
    reached.grad = torch.zeros(2)
    variates.correct({"reached": reached, "other": other})
    assert other.grad is None
    assert torch.equal(reached.grad, torch.ones(2))
    following, _ = variates.close()
    assert torch.equal(following["other"], torch.zeros(2))


def test_what_was_given_stays_as_it_was():
    variates = ControlVariates(SERVER, OWN)
    descend(variates, START, TARGETS)
    variates.close()
    for used, fresh in ((SERVER, drawn(1)), (OWN, drawn(2)), (START, drawn(0))):
        assert all(torch.equal(tensor, fresh[name]) for name, tensor in used.items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_zeros_are_of_the_parameters_own_kind(dtype: torch.dtype):
    zeros = zeros_like({"w": torch.ones(2, 3, dtype=dtype)})
    assert (zeros["w"].shape, zeros["w"].dtype) == ((2, 3), dtype)
    assert not zeros["w"].any()


def test_variates_move_to_where_the_parameters_are():
    """Meta tensors have no values: an operation on them beside real ones raises."""
    variates = ControlVariates(SERVER, OWN)
    variates.to(torch.device("meta"))
    parameters = {
        name: torch.nn.Parameter(torch.zeros(shape, device="meta"))
        for name, shape in SHAPES.items()
    }
    for parameter in parameters.values():
        parameter.grad = torch.zeros_like(parameter)
    variates.correct(parameters)
    following, change = variates.close()
    assert {tensor.device.type for tensor in (following | change).values()} == {"meta"}
