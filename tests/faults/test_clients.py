"""One run in which every faulty client has another fault in round 2: the others go on."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.faults.conftest import Faults
from tests.faults.runs import Record, copy_dataset, settings
from tests.flower import flower_at

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]  # of which the run takes all but 1

TIMEOUT_S = 25.0
FAULTS = {  # by slug: what the client does in round 2, and the reason that it is left out for
    "killed": ("kill", "its worker process has died"),
    "raises": ("raise_with_path", "No such file or directory"),
    "silent": ("raise_without_words", "an error without a message"),
    "sends-nan": ("make_nan", "is not finite"),
    "sends-less": ("make_shorter", "is float32 ("),
    "sends-noise": ("flip_byte", "the SHA-256 of its arrays is not the sender's"),
    "sends-far": ("make_huge", "above max-update-norm = 20"),
    "hangs": ("hang", "no reply within round-timeout = 25 s"),
}
BROKEN = "broken-video"
SOUND = ["sound-a", "sound-b"]
CLIENTS = [*list(FAULTS)[:-1], *SOUND, BROKEN, "hangs"]


def break_video(dataset: Path) -> None:
    """Cut the first camera's file short, as a copy that was interrupted is."""
    video = min((dataset / "videos").rglob("*.mp4"))
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])


@dataclass(frozen=True)
class Run:
    record: Record
    log: str
    datasets: Path
    lost: set[str]  # the numbers of the processes that were killed or hung

    def failures(self, server_round: int) -> dict[str, str]:
        """The reasons of a round by slug."""
        failures = self.record.rounds[server_round]["failures"]
        assert all(CLIENTS[each["client"]] == each["slug"] for each in failures)
        return {each["slug"]: each["reason"] for each in failures}

    def trained(self, server_round: int) -> list[str]:
        events = self.record.events("client-train")
        return sorted(each["slug"] for each in events if each["round"] == server_round)

    def processes(self, server_round: int) -> set[str]:
        """The numbers of the processes that clients trained in."""
        told = rf"pid=(\d+)\)\S* \S+ INFO\s+round {server_round}: training on"
        return set(re.findall(told, self.log))


@pytest.fixture(scope="module")
def run(datasets: dict[str, Path], faults: Faults, tmp_path_factory: pytest.TempPathFactory) -> Run:
    home = tmp_path_factory.mktemp("clients")
    clients = [copy_dataset(datasets["touch"], home / "datasets" / slug) for slug in CLIENTS]
    break_video(home / "datasets" / BROKEN)
    faults.set(
        *({"do": do, "slug": slug, "round": 2} for slug, (do, _) in FAULTS.items()),
        {"do": "fail_evaluation", "round": 1},
    )
    told = settings(
        home / "outputs",
        num_server_rounds=3,
        round_timeout=TIMEOUT_S,
        max_update_norm=20.0,
        keep_checkpoints=4,
        server_momentum=0.0,  # the mean itself is looked at
    )
    with flower_at(home / "flower", clients, [datasets["near"]], faults.environment) as flower:
        log = flower.run(told)
    lost = {faults.await_process(name) for name in ("kill", "hang")}
    return Run(Record.only_one_in(home / "outputs"), log, home / "datasets", lost)


def test_rounds_without_faults_have_all_clients_but_the_broken_one(run: Run):
    everybody = sorted(set(CLIENTS) - {BROKEN})
    assert run.trained(1) == run.trained(3) == everybody
    assert run.failures(1).keys() == run.failures(3).keys() == {BROKEN}


def test_the_faulty_round_is_the_mean_over_the_sound_clients_alone(run: Run):
    assert run.trained(2) == SOUND
    train = run.record.rounds[2]["train"]
    assert train["failures"] == len(CLIENTS) - len(SOUND)
    losses = [each["loss"] for each in run.record.events("client-train") if each["round"] == 2]
    assert train["loss"] == pytest.approx(sum(losses) / len(losses))
    moved = run.record.arrays(2) - run.record.arrays(1)
    assert (
        np.linalg.norm(moved) <= train["update-norm"] * 1.001
    )  # a mean is no longer than its parts


@pytest.mark.parametrize("slug", FAULTS)
def test_a_failure_is_in_both_records_with_its_reason(run: Run, slug: str):
    assert FAULTS[slug][1] in run.failures(2)[slug]
    (event,) = (each for each in run.record.events("failure") if each["slug"] == slug)
    assert (event["round"], event["client"]) == (2, CLIENTS.index(slug))
    assert event["reason"] == run.failures(2)[slug]


@pytest.mark.parametrize("server_round", [1, 2, 3])
def test_a_broken_video_leaves_its_client_out_and_is_named(run: Run, server_round: int):
    reason = run.failures(server_round)[BROKEN]
    assert f"{BROKEN}/videos/observation.images.front/chunk-000/file-000.mp4: frame" in reason
    assert "cannot be decoded" in reason


def test_a_client_that_hangs_is_ended_and_like_the_killed_one_replaced(run: Run):
    assert f"Timeout (0:00:{TIMEOUT_S:.0f})!" in run.log  # faulthandler's, as it ends the process
    assert len(run.processes(3)) == len(run.processes(1)) == 2
    assert not run.lost & run.processes(3)


def test_no_round_takes_longer_than_the_timeout(run: Run):
    first, second, third = (each["seconds"] for each in run.record.rounds[1:])
    assert TIMEOUT_S <= second["train"] < TIMEOUT_S + 5
    assert max(first["train"], third["train"]) < TIMEOUT_S
    assert max(each["evaluate"] for each in (first, second, third)) < TIMEOUT_S


def test_a_failed_evaluation_on_the_server_is_an_error_in_the_record_and_no_number(run: Run):
    error = "RuntimeError: out of memory"
    told = [each.get("server-error") for each in run.record.rounds]
    assert told == [None, error, None, None]
    assert ["server" in each for each in run.record.rounds] == [True, False, True, True]
    assert [each["reason"] for each in run.record.events("server-error")] == [error]
    assert run.record.read("server/policy_loss_history.json").keys() == {"0", "2", "3"}


def test_no_record_has_a_path_of_a_dataset_or_a_number_that_is_none(run: Run):
    for path in run.record.path.rglob("*.json*"):
        assert str(run.datasets) not in path.read_text(), path
    for path in run.record.path.rglob("*.json"):
        run.record.read(str(path))
    assert all(np.isfinite(run.record.arrays(each)).all() for each in range(4))
