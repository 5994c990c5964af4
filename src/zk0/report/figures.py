"""Figures as data: what a chart shows, the same as a table, and the same in a sentence."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from zk0.report.reading import Curve

Kind = Literal["line", "bars", "dots"]
SPOKEN = 8  # series that the sentence names


@dataclass(frozen=True)
class Dot:
    """A value at a place of the vertical axis, with its bounds where it has any."""

    row: int
    value: float
    low: float | None = None
    high: float | None = None

    @property
    def text(self) -> str:
        bounds = "" if self.low is None else f" [{self.low:.0f}, {self.high:.0f}]"
        return f"{number_text(self.value)}{bounds}"

    def to_json(self) -> list[float | None]:
        values = (self.value, self.low, self.high)
        return [self.row, *(None if each is None else _short(each) for each in values)]


@dataclass(frozen=True)
class Series:
    """One line of a chart, or one colour of its bars."""

    name: str
    points: Sequence[tuple[int, float]] = ()  # round, value
    colour: int = 0  # of the palette; -1 is the text's
    dashed: bool = False
    marks: bool = False  # points without a line
    dots: Sequence[Dot] = ()  # instead of points

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "colour": self.colour,
            "dashed": self.dashed,
            "marks": self.marks,
            "points": [[x, _short(y)] for x, y in self.points],
            "dots": [each.to_json() for each in self.dots],
        }


@dataclass(frozen=True)
class Figure:
    """A chart: `x` against `y`, both named with their unit."""

    id: str
    title: str
    y: str
    series: Sequence[Series]
    kind: Kind = "line"
    note: str = ""
    rows: Sequence[str] = ()  # what is on the vertical axis of dots
    top: float | None = None  # of the axis of values, where it is fixed
    small: bool = False  # one of several alike

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "kind": self.kind,
            "y": self.y,
            "rows": list(self.rows),
            "top": self.top,
            "small": self.small,
            "series": [each.to_json() for each in self.series],
        }

    @property
    def heading(self) -> list[str]:
        return ["" if self.kind == "dots" else "round", *(each.name for each in self.series)]

    @property
    def table(self) -> list[list[str]]:
        """A row for each round or row of dots; a cell for each series, empty without a value."""
        if self.kind == "dots":
            return [[name, *self._cells(row)] for row, name in enumerate(self.rows)]
        curves = [dict(each.points) for each in self.series]
        numbers = sorted({number for curve in curves for number in curve})
        return [[str(n), *(number_text(curve.get(n)) for curve in curves)] for n in numbers]

    def _cells(self, row: int) -> Iterator[str]:
        for series in self.series:
            yield "".join(each.text for each in series.dots if each.row == row)

    @property
    def label(self) -> str:
        """The chart in a sentence, for who does not see it."""
        if self.kind == "dots":
            parts = [f"{name}: {', '.join(self._named(cells))}" for name, *cells in self.table]
            return f"{self.title}, {self.y}. {'; '.join(parts)}."
        spoken = [f"{s.name}: {_course(s.points)}" for s in self.series[:SPOKEN]]
        more = len(self.series) - len(spoken)
        spoken += [f"and {more} more"] if more else []
        return f"{self.title}, {self.y}, by round. {'; '.join(spoken)}."

    def _named(self, cells: Sequence[str]) -> Iterator[str]:
        for series, cell in zip(self.series, cells, strict=True):
            if cell:
                yield f"{series.name} {cell}"

    def unless_single(self) -> "Figure":
        """Itself, or, where no line has more than one point, a row for each with a dot."""
        if not self.series or max(len(each.points) for each in self.series) > 1:
            return self
        number = self.series[0].points[0][0]
        values = [each.points[0][1] for each in self.series]
        dots = Series(self.y, dots=[Dot(row, value) for row, value in enumerate(values)])
        names = [each.name for each in self.series]
        title = f"{self.title}, round {number}"
        return replace(self, title=title, series=[dots], kind="dots", rows=names)


@dataclass(frozen=True)
class Section:
    """Charts under one heading; what is missing is said in `absent`."""

    id: str
    name: str  # in the list of sections
    title: str
    absent: str
    intro: str = ""
    figures: Sequence[Figure] = ()

    @property
    def legend(self) -> list[Series]:
        """Of small charts, which have none of their own: each name once."""
        small = [series for figure in self.figures if figure.small for series in figure.series]
        return list({series.name: series for series in small}.values())


def line(name: str, curve: Curve, place: int, dashed: bool = False) -> Series:
    """A series that has the colour of its place among others; beyond the palette it is dashed."""
    return Series(name, sorted(curve.items()), place % 6, dashed or place // 6 % 2 == 1)


def lines(curves: Mapping[str, Curve]) -> list[Series]:
    """Those that have a value, coloured by their place among all."""
    places = enumerate(curves.items())
    return [line(name, curve, place) for place, (name, curve) in places if curve]


def number_text(value: float | None) -> str:
    """Four digits that count."""
    return "" if value is None else f"{value:.4g}"


def _short(value: float) -> float:
    """Five digits are finer than a screen."""
    return float(f"{value:.5g}")


def _course(points: Sequence[tuple[int, float]]) -> str:
    first, last = points[0], points[-1]
    if len(points) == 1:
        return f"{number_text(first[1])} in round {first[0]}"
    return (
        f"{number_text(first[1])} in round {first[0]} to {number_text(last[1])} in round {last[0]}"
    )
