"""From events to a state: no files."""

from datetime import timedelta

import pytest

from tests.watching.runs import REAL, START, Script, describe
from zk0.watching.about import About
from zk0.watching.events import parse
from zk0.watching.story import (
    COMPOSITE,
    Story,
    change,
    is_quiet,
    latest_held_out,
    latest_training,
    phase,
    seconds_left,
    state_of,
    tell_all,
)


def tell(script: Script | str) -> Story:
    text = script if isinstance(script, str) else script.text
    return tell_all(parse(line) for line in text.encode().splitlines())


def about(**more: object) -> About:
    return About.model_validate(describe(**more))


def test_a_real_run():
    story = tell(REAL)
    assert story.has_ended
    assert story.finished == 1
    assert story.losses[COMPOSITE] == {0: 2.4345, 1: 3.2597}
    assert change(story.losses["near"]) == pytest.approx(3.0982 / 1.9518 - 1)
    number, training = latest_training(story, 0) or pytest.fail("no training")
    assert (number, training.first, training.last, training.speed) == (1, 2.4692, 2.501, 8.0)
    assert latest_held_out(story, 1) == (1, 2.1697)
    assert story.latest_rollouts is not None
    assert story.latest_rollouts.tasks["near-touch"].successes == 2
    assert story.seconds == pytest.approx(31.214)
    assert [state_of(story, client) for client in (0, 1, 2)] == ["done", "done", "done"]


def test_states_and_phases_of_a_round():
    script, run = Script().judge(0, 2.0), about()

    def now() -> tuple[str, str, str]:
        story = tell(script)
        return phase(story, run), state_of(story, 0), state_of(story, 1)

    assert phase(Story(), run) == now()[0] == "before round 1"
    script.plan(1)
    assert now() == ("training", "waiting", "waiting")
    script.ask(1, "train")
    assert now() == ("training", "training", "training")
    script.train(1, 1)
    assert now() == ("training", "training", "done")
    script.train(1, 0).aggregate(1).ask(1, "evaluate", [1])
    assert now() == ("clients evaluate", "done", "evaluating")
    script.hold_out(1, 1)
    assert now() == ("server evaluates", "done", "done")
    script.judge(1, 1.5)
    assert now()[0] == "closing the round"
    script.say("run-end", 1)
    assert now()[0] == "finished"


def test_a_round_without_an_evaluation_closes_after_training():
    script = Script().judge(0, 2.0).plan(1).ask(1, "train").train(1, 0).train(1, 1).aggregate(1)
    config = {"num-server-rounds": 4, "eval-frequency": 2, "rollout-frequency": 3}
    run = about(config={**config, "rollout-episodes": 3})
    assert phase(tell(script), run) == "closing the round"
    assert phase(tell(script), about()) == "server evaluates"
    assert [run.is_evaluated(number) for number in range(1, 5)] == [False, True, False, True]
    assert [run.plays_rollouts(number) for number in range(1, 5)] == [False, False, False, True]


def test_rollouts_are_a_phase_where_they_are_due():
    script = Script().judge(0, 2.0).play(1)
    config = {"num-server-rounds": 1, "rollout-episodes": 3}
    assert phase(tell(script), about(config=config)) == "rollouts"


def test_a_failing_client_stays_left_out_for_the_round():
    script = Script().plan(1).ask(1, "train").train(1, 0).fail(1, 1, "no reply")
    script.aggregate(1).ask(1, "evaluate").hold_out(1, 0)
    assert state_of(tell(script), 1) == "evaluating"
    story = tell(script.hold_out(1, 1))
    assert state_of(story, 1) == "left out"
    assert story.troubles == [(1, "1 picklift: no reply")]
    assert state_of(tell(script.plan(2)), 1) == "waiting"


