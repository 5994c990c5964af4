"""Learning rate and proximal mu from round to round: pure functions, numbers in, numbers out.

A schedule is a fold over the rounds' outcomes: `begin` plans round 1, `advance` takes what a round
gave and plans the next one. `ScheduleState` holds all that later plans depend on, so a run resumed
from its JSON plans what the uninterrupted run would have planned.

The server's losses count where they were measured. A round without an evaluation adds to no window
and no counter, and no rule acts twice on the same loss.
"""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from statistics import fmean, pstdev
from typing import Any, Literal, Self, get_args

from zk0.errors import Zk0Error

LrSchedule = Literal["constant", "cosine", "cosine_warm_restarts", "reduce_on_plateau"]
GlobalRule = Literal["spike-hold", "divergence", "stall"]
Rule = Literal[GlobalRule, "cap", "plateau", "mu-spread", "hard-client"]

PLATEAU_FACTOR = 0.5
SPIKE_WINDOW = 3  # losses
ADJUSTMENTS: dict[GlobalRule | None, tuple[float, float]] = {  # factors of learning rate and mu
    "divergence": (0.95, 1.05),
    "stall": (0.95, 1.0),
    None: (1.0, 1.0),
}
CAP = 1.05
FIRST_UNCAPPED_ROUND = 20


@dataclass(frozen=True)
class ScheduleSettings:
    """What a schedule depends on; the run's configuration gives the values and their ranges."""

    initial_lr: float  # learning rate of round 1 and the highest without a boost
    eta_min: float  # lowest learning rate
    lr_schedule: LrSchedule
    num_rounds: int  # rounds over which "cosine" falls to eta_min
    t_0: int  # "cosine_warm_restarts": rounds in the first period
    t_mult: int  # "cosine_warm_restarts": length of a period over that of the one before
    stall_patience: int  # "reduce_on_plateau": evaluated rounds without a new best loss
    adjust_globally: bool  # whether spike, divergence and stall of the server's loss are acted on
    adjust_window: int  # losses that divergence and stall compare, 2 or more
    spike_threshold: float  # rise over 3 losses, in units of the loss, that holds the rates
    divergence_threshold: float  # rise over the window, as a share of its first loss
    stall_threshold: float  # fall over the window, as a share of its first loss
    proximal_mu: float  # FedProx's mu in round 1; 0 is FedAvg and stays 0
    dynamic_mu: bool  # whether mu decays and follows the spread of the clients' losses
    mu_min: float  # lowest mu where it is dynamic
    mu_decay: float  # factor on a dynamic mu from round to round, at most 1
    mu_adjust_factor: float  # factor on a dynamic mu after a round whose losses spread widely
    loss_std_threshold: float  # standard deviation of the clients' losses that is wide
    boost_hard_clients: bool  # whether clients with a high loss get a higher learning rate
    high_loss_multiplier: float  # loss over the mean of the round's clients that is high
    lr_boost_factor: float  # factor on a hard client's learning rate, 1 or more

    def __post_init__(self) -> None:
        if self.eta_min > self.initial_lr:  # not a field's range: initial_lr may be the model's
            raise Zk0Error(
                f"eta-min = {self.eta_min:g} is above the learning rate of round 1, "
                f"{self.initial_lr:g}: lower it, or raise initial-lr."
            )


@dataclass(frozen=True)
class RoundPlan:
    """What the clients of a round train with, and the rules that made it differ."""

    learning_rate: float
    proximal_mu: float
    boosted: Mapping[int, float]  # learning rates of the hard clients, by client
    rules: tuple[Rule, ...]

    def learning_rate_of(self, client: int) -> float:
        return self.boosted.get(client, self.learning_rate)

    @classmethod
    def from_json(cls, values: Any) -> Self:
        record = _record(values, cls)
        boosted = record["boosted"]
        rules = _items(record["rules"], "rules")
        if not isinstance(boosted, Mapping) or not all(str(key).isdecimal() for key in boosted):
            raise _broken("boosted", boosted)
        if not all(rule in get_args(Rule) for rule in rules):
            raise _broken("rules", rules)
        return cls(
            learning_rate=_number(record["learning_rate"], "learning_rate", least=0),
            proximal_mu=_number(record["proximal_mu"], "proximal_mu", least=0),
            boosted={int(key): _number(rate, "boosted", 0) for key, rate in boosted.items()},
            rules=tuple(rules),
        )


