"""A deployment, all of it on this machine: a SuperLink, and two nodes with data of their own."""

import os
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest

from tests.flower import CONNECTION, SCRIPTS, SETTINGS, Flower, FlowerRun, free_ports, make_app

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
NAMES = ("touch", "picklift")
ONE_ROUND = (
    "num-server-rounds=1 local-steps=1 rollout-episodes=0 rollout-videos=0 fraction-evaluate=0.0 "
    "min-available-nodes=2 min-train-nodes=2"
)


@contextmanager
def running(home: Path, command: str, *arguments: str) -> Iterator[None]:
    """A program as on a machine of its own; it ends with the block, and all that it started."""
    home.mkdir(parents=True)
    environment = environment_of(home)
    with (home / "log").open("w") as log:
        process = psutil.Popen(
            [str(SCRIPTS / command), "--insecure", *arguments],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            yield
        finally:
            family = [*process.children(recursive=True), process]
            for member in family:
                if member.is_running():
                    member.kill()
            psutil.wait_procs(family, timeout=10)


def environment_of(home: Path) -> dict[str, str]:
    return {
        **os.environ,
        "FLWR_HOME": str(home / "flwr"),
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_TELEMETRY_ENABLED": "0",
        "PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}",
        "PYTHONUNBUFFERED": "1",
    }


def await_port(port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert time.monotonic() < deadline, f"nothing answers at port {port}"
        time.sleep(0.2)


@contextmanager
def deployed(folder: Path, server: Sequence[Path], nodes: Sequence[Path]) -> Iterator[Flower]:
    """A SuperLink, and a node for each dataset of `nodes`; the app has other clients than these."""
    port, *runtime = free_ports(1 + len(nodes))
    address = f"127.0.0.1:{port}"
    with ExitStack() as stack:
        stack.enter_context(running(folder / "superlink", "flower-superlink", "--port", str(port)))
        await_port(port)
        for number, dataset in enumerate(nodes):
            options = ("--superlink", address, "--port", str(runtime[number]))
            source = ("--node-config", f"dataset-uri='local:{dataset}'")
            home = folder / f"node-{number}"
            stack.enter_context(running(home, "flower-supernode", *options, *source))
        app = make_app(folder / "app", [folder / "nobody-has-this"], server)
        environment = environment_of(folder / "laptop")
        config = folder / "laptop" / "flwr" / "config.toml"
        config.parent.mkdir(parents=True)
        config.write_text(f'[superlink.{CONNECTION}]\naddress = "{address}"\ninsecure = true\n')
        yield Flower(app, environment)


@pytest.fixture(scope="module")
def run(datasets: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> FlowerRun:
    folder = tmp_path_factory.mktemp("deployment")
    outputs = folder / "outputs"
    with deployed(folder, [datasets["near"]], [datasets[name] for name in NAMES]) as flower:
        log = flower.run(SETTINGS, ONE_ROUND, f"output-dir='{outputs}'")
    (found,) = outputs.iterdir()
    return FlowerRun(found, log)


def test_each_node_trains_on_what_its_owner_says(run: FlowerRun):
    clients = run.read("config.json")["clients"]
    assert [(each["client"], each["slug"]) for each in clients] == [(0, "picklift"), (1, "touch")]
    assert len({each["node_id"] for each in clients}) == 2
    trained = {each["slug"]: each for each in run.events if each["event"] == "client-train"}
    assert trained.keys() == set(NAMES)
    assert run.events[-1]["event"] == "run-end"


def test_a_node_takes_the_servers_number_of_it(run: FlowerRun):
    """For its random stream, and for its log, which on one machine is in the run's folder."""
    for number, name in enumerate(sorted(NAMES)):
        log = (run.folder / "clients" / f"client_{number}" / "client.log").read_text()
        assert [line.rpartition(": ")[2] for line in log.splitlines() if "training on" in line] == [
            f"training on {name}"
        ]
