"""The server's step from the clients' weighted mean to the next global model's arrays.

Below, x are the global arrays, d = mean - x is the clients' update, t the round, eta the server's
learning rate, and all operations are element by element. From round to round an optimizer keeps
nothing (averaging), one array for each of the model's (momentum), or two.
"""

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAdagrad, FedAdam, FedYogi
from flwr.serverapp.strategy.fedopt import FedOpt
from numpy.typing import NDArray

from zk0.errors import Zk0Error

Values = NDArray[np.float32]
Arrays = dict[str, Values]
Current = Mapping[str, Values]  # may decode an array when it is asked for

DEFAULT_LEARNING_RATES = dict.fromkeys(("fedadam", "fedyogi", "fedadagrad"), 0.01)  # others: 1


class ServerOptimizer(Protocol):
    """What the server does with the mean of a round's clients, and what it remembers of it."""

    def step(self, server_round: int, current: Current, mean: Arrays) -> Arrays:
        """The next global arrays, which may be `mean` itself; rounds count from 1.

        Raises `ValueError` where `mean` is not of the names, shapes and dtypes of `current`, and
        `Zk0Error` where a restored state is not.
        """

    def state(self) -> Arrays:
        """What later steps depend on, as "<group>/<parameter>"; empty before the first step.

        The arrays are the optimizer's own, not copies; the next step may write to them.
        """

    def restore(self, state: Mapping[str, Values]) -> None:
        """Go on from what `state()` gave; an empty state is the one before the first step.

        Raises `Zk0Error`, and changes nothing, on a state that is not this optimizer's.
        """


def open_server_optimizer(
    strategy: str, learning_rate: float, momentum: float, beta_2: float, tau: float
) -> ServerOptimizer:
    """The optimizer of a strategy; a learning rate of 0 takes the strategy's default.

    Each strategy takes what it needs: "fedavg" none of the numbers.
    """
    rate = learning_rate or DEFAULT_LEARNING_RATES.get(strategy, 1.0)
    match strategy:
        case "fedavg":
            return Averaging()
        case "fedprox" | "fedavgm" if momentum:
            return Momentum(rate, momentum)
        case "fedprox" | "fedavgm" | "scaffold":
            return Averaging(rate)
        case "fedadam":
            return Adaptive(FedAdam(eta=rate, beta_1=momentum, beta_2=beta_2, tau=tau))
        case "fedyogi":
            return Adaptive(FedYogi(eta=rate, beta_1=momentum, beta_2=beta_2, tau=tau))
        case "fedadagrad":
            return Adaptive(FedAdagrad(eta=rate, tau=tau))
    raise ValueError(f"no strategy is called {strategy!r}")


@dataclass(frozen=True)
class Averaging:
    """x + eta d; at eta = 1 the mean itself, bit for bit.

    With eta = 1 FedAvg's step (McMahan et al. 2017, arXiv:1602.05629, algorithm 1); with eta for
    eta_g that of SCAFFOLD's server on the model (Karimireddy et al. 2020, arXiv:1910.06378,
    algorithm 1). SCAFFOLD's control variates are not kept here.
    """

    learning_rate: float = 1.0

    def step(self, server_round: int, current: Current, mean: Arrays) -> Arrays:
        _refuse_other_arrays(current, mean)
        if self.learning_rate == 1.0:
            return mean
        return {
            name: np.asarray(x - self.learning_rate * (x - mean[name]))
            for name, x in current.items()
        }

    def state(self) -> Arrays:
        return {}

    def restore(self, state: Mapping[str, Values]) -> None:
        _refuse_foreign(state, (), {})


class Remembering:
    """A step of one parameter after the other, with groups of arrays kept from round to round."""

    groups: tuple[str, ...]

    def __init__(self) -> None:
        self._state: Arrays = {}

    def step(self, server_round: int, current: Current, mean: Arrays) -> Arrays:
        _refuse_other_arrays(current, mean)
        if self._state:
            _refuse_foreign(self._state, self.groups, current)
        return {
            name: np.asarray(self._step_one(server_round, name, x, mean[name]), x.dtype)
            for name, x in current.items()
        }

    def _step_one(self, server_round: int, name: str, x: Values, mean: Values) -> Values:
        """One parameter's next values; keeps what the next step needs of it."""
        raise NotImplementedError

    def state(self) -> Arrays:
        return dict(sorted(self._state.items()))

    def restore(self, state: Mapping[str, Values]) -> None:
        if state:
            _refuse_foreign(state, self.groups, _group(self._state or state, self.groups[0]))
        self._state = {key: values.copy() for key, values in state.items()}

    def _kept(self, group: str, name: str) -> Values | None:
        """A parameter's part of the state; None before the first step."""
        return self._state.get(f"{group}/{name}")

    def _keep(self, group: str, name: str, values: Values) -> None:
        self._state[f"{group}/{name}"] = np.asarray(values)


class Momentum(Remembering):
    """FedAvgM: u_t = momentum u_(t-1) - d, x_(t+1) = x - eta u_t, with u_0 = 0.

    Hsu et al. 2019 (arXiv:1909.06335), who have eta = 1. State: "momentum", which is u.
    """

    groups = ("momentum",)

    def __init__(self, learning_rate: float, momentum: float) -> None:
        super().__init__()
        self.learning_rate, self.momentum = learning_rate, momentum

    def _step_one(self, server_round: int, name: str, x: Values, mean: Values) -> Values:
        """In memory that is there: to take new memory costs more than the arithmetic."""
        u, moved = self._kept("momentum", name), np.asarray(x - mean)
        if u is None:
            u = moved.copy()
        else:
            u *= self.momentum
            u += moved
        self._keep("momentum", name, u)
        return np.subtract(x, np.multiply(self.learning_rate, u, out=moved), out=moved)


