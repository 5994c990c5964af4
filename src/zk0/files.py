"""Files that are whole for whoever looks at them."""

import os
from contextlib import suppress
from pathlib import Path


def reserve(path: Path, size: int) -> None:
    """Allocate the blocks of a file of `size` bytes, zeros where it is longer than before: a full
    disk is an `OSError` now, not a crash when its memory map is written."""
    with path.open("ab") as file:
        os.posix_fallocate(file.fileno(), 0, size)


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
