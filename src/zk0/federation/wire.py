"""What travels between server and clients, as Flower records; both apps pack and unpack here.

Arrays travel with their SHA-256 in either direction, and are refused where it does not match.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from io import BytesIO
from typing import Self, cast, get_args

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from numpy.typing import NDArray

from zk0.data.frames import Frames, Recording
from zk0.data.statistics import ACTION, ORDER, STATE, Moments, Statistics
from zk0.data.units import UnitName
from zk0.errors import Zk0Error
from zk0.evaluation.policy_loss import PolicyLoss
from zk0.learning.integrity import hash_arrays
from zk0.learning.policy import Arrays
from zk0.learning.scaffold import ControlVariates, zeros_like
from zk0.learning.training import LocalResult

ARRAYS, CONTROL, CONFIG, METRICS = "arrays", "control", "config", "metrics"
SHA256 = "sha256"  # of an array record: "arrays.sha256", "control.sha256"
MAX_FRAMES = 10**9  # more than anybody has recorded: a larger count is a broken or false claim
MAX_TEXTS = 10**6
LARGEST = 1e30  # of any statistic: differences of such are still finite in float32
NAME, COMMIT = re.compile(r"[\w. /:()-]{1,200}"), re.compile(r"[0-9a-f]{0,64}")
SLUG = re.compile(r"[\w.-]{1,255}")
DIGEST = re.compile(r"[0-9a-f]{64}")  # SHA-256
NUM_EXAMPLES = "num-examples"  # FedAvg's weight of a client: its training frames


@dataclass(frozen=True)
class Introduction:
    """A client's answer to the query before round 1; it holds statistics of its data, and no data.

    `partition` orders simulated clients; a deployed node has none (-1). `hashes` are those of all
    episodes, also of the held-out ones; `episodes` and `statistics` are of what is trained on.
    `backbone` is the hash of the policy's frozen weights on that machine.
    """

    slug: str
    partition: int
    fingerprint: str
    episodes: int
    statistics: Mapping[str, Moments]
    recording: Recording
    hashes: tuple[str, ...]
    backbone: str

    @classmethod
    def of(
        cls,
        frames: Frames,
        training: Frames,
        statistics: Statistics,
        backbone: str,
        partition: int = -1,
    ) -> Self:
        """Of the dataset in `frames`, of which `training` is trained on, and its `statistics`."""
        return cls(
            frames.slug,
            partition,
            frames.fingerprint,
            training.episode_count,
            statistics,
            frames.recording,
            tuple(frames.hashes),
            backbone,
        )

    @classmethod
    def of_unseen(cls, frames: Frames, backbone: str) -> Self:
        """Of a dataset that the server evaluates on."""
        return cls.of(frames, frames, frames.statistics, backbone)


@dataclass(frozen=True)
class Assignment:
    """What the server asks of a client in a round, beside the global arrays."""

    client: int  # its number in the server's record
    server_round: int
    learning_rate: float
    final_learning_rate: float
    proximal_mu: float
    timeout: float
    statistics: Mapping[str, Moments]
    hashes: Mapping[str, str] = field(default_factory=dict)  # of the array records that came along


def pack_introduction(introduction: Introduction) -> RecordDict:
    recording = introduction.recording
    who: dict[str, str | int | list[str]] = {
        "slug": introduction.slug,
        "partition": introduction.partition,
        "fingerprint": introduction.fingerprint,
        "episodes": introduction.episodes,
        "fps": recording.fps,
        "cameras": list(recording.cameras),
        "recorded-cameras": list(recording.cameras.values()),
        "units": recording.units,
        "commit": recording.commit,
        "hashes": list(introduction.hashes),
        "backbone": introduction.backbone,
    }
    return RecordDict({CONFIG: ConfigRecord({**who, **_pack_statistics(introduction.statistics)})})


def unpack_introduction(message: Message) -> Introduction:
    record = _config(message)
    return Introduction(
        slug=_text(record, "slug", SLUG),
        partition=_integer(record["partition"]),
        fingerprint=_text(record, "fingerprint", DIGEST),
        episodes=_integer(record["episodes"]),
        statistics=_unpack_statistics(record),
        recording=_unpack_recording(record),
        hashes=tuple(_texts(record, "hashes", DIGEST)),
        backbone=_text(record, "backbone", DIGEST),
    )


def _unpack_recording(record: Mapping[str, object]) -> Recording:
    names, recorded = (_texts(record, key, NAME) for key in ("cameras", "recorded-cameras"))
    if len(names) != len(recorded):
        raise Zk0Error("cameras in a message are not valid: names and recorded ones differ.")
    commit = _text(record, "commit", COMMIT)
    cameras = dict(zip(names, recorded, strict=True))
    if (units := record["units"]) not in get_args(UnitName):
        raise Zk0Error(f"units in a message are not valid: {str(units)[:60]!r}.")
    return Recording(_integer(record["fps"]), cameras, cast(UnitName, units), commit)


def pack_assignment(assignment: Assignment) -> ConfigRecord:
    return ConfigRecord(
        {
            "client": assignment.client,
            "server-round": assignment.server_round,
            "learning-rate": assignment.learning_rate,
            "final-learning-rate": assignment.final_learning_rate,
            "proximal-mu": assignment.proximal_mu,
            "timeout": assignment.timeout,
            **{f"{name}.{SHA256}": digest for name, digest in assignment.hashes.items()},
            **_pack_statistics(assignment.statistics),
        }
    )


def unpack_assignment(message: Message) -> Assignment:
    record = _config(message)
    return Assignment(
        client=_natural(record["client"]),
        server_round=_integer(record["server-round"]),
        learning_rate=_amount(record, "learning-rate"),
        final_learning_rate=_amount(record, "final-learning-rate"),
        proximal_mu=_amount(record, "proximal-mu"),
        timeout=_amount(record, "timeout"),
        statistics=_unpack_statistics(record),
    )


class Decoded(Mapping[str, NDArray[np.float32]]):
    """A record's arrays, each seen where it lies in the record and not to be written to.

    Nothing in the bytes is interpreted: they have to begin with the very header that NumPy writes
    for the declared dtype and shape, else a `Zk0Error` names the array.
    """

    def __init__(self, record: ArrayRecord) -> None:
        self.record = record

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        declared = self.record[name]
        shape = tuple(declared.shape)
        if declared.stype == "numpy.ndarray":
            dtype = np.dtype(declared.dtype)
            size = math.prod(shape) * dtype.itemsize
            for order in ("C", "F"):
                header = _header(dtype, shape, fortran=order == "F")
                if len(declared.data) == len(header) + size and declared.data.startswith(header):
                    values = np.frombuffer(declared.data, dtype, offset=len(header))
                    return values.reshape(shape, order=order)
        raise Zk0Error(f"{name} is not the array that it is declared to be")

    def __iter__(self) -> Iterator[str]:
        return iter(self.record)

    def __len__(self) -> int:
        return len(self.record)


@lru_cache(maxsize=4096)
def _header(dtype: np.dtype, shape: tuple[int, ...], fortran: bool) -> bytes:
    file = BytesIO()
    description = {"descr": dtype.str, "fortran_order": fortran, "shape": shape}
    np.lib.format.write_array_header_1_0(file, description)
    return file.getvalue()


def hash_record(record: ArrayRecord) -> str:
    """`hash_arrays` of a record's arrays."""
    return hash_arrays(Decoded(record))


