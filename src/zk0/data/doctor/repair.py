"""A repaired copy of a dataset: bad episodes dropped, numbers derived anew."""

import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
from numpy.typing import NDArray

from zk0.data.doctor.examine import Level, examine_recording
from zk0.data.doctor.findings import Finding, in_episodes
from zk0.data.doctor.reading import read
from zk0.data.doctor.recording import Recording
from zk0.errors import Zk0Error, first_line

NUMBERS = ("counts", "indices", "timestamps")  # derived anew
DROPPED = (  # findings whose episodes are not worth keeping
    "not-finite",
    "outliers",
    "mixed-units",
    "missing-file",
    "missing-task",
    "video-undecodable",
    "video-frames",
    "video-span",
    "black-camera",
    "frozen-camera",
    "same-camera",
)
_COPIED = ("meta", "data", "videos", "README.md", "LICENSE")


@dataclass(frozen=True)
class Repair:
    """What was done to the copy, and what could not be done, in sentences."""

    done: list[str]
    not_done: list[str]


def repair(
    root: Path, slug: str, target: Path, findings: Sequence[Finding], level: Level = "quick"
) -> Repair:
    """Write the dataset in `root`, without what `findings` of `level` can be rid of, to `target`.

    The copy is there whole or not at all. Raises `Zk0Error` where `target` is there already or
    cannot be written, or where `root` cannot be repaired.
    """
    recording = read(root, slug)
    target = target.absolute()
    if target.exists():
        raise Zk0Error(f"--fix: {target} is there already. Name a folder that is not.")
    if target.resolve().is_relative_to(root.resolve()):
        raise Zk0Error(f"--fix: {target} lies in the dataset itself. Name a folder elsewhere.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as scratch:
            copy = Path(scratch) / target.name
            _copy(root, copy)
            told = _mend(copy, recording, findings, level)
            copy.rename(target)
    except pa.ArrowException as error:
        raise Zk0Error(
            f"{slug}: a column cannot be read, so that it cannot be copied: {error}. Download or "
            "record the dataset again."
        ) from error
    except OSError as error:
        raise Zk0Error(
            f"--fix: {target} cannot be written: {error.strerror or error}. Free some space or "
            "name another folder."
        ) from error
    return told


def _lengths(recording: Recording) -> NDArray[np.int64]:
    """The episodes' lengths according to the rows, or to the metadata where videos prefer those."""
    numbers = [span.episode for span in recording.spans]
    told = np.array([span.length for span in recording.spans], np.int64)
    found = np.array([len(stretch) for stretch in recording.stretches], np.int64)
    possible = [
        lengths
        for lengths in (found, told)
        if len(lengths) == len(numbers) and lengths.sum() == len(recording.columns)
        if (lengths > 0).all() and numbers == list(range(len(numbers)))
    ]
    best = max(possible, key=lambda lengths: _filmed(recording, lengths), default=None)
    if best is None or _filmed(recording, best) <= 0.5:
        raise Zk0Error(
            f"{recording.slug}: rows, metadata and videos disagree on how long the episodes are, "
            "so that nothing can be repaired. Download the dataset again or record it again."
        )
    return best


def _filmed(recording: Recording, lengths: NDArray[np.int64]) -> float:
    """The share of the clips that are as long as that; single bad episodes may disagree."""
    agree = [
        abs((clip.end - clip.start) * recording.fps - length) < 0.5
        for span, length in zip(recording.spans, lengths, strict=True)
        for clip in span.clips.values()
    ]
    return float(np.mean(agree)) if agree else 1.0


def _copy(root: Path, copy: Path) -> None:
    copy.mkdir()
    for name in _COPIED:
        if (root / name).is_dir():
            shutil.copytree(root / name, copy / name)
        elif (root / name).is_file():
            shutil.copy2(root / name, copy / name)


def _mend(copy: Path, recording: Recording, findings: Sequence[Finding], level: Level) -> Repair:
    """Repair the dataset in `copy`, which is that of `recording`, in place."""
    done, not_done = [], []
    lengths = _lengths(recording)
    if {finding.code for finding in findings} & set(NUMBERS):
        _renumber(copy, recording, lengths, range(len(lengths)))
        done.append("counts, indices and timestamps derived anew, in the order of the rows.")
        recording = read(copy, recording.slug)
        findings = examine_recording(recording, level)  # wrong counts alone spoil no episode
    if bad := _bad(findings):
        keep = [number for number in range(len(lengths)) if number not in bad]
        _renumber(copy, recording, lengths, keep)
        done.append(
            f"{in_episodes(bad)} deleted, {len(keep)} kept; a video that also holds kept episodes "
            "is left as it is."
        )
    try:
        _restate(copy)
        done.append("statistics computed anew.")
    except ValueError as error:
        not_done.append(f"statistics stay as they were: {first_line(error)}.")
    return Repair(done, not_done)


def _renumber(
    copy: Path, recording: Recording, lengths: NDArray[np.int64], keep: Sequence[int]
) -> None:
    """Only the episodes `keep`, which have these `lengths`, numbered from 0."""
    if not keep:
        raise Zk0Error(
            f"{recording.slug}: every episode has an error, so that nothing would be left. "
            "Download the dataset again or record it again."
        )
    kept = np.array(keep, np.int64)
    _renumber_rows(copy, recording, lengths, kept)
    _renumber_episodes(copy, lengths, kept)
    _remove_unused(copy, recording, keep)


def _bad(findings: Sequence[Finding]) -> set[int]:
    """Episodes with an error that only deleting them rids the dataset of."""
    return {
        episode
        for finding in findings
        if finding.severity == "error" and finding.code in DROPPED
        for episode in finding.episodes
    }


def _renumber_rows(
    copy: Path, recording: Recording, lengths: NDArray[np.int64], keep: NDArray[np.int64]
) -> None:
    """Only the rows of the episodes `keep`, numbered and timed from 0, in the files they are in."""
    episodes = np.repeat(np.arange(len(lengths)), lengths)
    frames = np.concatenate([np.arange(length) for length in lengths])
    chosen = np.isin(episodes, keep)
    columns = {
        "index": np.cumsum(chosen) - 1,
        "episode_index": np.searchsorted(keep, episodes),
        "frame_index": frames,
        "timestamp": frames / recording.fps,
    }
    start = 0
    for path, table in _tables(copy / "data"):
        rows = slice(start, start + len(table))
        for name, values in columns.items():
            table = _replaced(table, name, values[rows])
        _write(path, table.filter(pa.array(chosen[rows])))
        start = rows.stop


def _renumber_episodes(copy: Path, lengths: NDArray[np.int64], keep: NDArray[np.int64]) -> None:
    """meta/episodes and meta/info.json for the episodes `keep` with these `lengths`."""
    ends = np.cumsum(lengths[keep])
    for path, table in _tables(copy / "meta" / "episodes"):
        numbers = table["episode_index"].to_numpy()
        chosen = np.isin(numbers, keep)
        table = table.filter(pa.array(chosen))
        new = np.searchsorted(keep, numbers[chosen])
        for name, values in (
            ("episode_index", new),
            ("length", lengths[keep][new]),
            ("dataset_from_index", (ends - lengths[keep])[new]),
            ("dataset_to_index", ends[new]),
        ):
            table = _replaced(table, name, values)
        _write(path, table)
    tasks = parquet.read_metadata(copy / "meta" / "tasks.parquet").num_rows
    info = _read_json(copy / "meta" / "info.json")
    info |= {"total_episodes": len(keep), "total_frames": int(ends[-1]), "total_tasks": tasks}
    info["splits"] = {"train": f"0:{len(keep)}"}
    _write_json(copy / "meta" / "info.json", info)


def _remove_unused(copy: Path, recording: Recording, keep: Sequence[int]) -> None:
    """Remove videos of which no episode is kept."""
    files = {span.episode: {clip.file for clip in span.clips.values()} for span in recording.spans}
    used = set().union(*(files[episode] for episode in keep))
    for file in set().union(*files.values()) - used:
        (copy / file).unlink(missing_ok=True)


def _restate(copy: Path) -> None:
    """Compute all statistics of numbers anew; those of pictures are pooled from the episodes'."""
    from lerobot.datasets.compute_stats import aggregate_stats, compute_episode_stats
    from lerobot.datasets.utils import serialize_dict

    features = _read_json(copy / "meta" / "info.json")["features"]
    data = pa.concat_tables([table for _, table in _tables(copy / "data")])
    numbers = data["episode_index"].to_numpy()
    numeric = [name for name in data.column_names if _is_numeric(features.get(name))]
    columns = {name: np.array(data[name].to_pylist()) for name in numeric}
    parts = []
    for path, table in _tables(copy / "meta" / "episodes"):
        rows = table.to_pylist()
        for row in rows:
            own = {
                name: values[numbers == row["episode_index"]] for name, values in columns.items()
            }
            part = compute_episode_stats(own, {name: features[name] for name in numeric})
            parts.append(part | _of_pictures(row, features))
            row |= {
                f"stats/{name}/{key}": value
                for name, each in serialize_dict(part).items()
                for key, value in each.items()
                if f"stats/{name}/{key}" in row
            }
        _write(path, pa.Table.from_pylist(rows, schema=table.schema))
    shared = set.intersection(*(set(part) for part in parts))
    pooled = aggregate_stats([{name: part[name] for name in shared} for part in parts])
    _write_json(copy / "meta" / "stats.json", serialize_dict(pooled))


def _of_pictures(row: dict[str, Any], features: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What meta/episodes has on the pictures of an episode: by camera, by name of the statistic."""
    found: dict[str, dict[str, Any]] = {}
    for key, value in row.items():
        _, _, rest = key.partition("stats/")
        name, _, statistic = rest.rpartition("/")
        if features.get(name, {}).get("dtype") in ("video", "image") and value is not None:
            found.setdefault(name, {})[statistic] = np.array(value)
    return found


def _is_numeric(feature: Any) -> bool:
    kind = str((feature or {}).get("dtype", ""))
    return kind.startswith(("float", "int", "uint"))


def _tables(folder: Path) -> Iterator[tuple[Path, pa.Table]]:
    for path in sorted(folder.rglob("*.parquet")):
        with parquet.ParquetFile(path) as file:
            yield path, file.read()


def _replaced(table: pa.Table, name: str, values: NDArray[Any]) -> pa.Table:
    """`table` with other values in a column of numbers, of the same type."""
    place = table.schema.get_field_index(name)
    field = table.schema.field(place)
    return table.set_column(place, field, pa.array(values).cast(field.type))


def _write(path: Path, table: pa.Table) -> None:
    if len(table):
        parquet.write_table(table, path)
    else:
        path.unlink()


def _read_json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_bytes()))


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=4) + "\n")