@dataclass(frozen=True)
class ScheduleState:
    """Where a schedule stands: `round` is the round to run next and `plan` its plan."""

    round: int
    plan: RoundPlan
    losses: tuple[float, ...]  # the server's last measured losses, as many as a rule looks at
    best_loss: float | None
    evaluations_since_best: int  # or since the last reduction on a plateau
    lr_factor: float  # product of all adjustments of the learning rate so far
    mu_factor: float  # product of all adjustments of mu so far

    def to_json(self) -> dict[str, Any]:
        """The state in JSON's types; a float survives `json.dumps` and `json.loads` exactly."""
        record = asdict(self)
        record["losses"] = list(self.losses)
        record["plan"]["rules"] = list(self.plan.rules)
        record["plan"]["boosted"] = {str(key): rate for key, rate in self.plan.boosted.items()}
        return record

    @classmethod
    def from_json(cls, values: Any) -> Self:
        """Inverse of `to_json`; raises `Zk0Error` on anything that it could not have written."""
        record = _record(values, cls)
        best = record["best_loss"]
        return cls(
            round=_whole(record["round"], "round", least=1),
            plan=RoundPlan.from_json(record["plan"]),
            losses=tuple(_number(loss, "losses") for loss in _items(record["losses"], "losses")),
            best_loss=None if best is None else _number(best, "best_loss"),
            evaluations_since_best=_whole(
                record["evaluations_since_best"], "evaluations_since_best", least=0
            ),
            lr_factor=_number(record["lr_factor"], "lr_factor", least=0),
            mu_factor=_number(record["mu_factor"], "mu_factor", least=0),
        )


def begin(settings: ScheduleSettings) -> ScheduleState:
    """The state before round 1, with that round's plan."""
    rate, mu = scheduled_lr(settings, 1, 1.0), scheduled_mu(settings, 1, 1.0, 1.0)
    plan = RoundPlan(rate, mu, {}, ())
    return ScheduleState(1, plan, (), None, 0, 1.0, 1.0)


def observe_start(state: ScheduleState, server_loss: float) -> ScheduleState:
    """`state` with the loss before round 1, which opens the windows and is the first best one.

    Raises `ValueError` on any state but that of `begin`: there is only one start.
    """
    if state.round != 1 or state.losses:
        raise ValueError(f"round {state.round} is no start of a schedule")
    _refuse_non_finite(0, [server_loss])
    return replace(state, losses=(server_loss,), best_loss=server_loss)


def advance(
    settings: ScheduleSettings,
    state: ScheduleState,
    server_loss: float | None,
    client_losses: Mapping[int, float],
) -> ScheduleState:
    """The next state, with its round's plan, from what round `state.round` gave.

    `server_loss` is the server's loss after the round, None where it was not evaluated;
    `client_losses` are the training losses of the round's clients, empty for a void round. Raises
    `Zk0Error` on a loss that is not finite.
    """
    _refuse_non_finite(state.round, [*client_losses.values(), server_loss or 0.0])
    upcoming = _observe(settings, replace(state, round=state.round + 1), server_loss)
    rule = None
    if settings.adjust_globally and server_loss is not None:
        rule = global_rule(settings, upcoming.losses)
    if rule == "spike-hold":
        plan = replace(state.plan, rules=(rule,))
    else:
        upcoming, rules = _adjust(settings, upcoming, rule)
        plan = _plan(settings, upcoming, client_losses, rules)
    return replace(upcoming, plan=plan)


