"""What a report reads of a run's folder."""

import re
from pathlib import Path

import pytest

from tests.report.fakes import Fake, rewrite
from zk0.errors import Zk0Error
from zk0.report.reading import read_record


def test_finished_run(make):
    record = read_record(make(Fake()))
    assert (record.ended, record.last, record.planned) == (True, 4, 4)
    assert record.losses["composite"][0] == pytest.approx(2.2)
    assert len(record.trained) == len(record.evaluated) == 4 * 3 - 1


def test_torn_last_line_of_a_running_federation_is_left_for_the_next_report(make):
    run = make(Fake(ended=False))
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"time": "2026-01-01T00:00:00+00:00", "ev')
    record = read_record(run)
    assert not record.ended
    assert len(record.trained) == 11


def test_what_a_resumed_run_did_over_again_counts_once(make):
    run = make(Fake(ended=False))
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    resume = '{"time": "2026-01-01T00:00:00+00:00", "event": "resume", "round": 3}\n'
    again = [line for line in lines if '"round": 4' in line and '"client": 0' in line]
    failure = '{"time": "2026-01-01T00:00:00+00:00", "event": "run-error", "reason": "full"}\n'
    (run / "metrics.jsonl").write_text("".join([*lines, failure, resume, *again]))
    record = read_record(run)
    assert [each.client for each in record.trained if each.round == 4] == [0]
    assert [each.client for each in record.trained if each.round == 3] == [0, 1, 2]


def test_run_that_has_only_begun(make):
    run = make(Fake(rounds=0, planned=4, ended=False))
    (run / "server" / "federated_metrics.json").unlink()
    (run / "metrics.jsonl").unlink()
    record = read_record(run)
    assert (record.rounds, record.last, record.seconds) == ([], 0, 0.0)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", "{", "config.json cannot be read: Expecting"),
        ("config.json", "{}", "config.json cannot be read: kind: Field required"),
        ("server/federated_metrics.json", '{"rounds": [{}]}', "0.round: Field required"),
        ("metrics.jsonl", "{}\n", "metrics.jsonl cannot be read: 'event'"),
        ("metrics.jsonl", "[\n{}\n", "metrics.jsonl cannot be read: Expecting"),
    ],
)
def test_damaged_file_is_named_in_one_line(make, name: str, content: str, message: str):
    run = make(Fake())
    (run / name).write_text(content)
    with pytest.raises(Zk0Error, match=re.escape(message)) as caught:
        read_record(run)
    assert "\n" not in str(caught.value)


def test_infinite_loss_is_refused(make):
    run = make(Fake())
    change = {"loss": float("nan"), "datasets": {}}
    rewrite(run / "server/federated_metrics.json", lambda c: c["rounds"][0].update(server=change))
    with pytest.raises(Zk0Error, match="finite number"):
        read_record(run)


def test_other_folders_are_refused(tmp_path: Path):
    with pytest.raises(Zk0Error, match="no run folder"):
        read_record(tmp_path)
