"""What travels between server and clients, as Flower records; both apps pack and unpack here."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from zk0.data.statistics import ACTION, STATE, Moments
from zk0.errors import Zk0Error
from zk0.evaluation.policy_loss import PolicyLoss
from zk0.learning.training import LocalResult

ARRAYS, CONFIG, METRICS = "arrays", "config", "metrics"
NUM_EXAMPLES = "num-examples"  # FedAvg's weight of a client: its training frames


@dataclass(frozen=True)
class Introduction:
    """A client's answer to the query before round 1; it holds statistics of its data, and no data.

    `partition` orders simulated clients; a deployed node has none (-1).
    """

    slug: str
    partition: int
    fingerprint: str
    episodes: int
    statistics: Mapping[str, Moments]


@dataclass(frozen=True)
class Assignment:
    """What the server asks of a client in a round, beside the global arrays."""

    server_round: int
    learning_rate: float
    proximal_mu: float
    statistics: Mapping[str, Moments]


def pack_introduction(introduction: Introduction) -> RecordDict:
    who: dict[str, str | int] = {
        "slug": introduction.slug,
        "partition": introduction.partition,
        "fingerprint": introduction.fingerprint,
        "episodes": introduction.episodes,
    }
    return RecordDict({CONFIG: ConfigRecord({**who, **_pack_statistics(introduction.statistics)})})


def unpack_introduction(message: Message) -> Introduction:
    record = _config(message)
    return Introduction(
        slug=str(record["slug"]),
        partition=_integer(record["partition"]),
        fingerprint=str(record["fingerprint"]),
        episodes=_integer(record["episodes"]),
        statistics=_unpack_statistics(record),
    )


def pack_assignment(assignment: Assignment) -> ConfigRecord:
    return ConfigRecord(
        {
            "server-round": assignment.server_round,
            "learning-rate": assignment.learning_rate,
            "proximal-mu": assignment.proximal_mu,
            **_pack_statistics(assignment.statistics),
        }
    )


def unpack_assignment(message: Message) -> Assignment:
    record = _config(message)
    return Assignment(
        server_round=_integer(record["server-round"]),
        learning_rate=_positive(record, "learning-rate"),
        proximal_mu=_positive(record, "proximal-mu"),
        statistics=_unpack_statistics(record),
    )


def unpack_arrays(message: Message) -> dict[str, torch.Tensor]:
    return dict(message.content.array_records[ARRAYS].to_torch_state_dict())


def pack_training(
    arrays: Mapping[str, torch.Tensor], result: LocalResult, assignment: Assignment, frames: int
) -> RecordDict:
    used = {"learning-rate": assignment.learning_rate, "proximal-mu": assignment.proximal_mu}
    metrics = {key.replace("_", "-"): value for key, value in asdict(result).items()}
    return RecordDict(
        {
            ARRAYS: ArrayRecord({name: tensor.cpu() for name, tensor in arrays.items()}),
            METRICS: MetricRecord({NUM_EXAMPLES: frames, **metrics, **used}),
        }
    )


def pack_evaluation(result: PolicyLoss) -> RecordDict:
    return RecordDict(
        {
            METRICS: MetricRecord(
                {
                    NUM_EXAMPLES: result.frames,
                    "loss": result.loss,
                    "standard-error": result.standard_error,
                }
            )
        }
    )


def _config(message: Message) -> ConfigRecord:
    return message.content.config_records[CONFIG]


def _pack_statistics(statistics: Mapping[str, Moments]) -> dict[str, int | list[float]]:
    packed: dict[str, int | list[float]] = {}
    for feature, moments in statistics.items():
        packed[f"{feature}.count"] = moments.count
        packed[f"{feature}.mean"] = moments.mean.tolist()
        packed[f"{feature}.variance"] = moments.variance.tolist()
    return packed


def _unpack_statistics(record: ConfigRecord) -> dict[str, Moments]:
    return {feature: _unpack_moments(record, feature) for feature in (STATE, ACTION)}


def _unpack_moments(record: ConfigRecord, feature: str) -> Moments:
    count = _integer(record[f"{feature}.count"])
    mean = np.array(record[f"{feature}.mean"], np.float64)
    variance = np.array(record[f"{feature}.variance"], np.float64)
    sound = count > 0 and mean.ndim == 1 and mean.shape == variance.shape
    if not sound or not np.isfinite([mean, variance]).all() or (variance < 0).any():
        raise Zk0Error(f"statistics of {feature} are not valid: wrong shape, count or value.")
    return Moments(count, mean, variance)


def _integer(value: object) -> int:
    if not isinstance(value, int):
        raise Zk0Error(f"a whole number was expected in a message, not {value!r}.")
    return value


def _positive(record: ConfigRecord, key: str) -> float:
    value = record[key]
    if not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise Zk0Error(f"{key} = {value!r} in a message is not a number of 0 or more.")
    return float(value)
