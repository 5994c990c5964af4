"""`zk0 data doctor`: every planted defect is found and named, and nothing on clean data."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from numpy.typing import NDArray

from tests.so100 import files
from tests.so100.defects import DEFECTS, EPISODE, planted
from tests.so100.make import FRONT, OLD_JOINTS, WRIST, Spec, make
from tests.so100.old_formats import as_v20, as_v21
from tests.so100.recording import ACTION, STATE
from tests.test_imports import loaded
from zk0.data.doctor.doubled import check_doubled
from zk0.data.doctor.duplicates import hashes, shared
from zk0.data.doctor.examine import examine
from zk0.data.doctor.findings import Finding, in_episodes
from zk0.data.doctor.motion import check_lag, check_outliers, lag
from zk0.data.doctor.reading import read
from zk0.data.doctor.recording import Columns, Recording
from zk0.data.doctor.repair import repair
from zk0.data.joints import JOINTS, canonical, other_robot
from zk0.data.units import Range, old_calibration, recognise
from zk0.errors import Zk0Error

CODES = {  # of the findings that each planted defect leads to, at least
    "wrong_counts": "counts",
    "wrong_length": "counts",
    "index_gap": "indices",
    "frame_gap": "indices",
    "index_not_monotone": "indices",
    "timestamps_off": "timestamps",
    "timestamps_backwards": "timestamps",
    "doubled_frames": "doubled-frames",
    "one_frame_episode": "one-frame-episode",
    "duplicate_episode": "duplicate-episodes",
    "truncated_video": "video-frames",
    "missing_video": "missing-file",
    "wrong_video_length": "video-frames",
    "frozen_camera": "frozen-camera",
    "black_camera": "black-camera",
    "swapped_cameras": "swapped-cameras",
    "constant_joint": "constant-joint",
    "outlier": "outliers",
    "nan_action": "not-finite",
    "infinite_state": "not-finite",
    "radians_mixed": "mixed-units",
    "no_lag_shift": "action-lag",
    "wrong_statistics": "statistics",
    "empty_tasks": "blank-instruction",
    "no_license": "licence",
    "joints_missing_names": "unnamed-joints",
    "bimanual": "other-robot",
    "other_robot": "other-robot",
    "same_joints_other_robot": "other-robot",
    "other_order": "joint-order",
}
ON_PICTURES = {  # seen only where videos are opened
    "truncated_video",
    "wrong_video_length",
    "frozen_camera",
    "black_camera",
    "swapped_cameras",
}
IN_ONE_EPISODE = {
    "wrong_length",
    "timestamps_off",
    "timestamps_backwards",
    "doubled_frames",
    "frozen_camera",
    "black_camera",
    "outlier",
    "nan_action",
    "infinite_state",
    "radians_mixed",
}
REPAIRED = {  # --fix leaves nothing to say
    "wrong_counts",
    "wrong_length",
    "index_gap",
    "frame_gap",
    "index_not_monotone",
    "timestamps_off",
    "timestamps_backwards",
    "truncated_video",
    "wrong_video_length",
    "frozen_camera",
    "black_camera",
    "outlier",
    "nan_action",
    "infinite_state",
    "radians_mixed",
    "wrong_statistics",
}


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("clean") / "clean")


@pytest.fixture(scope="module")
def broken(clean: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a dataset with a planted defect, made once; not to be written to."""
    parent = tmp_path_factory.mktemp("broken")

    def folder(name: str) -> Path:
        return parent / name if (parent / name).exists() else planted(name, clean, parent / name)

    return folder


@pytest.fixture
def copied(clean: Path, tmp_path: Path) -> Path:
    """A copy of the clean dataset to spoil."""
    return Path(shutil.copytree(clean, tmp_path / "copied"))


def codes(findings: list[Finding]) -> set[str]:
    return {finding.code for finding in findings}


def serious(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.severity != "note"]


