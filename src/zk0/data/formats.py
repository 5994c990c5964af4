"""The formats that LeRobotDatasets come in: what belongs to each, and how older ones become v3.0.

v3.0 is read as it is. v2.1 is converted, once, by lerobot's own converter into
`ZK0_HOME/converted`; the folder that it comes from is only read.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from filelock import FileLock
from loguru import logger

from zk0.data.fingerprint import list_files
from zk0.errors import Zk0Error
from zk0.paths import home

READ, CONVERTED = "v3.0", "v2.1"
READABLE = (READ, CONVERTED)  # in the order in which they are preferred

_CONVERTER = "lerobot.scripts.convert_dataset_v21_to_v30"
_OLDER = "lerobot==0.3.3"  # the last release with the two converters that follow
_TO_V20 = "lerobot.datasets.v2.convert_dataset_v1_to_v2"
_TO_V21 = "lerobot.datasets.v21.convert_dataset_v20_to_v21"
_MOST_EPISODES = 1_000_000  # more is damage, not a dataset
# A pattern of file names as lerobot writes them: nothing of str.format but plain, padded fields.
_TEMPLATE = re.compile(r"(?:[\w./-]|\{\w+(?::0?\d)?d?\})+")


def ready(folder: Path, slug: str) -> Path:
    """`folder` where it is in format v3.0, else a v3.0 copy of it, made where there is none yet.

    Raises `Zk0Error` where meta/info.json is damaged, the format is neither v3.0 nor v2.1, files
    are missing, or the conversion fails.
    """
    return folder if readable_format(folder, slug) == READ else _converted(folder, slug)


def readable_format(folder: Path, slug: str) -> str:
    """v3.0 or v2.1, from meta/info.json alone; raises `Zk0Error` for any other."""
    found = format_of(folder, slug)
    if found not in READABLE:
        raise Zk0Error(f"{slug}: {_why_not(found)}")
    return found


def format_of(folder: Path, slug: str) -> str:
    """The format by name, such as "v2.0"; raises `Zk0Error` where meta/info.json is damaged."""
    version = str(_read_json(folder, slug).get("codebase_version"))
    found = re.fullmatch(r"v?(\d{1,3})\.(\d{1,3})(?:\.\d{1,3})?", version)
    if not found:
        raise Zk0Error(f"{_damaged(folder, slug)}: codebase_version is {version[:40]!r}.")
    return f"v{int(found[1])}.{int(found[2])}"


def _why_not(version: str) -> str:
    """Why nothing here reads the format, and what to do."""
    numbers = tuple(int(part) for part in version[1:].split("."))
    if numbers > (3, 0):
        return (
            f"format {version} is newer than {READ}, which this lerobot reads. Update zk0, or name "
            f"a revision of the dataset in {READ}."
        )
    if numbers > (2, 0):
        return f"format {version} is none that lerobot ever wrote: convert it to {READ} yourself."
    first = f"python -m {_TO_V20} to v2.0, and " if numbers < (2, 0) else ""
    return (
        f"format {version} has to become {CONVERTED} first, in an environment of its own: pip "
        f"install {_OLDER}, then {first}python -m {_TO_V21} --repo-id OWNER/NAME, which writes to "
        f"that repository on the Hub. From {CONVERTED} to {READ} zk0 converts by itself."
    )


# --- meta/info.json -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Info:
    """What meta/info.json says of a dataset in a readable format, checked."""

    version: str
    episodes: int
    frames: int
    chunk_size: int  # episodes in a folder, in v2.1
    data_path: str  # template of file names
    video_path: str  # the same; "" without cameras
    cameras: tuple[str, ...]


def read_info(folder: Path, slug: str) -> Info:
    """Raises `Zk0Error` where it is missing, damaged, or of a format that is not readable."""
    version, raw = readable_format(folder, slug), _read_json(folder, slug)
    try:
        cameras = [key for key, value in raw["features"].items() if value["dtype"] == "video"]
        return Info(
            version=version,
            episodes=_count(raw, "total_episodes"),
            frames=_count(raw, "total_frames"),
            chunk_size=max(1, _count({"chunks_size": 1000, **raw}, "chunks_size")),
            data_path=_template(raw, "data_path"),
            video_path=_template(raw, "video_path") if cameras else "",
            cameras=tuple(sorted(cameras)),
        )
    except KeyError as error:
        raise Zk0Error(f"{_damaged(folder, slug)}: it has no {error}.") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise Zk0Error(f"{_damaged(folder, slug)}: {error}.") from None


def _read_json(folder: Path, slug: str) -> dict[str, Any]:
    path = folder / "meta" / "info.json"
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise Zk0Error(f"{slug}: no LeRobotDataset is in {folder}: no meta/info.json.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise Zk0Error(f"{_damaged(folder, slug)}: {error}.") from None
    if not isinstance(content, dict):
        raise Zk0Error(f"{_damaged(folder, slug)}: it is no JSON object.")
    return content


def _damaged(folder: Path, slug: str) -> str:
    return f"{slug}: {folder / 'meta' / 'info.json'} is damaged; get the dataset anew"


def _count(raw: dict[str, Any], key: str) -> int:
    value = raw[key]
    if type(value) is not int or value < 0:
        raise ValueError(f"{key} is {value!r}, no count")
    if key == "total_episodes" and value > _MOST_EPISODES:
        raise ValueError(f"{key} is {value}, which cannot be")
    return value


def _template(raw: dict[str, Any], key: str) -> str:
    value = raw[key]
    if not isinstance(value, str) or len(value) > 200 or not _TEMPLATE.fullmatch(value):
        raise ValueError(f"{key} is no pattern of file names")
    return value


# --- which files belong to it ---------------------------------------------------------------------


def missing_metadata(folder: Path, slug: str) -> list[str]:
    """The files that say where everything else is, and that `folder` lacks; raises `Zk0Error` where
    meta/info.json cannot be read."""
    names = _metadata(folder, read_info(folder, slug).version)
    return [name for name in names if not (folder / name).is_file()]


def missing(folder: Path, slug: str) -> list[str]:
    """The files that the dataset's own metadata tells of and `folder` lacks, in order.

    Raises `Zk0Error` where the metadata that is there cannot be read, or names a file elsewhere.
    """
    if absent := missing_metadata(folder, slug):
        return absent
    info = read_info(folder, slug)
    try:
        files = _files_v30(folder, info) if info.version == READ else _files_v21(info)
        return [name for name in sorted(set(files)) if not (folder / name).is_file()]
    except (KeyError, IndexError, ValueError, TypeError, OSError) as error:
        reason = " ".join(str(error).split())
        raise Zk0Error(f"{slug}: {folder / 'meta'} cannot be read: {reason}.") from None


def _metadata(folder: Path, version: str) -> Iterable[str]:
    if version == CONVERTED:
        return ("meta/tasks.jsonl", "meta/episodes.jsonl", "meta/episodes_stats.jsonl")
    if any((folder / "meta" / "episodes").glob("*/*.parquet")):
        return ("meta/tasks.parquet",)
    return ("meta/tasks.parquet", "meta/episodes/chunk-000/file-000.parquet")


def _files_v21(info: Info) -> Iterator[str]:
    """A data file and a video of each camera for every episode."""
    for episode in range(info.episodes):
        place = {"episode_index": episode, "episode_chunk": episode // info.chunk_size}
        yield _name(info.data_path, **place)
        for camera in info.cameras:
            yield _name(info.video_path, video_key=camera, **place)


def _files_v30(folder: Path, info: Info) -> Iterator[str]:
    """The files that meta/episodes names for each episode."""
    import pyarrow.parquet as parquet

    keys = ["data", *(f"videos/{camera}" for camera in info.cameras)]
    columns = [f"{key}/{part}" for key in keys for part in ("chunk_index", "file_index")]
    table = parquet.read_table(
        sorted((folder / "meta" / "episodes").glob("*/*.parquet")), columns=columns
    )
    if len(table) < info.episodes:
        raise ValueError(f"meta/episodes has {len(table)} of {info.episodes} episodes")
    for row in table.group_by(columns).aggregate([]).to_pylist():
        for key in keys:
            template = info.data_path if key == "data" else info.video_path
            place = {part: row[f"{key}/{part}"] for part in ("chunk_index", "file_index")}
            yield _name(template, video_key=key.removeprefix("videos/"), **place)


def _name(template: str, **values: int | str) -> str:
    """The file name by `template`; raises ValueError where it leads out of the dataset."""
    name = template.format(**values)
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise ValueError(f"{name[:100]!r} leads out of the dataset")
    return name


# --- from v2.1 to v3.0 ----------------------------------------------------------------------------


def _converted(folder: Path, slug: str) -> Path:
    absent = missing(folder, slug)
    if absent:
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        raise Zk0Error(f"{slug}: {folder} is incomplete: no {absent[0]}{more}. Get it anew.")
    target = home() / "converted" / _key(folder)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            if not target.is_dir():
                _convert(folder, slug, target)
    except OSError as error:
        raise Zk0Error(
            f"{slug}: {target.parent} cannot hold the dataset in format {READ}: "
            f"{error.strerror or error}. Free some space or set ZK0_HOME to a larger disk."
        ) from error
    return target


def _key(folder: Path) -> str:
    """SHA-256 over the contents of meta/ and over the names and sizes of data and videos."""
    digest = hashlib.sha256(READ.encode())
    for path in list_files(folder):
        name = path.relative_to(folder).as_posix()
        content = path.read_bytes() if name.startswith("meta/") else path.stat().st_size
        digest.update(repr((name, content)).encode())
    return digest.hexdigest()[:32]


def _convert(folder: Path, slug: str, target: Path) -> None:
    """Make `target`, whole or not at all."""
    for left_over in target.parent.glob(f"{target.name}.*.partial"):
        shutil.rmtree(left_over, ignore_errors=True)
    logger.info("{}: converting format {} to {}, this once", slug, CONVERTED, READ)
    partial = Path(tempfile.mkdtemp(".partial", f"{target.name}.", target.parent))
    try:
        copy = _linked(folder, partial / "dataset")
        _run_converter(copy, partial, slug)
        _check_conversion(folder, copy, slug)
        copy.replace(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _linked(folder: Path, copy: Path) -> Path:
    """The dataset as folders of links: the converter renames the folder that it works on."""
    for path in list_files(folder):
        link = copy / path.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path.resolve())
    return copy


def _run_converter(copy: Path, partial: Path, slug: str) -> None:
    """In a process of its own, which asks no Hub and leaves nothing outside of `partial`."""
    call = [sys.executable, "-m", _CONVERTER, "--repo-id", "local/dataset", "--root", str(copy)]
    apart = {
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_CACHE": str(partial / "cache"),
        "TMPDIR": str(partial),
        "TQDM_DISABLE": "1",
    }
    done = subprocess.run(
        [*call, "--push-to-hub", "false"],
        env={**os.environ, **apart},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
    )
    if done.returncode:
        *_, reason = ["it says nothing", *done.stderr.strip().splitlines()]
        if done.returncode < 0:
            reason = f"ended by signal {-done.returncode}; is there too little memory?"
        raise Zk0Error(
            f"{slug} cannot be converted from format {CONVERTED} to {READ}: {reason[:300]}. "
            "Convert it where it was recorded, or remove the damaged episode there."
        )


def _check_conversion(folder: Path, copy: Path, slug: str) -> None:
    before, after = read_info(folder, slug), read_info(copy, slug)
    kept = (after.episodes, after.frames, after.cameras)
    if after.version != READ or kept != (before.episodes, before.frames, before.cameras):
        raise Zk0Error(f"{slug}: the conversion to {READ} lost episodes, frames or cameras.")
    if absent := missing(copy, slug):
        raise Zk0Error(f"{slug}: the conversion to {READ} left out {absent[0]}.")
