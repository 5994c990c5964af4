"""Logging with loguru: short lines on the terminal, full ones in the run's file."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from loguru import logger

if TYPE_CHECKING:
    from loguru import Message

from zk0.config import Level, Logging

LOGURUS_OWN = 0  # the sink that loguru begins with
_terminal = LOGURUS_OWN  # ours, once there is one

TERMINAL = "<green>{time:HH:mm:ss}</green> <level>{level: <7}</level> {message}"
FILE = "{time:YYYY-MM-DD HH:mm:ss.SSS} {level: <7} {extra[source]}: {message}"


@contextmanager
def logging_to(path: Path, levels: Logging) -> Iterator[None]:
    """Send zk0's, Flower's and Ray's log lines to `path` as long as the block runs."""
    start_terminal(levels.terminal)
    sink = _add(path, levels.file)
    try:
        with _redirected("flwr"), _redirected("ray"):
            yield
    finally:
        logger.remove(sink)


def _add(sink: Any, level: Level | int) -> int:
    """To a path, or a function of loguru's messages."""
    # diagnose would write variables' values, a key or token among them
    return logger.add(sink, format=FILE, level=level, backtrace=True, diagnose=False)


@contextmanager
def keeping_lines(path: Path, level: Level) -> Iterator[None]:
    """Append this process's log lines to `path` as long as the block runs; no block within another.

    A process's clients take turns, many times in a minute, and loguru takes its time over a new
    sink: theirs is one.
    """
    turns = _open_turns()
    turns.least = logger.level(level).no
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as turns.file:
        try:
            yield
        finally:
            turns.file = None


class _Turns:
    """A sink that writes into the file whose turn it is, from a level on."""

    file: TextIO | None = None
    least = 0

    def __call__(self, message: "Message") -> None:
        if self.file is not None and message.record["level"].no >= self.least:
            self.file.write(message)
            self.file.flush()


@cache
def _open_turns() -> _Turns:
    turns = _Turns()
    _add(turns, 0)
    return turns


@contextmanager
def _redirected(library: str) -> Iterator[None]:
    """All of a library's lines to the file, and none to the terminal: zk0 tells what matters."""
    library_logger = logging.getLogger(library)
    levels = {terminal: terminal.level for terminal in library_logger.handlers}
    for terminal in levels:
        terminal.setLevel(logging.CRITICAL)
    library_logger.propagate = False  # other libraries give the root logger a terminal of its own
    handler = _ToLoguru()
    library_logger.addHandler(handler)
    try:
        yield
    finally:
        library_logger.removeHandler(handler)
        for terminal, level in levels.items():
            terminal.setLevel(level)


def ensure_terminal() -> None:
    """`start_terminal`, unless this process has done so: in a simulation, Flower may load the
    clients' app in the server's process, when its run has long begun."""
    if _terminal == LOGURUS_OWN:
        start_terminal()


def start_terminal(level: Level = "INFO") -> None:
    """zk0's own lines to stderr, from `level` on; other sinks stay as they are."""
    global _terminal
    with suppress(ValueError):  # another library has removed it
        logger.remove(_terminal)
    logger.configure(extra={"source": "zk0"})
    _terminal = logger.add(
        sys.stderr,
        format=TERMINAL,
        level=level,
        diagnose=False,
        filter=lambda record: record["extra"]["source"] == "zk0",
    )


class _ToLoguru(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        exception: Any = record.exc_info
        logger.bind(source=record.name).opt(exception=exception).log(
            record.levelname, record.getMessage()
        )
