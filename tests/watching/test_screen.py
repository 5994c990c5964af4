"""What is on the screen, and in the lines where there is none."""

import re
import threading
import time
from datetime import timedelta
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from tests.watching.runs import REAL, START, Script, make_run
from zk0.watching.follow import POLL_S, Watched
from zk0.watching.forms import ago, counted, size, span, sparkline
from zk0.watching.lines import lines_of, watch_in_lines
from zk0.watching.screen import TICK_S, picture, watch_on_screen
from zk0.watching.story import Story, tell


def shown(folder: Path, width: int = 80, height: int | None = 23, later: float = 5.0) -> str:
    run = Watched(folder)
    run.poll()
    now = (run.story.last or run.began) + timedelta(seconds=later)
    console = Console(width=width, file=StringIO(), color_system=None)
    with console.capture() as capture:
        console.print(picture(run, width, height, now))
    return capture.get()


def test_a_run_in_the_middle_of_a_round(tmp_path: Path):
    script = Script().judge(0, 2.0).play(1).play(2).plan(3, "stall").ask(3, "train")
    script.train(3, 0, last=0.25).fail(3, 1, "no reply within round-timeout = 60 s")
    text = shown(make_run(tmp_path / "run", script.text))
    assert "run  federated, fedprox static, seed 7" in text
    assert "round 3 of 3  ━" in text
    assert "training  27 s so far\n" in text
    assert "composite     2.0000  1.8000    -10%    1.8000 (2)  █▄▁" in text
    assert re.search(r"0 touch     done +1.0000 -> 0.2500      5.0    0.7000\n", text)
    assert "1 picklift  left out: no" in text
    assert "learning rate  0.002, mu 0.01 by stall; rules so far: stall" in text
    assert "failures       1; round 3: 1 picklift: no reply within round-timeout = 60 s" in text
    assert "last event     5 s ago" in text
    assert len(text.splitlines()) <= 23
    assert max(len(line) for line in text.splitlines()) <= 80


def test_a_finished_run(tmp_path: Path):
    text = shown(make_run(tmp_path / "run", REAL, config={"num-server-rounds": 1}), 120, None)
    assert "1 of 1 rounds" in text
    assert "finished  in 31 s" in text
    assert "seen tasks     touch 1/3" in text
    assert "unseen tasks   near-touch 2/3" in text
    assert "verdict        policy loss 2.4345 -> 3.2597 (+34%): NOT better than its start" in text
    assert "last event" not in text
    assert "ended early" in shown(make_run(tmp_path / "early", REAL))


