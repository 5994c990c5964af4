import json
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from tests.conftest import PROJECT
from tests.test_imports import loaded
from zk0.cli import main
from zk0.federation.schedules import RoundPlan, Rule
from zk0.record.charts import COLOURS, schedule_chart


@pytest.fixture
def schedule(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    """Call `zk0 schedule ...` in an empty folder; its exit status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        command = ["zk0", "schedule", "--app", str(PROJECT), *arguments]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0), *capsys.readouterr()

    return call


def rows(out: str) -> list[list[str]]:
    """The cells of the table's lines that are not empty."""
    lines = out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.split()[:1] == ["round"])
    body = [line for line in lines[start + 1 :] if not line.startswith("chart:")]
    return [line.rstrip().split(maxsplit=3) for line in body]


def write_losses(path: Path, *losses: float | None) -> str:
    path.write_text(json.dumps(losses))
    return str(path)


def colours(png: Path) -> set[tuple[int, ...]]:
    with Image.open(png) as image:
        return {colour for _, colour in image.convert("RGB").getcolors(1 << 24) or []}


def test_every_round_is_printed_and_drawn(schedule, tmp_path: Path):
    status, out, _ = schedule(
        "-c", "num-server-rounds=3 lr-schedule='cosine' eta-min=0.0 initial-lr=0.001"
    )
    assert status == 0
    assert rows(out) == [
        ["1", "1.000e-03", "1.000e-02"],
        ["2", "5.000e-04", "1.000e-02"],
        ["3", "0.000e+00", "1.000e-02"],
    ]
    assert "preset static: cosine, adjust-globally off, dynamic-mu off" in out
    assert "losses: none" in out
    assert out.endswith(f"chart: {tmp_path / 'schedule.png'}\n")
    with Image.open(tmp_path / "schedule.png") as image:
        assert image.size == (1650, 630)


def test_no_round_is_left_out(schedule):
    _, out, _ = schedule("-c", "num-server-rounds=250")
    assert [row[0] for row in rows(out)] == [str(number) for number in range(1, 251)]


@pytest.mark.parametrize(
    ("run_config", "rate", "assumption"),
    [
        ("initial-lr=0.02", "2.000e-02", None),
        ("seed=0", "1.000e-03", 'assuming 0.001 for model-name "embedded"'),
        (
            "model-name='lerobot/smolvla_base'",
            "1.000e-04",
            'assuming 0.0001 for model-name "lerobot/smolvla_base"',
        ),
    ],
)
def test_an_assumed_rate_is_said(schedule, run_config: str, rate: str, assumption: str | None):
    _, out, _ = schedule("-c", run_config)
    assert rows(out)[0][1] == rate
    assert assumption in out if assumption else "assuming" not in out


def test_losses_of_the_server_move_the_rules(schedule, tmp_path: Path):
    losses = write_losses(tmp_path / "losses.json", 2.0, 2.0, None, 1.9995, 2.6)
    switches = (
        "adjust-globally='on' adjust-window=3 num-server-rounds=6 initial-lr=0.001 "
        "lr-schedule='constant'"
    )
    _, out, _ = schedule("--losses", losses, "-c", switches)
    assert "losses: 4 of the server, 0 of clients" in out
    assert [row[3:] for row in rows(out)] == [[], [], [], ["stall, cap"], ["spike-hold"], []]
    assert [row[1] for row in rows(out)[2:]] == ["1.000e-03", *["9.524e-04"] * 3]


