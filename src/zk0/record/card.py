"""What tells people about a checkpoint: README.md, a model card as the Hub reads it, and
metrics.json, the figures of the checkpoint's own round.

Both may be published: they name datasets by their slugs, and neither folders nor machines. Slugs,
descriptions and joints come from elsewhere, and appear as text whatever they contain.
"""

import json
import os
import re
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from zk0.config import HOUSEKEEPING

README, METRICS = "README.md", "metrics.json"
TITLES = {
    "federated": "trained by a federation",
    "centralized": "trained on all data in one place",
    "local": "trained on one client's data",
}
HARMLESS = ",;'?=%"  # in Markdown, wherever they stand; the rest also makes links and lists
_ESCAPES = str.maketrans({mark: f"\\{mark}" for mark in string.punctuation if mark not in HARMLESS})


@dataclass(frozen=True)
class Card:
    """What a model card tells beyond the checkpoint's own files; not to be changed afterwards."""

    run: Mapping[str, Any]  # the run's description, as config.json has it
    metrics: Mapping[str, Any]  # as `metrics_of` puts them together


def metrics_of(
    server_round: int, content: Mapping[str, Any], client_losses: Mapping[str, Mapping[int, float]]
) -> dict[str, Any]:
    """A round's figures, out of `History.rounds[server_round]` and `History.client_losses`; without
    reasons of failures, which may name a client's folders."""
    labels = sorted(client_losses, key=lambda label: int(label.split()[0]))  # "NUMBER SLUG"
    held_out = {
        label: client_losses[label][server_round]
        for label in labels
        if server_round in client_losses[label]
    }
    parts = {name: content[name] for name in ("server", "evaluate", "rollouts") if name in content}
    return {"clients": held_out, **parts}


def is_hub_name(text: str) -> bool:
    """Whether `text` is an owner/name that the Hub may have."""
    try:
        validate_repo_id(text)
    except HFValidationError:
        return False
    return text.count("/") == 1


def write_card(folder: Path, server_round: int, card: Card) -> None:
    """Write both files into the checkpoint `folder`, each in one step."""
    metrics = {"round": server_round, **card.metrics}
    _replace(folder / METRICS, json.dumps(metrics, indent=2, allow_nan=False) + "\n")
    config = json.loads((folder / "config.json").read_text())
    _replace(folder / README, str(make_card(server_round, card, config)))


def _replace(path: Path, text: str) -> None:
    partial = path.parent.with_name(f".{path.parent.name.lstrip('.')}.{path.name}")
    try:
        partial.write_text(text)
        os.replace(partial, path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def make_card(server_round: int, card: Card, policy: Mapping[str, Any]) -> ModelCard:
    """The card of a checkpoint whose config.json is `policy`."""
    run, kind = card.run, card.run["kind"]
    resumed = [each["config"] for each in run.get("resumed", [])]
    config = [run["config"], *resumed][-1]  # the one in force
    data = ModelCardData(
        license="apache-2.0",
        library_name="lerobot",
        pipeline_tag="robotics",
        tags=[
            "robotics",
            "lerobot",
            "smolvla",
            "so101",
            "zk0",
            *(["federated-learning"] if kind == "federated" else []),
        ],
        base_model=_base_model(run["config"]),
        datasets=_hub_datasets(run) or None,
    )
    sections = (
        _opening(server_round, card),
        _data(run),
        _training(server_round, kind, config),
        _metrics(card.metrics),
        _use(policy),
        _making(run),
        _limits(run),
    )
    body = "\n\n".join("\n".join(section) for section in sections)
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}\n")


def _base_model(config: Mapping[str, Any]) -> str | None:
    """The Hub's policy that the training began from, where it was one."""
    for name in (config.get("start-from", ""), config.get("model-name", "")):
        if is_hub_name(name) and not Path(name).is_dir():
            return name
    return None


def _hub_datasets(run: Mapping[str, Any]) -> list[str]:
    """The owner/name of what was trained on, where it is on the Hub."""
    trained_on = [each for each in run["clients"] if each["client"] in run["trained_on"]]
    return sorted({name for each in trained_on if (name := each.get("hub"))})


# --- sections -------------------------------------------------------------------------------------


def _opening(server_round: int, card: Card) -> Iterator[str]:
    kind = card.run["kind"]
    yield f"# SmolVLA, {TITLES[kind]}: round {server_round}"
    yield ""
    yield (
        "[SmolVLA](https://huggingface.co/papers/2506.01844), LeRobot's vision-language-action "
        "model, fine-tuned for SO-100/SO-101 arms by zk0."
    )
    if kind == "federated":
        yield (
            "Each client trained the action expert on its own demonstrations; a server averaged "
            "the weights and saw no demonstration of theirs."
        )