# --- findings ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(CODES))
def test_a_planted_defect_is_found(name: str, broken: Callable[[str], Path]):
    found = examine(broken(name), name)
    assert CODES[name] in codes(found), found
    assert all(each.dataset == name and each.message and each.fix for each in found)


def test_every_planted_defect_has_an_expected_code():
    assert set(CODES) == set(DEFECTS)


@pytest.mark.parametrize("name", sorted(set(CODES) - ON_PICTURES))
def test_what_needs_no_pictures_is_found_without(name: str, broken: Callable[[str], Path]):
    assert CODES[name] in codes(examine(broken(name), name, "cheap"))


@pytest.mark.parametrize("name", sorted(IN_ONE_EPISODE))
def test_the_episode_is_named(name: str, broken: Callable[[str], Path]):
    (first, *_) = (f for f in examine(broken(name), name) if f.code == CODES[name])
    assert first.episodes == (EPISODE,)
    assert f"episode {EPISODE}" in first.message


@pytest.mark.parametrize(
    "spec",
    [
        Spec(),
        Spec(seed=3, episodes=(90, 60, 30), tasks=("pick", "place")),
        Spec(codec="h264", fps=10, episodes=(20, 30)),
        Spec(units="normalised", robot_type="so100", cameras={FRONT: (64, 48)}),
    ],
    ids=["default", "long", "h264", "normalised"],
)
def test_clean_data_have_no_findings(spec: Spec, tmp_path: Path):
    made = make(tmp_path / "made", spec)
    assert [examine(made, "made", level) for level in ("cheap", "quick", "thorough")] == [[]] * 3


@pytest.mark.parametrize("name", ["touch", "picklift", "near", "far"])
def test_the_embedded_world_is_healthy(name: str, datasets: dict[str, Path]):
    for level in ("cheap", "quick", "thorough"):
        assert serious(examine(datasets[name], name, level)) == []


def test_thorough_sees_what_lies_between_samples(copied: Path):
    """A damaged packet in the middle of one episode, which no sampled frame needs."""
    import av

    video = files.video(copied, FRONT)
    with av.open(str(video)) as container:
        packets = [p for p in container.demux(container.streams.video[0]) if p.pts is not None]
        spoilt = {packets[60].pos, packets[61].pos}
        sizes = {packet.pos: packet.size for packet in packets if packet.pos in spoilt}
    content = bytearray(video.read_bytes())
    for place, size in sizes.items():
        content[place : place + size] = bytes(size)
    video.write_bytes(content)
    found = [f for f in examine(copied, "copied", "thorough") if f.code == "video-undecodable"]
    assert [f.episodes for f in found] == [(EPISODE,)]


def test_two_cameras_with_the_same_picture(copied: Path):
    shutil.copy(files.video(copied, FRONT), files.video(copied, WRIST))
    assert "same-camera" in codes(examine(copied, "copied"))


def test_a_video_of_another_size_and_rate(copied: Path):
    with files.info(copied) as info:
        info["features"][FRONT]["shape"] = [96, 128, 3]
        info["fps"] = 20
    found = codes(examine(copied, "copied"))
    assert {"video-size", "video-fps", "timestamps"} <= found


def test_a_task_that_is_not_there(copied: Path):
    with files.rows(copied) as rows:
        rows["task_index"][-1] = 7
    (found,) = examine(copied, "copied", "cheap")
    assert (found.code, found.severity) == ("missing-task", "error")
    assert "7" in found.message


def test_clips_that_are_longer_than_their_rows_do_no_harm(copied: Path):
    with files.episodes(copied) as episodes:
        episodes[2][f"videos/{FRONT}/to_timestamp"] += 1 / 30
        episodes[0][f"videos/{FRONT}/to_timestamp"] -= 2 / 30
    found = [f for f in examine(copied, "copied", "cheap") if f.code == "video-span"]
    assert [(f.severity, f.episodes) for f in found] == [("error", (0,)), ("warning", (2,))]


