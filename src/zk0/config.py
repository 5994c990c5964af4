"""The one configuration of a run: frozen, validated at the edge, passed down.

Values come from `[tool.flwr.app.config]` (with the run's overrides) and `[tool.zk0.datasets]` in
the app's pyproject.toml; nothing here has a default, so that file says all there is to say.
"""

import difflib
import re
import sys
import tomllib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from zk0 import rhythm
from zk0.data.presets import preset
from zk0.data.sources import Source, find_shared
from zk0.data.sources import check as check_source
from zk0.errors import Zk0Error


def _hyphenate(name: str) -> str:
    return name.replace("_", "-")


Switch = Literal["auto", "on", "off"]  # "auto" leaves it to the preset

# Keys that say how a run computes, waits, looks at itself and tells of itself: none of them changes
# what is learnt, so that runs which differ in them alone are the same training.
HOUSEKEEPING = frozenset(
    {
        "checkpoint-interval",
        "device",
        "fraction-evaluate",
        "hf-private",
        "hf-push",
        "hf-push-min-rounds",
        "hf-repo-id",
        "keep-checkpoints",
        "max-void-rounds",
        "min-available-nodes",
        "output-dir",
        "prefix-cache",
        "prefix-cache-gb",
        "resume",
        "rollout-episodes",
        "rollout-frequency",
        "rollout-videos",
        "round-timeout",
        "use-tensorboard",
        "use-wandb",
        "wandb-project",
    }
)


class Config(BaseModel):
    """The run-config keys (hyphenated there); pyproject.toml says what each one means."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, alias_generator=_hyphenate, allow_inf_nan=False
    )

    num_server_rounds: int = Field(ge=1, le=100_000)
    local_epochs: int = Field(ge=1)
    local_steps: int = Field(ge=0)
    batch_size: int = Field(ge=1, le=65_536)
    initial_lr: float = Field(ge=0, le=1)
    proximal_mu: float = Field(ge=0)
    strategy: Literal[
        "fedprox", "fedavg", "fedavgm", "fedadam", "fedyogi", "fedadagrad", "scaffold"
    ]
    server_learning_rate: float = Field(ge=0)
    server_momentum: float = Field(ge=0, lt=1)
    server_beta_2: float = Field(ge=0, lt=1)
    server_tau: float = Field(gt=0)
    preset: Literal["static", "dynamic"]
    lr_schedule: Literal["auto", "constant", "cosine", "cosine_warm_restarts", "reduce_on_plateau"]
    local_schedule: Literal["constant", "cosine"]
    eta_min: float = Field(ge=0, le=1)
    t_0: int = Field(ge=1)
    t_mult: int = Field(ge=1)
    stall_patience: int = Field(ge=1)
    adjust_globally: Switch
    adjust_window: int = Field(ge=2)
    spike_threshold: float = Field(ge=0)
    divergence_threshold: float = Field(ge=0)
    stall_threshold: float = Field(ge=0)
    dynamic_mu: Switch
    mu_min: float = Field(ge=0)
    mu_decay: float = Field(gt=0, le=1)
    mu_adjust_factor: float = Field(ge=0)
    loss_std_threshold: float = Field(ge=0)
    boost_hard_clients: Switch
    high_loss_multiplier: float = Field(ge=0)
    lr_boost_factor: float = Field(ge=1)
    normalization: Literal["federated", "local"]
    model_name: str = Field(min_length=1)
    datasets: str
    allow_dataset_issues: str
    eval_episodes: int = Field(ge=1)
    eval_frequency: int = Field(ge=1)
    eval_batches: int = Field(ge=0)
    rollout_frequency: int = Field(ge=0)
    rollout_episodes: int = Field(ge=0, le=10_000)
    rollout_videos: int = Field(ge=0)
    client_weighting: Literal["frames", "equal"]
    fraction_train: float = Field(gt=0, le=1)
    fraction_evaluate: float = Field(ge=0, le=1)
    min_train_nodes: int = Field(ge=1)
    min_available_nodes: int = Field(ge=1)
    max_update_norm: float = Field(ge=0)
    max_void_rounds: int = Field(ge=1)
    round_timeout: float = Field(gt=0)
    early_stop_rounds: int = Field(ge=0)
    target_loss: float = Field(ge=0)
    checkpoint_interval: int = Field(ge=0)
    keep_checkpoints: int = Field(ge=1)
    resume: str
    start_from: str
    seed: int = Field(ge=0, lt=2**31)
    device: Literal["auto", "cpu", "cuda"]
    precision: Literal["auto", "float32", "bfloat16"]
    compile: Literal["auto", "on", "off"]
    prefix_cache: Literal["auto", "prefix", "vision", "off"]
    prefix_cache_gb: float = Field(ge=0)
    prefix_cache_dtype: Literal["bfloat16", "float32"]
    output_dir: str = Field(min_length=1)
    hf_repo_id: str = Field(pattern=r"^([\w.-]+/[\w.-]+)?$")
    hf_push: Literal["best", "last"]
    hf_private: bool
    hf_push_min_rounds: int = Field(ge=1)
    use_wandb: bool
    wandb_project: str = Field(min_length=1)
    use_tensorboard: bool

    @property
    def allowed_issues(self) -> frozenset[str]:
        return frozenset(self.allow_dataset_issues.split())

    def is_evaluated(self, server_round: int) -> bool:
        """Whether clients and server evaluate after a round."""
        return rhythm.is_evaluated(server_round, self.num_server_rounds, self.eval_frequency)

    def is_thorough(self, server_round: int) -> bool:
        """Whether the evaluation after a round also predicts actions, plays rollouts and films."""
        every = self.eval_frequency, self.rollout_frequency
        due = rhythm.has_rollouts(server_round, self.num_server_rounds, *every)
        return server_round > 0 and due

    def to_run_config(self) -> dict[str, Any]:
        """The values by their hyphenated keys, as a user writes them."""
        return self.model_dump(by_alias=True)


Level = Literal["DEBUG", "INFO", "WARNING", "ERROR"]


class Logging(BaseModel):
    """From which level on lines are shown, and kept."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    terminal: Level
    file: Level


