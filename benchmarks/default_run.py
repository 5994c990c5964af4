"""The default federated run, as a user starts it: time, memory and what it learned.

    .venv/bin/python benchmarks/default_run.py [--run-config "KEY=VALUE ..."]

Data and environment are made ready first (a tiny run), then the local SuperLink is ended, so that
the measured run starts cold. Memory is the peak, over samples, of the sum of all processes'
proportional set sizes (shared pages count once).
"""

import argparse
import json
import os
import re
import subprocess
import threading
import time
from pathlib import Path

import psutil

PROJECT = Path(__file__).resolve().parents[1]
COMMAND = str(PROJECT / "train-fl-simulation.sh")
SAMPLE_S = 2.0


class PeakMemory:
    """The largest sum of PSS over all processes that were born since this object was made."""

    def __init__(self) -> None:
        self.born = time.time()
        self.bytes = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def stop(self) -> int:
        self._done.set()
        self._thread.join()
        return self.bytes

    def _sample(self) -> None:
        while not self._done.wait(SAMPLE_S):
            self.bytes = max(self.bytes, sum(map(self._pss, psutil.process_iter())))

    def _pss(self, process: psutil.Process) -> int:
        try:
            young = process.create_time() >= self.born - 1 and process.pid != os.getpid()
            return process.memory_full_info().pss if young else 0
        except psutil.Error:
            return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run-config", default="", help="settings other than the default ones")
    settings = parser.parse_args().run_config
    make_ready()
    memory, start = PeakMemory(), time.perf_counter()
    first_step, outputs = follow(["--run-config", settings] if settings else [], start)
    total, peak = time.perf_counter() - start, memory.stop()
    print(f"cores: {os.cpu_count()}")
    print(f"command to first local step: {first_step:.0f} s")
    print(f"command to its end: {total:.0f} s ({total / 60:.1f} min)")
    print(f"peak memory of all processes: {peak / 2**30:.2f} GiB")
    report_evaluation(outputs, total)
    report_losses(outputs)


def make_ready() -> None:
    subprocess.run([COMMAND, "--tiny"], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["pkill", "-f", "flower-superlink"], check=False)
    time.sleep(5)


def follow(options: list[str], start: float) -> tuple[float, Path]:
    """Run the command; seconds until the first client trains, and the run folder."""
    first_step, outputs = float("nan"), None
    with subprocess.Popen([COMMAND, *options], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            if "training on" in line and first_step != first_step:
                first_step = time.perf_counter() - start
            if found := re.match(r"Outputs: (.*)", line):
                outputs = Path(found[1])
    if process.returncode or outputs is None:
        raise SystemExit(f"the run failed with exit status {process.returncode}")
    return first_step, outputs


def report_evaluation(outputs: Path, total: float) -> None:
    """What each part of the evaluation took of the whole run."""
    content = json.loads((outputs / "server" / "federated_metrics.json").read_text())
    for phase in ("evaluate", "server-evaluate", "rollouts"):
        seconds = sum(each["seconds"].get(phase, 0.0) for each in content["rounds"])
        last = content["rounds"][-1]["seconds"].get(phase, 0.0)
        print(f"{phase}: {seconds:.1f} s, {seconds / total:.1%} (last round: {last:.1f} s)")


def report_losses(outputs: Path) -> None:
    """How far the losses fell: unseen sets from before round 1, clients from the first round that
    was evaluated."""
    losses = json.loads((outputs / "server" / "policy_loss_history.json").read_text())
    begin, first_round, *_, last_round = sorted(map(int, losses))
    for name in losses[str(begin)]:
        report_fall(name, losses[str(begin)][name], losses[str(last_round)][name])
    for client in sorted((outputs / "clients").iterdir()):
        first, last = (
            json.loads((client / f"round_{number}.json").read_text())
            for number in (first_round, last_round)
        )
        name = f"{client.name} {first['slug']}, held out"
        report_fall(name, first["evaluate"]["loss"], last["evaluate"]["loss"])


def report_fall(name: str, first: float, last: float) -> None:
    print(f"policy loss, {name}: {first:.4f} -> {last:.4f} (x {last / first:.2f})")


if __name__ == "__main__":
    main()
