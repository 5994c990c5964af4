"""What `./train-fl-simulation.sh` decides before and after Flower's own run."""

from pathlib import Path

import pytest

from zk0 import connections, simulate
from zk0.config import parse_datasets
from zk0.errors import Zk0Error


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with zk0's connections and one foreign one, and nothing on PATH."""
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "flower"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (tmp_path / "bin").mkdir()
    path = connections.config_path()
    path.parent.mkdir()
    path.write_text(connections.edit('[superlink.lab]\naddress = "10.0.0.1:1"\n', 2, path))
    return tmp_path


def install_gpu(machine: Path, answer: str = "GPU 0: NVIDIA L4", status: int = 0) -> None:
    command = machine / "bin" / "nvidia-smi"
    command.write_text(f"#!/bin/sh\necho '{answer}'\nexit {status}\n")
    command.chmod(0o755)


def test_without_a_gpu_the_cpu_is_chosen_and_said(
    machine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert simulate.choose_connection(None) == "local-simulation"
    assert capsys.readouterr().out.count("\n") == 1


def test_with_a_gpu_clients_take_turns_on_it(machine: Path) -> None:
    install_gpu(machine)
    assert simulate.choose_connection(None) == "local-simulation-serialized-gpu"


@pytest.mark.parametrize("name", ["local-simulation-gpu", "local-simulation-serialized-gpu"])
def test_a_gpu_by_name_without_one_is_an_error(machine: Path, name: str) -> None:
    with pytest.raises(Zk0Error, match="needs an NVIDIA GPU"):
        simulate.choose_connection(name)


@pytest.mark.parametrize(
    ("answer", "status"), [("No devices were found", 0), ("NVIDIA-SMI has failed", 9)]
)
def test_a_driver_without_a_gpu_is_no_gpu(machine: Path, answer: str, status: int) -> None:
    install_gpu(machine, answer, status)
    assert not simulate.has_gpu()


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_a_hidden_gpu_is_no_gpu(
    machine: Path, monkeypatch: pytest.MonkeyPatch, hidden: str
) -> None:
    install_gpu(machine)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert not simulate.has_gpu()


def test_an_unknown_connection_names_the_nearest(machine: Path) -> None:
    with pytest.raises(Zk0Error, match="did you mean 'local-simulation'"):
        simulate.choose_connection("local-simulaton")


def test_a_connection_to_another_machine_is_no_simulation(machine: Path) -> None:
    with pytest.raises(Zk0Error, match="no simulation on this machine"):
        simulate.choose_connection("lab")


def test_the_users_settings_win_over_tiny() -> None:
    options = simulate.parse(["--tiny", "--run-config", "local-steps=5 seed=1"])
    assert options.overrides == [simulate.TINY, "local-steps=5 seed=1"]


@pytest.mark.parametrize(
    "arguments", [["--unknown"], ["stray"], ["--tin"], ["--tiny", "--run-config", "my.toml"]]
)
def test_wrong_usage_exits_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as error:
        simulate.parse(arguments)
    assert error.value.code == 2


def test_only_simulated_datasets_are_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    prepared: list[str] = []
    monkeypatch.setattr("zk0.sim.demonstrations.prepare", prepared.extend)
    sources = [{"source": "sim:touch"}, {"source": "hf:someone/arm"}]
    simulate.prepare_data(parse_datasets({"clients": sources, "server": [{"source": "sim:far"}]}))
    assert prepared == ["touch", "far"]