class Dataset(BaseModel):
    """One dataset of the federation: where it comes from and what a reader should know of it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    source: str
    description: str = ""
    partition: str = ""  # "i/n": the i-th of n shares of its episodes
    cameras: Mapping[str, str] = Field(default={}, strict=False)  # recorded, the policy's
    fps: int = Field(default=0, ge=0)  # frames a second to take; 0 takes all

    @cached_property
    def parsed(self) -> Source:
        return Source.parse(self.source).read_as(self.partition, self.cameras, self.fps)


class Datasets(BaseModel):
    """The datasets of the simulated clients, in order, and those the server evaluates on."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    clients: tuple[Dataset, ...] = Field(min_length=1, strict=False)
    server: tuple[Dataset, ...] = Field(min_length=1, strict=False)

    @model_validator(mode="after")
    def _no_dataset_twice(self) -> Self:
        shared = find_shared(dataset.parsed for dataset in (*self.clients, *self.server))
        if shared:
            raise Zk0Error(
                f"[tool.zk0.datasets] lists {shared[0].key} more than once: a dataset, or a part "
                "of it, belongs to one client, or to the server, and to nobody else. Remove the "
                'repetition, or give each its own partition, such as "0/2" and "1/2".'
            )
        return self

    @model_validator(mode="after")
    def _no_server_name_twice(self) -> Self:
        """Losses are recorded by these names, beside their mean, the "composite"."""
        seen = {"composite"}
        for dataset in self.server:
            slug = dataset.parsed.slug
            if slug in seen:
                raise Zk0Error(
                    f"[tool.zk0.datasets] evaluates on {dataset.source}, whose losses would be "
                    f"recorded as '{slug}', a name that is taken: rename its folder."
                )
            seen.add(slug)
        return self


def parse_config(values: Mapping[str, Any]) -> Config:
    """The run-config as a `Config`; raises `Zk0Error` naming a wrong key, its value and range."""
    try:
        config = Config.model_validate(dict(values))
    except ValidationError as error:
        raise Zk0Error(_first_problem(error, list_keys())) from None
    if config.min_train_nodes > config.min_available_nodes:
        raise Zk0Error(
            f"min-train-nodes = {config.min_train_nodes} is more than min-available-nodes = "
            f"{config.min_available_nodes}: a round could never start. Lower it or raise the other."
        )
    if config.resume and config.start_from:
        raise Zk0Error(
            "resume goes on with a run and start-from begins a new one: give one of the two."
        )
    return config


def list_keys() -> list[str]:
    """The run-config keys, hyphenated."""
    return [_hyphenate(name) for name in Config.model_fields]


def parse_datasets(values: Mapping[str, Any]) -> Datasets:
    """`[tool.zk0.datasets]` as `Datasets`; raises `Zk0Error` on a wrong or repeated entry."""
    try:
        return Datasets.model_validate(dict(values))
    except ValidationError as error:
        problem = _first_problem(error, ["clients", "server", *Dataset.model_fields])
        raise Zk0Error(f"[tool.zk0.datasets]: {problem}") from None


def load_logging(app_folder: Path) -> Logging:
    """`[tool.zk0.logging]` of the app; raises `Zk0Error` where it is missing or wrong."""
    try:
        return Logging.model_validate(read_pyproject(app_folder)["tool"]["zk0"].get("logging", {}))
    except ValidationError as error:
        problem = _first_problem(error, ["terminal", "file"])
        raise Zk0Error(f"[tool.zk0.logging]: {problem}") from None


