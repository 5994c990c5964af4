"""A Hub on this machine that serves datasets as far as huggingface_hub needs it to download them.

Small text files come from the Hub itself, parquet and mp4 by a redirect to another host, as from
Git LFS. Ways for it to fail can be set.
"""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

LARGE = (".parquet", ".mp4")
Files = dict[str, bytes]


@dataclass
class Repository:
    """Files by commit, and the commits that branches and tags are at."""

    commits: dict[str, Files] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    gated: bool = False
    token: str = ""  # without which it is not shown

    def commit(self, files: Files, *refs: str) -> str:
        """Add a commit; its name."""
        name = hashlib.sha1(repr((len(self.commits), sorted(files))).encode()).hexdigest()
        self.commits[name] = files
        self.refs |= dict.fromkeys(refs, name)
        return name


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    range: str
    token: str
    host: str


class Hub(ThreadingHTTPServer):
    """`cuts` maps the end of a file's path to how many bytes each next answer stops after, and
    `statuses` a part of a path to the status that requests to it get."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, Repository] = {}
        self.requests: list[Request] = []
        self.cuts: dict[str, list[int]] = {}
        self.statuses: dict[str, int] = {}
        self.page: bytes = b""  # what every request gets, as from a hotel's log-in page

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def storage(self) -> str:
        return f"http://localhost:{self.server_port}"

    def add(self, name: str, folder: Path, *refs: str) -> str:
        """Commit the files of a dataset; the commit."""
        repository = self.repositories.setdefault(name, Repository())
        return repository.commit(content_of(folder), *(refs or ("main",)))

    def fetched(self) -> list[str]:
        """The paths of files that were asked for, metadata aside."""
        got = [each.path for each in self.requests if each.method == "GET"]
        return [path for path in got if "/resolve/" in path or path.startswith("/storage/")]


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        headers = (self.headers.get(key, "") for key in ("Range", "Authorization", "Host"))
        self.server.requests.append(Request(self.command, path, *headers))
        status = next((s for part, s in self.server.statuses.items() if part in path), 0)
        if self.server.page:
            self.send(self.server.page)
        elif status:
            message = f"no, {self.headers.get('Authorization')}"
            self.send(json.dumps({"error": message}).encode(), status)
        elif path.startswith("/storage/"):
            self.stored(path.removeprefix("/storage/"))
        else:
            self.route(path.removeprefix("/api").split("/")[2:])

    def route(self, parts: list[str]) -> None:
        """owner, name, then "revision", "tree" or "resolve", a revision, and a file."""
        repository = self.server.repositories.get("/".join(parts[:2]))
        what, revision, *rest = (parts[2:4] if parts[2:] else ["revision", "main"]) + parts[4:]
        if repository is None or not self.may_see(repository):
            return self.refuse(404, "RepoNotFound", "Repository not found")
        commit = repository.refs.get(revision, revision)
        if commit not in repository.commits:
            return self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        files = repository.commits[commit]
        if what == "revision":
            return self.send(json.dumps({"id": "/".join(parts[:2]), "sha": commit}).encode())
        if what == "tree":
            return self.send(json.dumps([entry(*file) for file in files.items()]).encode())
        if repository.gated:
            return self.refuse(401, "GatedRepo", "Access to this dataset is restricted")
        return self.resolve("/".join(rest), files["/".join(rest)], commit)

    def may_see(self, repository: Repository) -> bool:
        return self.headers.get("Authorization", "").endswith(repository.token)

    def resolve(self, path: str, content: bytes, commit: str) -> None:
        headers = {"X-Repo-Commit": commit, "ETag": f'"{git_oid(content)}"'}
        if not path.endswith(LARGE):
            return self.send(content, 200, headers, cut=self.cut(path))
        sha = hashlib.sha256(content).hexdigest()
        headers |= {"X-Linked-ETag": f'"{sha}"', "X-Linked-Size": str(len(content))}
        headers |= {"Location": f"{self.server.storage}/storage/{sha}/{path}"}
        return self.send(b"", 302, headers)

    def stored(self, rest: str) -> None:
        sha, _, path = rest.partition("/")
        commits = (each for every in self.server.repositories.values() for each in [every.commits])
        files = (files for each in commits for files in each.values() if path in files)
        content = next(f[path] for f in files if hashlib.sha256(f[path]).hexdigest() == sha)
        start = int((self.headers.get("Range") or "bytes=0-")[6:].partition("-")[0])
        headers = {"ETag": f'"{sha}"', "Accept-Ranges": "bytes"}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self.send(content[start:], 206 if start else 200, headers, cut=self.cut(path))

    def cut(self, path: str) -> int | None:
        """How many bytes of this answer arrive, where it is not to be all."""
        cuts = next((c for end, c in self.server.cuts.items() if path.endswith(end)), [])
        return cuts.pop(0) if cuts and self.command == "GET" else None

    def refuse(self, status: int, code: str, message: str) -> None:
        headers = {"X-Error-Code": code, "X-Error-Message": message}
        self.send(json.dumps({"error": message}).encode(), status, headers)

    def send(
        self,
        content: bytes,
        status: int = 200,
        headers: dict[str, str] | None = None,
        cut: int | None = None,
    ) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content[:cut])


def entry(path: str, content: bytes) -> dict[str, Any]:
    """A file in the listing of a commit."""
    listed = {"type": "file", "path": path, "size": len(content), "oid": git_oid(content)}
    if path.endswith(LARGE):
        sha = hashlib.sha256(content).hexdigest()
        listed["lfs"] = {"oid": sha, "size": len(content), "pointerSize": 132}
    return listed


def git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def content_of(folder: Path) -> Files:
    """All files of a folder, by path."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(files)}


@contextmanager
def serving() -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        stop(server)
        thread.join()


def stop(server: Hub) -> None:
    """From now on connections are refused."""
    server.shutdown()
    server.server_close()


def use(server: Hub, cache: Path, patch: pytest.MonkeyPatch) -> None:
    """As HF_ENDPOINT, HF_HUB_CACHE and HF_HUB_DISABLE_XET make it, which are read on import; and
    nobody logged in."""
    from huggingface_hub import constants

    patch.setattr(constants, "ENDPOINT", server.url)
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    patch.setattr(constants, "HF_HUB_CACHE", str(cache))
    patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    patch.setattr(constants, "HF_HUB_OFFLINE", False)
    patch.setattr(constants, "HF_TOKEN_PATH", str(cache.parent / "no-token"))
    for key in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        patch.delenv(key, raising=False)
    patch.setattr("time.sleep", lambda _: None)  # between huggingface_hub's attempts
