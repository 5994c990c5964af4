"""Which metrics are compared, and how their values are shown."""

from dataclasses import replace

import pytest

from tests.comparison.fakes import CENTRALIZED, CLIENTS, FEDERATED
from zk0.comparison.compare import compare_runs
from zk0.comparison.metrics import FAMILIES, sample_tasks_together
from zk0.comparison.runs import read_run
from zk0.comparison.tables import estimate_table
from zk0.errors import Zk0Error
from zk0.evaluation.intervals import Interval
from zk0.record.evidence import Rollout


def test_a_bound_beyond_zero_is_not_shown_as_zero():
    family = FAMILIES["success"]
    assert family.interval(Interval(0.5, 0.0004, 0.98)) == "50.0 [0.04, 98.0]"
    assert family.interval(Interval(-0.00001, -0.2, 0.0001)) == "0.0 [-20.0, 0.0]"


def test_metrics_of_all_runs_are_compared_in_the_units_of_people(make):
    found = compare_runs([make(FEDERATED), make(CENTRALIZED)])
    assert [row.metric for row in found.rows] == [
        *("far/loss", "near/loss", "far/action-error", "near/action-error"),
        *("far/gripper-error", "near/gripper-error"),
        *("clients/success", "stack/success", "touch/success"),
        *("stack/nearest", "touch/nearest", "stack/grasped", "stack/lifted", "stack/moved"),
        *("bytes", "wall-time"),
    ]
    table = {row[0]: row[1:] for row in estimate_table(found.rows)}
    assert table["bytes (MB)"] == ["22.0", "**0.0**"]
    assert table["wall-time (s)"] == ["**60**", "**60**"]
    assert table["near/action-error (°)"][0].startswith("**3.8")
    assert any("bytes: federated fedprox is higher than centralized by 22.0 MB" in each.sentence()
               for each in found.findings)  # fmt: skip


def test_tasks_count_together_by_who_has_them():
    tasks = {
        "near-lift": [rollout("near-lift", True), rollout("near-lift", False)],
        "near-touch": [rollout("near-touch", True), rollout("near-touch", True)],
        "far": [rollout("far", False)] * 2,
        "touch": [rollout("touch", False)] * 2,
        "stack": [rollout("stack", True)] * 2,
    }
    found = dict(sample_tasks_together(tasks, ["touch", "stack"], ["near", "far"]))
    assert {name: sample.values.tolist() for name, sample in found.items()} == {
        "clients/success": [0, 0, 1, 1],
        "near/success": [1, 0, 1, 1],
    }
    assert {sample.strata for sample in found.values()} == {(2, 2)}


def test_clients_with_parts_of_a_dataset_share_its_tasks(make):
    parts = [
        {**CLIENTS[0], "training_frames": 450, "slug": f"touch-{part}of2", "client": part}
        for part in (0, 1)
    ]
    others = [{**CLIENTS[1], "training_frames": 900, "client": 2}]
    run = read_run(make(replace(FEDERATED, changes={"clients": [*parts, *others]})))
    assert len(run.samples["clients/success"].values) == 2 * FEDERATED.rollouts


def rollout(task: str, won: bool) -> Rollout:
    return Rollout(task, 0, "do", won, 30, 10, 0.01, None, None, None, 3.0)


def test_what_some_runs_lack_is_left_out_and_said(make):
    runs = [make(FEDERATED), make(replace(CENTRALIZED, rollouts=0))]
    found = compare_runs(runs)
    assert "touch/success" not in {row.metric for row in found.rows}
    assert f"touch/success is not compared: {runs[1]} has none in round 10." in found.notes
    with pytest.raises(Zk0Error, match="has none in round 10"):
        compare_runs(runs, ["success"])


@pytest.mark.parametrize(
    ("wanted", "hint"), [("near/los", "near/loss"), ("sucess", "success"), ("touch/loss", "")]
)
def test_unknown_metric_has_the_nearest_name(make, wanted: str, hint: str):
    with pytest.raises(Zk0Error, match=f"--metrics: {wanted} is not a metric.*{hint}"):
        compare_runs([make(FEDERATED), make(CENTRALIZED)], [wanted])