def test_a_void_round_and_errors_are_troubles():
    script = Script().judge(0, 2.0).plan(1).ask(1, "train").fail(1, 0, "NaN").fail(1, 1, "NaN")
    script.say("train-aggregate", 1, failures=2).say("void", 1, valid=0, needed=2)
    assert phase(tell(script), about()) == "void round"
    script.plan(2).aggregate(2).say("server-error", 2, reason="the policy loss is nan")
    story = tell(script.say("rollout-error", 2, reason="no OpenGL"))
    assert [number for number, _ in story.troubles] == [1, 1, 1, 2, 2]
    assert story.troubles[2][1] == "void: 0 valid replies of 2 needed; the weights stay"
    assert story.losses[COMPOSITE] == {0: 2.0}


def test_a_resumed_run_plays_later_rounds_again():
    script = Script().judge(0, 2.0).play(1).play(2).plan(3).ask(3, "train").fail(3, 0, "gone")
    seconds = tell(script).seconds
    script.say("resume", 1)
    story = tell(script)
    assert sorted(story.rounds) == [0, 1]
    assert (story.resumes, story.troubles) == (1, [])
    assert story.seconds == seconds
    story = tell(script.play(2).play(3).say("run-end", 3))
    assert story.finished == 3
    assert story.losses[COMPOSITE] == pytest.approx({0: 2.0, 1: 1.9, 2: 1.8, 3: 1.7})


def test_a_finished_run_can_be_resumed_for_more_rounds():
    story = tell(Script().judge(0, 2.0).play(1).say("run-end", 1).say("resume", 1).plan(2))
    assert not story.has_ended
    assert story.finished == 1
    resumed = [{"after_round": 1, "config": {"num-server-rounds": 9}}]
    assert about(resumed=resumed).planned == 9


def test_time_left_is_the_mean_round_times_those_left():
    script = Script().judge(0, 2.0).play(1).play(2).plan(3)
    story = tell(script)
    began = story.rounds[3].began
    assert story.rounds[1].seconds == 8.0
    assert seconds_left(story, 10, began) == 8 * 8.0
    assert seconds_left(story, 10, began + timedelta(seconds=3)) == 8 * 8.0 - 3
    assert seconds_left(story, 3, began + timedelta(seconds=99)) == 0.0
    assert seconds_left(tell(Script().plan(1)), 10, START) is None


def test_silence_counts_from_two_minutes_and_three_rounds():
    story = tell(Script().judge(0, 2.0).play(1).plan(2))
    last = story.last or START
    assert not is_quiet(story, last + timedelta(seconds=119))
    assert is_quiet(story, last + timedelta(seconds=121))
    assert not is_quiet(tell(REAL), last + timedelta(days=9))


def test_a_centralized_run_tells_the_mean_only():
    script = Script().judge(0, 2.0).plan(1).ask(1, "train").aggregate(1)
    story = tell(script.hold_out(1, 0))
    assert latest_training(story, 0) is None
    assert (latest_training(story, None) or pytest.fail("none"))[1].last == 0.5
    assert state_of(story, 1) == "done"
    central = about(kind="centralized", trained_on=[0, 1])
    assert (central.label, central.method) == ("centralized", "static")
    local = about(kind="local", trained_on=[1])
    assert (local.label, list(local.names)) == ("local 1 picklift", [1])


def test_unseen_tasks_are_those_of_the_servers_datasets():
    run = about(names=["touch", "near-by"])
    tasks = ["touch", "touch-up", "near", "near-touch", "near-by", "near-by-lift", "other"]
    assert [task for task in tasks if run.is_unseen(task)] == ["near", "near-touch"]


def test_events_of_other_versions():
    assert tell('{"time": "2026-11-22T12:29:07+00:00", "event": "new-one", "x": 1}').last
    old = "plan", {"learning_rate": 0.1, "proximal_mu": 0.0}
    assert tell(Script().say(old[0], 1, **old[1])).rounds[1].plan


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "Invalid JSON"),
        (b'{"event": "plan", "round": 1}', "time"),
        (b'{"time": "2026-11-22T12:29:07", "event": "x"}', "time"),
        (b'{"time": "2026-11-22T12:29:07+00:00", "event": "plan", "round": 1}', "learning-rate"),
    ],
)
def test_what_is_no_event_says_why_in_a_line(line: bytes, message: str):
    with pytest.raises(ValueError, match=message) as found:
        parse(line)
    assert "\n" not in str(found.value)
