"""Downloading from a Hub on this machine, with huggingface_hub itself."""

import errno
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants, file_download
from huggingface_hub.utils import close_session

from tests.data.hub_server import Hub, Repository, content_of, serving, stop, use
from tests.so100.make import Spec, make
from tests.so100.old_formats import as_v20, as_v21
from zk0.data.formats import ready
from zk0.data.hub import download
from zk0.errors import Zk0Error

NAME = "alice/so101-cubes"
TOKEN = "hf_thisIsSecret0123456789"
VIDEO = "videos/observation.images.front/chunk-000/file-000.mp4"


@pytest.fixture(scope="module")
def arm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset in format v3.0; not to be written to."""
    return make(tmp_path_factory.mktemp("hub-v30") / "arm", Spec(episodes=(20, 15)))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("hub-other") / "arm", Spec(episodes=(20,), seed=1))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving() as server:
        use(server, cache, monkeypatch)
        yield server


def refuse(name: str = NAME, revision: str = "") -> str:
    """Why it cannot be downloaded, which has to be one line that names it."""
    with pytest.raises(Zk0Error) as error:
        download(name, revision)
    message = str(error.value)
    assert message.startswith(f"hf:{name}: ")
    assert "\n" not in message
    assert TOKEN not in message
    return message


def blobs(cache: Path) -> list[Path]:
    return [path.resolve() for path in cache.glob("*/snapshots/*/**/*") if path.is_file()]


def forget_list(cache: Path) -> None:
    """As a cache that an older huggingface_hub made, or a download file by file."""
    for path in cache.glob("*/trees/*"):
        path.unlink()
    from huggingface_hub import _tree_cache

    _tree_cache._IN_MEMORY_TREE_CACHE.clear()


# --- what arrives ---------------------------------------------------------------------------------


def test_what_arrives_is_what_the_hub_has(hub: Hub, arm: Path, lines: list[str]) -> None:
    commit = hub.add(NAME, arm, "main", "v3.0")
    snapshot = download(NAME)
    assert content_of(snapshot.folder) == content_of(arm)
    assert snapshot.commit == commit
    size = sum(len(data) for path, data in content_of(arm).items() if path[:4] != "meta") / 1e6
    assert lines == [f"INFO hf:{NAME}: v3.0, commit {commit[:8]}, {size:.1f} MB to get\n"]
    assert ready(snapshot.folder, "arm") == snapshot.folder


def test_other_files_of_a_repository_stay_there(hub: Hub, arm: Path) -> None:
    files = content_of(arm) | {"models/model.safetensors": b"x", ".gitattributes": b"x"}
    hub.repositories[NAME] = Repository()
    hub.repositories[NAME].commit(files, "main")
    assert content_of(download(NAME).folder) == content_of(arm)


@pytest.mark.parametrize(
    ("tags", "chosen"),
    [
        (["v2.0", "v2.1", "v3.0"], "v3.0"),
        (["v2.0", "v2.1"], "v2.1"),
        (["v2.0"], "main"),
        ([], "main"),
    ],
)
def test_the_tag_of_the_newest_format_that_can_be_read_is_taken(
    hub: Hub, arm: Path, other: Path, tags: list[str], chosen: str, lines: list[str]
) -> None:
    wanted = hub.add(NAME, arm, chosen)
    hub.add(NAME, other, "another", *({"main", *tags} - {chosen}))
    snapshot = download(NAME)
    assert snapshot.commit == wanted
    assert content_of(snapshot.folder) == content_of(arm)
    assert lines[0].startswith(f"INFO hf:{NAME}: {chosen}, commit {wanted[:8]}, ")


def test_an_older_format_arrives_as_it_is(hub: Hub, arm: Path, tmp_path: Path) -> None:
    old = as_v21(arm, tmp_path / "old")
    hub.add(NAME, old, "v2.1")
    assert content_of(download(NAME).folder) == content_of(old)


def test_a_format_that_nothing_reads_is_refused_before_its_videos_arrive(
    hub: Hub, arm: Path, tmp_path: Path
) -> None:
    hub.add(NAME, as_v20(arm, tmp_path / "old"))
    assert "format v2.0 has to become v2.1 first" in refuse()
    assert all("/meta/" in path for path in hub.fetched())


def test_a_repository_that_is_no_robot_dataset_is_refused_before_it_arrives(hub: Hub) -> None:
    hub.repositories[NAME] = Repository()
    hub.repositories[NAME].commit({"data/train.parquet": b"x" * 1000}, "main")
    assert "no LeRobotDataset is in" in refuse()
    assert hub.fetched() == []


def test_a_repository_that_lacks_files_is_named_as_the_reason(hub: Hub, arm: Path) -> None:
    files = content_of(arm)
    del files[VIDEO]
    hub.repositories[NAME] = Repository()
    hub.repositories[NAME].commit(files, "main")
    assert f"the repository itself lacks {VIDEO} at main" in refuse()


# --- revisions ------------------------------------------------------------------------------------


@pytest.mark.parametrize("revision", ["commit", "main", "v3.0"])
def test_a_revision_stays_what_it_is_without_asking_anybody(
    hub: Hub, arm: Path, other: Path, revision: str
) -> None:
    commit = hub.add(NAME, arm, "main", "v3.0")
    revision = commit if revision == "commit" else revision
    first = download(NAME, revision)
    hub.add(NAME, other, "main", "v3.0")
    hub.requests.clear()
    assert download(NAME, revision) == first
    assert hub.requests == []
    stop(hub)
    assert download(NAME, revision) == first
    assert content_of(first.folder) == content_of(arm)


def test_without_one_the_hubs_newest_is_taken(hub: Hub, arm: Path, other: Path) -> None:
    hub.add(NAME, arm)
    assert content_of(download(NAME).folder) == content_of(arm)
    hub.add(NAME, other)
    assert content_of(download(NAME).folder) == content_of(other)


def test_a_missing_revision_is_named(hub: Hub, arm: Path) -> None:
    hub.add(NAME, arm)
    assert "it has no revision v9. Those that it has are at" in refuse(NAME, "v9")
    assert f"it has no revision {'a' * 40}" in refuse(NAME, "a" * 40)


# --- without a network ----------------------------------------------------------------------------


def test_without_a_network_the_cached_one_is_used_and_said(
    hub: Hub, arm: Path, lines: list[str]
) -> None:
    commit = hub.add(NAME, arm)
    first = download(NAME)
    stop(hub)
    lines.clear()
    assert download(NAME) == first
    (line,) = lines
    assert line.startswith(f"WARNING hf:{NAME}: {hub.url} cannot be reached (")
    assert line.endswith(f"). Using commit {commit[:8]} from the cache.\n")


def test_offline_mode_asks_nobody(
    hub: Hub, arm: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    hub.add(NAME, arm)
    first = download(NAME)
    hub.requests.clear()
    lines.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    close_session()
    try:
        assert download(NAME) == first
        assert "HF_HUB_OFFLINE is set" in lines[0]
        assert "HF_HUB_OFFLINE is set, which forbids" in refuse("bob/unknown")
    finally:
        close_session()
    assert hub.requests == []


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_hub_that_is_down_is_no_network(
    hub: Hub, arm: Path, status: int, lines: list[str]
) -> None:
    hub.add(NAME, arm)
    first = download(NAME)
    hub.statuses["/api/datasets"] = status
    lines.clear()
    assert download(NAME) == first
    assert f"the Hub answers with status {status}" in lines[0]
    assert "The cache has no whole copy" in refuse("bob/unknown")


@pytest.mark.parametrize("page", [b"<html>log in to the hotel</html>", b"[]", b"{}", b"null"])
def test_somebody_elses_answer_is_no_hub(
    hub: Hub, arm: Path, page: bytes, lines: list[str]
) -> None:
    hub.add(NAME, arm)
    first = download(NAME)
    hub.page = page
    lines.clear()
    assert "does not answer as a Hub does" in refuse("bob/unknown")
    assert download(NAME) == first
    assert "does not answer as a Hub does" in lines[0]


def test_without_network_and_cache_both_are_said(hub: Hub) -> None:
    stop(hub)
    for revision in ("", "main", "a" * 40):
        message = refuse(NAME, revision)
        assert f"{hub.url} cannot be reached" in message
        assert message.endswith("The cache has no whole copy of it.")


# --- not whole ------------------------------------------------------------------------------------


def test_a_download_that_breaks_off_goes_on_where_it_was(
    hub: Hub, arm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 500)  # goes on after whole chunks
    hub.add(NAME, arm)
    hub.cuts[VIDEO] = [1000, 700]
    snapshot = download(NAME)
    assert content_of(snapshot.folder) == content_of(arm)
    asked = [each.range for each in hub.requests if each.path.endswith(VIDEO)]
    assert [each for each in asked if each] == ["bytes=1000-", "bytes=1500-"]


def test_a_download_that_fails_keeps_the_files_that_are_whole(
    hub: Hub, arm: Path, cache: Path
) -> None:
    commit = hub.add(NAME, arm)
    hub.cuts[VIDEO] = [1000] + [0] * 20
    message = refuse()
    assert f"the connection to {hub.url} broke off (peer closed connection" in message
    assert message.endswith("Call again: files that are whole are kept.")
    assert len(blobs(cache)) == len(content_of(arm)) - 1
    assert not list(cache.rglob("*.incomplete"))
    hub.cuts.clear()
    hub.requests.clear()
    assert content_of(download(NAME, commit).folder) == content_of(arm)
    assert {path for path in hub.fetched() if "/resolve/" not in path} == {
        path for path in hub.fetched() if path.endswith(VIDEO)
    }


@pytest.mark.parametrize("listed", [True, False])
def test_an_incomplete_copy_is_not_taken_for_the_dataset(
    hub: Hub, arm: Path, cache: Path, listed: bool
) -> None:
    commit = hub.add(NAME, arm)
    folder = download(NAME).folder
    (folder / VIDEO).resolve().unlink()
    (folder / VIDEO).unlink()
    if not listed:
        forget_list(cache)
    for revision in ("main", commit):
        assert content_of(download(NAME, revision).folder) == content_of(arm)
    (folder / VIDEO).resolve().unlink()  # a link that leads nowhere
    if not listed:
        forget_list(cache)
    assert content_of(download(NAME, commit).folder) == content_of(arm)
    (folder / VIDEO).unlink()
    if not listed:
        forget_list(cache)
    stop(hub)
    assert refuse(NAME, commit).endswith(f"The cache's copy is not whole: {VIDEO}.")
    assert "The cache has no whole copy of it." in refuse()


def test_a_file_that_is_cut_off_is_not_taken_for_the_dataset(hub: Hub, arm: Path) -> None:
    commit = hub.add(NAME, arm)
    file = (download(NAME).folder / VIDEO).resolve()
    file.write_bytes(file.read_bytes()[:50])
    stop(hub)
    assert refuse(NAME, commit).endswith(f"The cache's copy is not whole: {VIDEO}.")


def test_a_file_that_is_cut_off_is_fetched_anew(
    hub: Hub, arm: Path, cache: Path, lines: list[str]
) -> None:
    commit = hub.add(NAME, arm)
    folder = download(NAME).folder
    for name in (VIDEO, "meta/info.json"):
        file = (folder / name).resolve()
        file.write_bytes(file.read_bytes()[:50])
    forget_list(cache)
    lines.clear()
    assert content_of(download(NAME, commit).folder) == content_of(arm)
    assert [line for line in lines if line.startswith("WARNING")] == [
        f"WARNING hf:{NAME}: {name} is damaged in the cache; getting it again\n"
        for name in ("meta/info.json", VIDEO)
    ]


def test_a_killed_download_is_completed(hub: Hub, arm: Path, cache: Path) -> None:
    commit = hub.add(NAME, arm)
    hub.cuts[VIDEO] = [0] * 1000
    program = f"from zk0.data.hub import download; download({NAME!r})"
    environment = {**os.environ, **environment_of(hub, cache)}
    process = subprocess.Popen([sys.executable, "-c", program], env=environment)
    while len(blobs(cache)) < len(content_of(arm)) - 1:
        assert process.poll() is None
    process.kill()
    process.wait()
    hub.cuts.clear()
    assert content_of(download(NAME, commit).folder) == content_of(arm)


def environment_of(hub: Hub, cache: Path) -> dict[str, str]:
    return {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(cache.parent / "hf-home"),
        "HF_HUB_CACHE": str(cache),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0",
    }


# --- refused --------------------------------------------------------------------------------------


def test_a_missing_dataset_is_named(hub: Hub) -> None:
    message = refuse("bob/unknown")
    assert "the Hub has no such dataset, or does not show it. Check the spelling" in message
    assert "hf auth login" in message


def test_a_private_one_is_shown_to_whoever_may_see_it(
    hub: Hub, arm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = hub.add(NAME, arm)
    hub.repositories[NAME].token = TOKEN
    assert "does not show it" in refuse()
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    download(NAME)
    stored = [each for each in hub.requests if each.path.startswith("/storage/")]
    assert stored
    assert not any(each.token for each in stored)
    monkeypatch.delenv("HF_TOKEN")
    assert refuse().endswith(f"In the cache there is hf:{NAME}@{commit}.")


def test_where_to_accept_conditions_is_said(hub: Hub, arm: Path) -> None:
    hub.add(NAME, arm)
    hub.repositories[NAME].gated = True
    message = refuse()
    assert f"accept conditions. Do so at {hub.url}/datasets/{NAME}, then log in with" in message


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "the Hub does not accept the token (401). Log in anew"),
        (403, "the Hub does not let you read it (403)"),
        (418, "the Hub answers with status 418"),
    ],
)
def test_a_token_is_never_shown(
    hub: Hub, arm: Path, monkeypatch: pytest.MonkeyPatch, status: int, message: str
) -> None:
    hub.add(NAME, arm)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.statuses["/resolve/"] = status
    assert message in refuse()


def test_a_token_in_the_address_of_a_mirror_is_not_shown(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "ENDPOINT", f"http://{TOKEN}@127.0.0.1:1")
    assert "http://(token)@127.0.0.1:1 cannot be reached" in refuse()


@pytest.mark.parametrize(
    "path", ["meta/../../../../up.json", "data/../../../../../up", "meta//../../up"]
)
def test_a_file_name_that_leads_out_of_the_cache_is_refused(
    hub: Hub, arm: Path, tmp_path: Path, path: str
) -> None:
    hub.repositories[NAME] = Repository()
    hub.repositories[NAME].commit(content_of(arm) | {path: b"x"}, "main")
    assert "it cannot be downloaded: Invalid filename" in refuse()
    assert not list(tmp_path.rglob("up*"))


@pytest.mark.parametrize(
    "name",
    [
        "arm",
        "a/b/c",
        "/abs",
        "../up",
        "owner/",
        "o/na me",
        "",
        "o/..",
        "o/a..b",
        "o/a--b",
        "o/é",
        "o/a\n",
    ],
)
def test_a_malformed_name_is_refused(hub: Hub, name: str) -> None:
    with pytest.raises(Zk0Error, match="is no dataset on the Hub: write it as owner/name"):
        download(name)
    assert hub.requests == []


@pytest.mark.parametrize(
    "revision", ["/etc/passwd", "../../x", "a/../b", "a//b", "a b", "-\n", "."]
)
def test_a_malformed_revision_is_refused(hub: Hub, revision: str) -> None:
    with pytest.raises(Zk0Error, match="is no revision: name a branch, tag or commit"):
        download(NAME, revision)
    assert hub.requests == []


def test_a_full_disk_is_named(hub: Hub, arm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    hub.add(NAME, arm)
    monkeypatch.setattr(file_download, "_chmod_and_move", full)
    assert re.search(r"no space left in .*/cache\. Free some, or set HF_HUB_CACHE", refuse())


def test_a_cache_that_cannot_be_written_is_named(hub: Hub, arm: Path, cache: Path) -> None:
    hub.add(NAME, arm)
    cache.touch()
    assert "it cannot be downloaded: " in refuse()


# --- zk0 data fetch -------------------------------------------------------------------------------


def call(hub: Hub, cache: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`zk0 data fetch ...`, which knows the server by HF_ENDPOINT."""
    return subprocess.run(
        [sys.executable, "-m", "zk0.cli", "data", "fetch", *arguments],
        env={**os.environ, **environment_of(hub, cache), "COLUMNS": "160"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_the_command_fetches_all_and_says_what_is_here(
    hub: Hub, arm: Path, other: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZK0_HOME", str(tmp_path / "home"))
    first = hub.add(NAME, arm, "v3.0")
    second = hub.add("bob/arm", as_v21(other, tmp_path / "old"), "v2.1")
    done = call(hub, cache, f"hf:{NAME}", "hf:bob/unknown", f"hf:bob/arm@{second}")
    assert done.returncode == 1
    heading, *rows = [line.split() for line in done.stdout.splitlines()]
    assert heading == ["source", "commit", "format", "episodes", "frames", "MB", "state"]
    sizes = [f"{sum(map(len, content_of(f).values())) / 1e6:.1f}" for f in (arm, tmp_path / "old")]
    assert rows == [
        [f"hf:{NAME}", first[:8], "v3.0", "2", "35", sizes[0], "ready"],
        ["hf:bob/unknown", "failed"],
        [
            f"hf:bob/arm@{second}",
            second[:8],
            "v2.1",
            "1",
            "20",
            sizes[1],
            *["converted", "to", "v3.0"],
        ],
    ]
    *_, last = done.stderr.splitlines()
    assert last == "error: 1 of 3 datasets are not here; the reasons are above."
    assert "hf:bob/unknown: the Hub has no such dataset" in done.stderr
    assert "%|" not in done.stderr
    assert "Traceback" not in done.stderr


def test_the_command_takes_what_is_here_already(hub: Hub, arm: Path, cache: Path) -> None:
    done = call(hub, cache, f"local:{arm}", f"local:{arm}")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 2
    assert done.stdout.split()[-1] == "ready"
    assert hub.requests == []


def test_the_command_fetches_a_named_federation(hub: Hub, arm: Path, cache: Path) -> None:
    for name in ("svla_so100_pickplace", "svla_so100_stacking", "svla_so100_sorting"):
        hub.add(f"lerobot/{name}", arm)
    hub.add("lerobot/svla_so101_pickplace", arm)
    done = call(hub, cache, "lerobot-so100")
    assert done.returncode == 0
    assert [line.split()[-1] for line in done.stdout.splitlines()] == ["state", *["ready"] * 4]
    assert "4 of 4: hf:lerobot/svla_so101_pickplace" in done.stderr
    assert call(hub, cache, "lerobot-so10").stderr.startswith("error: no federation is named")


def test_help_needs_no_hub() -> None:
    program = "import sys, zk0.cli; print({'huggingface_hub', 'torch', 'lerobot'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "set()\n"
