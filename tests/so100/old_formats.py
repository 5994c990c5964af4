"""The formats that lerobot wrote before v3: v2.1 and v2.0, one file of each kind per episode."""

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import av
import pyarrow.parquet as parquet
from lerobot.datasets.io_utils import load_tasks
from lerobot.utils.utils import unflatten_dict

from tests.so100.files import read_episodes, read_info, read_stats, video

_DATA = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
_VIDEO = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
_STATISTICS = ("min", "max", "mean", "std")  # quantiles came with v3


def as_v21(root: Path, folder: Path) -> Path:
    """The clean v3 dataset in `root` as v2.1 in `folder`, which must not exist.

    Pictures are the same to the bit: their packets are copied.
    """
    _common(root, folder, "v2.1")
    records = [
        {"episode_index": episode["episode_index"], "stats": _episode_statistics(episode)}
        for episode in read_episodes(root)
    ]
    _write_lines(folder / "meta" / "episodes_stats.jsonl", records)
    return folder


def as_v20(root: Path, folder: Path) -> Path:
    """The clean v3 dataset in `root` as v2.0 in `folder`: statistics of all episodes together."""
    _common(root, folder, "v2.0")
    statistics = {name: _only(each, _STATISTICS) for name, each in read_stats(root).items()}
    (folder / "meta" / "stats.json").write_text(json.dumps(statistics, indent=4))
    return folder


def _common(root: Path, folder: Path, version: str) -> None:
    """All that v2.1 and v2.0 share."""
    (folder / "meta").mkdir(parents=True)
    shutil.copy(root / "README.md", folder)
    _write_info(root, folder, version)
    tasks = load_tasks(root).sort_values("task_index")
    _write_lines(
        folder / "meta" / "tasks.jsonl",
        ({"task_index": int(row.task_index), "task": task} for task, row in tasks.iterrows()),
    )
    _write_lines(
        folder / "meta" / "episodes.jsonl",
        (_only(episode, ("episode_index", "tasks", "length")) for episode in read_episodes(root)),
    )
    _split_rows(root, folder)
    for camera in _cameras(root):
        _split_video(root, folder, camera)


def _write_info(root: Path, folder: Path, version: str) -> None:
    info = read_info(root)
    for key in ("data_files_size_in_mb", "video_files_size_in_mb"):
        del info[key]
    info |= {
        "codebase_version": version,
        "total_videos": info["total_episodes"] * len(_cameras(root)),
        "total_chunks": 1,
        "data_path": _DATA,
        "video_path": _VIDEO,
    }
    (folder / "meta" / "info.json").write_text(json.dumps(info, indent=4))


def _split_rows(root: Path, folder: Path) -> None:
    rows = parquet.read_table(root / "data" / "chunk-000" / "file-000.parquet")
    for episode in read_episodes(root):
        path = folder / _DATA.format(episode_chunk=0, episode_index=episode["episode_index"])
        path.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(rows.slice(episode["dataset_from_index"], episode["length"]), path)


def _split_video(root: Path, folder: Path, camera: str) -> None:
    """Each episode was encoded alone, so its packets stand together, a key frame first."""
    with av.open(str(video(root, camera))) as whole:
        stream = whole.streams.video[0]
        packets = [packet for packet in whole.demux(stream) if packet.size]
        for episode in read_episodes(root):
            first, end = episode["dataset_from_index"], episode["dataset_to_index"]
            number = episode["episode_index"]
            path = folder / _VIDEO.format(episode_chunk=0, video_key=camera, episode_index=number)
            path.parent.mkdir(parents=True, exist_ok=True)
            _mux(packets[first:end], stream, path)


def _mux(packets: list[Any], template: Any, path: Path) -> None:
    """Write `packets` to an mp4 that begins at 0 s."""
    start = min(packet.pts for packet in packets)
    with av.open(str(path), "w") as part:
        stream = part.add_stream_from_template(template, opaque=True)
        for packet in packets:
            packet.pts -= start
            packet.dts -= start
            packet.stream = stream
            part.mux(packet)


def _episode_statistics(episode: Mapping[str, Any]) -> dict[str, Any]:
    flat = {
        name.removeprefix("stats/"): value
        for name, value in episode.items()
        if name.startswith("stats/") and name.rpartition("/")[2] in (*_STATISTICS, "count")
    }
    return unflatten_dict(flat)


def _cameras(root: Path) -> list[str]:
    features = read_info(root)["features"]
    return [name for name, feature in features.items() if feature["dtype"] == "video"]


def _only(content: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    return {key: content[key] for key in keys}


def _write_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