def test_no_videos(copied: Path):
    with files.info(copied) as info:
        del info["features"][FRONT], info["features"][WRIST]
    assert "no-videos" in codes(examine(copied, "copied"))


def test_states_in_degrees_with_actions_in_radians(copied: Path):
    with files.rows(copied) as rows:
        rows[ACTION] = np.deg2rad(rows[ACTION])
    files.restate(copied)
    (found,) = examine(copied, "copied", "cheap")
    assert (found.code, found.message) == (
        "mixed-units",
        "states in degrees, actions in radians.",
    )


def test_a_dataset_in_radians(tmp_path: Path):
    (found,) = examine(make(tmp_path / "made", Spec(units="radians")), "made")
    assert (found.code, found.severity) == ("units-radians", "warning")


def test_old_joint_names_warn_of_the_old_calibration(tmp_path: Path):
    spec = Spec(joints=OLD_JOINTS, robot_type="so100")
    (found,) = examine(make(tmp_path / "made", spec), "made")
    assert (found.code, found.severity) == ("old-calibration", "warning")
    assert "if nobody converted them" in found.message


def test_old_calibration_shows_in_the_angles(copied: Path):
    with files.rows(copied) as rows:
        for feature in (STATE, ACTION):
            rows[feature][:, 1] = 90 - rows[feature][:, 1]
            rows[feature][:, 2] += 90
    files.restate(copied)
    (found,) = examine(copied, "copied", "cheap")
    assert found.code == "old-calibration"
    assert "shoulder_lift and elbow_flex beyond 120 degrees" in found.message


# --- motion --------------------------------------------------------------------------------------

TICK = 360 / 4096  # degrees: the encoder of an SO-101's servos


def moved(recording: Recording, states: NDArray[Any], actions: NDArray[Any]) -> Recording:
    """`recording` with other motions, as one episode at 30 frames a second."""
    count = np.arange(len(states))
    zeros = np.zeros(len(states), np.int64)
    columns = Columns(
        states.astype(np.float32),
        actions.astype(np.float32),
        count / 30,
        count,
        count,
        zeros,
        zeros,
    )
    return replace(recording, fps=30.0, columns=columns)


def human(seed: int, frames: int, slowness: float = 1.0) -> NDArray[np.float64]:
    """Minimum-jerk motions with pauses in between, as an encoder reads them; (frames, 6)."""
    random = np.random.default_rng(seed)
    parts, here = [], np.array([0, -60, 60, 0, 0, 20.0])
    while sum(map(len, parts)) < frames:
        there = here + random.normal(0, 25, 6) * (random.random(6) < 0.7)
        t = np.linspace(0, 1, int(30 * slowness * random.uniform(0.4, 1.5)))[:, None]
        parts.append(here + (there - here) * (10 * t**3 - 15 * t**4 + 6 * t**5))
        parts.append(np.repeat(there[None], random.integers(3, 30), 0))
        here = there
    return np.round(np.concatenate(parts)[:frames] / TICK) * TICK


@pytest.mark.parametrize("slowness", [1.0, 3.0])
@pytest.mark.parametrize("seed", range(4))
def test_resting_is_no_doubling(seed: int, slowness: float, clean: Path):
    """Rows of an arm that rests at the start, in the middle or at the end repeat, and may."""
    path = human(seed, 1200, slowness)
    path = np.concatenate([path[:1].repeat(60, 0), path, path[-1:].repeat(60, 0)])
    recording = moved(read(clean, "clean"), path[:-3], path[3:])
    assert (np.abs(recording.strides).max(1) == 0).mean() > 0.15
    assert list(check_doubled(recording)) == []


def test_every_fifth_row_doubled(clean: Path):
    path = np.repeat(human(0, 1200), np.where(np.arange(1200) % 5, 1, 2), 0)
    recording = moved(read(clean, "clean"), path[:-6], path[6:])
    (found,) = check_doubled(recording)
    assert (found.code, found.severity) == ("doubled-frames", "warning")


