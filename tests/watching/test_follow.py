"""Files that grow, are torn, or change; and what reading them costs."""

import os
import threading
import time
from pathlib import Path

import pytest

from tests.watching.runs import REAL, Script, make_run
from zk0.errors import Zk0Error
from zk0.watching.follow import POLL_S, Tail, Watched


def test_a_torn_line_waits_for_its_end(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    tail = Tail(path)
    assert tail.read() == []
    path.write_text("one\ntw")
    assert tail.read() == [b"one"]
    assert tail.read() == []
    path.write_text("one\ntwo\n")
    assert tail.read() == [b"two"]


def test_a_resumed_run_cuts_its_torn_line_off(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("one\ntorn by a kill")
    tail = Tail(path)
    assert tail.read() == [b"one"]
    os.truncate(path, 4)
    assert tail.read() == []
    with path.open("a") as file:
        file.write("resumed\n")
    assert tail.read() == [b"resumed"]


def test_another_file_in_its_place_is_an_error(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("one\ntwo\n")
    tail = Tail(path)
    tail.read()
    path.write_text("new\n")
    with pytest.raises(Zk0Error, match="became shorter"):
        tail.read()
    path.unlink()
    with pytest.raises(Zk0Error, match="is gone"):
        tail.read()


def test_the_place_of_a_broken_line_is_told(tmp_path: Path):
    run = Watched(make_run(tmp_path / "run", REAL + '{"time": 3}\n'))
    with pytest.raises(Zk0Error, match=r"metrics\.jsonl: line 12 is no event of a run: event: "):
        run.poll()


def test_config_comes_later_and_changes_when_a_run_is_resumed(tmp_path: Path):
    folder = tmp_path / "run"
    folder.mkdir()
    run = Watched(folder)
    assert run.poll() == []
    assert run.about is None
    whole = make_run(tmp_path / "other")
    (whole / "config.json").rename(folder / "config.json")
    run.poll()
    assert run.about is not None
    assert run.about.planned == 3
    resumed = make_run(tmp_path / "resumed", resumed=[{"config": {"num-server-rounds": 12}}])
    (resumed / "config.json").replace(folder / "config.json")
    run.poll()
    assert run.about.planned == 12


def test_bytes_are_those_of_the_finished_rounds(tmp_path: Path):
    folder = make_run(tmp_path / "run", Script().judge(0, 2.0).play(1).play(2).plan(3).text)
    rounds = [{"round": 0}, *({"round": n, "bytes": {"down": 20, "up": 10}} for n in (1, 2, 3))]
    (folder / "server" / "federated_metrics.json").write_text(
        str({"rounds": rounds}).replace("'", '"')
    )
    run = Watched(folder)
    run.poll()
    assert run.bytes_sent == (40, 20)  # round 3 is that of before the run was resumed
    (folder / "server" / "federated_metrics.json").write_text("{")
    with pytest.raises(Zk0Error, match=r"federated_metrics\.json cannot be read"):
        run.poll()


def test_a_run_is_followed_while_it_writes(tmp_path: Path):
    script = Script().judge(0, 2.0).play(1).play(2).play(3).say("run-end", 3)
    folder = make_run(tmp_path / "run")
    (folder / "metrics.jsonl").unlink()

    def write() -> None:
        for line in script.lines:
            for part in (line[:20], line[20:]):  # torn in the middle
                with (folder / "metrics.jsonl").open("a") as file:
                    file.write(part)
                time.sleep(0.005)

    writer, run, events = threading.Thread(target=write), Watched(folder), []
    writer.start()
    end = time.monotonic() + 5
    while not run.story.has_ended and time.monotonic() < end:
        events += run.poll()
        time.sleep(0.003)
    writer.join()
    assert [each.event for each in events] == [each["event"] for each in script.events]
    assert run.story.finished == 3


# --- cost -----------------------------------------------------------------------------------------


def long_run(rounds: int = 100, clients: int = 12) -> str:
    script = Script().judge(0, 3.0)
    for number in range(1, rounds + 1):
        script.play(number, range(clients))
    joints = ", ".join(f'"loss.joint_{place}": 0.123456789012345' for place in range(12))
    return "".join(line.replace("}\n", f", {joints}}}\n") for line in script.lines)


def test_a_long_run_is_read_at_once(tmp_path: Path):
    folder = make_run(tmp_path / "run", long_run(), names=[f"arm-{n}" for n in range(12)])
    start = time.process_time()
    run = Watched(folder)
    assert len(run.poll()) > 2800
    seconds = time.process_time() - start
    print(f"\n{seconds:.3f} s for {(folder / 'metrics.jsonl').stat().st_size / 1e6:.1f} MB")
    assert seconds < 3.0  # 0.1 s on two idle cores; a busy machine took ten times as long


def test_an_idle_poll_costs_next_to_nothing(tmp_path: Path):
    run = Watched(make_run(tmp_path / "run", Script().judge(0, 2.0).play(1).text))
    run.poll()
    start = time.process_time()
    for _ in range(200):
        run.poll()
    share = (time.process_time() - start) / 200 / POLL_S
    print(f"\n{share:.4%} of a core")
    assert share < 0.01
