"""What a run shows of itself: its model, its charts, its report. Federated runs and
their controls do this alike, in the background."""

from functools import partial

from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy

from zk0.data.statistics import Statistics
from zk0.record.checkpoint import save_checkpoint
from zk0.record.history import History
from zk0.report.page import write_report


def save_model(
    history: History,
    policy: SmolVLAPolicy,
    statistics: Statistics,
    server_round: int,
    names: tuple[str, ...],
    keep: int,
) -> None:
    """A checkpoint of the policy, which must not change before the background has been joined."""
    models, card = history.folder.path / "models", history.card(server_round)
    save = partial(save_checkpoint, models, server_round, policy, statistics, names, keep, card)
    history.background.submit(save)


def publish(history: History, shown: bool = True) -> None:
    """Bring the record up to date, and where it is `shown` what people look at."""
    history.close_round()
    if shown:
        history.draw()
        history.background.attempt("the report", partial(write_report, history.folder.path))
