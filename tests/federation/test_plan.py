import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PROJECT
from zk0.config import Config, load
from zk0.errors import Zk0Error
from zk0.federation.plan import (
    PREVIEW_RATE,
    PREVIEW_RATES,
    Outcome,
    preview_rate,
    read_outcomes,
    schedule_settings,
    simulate,
)
from zk0.federation.schedules import RoundPlan, ScheduleSettings


def config(**overrides: Any) -> Config:
    hyphenated = {key.replace("_", "-"): value for key, value in overrides.items()}
    return load(PROJECT, hyphenated)[0]


def play(outcomes: list[Outcome], **overrides: Any) -> list[tuple[int, RoundPlan]]:
    return simulate(schedule_settings(config(**overrides), 1e-3), outcomes)


# --- from the configuration ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "lr_schedule", "switches"),
    [
        ({}, "cosine", (False, False, False)),
        ({"preset": "dynamic"}, "cosine_warm_restarts", (True, True, True)),
        ({"lr_schedule": "cosine"}, "cosine", (False, False, False)),
        ({"preset": "dynamic", "lr_schedule": "constant"}, "constant", (True, True, True)),
        ({"adjust_globally": "on"}, "cosine", (True, False, False)),
        ({"dynamic_mu": "on"}, "cosine", (False, True, False)),
        ({"boost_hard_clients": "on"}, "cosine", (False, False, True)),
        (
            {"preset": "dynamic", "adjust_globally": "off"},
            "cosine_warm_restarts",
            (False, True, True),
        ),
        ({"preset": "dynamic", "dynamic_mu": "off"}, "cosine_warm_restarts", (True, False, True)),
        (
            {"preset": "dynamic", "boost_hard_clients": "off"},
            "cosine_warm_restarts",
            (True, True, False),
        ),
    ],
)
def test_a_key_wins_over_the_preset(
    overrides: dict[str, Any], lr_schedule: str, switches: tuple[bool, bool, bool]
):
    settings = schedule_settings(config(**overrides), 1e-3)
    assert settings.lr_schedule == lr_schedule
    switched = (settings.adjust_globally, settings.dynamic_mu, settings.boost_hard_clients)
    assert switched == switches


def test_every_key_reaches_its_setting():
    values = {
        "eta_min": 1e-5,
        "lr_schedule": "reduce_on_plateau",
        "t_0": 7,
        "t_mult": 3,
        "stall_patience": 4,
        "adjust_window": 6,
        "spike_threshold": 0.11,
        "divergence_threshold": 0.22,
        "stall_threshold": 0.033,
        "proximal_mu": 0.44,
        "mu_min": 0.055,
        "mu_decay": 0.66,
        "mu_adjust_factor": 1.77,
        "loss_std_threshold": 0.88,
        "high_loss_multiplier": 1.99,
        "lr_boost_factor": 1.21,
    }
    switches = {"adjust_globally": "on", "dynamic_mu": "off", "boost_hard_clients": "on"}
    given = config(num_server_rounds=42, **values, **switches)
    assert schedule_settings(given, 0.02) == ScheduleSettings(
        initial_lr=0.02,
        num_rounds=42,
        adjust_globally=True,
        dynamic_mu=False,
        boost_hard_clients=True,
        **values,
    )


@pytest.mark.parametrize(
    ("strategy", "mu"),
    [("fedprox", 0.3)]
    + [(name, 0.0) for name in ("fedavg", "fedavgm", "fedadam", "fedyogi", "fedadagrad")]
    + [("scaffold", 0.0)],
)
def test_only_fedprox_has_a_proximal_term(strategy: str, mu: float):
    overrides = {"strategy": strategy, "proximal_mu": 0.3, "preset": "dynamic"}
    assert play([], **overrides)[0][1].proximal_mu == mu
    assert (play([], **overrides)[-1][1].proximal_mu > 0) == (mu > 0)