def unpack_arrays(content: RecordDict, name: str = ARRAYS) -> dict[str, torch.Tensor]:
    """The arrays of record `name`; raises `Zk0Error` where they are not those that were sent."""
    arrays = Decoded(content.array_records[name])
    if hash_arrays(arrays) != content.config_records[CONFIG].get(f"{name}.{SHA256}"):
        raise Zk0Error(f"the {name} were damaged on the way: their SHA-256 is not the sender's.")
    return {name: torch.from_numpy(values.copy()) for name, values in arrays.items()}


def pack_training(
    arrays: Arrays,
    result: LocalResult,
    assignment: Assignment,
    frames: int,
    control: Arrays | None = None,
) -> RecordDict:
    """A client's reply: its arrays (and with SCAFFOLD the change of its control variates)."""
    used = {"learning-rate": assignment.learning_rate, "proximal-mu": assignment.proximal_mu}
    records = {ARRAYS: arrays} if control is None else {ARRAYS: arrays, CONTROL: control}
    hashes = {f"{name}.{SHA256}": hash_arrays(part) for name, part in records.items()}
    content = RecordDict(
        {name: ArrayRecord({k: t.cpu() for k, t in part.items()}) for name, part in records.items()}
    )
    content[METRICS] = MetricRecord({NUM_EXAMPLES: frames, **result.to_metrics(), **used})
    content[CONFIG] = ConfigRecord(dict(hashes))
    return content


def pack_arrays(arrays: Mapping[str, NDArray[np.float32]]) -> ArrayRecord:
    return ArrayRecord({name: Array(values) for name, values in arrays.items()})


def to_numpy(record: ArrayRecord) -> dict[str, NDArray[np.float32]]:
    return dict(Decoded(record))