def test_a_run_folder_boosts_its_hard_clients(schedule, tmp_path: Path):
    for client, loss in enumerate([1.0, 1.0, 7.0]):
        folder = tmp_path / "run" / "clients" / f"client_{client}"
        folder.mkdir(parents=True)
        entry = {"round": 1, "client": client, "train": {"loss": loss}}
        (folder / "round_1.json").write_text(json.dumps(entry))
    (tmp_path / "run" / "server").mkdir()
    rounds = {"rounds": [{"round": 0, "server": {"loss": 2.0}}, {"round": 1}]}
    (tmp_path / "run" / "server" / "federated_metrics.json").write_text(json.dumps(rounds))
    _, out, _ = schedule(
        "--losses",
        str(tmp_path / "run"),
        "-c",
        "boost-hard-clients='on' num-server-rounds=3",
        "-c",
        "initial-lr=0.001 lr-schedule='constant'",
    )
    assert "losses: 1 of the server, 3 of clients" in out
    boosted = [row[3].split() if row[3:] else [] for row in rows(out)]
    assert boosted == [[], ["2:", "1.150e-03", "hard-client"], []]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--losses", "nowhere"], "--losses: nowhere cannot be read (No such file or directory)"),
        (["--losses", "text.json"], "--losses: text.json holds no losses (Invalid JSON:"),
        (["--png", "nowhere/schedule.png"], "--png: nowhere/schedule.png cannot be written (No "),
        (["--png", "folder"], "--png: folder cannot be written (Is a directory). Name a file"),
        (["-c", "eta-min=0.1"], "eta-min = 0.1 is above the learning rate of round 1, 0.001:"),
        (["-c", "t-zero=3"], "t-zero is not a known key. Did you mean"),
        (["-c", "preset='wild'"], "preset = 'wild' is not valid: it has to be one of"),
        (["--app", "nowhere"], "nowhere/pyproject.toml cannot be read"),
    ],
)
def test_a_mistake_is_one_line(schedule, tmp_path: Path, arguments: list[str], message: str):
    (tmp_path / "folder").mkdir()
    (tmp_path / "text.json").write_text("loss 2.5")
    status, _, err = schedule(*arguments)
    assert status == 1
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "text.json"]


@pytest.mark.parametrize("rule", get_args(Rule))
def test_the_chart_marks_each_rule_in_its_colour(tmp_path: Path, rule: Rule):
    calm = [(number, RoundPlan(1e-3, 0.01, {}, ())) for number in (1, 2, 3)]
    acted = [(2, RoundPlan(1e-3, 0.01, {}, (rule,)))]
    colour = tuple(round(255 * channel) for channel in to_rgb(COLOURS[rule]))
    schedule_chart(tmp_path / "chart.png", calm)
    assert colour not in colours(tmp_path / "chart.png")
    schedule_chart(tmp_path / "chart.png", [calm[0], *acted, calm[2]])
    assert colour in colours(tmp_path / "chart.png")


def test_a_curve_fills_its_panel_below_the_marks(tmp_path: Path):
    rules: tuple[Rule, ...] = ("stall", "cap", "plateau")
    plans = [(number, RoundPlan(1e-3, 0.01, {}, rules)) for number in (1, 2, 3)]
    schedule_chart(tmp_path / "chart.png", plans)
    with Image.open(tmp_path / "chart.png") as image:
        left = image.convert("L").crop((0, 0, image.width // 2, image.height))
    black = np.asarray(left) == 0  # the flat curve, and the axes' frame
    curve = int(np.argmax(black.sum(axis=1) > 500))  # pixels from the top
    assert 0.2 < curve / len(black) < 0.35


@pytest.mark.filterwarnings("error")
def test_the_chart_draws_boosted_rates_and_no_mu(tmp_path: Path):
    colour = tuple(round(255 * channel) for channel in to_rgb(COLOURS["hard-client"]))
    schedule_chart(tmp_path / "chart.png", [(1, RoundPlan(1e-3, 0.0, {}, ()))])
    assert colour not in colours(tmp_path / "chart.png")
    schedule_chart(tmp_path / "chart.png", [(1, RoundPlan(1e-3, 0.0, {2: 2e-3}, ()))])
    assert colour in colours(tmp_path / "chart.png")


@pytest.mark.parametrize(
    ("arguments", "absent"),
    [
        (["--help"], ("torch", "flwr", "lerobot", "matplotlib")),
        (["--app", str(PROJECT), "--png", "PNG"], ("torch", "lerobot", "mujoco")),
    ],
)
def test_a_preview_needs_no_torch(tmp_path: Path, arguments: list[str], absent: tuple[str, ...]):
    given = [str(tmp_path / "s.png") if word == "PNG" else word for word in arguments]
    statement = (
        "import sys\nfrom zk0.cli import main\n"
        f"sys.argv = ['zk0', 'schedule', *{given!r}]\n"
        "out, sys.stdout = sys.stdout, sys.stderr\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "sys.stdout = out"
    )
    assert loaded(statement, *absent) == set()
