"""A dataset's files read with care: nothing outside its folder, nothing that is not checked."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as compute
import pyarrow.parquet as parquet
from numpy.typing import NDArray

from zk0.data.doctor.findings import Finding
from zk0.data.doctor.recording import Clip, Columns, Recording, Span, is_camera
from zk0.data.statistics import ACTION, STATE
from zk0.errors import Zk0Error, first_line

FORMAT = "v3."

_ALONE = ("timestamp", "index", "frame_index", "episode_index", "task_index")
_SPAN = ("episode_index", "length", "dataset_from_index", "dataset_to_index")
_PLACE = ("chunk_index", "file_index")
_FIELD = re.compile(r"\{(\w+)(?::0?(\d)d)?\}")


class Unreadable(Zk0Error):
    """A dataset that cannot be looked into any further, with the finding that says why."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(f"{finding.dataset}: {finding.message} {finding.fix}")
        self.finding = finding


@np.errstate(invalid="ignore", over="ignore")  # strange numbers become findings
def read(root: Path, slug: str) -> Recording:
    """The dataset in folder `root`.

    Raises `Zk0Error` where the folder is no dataset at all, `Unreadable` where it is a broken one.
    """
    if not (root / "meta" / "info.json").is_file():
        raise Zk0Error(f"{root} is not a LeRobotDataset (v3): it has no meta/info.json.")
    return _Reader(root, slug).recording()


