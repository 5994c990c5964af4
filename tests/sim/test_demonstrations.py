"""Datasets on demand: made once, remade when outdated, and never left half-made."""

import errno
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from zk0.errors import Zk0Error
from zk0.sim import demonstrations, manifest, progress, worker
from zk0.sim.demonstrations import describe, prepare
from zk0.sim.recipes import Recipe

# A shell that runs tests in the background makes its programs ignore Ctrl-C: this one must not.
PREPARE = """
import json, signal, sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)
from zk0.sim.demonstrations import prepare
from zk0.sim.recipes import Recipe
recipe = Recipe.from_json(json.loads(sys.argv[1]))
prepare([recipe], Path(sys.argv[2]), report=lambda line: print(line, flush=True))
heavy = {"mujoco", "so101_nexus", "torch", "lerobot", "numpy"} & set(sys.modules)
assert not heavy, heavy
"""


def prepare_elsewhere(recipe: Recipe, home: Path, **options) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PREPARE, json.dumps(recipe.to_json()), str(home)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    )


def with_episodes(recipe: Recipe, episodes: int) -> Recipe:
    """The recipe's first scene alone, that often."""
    return replace(recipe, scenes=(replace(recipe.scenes[0], episodes=episodes),))


def drafts(home: Path) -> list[Path]:
    return list(home.rglob("*.draft"))


@pytest.fixture
def ready(dataset: Path, pair: Recipe, home: Path) -> Path:
    """A home in which `pair` is ready."""
    shutil.copytree(dataset, home / "datasets" / "pair")
    assert describe(pair, home).state == "ready"
    return home


def test_caller_stays_light(ready: Path, pair: Recipe) -> None:
    run = prepare_elsewhere(pair, ready)
    assert run.wait() == 0, run.stdout and run.stdout.read()


def test_states(ready: Path, pair: Recipe) -> None:
    folder = ready / "datasets" / "pair"
    assert describe(replace(pair, seed=9), ready).state == "outdated"
    assert describe("far", ready) == demonstrations.Status(
        "far", "missing", ready / "datasets" / "far"
    )
    video = next(folder.rglob("*.mp4"))
    video.rename(video.with_suffix(".gone"))
    assert describe(pair, ready).state == "outdated"
    (folder / manifest.NAME).write_text('["not", "ours"]')
    assert describe(pair, ready).state == "outdated"


def test_remaking_survives_being_killed(ready: Path, pair: Recipe) -> None:
    changed = with_episodes(replace(pair, seed=9), 500)
    run = prepare_elsewhere(changed, ready, start_new_session=True)
    while not any(list(draft.rglob("*.mp4")) for draft in drafts(ready)):
        assert run.poll() is None
        time.sleep(0.05)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    assert drafts(ready)
    assert describe(pair, ready).state == "ready"  # what was there is untouched

    few = with_episodes(changed, 1)
    prepare([few], ready, report=lambda line: None)
    assert describe(few, ready).state == "ready"
    content = manifest.read(ready / "datasets" / "pair")
    assert [episode["seed"] for episode in content["episodes"]] == [9]
    assert not drafts(ready)


def test_workers_end_when_the_caller_is_killed(pair: Recipe, home: Path) -> None:
    run = prepare_elsewhere(with_episodes(pair, 500), home, start_new_session=True)
    while not drafts(home):
        assert run.poll() is None
        time.sleep(0.05)
    run.kill()
    run.wait()
    deadline = time.monotonic() + 20
    while drafts(home) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not drafts(home)


def test_interrupted_leaves_nothing(pair: Recipe, home: Path) -> None:
    many = with_episodes(pair, 500)
    run = prepare_elsewhere(many, home, start_new_session=True)
    while not drafts(home):
        assert run.poll() is None
        time.sleep(0.05)
    os.killpg(run.pid, signal.SIGINT)
    assert run.wait(timeout=20) != 0
    assert not drafts(home)
    assert describe(many, home).state == "missing"


def test_two_at_once_make_one_and_a_third_finds_it(
    tiny: Recipe, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [prepare_elsewhere(tiny, home) for _ in range(2)]
    outputs = [run.communicate()[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], outputs
    assert sum("making 1 episodes" in output for output in outputs) == 1
    assert describe(tiny, home).state == "ready"

    monkeypatch.setattr(subprocess, "Popen", None)  # no process is needed any more
    since = time.perf_counter()
    assert prepare([tiny], home) == {"tiny": home / "datasets" / "tiny"}
    assert time.perf_counter() - since < 0.1


def test_unknown_name(home: Path) -> None:
    with pytest.raises(Zk0Error, match="did you mean 'touch'"):
        prepare(["tuch"], home)


def test_home_that_cannot_be_written(tiny: Recipe, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Zk0Error, match=r"cannot write to .*ZK0_HOME"):
        prepare([tiny], tmp_path / "file")


def test_simulator_not_installed(tiny: Recipe, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demonstrations, "find_spec", lambda name: None)
    with pytest.raises(Zk0Error, match=r"mujoco and so101_nexus.*zk0\[sim\]"):
        prepare([tiny], home)


def test_worker_killed(pair: Recipe, home: Path) -> None:
    many = with_episodes(pair, 500)

    def kill_worker(line: str) -> None:
        if "making" in line:
            while not drafts(home):
                time.sleep(0.05)
            os.kill(int(drafts(home)[0].name.split(".")[-2]), signal.SIGKILL)

    with pytest.raises(Zk0Error, match=r"'pair'.*was killed"):
        prepare([many], home, report=kill_worker)
    assert not drafts(home)


def test_disk_full(tiny: Recipe, small_disk: Path) -> None:
    with pytest.raises(Zk0Error, match=r"no space left in .*'tiny'.*ZK0_HOME") as caught:
        prepare([tiny], small_disk, report=lambda line: None)
    assert "\n" not in str(caught.value)
    assert not drafts(small_disk)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "no space left"),
        (
            RuntimeError("Encoder thread for x crashed: [Errno 28] No space left on device"),
            "no space left",
        ),
        (RuntimeError("Encoder thread for x failed: [Errno 27] File too large"), "no space left"),
        (PermissionError(errno.EACCES, "Permission denied"), "cannot be written to"),
        (ModuleNotFoundError("No module named 'mujoco'", name="mujoco"), r"zk0\[sim\]"),
        (ValueError("odd\nthing"), "ValueError: odd thing"),
        (Zk0Error("said already"), "^said already$"),
    ],
)
def test_errors_are_explained_in_a_line(
    tiny: Recipe, tmp_path: Path, error: Exception, message: str
) -> None:
    explained = worker._explain(error, tiny, tmp_path / "tiny")
    assert re.search(message, explained)
    assert "\n" not in explained


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 kB; for users who may not mount one, a limit on file sizes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if os.geteuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0:
        yield disk
        subprocess.run(["umount", str(disk)], check=True)
    else:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
        yield disk
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_bars_show_episodes(tiny: Recipe, capsys: pytest.CaptureFixture[str]) -> None:
    with progress.Bars() as bars:
        bars.started(tiny)
        bars.finished(tiny, frames=26, seconds=1.0)
    assert "1/1" in capsys.readouterr().err
