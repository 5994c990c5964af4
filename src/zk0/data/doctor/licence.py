"""What others may do with the data."""

import re
from collections.abc import Iterator

from zk0.data.doctor.findings import Finding
from zk0.data.doctor.recording import Recording

_MOST = 200_000  # characters of a README.md that are looked at
_FRONT = re.compile(r"\A\s*---\s*\n(.*?)\n---\s*(?:\n|\Z)", re.DOTALL)
_LICENCE = re.compile(r"^license:[ \t]*(\S.*?)[ \t]*$", re.MULTILINE)


def licence(recording: Recording) -> str | None:
    """The licence in the front matter of README.md; None where there is none."""
    try:
        with (recording.root / "README.md").open(encoding="utf-8", errors="replace") as file:
            front = _FRONT.match(file.read(_MOST))
    except OSError:
        return None
    named = _LICENCE.search(front[1]) if front else None
    return named[1].strip("\"'") or None if named else None


def check_licence(recording: Recording) -> Iterator[Finding]:
    if licence(recording) is None:
        yield recording.finding(
            "licence",
            "note",
            "README.md names no licence: nobody knows what they may do with the data.",
            'Add "license: apache-2.0", or another, to the front matter of README.md.',
        )
