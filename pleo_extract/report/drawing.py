"""Charts as SVG that fits any width: paths stretch with the page, texts keep their size.

An outer `<svg>` places texts, grid lines and marks in percent of its width. An inner one contains the paths; it is `WIDTH`
units wide and stretches to the width of the page. Colours are classes of `page.css`, so that they follow light, dark and
print.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pleo_extract.report.axis import Axis

__all__ = ["HEIGHT", "Chart", "area", "bar_cell", "bars", "interval_cell", "line", "steps", "x_at", "y_at"]

WIDTH: Final = 1000
HEIGHT: Final = 200
X_LABELS_HEIGHT: Final = 24

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart. Its texts are HTML already.

    Attributes:
        name: an id, unique on the page.
        title: what the chart is about, for a screen reader.
        description: what can be seen in it, for a screen reader.
        x: the horizontal axis.
        y: the vertical axis.
        paths: `<path>` elements from back to front, in units of `WIDTH` and `HEIGHT`.
        over: elements above the paths, placed in percent and pixels: marks, labels and tooltips.
    """

    name: str
    title: str
    description: str
    x: Axis
    y: Axis
    paths: Sequence[str]
    over: Sequence[str] = ()

    def svg(self) -> str:
        """Return the `<svg>` element."""
        return (
            f'<svg class="chart" role="img" aria-labelledby="{self.name}-title {self.name}-description"'
            f' height="{HEIGHT + X_LABELS_HEIGHT}">'
            f'<title id="{self.name}-title">{self.title}</title><desc id="{self.name}-description">{self.description}</desc>'
            f"{''.join(self._grid())}"
            f'<svg width="100%" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none">'
            f"{''.join(self.paths)}</svg>"
            f"{''.join(self.over)}</svg>"
        )

    def _grid(self) -> Iterable[str]:
        for value, name in self.y.ticks:
            y = y_at(self.y.place(value))
            yield f'<line class="grid" x1="0" x2="100%" y1="{y}" y2="{y}"/>'
            yield f'<text class="tick end" x="-8" y="{y}" dy="4">{name}</text>'
        is_crowded = len(self.x.ticks) > 4
        for number, (value, name) in enumerate(self.x.ticks):
            place = self.x.place(value)
            kind = "tick" + (" end" if place > 0.97 else " mid" if place > 0.03 else "")
            kind += " spare" if is_crowded and number % 2 else ""
            yield f'<text class="{kind}" x="{x_at(place)}" y="{HEIGHT + 18}">{name}</text>'


def x_at(place: float) -> str:
    """Return a place on the x axis, from 0 to 1, in percent of the width."""
    return f"{100 * place:.2f}%"


def y_at(place: float) -> str:
    """Return a place on the y axis, from 0 to 1, in pixels from the top."""
    return f"{HEIGHT * (1 - place):.1f}"


def line(points: Iterable[Point | None], kind: str) -> str:
    """Draw a line with a gap where a point is missing. A single point is a short dash."""
    parts = [f"M{_join(run)}" + ("h6" if len(run) == 1 else "") for run in _split_at_gaps(points)]
    return f'<path class="{kind}" d="{"".join(parts)}"/>'


def steps(points: Sequence[Point], kind: str) -> str:
    """Draw a line of steps: each height continues until the next point."""
    return f'<path class="{kind}" d="M{_point(points[0])}{_step_commands(points[1:])}"/>'


def area(
    low: Sequence[Point | None], high: Sequence[Point | None], kind: str, *, stepped: bool = False
) -> str:
    """Fill the area between two lines over the same places."""
    parts = []
    for lower, upper in zip(_split_at_gaps(low), _split_at_gaps(high), strict=True):
        if stepped:
            back = "".join(f"V{_y(y)}H{_x(x)}" for x, y in lower[-2::-1])
            parts.append(f"M{_point(upper[0])}{_step_commands(upper[1:])}{back}Z")
        else:
            parts.append(f"M{_join(upper)}L{_join(lower[::-1])}Z")
    return f'<path class="{kind}" d="{"".join(parts)}"/>'


def bars(boxes: Iterable[tuple[float, float, float, float]], kind: str) -> str:
    """Draw boxes, each given as left, right, bottom and top."""
    parts = [
        f"M{_x(left)} {_y(top)}H{_x(right)}V{_y(bottom)}H{_x(left)}Z"
        for left, right, bottom, top in boxes
        if top > bottom
    ]
    return f'<path class="{kind}" d="{"".join(parts)}"/>'


def bar_cell(share: float) -> str:
    """Draw a bar in a table cell, as long as the share. It is hidden from screen readers: another cell has the number."""
    return f'<svg aria-hidden="true"><rect class="bar" y="3" width="{100 * share:.1f}%" height="12"/></svg>'


def interval_cell(places: Sequence[float], overall: float, kind: str) -> str:
    """Draw an interval in a table cell: low, middle and high, or nothing, and a line at the value of all together."""
    center = x_at(overall)
    shape = f'<line class="all" x1="{center}" x2="{center}" y1="-7" y2="25"/>'
    if places:
        low, middle, high = map(x_at, places)
        shape += (
            f'<line class="reach {kind}" x1="{low}" x2="{high}" y1="9" y2="9"/>'
            f'<circle class="dot {kind}" cx="{middle}" cy="9" r="4.5"/>'
        )
    return f'<svg aria-hidden="true">{shape}</svg>'


def _split_at_gaps(points: Iterable[Point | None]) -> list[list[Point]]:
    return [[p for p in run if p] for known, run in groupby(points, key=lambda p: p is not None) if known]


def _step_commands(points: Iterable[Point]) -> str:
    return "".join(f"H{_x(x)}V{_y(y)}" for x, y in points)


def _join(points: Iterable[Point]) -> str:
    return "L".join(map(_point, points))


def _point(point: Point) -> str:
    return f"{_x(point[0])} {_y(point[1])}"


def _x(place: float) -> str:
    return f"{WIDTH * place:.1f}"


def _y(place: float) -> str:
    return f"{HEIGHT * (1 - place):.1f}"
