"""Do the intervals of a comparison hold when everything is measured again with other seeds?

    .venv/bin/python benchmarks/interval_coverage.py --seeds 0 1 2 --other-seeds 3 4

Compares the runs that `benchmarks/results.py` made (with `--seeds` for the others too), each set of
seeds by itself, and counts the means of the second within the first's intervals.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from zk0.comparison.compare import Comparison, compare_runs
from zk0.config import HOUSEKEEPING
from zk0.paths import from_project


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--other-seeds", type=int, nargs="+", default=[3, 4])
    parser.add_argument("--output-dir", default="outputs/results")
    options = parser.parse_args()
    runs = find_runs(from_project(options.output_dir))
    if missing := {*options.seeds, *options.other_seeds} - set(runs):
        raise SystemExit(f"error: there are no runs of seed {min(missing)}: see results.py --seeds")
    first, again = (
        [runs[seed] for seed in seeds] for seeds in (options.seeds, options.other_seeds)
    )
    shared = set.intersection(*(set(each) for each in (*first, *again)))
    then, now = (
        compare_runs([run[key] for run in part for key in sorted(shared)])
        for part in (first, again)
    )
    report(then, now)


def find_runs(root: Path) -> dict[int, dict[str, Path]]:
    """Finished runs by seed and by what else they are."""
    found: dict[int, dict[str, Path]] = defaultdict(dict)
    for path in sorted(root.glob("*/config.json")):
        about = json.loads(path.read_text())
        idle = HOUSEKEEPING | {"seed"}
        config = {key: value for key, value in about["config"].items() if key not in idle}
        key = json.dumps([about["kind"], about["trained_on"], config], sort_keys=True)
        found[about["config"]["seed"]][key] = path.parent
    return found


def report(then: Comparison, now: Comparison) -> None:
    inside: list[bool] = []
    for row, again in zip(then.rows, now.rows, strict=True):
        for label, estimate in row.estimates.items():
            interval, mean = estimate.interval, again.estimates[label].interval.estimate
            if interval.low is None or interval.high is None:
                continue
            inside.append(interval.low <= mean <= interval.high)
            if not inside[-1]:
                text = row.family.interval(interval)
                print(f"outside: {row.metric} of {label}: {text}, again {row.family.text(mean)}")
    print_share("means within the intervals", inside)


def print_share(what: str, inside: Sequence[bool]) -> None:
    print(f"{what}: {sum(inside)} of {len(inside)} ({sum(inside) / len(inside):.0%})")


if __name__ == "__main__":
    main()