def test_eta_min_above_the_rate_names_both_keys():
    with pytest.raises(Zk0Error) as error:
        schedule_settings(config(eta_min=0.01), 1e-3)
    assert str(error.value) == (
        "eta-min = 0.01 is above the learning rate of round 1, 0.001: lower it, or raise "
        "initial-lr."
    )
    assert schedule_settings(config(eta_min=1e-3), 1e-3).eta_min == 1e-3


def test_rate_of_a_preview():
    assert preview_rate(config(initial_lr=0.02)) == 0.02
    assert preview_rate(config(model_name="embedded")) == 1e-3
    assert preview_rate(config(model_name="lerobot/smolvla_base")) == 1e-4


def test_rates_of_a_preview_are_those_of_the_models():
    import torch
    from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig

    from zk0.learning.policy import EMBEDDED, EMBEDDED_RANDOM, build_policy

    assert {
        name: build_policy(name, 0, torch.device("cpu")).config.optimizer_lr
        for name in (EMBEDDED, EMBEDDED_RANDOM)
    } == PREVIEW_RATES
    assert SmolVLAConfig().optimizer_lr == PREVIEW_RATE


# --- played without training -----------------------------------------------------------------


def test_every_round_has_a_plan():
    plans = play([], num_server_rounds=3, lr_schedule="cosine", eta_min=0.0)
    assert [number for number, _ in plans] == [1, 2, 3]
    assert [plan.learning_rate for _, plan in plans] == pytest.approx([1e-3, 5e-4, 0])
    assert len(play([], num_server_rounds=1)) == 1


def test_a_round_is_planned_from_the_outcome_before():
    outcomes = [Outcome(1.0), Outcome(1.0), Outcome(2.0), Outcome(None, {0: 1.0, 1: 1.0, 2: 7.0})]
    switches = {"adjust_globally": "on", "boost_hard_clients": "on"}
    overrides = {**switches, "num_server_rounds": 5, "lr_schedule": "constant"}
    rules = [plan.rules for _, plan in play(outcomes, **overrides)]
    assert rules == [(), (), ("spike-hold",), ("hard-client",), ()]
    boosted = dict(play(outcomes, **overrides))[4].boosted
    assert boosted == {2: pytest.approx(1.15e-3)}


def test_the_loss_before_round_1_opens_the_window():
    overrides = {"adjust_globally": "on", "num_server_rounds": 3}
    spike = [Outcome(1.0), Outcome(1.0), Outcome(2.0)]
    assert play(spike, **overrides)[2][1].rules == ("spike-hold",)
    assert play([Outcome(), *spike[1:]], **overrides)[2][1].rules == ()


def test_outcomes_beyond_the_last_round_are_not_looked_at():
    ended = [Outcome(1.0), Outcome(1.0)]
    assert play([*ended, Outcome(float("nan"))], num_server_rounds=2) == play(
        ended, num_server_rounds=2
    )


# --- losses of an earlier run ----------------------------------------------------------------


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """Rounds 0 to 3, of which 2 was not evaluated and client 1 did not train in 3."""
    folder = tmp_path / "run"
    rounds = [
        {"round": 0, "server": {"loss": 2.5, "datasets": {}}},
        {"round": 1, "train": {"loss": 9.0}, "server": {"loss": 2}},
        {"round": 2, "train": {"loss": 9.0}},
        {"round": 3, "server": {"loss": 1.5}},
    ]
    write(folder / "server" / "federated_metrics.json", {"rounds": rounds})
    for number, client, loss in [(1, 0, 1.0), (1, 1, 7.0), (2, 0, 0.5), (2, 1, 0.75), (3, 0, 0.25)]:
        entry = {"round": number, "client": client, "slug": "x", "train": {"loss": loss}}
        write(folder / "clients" / f"client_{client}" / f"round_{number}.json", entry)
    evaluated = {"round": 3, "client": 1, "evaluate": {"loss": 8.0}}
    write(folder / "clients" / "client_1" / "round_3.json", evaluated)
    return folder


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def test_a_run_folder_gives_losses_of_server_and_clients(run_folder: Path):
    assert read_outcomes(run_folder, 4) == [
        Outcome(2.5),
        Outcome(2.0, {0: 1.0, 1: 7.0}),
        Outcome(None, {0: 0.5, 1: 0.75}),
        Outcome(1.5, {0: 0.25}),
        Outcome(),
    ]
    assert len(read_outcomes(run_folder, 1)) == 2


