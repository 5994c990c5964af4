"""The files of a LeRobotDataset v3, changed in place without lerobot's checks.

A dataset here has one file of rows and one of episodes, as small ones do.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
from lerobot.datasets.compute_stats import aggregate_stats, compute_episode_stats
from lerobot.datasets.utils import serialize_dict
from lerobot.utils.utils import flatten_dict
from numpy.typing import NDArray

from tests.so100.recording import ACTION, STATE, Recording, read, write

Columns = dict[str, NDArray[Any]]

_ROWS = Path("data/chunk-000/file-000.parquet")
_EPISODES = Path("meta/episodes/chunk-000/file-000.parquet")


def read_rows(root: Path) -> Columns:
    """All frames: each column as (frames,) or (frames, joints)."""
    table = parquet.read_table(root / _ROWS)
    return {
        name: np.array(table[name].to_pylist(), _dtype(table, name)) for name in table.schema.names
    }


def read_episodes(root: Path) -> list[dict[str, Any]]:
    """What meta/ says of each episode."""
    return parquet.read_table(root / _EPISODES).to_pylist()


def read_info(root: Path) -> dict[str, Any]:
    return json.loads((root / "meta" / "info.json").read_text())


def read_stats(root: Path) -> dict[str, Any]:
    return json.loads((root / "meta" / "stats.json").read_text())


def video(root: Path, camera: str) -> Path:
    """The mp4 of all episodes of `camera`."""
    return root / "videos" / camera / "chunk-000" / "file-000.mp4"


@contextmanager
def rows(root: Path) -> Iterator[Columns]:
    """The frames' columns, to change; they are written back in the same types."""
    columns = read_rows(root)
    yield columns
    schema = parquet.read_schema(root / _ROWS)
    arrays = [pa.array(columns[field.name].tolist(), field.type) for field in schema]
    parquet.write_table(pa.Table.from_arrays(arrays, schema=schema), root / _ROWS)


@contextmanager
def episodes(root: Path) -> Iterator[list[dict[str, Any]]]:
    """What meta/ says of each episode, to change."""
    records = read_episodes(root)
    yield records
    schema = parquet.read_schema(root / _EPISODES)
    parquet.write_table(pa.Table.from_pylist(records, schema=schema), root / _EPISODES)


@contextmanager
def info(root: Path) -> Iterator[dict[str, Any]]:
    """meta/info.json, to change."""
    content = read_info(root)
    yield content
    (root / "meta" / "info.json").write_text(json.dumps(content, indent=4))


@contextmanager
def stats(root: Path) -> Iterator[dict[str, Any]]:
    """meta/stats.json, to change."""
    content = read_stats(root)
    yield content
    (root / "meta" / "stats.json").write_text(json.dumps(content, indent=4))


def restate(root: Path) -> None:
    """Make the statistics of state and action, per episode and of all, those of the rows."""
    columns, features = read_rows(root), read_info(root)["features"]
    parts = []
    with episodes(root) as records:
        for record in records:
            chosen = columns["episode_index"] == record["episode_index"]
            values = {feature: columns[feature][chosen] for feature in (STATE, ACTION)}
            part = compute_episode_stats(values, features)
            record.update(flatten_dict(serialize_dict({"stats": part})))
            parts.append(part)
    with stats(root) as content:
        content.update(serialize_dict(aggregate_stats(parts)))


def rewrite(root: Path, change: Callable[[Recording], Recording]) -> None:
    """Write the dataset anew from its own episodes after `change`: meta, rows and videos agree.

    Pictures are encoded a second time, so that those of all episodes change a little.
    """
    with TemporaryDirectory(dir=root.parent) as folder:
        fresh = write(change(read(root)), Path(folder) / root.name)
        shutil.copy(root / "README.md", fresh)
        shutil.rmtree(root)
        fresh.rename(root)


def replace_videos(
    root: Path, cameras: Sequence[str], change: Callable[[Recording], Recording]
) -> None:
    """Only the videos of `cameras` after `change`: meta and rows stay as they were."""
    with TemporaryDirectory(dir=root.parent) as folder:
        fresh = write(change(read(root)), Path(folder) / root.name)
        for camera in cameras:
            video(fresh, camera).replace(video(root, camera))


def _dtype(table: pa.Table, name: str) -> Any:
    """Of the numbers in a column, lists or not."""
    kind = table.schema.field(name).type
    return getattr(kind, "value_type", kind).to_pandas_dtype()
