"""A local SuperLink of the tests' own, and runs on it as a user would start them."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.conftest import PROJECT

SCRIPTS = Path(sys.executable).parent
CONNECTION = "tests"
TIMEOUT_S = 240
SETTINGS = (  # of a federation that takes seconds; the baselines' are the same
    "num-server-rounds=2 local-steps=3 batch-size=8 eval-batches=2 eval-episodes=1 "
    "checkpoint-interval=1 eval-frequency=1 rollout-episodes=2 rollout-frequency=0"
)


@dataclass
class FlowerRun:
    folder: Path
    log: str

    def read(self, name: str) -> dict:
        return json.loads((self.folder / name).read_text())

    @property
    def events(self) -> list[dict]:
        lines = (self.folder / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]


@dataclass
class Flower:
    """An app folder with datasets of its own, and the environment that its SuperLink lives in."""

    app: Path
    environment: dict[str, str]

    def run(self, *run_config: str, completes: bool = True) -> str:
        """`flwr run --stream`, which has to complete, or has to fail.

        Returns the log and the reason that Flower gives for the run's end: the log ends with the
        run, and on a busy machine its last lines come too late for it.
        """
        done = self.call(*run_config)
        log = done.stdout + done.stderr
        status, reason = self.status(_read_run_id(log))
        assert (status == "finished:completed") == completes, log
        return f"{log}\n{reason}"

    def call(self, *run_config: str) -> subprocess.CompletedProcess[str]:
        return self._flwr("run", str(self.app), CONNECTION, "--stream", *_as_options(run_config))

    def start(self, *run_config: str) -> str:
        """`flwr run` that comes back as soon as the run has begun; its number."""
        done = self._flwr("run", str(self.app), CONNECTION, *_as_options(run_config))
        return _read_run_id(done.stdout + done.stderr)

    def await_end(self, run_id: str) -> None:
        """Wait for a run that was started, which has to complete."""
        deadline = time.monotonic() + TIMEOUT_S
        while not (status := self.status(run_id))[0].startswith("finished"):
            assert time.monotonic() < deadline, status
        assert status[0] == "finished:completed", status

    def kill_server(self) -> None:
        """`kill -9` the process that ServerApp and Ray's driver share, in all runs."""
        for superlink in _superlinks(self.environment["FLWR_LOCAL_SUPERLINK_HTTP_API_PORT"]):
            for process in superlink.children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    if process.name() == "flwr-simulation":
                        process.kill()

    def status(self, run_id: str) -> tuple[str, str]:
        """How the run stands, and why it ended."""
        listed = self._flwr("ls", CONNECTION, "--run-id", run_id, "--format", "json")
        run = json.loads(listed.stdout)["runs"][0]
        return run["status"], run["status-details"]

    def _flwr(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(SCRIPTS / "flwr"), *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )


@contextmanager
def flower_at(
    folder: Path,
    clients: Sequence[Path],
    server: Sequence[Path],
    environment: Mapping[str, str] | None = None,
    processes: int = 2,
) -> Iterator[Flower]:
    """The project as an app with these datasets, on a SuperLink that ends with the block.

    All its processes, Ray's too, have the `environment` beside the usual one; so many `processes`
    do the clients' work.
    """
    control, http = (str(port) for port in free_ports(2))
    environment = {
        **os.environ,
        **(environment or {}),
        "FLWR_HOME": str(folder / "flwr"),
        "FLWR_LOCAL_CONTROL_API_PORT": control,
        "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": http,
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_TELEMETRY_ENABLED": "0",
        "PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}",
        "PYTHONUNBUFFERED": "1",
    }
    app = make_app(folder / "app", clients, server)
    _write_connection(folder / "flwr", len(clients), processes)
    try:
        yield Flower(app, environment)
    finally:
        _end(http)


def make_app(app: Path, clients: Sequence[Path], server: Sequence[Path]) -> Path:
    """The project as an app with these datasets."""
    app.mkdir(parents=True)
    shutil.copytree(PROJECT / "src", app / "src", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("LICENSE", "README.md"):
        shutil.copy(PROJECT / name, app)
    text = (PROJECT / "pyproject.toml").read_text()
    before, rest = text.split("\n[tool.zk0.datasets]\n", 1)
    after = rest[rest.index("# --- tools") :]
    entries = {
        key: ", ".join(f'{{ source = "local:{path}" }}' for path in paths)
        for key, paths in {"clients": clients, "server": server}.items()
    }
    lists = "\n".join(f"{key} = [{value}]" for key, value in entries.items())
    (app / "pyproject.toml").write_text(f"{before}\n[tool.zk0.datasets]\n{lists}\n\n{after}")
    return app


def _write_connection(flower_home: Path, clients: int, processes: int) -> None:
    flower_home.mkdir()
    (flower_home / "config.toml").write_text(
        f"[superlink.{CONNECTION}]\n"
        'address = ":local:"\n'
        f"options.num-supernodes = {clients}\n"
        f"options.backend.init-args.num-cpus = {processes}\n"
        "options.backend.client-resources.num-cpus = 1\n"
        "options.backend.client-resources.num-gpus = 0.0\n"
    )


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _read_run_id(log: str) -> str:
    started = re.search(r"Successfully started run (\d+)", log)
    assert started, log
    return started[1]


def _as_options(run_config: Sequence[str]) -> list[str]:
    return [part for setting in run_config for part in ("--run-config", setting)]


def _superlinks(port: str) -> Iterator[psutil.Process]:
    """The SuperLink that `flwr run` started on this port, where it still runs."""
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        if port in command and any("flower-superlink" in part for part in command):
            yield process


def _end(port: str) -> None:
    """End the SuperLink that `flwr run` left behind, with everything it started."""
    for superlink in _superlinks(port):
        family = [superlink, *superlink.children(recursive=True)]
        for member in family:
            with suppress(psutil.NoSuchProcess):
                member.kill()
        psutil.wait_procs(family, timeout=10)