def test_clients_of_a_void_or_unlisted_round_count_for_nothing(run_folder: Path):
    void = {"rounds": [{"round": 0}, {"round": 1, "void": True}, {"round": 2, "void": False}]}
    write(run_folder / "server" / "federated_metrics.json", void)
    trained = [outcome.client_losses for outcome in read_outcomes(run_folder, 3)]
    assert trained == [{}, {}, {0: 0.5, 1: 0.75}, {}]


def test_the_metrics_file_gives_losses_of_the_server(run_folder: Path):
    outcomes = read_outcomes(run_folder / "server" / "federated_metrics.json", 3)
    assert outcomes == [Outcome(2.5), Outcome(2.0), Outcome(None), Outcome(1.5)]


def test_a_list_gives_losses_from_round_0_on(tmp_path: Path):
    (tmp_path / "losses.json").write_text("\n [2.5, null, 2]")
    outcomes = read_outcomes(tmp_path / "losses.json", 3)
    assert outcomes == [Outcome(2.5), Outcome(None), Outcome(2.0), Outcome(None)]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "Invalid JSON: EOF"),
        (b"2.5, 2.0", "Invalid JSON: trailing"),
        (b"\xff\xfe", "Invalid JSON"),
        (b"[2.5, NaN]", "1: Input should be a finite number"),
        (b"[2.5, Infinity]", "1: Input should be a finite number"),
        (b"[2.5, 1" + b"0" * 400 + b"]", "1: Input should be a finite number"),
        (b"[true]", "0: Input should be a valid number"),
        (b'["2.5"]', "0: Input should be a valid number"),
        (b"[[2.5]]", "0: Input should be a valid number"),
        (b"{}", "rounds: Field required"),
        (b'{"rounds": "abc"}', "rounds: Input should be a valid"),
        (b'{"rounds": [{"server": {"loss": 1}}]}', "rounds: 0: round: Field required"),
        (b'{"rounds": [{"round": -1}]}', "rounds: 0: round: Input should be greater"),
        (b'{"rounds": [{"round": 1, "server": {}}]}', "rounds: 0: server: loss: Field required"),
        (b"2.5", "Input should be an object"),
    ],
)
def test_a_file_without_losses_is_refused_in_one_line(tmp_path: Path, content: bytes, problem: str):
    path = tmp_path / "losses.json"
    path.write_bytes(content)
    with pytest.raises(Zk0Error) as error:
        read_outcomes(path, 3)
    assert str(error.value).startswith(f"--losses: {path} holds no losses ({problem}")
    assert str(error.value).endswith("or a JSON list of losses from round 0 on.")
    assert "\n" not in str(error.value)


def test_a_broken_file_of_a_client_is_named(run_folder: Path):
    path = run_folder / "clients" / "client_1" / "round_2.json"
    write(path, {"round": 2, "client": 1, "train": {"loss": "low"}})
    with pytest.raises(Zk0Error) as error:
        read_outcomes(run_folder, 3)
    problem = "train: loss: Input should be a valid number"
    assert str(error.value).startswith(f"--losses: {path} holds no losses ({problem})")


@pytest.mark.parametrize("name", ["nowhere.json", "."])
def test_what_is_not_there_is_named(tmp_path: Path, name: str):
    with pytest.raises(Zk0Error) as error:
        read_outcomes(tmp_path / name, 3)
    missing = tmp_path / ("server/federated_metrics.json" if name == "." else name)
    assert str(error.value).startswith(
        f"--losses: {missing} cannot be read (No such file or directory). Name a run folder"
    )