def test_doubling_of_states_alone_is_none(clean: Path):
    """A slow sensor under a fast loop repeats states; the rows themselves differ."""
    path = human(0, 1200)
    states = np.repeat(path[::2], 2, 0)
    recording = moved(read(clean, "clean"), states[:-2], path[2:])
    assert list(check_doubled(recording)) == []


def test_pictures_tell_whether_doubled_rows_are_whole(broken: Callable[[str], Path]):
    (found,) = examine(broken("doubled_frames"), "doubled")
    assert "Their pictures repeat in" in found.message


@pytest.mark.parametrize("lead", [0, 3, 15])
def test_the_lead_of_the_action_is_measured(lead: int, clean: Path):
    path = human(1, 900)
    recording = moved(read(clean, "clean"), path[20:860], path[20 + lead : 860 + lead])
    found = lag(recording)
    assert found is not None
    assert found.seconds == pytest.approx(lead / 30)
    assert list(check_lag(recording)) == []


@pytest.mark.parametrize(
    ("lead", "severity", "words"), [(-10, "error", "lag behind"), (40, "warning", "lead")]
)
def test_a_strange_lead(lead: int, severity: str, words: str, clean: Path):
    path = human(1, 900)
    recording = moved(read(clean, "clean"), path[50:850], path[50 + lead : 850 + lead])
    (found,) = check_lag(recording)
    assert (found.code, found.severity) == ("action-lag", severity)
    assert f"{words} the states by {abs(lead) / 30:.2f} s" in found.message


def test_actions_of_another_arm(clean: Path):
    recording = moved(read(clean, "clean"), human(1, 900), human(2, 900))
    (found,) = check_lag(recording)
    assert (found.code, found.severity) == ("action-unrelated", "error")


def test_a_jump_is_scaled_with_the_frame_rate(clean: Path):
    path = human(1, 300)
    path[200:, 0] += 50
    recording = moved(read(clean, "clean"), path, path)
    assert {f.severity for f in check_outliers(recording)} == {"warning"}
    assert list(check_outliers(replace(recording, fps=10.0))) == []


# --- duplicates ----------------------------------------------------------------------------------


def test_shared_episodes_are_found_whatever_their_number(
    clean: Path, broken: Callable[[str], Path], tmp_path: Path
):
    other = make(tmp_path / "other", Spec(seed=5))
    folders = {"clean": clean, "again": broken("index_gap"), "other": other}
    (found,) = shared(read(folder, slug) for slug, folder in folders.items())
    assert (found.dataset, found.episodes) == ("again", (0, 1, 2))
    assert "also in clean" in found.message


def test_a_hash_is_of_states_and_actions_alone(clean: Path):
    rows = files.read_rows(clean)
    chosen = rows["episode_index"] == 2
    digest = hashlib.sha256(str((int(chosen.sum()), 6)).encode())
    for feature in (STATE, ACTION):
        digest.update(rows[feature][chosen].astype("<f4").tobytes())
    assert hashes(read(clean, "clean"))[2] == digest.hexdigest()


def test_files_that_are_links_are_read(clean: Path, tmp_path: Path):
    """As in the Hub's cache, where a snapshot links to blobs elsewhere."""
    for file in clean.rglob("*"):
        if file.is_file():
            link = tmp_path / file.relative_to(clean)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file)
    assert examine(tmp_path, "links") == []


def test_examining_needs_neither_torch_nor_lerobot(clean: Path):
    statement = (
        "from pathlib import Path\nfrom zk0.data.doctor.examine import examine\n"
        f"assert not examine(Path({str(clean)!r}), 'clean')"
    )
    assert loaded(statement, "torch", "lerobot", "flwr") == set()


# --- bad input -----------------------------------------------------------------------------------


