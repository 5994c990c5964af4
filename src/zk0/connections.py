"""zk0's SuperLink connections: their entries in Flower's configuration, and what answers there.

`flwr run . NAME` looks NAME up in `$FLWR_HOME/config.toml` (default `~/.flwr/config.toml`), a file
that belongs to the user and serves all their Flower projects. zk0's entries are replaced in it as
text: Flower's own writer would drop the user's comments.

Set-up runs this module every time, so importing it costs nothing beyond the standard library.
"""

import os
import re
import socket
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zk0.errors import Zk0Error

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psutil

Table = dict[str, Any]

CPU = "local-simulation"
SHARED_GPU = "local-simulation-gpu"
SERIALIZED_GPU = "local-simulation-serialized-gpu"

# GPUs that one client claims. Ray only schedules by this figure: it caps no memory. A quarter lets
# four clients share a GPU; a whole one makes them train in turn.
GPUS_PER_CLIENT = {CPU: 0.0, SHARED_GPU: 0.25, SERIALIZED_GPU: 1.0}

LOCAL = ":local:"
NOTE = "# Written by zk0's set-up; copy it under another name to change it."


# --- Flower's configuration file ------------------------------------------------------------------


def flower_home() -> Path:
    """Flower's folder, found as Flower finds it; without importing Flower, which takes a second."""
    return Path(os.environ.get("FLWR_HOME") or Path.home() / ".flwr")


def config_path() -> Path:
    return flower_home() / "config.toml"


def read_connections() -> dict[str, Table]:
    """The connections of Flower's configuration file by name; none where there is no file."""
    path = config_path()
    entries = _parse(_read(path), path).get("superlink", {}) if path.exists() else {}
    return {name: table for name, table in entries.items() if isinstance(table, dict)}


def register(project: Path) -> bool:
    """Bring zk0's entries in Flower's configuration up to date; True where the file changed."""
    path = config_path()
    if not path.exists():
        _create_stock_config()
    text = _read(path)
    edited = edit(text, number_of_clients(project), path)
    if edited == text:
        return False
    _replace(path, edited)
    return True


def number_of_clients(project: Path) -> int:
    """How many clients `[tool.zk0.datasets].clients` lists in the project's pyproject.toml."""
    path = project / "pyproject.toml"
    clients = _lookup(_parse(_read(path), path), "tool", "zk0", "datasets", "clients")
    if not isinstance(clients, list) or not clients:
        raise Zk0Error(f"{path}: [tool.zk0.datasets] must list at least one client in `clients`")
    return len(clients)


def edit(text: str, num_clients: int, path: Path) -> str:
    """`text` with zk0's connections in it, and all else as it was, to the letter.

    The user's default connection stays, unless it is Flower's stock one.
    """
    before = _parse(text, path)
    tables = {name: _table_text(name, num_clients) for name in GPUS_PER_CLIENT}
    after = _wanted(before, tables)
    if after == before:
        return text
    edited = text if not text or text.endswith("\n") else text + "\n"
    for name in GPUS_PER_CLIENT:
        if _lookup(before, "superlink", name) != after["superlink"][name]:
            edited = _with_table(edited, name, tables[name])
    if _lookup(before, "superlink", "default") != after["superlink"]["default"]:
        edited = _with_default(edited, after["superlink"]["default"])
    # An unusual spelling (inline or quoted tables) can defeat the edit: then leave the file alone.
    if _parse_or_none(edited) != after:
        names = ", ".join(f"[superlink.{name}]" for name in GPUS_PER_CLIENT)
        raise Zk0Error(f"{path}: cannot be edited safely; remove {names} from it and try again")
    return edited


def _wanted(before: Table, tables: dict[str, str]) -> Table:
    superlink = dict(before.get("superlink", {}))
    if _is_stock_default(superlink):
        superlink["default"] = CPU
    for name, text in tables.items():
        superlink[name] = tomllib.loads(text)["superlink"][name]
    return {**before, "superlink": superlink}


def _is_stock_default(superlink: Table) -> bool:
    default = superlink.get("default")
    return default is None or (
        default == "local" and superlink.get("local") in (None, {"address": LOCAL})
    )