class Adaptive(Remembering):
    """FedAdagrad, FedAdam, FedYogi: m_t = beta_1 m_(t-1) + (1 - beta_1) d.

    x_(t+1) = x + eta_t m_t / (sqrt(v_t) + tau), with v_t of

    FedAdagrad: v_(t-1) + d^2, and beta_1 = 0.
    FedAdam: beta_2 v_(t-1) + (1 - beta_2) d^2.
    FedYogi: v_(t-1) - (1 - beta_2) d^2 sign(v_(t-1) - d^2).

    Reddi et al. 2021 (arXiv:2003.00295, algorithm 2). The arithmetic is that of Flower's
    strategies, which are handed the mean as if it were the only client's reply, one parameter after
    the other, for they make up to ten copies. Flower differs from the paper in two points: v_0 is
    0, not tau^2 or more; and its FedAdam, alone of the three, has a bias correction of its own,
    eta_t = eta sqrt(1 - beta_2^(t+1)) / (1 - beta_1^(t+1)), where Adam has t for t + 1 (Kingma &
    Ba 2015, arXiv:1412.6980, section 2). State: "m" and "v".
    """

    groups = ("m", "v")

    def __init__(self, strategy: FedOpt) -> None:
        super().__init__()
        self.strategy = strategy

    def _step_one(self, server_round: int, name: str, x: Values, mean: Values) -> Values:
        self._load(name, x)
        with _without_flowers_log():
            stepped, _ = self.strategy.aggregate_train(server_round, [self._reply(name, mean)])
        assert stepped is not None  # it would be without a reply
        self._unload(name)
        return stepped[name].numpy()  # FedAdam's in float64: its rate is one of NumPy's

    def _reply(self, name: str, mean: Values) -> Message:
        """The mean as the reply of a client, who is the only one."""
        metrics = MetricRecord({self.strategy.weighted_by_key: 1})
        # NumPy's operations make a scalar of an array without dimensions, which Flower refuses.
        arrays = ArrayRecord({name: Array(np.asarray(mean))})
        task = Message(RecordDict(), dst_node_id=0, message_type=MessageType.TRAIN)
        return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=task)

    def _load(self, name: str, x: Values) -> None:
        """Give the strategy a parameter of the global arrays and its state."""
        m, v = self._kept("m", name), self._kept("v", name)
        self.strategy.current_arrays = {name: x}
        self.strategy.m_t = None if m is None else {name: m}
        self.strategy.v_t = None if v is None else {name: v}

    def _unload(self, name: str) -> None:
        """Take its state from the strategy, and leave it no arrays to keep in memory."""
        m, v = self.strategy.m_t or {}, self.strategy.v_t or {}
        self.strategy.current_arrays = self.strategy.m_t = self.strategy.v_t = None
        self._keep("m", name, m[name])
        self._keep("v", name, v[name])


def _labelled(group: str, arrays: Current) -> Arrays:
    return {f"{group}/{name}": values for name, values in arrays.items()}


def _group(state: Mapping[str, Values], group: str) -> Arrays:
    """Inverse of `_labelled`, on a state that may hold other groups too."""
    label = f"{group}/"
    return {key.removeprefix(label): state[key] for key in state if key.startswith(label)}


def _refuse_other_arrays(current: Current, mean: Arrays) -> None:
    odd = _differing(current, mean)
    if odd:
        raise ValueError(f"the mean and the global arrays differ in {', '.join(odd)}")


def _refuse_foreign(state: Mapping[str, Values], groups: Sequence[str], arrays: Current) -> None:
    """Raise `Zk0Error` unless each group of `state` is of the names, shapes, dtypes of `arrays`."""
    expected = {key: x for group in groups for key, x in _labelled(group, arrays).items()}
    odd = _differing(expected, state)
    if odd:
        raise Zk0Error(
            f"the state of the server's optimizer does not fit ({len(odd)} arrays are missing, "
            f"unknown or of another shape, the first is {odd[0]}): resume with the strategy and "
            "the model that the run began with, or start a new run."
        )


def _differing(ours: Mapping[str, Values], theirs: Mapping[str, Values]) -> list[str]:
    """Names that only one of the two has, or that differ in shape or dtype."""
    missing = ours.keys() ^ theirs.keys()
    others = {
        name
        for name in ours.keys() & theirs.keys()
        if (ours[name].shape, ours[name].dtype) != (theirs[name].shape, theirs[name].dtype)
    }
    return sorted(missing | others)


@contextmanager
def _without_flowers_log() -> Iterator[None]:
    """Drop Flower's lines below a warning, of this thread: they tell of replies that are none."""
    thread, flower = threading.get_ident(), logging.getLogger("flwr")

    def keep(record: logging.LogRecord) -> bool:
        return record.thread != thread or record.levelno >= logging.WARNING

    flower.addFilter(keep)
    try:
        yield
    finally:
        flower.removeFilter(keep)
