"""LeRobotDatasets from the Hugging Face Hub, in huggingface_hub's own cache: whole, or an error.

huggingface_hub knows an incomplete snapshot by the list of the commit's files that it keeps beside
it. It looks at names only, and where there is no list (older versions wrote none) it takes whatever
there is for whole. So sizes are compared here too, and every snapshot has to hold what its own
metadata tells of.
"""

import errno
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from huggingface_hub import (
    HfApi,
    constants,
    get_cached_repo_tree,
    get_token,
    hf_hub_download,
    snapshot_download,
)
from huggingface_hub.errors import (
    CachedRepoTreeNotFoundError,
    GatedRepoError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    RevisionResolutionError,
)
from huggingface_hub.utils import tqdm
from loguru import logger

from zk0.data.formats import READABLE, missing, readable_format
from zk0.errors import Zk0Error, causes

METADATA = ("meta/*",)
PARTS = (*METADATA, "data/*", "videos/*", "README.md")  # the star goes into folders
COMMIT = re.compile("[0-9a-f]{40}")
TIMEOUT_S = 15.0  # for the first answer; after it, a cached copy is used where there is one

# What huggingface_hub raises where an answer is not the Hub's, or of the network or the disk.
STRANGE = (KeyError, TypeError, AttributeError, AssertionError, json.JSONDecodeError)
FAILURES = (httpx.HTTPError, RevisionResolutionError, OSError, ValueError, RuntimeError, *STRANGE)


@dataclass(frozen=True)
class Snapshot:
    """A dataset as it was at one commit of its repository."""

    folder: Path  # in huggingface_hub's cache; not to be written to
    commit: str  # 40 hexadecimal digits

    def __str__(self) -> str:
        return f"commit {self.commit[:8]}"


def download(name: str, revision: str = "") -> Snapshot:
    """The dataset `name` ("owner/name") at `revision`, a branch, tag or commit.

    A revision that is in the cache is opened without asking anybody. Without one it is the
    repository's tag of the newest format that can be read, else its main branch, as the Hub has it
    now; where the Hub does not answer, what the cache has, with a warning. Raises `Zk0Error`.
    """
    _check_names(name, revision)
    found = _cached(name, revision) if revision else None
    if found:
        return found
    try:
        label = _find(name, [revision] if revision else [*READABLE, constants.DEFAULT_REVISION])
    except FAILURES as error:
        return _instead(error, name, revision)
    try:
        return _fetch(name, label)
    except FAILURES as error:
        raise Zk0Error(f"hf:{name}: {_reason(error, name, label)}") from None


def _check_names(name: str, revision: str) -> None:
    """Neither may lead out of the cache, where both become part of paths."""
    whole = re.fullmatch(r"[\w-][\w.-]{0,95}/[\w-][\w.-]{0,95}", name, re.ASCII)
    if not whole or ".." in name or "--" in name:
        raise Zk0Error(f'"{name}" is no dataset on the Hub: write it as owner/name.')
    parts = revision.split("/")
    if revision and not all(re.fullmatch(r"[\w-][\w.-]*", part, re.ASCII) for part in parts):
        raise Zk0Error(f'hf:{name}: "{revision}" is no revision: name a branch, tag or commit.')


# --- from the Hub ---------------------------------------------------------------------------------


def _find(name: str, revisions: list[str]) -> str:
    """The first of `revisions` that the repository has: LeRobotDatasets are tagged with their
    format."""
    for revision in revisions[:-1]:
        try:
            HfApi().dataset_info(name, revision=revision, timeout=TIMEOUT_S)
        except RevisionNotFoundError:
            continue
        return revision
    HfApi().dataset_info(name, revision=revisions[-1], timeout=TIMEOUT_S)
    return revisions[-1]


