"""A run's files, read again as they grow."""

import json
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from zk0.errors import Zk0Error
from zk0.record.run_folder import CONFIG, EVENTS, ROUNDS
from zk0.watching.about import About, parse_about
from zk0.watching.events import Event, RunError, parse
from zk0.watching.story import Story, tell_all

POLL_S = 0.25


class Tail:
    """The whole lines of a file that is appended to; a torn last line waits for its end.

    A resumed run cuts a torn line off, so that only whole ones count as read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.read_lines = 0
        self._position = self._size = 0

    def read(self) -> list[bytes]:
        """Lines since the last call; none where there is no file yet. Raises `Zk0Error` where what
        was read is gone or cannot be read."""
        try:
            size = os.stat(self.path).st_size
            if size < self._position:
                raise Zk0Error(f"{self.path} became shorter: it is another file now.")
            return [] if size == self._size else self._grown()
        except FileNotFoundError:
            if self._position:
                raise Zk0Error(f"{self.path} is gone.") from None
            return []
        except OSError as error:
            raise Zk0Error(f"{self.path} cannot be read: {error.strerror}.") from error

    def _grown(self) -> list[bytes]:
        with self.path.open("rb") as file:
            file.seek(self._position)
            content = file.read()
        self._size = self._position + len(content)
        whole = content[: content.rfind(b"\n") + 1]
        self._position += len(whole)
        lines = whole.splitlines()
        self.read_lines += len(lines)
        return lines


class Document:
    """A file that is replaced as a whole now and then."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: tuple[int, int, int] | None = None

    def read(self) -> bytes | None:
        """The content where it is new since the last call. Raises `Zk0Error` where it cannot be
        read."""
        try:
            about = os.stat(self.path)
            seen = (about.st_ino, about.st_mtime_ns, about.st_size)
            if seen == self._seen:
                return None
            content = self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Zk0Error(f"{self.path} cannot be read: {error.strerror}.") from error
        self._seen = seen
        return content


class Watched:
    """A run's folder, and what it has told so far."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.story = Story()
        self.about: About | None = None  # until the clients were met
        self._events = Tail(folder / EVENTS)
        self._config = Document(folder / CONFIG)
        self._summary = Document(folder / ROUNDS)
        self._bytes: dict[int, tuple[int, int]] = {}

    def poll(self) -> list[Event]:
        """The events since the last call, which `story` has taken up. Raises `Zk0Error` where a
        file cannot be read."""
        lines = self._events.read()
        if (content := self._config.read()) is not None:
            self.about = parse_about(self._config.path, content)
        if (content := self._summary.read()) is not None:
            self._bytes = _bytes_by_round(self._summary.path, content)
        events = self._parse(lines)
        if self.about is None and any(not isinstance(event, RunError) for event in events):
            raise Zk0Error(f"{self.folder} has no {CONFIG}: it is no folder of a run.")
        self.story = tell_all(events, self.story)
        return events

    @property
    def bytes_sent(self) -> tuple[int, int]:
        """Of arrays, to the clients and back, in the rounds that are finished."""
        counted = [self._bytes.get(number, (0, 0)) for number in range(self.story.finished + 1)]
        return sum(down for down, _ in counted), sum(up for _, up in counted)

    @property
    def began(self) -> datetime:
        """The first event, or what the folder says before there is one."""
        if self.story.first is not None:
            return self.story.first
        try:
            return datetime.fromtimestamp(os.stat(self.folder).st_mtime).astimezone()
        except OSError as error:
            raise Zk0Error(f"{self.folder} cannot be read: {error.strerror}.") from error

    def _parse(self, lines: Sequence[bytes]) -> list[Event]:
        before, events = self._events.read_lines - len(lines), []
        for number, line in enumerate(lines, start=before + 1):
            try:
                events.append(parse(line))
            except ValueError as error:
                problem = f"line {number} is no event of a run: {error}."
                raise Zk0Error(f"{self._events.path}: {problem}") from None
        return events


def _bytes_by_round(path: Path, content: bytes) -> dict[int, tuple[int, int]]:
    """Down and up, of the rounds that say so: a baseline's do not."""
    try:
        rounds = json.loads(content)["rounds"]
        spent = {each["round"]: each["bytes"] for each in rounds if "bytes" in each}
        return {number: (int(each["down"]), int(each["up"])) for number, each in spent.items()}
    except (ValueError, KeyError, TypeError) as error:
        raise Zk0Error(f"{path} cannot be read: {type(error).__name__}: {error}.") from None
