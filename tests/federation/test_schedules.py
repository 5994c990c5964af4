import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zk0.errors import Zk0Error
from zk0.federation.schedules import (
    RoundPlan,
    ScheduleSettings,
    ScheduleState,
    advance,
    begin,
    cap_factor,
    global_rule,
    hard_clients,
    observe_start,
    period_progress,
    scheduled_lr,
    scheduled_mu,
    spread_factor,
)

Outcome = tuple[float | None, Mapping[int, float]]

STILL = ScheduleSettings(
    initial_lr=1e-3,
    eta_min=1e-5,
    lr_schedule="constant",
    num_rounds=50,
    t_0=15,
    t_mult=2,
    stall_patience=5,
    adjust_globally=False,
    adjust_window=5,
    spike_threshold=0.5,
    divergence_threshold=0.125,  # a power of two, so that a loss can lie exactly on it
    stall_threshold=0.0625,
    proximal_mu=0.01,
    dynamic_mu=False,
    mu_min=1e-4,
    mu_decay=0.99,
    mu_adjust_factor=1.05,
    loss_std_threshold=1.2,
    boost_hard_clients=False,
    high_loss_multiplier=2.0,
    lr_boost_factor=1.15,
)
GLOBAL = replace(STILL, adjust_globally=True)
DYNAMIC = replace(GLOBAL, dynamic_mu=True, boost_hard_clients=True, lr_schedule="cosine")
WIDE = {0: 1.0, 1: 4.0}  # standard deviation 1.5
HARD = {0: 1.0, 1: 1.0, 2: 7.0}  # client 2 is above twice the mean of 3
SPREAD = (1.0, 1.0, 1.0)


def play(
    settings: ScheduleSettings, outcomes: Sequence[Outcome], start: float | None = None
) -> tuple[ScheduleState, list[RoundPlan]]:
    state = begin(settings)
    if start is not None:
        state = observe_start(state, start)
    plans = [state.plan]
    for server_loss, client_losses in outcomes:
        state = advance(settings, state, server_loss, client_losses)
        plans.append(state.plan)
    return state, plans


def after(settings: ScheduleSettings, *losses: float | None) -> RoundPlan:
    """The plan that follows rounds with these losses of the server."""
    return play(settings, [(loss, {}) for loss in losses])[1][-1]


# --- learning rate ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("server_round", "num_rounds", "rate"),
    [
        (1, 11, 1e-3),
        (6, 11, (1e-3 + 1e-5) / 2),
        (4, 11, 1e-5 + 0.99e-3 * (1 + math.cos(0.3 * math.pi)) / 2),
        (11, 11, 1e-5),
        (12, 11, 1e-5),
        (22, 11, 1e-5),
        (1, 1, 1e-3),
    ],
)
def test_cosine_falls_over_the_run(server_round: int, num_rounds: int, rate: float):
    settings = replace(STILL, lr_schedule="cosine", num_rounds=num_rounds)
    assert scheduled_lr(settings, server_round, 1.0) == pytest.approx(rate)


@pytest.mark.parametrize(
    ("server_round", "t_0", "t_mult", "progress"),
    [
        (1, 15, 2, 0),
        (15, 15, 2, 14 / 15),
        (16, 15, 2, 0),
        (45, 15, 2, 29 / 30),
        (46, 15, 2, 0),
        (105, 15, 2, 59 / 60),
        (106, 15, 2, 0),
        (30, 15, 1, 14 / 15),
        (31, 15, 1, 0),
        (2, 1, 3, 0),
        (4, 1, 3, 2 / 3),
        (5, 1, 3, 0),
    ],
)
def test_periods_restart_and_grow(server_round: int, t_0: int, t_mult: int, progress: float):
    assert period_progress(server_round, t_0, t_mult) == pytest.approx(progress)


def test_warm_restart_returns_to_the_initial_rate():
    settings = replace(STILL, lr_schedule="cosine_warm_restarts", t_0=4)
    rates = [scheduled_lr(settings, r, 1.0) for r in range(1, 6)]
    shares = [1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2, 1]
    assert rates == pytest.approx([1e-5 + 0.99e-3 * share for share in shares])


def test_constant_rate_follows_no_loss_unless_told_to():
    losses = [1.0, 1.0, 1.0, 1.0, 1.0, 9.0, 99.0]
    _, plans = play(STILL, [(loss, HARD) for loss in losses])
    assert set(map(str, plans)) == {str(RoundPlan(1e-3, 0.01, {}, ()))}


