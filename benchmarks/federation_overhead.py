"""What federating costs beside the local steps: a serialized run of the default configuration.

    .venv/bin/python benchmarks/federation_overhead.py [--run-config "KEY=VALUE ..."]

Clients train one at a time (each takes all cores), and no rollouts are played, which have nothing
to do with federating. Overhead is the wall time from the first round's first message to the run's
end, over the sum of the clients' local step times, less one. The start is told apart. Data and
prefix caches are made ready first.
"""

import argparse
import json
import os
import re
import subprocess
import time
from collections import Counter
from datetime import datetime
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
ALWAYS = "rollout-episodes=0 rollout-videos=0"
FLWR = str(PROJECT / ".venv" / "bin" / "flwr")
ENVIRONMENT = {**os.environ, "PATH": f"{PROJECT / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run-config", default="", help="settings other than the default ones")
    settings = parser.parse_args().run_config
    run("num-server-rounds=1 local-steps=1")
    start = time.time()
    outputs = run(settings)
    report(outputs, start)


def run(settings: str) -> Path:
    """A run with one client at a time; its folder."""
    cores = f"client-resources-num-cpus={os.cpu_count()} client-resources-num-gpus=0.0"
    clients = re.search(r"clients = \[(.*?)\n\]", (PROJECT / "pyproject.toml").read_text(), re.S)
    count = clients[1].count("source") if clients else 0
    command = [FLWR, "run", str(PROJECT), "local-simulation", "--stream"]
    command += ["--federation-config", f"num-supernodes={count} {cores}"]
    command += ["--run-config", f"{ALWAYS} {settings}"]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    found = re.search(r"outputs: (\S+)", done.stdout)
    if not found or "better than its start" not in done.stdout:
        raise SystemExit(done.stdout)
    return Path(found[1])


def report(outputs: Path, start: float) -> None:
    events = [json.loads(line) for line in (outputs / "metrics.jsonl").read_text().splitlines()]
    rounds = json.loads((outputs / "server" / "federated_metrics.json").read_text())["rounds"]
    ready = datetime.fromisoformat(events[0]["time"]).timestamp()  # the evaluation before round 1
    end = datetime.fromisoformat(events[-1]["time"]).timestamp()
    steps = sum(event["seconds"] for event in events if event["event"] == "client-train")
    phases: Counter[str] = Counter()
    for content in rounds[1:]:
        phases.update(content["seconds"])
    transport = phases.pop("train") - steps - phases["aggregate"]
    wall = end - ready
    print(f"cores: {os.cpu_count()}, rounds: {len(rounds) - 1}")
    print(f"start, until the evaluation before round 1 was done: {ready - start:.1f} s")
    print(f"local steps of all clients: {steps:.1f} s")
    print(f"transport, arrays in and out, waiting: {transport:.1f} s")
    for phase, seconds in phases.items():
        print(f"{phase}: {seconds:.1f} s")
    print(f"rest: {wall - steps - transport - phases.total():.1f} s")
    print(f"wall time of the rounds: {wall:.1f} s, overhead {wall / steps - 1:.1%} of step time")


if __name__ == "__main__":
    main()
