"""A sweep's TOML file, checked against the run-config before anything starts."""

import difflib
import itertools
import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

from zk0.config import HOUSEKEEPING, Config, Datasets, check, load, parse_config
from zk0.errors import Zk0Error
from zk0.paths import from_project

Number = int | float
Scalar = bool | int | float | str
Values = dict[str, Scalar]
"""Run-config values by their keys."""


class Range(BaseModel):
    """From `low` to `high`, both included; whole numbers where the run-config key takes them."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    low: Number
    high: Number
    log: bool = False
    step: Number | None = None

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low = {self.low} has to be below high = {self.high}")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("log = true needs low above 0, and no step")
        if self.step is not None and not self._is_whole_steps(self.step):
            raise ValueError(f"step = {self.step} does not lead from low to high")
        return self

    def _is_whole_steps(self, step: Number) -> bool:
        width = Decimal(str(self.high)) - Decimal(str(self.low))
        return step > 0 and width % Decimal(str(step)) == 0

    @property
    def ends(self) -> tuple[Number, Number]:
        return self.low, self.high


def _form(value: Any) -> str | None:
    if isinstance(value, list | tuple):
        return "list"
    return "range" if isinstance(value, dict | Range) else None


Candidates = Annotated[
    Annotated[tuple[Scalar, ...], Field(min_length=1, strict=False), Tag("list")]
    | Annotated[Range, Tag("range")],
    Discriminator(
        _form,
        custom_error_type="candidates",
        custom_error_message="a list of values, or { low = ..., high = ... }",
    ),
]


class SweepFile(BaseModel):
    """The file as it stands; `Sweep` is what it means for an app."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    sampler: Literal["grid", "random", "tpe"] = "grid"
    trials: int = Field(default=20, ge=1)
    seed: int = Field(default=0, ge=0)
    metric: str = "composite"
    at: Literal["last", "best"] = "last"
    pruner: Literal["none", "median", "halving"] = "none"
    fixed: dict[str, Scalar] = Field(default_factory=dict)
    search: dict[str, Candidates] = Field(min_length=1)


@dataclass(frozen=True)
class Sweep:
    """A sweep of one app: every key and value in it has been checked."""

    path: Path
    app: Path
    file: SweepFile
    base: Config
    """The app's configuration with the file's [fixed] values."""
    datasets: Datasets

    @property
    def folder(self) -> Path:
        return from_project(self.base.output_dir) / "sweeps" / self.file.name

    def config(self, values: Mapping[str, Scalar]) -> Config:
        """A trial's configuration; raises `Zk0Error` where the values do not go together."""
        return parse_config({**self.base.to_run_config(), **values})

    def overrides(self, values: Mapping[str, Scalar]) -> str:
        """A trial's settings as one `--run-config` string."""
        config = self.config(values).to_run_config()
        keys = dict.fromkeys([*self.file.fixed, *values])
        return " ".join(f"{key}={write_value(config[key])}" for key in keys)

    def points(self) -> list[Values]:
        """A grid's points in the file's order, each run once."""
        lists = {key: each for key, each in self.file.search.items() if isinstance(each, tuple)}
        found: dict[str, Values] = {}
        for combination in itertools.product(*lists.values()):
            values = self.normalise(dict(zip(lists, combination, strict=True)))
            found.setdefault(self.identity(values), values)
        return list(found.values())

    def normalise(self, values: Mapping[str, Scalar]) -> Values:
        """The values as the run-config has them: 0 of a key that takes fractions is 0.0."""
        config = self.config(values).to_run_config()
        return {key: config[key] for key in values}

    def identity(self, values: Mapping[str, Scalar]) -> str:
        """Equal for two settings where they make the same run."""
        config = self.config(values).to_run_config()
        if config["strategy"] != "fedprox":
            config["proximal-mu"] = 0.0  # the other strategies have no proximal term
        return json.dumps(config)

    def premises(self) -> dict[str, Any]:
        """What has to stay as it was for earlier trials to be comparable with later ones."""
        grid = self.file.sampler == "grid"
        config = self.base.to_run_config()
        for key in (*HOUSEKEEPING, *self.file.search):
            config.pop(key, None)
        search = self.file.model_dump(mode="json")["search"]
        return {
            "sampler": "grid" if grid else "random or tpe",
            "metric": self.file.metric,
            "at": self.file.at,
            "[search]": sorted(search) if grid else search,
            "clients": [dataset.source for dataset in self.datasets.clients],
            "server": [dataset.source for dataset in self.datasets.server],
            **config,
        }


