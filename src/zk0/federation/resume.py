"""A run's progress as a state on disk, and back, for the same run only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from loguru import logger

from zk0.config import HOUSEKEEPING, Config
from zk0.data.statistics import ORDER, Moments
from zk0.errors import Zk0Error
from zk0.federation.roster import Client
from zk0.federation.rounds import Progress
from zk0.federation.schedules import ScheduleState
from zk0.federation.state import Arrays, State
from zk0.federation.wire import pack_arrays, to_numpy

# What may differ when a run goes on: what changes no training, and how long it goes.
FREE_KEYS = HOUSEKEEPING | {"num-server-rounds", "early-stop-rounds", "target-loss"}


@dataclass(frozen=True)
class Kept:
    """What a resumed run takes up."""

    progress: Progress
    statistics: Mapping[str, Moments]
    history: Mapping[str, Any]
    optimizer: Arrays  # the server's


def pack_state(kept: Kept, config: Config, clients: Sequence[Client]) -> State:
    """The state after a round."""
    progress = kept.progress
    facts = {
        "config": config.to_run_config(),
        "clients": {str(client.number): client.introduction.fingerprint for client in clients},
        "statistics": {name: _pack_moments(each) for name, each in kept.statistics.items()},
        "schedule": progress.schedule.to_json(),
        "best_loss": progress.best_loss,
        "best_round": progress.best_round,
        "evaluations_since_best": progress.evaluations_since_best,
        "void_rounds": progress.void_rounds,
        "history": kept.history,
    }
    control = {} if progress.control is None else to_numpy(progress.control)
    arrays = to_numpy(progress.arrays)
    return State(progress.server_round, arrays, dict(kept.optimizer), control, facts)


def unpack_state(state: State, config: Config, clients: Sequence[Client]) -> Kept:
    """What to go on from; raises `Zk0Error` where configuration or clients are not the run's."""
    facts = state.facts
    _refuse_other_config(facts["config"], config.to_run_config())
    _refuse_other_clients(facts["clients"], clients)
    progress = Progress(
        server_round=state.server_round,
        arrays=pack_arrays(state.arrays),
        control=_control(state),
        schedule=ScheduleState.from_json(facts["schedule"]),
        best_loss=facts["best_loss"],
        best_round=facts["best_round"],
        evaluations_since_best=facts["evaluations_since_best"],
        void_rounds=0,  # whoever resumes has seen to what made rounds void
    )
    statistics = {name: _unpack_moments(each) for name, each in facts["statistics"].items()}
    return Kept(progress, statistics, facts["history"], state.optimizer)


def _control(state: State) -> Any:
    """SCAFFOLD starts again: what the clients kept went with the run that ended."""
    if not state.control:
        return None
    logger.warning("the clients' control variates are gone: SCAFFOLD starts again from zero")
    return pack_arrays({name: np.zeros_like(values) for name, values in state.control.items()})


def _refuse_other_config(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    for key in sorted(before.keys() | now.keys()):
        if key not in FREE_KEYS and before.get(key) != now.get(key):
            raise Zk0Error(
                f"the run to resume has {key} = {before.get(key)!r}, this one {now.get(key)!r}: "
                "give the same, or begin a new run with start-from."
            )


def _refuse_other_clients(before: Mapping[str, str], clients: Sequence[Client]) -> None:
    now = {str(client.number): client for client in clients}
    for number, fingerprint in before.items():
        if number not in now or now[number].introduction.fingerprint != fingerprint:
            raise Zk0Error(
                f"the run to resume has another client {number}: connect the same clients with the "
                "same datasets, or begin a new run with start-from."
            )
    if len(now) > len(before):
        raise Zk0Error(
            f"the run to resume has {len(before)} clients, {len(now)} are connected: connect those "
            "alone, or begin a new run with start-from."
        )


def _pack_moments(moments: Moments) -> dict[str, Any]:
    return {
        "count": moments.count,
        "mean": moments.mean.tolist(),
        "variance": moments.variance.tolist(),
        **{name: values.tolist() for name, values in moments.order.items()},
    }


def _unpack_moments(content: Mapping[str, Any]) -> Moments:
    mean, variance = (np.array(content[key], np.float64) for key in ("mean", "variance"))
    order = {name: np.array(content[name], np.float64) for name in ORDER if name in content}
    return Moments(int(content["count"]), mean, variance, order)