@pytest.mark.parametrize(
    ("losses", "halvings", "rules"),
    [
        ([1.0] * 5, 0, ()),  # the first is the best, four follow it
        ([1.0] * 6, 1, ("plateau",)),
        ([1.0] * 10, 1, ()),  # the count starts anew
        ([1.0] * 11, 2, ("plateau",)),
        ([1.0, 2.0, 2.0, 2.0, 2.0, 0.9], 0, ()),
        ([1.0, 2.0, 2.0, 2.0, 0.9, 2.0, 2.0, 2.0, 2.0], 0, ()),
        ([1.0, None, None, None, None, None, None, 1.0], 0, ()),  # only evaluated rounds count
        ([1.0, 1.0, None, 1.0, None, 1.0, None, 1.0, None, 1.0], 1, ("plateau",)),
    ],
)
def test_plateau_halves_the_rate(losses: list[float | None], halvings: int, rules: tuple):
    plan = after(replace(STILL, lr_schedule="reduce_on_plateau"), *losses)
    assert plan.learning_rate == pytest.approx(1e-3 * 0.5**halvings)
    assert plan.rules == rules


def test_loss_before_round_1_is_the_first_best_one():
    settings = replace(STILL, lr_schedule="reduce_on_plateau")
    assert play(settings, [(1.0, {})] * 5, start=0.5)[1][-1].rules == ("plateau",)
    assert play(settings, [(1.0, {})] * 4, start=0.5)[1][-1].rules == ()


def test_start_is_observed_once_and_before_round_1_is_over():
    state = observe_start(begin(STILL), 1.0)
    with pytest.raises(ValueError, match="no start"):
        observe_start(state, 1.0)
    with pytest.raises(ValueError, match="no start"):
        observe_start(advance(STILL, begin(STILL), None, {}), 1.0)


@pytest.mark.parametrize(("lr_factor", "rate"), [(1.2, 1e-3), (0.5, 0.5e-3), (1e-9, 1e-5)])
def test_rate_is_clipped_to_its_limits(lr_factor: float, rate: float):
    assert scheduled_lr(STILL, 2, lr_factor) == rate


def test_repeated_reductions_stop_at_eta_min():
    settings = replace(STILL, lr_schedule="reduce_on_plateau", stall_patience=1)
    assert after(settings, *[1.0] * 30).learning_rate == 1e-5


def test_eta_min_above_the_initial_rate_is_refused():
    with pytest.raises(Zk0Error, match=r"eta-min = 0\.01 is above"):
        replace(STILL, eta_min=0.01)
    assert replace(STILL, eta_min=1e-3).eta_min == 1e-3


# --- global adjustment -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("losses", "rule"),
    [
        ([1.0, 9.0], None),  # two losses are no window of three
        ([1.0, 1.0, 1.5], None),  # on the threshold
        ([1.0, 1.0, 1.5001], "spike-hold"),
        ([1.0, 1.0, 1.0, 1.6, 1.0], "stall"),  # a spike that is over
        ([8.0, 1.0, 9.0, 1.0, 1.0], None),
        ([4.0, 4.0, 4.0, 4.0, 4.6], "spike-hold"),  # also a divergence, by 15 %
        ([4.0, 4.0, 4.5, 4.5, 4.6], "divergence"),  # also a stall
        ([4.0, 4.2, 4.4, 4.6], None),  # four losses are no window of five
        ([4.0, 4.2, 4.3, 4.4, 4.5], "stall"),  # up by 12.5 %, on the threshold
        ([4.0, 4.0, 4.0, 4.0, 3.7501], "stall"),
        ([4.0, 4.0, 4.0, 4.0, 3.75], None),  # down by 6.25 %, on the threshold
        ([4.0, 3.0, 3.0, 3.0, 3.0, 3.0], "stall"),  # the first loss has left the window
        ([0.0, 0.0, 0.0, 0.0, 0.1], "divergence"),
        ([0.0, 0.0, 0.0, 0.0, 0.0], None),
    ],
)
def test_first_global_rule_that_the_losses_show(losses: list[float], rule: str | None):
    assert global_rule(GLOBAL, losses) == rule


@pytest.mark.parametrize(
    ("factor", "server_round", "capped"),
    [
        (0.95, 19, 1 / 1.05),
        (0.95, 20, 0.95),
        (1.05, 19, 1.05),
        (1.2, 19, 1.05),
        (1.2, 20, 1.2),
        (1.0, 2, 1.0),
    ],
)
def test_factors_are_capped_before_round_20(factor: float, server_round: int, capped: float):
    assert cap_factor(factor, server_round) == capped