def _table_text(name: str, num_clients: int) -> str:
    # One CPU a client: a client's arithmetic, and with it the run's figures, is then the same on
    # every machine, and one core is enough to run at all. Ray runs as many clients at a time as
    # there are cores.
    # Flower calls `options.` deprecated. What replaces it is one setting for a whole SuperLink, so
    # it cannot tell three connections apart, or a flag in every command.
    return (
        f"[superlink.{name}]\n"
        f"{NOTE}\n"
        f'address = "{LOCAL}"\n'
        f"options.num-supernodes = {num_clients}\n"
        "options.backend.client-resources.num-cpus = 1\n"
        f"options.backend.client-resources.num-gpus = {GPUS_PER_CLIENT[name]}\n"
    )


def _with_table(text: str, name: str, table: str) -> str:
    """`text` with `table` under this name, in the place of an older one or at the end."""
    lines = text.splitlines(keepends=True)
    header = re.compile(rf"\s*\[\s*superlink\s*\.\s*{re.escape(name)}\s*[\].]")
    starts = [number for number, line in enumerate(lines) if header.match(line)]
    for start in reversed(starts):
        lines[start : _end_of_table(lines, start)] = [table] if start == starts[0] else []
    if not starts:
        lines += ["\n", table] if lines else [table]
    return "".join(lines)


def _end_of_table(lines: list[str], start: int) -> int:
    """Where the table's last entry ends; a comment above the next table belongs to that one."""
    end = start + 1
    for number in range(start + 1, len(lines)):
        stripped = lines[number].strip()
        if stripped.startswith("["):
            break
        if stripped and (not stripped.startswith("#") or stripped == NOTE):
            end = number + 1
    return end


def _with_default(text: str, name: str) -> str:
    lines = text.splitlines(keepends=True)
    header = next((n for n, line in enumerate(lines) if _is_superlink_header(line)), None)
    if header is None:
        return "".join([*lines, "\n" if lines else "", f'[superlink]\ndefault = "{name}"\n'])
    for number in range(header + 1, _end_of_table(lines, header)):
        found = re.match(r"(\s*default\s*=\s*)(\"[^\"]*\"|'[^']*')", lines[number])
        if found:
            lines[number] = f'{found[1]}"{name}"{lines[number][found.end() :]}'
            return "".join(lines)
    lines.insert(header + 1, f'default = "{name}"\n')
    return "".join(lines)


def _is_superlink_header(line: str) -> bool:
    return re.match(r"\s*\[\s*superlink\s*\]", line) is not None


def _create_stock_config() -> None:
    """Let Flower write its own default file first: its stock connections must not go missing."""
    from flwr.cli.flower_config import init_flwr_config

    init_flwr_config()


def _lookup(table: Table, *keys: str) -> Any:
    value: Any = table
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _read(path: Path) -> str:
    try:
        # Not read_text: it would turn the line ends of a file from Windows into others.
        return path.read_bytes().decode()
    except FileNotFoundError:
        raise Zk0Error(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise Zk0Error(f"{path}: is not UTF-8 text ({error}); put it right or remove it") from None


def _parse(text: str, path: Path) -> Table:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Zk0Error(f"{path}: is not valid TOML ({error}); put it right") from None


def _parse_or_none(text: str) -> Table | None:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None


def _replace(path: Path, text: str) -> None:
    """Replace a file's text in one step, through a symbolic link, with the permissions kept."""
    target = path.resolve()
    descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.encode())
        os.chmod(temporary, target.stat().st_mode)
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


# --- the local SuperLink --------------------------------------------------------------------------
#
# `:local:` means a SuperLink on a fixed port of this machine, which Flower starts with the first
# run and leaves up. It keeps the environment that it was started from: one started from another
# checkout would run that one's code, and one started before an update the old packages.

# Settings that a run takes from its SuperLink's environment.
INHERITED = ("ZK0_", "HF_", "HUGGINGFACE_", "WANDB_", "CUDA_", "MUJOCO_", "PYOPENGL_", "TORCH_")

# Seconds in which a SuperLink may not have started its executor yet.
STARTING_UP = 30.0


@dataclass(frozen=True)
class SuperLink:
    """A running local SuperLink of this user."""

    process: "psutil.Process"
    scripts: Path
    """The folder of the `flower-superlink` that it runs."""
    environment: dict[str, str]
    programs: frozenset[str]
    """The names of the Flower programs that it has running: its executor, and one for each run."""

    @property
    def age(self) -> float:
        """Seconds since it was started."""
        return time.time() - float(self.process.create_time())

    @property
    def busy(self) -> bool:
        return "flwr-simulation" in self.programs

    @property
    def home(self) -> Path:
        return Path(
            self.environment.get("FLWR_HOME") or Path(self.environment.get("HOME", "~")) / ".flwr"
        ).expanduser()


