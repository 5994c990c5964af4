"""Run folders as a federation leaves them, written by what writes a federation's."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from loguru import logger

from zk0.evaluation.tally import by_task
from zk0.record.evidence import Rollout, folder_of
from zk0.record.history import History
from zk0.record.run_folder import RunFolder
from zk0.record.videos import VideoFacts, save_facts, write_video
from zk0.report.facts import defaults

JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
EVIL = "<script>alert(1)</script>"


@dataclass(frozen=True)
class Participant:
    number: int
    slug: str
    node_id: int = 7


@dataclass(frozen=True)
class Plan:
    learning_rate: float
    proximal_mu: float
    boosted: dict[int, float]
    rules: Sequence[str]


class Silence:
    """Neither a tracker nor a background: nothing is logged elsewhere, no chart is drawn."""

    def log(self, server_round: int, metrics: Any) -> None: ...

    def submit(self, work: Callable[[], object]) -> None: ...


@dataclass(frozen=True)
class Fake:
    """A run folder to be; the server's loss falls from 2 towards `floor`."""

    rounds: int = 4
    slugs: Sequence[str] = ("touch", "stack", EVIL)
    floor: float = 0.5
    ended: bool = True
    void: int = 0  # a round without enough replies
    films: Sequence[int] = ()  # rounds that were filmed
    config: dict[str, Any] = field(default_factory=dict)
    planned: int | None = None

    def write(self, path: Path) -> Path:
        (path / "server").mkdir(parents=True)
        folder = RunFolder(path)
        folder.write("config.json", self.description())
        history = History(folder, Silence(), Silence())  # type: ignore[arg-type]
        logger.disable("zk0.record")
        for number in range(self.rounds + 1):
            self.play(history, number)
        logger.enable("zk0.record")
        for number in self.films:
            self.film(path, number)
        history.close_round()
        if self.ended:
            folder.append("run-end", round=self.rounds, hash="cc")
        return path

    def description(self) -> dict[str, Any]:
        rounds = self.planned or self.rounds
        clients = [
            {"client": i, "node_id": "7", "slug": slug, "description": f"do {slug}"}
            | {"fingerprint": "aa", "training_episodes": 9, "training_frames": 90}
            for i, slug in enumerate(self.slugs)
        ]
        server = [
            {"slug": slug, "description": "unseen", "fingerprint": "bb"}
            | {"episodes": 8, "frames": 400}
            for slug in ("near", "far")
        ]
        return {
            "kind": "federated",
            "trained_on": list(range(len(self.slugs))),
            "config": {**(defaults() or {}), "num-server-rounds": rounds, **self.config},
            "versions": {"zk0": "0.1.0", "torch": "2.11.0"},
            "git_revision": None,
            "clients": clients,
            "server": server,
        }

    def play(self, history: History, number: int) -> None:
        if number:
            self.train(history, number)
        if number != self.void or not number:
            with history.timed(number, "server-evaluate"):
                near, far = self.measure(number, 0.0), self.measure(number, 0.4)
            loss = (near["loss"] + far["loss"]) / 2
            history.add_server_evaluation(number, loss, {"near": near, "far": far})
        if number in (self.rounds // 2, self.rounds) and number:
            tallies = by_task(list(self.rollouts(number)))
            history.add_rollouts(number, {task: each.to_json() for task, each in tallies.items()})

    def train(self, history: History, number: int) -> None:
        rules = ["stall"] if number % 3 == 0 else []
        history.add_plan(number, Plan(2e-3 * 0.99**number, 0.01, {0: 3e-3} if rules else {}, rules))
        void = number == self.void
        who = [Participant(i, slug) for i, slug in enumerate(self.slugs)]
        for each in who:
            if void or (number == 2 and each.number == len(who) - 1):
                history.add_failure(number, each, f"its {EVIL} weights are not finite")
            else:
                self.reply(history, number, each)
        history.add_seconds(number, "train", 20.0 + number % 5)
        history.add_bytes(number, 2 * len(who) * 10**7, len(who) * 10**7)
        if void:
            history.add_void(number, 0, 2)

    def reply(self, history: History, number: int, who: Participant) -> None:
        loss = self.measure(number, 0.1 * who.number)
        trained = {"loss": loss["loss"], "first-loss": loss["loss"] + 0.3, "steps": 50}
        trained |= {"last-loss": loss["loss"] - 0.1, "seconds": 9.0, "num-examples": 90}
        history.add_training(number, who, {**trained, "update-norm": 5 / number + who.number})
        history.add_evaluation(number, who, {**loss, "num-examples": 20})

    def measure(self, number: int, more: float) -> dict[str, float]:
        level = self.floor + (2 - self.floor) * 0.6**number + more
        losses = {f"loss.{joint}": level * (1 + 0.1 * i) for i, joint in enumerate(JOINTS)}
        errors = {f"error.{joint}": 10 * level + i for i, joint in enumerate(JOINTS)}
        return {"loss": level, "standard-error": 0.02, "frames": 256, **losses, **errors}

    def rollouts(self, number: int):
        for task, stages in (("touch", None), ("stack", True)):
            for seed in range(6):
                won = seed < number
                stage = None if stages is None else seed <= number
                yield Rollout(task, seed, "do", won, 30, 10, 0.05, stage, stage, None, 400.0)

    def film(self, path: Path, number: int) -> None:
        for who, kind in (("server", "rollout"), ("client_2", "open-loop")):
            video = folder_of(path, number, who) / "rollout_touch it_1.mp4"
            pictures = (np.full((64, 96, 3), 5 * i, np.uint8) for i in range(30))
            write_video(video, pictures, 10)
            save_facts(
                video,
                VideoFacts(who, number, kind, "touch", f"Touch {EVIL}", 1, None, True, 30, 10, 3.0,
                           400.0, 0.5, dict.fromkeys(JOINTS, 2.0)),
            )  # fmt: skip


def rewrite(path: Path, change: Callable[[Any], None]) -> None:
    """Change a JSON file in place."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
