"""report.html: the record, drawn and written as one page.

Nothing in it comes from another host, and the page's own policy forbids it: scripts and styles are
those whose hashes it names. Text from the network (slugs, instructions, reasons) is escaped by the
template, and reaches scripts as data only.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from zk0.errors import cannot_write
from zk0.files import write_whole
from zk0.report import charts, facts
from zk0.report.against import compare_with
from zk0.report.films import find_films, in_rounds
from zk0.report.reading import Record, read_record

HERE = Path(__file__).parent
SCRIPTS = ("echarts.common.min.js", "report.js")
STYLE = "report.css"
NAME = "report.html"


def write_report(run: Path, others: Sequence[Path] = ()) -> Path:
    """Write `report.html` into the folder of `run`, whole or not at all, and return its path.

    The verdict compares it with `others`. Raises `Zk0Error` where `run` is no run's folder, is
    damaged, or cannot be written to; others that cannot be compared are named on the page.
    """
    page = render(read_record(run), others)
    path = run / NAME
    try:
        write_whole(path, page)
    except OSError as error:
        raise cannot_write(path, error) from error
    return path


def render(record: Record, others: Sequence[Path] = ()) -> str:
    """The page's HTML."""
    parts = charts.sections(record)
    figures = [figure.to_json() for part in parts for figure in part.figures]
    return _template().render(
        policy=_policy(),
        style=Markup(_asset(STYLE)),
        scripts=[Markup(_asset(name)) for name in SCRIPTS],
        data=_embed({"figures": figures, "last": record.last}),
        record=record,
        verdict=facts.judge(record),
        against=compare_with(record.path, others),
        key_figures=facts.key_figures(record),
        sections=parts,
        rules=facts.rules(record),
        incidents=facts.incidents(record),
        films=in_rounds(find_films(record.path)),
        settings=facts.settings(record, facts.defaults()),
    )


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("template.html.j2")


@cache
def _asset(name: str) -> str:
    return (HERE / "assets" / name).read_text(encoding="utf-8")


@cache
def _policy() -> str:
    """The Content-Security-Policy: videos beside the page, and what is inlined here."""
    scripts = " ".join(_hash(_asset(name)) for name in SCRIPTS)
    return (
        f"default-src 'none'; script-src {scripts}; style-src {_hash(_asset(STYLE))}; "
        "media-src 'self' file:; img-src data:; base-uri 'none'; form-action 'none'"
    )


def _hash(content: str) -> str:
    digest = hashlib.sha256(content.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _embed(content: Any) -> Markup:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e"))
