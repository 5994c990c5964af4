"""Federations by name: the datasets of their clients and of the server, from presets.toml."""

import tomllib
from difflib import get_close_matches
from importlib.resources import files

from zk0.errors import Zk0Error

Datasets = dict[str, list[dict[str, str]]]  # "clients" and "server", as in [tool.zk0.datasets]


def preset(name: str) -> Datasets:
    """The federation of this name; raises `Zk0Error`, naming the nearest, where there is none."""
    presets = _read()
    if name not in presets:
        near = get_close_matches(name, presets, n=1)
        hint = f'Did you mean "{near[0]}"?' if near else f"There are {', '.join(presets)}."
        raise Zk0Error(f'no federation is named "{name}". {hint}')
    return presets[name]


def _read() -> dict[str, Datasets]:
    return tomllib.loads(files(__package__).joinpath("presets.toml").read_text("utf-8"))
