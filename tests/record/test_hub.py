"""Pushing to a Hub: a server here speaks as much of its API as huggingface_hub needs for it."""

import base64
import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import typer
from huggingface_hub import constants
from loguru import logger
from typer.testing import CliRunner

from tests.record.test_card import CARD, POLICY
from zk0.commands.push import push
from zk0.errors import Zk0Error
from zk0.record.card import write_card
from zk0.record.hub import plan_upload, push_checkpoint, push_or_skip

TOKEN = "hf_thisIsSecret0123456789"
REPO = "alice/arm-policy"


class Hub(ThreadingHTTPServer):
    """Repositories and what was committed to them. `broken` maps a part of a path to the status
    that requests to it get; at 0 the connection is closed."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.private: dict[str, bool] = {}
        self.files: dict[str, dict[str, bytes]] = {}
        self.commits: list[str] = []
        self.objects: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.broken: dict[str, int] = {}
        self.large = (".safetensors",)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.answer("GET")

    def do_POST(self) -> None:
        self.answer("POST")

    def do_PUT(self) -> None:
        self.answer("PUT")

    def answer(self, method: str) -> None:
        body = self.body()
        self.server.requests.append((method, self.path))
        status = next((s for part, s in self.server.broken.items() if part in self.path), None)
        if status == 0:
            self.close_connection = True
            self.connection.close()
        elif status is not None:
            self.reply({"error": f"no, {self.headers.get('Authorization')}"}, status)
        elif not self.path.startswith("/lfs/") and not self.may():
            self.reply({"error": "Invalid credentials"}, 401)
        else:
            self.route(body)

    def may(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def reply(self, content: Any, status: int = 200) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def route(self, body: bytes) -> None:
        path = self.path.partition("?")[0]
        if path.startswith("/lfs/"):
            self.server.objects[path.removeprefix("/lfs/")] = body
            return self.reply({})
        if path == "/api/repos/create":
            return self.create(json.loads(body))
        if path == "/api/validate-yaml":
            return self.reply({"errors": [], "warnings": []})
        if path == f"/{REPO}.git/info/lfs/objects/batch":
            return self.batch(json.loads(body))
        if path == f"/api/models/{REPO}/preupload/main":
            return self.preupload(json.loads(body))
        if path == f"/api/models/{REPO}/commit/main":
            return self.commit([json.loads(line) for line in body.splitlines()])
        if path == f"/api/models/{REPO}" and REPO in self.server.private:
            return self.reply({"id": REPO, "private": self.server.private[REPO]})
        return self.reply({"error": "not found"}, 404)

    def create(self, wanted: dict[str, Any]) -> None:
        repo = f"{wanted['organization']}/{wanted['name']}"
        if repo in self.server.private:
            url = f"{self.server.url}/{repo}"
            return self.reply({"error": "You already created this model repo", "url": url}, 409)
        self.server.private[repo] = wanted["visibility"] == "private"
        self.server.files[repo] = {}
        return self.reply({"url": f"{self.server.url}/{repo}", "name": repo})

    def preupload(self, wanted: dict[str, Any]) -> None:
        self.reply(
            {
                "files": [
                    {
                        "path": each["path"],
                        "uploadMode": (
                            "lfs" if each["path"].endswith(self.server.large) else "regular"
                        ),
                        "shouldIgnore": False,
                    }
                    for each in wanted["files"]
                ]
            }
        )

    def batch(self, wanted: dict[str, Any]) -> None:
        objects = [
            {**each, "actions": {"upload": {"href": f"{self.server.url}/lfs/{each['oid']}"}}}
            for each in wanted["objects"]
        ]
        self.reply({"transfer": "basic", "objects": objects})

    def commit(self, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            value = line["value"]
            match line["key"]:
                case "header":
                    self.server.commits.append(value["summary"])
                case "file":
                    content = base64.b64decode(value["content"])
                    self.server.files[REPO][value["path"]] = content
                case "lfsFile":
                    self.server.files[REPO][value["path"]] = self.server.objects[value["oid"]]
        oid = "c" * 40
        url = f"{self.server.url}/{REPO}/commit/{oid}"
        self.reply({"success": True, "commitOid": oid, "commitUrl": url})


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """As HF_ENDPOINT, HF_TOKEN and HF_HUB_DISABLE_XET make it, which are read on import."""
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    monkeypatch.setattr("time.sleep", lambda _: None)  # between huggingface_hub's attempts
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The files of a checkpoint, with weights of random bytes, by the name that a run gives it."""
    models = tmp_path / "models"
    folder = models / "checkpoint_round_7"
    (folder / "backbone-0123abcd").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(POLICY))
    (folder / "backbone-0123abcd" / "tokenizer.json").write_text('{"größe": 1}')
    (folder / "model.safetensors").write_bytes(os.urandom(300_000))
    for name in ("policy_preprocessor", "policy_postprocessor"):
        (folder / f"{name}.json").write_text("{}")
        (folder / f"{name}_step_0.safetensors").write_bytes(os.urandom(384))
    write_card(folder, 7, CARD)
    (models / "last").symlink_to(folder.name)
    return folder


