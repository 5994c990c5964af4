"""What may be imported by what: checked in fresh interpreters."""

import subprocess
import sys

import pytest


def loaded(statement: str, *names: str) -> set[str]:
    """Which of `names` a fresh interpreter has loaded after `statement`."""
    program = f"{statement}\nimport sys\nprint(' '.join(m for m in {names!r} if m in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120
    )
    return set(done.stdout.split())


def test_learning_needs_neither_flower_nor_mujoco():
    modules = "zk0, zk0.node, zk0.learning.prefix, zk0.learning.training, zk0.record.checkpoint"
    assert loaded(f"import {modules}", "flwr", "mujoco", "so101_nexus", "ray") == set()


@pytest.mark.parametrize("command", ["--help", "data --help", "config --help"])
def test_help_needs_no_torch(command: str):
    statement = (
        "import sys\nfrom zk0.cli import main\nsys.stdout = sys.stderr\n"
        f"sys.argv = ['zk0', *{command.split()!r}]\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "sys.stdout = sys.__stdout__"
    )
    assert loaded(statement, "torch", "flwr", "lerobot", "mujoco") == set()
