"""Older formats of real datasets, converted by lerobot's own converter."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lerobot.datasets.dataset_metadata import CODEBASE_VERSION

from tests.data.hub_server import content_of
from tests.so100.make import Spec, make
from tests.so100.old_formats import as_v20, as_v21
from tests.so100.recording import read
from zk0.data import formats
from zk0.data.formats import _key, missing, read_info, ready
from zk0.errors import Zk0Error


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("v30") / "arm", Spec(episodes=(20, 15, 25)))


@pytest.fixture(scope="module")
def old(new: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in v2.1; not to be written to."""
    return as_v21(new, tmp_path_factory.mktemp("v21") / "arm")


@pytest.fixture
def copy(old: Path, tmp_path: Path) -> Path:
    return shutil.copytree(old, tmp_path / "copy")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ZK0_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "meta" / "info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_the_format_that_is_read_is_lerobots() -> None:
    from lerobot.scripts import convert_dataset_v21_to_v30 as converter

    assert formats.READ == CODEBASE_VERSION == converter.V30
    assert formats.CONVERTED == converter.V21
    assert converter.__name__ == formats._CONVERTER


def test_the_newest_format_is_taken_as_it_is(new: Path, home: Path) -> None:
    assert ready(new, "arm") == new
    assert not home.exists()


def test_a_converted_dataset_is_the_same_and_its_source_untouched(
    new: Path, old: Path, home: Path, lines: list[str]
) -> None:
    before = content_of(old)
    folder = ready(old, "arm")
    assert folder.parent == home / "converted"
    assert lines == ["INFO arm: converting format v2.1 to v3.0, this once\n"]
    assert content_of(old) == before
    assert not any(path.is_symlink() for path in folder.rglob("*"))
    assert [path.name for path in folder.parent.iterdir() if path.is_dir()] == [folder.name]
    for made, kept in zip(read(folder).episodes, read(new).episodes, strict=True):
        assert np.array_equal(made.states, kept.states)
        assert np.array_equal(made.actions, kept.actions)
        assert made.task == kept.task
        for camera, image in made.images.items():
            for frame in range(len(made)):
                assert np.array_equal(image(frame), kept.images[camera](frame))


def test_it_is_converted_once_for_all_who_ask(
    old: Path, copy: Path, home: Path, lines: list[str]
) -> None:
    with ThreadPoolExecutor(3) as pool:
        folders = set(pool.map(lambda folder: ready(folder, "arm"), [old, copy, old]))
    assert len(folders) == 1
    assert len(lines) == 1


def test_other_contents_are_another_dataset(old: Path, copy: Path) -> None:
    assert _key(copy) == _key(old)
    edit(copy, robot_type="another")
    changed = _key(copy)
    next(copy.rglob("*.mp4")).write_bytes(b"x")
    assert len({_key(old), changed, _key(copy)}) == 3


def test_what_a_killed_conversion_left_is_not_taken_for_the_dataset(old: Path, home: Path) -> None:
    program = "from pathlib import Path; from zk0.data.formats import ready; "
    program += f"ready(Path({str(old)!r}), 'arm')"
    process = subprocess.Popen([sys.executable, "-c", program], start_new_session=True)
    while not list(home.glob("converted/*.partial/dataset")):
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    folder = ready(old, "arm")
    assert missing(folder, "arm") == []
    assert not list(home.glob("converted/*.partial"))


def test_a_failed_conversion_leaves_nothing(copy: Path, home: Path) -> None:
    video = next(copy.rglob("*episode_000001.mp4"))
    video.write_bytes(b"no video")
    with pytest.raises(Zk0Error, match=r"arm cannot be converted from format v2.1 to v3.0: .*av"):
        ready(copy, "arm")
    assert [path.suffix for path in (home / "converted").iterdir()] in ([".lock"], [])


