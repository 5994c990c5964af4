"""What the next round depends on, kept on disk so that a killed run goes on where it stopped.

`state/round_N/` holds `arrays.safetensors` (global arrays, server optimizer, control variates) and
`state.json` (all else, with the SHA-256 of the former). A folder appears whole or not at all; the
newest sound one counts.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loguru import logger
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from zk0.errors import Zk0Error, cannot_write

Arrays = Mapping[str, NDArray[Any]]
PARTS = ("arrays", "optimizer", "control")
ARRAYS, FACTS = "arrays.safetensors", "state.json"
FORMAT = 1


@dataclass(frozen=True)
class State:
    """The federation after a round: arrays by part, and facts that JSON can hold."""

    server_round: int
    arrays: Arrays
    optimizer: Arrays
    control: Arrays
    facts: Mapping[str, Any]


def save_state(run: Path, state: State, keep: int) -> None:
    """Write the state and remove all but the newest `keep`; raises `Zk0Error` on a full disk."""
    folder = run / "state" / f"round_{state.server_round}"
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _write(partial, state)
        shutil.rmtree(folder, ignore_errors=True)  # of a run that went on from an earlier round
        os.replace(partial, folder)
        _flush(folder.parent)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise cannot_write(folder, error) from error
    kept = _newest_first(run)
    later = kept[: kept.index(folder)]  # of a run that went on from an earlier round
    for old in [*later, *kept[len(later) + keep :]]:
        shutil.rmtree(old, ignore_errors=True)


def load_state(run: Path) -> State:
    """The newest state that is sound; says which ones are not. Raises `Zk0Error` without any."""
    for folder in _newest_first(run):
        try:
            return _read(folder)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            logger.warning("{} is damaged ({}): trying the one before", folder, error)
    raise Zk0Error(f"{run} has no state to resume from: start a new run.")


def _write(folder: Path, state: State) -> None:
    named = {
        f"{part}/{name}": values for part in PARTS for name, values in getattr(state, part).items()
    }
    save_file(named, folder / ARRAYS)
    content = {
        "format": FORMAT,
        "server_round": state.server_round,
        "arrays_sha256": _digest(folder / ARRAYS),
        "facts": state.facts,
    }
    text = json.dumps({"sha256": _hash_json(content), "content": content}, allow_nan=False)
    (folder / FACTS).write_text(text + "\n")
    for path in (folder / ARRAYS, folder / FACTS, folder):
        _flush(path)


def _read(folder: Path) -> State:
    whole = json.loads((folder / FACTS).read_text())
    content = whole["content"]
    if _hash_json(content) != whole["sha256"]:
        raise ValueError(f"the SHA-256 of {FACTS} is not the recorded one")
    if content["format"] != FORMAT:
        raise ValueError(f"its format is {content['format']}, not {FORMAT}")
    if _digest(folder / ARRAYS) != content["arrays_sha256"]:
        raise ValueError(f"the SHA-256 of {ARRAYS} is not the recorded one")
    parts: dict[str, dict[str, NDArray[Any]]] = {part: {} for part in PARTS}
    for key, values in load_file(folder / ARRAYS).items():
        part, _, name = key.partition("/")
        parts[part][name] = values
    return State(int(content["server_round"]), **parts, facts=content["facts"])


def _newest_first(run: Path) -> list[Path]:
    folders = [path for path in (run / "state").glob("round_*") if path.is_dir()]
    return sorted(folders, key=lambda path: int(path.name.removeprefix("round_")), reverse=True)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hash_json(content: Mapping[str, Any]) -> str:
    """Of the content, however it is laid out."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _flush(path: Path) -> None:
    """Onto the disk itself, so that a power cut does not undo it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