@pytest.mark.parametrize(
    ("losses", "lr", "mu", "rules"),
    [
        ([4.0, 4.0, 4.5, 4.5, 4.6], 1 / 1.05, 1.05, ("divergence", "cap")),
        ([4.0, 4.0, 4.5, 4.5, 4.6, 4.6], 1 / 1.05**2, 1.05**2, ("divergence", "cap")),
        ([4.0, 4.0, 4.0, 4.0, 4.0], 1 / 1.05, 1.0, ("stall", "cap")),
        ([4.0, 4.0, 4.0, 4.0, 4.0, 4.0], 1 / 1.05**2, 1.0, ("stall", "cap")),
        ([4.0, 4.0, 4.0, 4.0, 4.0, 3.0], 1 / 1.05, 1.0, ()),  # what was adjusted stays so
        ([4.0, 4.0, 4.0, 4.0, 4.0, None], 1 / 1.05, 1.0, ()),  # and not twice for one loss
    ],
)
def test_adjustments_compound(losses: list[float | None], lr: float, mu: float, rules: tuple):
    plan = after(GLOBAL, *losses)
    assert plan.learning_rate == pytest.approx(1e-3 * lr)
    assert plan.proximal_mu == pytest.approx(0.01 * mu)
    assert plan.rules == rules


@pytest.mark.parametrize(
    ("void_rounds", "factor", "rules"),
    [(13, 1 / 1.05, ("stall", "cap")), (14, 0.95, ("stall",)), (15, 0.95, ("stall",))],
)
def test_round_20_is_the_first_without_a_cap(void_rounds: int, factor: float, rules: tuple):
    # Five measured losses plan round 6, so thirteen void rounds and they plan round 19.
    plan = after(GLOBAL, *[None] * void_rounds, *[4.0] * 5)
    assert plan.learning_rate == pytest.approx(1e-3 * factor)
    assert plan.rules == rules


def test_loss_before_round_1_opens_the_window():
    assert play(GLOBAL, [(4.0, {})] * 4, start=4.0)[1][-1].rules == ("stall", "cap")
    assert play(GLOBAL, [(4.0, {})] * 4)[1][-1].rules == ()


def test_spike_holds_every_rate_of_the_round_before():
    outcomes: list[Outcome] = [(1.0, {}), (1.0, HARD), (1.6, WIDE), (1.3, {})]
    _, plans = play(DYNAMIC, outcomes)
    assert plans[2].boosted == pytest.approx({2: scheduled_lr(DYNAMIC, 3, 1.0) * 1.15})
    assert plans[2].rules == ("mu-spread", "hard-client")
    assert plans[3] == replace(plans[2], rules=("spike-hold",))
    assert plans[4].learning_rate == scheduled_lr(DYNAMIC, 5, 1.0) < plans[3].learning_rate


def test_reduction_that_falls_due_in_a_held_round_comes_after_it():
    settings = replace(GLOBAL, lr_schedule="reduce_on_plateau", stall_patience=2, adjust_window=9)
    _, plans = play(settings, [(1.0, {}), (1.0, {}), (1.6, {}), (None, {})])
    assert [plan.rules for plan in plans[3:]] == [("spike-hold",), ("plateau",)]
    assert [plan.learning_rate for plan in plans[3:]] == [1e-3, 0.5e-3]


def test_plateau_is_neither_a_global_adjustment_nor_capped():
    settings = replace(GLOBAL, lr_schedule="reduce_on_plateau", stall_patience=4)
    plan = after(settings, *[4.0] * 5)
    assert plan.rules == ("stall", "cap", "plateau")
    assert plan.learning_rate == pytest.approx(1e-3 / 1.05 * 0.5)


# --- mu --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mu_0", "dynamic", "server_round", "mu_factor", "k", "mu"),
    [
        (0.01, False, 9, 1.0, 1.05, 0.01),
        (0.01, False, 9, 1.05, 1.05, 0.0105),
        (0.01, True, 1, 1.0, 1.0, 0.01),
        (0.01, True, 3, 1.0, 1.0, 0.01 * 0.99**2),
        (0.01, True, 3, 1.1, 1.05, 0.01 * 1.1 * 0.99**2 * 1.05),
        (0.01, True, 1000, 1.0, 1.0, 1e-4),
        (0.0, True, 1, 1.05, 1.05, 0.0),  # FedAvg stays FedAvg, whatever mu_min says
        (0.0, False, 1, 1.05, 1.05, 0.0),
        (1e-5, False, 1, 1.0, 1.0, 1e-5),  # mu_min is for a dynamic mu only
    ],
)
def test_mu_of_a_round(
    mu_0: float, dynamic: bool, server_round: int, mu_factor: float, k: float, mu: float
):
    settings = replace(STILL, proximal_mu=mu_0, dynamic_mu=dynamic)
    assert scheduled_mu(settings, server_round, mu_factor, k) == pytest.approx(mu)


