"""A trial's run through Flower's command line, as `./train-fl-simulation.sh` starts one."""

from pathlib import Path
from typing import TextIO

from zk0 import simulate, superlink
from zk0.config import Datasets
from zk0.errors import Zk0Error
from zk0.flower import SCRIPTS, Run, flower_environment, interruptible
from zk0.sweep.loop import RunFailedError, Watch


class FlowerRunner:
    """Runs of one app on one connection of this machine, their logs in files."""

    def __init__(self, app: Path, federation: str | None, datasets: Datasets) -> None:
        """Choose the connection and make the data; raises `Zk0Error` where no run could start."""
        # Before anything here changes it: a SuperLink started below hands it on to every run.
        self.environment = flower_environment()
        self.app = app.resolve()
        self.connection = simulate.choose_connection(federation)
        self.clients = len(datasets.clients)
        simulate.prepare_data(datasets)

    def __call__(self, run_config: str, output_dir: str, log: Path, watch: Watch) -> None:
        superlink.ensure_own(SCRIPTS, simulate.installed_at())
        with log.open("a") as file, interruptible():
            run = WatchedRun(self.connection, self.environment, self.app, file, watch, self.clients)
            try:
                run.follow([run_config], output_dir)
            except Zk0Error as error:
                raise RunFailedError(str(error)) from None

    def stop(self, run_id: str) -> None:
        """Stop the run with this Flower number, where it is still going on."""
        superlink.ensure_own(SCRIPTS, simulate.installed_at())
        run = Run(self.connection, self.environment, self.app)
        run.run_id = run_id
        status, _ = run.status()
        if status != "unknown" and not status.startswith("finished"):
            run.end()


class WatchedRun(Run):
    """A run whose watcher hears of each line of its log, and may end it by raising."""

    def __init__(
        self,
        connection: str,
        environment: dict[str, str],
        app: Path,
        log: TextIO,
        watch: Watch,
        clients: int,
    ) -> None:
        super().__init__(connection, environment, app, log, clients)
        self.watch: Watch | None = watch

    def hear(self, line: str) -> None:
        super().hear(line)
        watch = self.watch
        if watch is None or self.run_id is None:
            return
        self.watch = None  # having raised, it is not asked again while the run is being stopped
        watch(self.run_id)
        self.watch = watch
