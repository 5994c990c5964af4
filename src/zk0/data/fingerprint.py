"""What tells one dataset from another: SHA-256 over all that it consists of."""

import hashlib
import json
import re
from pathlib import Path

import numpy as np
from filelock import FileLock
from loguru import logger
from numpy.typing import NDArray

from zk0.files import write_whole
from zk0.paths import home

PARTS = ("meta", "data", "videos")
DIGEST = re.compile(r"[0-9a-f]{64}")


def list_files(root: Path) -> list[Path]:
    """All that a dataset consists of."""
    return sorted(path for part in PARTS for path in (root / part).rglob("*") if path.is_file())


def fingerprint(root: Path) -> str:
    """SHA-256 over the names and contents of the files in a dataset's meta, data and videos.

    Kept under `ZK0_HOME` for as long as the files have the same sizes and times, so that a large
    dataset is not read as a whole whenever it is opened.
    """
    files = list_files(root)
    kept = home() / "fingerprints" / _listing(root, files)
    try:
        known = kept.read_text()
    except FileNotFoundError:
        known = ""
    if not DIGEST.fullmatch(known):
        known = _read_all(root, files)
        _keep(kept, known)
    return known


def _keep(file: Path, known: str) -> None:
    """It only spares reading: where nothing can be written the data are read again next time."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.parent / ".lock"):
            write_whole(file, known)
    except OSError as error:
        logger.debug("{} cannot be written: {}", file, error.strerror)


def hash_episode(states: NDArray[np.float32], actions: NDArray[np.float32]) -> str:
    """SHA-256 over an episode's states and actions, each (frames, dim): the same for the same
    episode, whatever its number and dataset."""
    digest = hashlib.sha256(str(states.shape).encode())
    for values in (states, actions):
        digest.update(values.astype("<f4").tobytes())
    return digest.hexdigest()


def derived(fingerprint: str, what: object) -> str:
    """The fingerprint of something that was made from a dataset."""
    return hashlib.sha256(f"{fingerprint} {what}".encode()).hexdigest()


def _listing(root: Path, files: list[Path]) -> str:
    """A hash of where the files are, their sizes and when they were changed."""
    about = [(path, path.stat()) for path in files]
    listed = [(str(path), stat.st_size, stat.st_mtime_ns, stat.st_ino) for path, stat in about]
    return hashlib.sha256(json.dumps([str(root.resolve()), listed]).encode()).hexdigest()


def _read_all(root: Path, files: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        digest.update(str(path.relative_to(root)).encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
