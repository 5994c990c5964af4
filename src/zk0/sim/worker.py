"""The process that makes datasets, `python -m zk0.sim.worker`: JSON lines, jobs in, events out.

It has a process of its own because MuJoCo, torch and a video encoder do not belong in the caller's,
and because `MUJOCO_GL` has to be set before MuJoCo is imported. It ends when its standard input
does: so it never outlives the caller, however that one died.
"""

import errno
import json
import os
import queue
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from filelock import FileLock, Timeout

from zk0.errors import Zk0Error
from zk0.sim import manifest
from zk0.sim.recipes import Recipe

Send = Callable[..., None]

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FULL_IN_WORDS = ("No space left on device", "Disk quota exceeded", "File too large")
_LOCKED = {errno.EACCES, errno.EPERM, errno.EROFS}


def draft_of(folder: Path, process: int) -> Path:
    """Where a worker builds what will become `folder`."""
    return folder.with_name(f".{folder.name}.{process}.draft")


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the caller's to handle
    events = _private_stdout()

    def send(event: str, **details: Any) -> None:
        print(json.dumps({"event": event, **details}), file=events, flush=True)

    jobs: queue.Queue[dict[str, Any]] = queue.Queue()
    current: list[Path] = []
    threading.Thread(target=_listen, args=(jobs, current), daemon=True).start()
    while True:
        _do(jobs.get(), current, send)


def _private_stdout() -> TextIO:
    """Standard output for events alone: what libraries print goes to standard error."""
    events = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return events


def _listen(jobs: queue.Queue[dict[str, Any]], current: list[Path]) -> None:
    for line in sys.stdin:
        jobs.put(json.loads(line))
    for draft in current:
        shutil.rmtree(draft, ignore_errors=True)
    os._exit(0)


def _do(job: dict[str, Any], current: list[Path], send: Send) -> None:
    recipe, folder = Recipe.from_json(job["recipe"]), Path(job["folder"])
    current[:] = [draft_of(folder, os.getpid())]
    try:
        _make(recipe, folder, job["renderer"], send)
    except Exception as error:
        # Reported, not swallowed: the caller raises it.
        send("failed", message=_explain(error, recipe, folder), details=traceback.format_exc())
    finally:
        shutil.rmtree(current[0], ignore_errors=True)
        current.clear()


def _make(recipe: Recipe, folder: Path, rendering: Any, send: Send) -> None:
    with _locked(folder, send):
        if manifest.state(folder, recipe) == "ready":  # another process made it meanwhile
            send("finished", frames=manifest.read(folder)["frames"], seconds=0.0)
            return
        _sweep(folder)
        send("started")
        since = time.perf_counter()
        from zk0.sim import writer  # seconds of imports: only now that they are needed

        draft = draft_of(folder, os.getpid())
        frames: list[int] = []

        def on_episode(record: manifest.EpisodeRecord) -> None:
            frames.append(record.frames)
            send("episode", episode=len(frames))

        writer.write(recipe, draft, rendering, on_episode)
        _swap(draft, folder)
        send("finished", frames=sum(frames), seconds=time.perf_counter() - since)


@contextmanager
def _locked(folder: Path, send: Send) -> Iterator[None]:
    """Hold the dataset's lock while making it; the system frees it when its holder dies."""
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        lock.acquire(blocking=False)
    except Timeout:
        send("waiting")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _sweep(folder: Path) -> None:
    """Remove what killed workers left; under the dataset's lock nobody else is building."""
    for leftover in folder.parent.glob(f".{folder.name}.*.draft"):
        shutil.rmtree(leftover)


def _swap(draft: Path, folder: Path) -> None:
    """Put the finished draft in place of `folder`, whatever was there."""
    old = draft_of(folder, 0)
    if folder.exists():
        folder.rename(old)
    draft.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _explain(error: Exception, recipe: Recipe, folder: Path) -> str:
    """One line: what, where, how to put it right."""
    if isinstance(error, Zk0Error):
        return str(error)
    what, where = f"making the dataset '{recipe.name}'", folder.parent
    if isinstance(error, ModuleNotFoundError):
        return f"{what} needs {error.name}, which is not installed: pip install 'zk0[sim]'"
    if _is_full(error, where):
        return f"no space left in {where} while {what}: free some, or point ZK0_HOME elsewhere"
    if isinstance(error, OSError) and error.errno in _LOCKED:
        return f"{what} failed, {where} cannot be written to: point ZK0_HOME elsewhere"
    return f"{what} in {where} failed: {type(error).__name__}: {' '.join(str(error).split())}"


def _is_full(error: BaseException, where: Path) -> bool:
    """Whether a full disk lies behind an error, also one from the video encoder's thread."""
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    if any(words in str(error) for words in _FULL_IN_WORDS):
        return True
    if "Encoder thread" in str(error) and shutil.disk_usage(where).free < 2**20:
        return True
    cause = error.__cause__ or error.__context__
    return cause is not None and _is_full(cause, where)


if __name__ == "__main__":
    main()
