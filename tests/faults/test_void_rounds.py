"""Clients that all fail in every round end the run, with one clear line, and do not loop."""

from pathlib import Path

import pytest

from tests.faults.conftest import Faults
from tests.faults.runs import Record, settings
from tests.flower import Flower

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]


def test_a_run_without_valid_replies_ends_after_max_void_rounds(
    pair: Flower, faults: Faults, tmp_path: Path
):
    faults.set(*({"do": "raise_with_path", "slug": slug} for slug in ("touch", "picklift")))
    told = settings(tmp_path / "outputs", num_server_rounds=9, max_void_rounds=2)
    log = pair.run(told, completes=False)
    record = Record.only_one_in(tmp_path / "outputs")
    assert [each["round"] for each in record.events("void")] == [1, 2]
    assert [each.get("void") for each in record.rounds] == [None, True, True]
    assert not record.events("client-evaluate")
    line = (
        "2 rounds in a row had fewer than min-train-nodes = 2 valid replies; "
        "the last: [Errno 2] No such file or directory"
    )
    assert len([each for each in log.splitlines() if f"ERROR   {line}" in each]) == 1
