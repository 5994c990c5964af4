"""Where a dataset comes from: `sim:NAME`, `local:/path` or `hf:owner/name`."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self, cast

from zk0.errors import Zk0Error

Kind = Literal["sim", "local", "hf"]


@dataclass(frozen=True)
class Source:
    """A dataset's origin. `name` is a recipe of the simulator, a folder, or a Hub repository."""

    kind: Kind
    name: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `kind:name`; raises `Zk0Error` for anything else."""
        kind, separator, name = text.partition(":")
        if not separator or kind not in ("sim", "local", "hf") or not name:
            raise Zk0Error(
                f'dataset source "{text}" is none of "sim:NAME", "local:/path" and "hf:owner/name".'
            )
        if kind == "hf" and not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
            raise Zk0Error(
                f'dataset source "{text}" has to name a Hub repository as hf:owner/name.'
            )
        return cls(cast(Kind, kind), name)

    @property
    def slug(self) -> str:
        """A short name for tables and files; of a local folder its last part, never the path."""
        last = Path(self.name).name if self.kind == "local" else self.name
        return re.sub(r"[^\w.-]+", "--", last).strip(".-") or self.kind

    @property
    def key(self) -> str:
        """Equal for two sources exactly where they name the same dataset."""
        name = str(Path(self.name).expanduser().resolve()) if self.kind == "local" else self.name
        return f"{self.kind}:{name}"


def check(source: Source) -> None:
    """Raise `Zk0Error` where the source can be seen not to exist, without making or loading it."""
    if source.kind == "sim":
        from zk0.sim.recipes import recipe

        recipe(source.name)
    elif source.kind == "local":
        _local_folder(source)


def fetch(source: Source) -> Path:
    """The dataset's folder here; simulated ones are made, Hub ones downloaded, where need be."""
    if source.kind == "sim":
        from zk0.sim.demonstrations import prepare

        return prepare([source.name])[source.name]
    return _local_folder(source) if source.kind == "local" else _download(source)


def _local_folder(source: Source) -> Path:
    folder = Path(source.name).expanduser()
    if not (folder / "meta" / "info.json").is_file():
        raise Zk0Error(f"{folder} is not a LeRobotDataset (v3): it has no meta/info.json.")
    return folder


def _download(source: Source) -> Path:
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    try:
        return Path(LeRobotDataset(source.name).root)
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise Zk0Error(f"hf:{source.name} cannot be had from the Hub: {reason}") from error
