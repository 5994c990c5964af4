"""Files that are whole for whoever looks at them."""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from zk0.errors import Zk0Error


def reserve(path: Path, size: int) -> None:
    """Allocate the blocks of a file of `size` bytes, zeros where it is longer than before: a full
    disk is an `OSError` now, not a crash when its memory map is written."""
    with path.open("ab") as file:
        os.posix_fallocate(file.fileno(), 0, size)


def write_json(path: Path | None, content: Any) -> None:
    """Where a command's `--json` says so, /dev/stdout too; raises `Zk0Error` where it cannot be
    written."""
    if path is None:
        return
    try:
        path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
    except OSError as error:
        raise Zk0Error(f"--json: {path} cannot be written ({error.strerror}).") from None


def write_whole(path: Path, content: str | bytes) -> None:
    """Replace `path` in one step, its folder made where need be; on OSError all is as it was."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")  # others may write it as well
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(partial, path)
    except OSError:
        with suppress(OSError):  # where even its folder cannot be had
            partial.unlink()
        raise
