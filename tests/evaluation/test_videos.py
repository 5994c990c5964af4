import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from zk0.commands.videos import app
from zk0.errors import Zk0Error
from zk0.evaluation.videos import Group, Row, analyze
from zk0.record.evidence import Rollout, folder_of, save_rollouts
from zk0.record.videos import VideoFacts, save_facts, write_video

FRAMES = [np.full((16, 16, 3), 10 * number, np.uint8) for number in range(6)]
FACTS = VideoFacts(
    who="server",
    round=3,
    kind="rollout",
    task="touch",
    instruction="Touch the red cube.",
    seed=0,
    episode=None,
    success=True,
    frames=6,
    fps=10,
    seconds=0.6,
    smoothness=10.0,
    policy_loss=0.5,
    action_error=None,
)
ROLLOUT = Rollout("touch", 0, "Touch the red cube.", True, 6, 10, 0.01, None, None, None, 10.0)


def film(folder: Path, name: str, **changes: object) -> Path:
    """A video and its facts."""
    video = folder / f"rollout_{name}.mp4"
    facts = replace(FACTS, **changes)
    write_video(video, FRAMES, facts.fps)
    save_facts(video, facts)
    return video


@pytest.fixture
def server(tmp_path: Path) -> Path:
    return folder_of(tmp_path / "run", 3)


def run_of(folder: Path) -> Path:
    return folder.parents[2]


def test_rows_by_round_model_kind_and_task(server: Path):
    film(server, "0")
    film(server, "1", seed=1, success=False, seconds=8.0, smoothness=30.0, policy_loss=0.7)
    film(server, "2", seed=2, seconds=1.0, smoothness=20.0, policy_loss=None)
    film(server, "3", task="pull", success=False)
    client = folder_of(run_of(server), 3, "client_0")
    film(client, "0", who="client_0", kind="open-loop", success=None, seed=None, episode=4)
    film(folder_of(run_of(server), 10), "0", round=10)
    analysis = analyze(run_of(server))
    assert analysis.problems == ()
    assert [row.group for row in analysis.rows] == [
        Group(3, "client_0", "open-loop", "touch"),
        Group(3, "server", "rollout", "pull"),
        Group(3, "server", "rollout", "touch"),
        Group(10, "server", "rollout", "touch"),
    ]
    opened, stacked, touched, _ = analysis.rows
    assert touched == Row(touched.group, 3, 3, 3, 2, pytest.approx(0.8), 20.0, pytest.approx(0.6))
    assert (opened.judged, opened.successes, opened.completion_seconds) == (0, 0, None)
    assert (stacked.judged, stacked.successes, stacked.completion_seconds) == (1, 0, None)


def test_rollouts_without_a_video_count_and_none_counts_twice(server: Path):
    film(server, "0")
    film(server, "1", seed=1, success=False)
    others = [replace(ROLLOUT, seed=seed, success=seed < 4, frames=20) for seed in range(2, 10)]
    save_rollouts(server, [ROLLOUT, replace(ROLLOUT, seed=1, success=False), *others])
    (row,) = analyze(server).rows
    assert (row.videos, row.episodes, row.judged, row.successes) == (2, 10, 10, 3)
    assert row.completion_seconds == pytest.approx((0.6 + 2 + 2) / 3)
    assert row.policy_loss == 0.5


def test_rollouts_alone_are_enough_and_any_part_of_a_run_will_do(server: Path):
    save_rollouts(server, [ROLLOUT])
    for part in (server, server.parent, server.parent.parent, run_of(server)):
        (row,) = analyze(part).rows
        assert row.group == Group(3, "server", "rollout", "touch")
        assert (row.videos, row.episodes) == (0, 1)


def test_a_table_elsewhere_belongs_to_the_videos_beside_it(tmp_path: Path):
    save_rollouts(tmp_path, [replace(ROLLOUT, seed=1)])
    analysis = analyze(tmp_path)
    assert analysis.rows == ()
    assert analysis.problems[0].startswith("rollouts.json: of which round and model")
    film(tmp_path, "0")
    (row,) = analyze(tmp_path).rows
    assert (row.group.round, row.videos, row.episodes) == (3, 1, 2)


def test_an_episode_filmed_twice_is_one_episode(server: Path):
    film(server, "0")
    film(server, "0_again")
    film(server, "nameless_0", seed=None)
    film(server, "nameless_1", seed=None)
    (row,) = analyze(server).rows
    assert (row.videos, row.episodes) == (4, 3)


def no_json(video: Path) -> None:
    video.with_suffix(".json").unlink()


def wrong_json(video: Path) -> None:
    video.with_suffix(".json").write_text('{"success": true}')


def empty(video: Path) -> None:
    video.write_bytes(b"")


