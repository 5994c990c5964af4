"""The live view of `./train-fl-simulation.sh`, on a terminal with a stand-in for `flwr`."""

import json
import sys
from pathlib import Path

import pexpect
import pytest

from tests.watching.runs import Script, describe

FLWR = """\
#!{python}
import os, sys, time
from pathlib import Path

def tell(line):
    print(line, flush=True)

folder = Path({folder!r})
if sys.argv[1] == "ls":
    print('{{"runs": [{{"status": "' + os.environ["STATUS"] + '", "status-details": "why"}}]}}')
    sys.exit()
tell("Successfully started run 42")
folder.mkdir()
tell(f"12:00:00 INFO    outputs: {{folder}}")
(folder / "config.json").write_text({config!r})
time.sleep(0.5)
for line in {events!r}:
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(line)
    time.sleep(0.05)
time.sleep(1)  # longer than between two looks at the folder
tell("12:00:01 INFO    a line that the folder keeps")
tell("(ClientAppActor pid=7) 12:00:02 WARNING the arm is warm")
time.sleep({pause})
"""
RUN = """\
import sys
from pathlib import Path
from zk0 import flower
from zk0.errors import Zk0Error
from zk0.live import LiveRun
flower.SCRIPTS = Path({scripts!r})
try:
    with flower.interruptible():
        LiveRun("local-simulation", flower.flower_environment()).follow([], {outputs!r})
except Zk0Error as error:
    sys.exit("error: " + str(error))
except flower.Interrupted as interruption:
    sys.exit(interruption.exit_status)
"""


@pytest.fixture
def start(tmp_path: Path):
    """Begin a run of those events on a terminal of 100 x 30; its status afterwards."""

    def on_a_terminal(script: Script, status: str, pause: float = 1.0) -> pexpect.spawn:
        flwr = tmp_path / "flwr"
        about = {**describe(), "flower_run_id": "42"}
        folder = tmp_path / "outputs" / "run"
        folder.parent.mkdir()
        values = {"folder": str(folder), "config": json.dumps(about), "events": script.lines}
        flwr.write_text(FLWR.format(python=sys.executable, pause=pause, **values))
        flwr.chmod(0o755)
        code = RUN.format(scripts=str(tmp_path), outputs=str(folder.parent))
        terminal = {"dimensions": (30, 100), "env": {"TERM": "xterm", "STATUS": status}}
        return pexpect.spawn(sys.executable, ["-c", code], timeout=30, encoding="utf-8", **terminal)

    return on_a_terminal


def end(run: pexpect.spawn) -> int:
    run.expect(pexpect.EOF)
    run.close()
    return run.exitstatus


def test_a_run_is_shown_as_it_goes_on(start):
    script = Script().judge(0, 2.0).play(1).play(2).play(3).say("run-end", 3)
    run = start(script, "finished:completed")
    run.expect("outputs: ")
    run.expect("round 1 of 3")
    run.expect("the arm is warm")
    run.expect("3 of 3 rounds")
    run.expect("better than its start")
    run.expect("Outputs: ")
    assert "a line that the folder keeps" not in run.before
    assert end(run) == 0


def test_what_a_failing_run_said_is_shown_at_its_end(start):
    run = start(Script().judge(0, 2.0).plan(1), "finished:failed")
    run.expect("round 1 of 3")
    run.expect("a line that the folder keeps")
    run.expect("error: run 42 did not complete")
    assert end(run) == 1


def test_ctrl_c_ends_the_view_and_the_run(start):
    run = start(Script().judge(0, 2.0).plan(1), "finished:stopped", pause=60)
    run.expect("the arm is warm")
    run.sendintr()
    run.expect("a line that the folder keeps")
    assert end(run) == 130


def test_a_run_whose_files_are_damaged_goes_on_in_lines(start):
    script = Script().judge(0, 2.0)
    script.events[0] = {"event": "server-evaluate"}
    run = start(script, "finished:completed")
    run.expect("no live view: .*line 1 is no event of a run")
    run.expect("a line that the folder keeps")
    assert end(run) == 0