def _fetch(name: str, label: str) -> Snapshot:
    """Metadata first: what is no dataset, or of no use, is refused before gigabytes arrive."""
    commit = HfApi().resolve_revision(name, repo_type="dataset", revision=label).resolved
    if not COMMIT.fullmatch(commit):
        raise ValueError(f"{label} is at {commit[:50]!r}, which is no commit")
    snapshot = Snapshot(_get(name, commit, METADATA, shown=False), commit)
    _mend(name, snapshot)
    readable_format(snapshot.folder, f"hf:{name}")
    to_get = _to_get(name, snapshot)
    logger.info("hf:{}: {}, {}{}", name, label, snapshot, to_get and f", {to_get}")
    _get(name, commit, PARTS, shown=bool(to_get))
    _mend(name, snapshot)
    if absent := missing(snapshot.folder, f"hf:{name}"):
        raise Zk0Error(
            f"hf:{name}: the repository itself lacks {_some(absent)} at {label} ({snapshot}). Name "
            "another revision, as hf:owner/name@revision, or tell its owner."
        )
    return snapshot


def _get(name: str, commit: str, parts: tuple[str, ...], shown: bool) -> Path:
    with _bars(shown) as bar:
        folder = snapshot_download(
            name, repo_type="dataset", revision=commit, allow_patterns=list(parts), tqdm_class=bar
        )
    return Path(folder)


@contextmanager
def _bars(shown: bool) -> Iterator[type[tqdm]]:
    """huggingface_hub's own, on a terminal alone, and gone afterwards: it leaves them standing."""
    made: list[tqdm] = []

    class Bar(tqdm):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            disable = None if shown else True  # None looks whether there is a terminal
            super().__init__(*arguments, **{**options, "disable": disable, "leave": False})
            made.append(self)

    try:
        yield Bar
    finally:
        for bar in made:
            bar.close()


def _to_get(name: str, snapshot: Snapshot) -> str:
    """How much is not in the cache, in words; nothing where all is."""
    wanted = _listed(name, snapshot.commit)
    sizes = [wanted[path] for path in wanted if not (snapshot.folder / path).is_file()]
    return f"{sum(sizes) / 1e6:.1f} MB to get" if sizes else ""


def _mend(name: str, snapshot: Snapshot) -> None:
    """Get those files again that are there, but not in their whole size."""
    for path, size in _listed(name, snapshot.commit).items():
        file = snapshot.folder / path
        if file.is_file() and file.stat().st_size != size:
            logger.warning("hf:{}: {} is damaged in the cache; getting it again", name, path)
            hf_hub_download(
                name, path, repo_type="dataset", revision=snapshot.commit, force_download=True
            )


# --- from the cache -------------------------------------------------------------------------------


def _cached(name: str, revision: str) -> Snapshot | None:
    """What the cache has for `revision`, where that is whole."""
    snapshot = _open(name, revision)
    return snapshot if snapshot and not _lacks(name, snapshot) else None


def _open(name: str, revision: str) -> Snapshot | None:
    """What the cache has for `revision`, be it whole or not."""
    ref = _repository(name) / "refs" / revision
    commit = ref.read_text(errors="replace").strip() if ref.is_file() else revision
    folder = _repository(name) / "snapshots" / commit
    return Snapshot(folder, commit) if COMMIT.fullmatch(commit) and folder.is_dir() else None


def _any_cached(name: str) -> Snapshot | None:
    """What there is, whole, for a dataset of which no revision is named."""
    snapshots = _repository(name).glob("snapshots/*")
    newest = sorted(snapshots, key=lambda path: path.stat().st_mtime, reverse=True)
    revisions = (*READABLE, constants.DEFAULT_REVISION, *(path.name for path in newest))
    return next(filter(None, (_cached(name, revision) for revision in revisions)), None)


def _repository(name: str) -> Path:
    return Path(constants.HF_HUB_CACHE) / f"datasets--{name.replace('/', '--')}"


def _lacks(name: str, snapshot: Snapshot) -> list[str]:
    """Files that are not there, or not whole; what is wrong, where that cannot be told."""
    absent = []
    for path, size in _listed(name, snapshot.commit).items():
        file = snapshot.folder / path
        if not file.is_file() or file.stat().st_size != size:
            absent.append(path)
    try:
        return absent or missing(snapshot.folder, f"hf:{name}")
    except Zk0Error as error:
        return [str(error)]


def _listed(name: str, commit: str) -> dict[str, int]:
    """Sizes in bytes of the commit's files that a dataset consists of; none where the cache has no
    list."""
    try:
        files = get_cached_repo_tree(name, repo_type="dataset", revision=commit)
    except CachedRepoTreeNotFoundError:
        return {}
    starts = tuple(part.rstrip("*") for part in PARTS)
    return {file.path: file.size for file in files if file.path.startswith(starts)}


