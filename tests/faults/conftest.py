"""Faults that a test asks for, and a SuperLink whose processes have them."""

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.flower import Flower, flower_at

INJECT = Path(__file__).parent / "inject"
Fault = Mapping[str, Any]


@dataclass(frozen=True)
class Faults:
    """The faults of the next run, in a file that its processes read."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """What a SuperLink needs, so that they happen in its runs."""
        paths = [str(INJECT), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {
            "ZK0_TEST_FAULTS": str(self.folder / "faults.json"),
            "PYTHONPATH": os.pathsep.join(paths),
            "RAY_DEDUP_LOGS": "0",  # every client's every line
        }

    def set(self, *faults: Fault) -> None:
        """From now on these and no others."""
        for mark in self.folder.glob("*.process"):
            mark.unlink()
        (self.folder / "faults.json").write_text(json.dumps(faults))

    def await_process(self, name: str, timeout: float = 90) -> str:
        """Wait until a process has come to the fault `name`; its number."""
        deadline = time.monotonic() + timeout
        while not (mark := self.folder / f"{name}.process").is_file():
            assert time.monotonic() < deadline, f"no process came to {name}"
            time.sleep(0.05)
        return mark.read_text()


@pytest.fixture(scope="session")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Faults:
    return Faults(tmp_path_factory.mktemp("faults"))


@pytest.fixture(scope="session")
def pair(
    datasets: dict[str, Path], faults: Faults, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Flower]:
    """A SuperLink with two clients, "touch" and "picklift", and faults."""
    with pair_at(tmp_path_factory.mktemp("pair"), datasets, faults.environment) as flower:
        yield flower


@pytest.fixture(scope="session")
def sound_pair(
    datasets: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Flower]:
    """The same without faults."""
    with pair_at(tmp_path_factory.mktemp("sound-pair"), datasets, {}) as flower:
        yield flower


def pair_at(
    folder: Path, datasets: Mapping[str, Path], environment: Mapping[str, str]
) -> AbstractContextManager[Flower]:
    clients, server = [datasets["touch"], datasets["picklift"]], [datasets["near"]]
    return flower_at(folder / "flower", clients, server, environment, processes=1)