def _data(run: Mapping[str, Any]) -> Iterator[str]:
    yield "## Data"
    yield ""
    rows = [
        (
            each["client"],
            escape(each["slug"]),
            escape(each["description"]),
            each["training_episodes"],
            each["training_frames"],
        )
        for each in run["clients"]
        if each["client"] in run["trained_on"]
    ]
    yield from _table(("client", "trained on", "what", "episodes", "frames"), rows)
    yield ""
    unseen = [
        (escape(each["slug"]), escape(each["description"]), each["episodes"], each["frames"])
        for each in run["server"]
    ]
    yield from _table(("evaluated on, never trained on", "what", "episodes", "frames"), unseen)


def _training(server_round: int, kind: str, config: Mapping[str, Any]) -> Iterator[str]:
    yield "## Training"
    yield ""
    yield f"- Rounds: {server_round} of {config['num-server-rounds']} planned"
    if kind == "federated":
        mu = f", proximal term mu {config['proximal-mu']:g}"
        yield f"- Strategy: {config['strategy']}{mu if config['strategy'] == 'fedprox' else ''}"
    steps = config["local-steps"]
    amount = f"{steps} gradient steps" if steps else f"{config['local-epochs']} epochs"
    yield f"- In a round, for each client: {amount} with batches of {config['batch-size']}"
    yield f"- Normalisation: {config['normalization']} statistics"
    yield ""
    yield "<details><summary>All settings</summary>"
    yield ""
    settings = {key: value for key, value in config.items() if key not in HOUSEKEEPING}
    yield from _table(("setting", "value"), [(k, _setting(v)) for k, v in settings.items()])
    yield ""
    yield "</details>"


def _setting(value: Any) -> str:
    """A setting's value; of a folder no more than that it is one."""
    if not isinstance(value, str):
        return str(value)
    if value.startswith(("/", "~", ".")) or ("/" in value and Path(value).is_dir()):
        return "a folder"
    return escape(value)


def _metrics(metrics: Mapping[str, Any]) -> Iterator[str]:
    yield "## Metrics of this round"
    server, clients = metrics.get("server"), metrics.get("clients")
    tasks = metrics.get("rollouts")
    if server:
        yield ""
        yield f"Policy loss on the datasets that no client has: {server['loss']:.4f} in the mean."
        yield ""
        yield from _server_table(server["datasets"])
    if clients:
        yield ""
        rows = [(escape(label), f"{loss:.4f}") for label, loss in clients.items()]
        yield from _table(("client, its held-out episodes", "policy loss"), rows)
    if tasks:
        yield ""
        yield from _table(
            ("task in the simulator", "success", "95 % interval"),
            [(escape(name), *_success(tally)) for name, tally in tasks.items()],
        )
    if not (server or clients or tasks):
        yield ""
        yield "None was measured."


