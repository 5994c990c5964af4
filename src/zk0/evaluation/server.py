"""The server's evaluation of the global policy: on recorded frames, and in the simulator."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext

from loguru import logger

from zk0.config import Config
from zk0.data.sources import Source
from zk0.data.statistics import Statistics
from zk0.errors import Zk0Error
from zk0.evaluation import closed_loop
from zk0.evaluation.policy_loss import PolicyLoss
from zk0.evaluation.tally import by_task
from zk0.evaluation.twins import all_twins
from zk0.evaluation.unseen import Unseen, composite
from zk0.learning.policy import Arrays, get_trainable, set_trainable
from zk0.record.evidence import SERVER, Rollout, folder_of, save_frames, save_rollouts
from zk0.record.history import History

FAILURES = (Zk0Error, OSError, ValueError, RuntimeError)


class ServerEvaluation:
    """Evaluates the policy as it is, on `unseen` data and in the twins of `sources`, and puts what
    it finds into the record. `start` gives the arrays that training began with."""

    def __init__(
        self,
        config: Config,
        unseen: Unseen,
        statistics: Statistics,
        sources: Iterable[Source],
        history: History,
        start: Callable[[], Arrays],
    ) -> None:
        self.config = config
        self.unseen = unseen
        self.statistics = statistics
        self.history = history
        self.start = start
        self.datasets = unseen.normalised(statistics)
        self.twins = all_twins(sources)
        self._thorough: set[int] = set()

    def evaluate(self, server_round: int) -> float | None:
        """The mean loss on the unseen datasets; None, with the reason in the record, where it
        cannot be measured. Before round 1 and where the configuration says so, actions are
        predicted too, and in the latter case rollouts played: those of the start with the first
        others, so that training does not wait for them."""
        thorough = self.config.is_thorough(server_round)
        losses = self._losses(server_round, predict=thorough or server_round == 0)
        if losses is None:
            return None
        if thorough:
            self._roll_out(server_round)
        return composite(losses)

    def conclude(self, server_round: int) -> None:
        """Evaluate the last round thoroughly, where it ended the run before its time."""
        if server_round in self._thorough:
            return
        if self._losses(server_round, predict=True) is not None:
            self._roll_out(server_round)

    def _losses(self, server_round: int, predict: bool) -> dict[str, PolicyLoss] | None:
        try:
            with self.history.timed(server_round, "server-evaluate"):
                frames = self.unseen.evaluate(self.datasets, predict)
        except FAILURES as error:
            logger.opt(exception=True).debug("where it was raised")
            self.history.add_server_error(server_round, f"{type(error).__name__}: {error}")
            return None
        losses = self.unseen.summarise(frames)
        loss = composite(losses)
        if not math.isfinite(loss):
            self.history.add_server_error(server_round, f"the policy loss is {loss}")
            return None
        save_frames(folder_of(self.history.folder.path, server_round), frames)
        parts = {slug: result.to_json() for slug, result in losses.items()}
        self.history.add_server_evaluation(server_round, loss, parts)
        _tell(server_round, loss, losses)
        return losses

    def _roll_out(self, server_round: int) -> None:
        self._thorough.add(server_round)
        if not (self.config.rollout_episodes and self.twins and closed_loop.can_render()):
            return
        if self.config.rollout_frequency and not self.history.has_rollouts(0):
            self._try_out(0, self._as_it_began())
        self._try_out(server_round, nullcontext())

    @contextmanager
    def _as_it_began(self) -> Iterator[None]:
        policy = self.unseen.policy
        now = {name: array.clone() for name, array in get_trainable(policy).items()}
        set_trainable(policy, self.start())
        try:
            yield
        finally:
            set_trainable(policy, now)

    def _try_out(self, server_round: int, weights: AbstractContextManager[None]) -> None:
        """With the policy's weights as the context has them."""
        try:
            closed_loop.check_twin(self.unseen.policy)
            with weights, self.history.timed(server_round, "rollouts"):
                rollouts = self._play(server_round)
        except FAILURES as error:
            logger.opt(exception=True).debug("where it was raised")
            self.history.add_rollout_error(server_round, f"{type(error).__name__}: {error}")
            return
        save_rollouts(folder_of(self.history.folder.path, server_round), rollouts)
        tallies = {task: tally.to_json() for task, tally in by_task(rollouts).items()}
        self.history.add_rollouts(server_round, tallies)

    def _play(self, server_round: int) -> list[Rollout]:
        policy, rollouts = self.unseen.policy, []
        folder = folder_of(self.history.folder.path, server_round)
        for twin in self.twins.values():
            seeds = twin.seeds(self.config.rollout_episodes)
            films = {seed: closed_loop.Film() for seed in seeds[: self.config.rollout_videos]}
            played = closed_loop.play_policy(policy, self.statistics, twin, seeds, films)
            loss = self.history.server_losses.get(twin.dataset, {}).get(server_round)
            videos = closed_loop.save_films(films, played, folder, SERVER, server_round, loss)
            self.history.trackers.show(server_round, {video.stem: video for video in videos})
            rollouts += played
        return rollouts


def _tell(server_round: int, loss: float, losses: Mapping[str, PolicyLoss]) -> None:
    parts = ", ".join(f"{slug} {result.loss:.4f}" for slug, result in losses.items())
    logger.info("round {}: policy loss {:.4f} ({})", server_round, loss, parts)
