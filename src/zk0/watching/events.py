"""The lines of metrics.jsonl, as far as watching needs them; `History` and `Rounds` write them."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, Field, ValidationError

from zk0.record.reading import Part

Share = Annotated[int, Field(ge=0)]
Loss = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Event(Part):
    time: AwareDatetime
    event: str
    round: int


class Plan(_Event):
    learning_rate: float
    proximal_mu: float
    boosted: Mapping[int, float] = {}
    rules: tuple[str, ...] = ()


class Begin(_Event):
    """Clients are asked to train or to evaluate; runs of older versions lack it."""

    clients: tuple[int, ...]


class Trained(_Event):
    client: int
    slug: str
    first_loss: float
    last_loss: float
    steps: float
    seconds: float


class AllTrained(_Event):
    """The clients' means, and all that a centralized run tells; empty where no reply counted."""

    first_loss: float | None = None
    last_loss: float | None = None
    steps: float = 0.0
    seconds: float = 0.0


class Evaluated(_Event):
    client: int
    slug: str
    loss: float


class Failure(_Event):
    client: int
    slug: str
    reason: str


class Void(_Event):
    valid: int
    needed: int


class Error(_Event):
    reason: str


class DatasetLoss(BaseModel, frozen=True):
    loss: Loss


class ServerEvaluated(_Event):
    loss: Loss
    datasets: Mapping[str, DatasetLoss]


class Successes(BaseModel, frozen=True):
    successes: Share
    episodes: Annotated[int, Field(gt=0)]


class Rollouts(_Event):
    tasks: Mapping[str, Successes]


class Resume(_Event):
    """The run goes on after `round`; what came later is played again."""


class RunEnd(_Event):
    """After the last round."""


class RunError(_Event):
    """The run came to its end before the last round."""

    round: int = 0
    reason: str


class Other(_Event):
    """An event that tells a watcher nothing but that the run lives."""

    round: int = 0


Event = (
    Plan
    | Begin
    | Trained
    | AllTrained
    | Evaluated
    | Failure
    | Void
    | Error
    | ServerEvaluated
    | Rollouts
    | Resume
    | RunEnd
    | RunError
    | Other
)
_KINDS: Mapping[str, type[Event]] = {
    "plan": Plan,
    "train-begin": Begin,
    "client-train": Trained,
    "train-aggregate": AllTrained,
    "evaluate-begin": Begin,
    "client-evaluate": Evaluated,
    "failure": Failure,
    "void": Void,
    "server-evaluate": ServerEvaluated,
    "server-error": Error,
    "rollouts": Rollouts,
    "rollout-error": Error,
    "resume": Resume,
    "run-end": RunEnd,
    "run-error": RunError,
}


def parse(line: bytes) -> Event:
    """A line as an event; raises `ValueError`, with one line as its text, where it is none."""
    try:
        other = Other.model_validate_json(line)
        kind = _KINDS.get(other.event)
        return other if kind is None else kind.model_validate_json(line)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise ValueError(f"{where}: {problem['msg']}" if where else problem["msg"]) from None


def seconds_between(earlier: datetime, later: datetime) -> float:
    """Not below zero, whatever became of the clock."""
    return max(0.0, (later - earlier).total_seconds())
