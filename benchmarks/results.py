"""Was federating worth it? Every strategy, all data pooled, each client alone, the base alone.

    .venv/bin/python benchmarks/results.py [--seeds 0 1 2 3 4] [--strategy-seeds 0 1 2]

Makes the runs that are not there yet (about half an hour for each seed on two cores), one after the
other, those of other strategies than the first for `--strategy-seeds`, then compares them: tables
and sentences go into docs/results.md, between its marks, and a chart beside it. All that is
compared, with nearest distances and stages of grasping, lies in the output folder's comparison/.
"""

import argparse
import json
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from zk0.comparison import tables
from zk0.comparison.chart import draw
from zk0.comparison.compare import Comparison, compare_runs
from zk0.comparison.rows import Row
from zk0.config import HOUSEKEEPING, check
from zk0.data.frames import open_frames
from zk0.data.sources import Source, fetch
from zk0.evaluation import closed_loop
from zk0.evaluation.tally import Tally, tally
from zk0.evaluation.twins import all_twins
from zk0.paths import from_project
from zk0.record.evidence import ROLLOUTS, folder_of

PROJECT = Path(__file__).resolve().parents[1]
PAGE = PROJECT / "docs" / "results.md"
CHART = "images/results.png"  # seen from the page
CHARTED = ("near/success", "clients/success", "near/loss")
JUDGED = (*CHARTED, "near/action-error")
HEADLINE = (*CHARTED, "far/loss", "near/action-error", "far/action-error", "bytes", "wall-time")
STRATEGIES = {
    "FedProx": "",
    "FedProx, dynamic": "preset='dynamic'",
    "FedAvg": "strategy='fedavg'",
    "SCAFFOLD": "strategy='scaffold'",
    "FedAdam": "strategy='fedadam' server-momentum=0.9",
}
EPISODES = 20  # rollouts of each task and seed
SIMPLE_EPISODES = 50


@dataclass(frozen=True)
class Job:
    """A run to make: its kind, what differs from the default configuration, and its client."""

    kind: str
    settings: str
    client: int | None = None
    tries_its_start: bool = False  # there are rollouts of what training begins with, too

    @property
    def command(self) -> list[str]:
        if self.kind == "federated":
            return [str(PROJECT / "train-fl-simulation.sh"), "--run-config", self.settings]
        client = [] if self.client is None else ["--client", str(self.client)]
        command = [str(PROJECT / ".venv/bin/zk0"), "baseline", self.kind, *client]
        return [*command, "--app", str(PROJECT), "-c", self.settings]

    def find(self, output_dir: str) -> Path | None:
        """The folder of this run, where it was made before, from today's data."""
        config = check(PROJECT, [self.settings])[0]
        wanted = what_counts(config.to_run_config()), fingerprints(config.datasets)
        clients = None if self.client is None else [self.client]
        for path in sorted(from_project(output_dir).glob("*/config.json")):
            about = json.loads(path.read_text())
            data = [each["fingerprint"] for each in (*about["clients"], *about["server"])]
            same = about["kind"] == self.kind and (what_counts(about["config"]), data) == wanted
            same = same and clients in (None, about["trained_on"])
            if same and has_ended(path.parent) and self._has_tried_its_start(path.parent):
                return path.parent
        return None

    def _has_tried_its_start(self, run: Path) -> bool:
        """Also another run of these settings has, if it has to: how often is not among them."""
        return not self.tries_its_start or (folder_of(run, 0) / ROLLOUTS).exists()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--strategy-seeds", type=int, nargs="+", help="all where not given")
    parser.add_argument("--output-dir", default="outputs/results")
    parser.add_argument("--page", type=Path, default=PAGE, help="a Markdown file with both marks")
    options = parser.parse_args()
    made = [(job, make(job, options.output_dir)) for job in plan(options)]
    starts = [run.with_name(f"{run.name}@0") for job, run in made if job.tries_its_start]
    comparison = compare_runs([*(run for _, run in made), *starts])
    comparison.save(from_project(options.output_dir) / "comparison")
    update(options.page, "comparison", spell_out(comparison))
    chart = draw(pick(comparison, CHARTED), comparison.confidence)
    (options.page.parent / CHART).write_bytes(chart)
    update(options.page, "simple controllers", simple_controllers())


