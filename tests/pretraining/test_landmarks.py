"""Landmarks as the heads have to give them, and how far off they are."""

import pytest
import torch

from zk0.pretraining.landmarks import (
    Seen,
    error_in_centimetres,
    hide_the_object,
    hits,
    in_camera,
    on_the_table,
    place_loss,
    view_loss,
)

NONE = [torch.nan] * 3
OBJECT, GOAL = [0.25, 0.05, 0.0125], [0.20, -0.05, 0.001]
# On the table, in the front camera, in the wrist camera: the goal is outside of the latter.
LANDMARKS = torch.tensor(
    [[OBJECT, GOAL, [0.30, 0.60, 0.5], [0.80, 0.10, 0.5], [0.5, 0.5, 0.1], [1.2, 0.5, 0.1]]]
)


def perfect(wanted: torch.Tensor) -> Seen:
    """What a camera's 16 tokens would say of one frame if they knew."""
    scores, places = torch.full((1, 16, 2), -20.0), torch.zeros(1, 16, 2, 3)
    for thing, (column, row, depth) in enumerate(wanted[0].tolist()):
        token = int(row * 4) * 4 + int(column * 4)
        scores[0, token, thing] = 20.0
        places[0, token, thing] = torch.tensor([column * 4 % 1, row * 4 % 1, depth / 0.2])
    return Seen(scores, places)


def test_a_camera_that_knows_has_no_loss() -> None:
    wanted = in_camera(LANDMARKS, 0)
    assert view_loss(perfect(wanted), wanted).item() == pytest.approx(0, abs=1e-4)
    assert hits(perfect(wanted), wanted) == 1.0
    blind = Seen(torch.zeros(1, 16, 2), torch.zeros(1, 16, 2, 3))
    assert view_loss(blind, wanted).item() > torch.log(torch.tensor(16.0)).item()


def test_what_is_out_of_view_costs_nothing() -> None:
    wanted = in_camera(LANDMARKS, 1)
    assert torch.isfinite(wanted[0, 0]).all()
    assert torch.isnan(wanted[0, 1]).all()
    nothing = torch.full_like(wanted, torch.nan)
    blind = Seen(torch.zeros(1, 16, 2, requires_grad=True), torch.zeros(1, 16, 2, 3))
    assert view_loss(blind, nothing).item() == 0
    view_loss(blind, nothing).backward()


def test_among_others_only_the_words_tell_the_object() -> None:
    wanted = on_the_table(LANDMARKS)
    hidden = hide_the_object(wanted, torch.tensor([True]))
    assert torch.isnan(hidden[0, 0]).all()
    assert torch.equal(hidden[0, 1], wanted[0, 1])
    assert torch.equal(hide_the_object(wanted, torch.tensor([False])), wanted)


def test_errors_are_in_centimetres_along_the_table() -> None:
    wanted = on_the_table(LANDMARKS)
    beside = LANDMARKS.clone()
    beside[0, 0] += torch.tensor([0.03, 0.04, 1.0])
    assert error_in_centimetres(on_the_table(beside), wanted) == pytest.approx(5.0, rel=1e-4)
    assert place_loss(wanted, wanted).item() == 0
    assert place_loss(on_the_table(beside), wanted).item() > 1


def test_a_missing_goal_is_left_out() -> None:
    alone = LANDMARKS.clone()
    alone[0, 1] = torch.tensor(NONE)
    wanted = on_the_table(alone)
    assert place_loss(torch.zeros_like(wanted), wanted).isfinite()
    assert place_loss(wanted.nan_to_num(), wanted).item() == 0