def test_no_dataset_is_one_line(tmp_path: Path):
    with pytest.raises(Zk0Error, match="is not a LeRobotDataset"):
        examine(tmp_path, "none")


@pytest.mark.parametrize("convert", [as_v21, as_v20])
def test_old_formats_say_how_to_convert(convert: Callable[[Path, Path], Path], clean, tmp_path):
    (found,) = examine(convert(clean, tmp_path / "old"), "old")
    assert found.code == "format"
    assert "convert_dataset_v21_to_v30" in found.fix


@pytest.mark.parametrize(
    "file",
    [
        "data/chunk-000/file-000.parquet",
        "meta/episodes/chunk-000/file-000.parquet",
        "meta/tasks.parquet",
        "meta/info.json",
        "meta/stats.json",
    ],
)
@pytest.mark.parametrize("content", [b"", b"PAR1 and then nothing", b"[1]", b'{"fps": "x"}'])
def test_an_unreadable_file_is_a_finding(file: str, content: bytes, copied: Path):
    (copied / file).write_bytes(content)
    found = examine(copied, "copied")
    errors = {each.code for each in found if each.severity == "error"}
    assert errors <= {"unreadable-file", "format", "statistics"}
    assert serious(found)


@pytest.mark.parametrize("column", [STATE, "timestamp", "task_index"])
def test_a_missing_column_is_a_finding(column: str, copied: Path):
    path = copied / "data/chunk-000/file-000.parquet"
    parquet.write_table(parquet.read_table(path).drop_columns([column]), path)
    (found,) = examine(copied, "copied")
    assert (found.code, column in found.message) == ("missing-column", True)


def test_rows_of_different_lengths_are_a_finding(copied: Path):
    path = copied / "data/chunk-000/file-000.parquet"
    table = parquet.read_table(path)
    ragged = [[1.0] * 6] * (len(table) - 1) + [[1.0] * 5]
    place = table.schema.get_field_index(STATE)
    ragged_column = pa.array(ragged, pa.list_(pa.float32()))
    parquet.write_table(table.set_column(place, STATE, ragged_column), path)
    (found,) = examine(copied, "copied")
    assert found.code == "columns"


@pytest.mark.parametrize(
    "template",
    ["../../{video_key}.mp4", "/etc/passwd", "videos/{video_key}/../../../../x.mp4"],
)
def test_paths_out_of_the_dataset_are_refused(template: str, copied: Path):
    with files.info(copied) as info:
        info["video_path"] = template
    (found,) = examine(copied, "copied")
    assert (found.code, found.severity) == ("path-outside", "error")


def test_a_template_is_filled_in_and_not_formatted(copied: Path):
    """str.format would reach attributes, and make strings as long as it is told."""
    with files.info(copied) as info:
        info["video_path"] = "videos/{video_key.__class__}/{chunk_index:0999999999d}.mp4"
    (found,) = serious(examine(copied, "copied", "cheap"))
    assert found.code == "missing-file"
    assert "__class__}" in found.message


@pytest.mark.parametrize("field", ["fps", "features", "total_frames", "data_path", "robot_type"])
@pytest.mark.parametrize("value", [None, -1, "x", [], {"a": 1}, float("nan"), True])
def test_strange_metadata_are_findings(field: str, value: Any, copied: Path):
    with files.info(copied) as info:
        info[field] = value
    findings = examine(copied, "copied")
    assert field == "robot_type" or serious(findings)
    for found in findings:
        assert "\n" not in found.message + found.fix
        assert json.loads(json.dumps(found.to_json(), allow_nan=False))["code"] == found.code


def test_rows_out_of_order_are_findings(copied: Path):
    with files.rows(copied) as rows:
        order = np.random.default_rng(0).permutation(len(rows["index"]))
        for name, values in rows.items():
            rows[name] = values[order]
    assert {"indices", "counts"} <= codes(examine(copied, "copied", "thorough"))


