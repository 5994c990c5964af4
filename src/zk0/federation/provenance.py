"""Is the code that runs the code that was submitted?"""

from pathlib import Path

import zk0
from zk0.errors import Zk0Error


def check_code(app_folder: Path) -> None:
    """Raise `Zk0Error` where the submitted app's code is not that of the installed package.

    Flower runs the package of the environment that the SuperLink was started from, whatever
    checkout or version an app was submitted from.
    """
    installed = Path(zk0.__file__).parent
    for submitted in sorted((app_folder / "src" / "zk0").rglob("*.py")):
        own = installed / submitted.relative_to(app_folder / "src" / "zk0")
        if not own.is_file() or own.read_bytes() != submitted.read_bytes():
            raise Zk0Error(
                f"this SuperLink runs zk0 from {installed}, and its {own.name} is not the one "
                "submitted. ./train-fl-simulation.sh names its process: end it, then start the run "
                "again."
            )
