import numpy as np
import pytest

from zk0.data.frames import Recording
from zk0.data.statistics import ACTION, STATE, Moments
from zk0.federation.roster import Client, sample
from zk0.federation.wire import Introduction


def client(number: int, fingerprint: str = "") -> Client:
    moments = Moments(10, np.zeros(6), np.ones(6))
    who = Introduction(
        f"arm-{number}",
        number,
        fingerprint or str(number),
        3,
        {STATE: moments, ACTION: moments},
        Recording(30, {}, "degrees"),
        (),
        "",
    )
    return Client(number, 1000 - number, who)


CLIENTS = [client(number) for number in range(10)]


def test_sampling_depends_on_the_seed_alone_and_keeps_the_order():
    draws = [[c.number for c in sample(CLIENTS, 0.5, 1, [0, turn, 0])] for turn in (1, 1, 2, 3)]
    assert draws[0] == draws[1] == sorted(draws[0])
    assert len(draws[0]) == 5
    assert len({tuple(draw) for draw in draws}) > 1


@pytest.mark.parametrize(
    ("fraction", "minimum", "count"), [(1.0, 2, 10), (0.1, 3, 3), (0.01, 20, 10)]
)
def test_at_least_the_minimum_and_at_most_all(fraction: float, minimum: int, count: int):
    assert len(sample(CLIENTS, fraction, minimum, [0])) == count
