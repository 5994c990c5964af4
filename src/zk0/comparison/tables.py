"""Tables: headings and cells of text, as Markdown and on the terminal."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from zk0.comparison.rows import Row

COLOURS = {"better": "green", "worse": "red"}  # of verdicts


def estimate_table(rows: Sequence[Row]) -> list[list[str]]:
    """Headings, then a row for each metric; the best value between two asterisks each side."""
    table = [["metric", *rows[0].estimates]]
    for row in rows:
        cells = [
            f"**{cell}**" if label in row.best else cell
            for label, each in row.estimates.items()
            for cell in [row.family.interval(each.interval, each.count)]
        ]
        table.append([title(row.metric, row.family.shown), *cells])
    return table


def difference_table(rows: Sequence[Row]) -> list[list[str]]:
    """Headings, then for each metric the reference less each other group, and the verdict."""
    table = [["metric", *(f"less {each.other.label}" for each in rows[0].findings)]]
    for row in rows:
        plain = row.family.kind == "plain"
        cells = [
            row.family.interval(each.difference) + ("" if plain else f" {each.verdict}")
            for each in row.findings
        ]
        table.append([title(row.metric, row.family.shown_difference), *cells])
    return table


def title(metric: str, unit: str) -> str:
    return f"{metric} ({unit})" if unit else metric


def to_markdown(table: Sequence[Sequence[str]]) -> str:
    head, *body = ["| " + " | ".join(row) + " |" for row in table]
    return "\n".join([head, "|---" * len(table[0]) + "|", *body])


def to_rich(table: Sequence[Sequence[str]]) -> Table:
    """For the terminal; many columns get their bounds on a line of their own."""
    heading, *body = table
    made = Table(box=None, header_style="bold")
    for place, each in enumerate(heading):
        made.add_column(each, justify="right" if place else "left", overflow="fold")
    for row in body:
        made.add_row(*(_cell(text, narrow=len(heading) > 4) for text in row))
    return made


def _cell(text: str, narrow: bool) -> Text:
    plain = text.strip("*")
    strong = "bold" if plain != text else ""
    colour = COLOURS.get(plain.rpartition(" ")[2], "")
    return Text(plain.replace(" [", "\n[") if narrow else plain, style=f"{strong} {colour}".strip())
