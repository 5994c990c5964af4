"""Benchmarks run: what README's figures come from, at the smallest size."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import PROJECT

SCRIPTS = sorted((PROJECT / "benchmarks").glob("*.py"))


def run(script: str, *options: str) -> str:
    command = [sys.executable, str(PROJECT / "benchmarks" / script), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_it_says_what_it_is_for(script: Path):
    assert "usage:" in run(script.name, "--help")


def test_a_training_step_is_compared_with_the_ratios_last():
    said = run("train_step.py", "--size", "tiny", "--batch-size", "2", "--steps", "1").splitlines()
    assert said[-1].startswith("ratios: forward_backward ")
    loss = next(line for line in said if line.startswith("loss: "))
    theirs, ours = (float(word.strip(",")) for word in loss.split() if word[0].isdigit())
    assert theirs == pytest.approx(ours, rel=1e-5)