class _Reader:
    """Reads one dataset; whatever is wrong is raised as `Unreadable`."""

    def __init__(self, root: Path, slug: str) -> None:
        self.root, self.slug = root, slug

    def recording(self) -> Recording:
        info = self._info()
        spans = self._spans(info)
        return Recording(
            root=self.root,
            slug=self.slug,
            fps=float(info["fps"]),
            robot_type=info.get("robot_type"),
            features=info["features"],
            totals={key: int(value) for key, value in info.items() if key.startswith("total_")},
            spans=spans,
            tasks=self._tasks(),
            statistics=self._statistics(),
            columns=self._columns(),
        )

    def _info(self) -> dict[str, Any]:
        info = self._json("meta/info.json")
        version = str(info.get("codebase_version", "none"))
        if not version.startswith(FORMAT):
            raise self._unreadable(
                "format",
                f"codebase_version is {version}, where zk0 and lerobot read v3.0.",
                "Convert it: python -m lerobot.scripts.convert_dataset_v21_to_v30.",
            )
        for problem in _problems(info):
            raise self._unreadable("info", f"meta/info.json: {problem}.", "Correct or re-record.")
        return info

    def _spans(self, info: Mapping[str, Any]) -> list[Span]:
        cameras = [key for key, each in info["features"].items() if is_camera(each)]
        paths = {key: [f"videos/{key}/{part}" for part in _PLACE] for key in cameras}
        times = {
            key: [f"videos/{key}/{end}_timestamp" for end in ("from", "to")] for key in cameras
        }
        wanted = [*_SPAN, *(f"data/{part}" for part in _PLACE)]
        wanted += [name for part in (*paths.values(), *times.values()) for name in part]
        rows = self._table("meta/episodes", wanted).to_pylist()
        try:
            spans = [self._span(info, cameras, row) for row in rows]
        except (TypeError, ValueError, OverflowError) as error:
            raise self._unreadable(
                "info",
                f"meta/episodes: {first_line(error)}.",
                "Download or copy the dataset again.",
            ) from error
        return sorted(spans, key=lambda span: span.episode)

    def _span(self, info: Mapping[str, Any], cameras: list[str], row: Mapping[str, Any]) -> Span:
        clips = {}
        for key in cameras:
            file = self._path(info, "video_path", row, f"videos/{key}", key)
            first, last = (float(row[f"videos/{key}/{end}_timestamp"]) for end in ("from", "to"))
            clips[key] = Clip(file, first, last)
        data = self._path(info, "data_path", row, "data")
        episode, length, start, end = (int(row[name]) for name in _SPAN)
        return Span(episode, length, start, end, data, clips)

    def _path(
        self,
        info: Mapping[str, Any],
        template: str,
        row: Mapping[str, Any],
        part: str,
        key: str = "",
    ) -> PurePosixPath:
        """A path in the dataset, from the metadata's template; one that leads out is refused."""
        values = {"video_key": key} | {name: int(row[f"{part}/{name}"]) for name in _PLACE}
        path = PurePosixPath(_fill(info[template], values))
        if path.is_absolute() or ".." in path.parts or not path.parts:
            raise self._unreadable(
                "path-outside",
                f'{template} of meta/info.json names "{path}", which is outside of the dataset.',
                "Do not use this dataset, or correct the path.",
            )
        return path

    def _tasks(self) -> dict[int, str]:
        table = self._parquet(self.root / "meta" / "tasks.parquet", None)
        texts = [name for name in table.column_names if name != "task_index"]
        if "task_index" not in table.column_names or not texts:
            raise self._missing("meta/tasks.parquet", ["task_index", "task"])
        numbers = self._plain(table, "task_index", np.int64)
        try:
            named = table["task" if "task" in texts else texts[0]].to_pylist()
        except ValueError as error:
            raise self._shape("task", first_line(error)) from error
        return {int(n): str(text or "") for n, text in zip(numbers, named, strict=True)}

    def _statistics(self) -> dict[str, Any] | None:
        if not (self.root / "meta" / "stats.json").is_file():
            return None
        return self._json("meta/stats.json")

    def _columns(self) -> Columns:
        table = self._table("data", [STATE, ACTION, *_ALONE])
        if not len(table):
            raise self._unreadable("counts", "the dataset has no frames.", "Record episodes.")
        times, *numbers = (
            self._plain(table, name, np.float64 if name == "timestamp" else np.int64)
            for name in _ALONE
        )
        return Columns(self._matrix(table, STATE), self._matrix(table, ACTION), times, *numbers)

    def _table(self, folder: str, wanted: list[str]) -> pa.Table:
        """Columns `wanted` of all parquet files under `folder`, one below the other."""
        files = sorted((self.root / folder).rglob("*.parquet"))
        if not files:
            raise self._unreadable(
                "missing-file", f"there is no parquet file under {folder}.", "Download it again."
            )
        return pa.concat_tables(
            [self._parquet(file, wanted) for file in files], promote_options="permissive"
        )

    def _parquet(self, path: Path, wanted: list[str] | None) -> pa.Table:
        place = path.relative_to(self.root)
        try:
            with parquet.ParquetFile(path) as file:
                if missing := [
                    name for name in wanted or () if name not in file.schema_arrow.names
                ]:
                    raise self._missing(str(place), missing)
                return file.read(columns=wanted)
        except FileNotFoundError:
            raise self._unreadable(
                "missing-file", f"{place} is missing.", "Download or copy the dataset again."
            ) from None
        except (OSError, ValueError, pa.ArrowException) as error:
            raise self._unreadable(
                "unreadable-file",
                f"{place} cannot be read: {first_line(error)}.",
                "Download or copy the dataset again.",
            ) from error

    def _json(self, name: str) -> dict[str, Any]:
        try:
            content = json.loads((self.root / name).read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise self._unreadable(
                "unreadable-file",
                f"{name} cannot be read: {first_line(error)}.",
                "Download or copy the dataset again.",
            ) from error
        if not isinstance(content, dict):
            raise self._unreadable("unreadable-file", f"{name} is no JSON object.", "Restore it.")
        return content

    def _plain(self, table: pa.Table, name: str, kind: type[np.generic]) -> NDArray[Any]:
        """A column of numbers; of lists of one number where it was written so."""
        return self._matrix(table, name, kind)[:, 0]

    def _matrix(
        self, table: pa.Table, name: str, kind: type[np.generic] = np.float32
    ) -> NDArray[Any]:
        """A column as (frames, dimensions)."""
        column = table[name].combine_chunks()
        if column.null_count:
            raise self._shape(name, f"{column.null_count} empty cells")
        try:
            if _is_list(column.type):
                widths = compute.unique(compute.list_value_length(column))
                if len(widths) != 1 or not widths[0].as_py():
                    raise self._shape(name, "rows of different or no length")
                column, width = compute.list_flatten(column), int(widths[0].as_py())
            else:
                width = 1
            values = column.to_numpy(zero_copy_only=False).astype(kind)
        except (pa.ArrowException, ValueError, TypeError) as error:
            raise self._shape(name, first_line(error)) from error
        return values.reshape(-1, width)

    def _shape(self, name: str, what: str) -> Unreadable:
        return self._unreadable("columns", f"column {name}: {what}.", "Record the dataset again.")

    def _missing(self, place: str, columns: list[str]) -> Unreadable:
        return self._unreadable(
            "missing-column",
            f"{place} has no column {', '.join(columns)}.",
            "Record again, or convert it with lerobot.",
        )

    def _unreadable(self, code: str, message: str, fix: str) -> Unreadable:
        return Unreadable(Finding(code, "error", self.slug, message, fix))


def _problems(info: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the fields of info.json that are needed."""
    checks: dict[str, Callable[[Any], bool]] = {
        "fps": lambda x: _is_number(x) and 0 < x < 10_000,
        "features": lambda x: isinstance(x, dict) and all(isinstance(f, dict) for f in x.values()),
        "total_episodes": _is_count,
        "total_frames": _is_count,
        "data_path": lambda x: isinstance(x, str),
        "robot_type": lambda x: x is None or isinstance(x, str),
    }
    for key, is_well in checks.items():
        if not is_well(info.get(key)):
            yield f"{key} is {info.get(key)!r:.60}"
            return
    for key in (STATE, ACTION):
        if key not in info["features"]:
            yield f"there is no feature {key}"
    for key, feature in info["features"].items():
        if not isinstance(feature.get("info") or {}, dict):
            yield f"info of {key} is no object"
        elif is_camera(feature) and not isinstance(info.get("video_path"), str):
            yield "there are videos, but video_path is missing"
    for key, value in info.items():
        if key.startswith("total_") and not _is_count(value):
            yield f"{key} is {value!r:.60}"


def _fill(template: str, values: Mapping[str, int | str]) -> str:
    """`template` with its fields filled in; str.format would do far more than that."""

    def one(match: re.Match[str]) -> str:
        value = str(values.get(match[1], match[0]))
        return value.zfill(int(match[2] or 0))

    return _FIELD.sub(one, template)


def _is_list(kind: pa.DataType) -> bool:
    tests = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(test(kind) for test in tests)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
