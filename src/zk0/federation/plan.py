"""From a run's configuration to its schedule, and a schedule played without training.

Nothing here loads a policy, PyTorch or Flower, so that `zk0 schedule` answers at once.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, FiniteFloat, NonNegativeInt, TypeAdapter
from pydantic import ValidationError as Invalid

from zk0.config import Config, Switch
from zk0.errors import Zk0Error
from zk0.federation.schedules import (
    LrSchedule,
    RoundPlan,
    ScheduleSettings,
    advance,
    begin,
    observe_start,
)
from zk0.record.run_folder import ROUNDS

# What "auto" stands for: lr-schedule, and the switches adjust-globally, dynamic-mu and
# boost-hard-clients.
PRESETS: Mapping[Literal["static", "dynamic"], tuple[LrSchedule, bool]] = {
    "static": ("cosine", False),
    "dynamic": ("cosine_warm_restarts", True),
}
# AdamW's learning rate by model-name where initial-lr is 0, for a preview only: a run takes its
# policy's `optimizer_lr`, and a policy cannot be loaded without PyTorch.
PREVIEW_RATES = {"embedded": 1e-3, "embedded-random": 2e-3}
PREVIEW_RATE = 1e-4  # of every other model: SmolVLA's preset


@dataclass(frozen=True)
class Outcome:
    """What a round gave, as far as it is known: the policy loss on the server's datasets, None
    where it was not evaluated, and its clients' training losses."""

    server_loss: float | None = None
    client_losses: Mapping[int, float] = field(default_factory=dict)


def schedule_settings(config: Config, initial_lr: float) -> ScheduleSettings:
    """The schedule of a run from `initial_lr`.

    A key that is not "auto" wins over the preset. Only the strategy "fedprox" has a proximal term.
    Raises `Zk0Error` where `eta-min` is above `initial_lr`.
    """
    lr_schedule, preset_switch = PRESETS[config.preset]

    def is_on(switch: Switch) -> bool:
        return preset_switch if switch == "auto" else switch == "on"

    return ScheduleSettings(
        initial_lr=initial_lr,
        eta_min=config.eta_min,
        lr_schedule=lr_schedule if config.lr_schedule == "auto" else config.lr_schedule,
        num_rounds=config.num_server_rounds,
        t_0=config.t_0,
        t_mult=config.t_mult,
        stall_patience=config.stall_patience,
        adjust_globally=is_on(config.adjust_globally),
        adjust_window=config.adjust_window,
        spike_threshold=config.spike_threshold,
        divergence_threshold=config.divergence_threshold,
        stall_threshold=config.stall_threshold,
        proximal_mu=config.proximal_mu if config.strategy == "fedprox" else 0.0,
        dynamic_mu=is_on(config.dynamic_mu),
        mu_min=config.mu_min,
        mu_decay=config.mu_decay,
        mu_adjust_factor=config.mu_adjust_factor,
        loss_std_threshold=config.loss_std_threshold,
        boost_hard_clients=is_on(config.boost_hard_clients),
        high_loss_multiplier=config.high_loss_multiplier,
        lr_boost_factor=config.lr_boost_factor,
    )


def simulate(
    settings: ScheduleSettings, outcomes: Sequence[Outcome]
) -> list[tuple[int, RoundPlan]]:
    """The plans of rounds 1 to `settings.num_rounds`, where `outcomes[r]` is what round r gave.

    `outcomes[0]` is the evaluation before round 1. Rounds beyond the last outcome give nothing.
    """
    state = begin(settings)
    known = dict(enumerate(outcomes))
    start = known.get(0, Outcome()).server_loss
    if start is not None:
        state = observe_start(state, start)
    plans = [(state.round, state.plan)]
    while state.round < settings.num_rounds:
        outcome = known.get(state.round, Outcome())
        state = advance(settings, state, outcome.server_loss, outcome.client_losses)
        plans.append((state.round, state.plan))
    return plans


def preview_rate(config: Config) -> float:
    """The learning rate of round 1; for `initial-lr` = 0 the one that is assumed of the model."""
    return config.initial_lr or PREVIEW_RATES.get(config.model_name, PREVIEW_RATE)


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True)


class _Measured(_Record):
    loss: FiniteFloat


class _Round(_Record):
    round: NonNegativeInt
    server: _Measured | None = None
    void: bool = False  # its clients' losses are in the record and count for nothing


class _Metrics(_Record):
    rounds: tuple[_Round, ...]


class _ClientRound(_Record):
    round: NonNegativeInt
    client: NonNegativeInt
    train: _Measured | None = None


_Losses = TypeAdapter(list[FiniteFloat | None], config=ConfigDict(strict=True))


def read_outcomes(path: Path, num_rounds: int) -> list[Outcome]:
    """What rounds 0 to `num_rounds` of an earlier run gave.

    `path` is a run folder, or without the clients' losses its `ROUNDS` or a JSON list of the
    server's losses from round 0 on, null where there is none. Raises `Zk0Error` for anything else.
    """
    is_folder = path.is_dir()
    clients = _read_client_losses(path) if is_folder else {}
    known = {}
    for entry in _read_rounds(path / ROUNDS if is_folder else path):
        trained = {} if entry.void else clients.get(entry.round, {})
        known[entry.round] = Outcome(entry.server.loss if entry.server else None, trained)
    return [known.get(number, Outcome()) for number in range(num_rounds + 1)]


def _read_rounds(path: Path) -> Sequence[_Round]:
    content = _read(path)
    try:
        if not content.lstrip().startswith(b"["):
            return _Metrics.model_validate_json(content).rounds
        measured = [
            None if loss is None else _Measured(loss=loss)
            for loss in _Losses.validate_json(content)
        ]
    except Invalid as error:
        raise _broken(path, error) from None
    return [_Round(round=number, server=server) for number, server in enumerate(measured)]


def _read_client_losses(run_folder: Path) -> Mapping[int, Mapping[int, float]]:
    """Training losses by round and client."""
    losses: dict[int, dict[int, float]] = defaultdict(dict)
    for path in sorted(run_folder.glob("clients/client_*/round_*.json")):
        try:
            entry = _ClientRound.model_validate_json(_read(path))
        except Invalid as error:
            raise _broken(path, error) from None
        if entry.train:
            losses[entry.round][entry.client] = entry.train.loss
    return losses


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Zk0Error(
            f"--losses: {path} cannot be read ({error.strerror}). Name a run folder, its "
            f"{ROUNDS}, or a JSON list of losses."
        ) from None


def _broken(path: Path, error: Invalid) -> Zk0Error:
    problem = error.errors()[0]
    where = "".join(f"{part}: " for part in problem["loc"])
    return Zk0Error(
        f"--losses: {path} holds no losses ({where}{problem['msg']}). Name a run folder, its "
        f"{ROUNDS}, or a JSON list of losses from round 0 on."
    )
