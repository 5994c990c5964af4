"""Weights & Biases beside the run folder; off unless `use-wandb` is set."""

import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from loguru import logger

from zk0.record.run_folder import flatten


class Tracker:
    """Takes metrics by round and does nothing with them."""

    def log(self, server_round: int, metrics: Mapping[str, Any]) -> None:
        """Take `metrics` (nested mappings are allowed) of a round."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish, as failed where an error passes."""


class WandbTracker(Tracker):
    """One Weights & Biases run per federation; offline where no API key is set."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        import wandb

        online = bool(os.environ.get("WANDB_API_KEY") or wandb.api.api_key)
        self._run = wandb.init(
            project="zk0",
            name=folder.name,
            dir=folder,
            config=dict(config),
            mode="online" if online else "offline",
        )
        logger.info("logging to Weights & Biases ({})", "online" if online else "offline")

    def log(self, server_round: int, metrics: Mapping[str, Any]) -> None:
        self._run.log({"round": server_round, **flatten(metrics)})

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._run.finish(exit_code=1 if error else 0)


def open_tracker(use_wandb: bool, folder: Path, config: Mapping[str, Any]) -> Tracker:
    return WandbTracker(folder, config) if use_wandb else Tracker()
