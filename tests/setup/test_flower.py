"""A run through the `flwr` command, here a stand-in for it."""

from pathlib import Path

import pytest

from zk0 import flower
from zk0.errors import Zk0Error
from zk0.paths import PROJECT
from zk0.record.run_folder import RunFolder


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("WARNING: Since flwr 1.32, default simulated SuperNodes changed from 10 to 2.", False),
        ("INFO: \tflwr federation simulation-config @none/default <superlink>", False),
        ("WARNING: option `x` is deprecated", True),
        ("INFO: round 1 of 3", True),
    ],
)
def test_only_flowers_advice_is_left_out_of_the_log(line: str, shown: bool) -> None:
    assert (flower.NOISE.search(line) is None) == shown


FLWR = """\
#!/bin/sh
echo "$@" >>"$CALLS"
case $1 in
  run) echo "Successfully started run 42"; echo "a line of the log"; exit $RUN_EXIT ;;
  ls) echo '{"runs": [{"status": "'$STATUS'", "status-details": "why"}]}' ;;
esac
"""


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    flwr = tmp_path / "flwr"
    flwr.write_text(FLWR)
    flwr.chmod(0o755)
    monkeypatch.setattr(flower, "SCRIPTS", tmp_path)
    return tmp_path / "calls"


def follow(calls: Path, status: str, run_exit: int = 0) -> None:
    environment = {"CALLS": str(calls), "STATUS": status, "RUN_EXIT": str(run_exit), "PATH": "/bin"}
    run = flower.Run("local-simulation", environment)
    run.follow(["seed=1"], str(calls.parent / "outputs"))


def test_a_completed_run_is_a_success(calls: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = RunFolder.create(str(calls.parent / "outputs"))
    folder.write("config.json", {"flower_run_id": "42"})
    follow(calls, "finished:completed")
    shown = capsys.readouterr().out
    assert "a line of the log" in shown
    assert shown.endswith(f"Outputs: {folder.path}\n")
    assert calls.read_text().splitlines() == [
        f"run {PROJECT} local-simulation --stream --run-config seed=1",
        "ls local-simulation --run-id 42 --format json",
    ]


@pytest.mark.parametrize("status", ["finished:failed", "finished:stopped", "running"])
def test_any_other_end_is_a_failure(calls: Path, status: str) -> None:
    with pytest.raises(Zk0Error, match=rf"run 42 did not complete: {status} \(why\)"):
        follow(calls, status)


def test_a_run_that_flower_refuses_is_a_failure(calls: Path) -> None:
    with pytest.raises(Zk0Error, match="failed with exit status 3"):
        follow(calls, "finished:completed", run_exit=3)


def test_a_named_federation_has_its_own_number_of_clients(calls: Path) -> None:
    environment = {"CALLS": str(calls), "STATUS": "finished:completed", "RUN_EXIT": "0"}
    run = flower.Run("local-simulation", environment | {"PATH": "/bin"}, clients=12)
    run.follow(["datasets='so100-community'"], str(calls.parent / "outputs"))
    words = calls.read_text().splitlines()[0]
    assert "--federation-config num-supernodes=12 --run-config datasets=" in words


def test_an_interrupted_run_is_stopped(calls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flower, "HANDLED", ())
    shown: list[bool] = []
    show = flower.Run.show

    def interrupted_once(run: flower.Run, stream: object) -> None:
        show(run, stream)  # type: ignore[arg-type]
        if not shown:
            shown.append(True)
            raise flower.Interrupted(2)

    monkeypatch.setattr(flower.Run, "show", interrupted_once)
    with pytest.raises(flower.Interrupted) as interruption:
        follow(calls, "running")
    assert interruption.value.exit_status == 130
    assert calls.read_text().splitlines()[-1] == "stop 42 local-simulation"
