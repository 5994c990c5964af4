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


TURNS = """\
import sys
from pathlib import Path
from loguru import logger
from zk0.record.log import keeping_lines

folder = Path(sys.argv[1])
for turn, level in [("one", "INFO"), ("two", "DEBUG"), ("one", "INFO")]:
    with keeping_lines(folder / turn / "client.log", level):
        logger.bind(source="zk0").info("for {}", turn)
        logger.bind(source="zk0").debug("little for {}", turn)
    logger.bind(source="zk0").info("for nobody")
try:
    with keeping_lines(folder / "one" / "client.log", "INFO"):
        raise OSError("the disk")
except OSError:
    logger.bind(source="zk0").opt(exception=True).info("too late")
"""


def test_clients_take_turns_in_one_process_each_with_its_own_file(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-c", TURNS, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    logs = {name: (tmp_path / name / "client.log").read_text() for name in ("one", "two")}
    said = {
        name: [line.split("zk0: ")[1] for line in log.splitlines()] for name, log in logs.items()
    }
    assert said == {"one": ["for one", "for one"], "two": ["for two", "little for two"]}
