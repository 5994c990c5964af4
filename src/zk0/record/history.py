"""What happened in each round: in memory for the next decision, in the folder for people."""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from typing import Any, Protocol

from loguru import logger

from zk0.record.background import Background
from zk0.record.card import Card, metrics_of
from zk0.record.charts import Plan, Planned, loss_chart, schedule_chart
from zk0.record.run_folder import CONFIG, ROUNDS, RunFolder
from zk0.record.trackers import Trackers


class Participant(Protocol):
    """A client as the record names it: by number, dataset and node, never by a path."""

    @property
    def number(self) -> int: ...
    @property
    def node_id(self) -> int: ...
    @property
    def slug(self) -> str: ...


class History:
    """The run's metrics by round. Each event goes to metrics.jsonl and the trackers as it happens;
    `close_round` rewrites the summaries, `draw` the charts in the `background`."""

    def __init__(self, folder: RunFolder, trackers: Trackers, background: Background) -> None:
        self.folder = folder
        self.trackers = trackers
        self.background = background
        self.rounds: dict[int, dict[str, Any]] = defaultdict(dict)
        self.server_losses: dict[str, dict[int, float]] = defaultdict(dict)
        self.client_losses: dict[str, dict[int, float]] = defaultdict(dict)
        self._clients: dict[tuple[int, int], dict[str, Any]] = {}

    def to_json(self) -> dict[str, Any]:
        """What a resumed run has to know of the rounds before it."""
        return {
            "rounds": _keyed_by_text(self.rounds),
            "server_losses": {k: _keyed_by_text(v) for k, v in self.server_losses.items()},
            "client_losses": {k: _keyed_by_text(v) for k, v in self.client_losses.items()},
        }

    def restore(self, content: Mapping[str, Any]) -> None:
        """Take up `to_json`'s content, and start over with what came after it."""
        self.rounds.update(_keyed_by_number(content["rounds"]))
        for mine, kept in (
            (self.server_losses, content["server_losses"]),
            (self.client_losses, content["client_losses"]),
        ):
            mine.update({name: _keyed_by_number(curve) for name, curve in kept.items()})

    def card(self, server_round: int) -> Card:
        """What a checkpoint of a round says of itself, as far as it is known now."""
        metrics = metrics_of(server_round, self.rounds[server_round], self.client_losses)
        return Card(self.folder.read(CONFIG), deepcopy(metrics))

    def add_plan(self, server_round: int, plan: Plan) -> None:
        """The learning rate and mu of a round, and the rules that made them so."""
        content = {
            "learning-rate": plan.learning_rate,
            "proximal-mu": plan.proximal_mu,
            "boosted": _keyed_by_text(plan.boosted),
            "rules": list(plan.rules),
        }
        self.rounds[server_round] = {"plan": content}
        self._tell("plan", server_round, content)
        if plan.rules:
            logger.info(
                "round {}: learning rate {:.3g}, mu {:.3g} ({})",
                server_round,
                plan.learning_rate,
                plan.proximal_mu,
                ", ".join(plan.rules),
            )

    def add_phase(self, server_round: int, phase: str, who: Sequence[Participant]) -> None:
        """Clients are asked to train or to evaluate: for whoever watches."""
        self.folder.append(f"{phase}-begin", round=server_round, clients=[p.number for p in who])

    def add_void(self, server_round: int, valid: int, needed: int) -> None:
        """A round that changes nothing, as too few replies were valid."""
        self.rounds[server_round]["void"] = True
        self.folder.append("void", round=server_round, valid=valid, needed=needed)
        logger.error(
            "round {} is void: {} valid replies, min-train-nodes = {}; the weights stay",
            server_round,
            valid,
            needed,
        )

    def add_server_error(self, server_round: int, reason: str) -> None:
        """The server's evaluation failed: an error in the record, and no number."""
        self.rounds[server_round]["server-error"] = reason
        self.folder.append("server-error", round=server_round, reason=reason)
        logger.error("round {}: the server's evaluation failed: {}", server_round, reason)

    def last_failure(self) -> str:
        """The newest reason that a client was left out for."""
        rounds = self.rounds.values()
        reasons = [each["reason"] for content in rounds for each in content.get("failures", [])]
        return reasons[-1] if reasons else "no reason was given"

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

    def add_agreement(self, server_round: int, cosines: Mapping[str, Any]) -> None:
        """Cosines between the clients' updates: their mean, and by pair of clients."""
        self.rounds[server_round]["cosine"] = dict(cosines)
        self._tell("agreement", server_round, cosines)

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

    def add_rollouts(self, server_round: int, tasks: Mapping[str, Mapping[str, Any]]) -> None:
        """What the policy did in the simulator, task by task."""
        self.rounds[server_round]["rollouts"] = dict(tasks)
        self._tell("rollouts", server_round, {"tasks": dict(tasks)})
        parts = [f"{task} {each['successes']}/{each['episodes']}" for task, each in tasks.items()]
        logger.info("round {}: rollouts succeeded: {}", server_round, ", ".join(parts))

    def has_rollouts(self, server_round: int) -> bool:
        """Whether rollouts of a round were played, or could not be."""
        return not {"rollouts", "rollout-error"}.isdisjoint(self.rounds.get(server_round, {}))

    @property
    def successes(self) -> dict[int, tuple[int, int]]:
        """How many rollouts succeeded, of how many, by round."""
        played = {n: each["rollouts"] for n, each in self.rounds.items() if "rollouts" in each}
        return {
            number: (
                sum(task["successes"] for task in tasks.values()),
                sum(task["episodes"] for task in tasks.values()),
            )
            for number, tasks in played.items()
        }

    def add_rollout_error(self, server_round: int, reason: str) -> None:
        """Rollouts could not be played: the losses stand without them."""
        self.rounds[server_round]["rollout-error"] = reason
        self.folder.append("rollout-error", round=server_round, reason=reason)
        logger.error("round {}: no rollouts: {}", server_round, reason)

    def add_bytes(self, server_round: int, down: int, up: int) -> None:
        """What a round's arrays took on their way to the clients, and back."""
        spent = self.rounds[server_round].setdefault("bytes", {"down": 0, "up": 0})
        spent["down"] += down
        spent["up"] += up

    @contextmanager
    def timed(self, server_round: int, phase: str) -> Iterator[None]:
        """Add the block's wall time to the round's `seconds`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add_seconds(server_round, phase, time.perf_counter() - start)

    def add_seconds(self, server_round: int, phase: str, seconds: float) -> None:
        spent = self.rounds[server_round].setdefault("seconds", {})
        spent[phase] = spent.get(phase, 0.0) + seconds

    def close_round(self) -> None:
        """Bring the files that summarise the run up to date."""
        self.folder.write(
            ROUNDS,
            {"rounds": [{"round": number, **content} for number, content in self.rounds.items()]},
        )
        self.folder.write("server/policy_loss_history.json", self._loss_history())

    def draw(self) -> None:
        """Bring the charts up to date, in the background."""
        charts = self.folder.path / "server"
        losses = deepcopy((self.server_losses, self.client_losses))
        draw_losses = partial(loss_chart, charts / "policy_loss.png", *losses)
        self.background.attempt("the losses' chart", draw_losses)
        if plans := self._plans():
            draw_schedule = partial(schedule_chart, charts / "schedule.png", plans)
            self.background.attempt("the schedule's chart", draw_schedule)

    def _plans(self) -> list[tuple[int, Planned]]:
        rounds = [(number, content["plan"]) for number, content in self.rounds.items() if number]
        return [
            (
                number,
                Planned(
                    plan["learning-rate"],
                    plan["proximal-mu"],
                    _keyed_by_number(plan["boosted"]),
                    plan["rules"],
                ),
            )
            for number, plan in rounds
        ]

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
        self.trackers.log(server_round, {prefix: metrics})


def _keyed_by_text(values: Mapping[int, Any]) -> dict[str, Any]:
    """As JSON has it."""
    return {str(key): value for key, value in values.items()}


def _keyed_by_number(values: Mapping[str, Any]) -> dict[int, Any]:
    return {int(key): value for key, value in values.items()}


def _label(who: Participant) -> str:
    return f"{who.number} {who.slug}"
