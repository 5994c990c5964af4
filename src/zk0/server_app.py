"""Flower's door to the server: unpack the context, open the run's folder, federate."""

from contextlib import suppress

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from loguru import logger

from zk0.config import Config, app_folder, load, load_logging
from zk0.errors import Zk0Error
from zk0.federation.federate import federate
from zk0.federation.provenance import check_code
from zk0.record.log import logging_to
from zk0.record.run_folder import RunFolder

app = ServerApp()


def open_folder(config: Config) -> RunFolder:
    """A new folder, or that of the run to resume."""
    if config.resume:
        return RunFolder.reopen(config.output_dir, config.resume)
    return RunFolder.create(config.output_dir)


@app.main()
def main(grid: Grid, context: Context) -> None:
    """One federated run, recorded in its own folder."""
    check_code(app_folder())
    config, datasets = load(app_folder(), context.run_config)
    folder = open_folder(config)
    log = folder.path / "simulation.log"
    with folder.held(), logging_to(log, load_logging(app_folder())):
        logger.info("outputs: {}", folder.path)
        try:
            federate(grid, config, datasets, folder, context.run_id)
        except Exception as error:
            kind = "" if isinstance(error, Zk0Error) else f"{type(error).__name__}: "
            reason = f"{kind}{error}"
            if folder.is_taken_up:  # else it is the record of a run that this one may not go on
                with suppress(Zk0Error):  # what the disk refuses is in the log
                    folder.append("run-error", reason=reason)
            logger.error("{}", reason)
            logger.opt(exception=True).debug("where it was raised")
            raise