def port() -> int:
    return int(os.environ.get("FLWR_LOCAL_SUPERLINK_HTTP_API_PORT") or 39091)


def ensure_own_superlink(scripts: Path, installed_at: float) -> None:
    """Make sure that a run would reach a SuperLink of this environment, as it is now, or none.

    `scripts` is this environment's folder of commands, `installed_at` the time when its packages
    last changed (Unix time). An outdated SuperLink of this environment without a run in progress is
    ended; Flower starts the next one. Any other raises Zk0Error.
    """
    found = list(_local_superlinks())
    if not found and _answers(port()):
        raise Zk0Error(
            f"port {port()} of this machine is taken by a program that is not yours; choose "
            "another with FLWR_LOCAL_SUPERLINK_HTTP_API_PORT"
        )
    for superlink in found:
        _check(superlink, scripts, installed_at)


def _check(superlink: SuperLink, scripts: Path, installed_at: float) -> None:
    pid = superlink.process.pid
    if superlink.scripts.resolve() != scripts.resolve():
        raise Zk0Error(
            f"a local SuperLink from another environment ({superlink.scripts}) is running and "
            f"would run that one's code; stop it with: kill {pid}"
        )
    if superlink.home.absolute() != flower_home().absolute():
        raise Zk0Error(
            f"a local SuperLink with another FLWR_HOME ({superlink.home}) is running; stop it "
            f"with: kill {pid}"
        )
    reason = _outdated(superlink, installed_at)
    if reason is None:
        return
    if superlink.busy:
        raise Zk0Error(
            f"the local SuperLink (process {pid}) has a run in progress, and {reason}; wait for "
            f"the run to end, or stop both with: kill {pid}"
        )
    print(f"Restarting the local SuperLink: {reason}.")
    _end(superlink.process)


def _outdated(superlink: SuperLink, installed_at: float) -> str | None:
    if "flower-superexec" not in superlink.programs and superlink.age > STARTING_UP:
        return "its executor has died, and runs would wait for ever"
    if superlink.process.create_time() < installed_at:
        return "its packages have changed since it started"
    ours, its = _inherited(dict(os.environ)), _inherited(superlink.environment)
    changed = sorted(name for name in ours.keys() | its.keys() if ours.get(name) != its.get(name))
    return f"it started with another {', '.join(changed)}" if changed else None


def _inherited(environment: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(INHERITED)}


def _local_superlinks() -> "Iterator[SuperLink]":
    """This user's SuperLinks on the local port. Other users' processes cannot be looked into."""
    import psutil

    for process in psutil.process_iter():
        try:
            superlink = _as_superlink(process)
        except psutil.Error:
            continue
        if superlink is not None:
            yield superlink


def _as_superlink(process: "psutil.Process") -> SuperLink | None:
    command = process.cmdline()
    script = next(
        (Path(word) for word in command[:2] if Path(word).name == "flower-superlink"), None
    )
    if script is None or _option(command, "--port") != str(port()):
        return None
    return SuperLink(process, script.parent, process.environ(), frozenset(_programs_of(process)))


def _programs_of(process: "psutil.Process") -> "Iterator[str]":
    import psutil

    for child in process.children(recursive=True):
        try:
            yield from (Path(word).name for word in child.cmdline()[:2])
        except psutil.Error:
            continue  # It has ended, perhaps unnoticed by its parent: then it runs nothing.


def _option(command: list[str], name: str) -> str | None:
    return next((value for word, value in pairwise(command) if word == name), None)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _end(process: "psutil.Process") -> None:
    import psutil

    process.terminate()
    deadline = time.monotonic() + 10
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > deadline:
            process.kill()
            return
        time.sleep(0.1)


def main(arguments: list[str]) -> int:
    """`python -m zk0.connections PROJECT`: what set-up calls."""
    try:
        if register(Path(arguments[0])):
            print(f"Registered {', '.join(GPUS_PER_CLIENT)} in {config_path()}.")
    except (Zk0Error, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
