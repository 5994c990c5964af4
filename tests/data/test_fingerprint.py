import os
import shutil
from pathlib import Path

from zk0.data.fingerprint import fingerprint


def test_content_counts_and_the_place_does_not(datasets: dict[str, Path], tmp_path: Path):
    copy = shutil.copytree(datasets["touch"], tmp_path / "copy")
    assert fingerprint(copy) == fingerprint(datasets["touch"]) != fingerprint(datasets["near"])
    info = copy / "meta" / "info.json"
    info.write_text(info.read_text().replace(" ", "", 1))
    assert fingerprint(copy) != fingerprint(datasets["touch"])


def test_files_are_read_once(datasets: dict[str, Path], tmp_path: Path):
    copy = shutil.copytree(datasets["touch"], tmp_path / "copy")
    before = fingerprint(copy)
    video = next(copy.rglob("*.mp4"))
    time, content = video.stat().st_mtime_ns, bytearray(video.read_bytes())
    content[-1] ^= 1
    video.write_bytes(content)
    os.utime(video, ns=(time, time))
    assert fingerprint(copy) == before  # as if nothing had happened: it was not read
    os.utime(video, ns=(time, time + 1))
    assert fingerprint(copy) != before


def test_what_is_kept_has_to_be_a_fingerprint(datasets: dict[str, Path], own_home: Path):
    wanted = fingerprint(datasets["touch"])
    kept = [path for path in (own_home / "fingerprints").glob("*") if path.read_text() == wanted]
    for path in kept:  # those of equal copies too
        path.write_text("no digest")
    assert fingerprint(datasets["touch"]) == wanted
    assert wanted in [path.read_text() for path in kept]
