"""zk0's SuperLink connections: their entries in Flower's configuration.

`flwr run . NAME` looks NAME up in `$FLWR_HOME/config.toml` (default `~/.flwr/config.toml`), a file
that belongs to the user and serves all their Flower projects. zk0's entries are replaced in it as
text: Flower's own writer would drop the user's comments.

Set-up runs this module every time, so importing it costs nothing beyond the standard library.
"""

import os
import re
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from zk0.errors import Zk0Error

Table = dict[str, Any]

CPU = "local-simulation"
SHARED_GPU = "local-simulation-gpu"
SERIALIZED_GPU = "local-simulation-serialized-gpu"

# GPUs that one client claims. Ray only schedules by this figure: it caps no memory. A quarter lets
# four clients share a GPU; a whole one makes them train in turn.
GPUS_PER_CLIENT = {CPU: 0.0, SHARED_GPU: 0.25, SERIALIZED_GPU: 1.0}

LOCAL = ":local:"
NOTE = "# Written by zk0's set-up; copy it under another name to change it."


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