def text(video: Path) -> None:
    video.write_text("a video")


def cut(video: Path) -> None:
    content = video.read_bytes()
    video.write_bytes(content[: content.index(b"mdat") + 60])


def last_byte_gone(video: Path) -> None:
    video.write_bytes(video.read_bytes()[:-1])


def other_count(video: Path) -> None:
    save_facts(video, replace(FACTS, frames=7))


def index_only(video: Path) -> None:
    content = video.read_bytes()
    video.write_bytes(content[: content.index(b"mdat") - 4])


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (no_json, "rollout_0.mp4: no JSON beside it"),
        (Path.unlink, "rollout_0.json: no video beside it"),
        (wrong_json, "rollout_0.json does not describe a video: who: Field required"),
        (empty, "rollout_0.mp4: cannot be decoded (0 bytes)"),
        (text, "rollout_0.mp4: cannot be decoded (7 bytes)"),
        (cut, "rollout_0.mp4: "),
        (index_only, "rollout_0.mp4: cannot be decoded"),
        (last_byte_gone, "rollout_0.mp4: 5 whole frames, but its JSON says 6"),
        (other_count, "rollout_0.mp4: 6 whole frames, but its JSON says 7"),
    ],
)
def test_every_kind_of_problem(server: Path, damage: Callable[[Path], None], problem: str):
    damage(film(server, "0"))
    film(server, "1", seed=1)
    analysis = analyze(server.parent)
    (line,) = analysis.problems
    assert line.startswith(f"server/{problem}")
    assert "\n" not in line
    (row,) = analysis.rows
    assert (row.videos, row.episodes) == (1, 1)


def test_a_broken_videos_episode_counts_where_the_table_has_it(server: Path):
    empty(film(server, "0"))
    save_rollouts(server, [ROLLOUT])
    analysis = analyze(server)
    assert len(analysis.problems) == 1
    assert (analysis.rows[0].videos, analysis.rows[0].episodes) == (0, 1)


def test_a_video_and_the_table_that_differ_on_success(server: Path):
    film(server, "0")
    save_rollouts(server, [replace(ROLLOUT, success=False)])
    (line,) = analyze(server).problems
    assert line.startswith("rollout_0.mp4 and rollouts.json differ on whether touch")


def test_a_damaged_table_is_a_problem(server: Path):
    film(server, "0")
    (server / "rollouts.json").write_text("[{")
    analysis = analyze(server)
    assert "rollouts.json cannot be read" in analysis.problems[0]
    assert analysis.rows[0].episodes == 1


def test_nothing_to_analyze(tmp_path: Path, server: Path):
    with pytest.raises(Zk0Error, match="neither videos"):
        analyze(tmp_path)
    with pytest.raises(Zk0Error, match="is not a folder"):
        analyze(server)


def test_two_runs_are_not_mixed(tmp_path: Path):
    for run in ("a", "b"):
        save_rollouts(folder_of(tmp_path / run, 1), [ROLLOUT])
    with pytest.raises(Zk0Error, match="different runs"):
        analyze(tmp_path)


# --- the command ----------------------------------------------------------------------------


@pytest.fixture
def zk0() -> Callable:
    parent = typer.Typer()
    parent.add_typer(app, name="videos")
    return lambda *words: CliRunner().invoke(parent, ["videos", *map(str, words)])


def test_the_command_prints_and_writes_the_table(server: Path, tmp_path: Path, zk0: Callable):
    film(server, "0")
    as_json, as_csv = tmp_path / "a.json", tmp_path / "a.csv"
    done = zk0("analyze", server, "--json", as_json, "--csv", as_csv)
    assert done.exit_code == 0
    assert "touch" in done.output
    assert "1/1" in done.output
    content = json.loads(as_json.read_text())
    assert content["problems"] == []
    with as_csv.open() as file:
        (row,) = csv.DictReader(file)
    assert {name: str(value) for name, value in content["rows"][0].items()} == row
    assert row["completion_seconds"] == "0.6"


def test_the_command_fails_where_there_are_problems(server: Path, tmp_path: Path, zk0: Callable):
    empty(film(server, "0"))
    as_json, as_csv = tmp_path / "a.json", tmp_path / "a.csv"
    done = zk0("analyze", server, "--json", as_json, "--csv", as_csv)
    assert done.exit_code == 1
    assert "problem: rollout_0.mp4: cannot be decoded" in done.output
    assert len(json.loads(as_json.read_text())["problems"]) == 1


def test_a_table_that_cannot_be_written(server: Path, tmp_path: Path, zk0: Callable):
    film(server, "0")
    done = zk0("analyze", server, "--csv", tmp_path / "missing" / "a.csv")
    assert isinstance(done.exception, Zk0Error)
    assert "--csv: " in str(done.exception)