def write_value(value: Scalar) -> str:
    """A run-config value as `--run-config` takes it."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"'{value}'" if isinstance(value, str) else repr(value)


# --- reading --------------------------------------------------------------------------------------


def read_sweep(path: Path, app: Path) -> Sweep:
    """The sweep in `path` for the app in the folder `app`; raises `Zk0Error` on the first thing in
    it that no run would take."""
    file = _read_file(path)
    try:
        base, datasets = load(app, file.fixed)
        sweep = Sweep(path, app, file, base, datasets)
        _check_keys(file)
        _check_metric(file.metric, datasets)
        _check_values(sweep)
        _check_pruner(sweep)
    except Zk0Error as error:
        raise Zk0Error(f"{path}: {error}") from None
    return sweep


def _read_file(path: Path) -> SweepFile:
    try:
        content = tomllib.loads(path.read_text())
    except OSError as error:
        raise Zk0Error(f"{path} cannot be read ({error.strerror}): name a sweep's file.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Zk0Error(f"{path} is not valid TOML: {error}.") from None
    try:
        return SweepFile.model_validate(content)
    except ValidationError as error:
        raise Zk0Error(f"{path}: {_describe(error.errors())}") from None


def _describe(problems: list[ErrorDetails]) -> str:
    # A misspelt key is both unknown and missing; the first says more.
    problem = min(problems, key=lambda problem: problem["type"] != "extra_forbidden")
    words = [str(part) for part in problem["loc"] if part not in ("list", "range")]
    where = " ".join([f"[{words[0]}]", *words[1:2]]) if len(words) > 1 else words[0]
    if problem["type"] == "extra_forbidden":
        known = Range.model_fields if len(words) > 1 else SweepFile.model_fields
        return f"{where}: {_unknown(words[-1], known)}"
    if problem["type"] == "missing":
        missing = f"{where}: {words[-1]}" if len(words) > 1 else where
        return f"{missing} is missing."
    if problem["type"] == "value_error":
        return f"{where}: {problem['ctx']['error']}."
    wanted = problem["msg"].removeprefix("Input should be ")
    return f"{where} = {problem['input']!r} is not valid: it has to be {wanted}."


def _unknown(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]}?" if near else f"There are: {', '.join(known)}."
    return f"{name} is not known. {hint}"


def _check_keys(file: SweepFile) -> None:
    both = sorted(file.fixed.keys() & file.search.keys())
    if both:
        raise Zk0Error(f"{both[0]} is in [fixed] and in [search]: remove one of the two.")
    if "resume" in (file.fixed | file.search):
        raise Zk0Error("resume: a sweep's runs begin anew. Remove it.")
    if "output-dir" in file.search:
        raise Zk0Error("output-dir: all trials need the same. Move it to [fixed].")
    for key, candidates in file.search.items():
        if file.sampler == "grid" and isinstance(candidates, Range):
            raise Zk0Error(
                f'[search] {key}: a grid takes a list of values. Give one, or sampler = "random".'
            )


def _check_metric(metric: str, datasets: Datasets) -> None:
    known = ["composite", *(dataset.parsed.slug for dataset in datasets.server)]
    if metric not in known:
        raise Zk0Error(f"metric: {_unknown(metric, known)}")


def _check_values(sweep: Sweep) -> None:
    """Each value with the first of the other keys' values, and all points of a grid."""
    choices = {key: _choices(each) for key, each in sweep.file.search.items()}
    first = {key: values[0] for key, values in choices.items()}
    for key, values in choices.items():
        for value in values:
            setting = {**first, key: value}
            _check_text({**sweep.file.fixed, **setting})
            check(sweep.app, [sweep.overrides(setting)])
    for key, candidates in sweep.file.search.items():
        if isinstance(candidates, Range):
            _check_step(key, candidates)
    if sweep.file.sampler == "grid":
        sweep.points()


def _check_pruner(sweep: Sweep) -> None:
    """A pruner judges by losses before the last round."""
    file, rounds = sweep.file, sweep.base.num_server_rounds
    if file.pruner == "none" or {"eval-frequency", "num-server-rounds"} & set(file.search):
        return
    if sweep.base.eval_frequency >= rounds:
        raise Zk0Error(
            f'pruner = "{file.pruner}" needs losses before the last round: put an eval-frequency '
            f"below num-server-rounds = {rounds} into [fixed]."
        )


def _choices(candidates: tuple[Scalar, ...] | Range) -> tuple[Scalar, ...]:
    return candidates.ends if isinstance(candidates, Range) else candidates


def _check_step(key: str, candidates: Range) -> None:
    if takes_whole_numbers(key) and not isinstance(candidates.step, int | None):
        raise Zk0Error(f"[search] {key}: step = {candidates.step} has to be a whole number.")


def takes_whole_numbers(key: str) -> bool:
    """Whether the run-config key's values are whole numbers."""
    return Config.model_fields[key.replace("-", "_")].annotation is int


def _check_text(values: Mapping[str, Scalar]) -> None:
    """`--run-config` has no way to write a quote or a line break within a text."""
    for key, value in values.items():
        if isinstance(value, str) and re.search(r"['\n\r]", value):
            raise Zk0Error(f"{key} = {value!r} must have no single quote and no line break.")
