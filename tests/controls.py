"""Small baselines, made in this process: run folders without Flower."""

from pathlib import Path

from tests.conftest import PROJECT
from zk0.config import Config, Datasets, Logging, load
from zk0.controls import run_control

QUIET = Logging(terminal="ERROR", file="DEBUG")
LEAST = {
    "num-server-rounds": 2,
    "local-steps": 3,
    "batch-size": 8,
    "eval-frequency": 1,
    "eval-batches": 2,
    "eval-episodes": 1,
    "rollout-episodes": 0,
    "rollout-videos": 1,
}


def configured(output_dir: Path, **changes: object) -> Config:
    hyphenated = {key.replace("_", "-"): value for key, value in changes.items()}
    return load(PROJECT, {**LEAST, "output-dir": str(output_dir), **hyphenated})[0]


def make_controls(outputs: Path, sources: Datasets) -> dict[str, Path]:
    """Centralized, and both clients alone."""
    config = configured(outputs)
    run_control("centralized", config, sources, QUIET, [[0, 1]])
    run_control("local", config, sources, QUIET, [[0], [1]])
    centralized, first, second = sorted(outputs.iterdir(), key=lambda run: run.stat().st_ctime)
    return {"centralized": centralized, "first": first, "second": second}
