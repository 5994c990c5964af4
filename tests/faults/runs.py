"""What a run of the fault suite is told, and what it leaves."""

import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file


@dataclass(frozen=True)
class Record:
    """What a run left in its folder."""

    path: Path

    @classmethod
    def only_one_in(cls, outputs: Path) -> "Record":
        (path,) = outputs.iterdir()
        return cls(path)

    def read(self, name: str) -> Any:
        """A JSON file, in which NaN and infinity are errors."""
        return json.loads((self.path / name).read_text(), parse_constant=_refuse)

    @property
    def rounds(self) -> list[dict[str, Any]]:
        return self.read("server/federated_metrics.json")["rounds"]

    @property
    def log(self) -> str:
        return (self.path / "simulation.log").read_text()

    def events(self, name: str) -> list[dict[str, Any]]:
        lines = (self.path / "metrics.jsonl").read_text().splitlines()
        events = [json.loads(line, parse_constant=_refuse) for line in lines]
        return [event for event in events if event["event"] == name]

    def arrays(self, server_round: int) -> NDArray[np.float32]:
        """All global arrays of a round as one."""
        named = load_file(self.path / "state" / f"round_{server_round}" / "arrays.safetensors")
        return np.concatenate([named[name].ravel() for name in sorted(named)])

    def kept_rounds(self) -> list[int]:
        """The rounds that there is a state of."""
        names = [path.name for path in (self.path / "state").glob("round_*")]
        return sorted(int(name.removeprefix("round_")) for name in names)

    def await_state(self, server_round: int, timeout: float = 20) -> None:
        deadline = time.monotonic() + timeout
        while server_round not in self.kept_rounds():
            assert time.monotonic() < deadline, f"there is no state of round {server_round}"
            time.sleep(0.05)


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} in a record")


def copy_dataset(source: Path, folder: Path) -> Path:
    """The same frames with another fingerprint."""
    shutil.copytree(source, folder)
    info = folder / "meta" / "info.json"
    info.write_text(json.dumps(json.loads(info.read_text()) | {"recorded_as": folder.name}))
    return folder


def settings(outputs: Path, **run_config: int | float | str) -> str:
    """`--run-config` for the least work that a federation can do."""
    least = {
        "local-steps": 1,
        "allow-dataset-issues": "'shared-episodes'",  # its clients have copies of one dataset
        "batch-size": 4,
        "eval-frequency": 1,
        "eval-batches": 1,
        "eval-episodes": 1,
        "rollout-episodes": 0,
        "rollout-videos": 0,
        "output-dir": f"'{outputs}'",
    }
    wanted = least | {name.replace("_", "-"): value for name, value in run_config.items()}
    return " ".join(f"{name}={value}" for name, value in wanted.items())
