"""`./train-fl-simulation.sh` on a terminal: the run as it stands, in place of its log."""

import re
import subprocess
import time
from collections import deque
from queue import Empty, SimpleQueue
from threading import Thread

from rich.console import Console
from rich.live import Live

from zk0.errors import Zk0Error
from zk0.flower import Run
from zk0.record.run_folder import RunFolder
from zk0.watching.follow import POLL_S, Watched
from zk0.watching.screen import TICK_S, picture

# A line of zk0's log, also with the worker's name that Ray puts before it.
SERIOUS = re.compile(r"^(\S*\(.*?\)\S* )?\d\d:\d\d:\d\d (WARNING|ERROR|CRITICAL) ")
LOOK_S = 1.0  # between looks for the run's folder
KEPT = 40  # lines that are shown after all where the run does not come to its end


class LiveRun(Run):
    """Once the clients were met, only warnings of the log pass above the live view; the folder's
    simulation.log has all of it."""

    def __init__(
        self, connection: str, environment: dict[str, str], clients: int | None = None
    ) -> None:
        super().__init__(connection, environment, clients=clients)
        self._console = Console()
        self._lines: SimpleQueue[str | None] = SimpleQueue()  # None is the end
        self._kept: deque[str] = deque(maxlen=KEPT)
        self._watched: Watched | None = None
        self._live: Live | None = None
        self._drawn = self._looked = 0.0
        self._output_dir = ""

    def follow(self, overrides: list[str], output_dir: str) -> None:
        self._output_dir = output_dir
        super().follow(overrides, output_dir)

    def start(self, overrides: list[str]) -> "subprocess.Popen[str]":
        stream = super().start(overrides)
        Thread(target=self._read, args=(stream,), daemon=True).start()
        return stream

    def _read(self, stream: "subprocess.Popen[str]") -> None:
        assert stream.stdout is not None
        for line in stream.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def show(self, stream: "subprocess.Popen[str]") -> None:
        try:
            while self._hear_all():
                self._look_for_folder()
                self._draw()
                time.sleep(POLL_S)
        finally:
            self._leave()

    def _hear_all(self) -> bool:
        """Take up the lines that are there; False at the log's end."""
        while True:
            try:
                line = self._lines.get_nowait()
            except Empty:
                return True
            if line is None:
                self._lines.put(None)  # for whoever asks again: Ctrl-C may come right now
                return False
            self.hear(line)

    def say(self, line: str) -> None:
        if self._live is None:
            super().say(line)
        elif SERIOUS.search(line):
            self._live.console.out(line, end="", highlight=False)
        else:
            self._kept.append(line)

    def _look_for_folder(self) -> None:
        """There is one once the clients were met."""
        if self._watched or self.run_id is None or time.monotonic() - self._looked < LOOK_S:
            return
        self._looked = time.monotonic()
        if folder := RunFolder.find(self._output_dir, int(self.run_id)):
            self._watched = Watched(folder.path)
            self._live = Live(console=self._console, auto_refresh=False)
            self._live.start()

    def _draw(self) -> None:
        """Where something happened, or the times on the screen are old."""
        if self._live is None or self._watched is None:
            return
        try:
            if self._watched.poll() or time.monotonic() - self._drawn >= TICK_S:
                size = self._console.size
                self._live.update(picture(self._watched, size.width, size.height - 1), refresh=True)
                self._drawn = time.monotonic()
        except Zk0Error as problem:  # the run itself may well go on
            self._kept.append(f"no live view: {problem}\n")
            self._leave()

    def _leave(self) -> None:
        """End the live view with the run as it is now; lines pass as they come from then on."""
        live, run = self._live, self._watched
        if live is None or run is None:
            return
        self._live = None
        try:
            run.poll()
            live.update(picture(run, self._console.width), refresh=True)
        except Zk0Error:
            live.update("", refresh=True)  # what was the matter has been said, or Flower says it
        live.stop()
        if not run.story.has_ended:
            super().say("".join(self._kept))
