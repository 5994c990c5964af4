"""Was federating worth it? Every strategy, all data pooled, and each client alone, side by side.

    .venv/bin/python benchmarks/results.py [--seeds 0 1 2] [--output-dir outputs/results]

Makes the runs that are not there yet (about an hour for three seeds on two cores), one after the
other, then compares them: tables and sentences go into docs/results.md, between its marks, and a
chart beside it.
"""

import argparse
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from zk0.comparison.chart import draw
from zk0.comparison.compare import Comparison, compare_runs
from zk0.config import HOUSEKEEPING, check
from zk0.evaluation import closed_loop
from zk0.evaluation.tally import Tally, tally
from zk0.evaluation.twins import all_twins
from zk0.record.run_folder import outputs_root

PROJECT = Path(__file__).resolve().parents[1]
PAGE = PROJECT / "docs" / "results.md"
CHART = "images/results.png"  # seen from the page
CHARTED = (
    "near/loss",
    "near/action-error",
    "touch/success",
    "touch/nearest",
    "stackcube/nearest",
    "pickandplace/nearest",
)
STRATEGIES = {
    "FedProx": "",
    "FedProx, dynamic": "preset='dynamic'",
    "FedAvg": "strategy='fedavg'",
    "SCAFFOLD": "strategy='scaffold'",
}
EPISODES = 10  # rollouts of each task and seed
SIMPLE_EPISODES = 50


@dataclass(frozen=True)
class Job:
    """A run to make: its kind, what differs from the default configuration, and its client."""

    kind: str
    settings: str
    client: int | None = None

    @property
    def command(self) -> list[str]:
        if self.kind == "federated":
            return [str(PROJECT / "train-fl-simulation.sh"), "--run-config", self.settings]
        client = [] if self.client is None else ["--client", str(self.client)]
        command = [str(PROJECT / ".venv/bin/zk0"), "baseline", self.kind, *client]
        return [*command, "--app", str(PROJECT), "-c", self.settings]

    def find(self, output_dir: str) -> Path | None:
        """The folder of this run, where it was made before."""
        wanted = what_counts(check(PROJECT, [self.settings])[0].to_run_config())
        clients = None if self.client is None else [self.client]
        for path in sorted(outputs_root(output_dir).glob("*/config.json")):
            described = json.loads(path.read_text())
            same = described["kind"] == self.kind and what_counts(described["config"]) == wanted
            if same and clients in (None, described["trained_on"]) and has_ended(path.parent):
                return path.parent
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output-dir", default="outputs/results")
    parser.add_argument("--strategies", nargs="+", default=list(STRATEGIES), choices=STRATEGIES)
    parser.add_argument("--page", type=Path, default=PAGE, help="a Markdown file with both marks")
    options = parser.parse_args()
    runs = [make(job, options.output_dir) for job in plan(options)]
    comparison = compare_runs(runs)
    comparison.save(outputs_root(options.output_dir) / "comparison")
    update(options.page, "comparison", spell_out(comparison))
    chosen = [row for row in comparison.rows if row.metric in CHARTED]
    (options.page.parent / CHART).write_bytes(draw(chosen, comparison.confidence))
    update(options.page, "simple controllers", simple_controllers())


def plan(options: argparse.Namespace) -> Iterator[Job]:
    clients = len(check(PROJECT, [])[1].clients)
    for seed in options.seeds:
        common = f"seed={seed} rollout-episodes={EPISODES} output-dir='{options.output_dir}'"
        for name in options.strategies:
            yield Job("federated", f"{common} {STRATEGIES[name]}".strip())
        yield Job("centralized", common)
        for client in range(clients):
            yield Job("local", common, client)


def make(job: Job, output_dir: str) -> Path:
    if job.find(output_dir) is None:
        print(f"--- {job.kind} {job.client if job.client is not None else ''} {job.settings}")
        subprocess.run(job.command, check=True, cwd=PROJECT)
    folder = job.find(output_dir)
    assert folder is not None, job
    return folder


def what_counts(config: dict) -> dict:
    """The settings that change what is learnt, and how many rollouts there are."""
    idle = HOUSEKEEPING - {"rollout-episodes"}
    return {key: value for key, value in config.items() if key not in idle}


def has_ended(run: Path) -> bool:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return bool(lines) and json.loads(lines[-1])["event"] == "run-end"


def spell_out(comparison: Comparison) -> str:
    """As part of a page: without what the tables say as well, and where the runs lay."""
    _, text = comparison.to_markdown().split("\n", 1)
    text, _ = text.split("## Runs")
    idle = ("no difference can be claimed", "(a plain count, no interval)")
    lines = [line for line in text.splitlines() if not any(words in line for words in idle)]
    return "\n".join(lines).replace("\n## ", "\n### ")


def simple_controllers() -> str:
    """Success of arms that hold still, move at random, or know the solution, as Markdown."""
    sources = check(PROJECT, [])[1]
    twins = all_twins(each.parsed for each in (*sources.clients, *sources.server))
    closed_loop.can_render()
    seeds = closed_loop.seeds_of(SIMPLE_EPISODES)
    lines = ["| task | " + " | ".join(closed_loop.SIMPLE) + " |", "|---|---|---|---|"]
    for twin in twins.values():
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
