"""Checkpoints to the Hugging Face Hub: a commit (several, where huggingface_hub splits an upload of
many minutes) in a repository that is private unless told otherwise, and never a tag.

The token is read where the Hub's own tools keep it (`hf auth login`, HF_TOKEN) and never shown.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from huggingface_hub import HfApi, constants, get_token
from huggingface_hub.errors import OfflineModeIsEnabled
from loguru import logger

from zk0.errors import Zk0Error, causes
from zk0.record.card import METRICS, is_hub_name

PARTS = (
    "config.json",
    "model.safetensors",
    "policy_preprocessor.json",
    "policy_postprocessor.json",
)
FAILURES = (httpx.HTTPError, OSError, ValueError, KeyError, RuntimeError)  # of huggingface_hub


@dataclass(frozen=True)
class Upload:
    """What a push would send."""

    folder: Path
    repo_id: str
    files: dict[str, int]  # bytes, by path within the folder
    message: str  # of the commit


def plan_upload(folder: Path, repo_id: str) -> Upload:
    """Look at everything that can be wrong before the Hub is asked; raises `Zk0Error`."""
    if not is_hub_name(repo_id):
        raise Zk0Error(f'"{repo_id}" is no name of a Hub repository: write it as owner/name.')
    folder = _resolve(folder)
    _refuse_foreign_parts(folder)
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    files = {path.relative_to(folder).as_posix(): path.stat().st_size for path in paths}
    return Upload(folder, repo_id, files, _message(folder))


def _resolve(folder: Path) -> Path:
    """The checkpoint itself, where `folder` is a link to it such as models/last."""
    missing = next((name for name in PARTS if not (folder / name).is_file()), None)
    if missing:
        raise Zk0Error(f"{folder} is no checkpoint: it has no {missing}.")
    config = _read(folder / PARTS[0])
    if config.get("type") != "smolvla":
        raise Zk0Error(f"{folder} is no checkpoint: its config.json is not a SmolVLA's.")
    if Path(config["vlm_model_name"]).is_absolute():
        raise Zk0Error(
            f"{folder} needs {config['vlm_model_name']}, which others do not have: push a "
            "checkpoint that carries its backbone, as runs write them now."
        )
    return folder.resolve()


def _refuse_foreign_parts(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_symlink() and not (path.exists() and path.resolve().is_relative_to(folder)):
            raise Zk0Error(f"{path} leads out of the checkpoint: nothing is pushed.")


def _message(folder: Path) -> str:
    """The round and its loss, as far as the checkpoint knows them."""
    metrics = _read(folder / METRICS) if (folder / METRICS).is_file() else {}
    named = re.fullmatch(r"checkpoint_round_(\d+)", folder.name)
    number = metrics.get("round", named and named[1])
    loss = metrics.get("server", {}).get("loss")
    return ", ".join(
        [
            "zk0 checkpoint" if number is None else f"zk0 round {number}",
            "loss not measured" if loss is None else f"policy loss {loss:.4f}",
        ]
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise Zk0Error(f"{path} cannot be read: {error}.") from error
    if not isinstance(content, dict):
        raise Zk0Error(f"{path} cannot be read: it is no JSON object.")
    return content


def push_checkpoint(folder: Path, repo_id: str, private: bool = True) -> str:
    """Upload the checkpoint and return the address of the commit.

    Raises `Zk0Error`, in one line, for everything that keeps it from being there: no checkpoint, no
    token, no permission, no network, or a public repository where a private one is wanted.
    """
    upload = plan_upload(folder, repo_id)
    token = get_token()
    if token is None:
        raise Zk0Error(
            f"{repo_id}: no token for the Hub. Log in with `hf auth login`, or set HF_TOKEN."
        )
    try:
        return _send(HfApi(token=token), upload, private)
    except FAILURES as error:
        reason = _reason(error, repo_id).replace(token, "(token)")
        raise Zk0Error(f"{repo_id} was not pushed: {reason}") from None


def push_or_skip(folder: Path, repo_id: str, private: bool = True) -> str | None:
    """`push_checkpoint` for the end of a run, which it must not spoil: None where it fails, with
    the reason in the log."""
    try:
        return push_checkpoint(folder, repo_id, private)
    except Zk0Error as error:
        logger.warning("not on the Hub: {}", error)
        return None


def _send(hub: HfApi, upload: Upload, private: bool) -> str:
    hub.create_repo(upload.repo_id, private=private, exist_ok=True)
    if private and not hub.model_info(upload.repo_id).private:
        raise Zk0Error(f"{upload.repo_id} is public on the Hub: say --public if that is meant.")
    commit = hub.upload_folder(
        repo_id=upload.repo_id, folder_path=upload.folder, commit_message=upload.message
    )
    return commit.commit_url


# --- failures -------------------------------------------------------------------------------------


def _reason(error: BaseException, repo_id: str) -> str:
    """Why the Hub did not take it, in one line."""
    chain = list(causes(error))
    if any(isinstance(each, OfflineModeIsEnabled) for each in chain):
        return "HF_HUB_OFFLINE is set, which forbids it."
    if any(isinstance(each, httpx.TransportError) for each in chain):
        return f"the connection to {constants.ENDPOINT} failed ({chain[-1]})."
    if isinstance(chain[-1], KeyError | json.JSONDecodeError):
        return f"{constants.ENDPOINT} does not answer as a Hub does."
    responses = [getattr(each, "response", None) for each in chain]
    status = next((each.status_code for each in responses if each is not None), None)
    match status:
        case 401:
            return "the Hub does not accept the token (401). Log in anew with `hf auth login`."
        case 403:
            return f"the token may not write to {repo_id} (403). Make one with write permission."
        case 404:
            return f"the Hub has no {repo_id}, or does not show it to this token (404)."
    text = str(chain[-1]).strip() or type(chain[-1]).__name__
    return " ".join(text.split())[:300]