def scheduled_lr(settings: ScheduleSettings, server_round: int, lr_factor: float) -> float:
    """eta_r = lr_factor * (eta_min + (initial_lr - eta_min) * (1 + cos(pi * p)) / 2), clipped.

    The limits are [eta_min, initial_lr]. p is the share of the run that lies behind the round for
    "cosine", of the round's period for "cosine_warm_restarts", else 0 (Loshchilov & Hutter 2017,
    arXiv:1608.03983, eq. 5).
    """
    share = (1 + math.cos(math.pi * _progress(settings, server_round))) / 2
    rate = settings.eta_min + (settings.initial_lr - settings.eta_min) * share
    return min(settings.initial_lr, max(settings.eta_min, rate * lr_factor))


def period_progress(server_round: int, t_0: int, t_mult: int) -> float:
    """T_cur / T_i: the share of its period that lies behind a round, 0 in the round of a restart.

    Periods have t_0, t_0 * t_mult, t_0 * t_mult^2, ... rounds (Loshchilov & Hutter 2017,
    arXiv:1608.03983, section 3).
    """
    behind, period = server_round - 1, t_0
    if t_mult == 1:
        behind %= t_0
    while behind >= period:
        behind -= period
        period *= t_mult
    return behind / period


def global_rule(settings: ScheduleSettings, losses: Sequence[float]) -> GlobalRule | None:
    """The first of spike, divergence and stall that the server's last losses show.

    spike: last - first > spike_threshold, over the last 3 losses.
    divergence: (last - first) / first > divergence_threshold, over the last `adjust_window`.
    stall: (first - last) / first < stall_threshold, over the same.

    Rules of zk0's own. A window that is not full shows nothing.
    """
    recent, window = losses[-SPIKE_WINDOW:], losses[-settings.adjust_window :]
    if len(recent) == SPIKE_WINDOW and recent[-1] - recent[0] > settings.spike_threshold:
        return "spike-hold"
    if len(window) < settings.adjust_window:
        return None
    first, rise = window[0], window[-1] - window[0]
    # Multiplied out, because a first loss may be 0. Every divergence is a stall too: it goes first.
    if rise > settings.divergence_threshold * first:
        return "divergence"
    return "stall" if -rise < settings.stall_threshold * first else None


def cap_factor(factor: float, server_round: int) -> float:
    """The factor of one global adjustment, within [1/1.05, 1.05] for rounds before 20."""
    if server_round >= FIRST_UNCAPPED_ROUND:
        return factor
    return min(CAP, max(1 / CAP, factor))


def scheduled_mu(
    settings: ScheduleSettings, server_round: int, mu_factor: float, spread: float
) -> float:
    """mu_r = max(mu_min, mu_0 * mu_factor * mu_decay^(r - 1) * k), k being `spread`.

    Without `dynamic_mu`, mu_0 * mu_factor. A rule of zk0's own; mu is FedProx's (Li et al. 2020,
    arXiv:1812.06127, eq. 2), and mu_0 = 0 stays 0: `mu_min` does not make FedProx out of FedAvg.
    """
    mu = settings.proximal_mu * mu_factor
    if not settings.dynamic_mu or settings.proximal_mu == 0:
        return mu
    return max(settings.mu_min, mu * settings.mu_decay ** (server_round - 1) * spread)


def spread_factor(settings: ScheduleSettings, client_losses: Mapping[int, float]) -> float:
    """k of `scheduled_mu`: `mu_adjust_factor` where the clients' losses spread widely, else 1.

    Widely: sqrt(mean((loss - mean(loss))^2)) > loss_std_threshold, over the round before alone.
    """
    dynamic = settings.dynamic_mu and settings.proximal_mu > 0
    if not dynamic or not client_losses:
        return 1.0
    wide = pstdev(client_losses.values()) > settings.loss_std_threshold
    return settings.mu_adjust_factor if wide else 1.0


def hard_clients(settings: ScheduleSettings, client_losses: Mapping[int, float]) -> list[int]:
    """Clients with loss > high_loss_multiplier * mean(loss), the mean over the round's clients.

    A rule of zk0's own. One of n clients has at most n times the mean, so a multiplier of 2 finds
    nobody among two clients.
    """
    if not settings.boost_hard_clients or not client_losses:
        return []
    high = settings.high_loss_multiplier * fmean(client_losses.values())
    return [client for client, loss in client_losses.items() if loss > high]