def content_of(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_what_arrives_is_the_folder_in_one_private_commit(folder: Path, hub: Hub):
    address = push_checkpoint(folder.parent / "last", REPO)
    assert hub.files[REPO] == content_of(folder)
    assert len(hub.files[REPO]) == 9
    assert hub.private == {REPO: True}
    assert hub.commits == ["zk0 round 7, policy loss 0.6000"]
    assert address == f"{hub.url}/{REPO}/commit/{'c' * 40}"
    assert not any("/tag/" in path or "/branch/" in path for _, path in hub.requests)
    stored = {hashlib.sha256(values).hexdigest() for values in hub.objects.values()}
    assert stored == set(hub.objects)


def test_a_second_push_is_a_second_commit(folder: Path, hub: Hub):
    push_checkpoint(folder, REPO)
    write_card(folder, 7, replace(CARD, metrics={}))
    push_checkpoint(folder, REPO)
    assert hub.files[REPO] == content_of(folder)
    assert hub.commits == ["zk0 round 7, policy loss 0.6000", "zk0 round 7, loss not measured"]


def test_public_has_to_be_said(folder: Path, hub: Hub):
    push_checkpoint(folder, REPO, private=False)
    assert hub.private == {REPO: False}
    with pytest.raises(Zk0Error, match="is public on the Hub: say --public"):
        push_checkpoint(folder, REPO)
    assert len(hub.commits) == 1


@pytest.mark.parametrize(
    ("part", "status", "message"),
    [
        ("/api/repos/create", 401, "does not accept the token (401)"),
        ("/api/repos/create", 403, "may not write to alice/arm-policy (403)"),
        ("/commit/main", 403, "may not write to alice/arm-policy (403)"),
        ("/preupload/", 404, "has no alice/arm-policy, or does not show it"),
        ("/api/repos/create", 200, "does not answer as a Hub does"),
        ("/commit/main", 500, "500"),
        ("/lfs/", 403, "may not write to alice/arm-policy (403)"),
        ("/api/repos/create", 0, "the connection to http://127.0.0.1:"),
        ("/preupload/", 0, "the connection to http://127.0.0.1:"),
        ("/lfs/", 0, "the connection to http://127.0.0.1:"),
    ],
)
def test_a_refusal_is_one_clear_line_without_the_token(
    folder: Path, hub: Hub, part: str, status: int, message: str
):
    hub.broken = {part: status}
    with pytest.raises(Zk0Error, match=re.escape(message)) as error:
        push_checkpoint(folder, REPO)
    assert str(error.value).startswith(f"{REPO} was not pushed: ")
    assert "\n" not in str(error.value)
    assert TOKEN not in str(error.value)
    assert hub.commits == []


def test_a_token_that_is_not_valid_is_named_as_the_reason(
    folder: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    with pytest.raises(Zk0Error, match=r"does not accept the token \(401\)"):
        push_checkpoint(folder, REPO)


def test_no_network_is_named_as_the_reason(folder: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(Zk0Error, match=r"connection to http://127.0.0.1:1 failed \(.*refused\)"):
        push_checkpoint(folder, REPO)


def test_offline_mode_is_named_as_the_reason(
    folder: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
):
    from huggingface_hub.utils import close_session

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    close_session()
    try:
        with pytest.raises(Zk0Error, match="HF_HUB_OFFLINE is set"):
            push_checkpoint(folder, REPO)
    finally:
        close_session()
    assert hub.requests == []


def test_a_run_goes_on_where_its_push_fails(
    folder: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
):
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(str(line)), format="{level} {message}")
    try:
        assert push_or_skip(folder, REPO) == f"{hub.url}/{REPO}/commit/{'c' * 40}"
        assert lines == []
        monkeypatch.delenv("HF_TOKEN")
        assert push_or_skip(folder, REPO) is None
    finally:
        logger.remove(sink)
    assert lines == [
        f"WARNING not on the Hub: {REPO}: no token for the Hub. Log in with `hf auth login`, "
        "or set HF_TOKEN.\n"
    ]


@pytest.mark.parametrize("name", ["arm", "a/b/c", "/abs", "../up", "owner/", "o/na me", ""])
def test_a_malformed_name_is_refused(folder: Path, hub: Hub, name: str):
    with pytest.raises(Zk0Error, match="write it as owner/name"):
        push_checkpoint(folder, name)
    assert hub.requests == []


@pytest.mark.parametrize(
    "part",
    ["config.json", "model.safetensors", "policy_preprocessor.json", "policy_postprocessor.json"],
)
def test_a_folder_that_is_no_checkpoint_is_refused(folder: Path, part: str):
    (folder / part).unlink()
    with pytest.raises(Zk0Error, match=f"is no checkpoint: it has no {part}"):
        plan_upload(folder, REPO)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "is no JSON object"),
        ('{"type": "act"}', "is not a SmolVLA's"),
        (json.dumps({**POLICY, "vlm_model_name": "/home/bob/x"}), "which others do not have"),
    ],
)
def test_a_config_that_nobody_could_use_is_refused(folder: Path, config: str, message: str):
    (folder / "config.json").write_text(config)
    with pytest.raises(Zk0Error, match=message):
        plan_upload(folder, REPO)


