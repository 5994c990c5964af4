"""Where zk0 keeps what outlives a run."""

import os
from pathlib import Path


def home() -> Path:
    """The cache folder: `ZK0_HOME`, or `~/.cache/zk0`. It is not created here."""
    return Path(os.environ.get("ZK0_HOME") or "~/.cache/zk0").expanduser().absolute()