def _server_table(datasets: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """A column for each dataset; below the loss, each joint's action error and policy loss."""
    rows = [("policy loss", *(_loss(each) for each in datasets.values()))]
    keys = next(iter(datasets.values()), {})
    joints = [key.removeprefix("loss.") for key in keys if key.startswith("loss.")]
    for joint in joints:
        cells = (_joint(each, joint) for each in datasets.values())
        rows.append((escape(joint), *cells))
    yield from _table(("", *(escape(slug) for slug in datasets)), rows)
    if any(f"error.{joint}" in each for each in datasets.values() for joint in joints):
        yield ""
        yield "Of a joint: the mean action error, and its policy loss in brackets."


def _loss(result: Mapping[str, Any]) -> str:
    error = result.get("standard-error")
    return f"{result['loss']:.4f}" + (f" ± {error:.4f}" if error is not None else "")


def _joint(result: Mapping[str, Any], joint: str) -> str:
    loss = f"{result[f'loss.{joint}']:.3f}" if f"loss.{joint}" in result else ""
    error = result.get(f"error.{joint}")
    if error is None:
        return loss
    return f"{error:.2f}{' %' if joint == 'gripper' else '°'} ({loss})"


def _success(tally: Mapping[str, Any]) -> tuple[str, str]:
    successes = f"{tally['successes']}/{tally['episodes']}"
    return successes, f"{tally['low']:.0%} to {tally['high']:.0%}"


def _use(policy: Mapping[str, Any]) -> Iterator[str]:
    """How to run it with lerobot 0.6, in which `lerobot-rollout` plays policies."""
    cameras = ", ".join(
        f"{name}: {{type: opencv, index_or_path: {number}, width: 640, height: 480, fps: 30}}"
        for number, name in enumerate(_cameras(policy))
    )
    backbone = policy["vlm_model_name"].removeprefix("./")
    travels = backbone != policy["vlm_model_name"]
    yield "## Use"
    yield ""
    yield "On an arm, with lerobot 0.6.1 (`pip install 'lerobot[smolvla,feetech]==0.6.1'`):"
    yield ""
    yield "```bash"
    yield "hf download OWNER/NAME --local-dir policy   # or copy this folder"
    yield "cd policy"
    yield "lerobot-rollout --strategy.type=base --policy.path=. --policy.device=cuda \\"
    yield "  --robot.type=so101_follower --robot.port=/dev/ttyACM0 --robot.id=my_arm \\"
    yield f'  --robot.cameras="{{{cameras}}}" \\'
    yield '  --task="what to do, in the words of the data" --duration=60'
    yield "```"
    yield ""
    yield (
        "The cameras' names have to be these; `--policy.device=cpu` is for machines without a GPU."
    )
    yield from _places(backbone) if travels else _hub_backbone(backbone)


def _cameras(policy: Mapping[str, Any]) -> list[str]:
    """Their names, in letters that mean nothing to a shell."""
    prefix = "observation.images."
    names = [name for name in policy["input_features"] if name.startswith(prefix)]
    return [re.sub(r"[^a-zA-Z0-9_.-]", "_", name.removeprefix(prefix)) for name in names]


def _places(backbone: str) -> Iterator[str]:
    yield (
        f"The policy's backbone is described in `{backbone}/`, beside the weights. lerobot looks "
        "for it from the current directory: as it is, the folder may be copied and renamed at "
        "will, and opens with lerobot alone where it is the current directory (`cd`, as above). "
        "`--policy.path=OWNER/NAME` does not find it. To open it from any directory, until it is "
        "moved again, run this in it once:"
    )
    yield ""
    yield "```bash"
    yield f'sed -i "s|\\./{backbone}|$PWD/{backbone}|" config.json policy_preprocessor.json'
    yield "```"
    yield ""
    yield "From Python nothing has to be changed in it:"
    yield ""
    yield "```python"
    yield "from lerobot.configs import PreTrainedConfig"
    yield "from lerobot.policies.factory import make_pre_post_processors"
    yield "from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy"
    yield ""
    yield 'folder = "/path/to/policy"'
    yield "config = PreTrainedConfig.from_pretrained(folder)"
    yield f'config.vlm_model_name = f"{{folder}}/{backbone}"'
    yield "policy = SmolVLAPolicy.from_pretrained(folder, config=config)"
    yield 'tokenizer = {"tokenizer_processor": {"tokenizer_name": config.vlm_model_name}}'
    yield "preprocess, postprocess = make_pre_post_processors("
    yield "    config, folder, preprocessor_overrides=tokenizer"
    yield ")"
    yield "```"
    yield ""
    yield "zk0 itself (`zk0 evaluate`, `model-name`) opens it from anywhere."


def _hub_backbone(name: str) -> Iterator[str]:
    yield (
        f"`--policy.path=OWNER/NAME` works as well, from any directory. Tokenizer and "
        f"configuration of the backbone come from the Hub (`{name}`) on first use."
    )


def _making(run: Mapping[str, Any]) -> Iterator[str]:
    yield "## How it was made"
    yield ""
    versions = ", ".join(f"{name} {number}" for name, number in run["versions"].items())
    yield f"With zk0 and these versions: {versions}."
    if run.get("git_revision"):
        yield f"zk0's git revision: `{run['git_revision']}`."
    yield (
        f"`{METRICS}` has this round's figures in full. Vision and language model are frozen; "
        "only the action expert and the projections around it were trained."
    )


def _limits(run: Mapping[str, Any]) -> Iterator[str]:
    yield "## Limits"
    yield ""
    if run["config"]["model-name"].startswith("embedded"):
        yield (
            "- The policy is tiny and has seen nothing but zk0's simulated world: on a real arm it "
            "shows no more than that the pipeline runs."
        )
    yield (
        "- A policy loss does not say whether a robot succeeds. Success was counted in simulation, "
        "if at all, and never on an arm."
    )
    yield (
        "- It knows the tasks, cameras, objects and light of the data above. Try it at low speed, "
        "with a hand on the power switch."
    )
    if run["kind"] == "federated":
        yield (
            "- What was exchanged are weights, not data, but weights can give away something of "
            "what they were trained on: there is no formal guarantee of privacy."
        )


# --- Markdown -------------------------------------------------------------------------------------


def escape(text: str) -> str:
    """`text` in one line of Markdown that shows exactly it, also in a table."""
    printable = "".join(mark if mark.isprintable() else " " for mark in text)
    return " ".join(printable.split()).translate(_ESCAPES)


def _table(headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> Iterator[str]:
    for cells in (headings, ["---"] * len(headings), *rows):
        yield f"| {' | '.join(str(cell) for cell in cells)} |"
