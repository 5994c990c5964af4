"""Which runs are one group, and what it is called."""

from dataclasses import replace

import pytest

from tests.comparison.fakes import CENTRALIZED, FEDERATED, seeds
from zk0.comparison.compare import compare_runs
from zk0.comparison.groups import HARMLESS
from zk0.errors import Zk0Error


def test_labels_tell_groups_apart(make):
    other = make(replace(FEDERATED, config={"proximal-mu": 0.1, "device": "cuda"}))
    dynamic = make(replace(FEDERATED, config={"preset": "dynamic"}))
    found = compare_runs([make(FEDERATED), other, dynamic], ["near/loss"])
    assert [group.label for group in found.groups] == [
        "federated fedprox proximal-mu=0.01",
        "federated fedprox proximal-mu=0.1",
        "federated fedprox dynamic",
    ]


def test_settings_that_change_no_result_do_not_split_a_group(make):
    other = dict.fromkeys(HARMLESS - {"seed"}, "other")
    runs = [make(FEDERATED), make(replace(FEDERATED, seed=1, config=other))]
    found = compare_runs(runs, ["near/loss"])
    assert found.groups[0].seeds == [0, 1]


def test_the_seeds_that_both_have_make_the_difference(make):
    first = [make(each) for each in seeds(FEDERATED)]
    second = make(replace(CENTRALIZED, seed=2))
    found = compare_runs([*first, second], ["loss"])
    assert {tuple(each.seeds) for each in found.findings} == {(2,)}
    assert any("over the seeds that both have, 2." in note for note in found.notes)
    with pytest.raises(Zk0Error, match="share no training seed"):
        compare_runs([*first, make(replace(CENTRALIZED, seed=3))])
