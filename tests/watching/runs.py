"""Runs made of events: shortened from a real one."""

import json
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

START = datetime.fromisoformat("2026-11-22T12:00:00.000+00:00")
NAMES = ("touch", "picklift")
CONFIG = {"num-server-rounds": 3, "seed": 7, "strategy": "fedprox", "preset": "static"}

# A run of 2026-11-22, without the losses of joints; numbers cut short.
REAL = """\
{"time": "2026-11-22T12:29:07.443+00:00", "event": "server-evaluate", "round": 0, "loss": 2.4345, "datasets": {"near": {"loss": 1.9518, "standard-error": 0.0462, "loss.gripper": 2.3575, "frames": 256}, "far": {"loss": 2.9173, "standard-error": 0.0353, "loss.gripper": 2.94, "frames": 256}}}
{"time": "2026-11-22T12:29:07.454+00:00", "event": "plan", "round": 1, "learning-rate": 0.001, "proximal-mu": 0.01, "boosted": {}, "rules": []}
{"time": "2026-11-22T12:29:08.094+00:00", "event": "client-train", "round": 1, "client": 0, "slug": "touch", "num-examples": 707, "loss": 2.4851, "first-loss": 2.4692, "last-loss": 2.501, "proximal-term": 0.0132, "update-norm": 1.6301, "steps": 2, "seconds": 0.25, "learning-rate": 0.001, "proximal-mu": 0.01}
{"time": "2026-11-22T12:29:08.203+00:00", "event": "client-train", "round": 1, "client": 1, "slug": "picklift", "num-examples": 1134, "loss": 2.4447, "first-loss": 2.1179, "last-loss": 2.7715, "proximal-term": 0.0134, "update-norm": 1.6399, "steps": 2, "seconds": 0.2628, "learning-rate": 0.001, "proximal-mu": 0.01}
{"time": "2026-11-22T12:29:08.668+00:00", "event": "train-aggregate", "round": 1, "loss": 2.4263, "first-loss": 2.2453, "last-loss": 2.6072, "proximal-term": 0.0131, "update-norm": 1.6211, "steps": 2.0, "seconds": 0.2582, "learning-rate": 0.001, "proximal-mu": 0.01, "failures": 0}
{"time": "2026-11-22T12:29:08.896+00:00", "event": "client-evaluate", "round": 1, "client": 0, "slug": "touch", "num-examples": 78, "loss": 4.1357, "standard-error": 0.3131}
{"time": "2026-11-22T12:29:08.978+00:00", "event": "client-evaluate", "round": 1, "client": 1, "slug": "picklift", "num-examples": 125, "loss": 2.1697, "standard-error": 0.0286}
{"time": "2026-11-22T12:29:09.263+00:00", "event": "evaluate-aggregate", "round": 1, "loss": 2.3177, "standard-error": 0.1183, "failures": 0}
{"time": "2026-11-22T12:29:09.756+00:00", "event": "server-evaluate", "round": 1, "loss": 3.2597, "datasets": {"near": {"loss": 3.0982, "standard-error": 0.128, "frames": 256}, "far": {"loss": 3.4211, "standard-error": 0.0684, "frames": 256}}}
{"time": "2026-11-22T12:29:38.213+00:00", "event": "rollouts", "round": 1, "tasks": {"touch": {"task": "touch", "episodes": 3, "successes": 1, "low": 0.0, "high": 0.56, "grasped": null}, "near-touch": {"task": "near-touch", "episodes": 3, "successes": 2, "low": 0.2, "high": 0.9, "grasped": null}}}
{"time": "2026-11-22T12:29:38.657+00:00", "event": "run-end", "round": 1, "hash": "9e9c845a707a68d4a951fcee2c47bf41b2e6ac05832fa4b7225e5d3b69472267"}
"""  # noqa: E501


class Script:
    """Events in the order they are written, each a second after the one before."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def say(self, event: str, server_round: int, **values: Any) -> "Script":
        time = START + timedelta(seconds=len(self.events))
        content = {name.replace("_", "-"): value for name, value in values.items()}
        begin = {"time": time.isoformat(), "event": event, "round": server_round}
        self.events.append(begin | content)
        return self

    def judge(self, server_round: int, loss: float) -> "Script":
        parts = {"near": {"loss": loss / 2}, "far": {"loss": loss * 1.5}}
        return self.say("server-evaluate", server_round, loss=loss, datasets=parts)

    def plan(self, server_round: int, *rules: str) -> "Script":
        plan = {"learning_rate": 0.002, "proximal_mu": 0.01, "boosted": {}, "rules": rules}
        return self.say("plan", server_round, **plan)

    def ask(self, server_round: int, phase: str, clients: Iterable[int] = (0, 1)) -> "Script":
        return self.say(f"{phase}-begin", server_round, clients=list(clients))

    def train(self, server_round: int, client: int, last: float = 0.5) -> "Script":
        numbers = {"first_loss": 1.0, "last_loss": last, "steps": 50, "seconds": 10.0}
        who = {"client": client, "slug": NAMES[client % len(NAMES)]}
        return self.say("client-train", server_round, **who, **numbers)

    def fail(self, server_round: int, client: int, reason: str) -> "Script":
        who = {"client": client, "slug": NAMES[client % len(NAMES)]}
        return self.say("failure", server_round, **who, reason=reason, node_id="5")

    def aggregate(self, server_round: int) -> "Script":
        numbers = {"first_loss": 1.0, "last_loss": 0.5, "steps": 50.0, "seconds": 10.0}
        return self.say("train-aggregate", server_round, **numbers, failures=0)

    def hold_out(self, server_round: int, client: int, loss: float = 0.7) -> "Script":
        who = {"client": client, "slug": NAMES[client % len(NAMES)]}
        return self.say("client-evaluate", server_round, **who, loss=loss)

    def play(self, server_round: int, clients: Iterable[int] = (0, 1)) -> "Script":
        """A whole round of `clients`."""
        clients = list(clients)
        self.plan(server_round).ask(server_round, "train", clients)
        for client in clients:
            self.train(server_round, client)
        self.aggregate(server_round).ask(server_round, "evaluate", clients)
        for client in clients:
            self.hold_out(server_round, client)
        return self.judge(server_round, max(0.1, 2.0 - server_round / 10))

    @property
    def lines(self) -> list[str]:
        return [json.dumps(event) + "\n" for event in self.events]

    @property
    def text(self) -> str:
        return "".join(self.lines)


def describe(names: Iterable[str] = NAMES, **more: Any) -> dict[str, Any]:
    clients = [{"client": number, "slug": slug} for number, slug in enumerate(names)]
    return {
        "kind": "federated",
        "config": CONFIG,
        "clients": clients,
        "server": [{"slug": "near"}, {"slug": "far"}],
        **more,
    }


def make_run(folder: Path, text: str = "", **about: Any) -> Path:
    """A run's folder with what a watcher reads of it."""
    (folder / "server").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(describe(**about)))
    (folder / "metrics.jsonl").write_text(text)
    return folder
