"""Benchmarks run: what README's figures come from, at the smallest size."""

import subprocess
import sys

import pytest

from tests.conftest import PROJECT

BENCHMARKS = PROJECT / "benchmarks"


def python(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=300, cwd=BENCHMARKS
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_they_import_is_there():
    scripts = sorted(path.stem for path in BENCHMARKS.glob("*.py"))
    assert len(scripts) > 10
    python("-c", f"import {', '.join(scripts)}")


def test_a_training_step_is_compared_with_the_ratios_last():
    options = ("--size", "tiny", "--batch-size", "2", "--steps", "1")
    said = python("train_step.py", *options).splitlines()
    assert said[-1].startswith("ratios: forward_backward ")
    loss = next(line for line in said if line.startswith("loss: "))
    theirs, ours = (float(word.strip(",")) for word in loss.split() if word[0].isdigit())
    assert theirs == pytest.approx(ours, rel=1e-5)