# --- pure functions ------------------------------------------------------------------------------


def test_names_of_joints():
    assert canonical(["main_shoulder_pan", "gripper.pos", "elbow_flex"]) == (
        "shoulder_pan",
        "gripper",
        "elbow_flex",
    )


@pytest.mark.parametrize(
    ("names", "dimension", "kind", "reason"),
    [
        (JOINTS, 6, "so101_follower", None),
        (JOINTS, 6, None, None),
        (None, 6, "SO-100", None),
        (JOINTS, 6, "koch_follower", "koch_follower"),
        (None, 6, "bi_so100_follower", "two arms"),
        (None, 12, None, "two arms"),
        ([f"{side}_{joint}" for side in ("left", "right") for joint in JOINTS[:3]], 6, None, "two"),
        (None, 7, "panda", "7 joints"),
        ([*JOINTS, *(f"{joint}.vel" for joint in JOINTS)], 12, "so101", "12 joints"),
        (["x", *JOINTS[1:]], 6, "so100", "has not: x"),
    ],
)
def test_other_robots(names, dimension: int, kind: str | None, reason: str | None):
    found = other_robot(names, dimension, kind)
    assert (found is None) == (reason is None)
    if reason is not None:
        assert reason in found


def spans(*ends: tuple[float, float]) -> dict[str, Range]:
    found = zip(JOINTS, ends, strict=False)
    return {joint: Range(low, high, low, high) for joint, (low, high) in found}


@pytest.mark.parametrize(
    ("found", "name", "certain"),
    [
        (spans((-60, 60), (-104, 0), (0, 95), (-80, 80), (-150, 150)), "degrees", True),
        (spans((-60, 60), (-99, 0), (0, 95), (-80, 80), (-60, 60)), "degrees", False),
        (spans((-60, 60), (-100, 0), (0, 100), (-80, 80), (-60, 60)), "normalised", True),
        (spans((-1, 1), (-1.7, 0), (0, 1.6), (-1.5, 1.5), (-3.1, 3.1)), "radians", True),
        (spans(*[(10.0, 10.1)] * 5), "unknown", False),
        ({}, "unknown", False),
    ],
)
def test_units(found: dict[str, Range], name: str, certain: bool):
    units = recognise(found)
    assert (units.name, units.certain) == (name, certain)


def test_a_folded_arm_shows_the_old_calibration():
    assert old_calibration(spans((-60, 60), (0, 190), (0, 187))) == ("shoulder_lift", "elbow_flex")
    assert old_calibration(spans((-60, 60), (-100, 100), (-97, 97))) == ()


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ([3], "episode 3"),
        ([0, 1, 2, 9], "episodes 0-2, 9"),
        (range(0, 40, 2), "episodes 0, 2, 4, 6, 8, 10, 12, 14 and 12 more"),
    ],
)
def test_episodes_in_words(numbers, words: str):
    assert in_episodes(numbers) == words


# --- repair --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(REPAIRED))
def test_a_repaired_copy_is_healthy(name: str, broken: Callable[[str], Path], tmp_path: Path):
    source, target = broken(name), tmp_path / "repaired"
    before = fingerprint(source)
    told = repair(source, name, target, examine(source, name))
    assert told.done
    assert examine(target, "repaired", "thorough") == []
    assert fingerprint(source) == before
    dataset = LeRobotDataset("local/repaired", root=target, video_backend="pyav")
    assert [int(dataset[i]["index"]) for i in range(len(dataset))] == list(range(len(dataset)))


def test_a_repaired_copy_keeps_the_good_episodes(broken: Callable[[str], Path], tmp_path: Path):
    source, target = broken("nan_action"), tmp_path / "repaired"
    repair(source, "nan", target, examine(source, "nan"))
    before, after = files.read_rows(source), files.read_rows(target)
    kept = before["episode_index"] != EPISODE
    for feature in (STATE, ACTION):
        np.testing.assert_array_equal(after[feature], before[feature][kept])
    old = LeRobotDataset("local/old", root=source, video_backend="pyav")
    new = LeRobotDataset("local/new", root=target, video_backend="pyav")
    assert (old[100][FRONT] == new[60][FRONT]).all()  # of episode 2, after one of 40 frames


