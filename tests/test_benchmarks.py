"""Benchmarks run: what README's figures come from, at the smallest size."""

import runpy
import sys

import pytest

from tests.conftest import PROJECT

BENCHMARKS = PROJECT / "benchmarks"


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for a script in that folder: some import each other."""
    monkeypatch.syspath_prepend(BENCHMARKS)


@pytest.mark.parametrize("script", sorted(BENCHMARKS.glob("*.py")), ids=lambda path: path.stem)
def test_what_it_imports_is_there(script):
    assert "__doc__" in runpy.run_path(str(script), run_name="imported")


def test_a_training_step_is_compared_with_the_ratios_last(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    script = str(BENCHMARKS / "train_step.py")
    options = ("--size", "tiny", "--batch-size", "2", "--steps", "1")
    monkeypatch.setattr(sys, "argv", [script, *options])
    runpy.run_path(script, run_name="__main__")
    said = capsys.readouterr().out.splitlines()
    assert said[-1].startswith("ratios: forward_backward ")
    loss = next(line for line in said if line.startswith("loss: "))
    theirs, ours = (float(word.strip(",")) for word in loss.split() if word[0].isdigit())
    assert theirs == pytest.approx(ours, rel=1e-5)