@pytest.mark.parametrize(
    ("losses", "factor"),
    [
        ({}, 1.0),
        ({0: 9.0}, 1.0),
        ({0: 1.0, 1: 2.0, 2: 3.0, 3: 4.0}, 1.0),
        ({0: 1.0, 1: 3.5}, 1.05),  # population 1.25
        ({0: 1.0, 1: 3.0}, 1.0),  # population 1.0, sample 1.41
        ({0: 1.0, 1: 3.4}, 1.0),  # population 1.2, on the threshold
        (WIDE, 1.05),
    ],
)
def test_mu_rises_where_the_clients_losses_spread(losses: dict[int, float], factor: float):
    assert spread_factor(DYNAMIC, losses) == factor
    assert spread_factor(replace(DYNAMIC, dynamic_mu=False), losses) == 1.0


def test_spread_does_not_compound():
    _, plans = play(replace(DYNAMIC, mu_decay=1.0), [(None, WIDE)] * 3 + [(None, {0: 1.0, 1: 1.0})])
    assert [plan.proximal_mu for plan in plans] == pytest.approx([0.01, *[0.0105] * 3, 0.01])
    assert [plan.rules for plan in plans] == [(), *[("mu-spread",)] * 3, ()]


def test_fedavg_stays_fedavg():
    losses = [4.0, 4.0, 4.5, 4.5, 4.6, 4.9, 5.3]
    _, plans = play(replace(DYNAMIC, proximal_mu=0.0), [(loss, WIDE) for loss in losses])
    assert {plan.proximal_mu for plan in plans} == {0.0}
    assert all("mu-spread" not in plan.rules for plan in plans)
    assert "divergence" in plans[5].rules


# --- hard clients ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("losses", "hard"),
    [
        ({}, []),
        (HARD, [2]),
        ({0: 1.0, 1: 1.0, 2: 4.0}, []),  # twice the mean of 2, on the threshold
        ({0: 0.0, 1: 100.0}, []),  # one of two clients is never above twice their mean
        ({3: 0.0, 1: 9.0, 7: 0.0, 5: 9.0, 4: 0.0}, [1, 5]),
    ],
)
def test_hard_clients_are_far_above_the_mean(losses: dict[int, float], hard: list[int]):
    assert hard_clients(DYNAMIC, losses) == hard
    assert hard_clients(replace(DYNAMIC, boost_hard_clients=False), losses) == []


def test_hard_client_gets_a_higher_rate_in_the_next_round_only():
    settings = replace(STILL, boost_hard_clients=True)
    _, plans = play(settings, [(None, HARD), (None, {})])
    assert plans[1].learning_rate_of(2) == pytest.approx(1.15e-3)
    assert plans[1].learning_rate_of(0) == plans[1].learning_rate == 1e-3
    assert plans[1].rules == ("hard-client",)
    assert plans[2] == plans[0]


# --- what holds for any history --------------------------------------------------------------

losses = st.floats(0, 1e6)
histories = st.lists(
    st.tuples(
        st.none() | losses | st.sampled_from([1.0, 1.2, 1.9]),
        st.dictionaries(st.integers(0, 5), losses, max_size=6),
    ),
    max_size=40,
)
any_settings = st.builds(
    replace,
    st.just(DYNAMIC),
    initial_lr=st.floats(1e-4, 1e-2),
    eta_min=st.sampled_from([0.0, 1e-6, 1e-4]),
    lr_schedule=st.sampled_from(
        ["constant", "cosine", "cosine_warm_restarts", "reduce_on_plateau"]
    ),
    num_rounds=st.integers(1, 30),
    t_0=st.integers(1, 15),
    t_mult=st.integers(1, 3),
    stall_patience=st.integers(1, 5),
    adjust_globally=st.booleans(),
    adjust_window=st.integers(2, 6),
    proximal_mu=st.sampled_from([0.0, 1e-5, 0.01]),
    dynamic_mu=st.booleans(),
    boost_hard_clients=st.booleans(),
    lr_boost_factor=st.sampled_from([1.0, 1.15, 3.0]),
)


