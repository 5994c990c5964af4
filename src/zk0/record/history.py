"""What happened in each round: in memory for the next decision, in the folder for people."""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, Protocol, Self

from loguru import logger

from zk0.record.charts import loss_chart
from zk0.record.run_folder import RunFolder
from zk0.record.trackers import Tracker


class Participant(Protocol):
    """A client as the record names it: by number, dataset and node, never by a path."""

    @property
    def number(self) -> int: ...
    @property
    def node_id(self) -> int: ...
    @property
    def slug(self) -> str: ...


class History:
    """The run's metrics by round. Each event goes to metrics.jsonl and the tracker as it happens;
    `close_round` rewrites the summaries and the chart."""

    def __init__(self, folder: RunFolder, tracker: Tracker) -> None:
        self.folder = folder
        self.tracker = tracker
        self.rounds: dict[int, dict[str, Any]] = defaultdict(dict)
        self.server_losses: dict[str, dict[int, float]] = defaultdict(dict)
        self.client_losses: dict[str, dict[int, float]] = defaultdict(dict)
        self._clients: dict[tuple[int, int], dict[str, Any]] = {}
        self._painter = ThreadPoolExecutor(1)  # a chart takes a quarter of a second
        self._painted: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for the last chart."""
        self._painter.shutdown()
        self._look_at_chart()

    def add_training(self, server_round: int, who: Participant, metrics: Mapping[str, Any]) -> None:
        self._add(server_round, who, "train", metrics)
        logger.info(
            "round {}: client {} trained, policy loss {:.4f} -> {:.4f} in {:.0f} steps, {:.1f} s",
            server_round,
            _label(who),
            metrics["first-loss"],
            metrics["last-loss"],
            metrics["steps"],
            metrics["seconds"],
        )

    def add_evaluation(
        self, server_round: int, who: Participant, metrics: Mapping[str, Any]
    ) -> None:
        self._add(server_round, who, "evaluate", metrics)
        self.client_losses[_label(who)][server_round] = metrics["loss"]
        logger.info(
            "round {}: client {} held out, policy loss {:.4f}",
            server_round,
            _label(who),
            metrics["loss"],
        )

    def add_failure(self, server_round: int, who: Participant, reason: str) -> None:
        failure = {"client": who.number, "slug": who.slug, "reason": reason}
        self.rounds[server_round].setdefault("failures", []).append(failure)
        self.folder.append("failure", round=server_round, node_id=str(who.node_id), **failure)

    def add_aggregate(
        self, server_round: int, phase: str, metrics: Mapping[str, Any], failures: int
    ) -> None:
        """Means over the clients, weighted by their frames."""
        content = {**metrics, "failures": failures}
        self.rounds[server_round][phase] = content
        self._tell(f"{phase}-aggregate", server_round, content)

    def add_server_evaluation(
        self, server_round: int, composite: float, datasets: Mapping[str, Mapping[str, Any]]
    ) -> None:
        """The server's policy losses: each dataset's, and their mean as `composite`."""
        self.server_losses["composite"][server_round] = composite
        for name, result in datasets.items():
            self.server_losses[name][server_round] = result["loss"]
        content = {"loss": composite, "datasets": dict(datasets)}
        self.rounds[server_round]["server"] = content
        self._tell("server-evaluate", server_round, content)

    @contextmanager
    def timed(self, server_round: int, phase: str) -> Iterator[None]:
        """Add the block's wall time to the round's `seconds`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add_seconds(server_round, phase, time.perf_counter() - start)

    def add_seconds(self, server_round: int, phase: str, seconds: float) -> None:
        self.rounds[server_round].setdefault("seconds", {})[phase] = seconds

    def close_round(self) -> None:
        """Bring the files that summarise the run up to date."""
        self.folder.write(
            "server/federated_metrics.json",
            {"rounds": [{"round": number, **content} for number, content in self.rounds.items()]},
        )
        self.folder.write("server/policy_loss_history.json", self._loss_history())
        self._look_at_chart()
        self._painted = self._painter.submit(
            loss_chart,
            self.folder.path / "server" / "policy_loss.png",
            deepcopy(self.server_losses),
            deepcopy(self.client_losses),
        )

    def _look_at_chart(self) -> None:
        """Raise what went wrong in drawing the last one."""
        if self._painted is not None:
            self._painted.result()

    def _loss_history(self) -> dict[str, dict[str, float]]:
        """Losses by the true round: only rounds that were evaluated appear."""
        evaluated = self.server_losses["composite"]
        return {
            str(number): {name: curve[number] for name, curve in self.server_losses.items()}
            for number in evaluated
        }

    def _add(
        self, server_round: int, who: Participant, phase: str, metrics: Mapping[str, Any]
    ) -> None:
        entry = self._clients.setdefault(
            (server_round, who.number),
            {
                "round": server_round,
                "client": who.number,
                "slug": who.slug,
                "node_id": str(who.node_id),
            },
        )
        entry[phase] = dict(metrics)
        self.folder.write(f"clients/client_{who.number}/round_{server_round}.json", entry)
        self._tell(f"client-{phase}", server_round, metrics, client=who.number, slug=who.slug)

    def _tell(self, event: str, server_round: int, metrics: Mapping[str, Any], **who: Any) -> None:
        self.folder.append(event, round=server_round, **who, **metrics)
        prefix = f"{event}/{who['client']}-{who['slug']}" if who else event
        self.tracker.log(server_round, {prefix: metrics})


def _label(who: Participant) -> str:
    return f"{who.number} {who.slug}"
