"""What each choice of the default federation is worth: one changed at a time, the same budget.

    .venv/bin/python benchmarks/ablations.py [--seeds 0 1 2] [--output-dir outputs/results]

Every run makes 2,000 gradient steps in all. With 2 and 8 clients other episodes are held out (three
of each client's); with 2 the second task's recordings are others, too. Runs that are there already,
those of results.py too, are not made again; each of the others takes some three minutes on two
cores. The table goes into docs/results.md, between its marks.
"""

import argparse
from pathlib import Path

from results import HEADLINE, PAGE, Job, common, make, update

from zk0.comparison.groups import group_runs
from zk0.comparison.metrics import family_of
from zk0.comparison.rows import estimate
from zk0.comparison.runs import read_run
from zk0.comparison.tables import title, to_markdown

ABLATIONS = {
    "the default: 4 clients, 100 rounds of 5 steps, mu = 0.01": "",
    "mu = 0": "proximal-mu=0.0",
    "mu = 1": "proximal-mu=1.0",
    "all dynamic rules": "preset='dynamic'",
    "2 clients with two tasks each, 10 steps": "datasets='embedded-2' local-steps=10",
    "8 clients with half a dataset each, 125 rounds of 2 steps": (
        "datasets='embedded-8' num-server-rounds=125 local-steps=2"
    ),
    "10 rounds of 50 steps": "num-server-rounds=10 local-steps=50",
    "each client's own normalisation": "normalization='local'",
    "2 of 4 clients in a round, 10 steps": "fraction-train=0.5 local-steps=10",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output-dir", default="outputs/results")
    parser.add_argument("--page", type=Path, default=PAGE, help="a Markdown file with the marks")
    options = parser.parse_args()
    heading = ["", *(title(metric, family_of(metric).shown) for metric in HEADLINE)]
    rows = [[name, *measure(settings, options)] for name, settings in ABLATIONS.items()]
    update(options.page, "ablations", to_markdown([heading, *rows]))


def measure(settings: str, options: argparse.Namespace) -> list[str]:
    """The variant's metrics, over its seeds, as text."""
    jobs = (f"{common(seed, options.output_dir)} {settings}".strip() for seed in options.seeds)
    runs = [read_run(make(Job("federated", job), options.output_dir)) for job in jobs]
    (group,) = group_runs(runs)
    found = {metric: estimate(group, metric, 0.95) for metric in HEADLINE}
    return [family_of(m).interval(each.interval, each.count) for m, each in found.items()]


if __name__ == "__main__":
    main()
