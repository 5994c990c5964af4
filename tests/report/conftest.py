"""Runs to report on."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.report.fakes import Fake


@pytest.fixture
def make(tmp_path: Path) -> Callable[[Fake], Path]:
    """Write a run, and its path."""
    paths = (tmp_path / f"run-{number}" for number in range(100))
    return lambda fake: fake.write(next(paths))