def plan(options: argparse.Namespace) -> Iterator[Job]:
    """The runs of each seed; the first one also tries out what training begins with."""
    config, datasets = check(PROJECT, [])
    strategies = list(STRATEGIES.values())
    for seed in options.seeds:
        at_the_end = common(seed, options.output_dir)
        from_the_start = common(seed, options.output_dir, config.num_server_rounds)
        yield Job("federated", f"{from_the_start} {strategies[0]}".strip(), tries_its_start=True)
        if seed in (options.strategy_seeds or options.seeds):
            for settings in strategies[1:]:
                yield Job("federated", f"{at_the_end} {settings}")
        yield Job("centralized", at_the_end)
        for client in range(len(datasets.clients)):
            yield Job("local", at_the_end, client)


def common(seed: int, output_dir: str, rollout_frequency: int = 0) -> str:
    """The settings that all of a seed's runs share."""
    return (
        f"seed={seed} rollout-episodes={EPISODES} rollout-frequency={rollout_frequency} "
        f"rollout-videos=0 fraction-evaluate=0.0 output-dir='{output_dir}'"
    )


def make(job: Job, output_dir: str) -> Path:
    if job.find(output_dir) is None:
        print(f"--- {job.kind} {job.client if job.client is not None else ''} {job.settings}")
        subprocess.run(job.command, check=True, cwd=PROJECT)
    folder = job.find(output_dir)
    assert folder is not None, job
    return folder


@cache
def fingerprints(datasets: str) -> list[str]:
    """Of the clients' and the server's data in that named federation ("": the default one)."""
    found = check(PROJECT, [f"datasets='{datasets}'"])[1]
    return [fingerprint(each.parsed) for each in (*found.clients, *found.server)]


def fingerprint(source: Source) -> str:
    frames = open_frames(fetch(source.whole), source.slug)
    return (frames.take_part(*source.part) if source.part else frames).fingerprint


def what_counts(config: dict) -> dict:
    """The settings that change what is learnt, and how many rollouts there are."""
    idle = HOUSEKEEPING - {"rollout-episodes"}
    return {key: value for key, value in config.items() if key not in idle}


def has_ended(run: Path) -> bool:
    metrics = run / "metrics.jsonl"  # not there yet where a run is about to begin
    lines = metrics.read_text().splitlines() if metrics.exists() else []
    return bool(lines) and json.loads(lines[-1])["event"] == "run-end"


def spell_out(comparison: Comparison) -> str:
    """What matters most by group, success by task, and what holds of the differences."""
    tasks = [
        row.metric
        for row in comparison.rows
        if row.metric.endswith("/success") and row.metric not in CHARTED
    ]
    judged = pick(comparison, JUDGED)
    idle = "no difference can be claimed"
    said = [line for row in judged for line in row.sentences if idle not in line]
    parts = [
        tables.to_markdown(transposed(pick(comparison, HEADLINE))),
        "### Success by task",
        tables.to_markdown(tables.estimate_table(pick(comparison, tasks))),
        f"### {comparison.reference} less the others",
        f'"Better" and "worse" are said of {comparison.reference}, "open" claims neither.',
        tables.to_markdown(tables.difference_table(judged)),
        "### Findings",
        "\n".join(f"- {line}" for line in (*said, *comparison.notes)),
    ]
    return "\n\n".join(parts)


def pick(comparison: Comparison, metrics: Iterable[str]) -> list[Row]:
    """In that order."""
    rows = {row.metric: row for row in comparison.rows}
    return [rows[metric] for metric in metrics]


def transposed(rows: Sequence[Row]) -> list[list[str]]:
    """A line for each group instead of each metric."""
    return [list(cells) for cells in zip(*tables.estimate_table(rows), strict=True)]


def simple_controllers() -> str:
    """Success of arms that hold still, move at random, or know the solution, as Markdown."""
    sources = check(PROJECT, [])[1]
    twins = all_twins(each.parsed for each in (*sources.clients, *sources.server))
    closed_loop.can_render()
    lines = ["| task | " + " | ".join(closed_loop.SIMPLE) + " |", "|---|---|---|---|"]
    for twin in twins.values():
        seeds = twin.seeds(SIMPLE_EPISODES)
        rows = [tally(closed_loop.play_simple(twin, who, seeds)) for who in closed_loop.SIMPLE]
        lines.append(f"| {twin.name} | " + " | ".join(map(spell, rows)) + " |")
    return "\n".join(lines)


def spell(row: Tally) -> str:
    return f"{row.successes}/{row.episodes} [{row.low:.0%}, {row.high:.0%}]"


def update(page: Path, mark: str, text: str) -> None:
    """Put `text` between the marks of that name."""
    begin, end = f"<!-- {mark} -->\n", f"<!-- end of {mark} -->"
    before, rest = page.read_text().split(begin)
    _, after = rest.split(end)
    page.write_text(f"{before}{begin}\n{text.strip()}\n\n{end}{after}")


if __name__ == "__main__":
    main()