def open_variates(content: RecordDict, kept: RecordDict) -> ControlVariates | None:
    """SCAFFOLD's c from the message and c_i from what the client keeps, zero at first; None where
    another strategy runs."""
    if CONTROL not in content.array_records:
        return None
    server = unpack_arrays(content, CONTROL)
    own = kept.array_records.get(CONTROL)
    return ControlVariates(server, zeros_like(server) if own is None else own.to_torch_state_dict())


def close_variates(
    variates: ControlVariates | None, kept: RecordDict
) -> dict[str, torch.Tensor] | None:
    """Keep c_i+ for the client's next round; its change for the server."""
    if variates is None:
        return None
    following, change = variates.close()
    kept[CONTROL] = ArrayRecord({name: tensor.cpu() for name, tensor in following.items()})
    return change


def pack_evaluation(result: PolicyLoss) -> RecordDict:
    return RecordDict({METRICS: MetricRecord({NUM_EXAMPLES: result.frames, **result.to_metrics()})})


class _Said(dict[str, object]):
    """What the other side says in a message; `Zk0Error` where it lacks something."""

    def __missing__(self, key: str) -> object:
        raise Zk0Error(f"a message has no {key}: the other side may run another version of zk0.")


def _config(message: Message) -> _Said:
    said = message.content.get(CONFIG)
    return _Said(said if isinstance(said, ConfigRecord) else {})


def _pack_statistics(statistics: Mapping[str, Moments]) -> dict[str, int | list[float]]:
    packed: dict[str, int | list[float]] = {}
    for feature, moments in statistics.items():
        packed[f"{feature}.count"] = moments.count
        packed[f"{feature}.mean"] = moments.mean.tolist()
        packed[f"{feature}.variance"] = moments.variance.tolist()
        packed |= {f"{feature}.{name}": values.tolist() for name, values in moments.order.items()}
    return packed


def _unpack_statistics(record: Mapping[str, object]) -> dict[str, Moments]:
    return {feature: _unpack_moments(record, feature) for feature in (STATE, ACTION)}


def _unpack_moments(record: Mapping[str, object], feature: str) -> Moments:
    count = _integer(record[f"{feature}.count"])
    known = [name for name in ("mean", "variance", *ORDER) if f"{feature}.{name}" in record]
    values = {name: _numbers(record, f"{feature}.{name}") for name in known}
    if not 0 < count <= MAX_FRAMES or not _are_sound(values):
        raise Zk0Error(f"statistics of {feature} are not valid: wrong shape, count or value.")
    return Moments(count, values.pop("mean"), values.pop("variance"), values)


def _are_sound(values: Mapping[str, NDArray[np.float64]]) -> bool:
    """Whether a mean and a variance are there, all of one length, and quantiles in their order."""
    if not values.keys() >= {"mean", "variance"} or len({len(x) for x in values.values()}) > 1:
        return False
    ordered = np.array([values[name] for name in ORDER if name in values])
    finite = all((np.abs(x) <= LARGEST).all() for x in values.values())
    return bool(
        finite and (values["variance"] >= 0).all() and (np.diff(ordered, axis=0) >= 0).all()
    )


def _numbers(record: Mapping[str, object], key: str) -> NDArray[np.float64]:
    found = record[key]
    if not isinstance(found, list) or not all(isinstance(x, int | float) for x in found):
        raise Zk0Error(f"{key} in a message is no list of numbers.")
    return np.array(found, np.float64)


def _texts(record: Mapping[str, object], key: str, form: re.Pattern[str]) -> list[str]:
    found = record[key]
    if not isinstance(found, list) or len(found) > MAX_TEXTS:
        raise Zk0Error(f"{key} in a message is no list of at most {MAX_TEXTS} texts.")
    for text in found:
        if not isinstance(text, str) or not form.fullmatch(text):
            raise Zk0Error(f"{key} in a message is not valid: {str(text)[:60]!r}.")
    return found


def _text(record: Mapping[str, object], key: str, form: re.Pattern[str]) -> str:
    (text,) = _texts({key: [record[key]]}, key, form)
    return text


def _integer(value: object) -> int:
    if not isinstance(value, int):
        raise Zk0Error(f"a whole number was expected in a message, not {value!r}.")
    return value


def _natural(value: object) -> int:
    """Of what folders and random streams are named after."""
    if (number := _integer(value)) < 0:
        raise Zk0Error(f"a whole number of 0 or more was expected in a message, not {number}.")
    return number


def _amount(record: Mapping[str, object], key: str) -> float:
    value = record[key]
    if not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise Zk0Error(f"{key} = {value!r} in a message is not a number of 0 or more.")
    return float(value)
