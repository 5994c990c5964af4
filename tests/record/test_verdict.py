"""The sentence that a run ends with."""

import pytest

from zk0.record.verdict import judge, verdict

BETTER = {"composite": {0: 2.0, 5: 0.5, 10: 1.0}, "near": {0: 2.0, 5: 0.5, 10: 1.0}}


@pytest.mark.parametrize(
    ("successes", "said"),
    [
        ({}, ""),
        ({10: (8, 21)}, ", success in 8 of 21 rollouts"),
        ({0: (1, 21), 5: (3, 21), 10: (8, 21)}, ", success in 1 of 21 -> 8 of 21 rollouts"),
        ({0: (1, 21)}, ", success in 1 of 21 rollouts"),
    ],
)
def test_rollouts_stand_beside_the_loss(successes: dict[int, tuple[int, int]], said: str):
    assert verdict(BETTER, successes) == (
        f"policy loss 2.0000 -> 1.0000 (-50%): better than its start{said}; best in round 5 "
        "(0.5000); near 2.0000 -> 1.0000"
    )


def test_a_loss_that_rose_is_no_success_whatever_the_rollouts_say():
    worse = {"composite": {0: 1.0, 10: 2.0}}
    assert "NOT better than its start" in verdict(worse, {0: (0, 5), 10: (5, 5)})


def test_the_judgement_in_a_word():
    assert judge({0: 2.0, 1: 3.0, 2: 1.0}) == "better"
    assert judge({0: 2.0, 1: 1.0, 2: 2.0}) == "worse"
    assert judge({1: 2.0}) == judge({0: 2.0}) == judge({}) == "no verdict"
