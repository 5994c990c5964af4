"""Runs that have not been given the same are not compared."""

from dataclasses import replace

import pytest

from tests.comparison.fakes import CENTRALIZED, CLIENTS, CONFIG, FEDERATED
from zk0.comparison.compare import compare_runs
from zk0.errors import Zk0Error

REFUSED = {
    "client 0: touch": {"changes": {"clients": [
        {**CLIENTS[0], "fingerprint": "zz", "training_frames": 900},
        {**CLIENTS[1], "training_frames": 900},
    ]}},
    "the server's far: 400 frames, far in the first, none": {"changes": {"server": [
        {"slug": "near", "fingerprint": "near", "frames": 400}]}},
    "the budget of client 1: 500 steps in the first, 400 steps": {
        "changes": {"budget": {"steps_per_client": {"0": 500, "1": 400}, "batch_size": 32}}},
    "the budget's batch_size": {
        "changes": {"budget": {"steps_per_client": {"0": 500, "1": 500}, "batch_size": 8}}},
    "the budget of client 0: 500 steps in the first, 400 steps": {"ended": 8},
    "by the round compared": {"rounds": (0, 5)},
    "the evaluation's noise_seed": {"changes": {"evaluation": {
        "batches": 8, "batch_size": 32, "noise_seed": 1, "normalization": "h"}}},
    "the evaluated frames of far": {"first_row": 1},
    "rollouts of stack: seeds 0, 1, 2, 3, 4, 5 in the first, seeds 9": {"scene_seeds": 9},
    "the frozen backbone: not recorded in the first, abcdef012345 in": {
        "changes": {"backbone": "abcdef0123456789"}},
    "model-name: embedded in the first, lerobot": {"config": {"model-name": "lerobot/smolvla"}},
    "the same training with the same seed 0": {"kind": "federated"},
    "has not finished": {"last_event": "plan"},
}  # fmt: skip


@pytest.mark.parametrize("message", REFUSED)
def test_refuses_and_says_exactly_why(make, message: str):
    other = replace(CENTRALIZED, **REFUSED[message])
    runs = [make(FEDERATED), make(other)]
    with pytest.raises(Zk0Error) as refused:
        compare_runs(runs, ["bytes"])
    assert message in str(refused.value)
    assert str(runs[1]) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_run_that_went_on_for_longer_has_its_true_budget(make):
    longer = {"resumed": [{"after_round": 10, "config": CONFIG | {"num-server-rounds": 20}}]}
    runs = [make(FEDERATED), make(replace(FEDERATED, seed=1, ended=20, changes=longer))]
    with pytest.raises(Zk0Error, match="client 0: 500 steps in the first, 1000 steps"):
        compare_runs(runs)
