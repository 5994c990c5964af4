"""Folders that cannot be compared because of what is in them, and which round counts."""

import json
from dataclasses import replace

import pytest

from tests.comparison.fakes import FEDERATED
from zk0.comparison.compare import compare_runs
from zk0.errors import Zk0Error


def test_round_can_be_chosen(make):
    run = replace(FEDERATED, rounds=(0, 5, 10))
    runs = [make(run), make(replace(run, kind="centralized"))]
    assert [each.chosen for each in compare_runs(runs, ["loss"], 0.95, "best").groups[0].runs] == [
        5
    ]
    assert any("best" in note for note in compare_runs(runs, ["loss"], 0.95, "best").notes)
    start = compare_runs(runs, which_round="0")
    assert start.rows[0].estimates["centralized"].interval.estimate > 1
    assert "touch/success" not in {row.metric for row in start.rows}
    with pytest.raises(Zk0Error, match=r"--round 7: .* was evaluated in 0, 5, 10"):
        compare_runs(runs, which_round="7")


def test_a_run_can_be_compared_with_its_own_start(make):
    """Which has another budget: it is a group of its own, without the end's time and bytes."""
    runs = [make(each) for each in (FEDERATED, replace(FEDERATED, seed=1))]
    starts = [run.with_name(f"{run.name}@0") for run in runs]
    found = compare_runs([*runs, *starts])
    assert [group.label for group in found.groups] == [
        "federated fedprox",
        "federated fedprox round 0",
    ]
    rows = {row.metric: row.estimates["federated fedprox round 0"].interval for row in found.rows}
    assert rows["near/loss"].estimate > 1
    assert (rows["bytes"].estimate, rows["wall-time"].estimate) == (2e6, 10)
    with pytest.raises(Zk0Error, match=r"--round 7: .* was evaluated in 0, 10"):
        compare_runs([f"{runs[0]}@7"])


@pytest.mark.parametrize("key", ["kind", "trained_on", "budget", "evaluation"])
def test_a_run_of_an_older_version_is_named(make, key: str):
    run = make(FEDERATED)
    content = json.loads((run / "config.json").read_text())
    del content[key]
    (run / "config.json").write_text(json.dumps(content))
    with pytest.raises(Zk0Error, match=f"{run} was made by an older version of zk0.* no {key}"):
        compare_runs([run])


def test_damaged_files_are_named(make):
    run = make(FEDERATED)
    events = (run / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").write_text(events[:-3])  # its last line is torn
    with pytest.raises(Zk0Error, match="has not finished"):
        compare_runs([run])
    with pytest.raises(Zk0Error, match="is no run folder"):
        compare_runs([run.parent])
    (run / "server/federated_metrics.json").write_text('{"rounds": [{"server": 3}]}')
    (run / "metrics.jsonl").write_text('{"time": "2026-01-01", "event": "run-end", "round": 10}\n')
    with pytest.raises(Zk0Error, match=r"federated_metrics.json cannot be read: 0.round"):
        compare_runs([run])
