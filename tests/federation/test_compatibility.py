"""Which datasets may be in one federation."""

from dataclasses import replace

import numpy as np
import pytest

from zk0.data.frames import Recording
from zk0.data.statistics import ACTION, STATE, Moments
from zk0.data.units import UnitName
from zk0.errors import Zk0Error
from zk0.federation.compatibility import refuse_incompatible
from zk0.federation.wire import Introduction

MOMENTS = Moments(10, np.zeros(6), np.ones(6))


def introduction(
    name: str, hashes: tuple[str, ...] = (), fps: int = 30, units: UnitName = "degrees"
) -> Introduction:
    statistics = {STATE: MOMENTS, ACTION: MOMENTS}
    return Introduction(name, 0, name, 3, statistics, Recording(fps, {}, units), hashes, "b" * 64)


def test_another_backbone_is_refused_by_its_hash():
    foreign = replace(introduction("a"), backbone="c" * 64)
    message = r"client 0 has another frozen backbone than near \(c{12}, not b{12}\)"
    with pytest.raises(Zk0Error, match=message):
        refuse_incompatible({"client 0": foreign}, {"near": introduction("b")})


def test_the_same_dataset_twice_is_refused():
    twice = introduction("a")
    with pytest.raises(Zk0Error, match="client 1 and client 0 have the same data"):
        refuse_incompatible({"client 0": twice, "client 1": twice}, {})
    with pytest.raises(Zk0Error, match="client 0 and near have the same data"):
        refuse_incompatible({"client 0": twice}, {"near": twice})


def test_an_episode_of_the_servers_in_a_clients_data_is_refused_unless_allowed():
    client, own = introduction("a", ("1", "2", "3")), introduction("b", ("2", "3"))
    with pytest.raises(Zk0Error, match="client 0 and near have 2 episodes in common"):
        refuse_incompatible({"client 0": client}, {"near": own})
    refuse_incompatible({"client 0": client}, {"near": own}, {"shared-episodes"})
    refuse_incompatible({"client 0": client}, {"near": introduction("b", ("4",))})


def test_another_frame_rate_is_refused_with_what_to_do():
    slow = introduction("a", fps=15)
    message = "near: 30, client 0: 15.*take all at 15 frames a second"
    with pytest.raises(Zk0Error, match=message):
        refuse_incompatible({"client 0": slow}, {"near": introduction("b")})
    same = replace(slow, recording=Recording(30, {}, "degrees"))
    refuse_incompatible({"client 0": same}, {"near": introduction("b")})


def test_other_units_are_refused_unless_allowed_or_unknown():
    own = {"near": introduction("b")}
    odd = {"client 0": introduction("a", units="radians")}
    with pytest.raises(Zk0Error, match="near: degrees, client 0: radians"):
        refuse_incompatible(odd, own)
    refuse_incompatible(odd, own, {"mixed-units"})
    refuse_incompatible({"client 0": introduction("a", units="unknown")}, own)