def _progress(settings: ScheduleSettings, server_round: int) -> float:
    """p of `scheduled_lr`; past the last round it stays 1."""
    if settings.lr_schedule == "cosine":
        return min(1.0, (server_round - 1) / max(1, settings.num_rounds - 1))
    if settings.lr_schedule == "cosine_warm_restarts":
        return period_progress(server_round, settings.t_0, settings.t_mult)
    return 0.0


def _observe(
    settings: ScheduleSettings, state: ScheduleState, server_loss: float | None
) -> ScheduleState:
    """`state` with one more measured loss in its window and in the count since the best one."""
    if server_loss is None:
        return state
    losses = (*state.losses, server_loss)[-max(SPIKE_WINDOW, settings.adjust_window) :]
    if state.best_loss is None or server_loss < state.best_loss:
        return replace(state, losses=losses, best_loss=server_loss, evaluations_since_best=0)
    return replace(state, losses=losses, evaluations_since_best=state.evaluations_since_best + 1)


def _adjust(
    settings: ScheduleSettings, state: ScheduleState, rule: GlobalRule | None
) -> tuple[ScheduleState, tuple[Rule, ...]]:
    """`state` with its factors after a global rule and after a plateau, and the rules that acted.

    A reduction that falls due in a held round is made after it.
    """
    lr, mu = ADJUSTMENTS[rule]
    lr_capped, mu_capped = cap_factor(lr, state.round), cap_factor(mu, state.round)
    lr_factor, mu_factor = state.lr_factor * lr_capped, state.mu_factor * mu_capped
    rules: tuple[Rule, ...] = (rule,) if rule else ()
    if (lr, mu) != (lr_capped, mu_capped):
        rules += ("cap",)
    patience_over = state.evaluations_since_best >= settings.stall_patience
    if settings.lr_schedule == "reduce_on_plateau" and patience_over:
        state = replace(state, evaluations_since_best=0)
        lr_factor *= PLATEAU_FACTOR
        rules += ("plateau",)
    return replace(state, lr_factor=lr_factor, mu_factor=mu_factor), rules


def _plan(
    settings: ScheduleSettings,
    state: ScheduleState,
    client_losses: Mapping[int, float],
    rules: tuple[Rule, ...],
) -> RoundPlan:
    """The plan of `state.round`, after a round with these losses: each rate within its limits."""
    rate = scheduled_lr(settings, state.round, state.lr_factor)
    spread = spread_factor(settings, client_losses)
    hard = hard_clients(settings, client_losses)
    if spread != 1.0:
        rules += ("mu-spread",)
    if hard:
        rules += ("hard-client",)
    mu = scheduled_mu(settings, state.round, state.mu_factor, spread)
    return RoundPlan(rate, mu, dict.fromkeys(hard, rate * settings.lr_boost_factor), rules)


def _refuse_non_finite(server_round: int, losses: Sequence[float]) -> None:
    if not all(math.isfinite(loss) for loss in losses):
        raise Zk0Error(
            f"a loss of round {server_round} is not finite, and no schedule can follow it: "
            "start again with a lower initial-lr."
        )


def _record(values: Any, kind: type) -> Mapping[str, Any]:
    """`values`, if it has exactly the fields of the dataclass `kind`."""
    if not isinstance(values, Mapping):
        raise _broken(kind.__name__, values)
    odd = {field.name for field in fields(kind)} ^ set(values)
    if odd:
        raise _broken("missing or unknown", sorted(map(str, odd)))
    return values


def _items(value: Any, what: str) -> Sequence[Any]:
    if not isinstance(value, list | tuple):
        raise _broken(what, value)
    return value


def _number(value: Any, what: str, least: float = -sys.float_info.max) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not least <= value <= sys.float_info.max:  # False for nan
        raise _broken(what, value)
    return float(value)


def _whole(value: Any, what: str, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise _broken(what, value)
    return value


def _broken(what: str, value: Any) -> Zk0Error:
    return Zk0Error(
        f"the run's record of its schedule is broken ({what} = {value!r}): start a new run."
    )
