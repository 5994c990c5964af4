"""docs/configuration.md, from pyproject.toml's comments and the ranges that zk0.config checks.

.venv/bin/python scripts/make_reference.py
"""

import re
from pathlib import Path

from zk0.config import describe_range, read_pyproject

PROJECT = Path(__file__).resolve().parents[1]
PAGE = PROJECT / "docs" / "configuration.md"
LINE = re.compile(r"^([a-z0-9-]+) = (.+?)\s+# (.+)$")
OPENING = """\
# Configuration

Made by `scripts/make_reference.py` from pyproject.toml, where every key stands with its default in
`[tool.flwr.app.config]`; do not edit by hand. A run overrides keys:

```bash
./train-fl-simulation.sh --run-config "num-server-rounds=3 local-steps=20"
```

`zk0 config check` names a wrong key and the nearest right one, and prints what a run would use.
What is trained on and evaluated on stands in `[tool.zk0.datasets]`, log levels in
`[tool.zk0.logging]`.

| key | default | takes | meaning |
|---|---|---|---|
"""


def main() -> None:
    PAGE.write_text(make_page())


def make_page() -> str:
    lines = (PROJECT / "pyproject.toml").read_text().splitlines()
    found = {line[1]: line for line in map(LINE.match, lines) if line}
    declared = read_pyproject(PROJECT)["tool"]["flwr"]["app"]["config"]
    return OPENING + "".join(make_row(found[key]) for key in declared)


def make_row(line: re.Match[str]) -> str:
    key, default, meaning = line.groups()
    cells = (f"`{key}`", f"`{default}`", describe_range(key), escape(meaning))
    return f"| {' | '.join(cells)} |\n"


def escape(text: str) -> str:
    """Marks of Markdown as themselves."""
    return re.sub(r"([|*_<>])", r"\\\1", text)


if __name__ == "__main__":
    main()
