"""Differences, and the sentences that tell them."""

from dataclasses import replace

import pytest

from tests.comparison.fakes import CENTRALIZED, FEDERATED, LOCALS, seeds
from zk0.comparison.compare import compare_runs
from zk0.comparison.tables import estimate_table


def test_a_difference_that_is_there_holds_and_the_best_local_one_is_found(make):
    runs = [make(each) for fake in (FEDERATED, CENTRALIZED, *LOCALS) for each in seeds(fake)]
    found = compare_runs(runs)
    assert [group.label for group in found.groups] == [
        "federated fedprox",
        "centralized",
        "local 0 touch",
        "local 1 stack",
    ]
    loss = [each.sentence() for each in found.findings if each.metric == "near/loss"]
    assert "between federated fedprox and centralized no difference can be claimed" in loss[0]
    assert loss[1].startswith("near/loss: federated fedprox is lower (better) than local 0 touch")
    assert loss[1].endswith("the difference holds.")
    assert "than local 1 stack, the best of 2 local ones, by 0.29" in loss[3]
    assert [each for each in found.sentences if each.startswith("near/loss")] == [loss[0], loss[3]]
    assert not any("one seed" in note for note in found.notes)


def test_one_seed_is_said_and_its_rates_are_wilsons(make):
    found = compare_runs([make(replace(FEDERATED, skill=1.0)), make(LOCALS[0])])
    assert "local 0 touch: one seed: the interval says nothing about other seeds." in found.notes
    table = {row[0]: row[1] for row in estimate_table(found.rows)}
    assert table["touch/success (%)"] == "**100.0 (6/6) [61.0, 100.0]**"


def test_the_order_of_runs_changes_signs_alone(make):
    one, other = make(FEDERATED), make(LOCALS[0])
    forth = {each.metric: each for each in compare_runs([one, other]).findings}
    back = {each.metric: each for each in compare_runs([other, one]).findings}
    opposite = {"better": "worse", "worse": "better", "open": "open"}
    for metric, found in forth.items():
        assert back[metric].difference.estimate == pytest.approx(-found.difference.estimate)
        assert back[metric].verdict == opposite[found.verdict]