# --- failures -------------------------------------------------------------------------------------


def _instead(error: BaseException, name: str, revision: str) -> Snapshot:
    """What the cache has where the Hub could not be asked and no revision is named; else raises."""
    reason = _reason(error, name, revision)
    if not _is_unreachable(error):
        known = _any_cached(name)
        hint = f" In the cache there is hf:{name}@{known.commit}." if known else ""
        raise Zk0Error(f"hf:{name}: {reason}{hint}") from None
    found = _open(name, revision) if revision else _any_cached(name)
    if found is None:
        raise Zk0Error(f"hf:{name}: {reason} The cache has no whole copy of it.") from None
    if revision:
        lacking = _some(_lacks(name, found)).rstrip(".")
        raise Zk0Error(f"hf:{name}: {reason} The cache's copy is not whole: {lacking}.") from None
    logger.warning("hf:{}: {} Using {} from the cache.", name, reason, found)
    return found


def _is_unreachable(error: BaseException) -> bool:
    """Whether the Hub gave no answer; that the dataset is not to be had is an answer."""
    chain = list(causes(error))
    status = _status(chain)
    nobody = (OfflineModeIsEnabled, httpx.TransportError, *STRANGE)
    return any(isinstance(each, nobody) for each in chain) or status == 429 or status >= 500


def _reason(error: BaseException, name: str, revision: str) -> str:
    """Why it cannot be had and what to do, without the token."""
    chain = list(causes(error))
    reason = _refusal(chain, name, revision) or _fault(chain)
    token = get_token()
    return reason.replace(token, "(token)") if token else reason


def _refusal(chain: list[BaseException], name: str, revision: str) -> str:
    """What the Hub says of the dataset; nothing where it is not that."""
    page = f"{constants.ENDPOINT}/datasets/{name}"
    for error in chain:
        match error:
            case GatedRepoError():
                return (
                    f"its owner asks you to accept conditions. Do so at {page}, then log in with "
                    "`hf auth login`."
                )
            case RevisionNotFoundError():
                return f"it has no revision {revision}. Those that it has are at {page}/tree/main."
            case RepositoryNotFoundError():
                return (
                    "the Hub has no such dataset, or does not show it. Check the spelling; where "
                    "it is private, log in with `hf auth login` as somebody who may read it."
                )
    match _status(chain):
        case 401:
            return "the Hub does not accept the token (401). Log in anew with `hf auth login`."
        case 403:
            return f"the Hub does not let you read it (403). Ask for access at {page}."
        case 0:
            return ""
        case status:
            return f"the Hub answers with status {status}. Try again later."


def _fault(chain: list[BaseException]) -> str:
    """What went wrong on the way, or here."""
    last = chain[-1]
    text = " ".join(str(last).split())[:300].rstrip(".") or type(last).__name__
    if any(isinstance(each, OfflineModeIsEnabled) for each in chain):
        return "HF_HUB_OFFLINE is set, which forbids to ask the Hub."
    if any(isinstance(each, OSError) and each.errno == errno.ENOSPC for each in chain):
        return (
            f"no space left in {constants.HF_HUB_CACHE}. Free some, or set HF_HUB_CACHE to a "
            "larger disk."
        )
    nobody = (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError)
    if any(isinstance(each, nobody) for each in chain):
        return f"{constants.ENDPOINT} cannot be reached ({text})."
    broken = any(isinstance(each, httpx.TransportError) for each in chain)
    if broken or "Consistency check failed" in text:
        return (
            f"the connection to {constants.ENDPOINT} broke off ({text}). Call again: files that "
            "are whole are kept."
        )
    if isinstance(last, STRANGE):
        return f"{constants.ENDPOINT} does not answer as a Hub does. Is HF_ENDPOINT right?"
    return f"it cannot be downloaded: {text}."


def _some(names: list[str]) -> str:
    return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def _status(chain: list[BaseException]) -> int:
    """Of the Hub's answer; 0 where it gave none."""
    answers = (getattr(error, "response", None) for error in chain)
    return next((each.status_code for each in answers if isinstance(each, httpx.Response)), 0)