@given(any_settings, histories, st.none() | losses)
def test_rates_stay_within_their_limits(
    settings: ScheduleSettings, history: list[Outcome], start: float | None
):
    for plan in play(settings, history, start)[1]:
        assert settings.eta_min <= plan.learning_rate <= settings.initial_lr
        for rate in plan.boosted.values():
            highest = settings.initial_lr * settings.lr_boost_factor
            assert plan.learning_rate <= rate <= highest
        assert plan.proximal_mu >= (settings.mu_min if settings.dynamic_mu else 0) or (
            plan.proximal_mu == settings.proximal_mu == 0
        )


@given(any_settings, histories, st.data())
def test_resumed_schedule_plans_what_the_uninterrupted_one_plans(
    settings: ScheduleSettings, history: list[Outcome], data: st.DataObject
):
    kill = data.draw(st.integers(0, len(history)))
    final, plans = play(settings, history, start=1.0)
    stopped, before = play(settings, history[:kill], start=1.0)
    state = ScheduleState.from_json(json.loads(json.dumps(stopped.to_json(), allow_nan=False)))
    assert state == stopped
    assert state.plan == plans[kill]
    resumed = []
    for server_loss, client_losses in history[kill:]:
        state = advance(settings, state, server_loss, client_losses)
        resumed.append(state.plan)
    assert before + resumed == plans
    assert state == final


@given(any_settings, histories)
def test_same_history_gives_the_same_plans_and_is_left_alone(
    settings: ScheduleSettings, history: list[Outcome]
):
    copy = [(server_loss, dict(client_losses)) for server_loss, client_losses in history]
    state, _ = play(settings, history)
    kept = json.dumps(state.to_json())
    once = advance(settings, state, 1.0, HARD)
    assert advance(settings, state, 1.0, HARD) == once
    assert json.dumps(state.to_json()) == kept
    assert play(settings, history) == play(settings, copy)
    assert history == copy


@given(histories)
def test_state_does_not_grow_with_the_run(history: list[Outcome]):
    assert len(play(replace(GLOBAL, adjust_window=2), history, start=1.0)[0].losses) <= 3


# --- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_loss_that_is_not_finite_is_refused(loss: float):
    state = begin(STILL)
    for outcome in ((loss, {}), (None, {0: 1.0, 1: loss})):
        with pytest.raises(Zk0Error, match="a loss of round 1 is not finite"):
            advance(STILL, state, *outcome)
    with pytest.raises(Zk0Error, match="a loss of round 0 is not finite"):
        observe_start(state, loss)


def written() -> dict[str, Any]:
    outcomes = [(1.0, HARD), (2.0, HARD)]
    return json.loads(json.dumps(play(replace(DYNAMIC, adjust_window=2), outcomes)[0].to_json()))


def test_written_state_is_read():
    state = ScheduleState.from_json(written())
    assert (state.round, state.losses, state.best_loss) == (3, (1.0, 2.0), 1.0)
    assert state.plan.boosted.keys() == {2}
    assert state.plan.rules == ("divergence", "cap", "mu-spread", "hard-client")


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("round",), 0),
        (("round",), 1.0),
        (("round",), True),
        (("losses",), [1.0, math.nan]),
        (("losses",), [1.0, "2"]),
        (("losses",), 1.0),
        (("losses",), None),
        (("best_loss",), math.inf),
        (("evaluations_since_best",), -1),
        (("lr_factor",), math.nan),
        (("lr_factor",), -0.5),
        (("mu_factor",), True),
        (("mu_factor",), 10**400),
        (("foreign",), 1),
        (("plan",), [1e-3, 0.01]),
        (("plan", "foreign"), 1),
        (("plan", "learning_rate"), math.nan),
        (("plan", "proximal_mu"), None),
        (("plan", "boosted"), [1]),
        (("plan", "boosted"), {"two": 1e-3}),
        (("plan", "boosted"), {"2": math.inf}),
        (("plan", "rules"), ["foreign"]),
        (("plan", "rules"), [[]]),
        (("plan", "rules"), "stall"),
    ],
)
def test_state_that_was_not_written_is_refused(place: tuple[str, ...], value: Any):
    values = written()
    record = values if len(place) == 1 else values[place[0]]
    record[place[-1]] = value
    with pytest.raises(Zk0Error, match="record of its schedule is broken"):
        ScheduleState.from_json(values)


@pytest.mark.parametrize("key", list(written()))
def test_incomplete_state_is_refused(key: str):
    values = written()
    del values[key]
    with pytest.raises(Zk0Error, match=f"missing or unknown = .'{key}'"):
        ScheduleState.from_json(values)


@pytest.mark.parametrize("values", [None, [], "state", {}])
def test_something_else_is_no_state(values: Any):
    with pytest.raises(Zk0Error, match="record of its schedule is broken"):
        ScheduleState.from_json(values)
