"""Whatever of the record meets a full disk first: the run ends with the same clear line."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from zk0.errors import Zk0Error
from zk0.record.run_folder import RunFolder

FULL = Path("/dev/full")  # every write to it fails as on a full disk

pytestmark = [
    pytest.mark.timeout(30),
    pytest.mark.skipif(not FULL.is_char_device(), reason="no device that is always full"),
]


def append(run: Path) -> None:
    (run / "metrics.jsonl").symlink_to(FULL)
    RunFolder(run).append("run-end", round=1)


def write(run: Path) -> None:
    (run / f".config.json.{os.getpid()}.partial").symlink_to(FULL)
    RunFolder(run).write("config.json", {})


@pytest.mark.parametrize(("keep", "name"), [(append, "metrics.jsonl"), (write, "config.json")])
def test_the_error_says_what_has_no_room_and_how_to_go_on(
    tmp_path: Path, keep: Callable[[Path], None], name: str
):
    message = f"{name} cannot be written: No space left on device. Free some space; a federated run"
    with pytest.raises(Zk0Error, match=message):
        keep(tmp_path)
    assert not list(tmp_path.rglob("*.partial"))
