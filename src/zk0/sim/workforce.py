"""The calling side of workers: hands out jobs, passes on events, leaves nothing running."""

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from zk0.errors import Zk0Error
from zk0.sim.progress import Progress
from zk0.sim.recipes import Recipe
from zk0.sim.worker import draft_of

_GRACE = 5.0  # seconds a worker gets to end by itself

_QUIET = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "SVT_LOG": "1",  # errors only
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",  # an encoder's threads each leave an arena behind: 0.4 GB in the end
}


class Job:
    """One dataset to make."""

    def __init__(self, recipe: Recipe, folder: Path, renderer: str) -> None:
        self.recipe, self.folder, self.renderer = recipe, folder, renderer

    def to_json(self) -> str:
        content = {"recipe": self.recipe.to_json(), "folder": str(self.folder)}
        return json.dumps({**content, "renderer": self.renderer})


class Workforce:
    """Up to `size` worker processes working off jobs; as a context manager it ends them all."""

    def __init__(self, size: int, environment: Mapping[str, str]) -> None:
        self._events: queue.Queue[tuple[_Worker, dict[str, Any] | None]] = queue.Queue()
        self._workers = [_Worker({**_QUIET, **environment}, self._events) for _ in range(size)]

    def run(self, jobs: Sequence[Job], progress: Progress) -> None:
        """Do all jobs, in order, each by the next free worker; Zk0Error at the first failure."""
        waiting = list(jobs)
        for worker in self._workers:
            worker.take_next(waiting)
        while any(worker.job for worker in self._workers):
            worker, event = self._events.get()
            _tell(worker, event, progress)
            if event is not None and event["event"] == "finished":
                worker.take_next(waiting)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for worker in self._workers:
            worker.dismiss()
        for worker in self._workers:
            worker.bury()


class _Worker:
    def __init__(self, environment: Mapping[str, str], events: queue.Queue[Any]) -> None:
        self.job: Job | None = None
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", "zk0.sim.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            env={**os.environ, **environment},
            text=True,
        )
        threading.Thread(target=self._forward, args=(events,), daemon=True).start()

    def take_next(self, waiting: list[Job]) -> None:
        self.job = waiting.pop(0) if waiting else None
        if self.job is None or self._process.stdin is None:
            return
        try:
            self._process.stdin.write(self.job.to_json() + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it has died; the end of its events says so too

    def _forward(self, events: queue.Queue[Any]) -> None:
        for line in self._process.stdout or ():
            events.put((self, json.loads(line)))
        events.put((self, None))

    def obituary(self) -> str:
        status = self._process.wait()
        if status == -signal.SIGKILL:
            return "was killed (out of memory?)"
        return f"died with status {status}"

    @property
    def complaints(self) -> str:
        """What it wrote to standard error."""
        self._complaints.seek(0)
        return self._complaints.read().decode(errors="replace")

    def dismiss(self) -> None:
        try:
            if self._process.stdin is not None:
                self._process.stdin.close()  # the worker ends with its standard input
        except BrokenPipeError:
            pass

    def bury(self) -> None:
        try:
            self._process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self.job is not None:
            shutil.rmtree(draft_of(self.job.folder, self._process.pid), ignore_errors=True)
        self._complaints.close()


def _tell(worker: _Worker, event: dict[str, Any] | None, progress: Progress) -> None:
    """Pass an event on to `progress`; None, the end of a worker, is an error while it has a job."""
    if worker.job is None:
        return
    recipe = worker.job.recipe
    if event is None:
        raise _failure(
            f"the process making the dataset '{recipe.name}' in {worker.job.folder.parent} "
            f"{worker.obituary()}: run again, with less running beside it",
            worker.complaints,
        )
    match event["event"]:
        case "waiting":
            progress.note(f"dataset '{recipe.name}': waiting for the process that is making it")
        case "started":
            progress.started(recipe)
        case "episode":
            progress.advanced(recipe, event["episode"])
        case "finished":
            progress.finished(recipe, event["frames"], event["seconds"])
        case "failed":
            raise _failure(event["message"], event["details"])


def _failure(message: str, details: str) -> Zk0Error:
    error = Zk0Error(message)
    if details.strip():
        error.add_note(details)  # shown with a traceback, not in the one-line message
    return error