def test_a_home_that_cannot_be_written_is_one_clear_line(
    old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("ZK0_HOME", str(tmp_path / "file"))
    with pytest.raises(Zk0Error, match=r"cannot hold the dataset in format v3\.0: Not a directory"):
        ready(old, "arm")


@pytest.mark.parametrize("part", ["data", "videos", "meta/episodes_stats.jsonl"])
def test_an_incomplete_dataset_is_refused(copy: Path, home: Path, part: str) -> None:
    if (copy / part).is_dir():
        gone = sorted((copy / part).rglob("*episode_000002*"))
    else:
        gone = [copy / part]
    for path in gone:
        path.unlink()
    absent = [path.relative_to(copy).as_posix() for path in gone]
    assert missing(copy, "arm") == absent
    more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
    with pytest.raises(Zk0Error, match=f"is incomplete: no {absent[0]}{more}. Get it anew"):
        ready(copy, "arm")
    assert not home.exists()


def test_what_the_newest_format_lacks_is_known_from_its_metadata(new: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(new, tmp_path / "copy")
    assert missing(copy, "arm") == []
    (copy / "data" / "chunk-000" / "file-000.parquet").unlink()
    shutil.rmtree(copy / "videos" / "observation.images.front")
    absent = ["data/chunk-000/file-000.parquet"]
    absent += ["videos/observation.images.front/chunk-000/file-000.mp4"]
    assert missing(copy, "arm") == absent
    shutil.rmtree(copy / "meta" / "episodes")
    assert missing(copy, "arm") == ["meta/episodes/chunk-000/file-000.parquet"]


def test_metadata_of_other_episodes_is_damage(new: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(new, tmp_path / "copy")
    edit(copy, total_episodes=4)
    with pytest.raises(Zk0Error, match="meta/episodes has 3 of 4 episodes"):
        missing(copy, "arm")
    file = copy / "meta" / "episodes" / "chunk-000" / "file-000.parquet"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(Zk0Error, match="meta cannot be read"):
        missing(copy, "arm")


@pytest.mark.parametrize(
    ("version", "messages"),
    [
        ("v2.0", ["has to become v2.1 first", "lerobot==0.3.3", "v21.convert_dataset_v20_to_v21"]),
        ("v1.6", ["v2.convert_dataset_v1_to_v2 to v2.0", "v21.convert_dataset_v20_to_v21"]),
        ("v3.1", ["v3.1 is newer than v3.0", "Update zk0"]),
        ("v4.0", ["v4.0 is newer than v3.0", "Update zk0"]),
        ("2.3.0", ["v2.3 is none that lerobot ever wrote"]),
    ],
)
def test_what_to_do_with_other_formats_is_said(
    copy: Path, version: str, messages: list[str]
) -> None:
    edit(copy, codebase_version=version)
    with pytest.raises(Zk0Error) as error:
        ready(copy, "arm")
    assert str(error.value).startswith("arm: format v")
    assert "\n" not in str(error.value)
    assert all(message in str(error.value) for message in messages)


def test_a_real_v20_dataset_is_told_the_way(new: Path, tmp_path: Path) -> None:
    with pytest.raises(Zk0Error, match=r"format v2.0 has to become v2.1 first"):
        ready(as_v20(new, tmp_path / "v20"), "arm")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "Expecting value"),
        (b"\xff\xfe{", "codec can't decode"),
        (b"[" * 100_000, "recursion"),
        (b"[]", "is no JSON object"),
        (b"{}", "codebase_version is 'None'"),
        (b'{"codebase_version": "v2.1"}', "it has no 'features'"),
        (b'{"codebase_version": "v2.1", "features": []}', "has no attribute"),
    ],
)
def test_a_damaged_info_is_one_clear_line(
    copy: Path, home: Path, content: bytes, message: str
) -> None:
    (copy / "meta" / "info.json").write_bytes(content)
    with pytest.raises(Zk0Error, match=r"info\.json is damaged; get the dataset anew: ") as error:
        ready(copy, "arm")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("total_episodes", -1, "no count"),
        ("total_episodes", True, "no count"),
        ("total_episodes", 10**12, "which cannot be"),
        ("chunks_size", "x", "no count"),
        ("data_path", None, "data_path is no pattern"),
        ("data_path", "data/{episode_index:999999999d}", "data_path is no pattern"),
        ("video_path", "{video_key.__class__}", "video_path is no pattern"),
        ("data_path", "data/{nothing}.parquet", "cannot be read: 'nothing'"),
        ("data_path", "../{episode_index:06d}.parquet", "leads out of the dataset"),
        ("video_path", "/{episode_index:06d}.mp4", "leads out of the dataset"),
    ],
)
def test_numbers_and_paths_are_checked_before_they_are_used(
    copy: Path, key: str, value: Any, message: str
) -> None:
    edit(copy, **{key: value})
    with pytest.raises(Zk0Error, match=message):
        missing(copy, "arm")


def test_a_camera_whose_name_leads_out_is_refused(copy: Path) -> None:
    edit(copy, features={"../../up": {"dtype": "video"}})
    with pytest.raises(Zk0Error, match="leads out of the dataset"):
        missing(copy, "arm")


def test_no_dataset_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(Zk0Error, match="no LeRobotDataset is in"):
        ready(tmp_path, "arm")


def test_the_counts_are_those_of_the_dataset(new: Path, old: Path) -> None:
    for folder, version in ((new, "v3.0"), (old, "v2.1")):
        info = read_info(folder, "arm")
        assert (info.version, info.episodes, info.frames) == (version, 3, 60)
        assert info.cameras == ("observation.images.front", "observation.images.wrist")
