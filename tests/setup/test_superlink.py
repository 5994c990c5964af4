"""A run reaches a SuperLink of this environment, as it is now, or none."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flower import free_ports
from zk0 import superlink
from zk0.errors import Zk0Error


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a `flower-superlink` that is running, on a port that nothing else uses."""
    (port,) = free_ports(1)
    monkeypatch.setenv("FLWR_LOCAL_SUPERLINK_HTTP_API_PORT", str(port))
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "flower"))
    script = tmp_path / "bin" / "flower-superlink"
    script.parent.mkdir()
    script.write_text("import time\ntime.sleep(60)\n")
    with subprocess.Popen([sys.executable, str(script), "--port", str(port)]) as process:
        yield script.parent
        process.kill()


def running() -> int:
    return len(list(superlink._local_superlinks()))


def test_our_own_superlink_is_left_running(scripts: Path) -> None:
    superlink.ensure_own(scripts, installed_at=0.0)
    assert running() == 1


def test_another_checkouts_superlink_is_refused(scripts: Path, tmp_path: Path) -> None:
    with pytest.raises(Zk0Error, match=r"another environment .*stop it with: kill \d+"):
        superlink.ensure_own(tmp_path / "other" / "bin", installed_at=0.0)
    assert running() == 1


def test_another_flower_home_is_refused(
    scripts: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "elsewhere"))
    with pytest.raises(Zk0Error, match="another FLWR_HOME"):
        superlink.ensure_own(scripts, installed_at=0.0)


def test_a_superlink_older_than_its_packages_is_ended(scripts: Path) -> None:
    superlink.ensure_own(scripts, installed_at=time.time() + 1)
    assert running() == 0


def test_a_superlink_with_another_environment_is_ended(
    scripts: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_MODE", os.environ.get("WANDB_MODE", "") + "-changed")
    superlink.ensure_own(scripts, installed_at=0.0)
    assert running() == 0
    assert "another WANDB_MODE" in capsys.readouterr().out
