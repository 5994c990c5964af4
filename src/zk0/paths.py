"""Where things are: what outlives a run, and what a relative path counts from."""

import os
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]


def from_project(path: str) -> Path:
    """`path`, where it is a relative one from the project's folder, whatever the current directory:
    a local SuperLink keeps the one it was first started in."""
    project = PROJECT if (PROJECT / "pyproject.toml").is_file() else Path.home()
    return project / Path(path).expanduser()


def home() -> Path:
    """The cache folder: `ZK0_HOME`, or `~/.cache/zk0`. It is not created here."""
    return Path(os.environ.get("ZK0_HOME") or "~/.cache/zk0").expanduser().absolute()
