"""Weights & Biases and TensorBoard beside the run folder, which has everything without them."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from loguru import logger

from zk0.config import Config
from zk0.record.run_folder import flatten

INIT_TIMEOUT_S = 30.0  # for Weights & Biases to answer, before the run goes on offline


class Tracker(Protocol):
    """Takes what happens in a run, by round."""

    def log(self, server_round: int, metrics: Mapping[str, float]) -> None: ...

    def show(self, server_round: int, videos: Mapping[str, Path]) -> None:
        """Take mp4 files by name."""

    def finish(self, failed: bool) -> None: ...


class WandbTracker:
    """One Weights & Biases run per federation; offline without an API key or a network."""

    def __init__(self, project: str, folder: Path, config: Mapping[str, Any]) -> None:
        import wandb

        def init(mode: str) -> Any:
            return wandb.init(
                project=project,
                name=folder.name,
                dir=folder,
                config=dict(config),
                mode=mode,  # type: ignore[arg-type]
                settings=wandb.Settings(init_timeout=INIT_TIMEOUT_S),
            )

        online = bool(os.environ.get("WANDB_API_KEY") or wandb.api.api_key)
        try:
            self._run = init("online" if online else "offline")
        except wandb.errors.CommError as error:
            logger.warning("Weights & Biases cannot be reached, going on offline: {}", error)
            online, self._run = False, init("offline")
        self._wandb = wandb
        logger.info("logging to Weights & Biases ({})", "online" if online else "offline")

    def log(self, server_round: int, metrics: Mapping[str, float]) -> None:
        self._run.log({"round": server_round, **metrics})

    def show(self, server_round: int, videos: Mapping[str, Path]) -> None:
        shown = {f"videos/{name}": self._wandb.Video(str(path)) for name, path in videos.items()}
        self._run.log({"round": server_round, **shown})

    def finish(self, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


class TensorBoardTracker:
    """Event files in the run's folder: `tensorboard --logdir outputs` shows all runs."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"))
        rows = "\n".join(f"| {key} | {value} |" for key, value in config.items())
        self._writer.add_text("configuration", f"| key | value |\n|---|---|\n{rows}")
        logger.info("logging to TensorBoard ({})", folder / "tensorboard")

    def log(self, server_round: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, server_round)

    def show(self, server_round: int, videos: Mapping[str, Path]) -> None:
        """It takes frames, not files: the names are enough to find them in the run's folder."""
        for name, path in videos.items():
            self._writer.add_text(f"videos/{name}", str(path), server_round)

    def finish(self, failed: bool) -> None:
        self._writer.close()


class Trackers:
    """All trackers of a run. One that fails is left out from then on, and said so: a run outlives
    whatever becomes of its display."""

    def __init__(self, trackers: list[Tracker] | None = None) -> None:
        self._trackers = trackers or []

    def log(self, server_round: int, metrics: Mapping[str, Any]) -> None:
        """Take metrics (nested mappings are allowed) of a round."""
        flat = flatten(metrics)
        self._each(lambda tracker: tracker.log(server_round, flat))

    def show(self, server_round: int, videos: Mapping[str, Path]) -> None:
        if videos:
            self._each(lambda tracker: tracker.show(server_round, videos))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._each(lambda tracker: tracker.finish(error is not None))

    def _each(self, tell: Callable[[Tracker], None]) -> None:
        for tracker in list(self._trackers):
            try:
                tell(tracker)
            except Exception as error:  # of somebody else's client, which may raise anything
                self._trackers.remove(tracker)
                _lament(type(tracker).__name__, error)


def open_trackers(config: Config, folder: Path) -> Trackers:
    """Those that the configuration asks for; one that cannot be opened is left out, and said so."""
    settings = config.to_run_config()
    wanted: list[Callable[[], Tracker]] = []
    if config.use_wandb:
        wanted.append(lambda: WandbTracker(config.wandb_project, folder, settings))
    if config.use_tensorboard:
        wanted.append(lambda: TensorBoardTracker(folder, settings))
    trackers: list[Tracker] = []
    for make in wanted:
        try:
            trackers.append(make())
        except Exception as error:  # as above
            _lament("a tracker", error)
    return Trackers(trackers)


def _lament(name: str, error: Exception) -> None:
    logger.warning("{} failed, the run goes on without it: {}", name, error)
    logger.opt(exception=error).debug("where it was raised")