def load(app_folder: Path, overrides: Mapping[str, Any] | None = None) -> tuple[Config, Datasets]:
    """The configuration of the app in `app_folder`, with `overrides` of single run-config keys."""
    tool = read_pyproject(app_folder)["tool"]
    config = parse_config({**tool["flwr"]["app"]["config"], **(overrides or {})})
    return config, parse_datasets(
        preset(config.datasets) if config.datasets else tool["zk0"]["datasets"]
    )


def check(app_folder: Path, run_config: Sequence[str]) -> tuple[Config, Datasets]:
    """What a run with these `--run-config` strings uses; raises `Zk0Error` where it would fail."""
    config, datasets = load(app_folder, parse_overrides(run_config))
    for dataset in (*datasets.clients, *datasets.server):
        check_source(dataset.parsed)
    clients = len(datasets.clients)
    for key, least in (
        ("min-train-nodes", config.min_train_nodes),
        ("min-available-nodes", config.min_available_nodes),
    ):
        if least > clients:
            raise Zk0Error(
                f"{key} = {least}, but [tool.zk0.datasets] lists {clients} clients. Lower it or "
                "add datasets."
            )
    return config, datasets


def read_pyproject(app_folder: Path) -> dict[str, Any]:
    """The app's pyproject.toml; raises `Zk0Error` where it is missing, broken or foreign."""
    path = app_folder / "pyproject.toml"
    try:
        pyproject = tomllib.loads(path.read_text())
    except OSError:
        raise Zk0Error(f"{path} cannot be read: name the folder of a zk0 app.") from None
    except tomllib.TOMLDecodeError as error:
        raise Zk0Error(f"{path} is not valid TOML: {error}.") from None
    try:
        _ = pyproject["tool"]["zk0"]["datasets"], pyproject["tool"]["flwr"]["app"]["config"]
    except KeyError as key:
        raise Zk0Error(
            f"{path} has no {key} in [tool.flwr.app.config] or [tool.zk0.datasets]."
        ) from None
    return pyproject


def app_folder() -> Path:
    """The running app's folder: Flower unpacks it below its home and adds it to `sys.path`.

    Ray adds the folder that a run was started from, which may be another checkout of zk0, too.
    """
    from flwr.supercore.utils import get_flwr_home

    unpacked = get_flwr_home() / "apps"
    for entry in sys.path:
        if Path(entry).is_relative_to(unpacked):
            return Path(entry)
    raise Zk0Error(f"no app from {unpacked} is loaded: this runs under Flower only.")


def parse_overrides(run_config: Sequence[str]) -> dict[str, Any]:
    """`--run-config` strings as values; unknown keys are refused by name, as Flower does not."""
    from click import ClickException
    from flwr.common.config import parse_config_args

    text = " ".join(run_config)
    stray = re.sub(r"""\S+?=('[^']*'|"[^"]*"|\S+)""", "", text).split()
    if stray and not text.endswith(".toml"):  # Flower would pass over it without a word
        raise Zk0Error(f'--run-config: "{stray[0]}" is not KEY=VALUE.')
    try:
        overrides = parse_config_args(list(run_config))
    except (ClickException, ValueError, OSError) as error:
        reason = getattr(error, "message", str(error)).partition(". ")[0]
        raise Zk0Error(f'--run-config "{text}" cannot be read: {reason}.') from None
    for key in overrides:
        if key not in list_keys():
            raise Zk0Error(_unknown_key(key, list_keys()))
    return overrides


def _first_problem(error: ValidationError, known: list[str]) -> str:
    # A misspelt key is both unknown and missing; the first says more.
    problem = min(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
    location = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return _unknown_key(location, known)
    if problem["type"] == "missing":
        return f"{location} is missing from pyproject.toml."
    wanted = describe_range(location) or problem["msg"].removeprefix("Input should be ")
    return f"{location} = {problem['input']!r} is not valid: it has to be {wanted}."


def describe_range(key: str) -> str:
    """What a run-config key takes, in words; empty for any other location."""
    schema = Config.model_json_schema()["properties"].get(key, {})
    if "enum" in schema:
        return "one of " + ", ".join(f'"{choice}"' for choice in schema["enum"])
    kinds = {
        "integer": "a whole number",
        "number": "a number",
        "boolean": "true or false",
        "string": "text",
    }
    bounds = [
        f"{word} {schema[bound]:g}"
        for bound, word in (
            ("minimum", "of at least"),
            ("exclusiveMinimum", "above"),
            ("maximum", "of at most"),
            ("exclusiveMaximum", "below"),
        )
        if bound in schema
    ]
    return " ".join([kinds.get(schema.get("type", ""), ""), " and ".join(bounds)]).strip()


def _unknown_key(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key.rsplit(".", 1)[-1], known, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]}?" if near else f" There are: {', '.join(known)}."
    return f"{key} is not a known key.{hint}"
