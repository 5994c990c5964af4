"""Where log lines go; in a process of its own, as sinks are the process's."""

import subprocess
import sys
from pathlib import Path

PROGRAM = """\
import sys
from pathlib import Path
from loguru import logger
from zk0.config import Logging
from zk0.record.log import ensure_terminal, logging_to

with logging_to(Path(sys.argv[1]), Logging(terminal="WARNING", file="DEBUG")):
    logger.info("before")
    ensure_terminal()  # as where the clients' app is loaded when the server's has begun
    logger.info("after")
    logger.warning("shown")
"""


def test_a_runs_log_outlasts_the_loading_of_another_app(tmp_path: Path):
    path = tmp_path / "simulation.log"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert [line.rsplit(" ", 1)[1] for line in path.read_text().splitlines()] == [
        "before",
        "after",
        "shown",
    ]
    assert [line.split()[-1] for line in done.stderr.splitlines()] == ["shown"]
