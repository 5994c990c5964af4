"""Run folders that are complete, made up and small."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from zk0.record.evidence import FrameLosses, Rollout, folder_of, save_frames, save_rollouts

CONFIG = {
    "strategy": "fedprox",
    "preset": "static",
    "proximal-mu": 0.01,
    "model-name": "embedded",
    "num-server-rounds": 10,
    "normalization": "federated",
    "output-dir": "outputs",
    "device": "cpu",
    "use-wandb": False,
}


CLIENTS = [
    {"client": 0, "slug": "touch", "fingerprint": "aa", "training_episodes": 9},
    {"client": 1, "slug": "stack", "fingerprint": "bb", "training_episodes": 9},
]


TASKS = {"touch": False, "stack": True}  # has it the stages of grasping?


@dataclass(frozen=True)
class Fake:
    """A run folder to be; its loss is `loss` and its success rate `skill`, give or take."""

    seed: int = 0
    kind: str = "federated"
    trained_on: tuple[int, ...] = (0, 1)
    loss: float = 0.5
    skill: float = 0.5
    ended: int = 10
    last_event: str = "run-end"
    config: dict[str, Any] = field(default_factory=dict)
    changes: dict[str, Any] = field(default_factory=dict)  # of config.json
    rounds: tuple[int, ...] = (0, 10)  # evaluated
    first_row: int = 0
    scene_seeds: int = 0
    rollouts: int = 6
    spread: float = 0.02  # between seeds

    def write(self, path: Path) -> Path:
        (path / "server").mkdir(parents=True)
        for number in self.rounds:
            folder = folder_of(path, number)
            save_frames(folder, {slug: self.frames(slug, number) for slug in ("near", "far")})
            if self.rollouts and number:
                save_rollouts(folder, list(self.played()))
        self.write_json(path / "config.json", self.description())
        self.write_json(path / "server/federated_metrics.json", {"rounds": self.metrics()})
        events = [
            ("00:00", "plan", 0),
            *((f"00:{10 + number}", "server-evaluate", number) for number in self.rounds),
            ("01:00", self.last_event, self.ended),
        ]
        (path / "metrics.jsonl").write_text(
            "".join(
                json.dumps({"time": f"2026-01-01T00:{time}.000+00:00", "event": e, "round": n})
                + "\n"
                for time, e, n in events
            )
        )
        return path

    @staticmethod
    def write_json(path: Path, content: Any) -> None:
        path.write_text(json.dumps(content))

    def description(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "trained_on": self.trained_on,
            "config": CONFIG | {"seed": self.seed} | self.config,
            "clients": [{**each, "training_frames": 900} for each in CLIENTS],
            "server": [
                {"slug": slug, "fingerprint": slug, "episodes": 8, "frames": 400}
                for slug in ("near", "far")
            ],
            "budget": {"steps_per_client": {"0": 500, "1": 500}, "batch_size": 32},
            "evaluation": {"batches": 8, "batch_size": 32, "noise_seed": 0, "normalization": "h"},
            **self.changes,
        }

    def frames(self, slug: str, number: int) -> FrameLosses:
        shared = np.random.default_rng(5)  # episodes that are hard are so for every run
        episodes = np.repeat(np.arange(8), 5)
        hard = shared.normal(0, 0.1, 8)[episodes][:, None]
        own = np.random.default_rng([self.seed, len(slug), round(1000 * self.loss)])
        level = self.loss + own.normal(0, self.spread) + (1.0 if not number else 0.0)
        losses = level + hard + own.normal(0, 0.02, (40, 6))
        rows = np.arange(self.first_row, self.first_row + 40)
        return FrameLosses(rows, episodes, losses.astype(np.float32), 10 * losses.astype("f4"))

    def played(self):
        own = np.random.default_rng([self.seed, round(1000 * self.skill)])
        for task, stages in TASKS.items():
            for number in range(self.rollouts):
                won = bool(own.random() < self.skill)
                stage = won if stages else None
                yield Rollout(
                    task, self.scene_seeds + number, "do", won, 30, 10,
                    0.01 if won else 0.05 + 0.02 * own.random(), stage, stage, stage, 3.0,
                )  # fmt: skip

    def metrics(self) -> list[dict[str, Any]]:
        traffic = {"bytes": {"down": 10**6, "up": 10**6}} if self.kind == "federated" else {}
        losses = {0: 1.5, 5: 0.2, 10: self.loss}
        return [
            {"round": number, **traffic}
            | ({"server": {"loss": losses[number]}} if number in self.rounds else {})
            for number in range(11)
        ]


FEDERATED = Fake(loss=0.4, skill=0.95)


CENTRALIZED = Fake(kind="centralized", loss=0.4, skill=0.9)


LOCALS = [
    Fake(kind="local", trained_on=(0,), loss=0.8),
    Fake(kind="local", trained_on=(1,), loss=0.7),
]


def seeds(fake: Fake, count: int = 3) -> list[Fake]:
    return [replace(fake, seed=seed) for seed in range(count)]