def test_a_run_that_failed(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    script = Script().judge(0, 2.0).plan(1)
    script.events.append({**script.events[0], "event": "run-error", "reason": "too few clients"})
    folder = make_run(tmp_path / "run", script.text)
    text = shown(folder)
    assert "round 1 of 3" in text
    assert "failed         too few clients" in text
    assert "last event" not in text
    run = Watched(folder)
    watch_in_lines(run, run.poll())
    assert capsys.readouterr().out.endswith("the run failed: too few clients\n")
    (folder / "config.json").unlink()
    (folder / "metrics.jsonl").write_text(script.lines[-1])
    assert "failed         too few clients" in shown(folder)


@pytest.mark.parametrize("width", [20, 60, 80, 120, 250])
def test_any_width_will_do(tmp_path: Path, width: int):
    text = shown(make_run(tmp_path / "run", REAL), width)
    assert max(len(line) for line in text.splitlines()) <= width


def test_silence_is_told(tmp_path: Path):
    folder = make_run(tmp_path / "run", Script().judge(0, 2.0).plan(1).text)
    assert "last event     14 min ago: slow, or gone" in shown(folder, later=14 * 60)


def test_many_clients_are_cut_to_the_screen(tmp_path: Path):
    script = Script().judge(0, 2.0).play(1, range(12)).plan(2).ask(2, "train", range(12))
    folder = make_run(tmp_path / "run", script.text, names=[f"arm-{n}" for n in range(12)])
    text = shown(folder)
    assert len(text.splitlines()) == 23
    assert "2 more   training 2x" in text
    assert "10 arm-10" not in text
    assert "11 arm-11" in shown(folder, height=None)


def test_before_the_clients_were_met(tmp_path: Path):
    (tmp_path / "run").mkdir()
    assert "made 5 s ago; the run waits for its clients" in shown(tmp_path / "run")
    assert "last event     none yet" in shown(make_run(tmp_path / "met"))


def test_a_centralized_run_has_no_training_by_client(tmp_path: Path):
    script = Script().judge(0, 2.0).plan(1).ask(1, "train").aggregate(1).hold_out(1, 0)
    text = shown(make_run(tmp_path / "run", script.text, kind="centralized", trained_on=[0, 1]))
    assert "centralized, static, seed 7" in text
    assert "all data                1.0000 -> 0.5000      5.0" in text
    assert "mu" not in text


def test_a_local_run_shows_its_own_client_only(tmp_path: Path):
    text = shown(make_run(tmp_path / "run", REAL, kind="local", trained_on=[1]))
    assert "local 1 picklift, static, seed 7" in text
    assert "0 touch" not in text


def grow(folder: Path, script: Script, pause: float) -> threading.Thread:
    def write() -> None:
        for line in script.lines:
            with (folder / "metrics.jsonl").open("a") as file:
                file.write(line)
            time.sleep(pause)

    writer = threading.Thread(target=write)
    writer.start()
    return writer


def test_the_live_screen_ends_with_the_run(tmp_path: Path):
    folder = make_run(tmp_path / "run")
    script = Script().judge(0, 2.0).play(1).play(2).play(3).say("run-end", 3)
    console = Console(width=80, height=24, file=StringIO(), force_terminal=True)
    writer = grow(folder, script, 0.02)
    run = Watched(folder)
    run.poll()
    watch_on_screen(run, console)
    writer.join()
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "before round 1" in text
    assert "finished" in text


def test_the_live_screen_costs_little(tmp_path: Path):
    """A frame is drawn every TICK_S, and polled for between; in 1 % of a core."""
    script = Script().judge(0, 3.0)
    for number in range(1, 31):
        script.play(number)
    run = Watched(make_run(tmp_path / "run", script.text))
    run.poll()
    console = Console(width=80, height=24, file=StringIO(), force_terminal=True)
    console.print(picture(run, 80, 23))  # once, for what is only imported then
    start = time.process_time()
    for _ in range(20):
        console.print(picture(run, 80, 23))
    frame = (time.process_time() - start) / 20
    print(f"\n{frame * 1000:.1f} ms a frame: {frame / TICK_S:.2%} of a core")
    assert frame / TICK_S < 0.05  # 0.5 % on an idle machine


def test_lines_tell_what_matters():
    script = Script().judge(0, 2.0).plan(1, "stall").ask(1, "train").train(1, 0).fail(1, 1, "NaN")
    script.aggregate(1).hold_out(1, 0).judge(1, 1.5).say("resume", 0).plan(1).aggregate(1)
    script.say("void", 1, valid=1, needed=2).say("run-end", 1)
    assert said(script) == [
        "round 0: policy loss 2.0000: near 1.0000, far 3.0000",
        "round 1 of 3 begins: learning rate 0.002, mu 0.01 (stall)",
        "round 1: client 0 touch trained, policy loss 1.0000 -> 0.5000, 5.0 steps/s",
        "round 1: client 1 picklift left out: NaN",
        "round 1: client 0 touch held out, 0.7000",
        "round 1: policy loss 1.5000 (-25%): near 0.7500 (-25%), far 2.2500 (-25%)",
        "resumed after round 0: what came later is played again",
        "round 1 of 3 begins: learning rate 0.002, mu 0.01",
        "round 1: void: 1 valid replies of 2 needed; the weights stay",
        "the run ended after round 1 of 3, 11 s",
        "no verdict: the server's evaluation failed before round 1 or in all rounds after it",
    ]


def said(script: Script) -> list[str]:
    from tests.watching.runs import describe
    from zk0.watching.about import About
    from zk0.watching.events import parse

    story, lines, about = Story(), [], About.model_validate(describe())
    for line in script.lines:
        event = parse(line.encode())
        story = tell(story, event)
        lines += [each.split(" ", 1)[1] for each in lines_of(event, story, about)]
    return lines


def test_lines_of_a_run_that_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    script = Script().judge(0, 2.0).play(1).play(2).play(3).say("run-end", 3)
    folder = make_run(tmp_path / "run", script.lines[0])
    run = Watched(folder)
    events = run.poll()
    script.events.pop(0)
    writer = grow(folder, script, 0.02)
    watch_in_lines(run, events)
    writer.join()
    lines = capsys.readouterr().out.splitlines()
    assert "round 0: policy loss 2.0000" in lines[0]
    assert len(lines) == len(set(lines)) == 1 + 3 * 6 + 2
    assert "better than its start" in lines[-1]


def test_silence_has_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("zk0.watching.lines.QUIET_S", 2 * POLL_S)
    folder = make_run(tmp_path / "run")
    threading.Timer(1.0, grow, [folder, Script().say("run-end", 0), 0.0]).start()
    watch_in_lines(Watched(folder), [])
    assert "no event yet; the folder was made" in capsys.readouterr().out.splitlines()[0]


def test_forms():
    assert [span(s) for s in (0.4, 99, 100, 5000, 7300, 200_000)] == [
        *("0 s", "99 s", "2 min", "83 min", "2 h 2 min", "2 d 7 h")
    ]
    assert ago(START, START - timedelta(seconds=5)) == "0 s ago"
    assert [size(n) for n in (0, 999, 39_706_968, 4.2e9)] == ["0 B", "999 B", "39.7 MB", "4.2 GB"]
    assert counted(["stall", "cap", "stall"]) == "stall 2x, cap"
    assert sparkline([3.0, 1.0, 2.0], 10) == "█▁▅"
    assert sparkline([1.0, 1.0], 10) == "▁▁"
    assert sparkline([], 10) == ""
    assert sparkline([float(n) for n in range(100)], 8) == "▁▂▃▄▅▆▇█"