@pytest.mark.parametrize("target", ["/etc/hostname", "/etc", "../../secret", "nowhere"])
def test_a_link_out_of_the_folder_is_refused(tmp_path: Path, folder: Path, hub: Hub, target: str):
    (tmp_path / "secret").write_text("x")
    (folder / "backbone-0123abcd" / "more").symlink_to(target)
    with pytest.raises(Zk0Error, match="leads out of the checkpoint: nothing is pushed"):
        push_checkpoint(folder, REPO)
    assert hub.requests == []


def test_a_link_within_the_folder_arrives_as_what_it_means(folder: Path, hub: Hub):
    (folder / "CARD.md").symlink_to("README.md")
    push_checkpoint(folder, REPO)
    assert hub.files[REPO]["CARD.md"] == (folder / "README.md").read_bytes()


@pytest.fixture
def call():
    """`zk0 push ...`: exit status and output."""
    app = typer.Typer()
    app.command()(push)

    def call(*arguments: str) -> tuple[int, str, BaseException | None]:
        done = CliRunner().invoke(app, arguments)
        return done.exit_code, done.output, done.exception

    return call


def test_the_command_pushes_and_says_where(folder: Path, hub: Hub, call):
    status, output, _ = call(str(folder.parent / "last"), REPO, "--public")
    assert status == 0
    assert f"{hub.url}/{REPO}/commit/" in output
    assert hub.private == {REPO: False}


def test_a_dry_run_needs_neither_token_nor_network(
    folder: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, call
):
    monkeypatch.delenv("HF_TOKEN")
    status, output, _ = call(str(folder), REPO, "--dry-run")
    assert status == 0
    assert hub.requests == []
    assert "model.safetensors" in output
    assert "300,000" in output
    assert f'nothing was sent to {REPO} (private): "zk0 round 7, policy loss 0.6000"' in output


def test_the_command_fails_with_the_reason(
    folder: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, call
):
    monkeypatch.delenv("HF_TOKEN")
    status, _, error = call(str(folder), REPO)
    assert status == 1
    assert isinstance(error, Zk0Error)
    assert "no token" in str(error)