def test_videos_decide_between_rows_and_metadata(copied: Path, tmp_path: Path):
    """One row counts to the wrong episode, as metadata and videos agree; nothing is deleted."""
    with files.rows(copied) as rows:
        rows["episode_index"][40] = 0
    repair(copied, "copied", tmp_path / "repaired", examine(copied, "copied"))
    assert np.bincount(files.read_rows(tmp_path / "repaired")["episode_index"]).tolist() == [40] * 3


def test_nothing_is_left_where_repairing_fails(broken: Callable[[str], Path], tmp_path: Path):
    """All episodes lack a video: no copy, whole or in part."""
    source = broken("missing_video")
    with pytest.raises(Zk0Error, match="nothing would be left"):
        repair(source, "missing", tmp_path / "repaired", examine(source, "missing"))
    assert list(tmp_path.iterdir()) == []


def test_a_repair_writes_over_nothing(clean: Path, tmp_path: Path):
    with pytest.raises(Zk0Error, match="is there already"):
        repair(clean, "clean", tmp_path, [])
    with pytest.raises(Zk0Error, match="lies in the dataset"):
        repair(clean, "clean", clean / "repaired", [])


def fingerprint(root: Path) -> dict[str, str]:
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


# --- command -------------------------------------------------------------------------------------


def test_command_on_clean_data(zk0, clean: Path):
    status, out, _ = zk0("data", "doctor", str(clean))
    assert status == 0
    assert "no findings" in out
    assert "3 episodes, 120 frames" in out


@pytest.mark.parametrize(("name", "expected"), [("nan_action", 1), ("constant_joint", 0)])
def test_command_fails_where_there_is_an_error(zk0, name: str, expected: int, broken):
    status, out, _ = zk0("data", "doctor", f"local:{broken(name)}", "--level", "cheap")
    assert status == expected
    assert CODES[name] in out


def test_command_writes_json(zk0, clean: Path, broken, tmp_path: Path):
    file = tmp_path / "doctor.json"
    zk0("data", "doctor", str(clean), str(broken("infinite_state")), "--json", str(file))
    content = json.loads(file.read_text())
    healthy, sick = content["datasets"]
    assert healthy["findings"] == []
    assert healthy["facts"]["units"]["name"] == "degrees"
    assert healthy["facts"]["action_lead_s"] == pytest.approx(2 / 30)
    assert [each["code"] for each in sick["findings"]] == ["not-finite"]
    assert [each["episodes"] for each in content["shared"]] == [[0, 2]]


def test_command_says_what_it_repaired(zk0, broken, tmp_path: Path):
    target = tmp_path / "repaired"
    status, out, _ = zk0("data", "doctor", str(broken("outlier")), "--fix", str(target))
    assert status == 0
    assert "episode 1 deleted, 2 kept" in out
    assert "no findings" in out
    assert examine(target, "repaired") == []


def test_command_repairs_one_at_a_time(zk0, clean: Path, broken, tmp_path: Path):
    folders = str(clean), str(broken("outlier"))
    status, _, err = zk0("data", "doctor", *folders, "--fix", str(tmp_path / "repaired"))
    assert status == 1
    assert "one dataset at a time" in err


@pytest.mark.parametrize("source", ["nowhere", "sim:nowhere", "local:/nowhere", "hf:x"])
def test_command_refuses_what_is_no_source(zk0, source: str):
    status, _, err = zk0("data", "doctor", source)
    assert status == 1
    assert err.startswith("error: ")
    assert len(err.strip().splitlines()) == 1
