"""Charts as SVG that fits any width: what is drawn stretches with the page, what is written keeps its size.

An outer `<svg>` places texts, grid lines and marks by per cent; an inner one, `WIDE` units wide whatever the page
is, holds the paths. Colours are classes of `page.css`, so that they follow light, dark and paper.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pleo_extract.report.axis import Axis

__all__ = ["HEIGHT", "Chart", "across", "area", "bar_cell", "bars", "down", "interval_cell", "line", "steps"]

WIDE: Final = 1000
HEIGHT: Final = 200
ROOM_BELOW: Final = 24

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart: its axes, its paths from back to front, and what lies over them. Texts are HTML already.

    Attributes:
        name: an id, unique on the page.
        title: what it shows, for those who do not see it. description: what there is to see in it.
        x, y: the axes.
        paths: `<path>` elements in units of `WIDE` and `HEIGHT`.
        over: elements placed by per cent and pixels: marks, labels, and what shows when pointed at.
    """

    name: str
    title: str
    description: str
    x: Axis
    y: Axis
    paths: Sequence[str]
    over: Sequence[str] = ()

    def svg(self) -> str:
        """The `<svg>` element."""
        return (
            f'<svg class="chart" role="img" aria-labelledby="{self.name}-title {self.name}-told"'
            f' height="{HEIGHT + ROOM_BELOW}">'
            f'<title id="{self.name}-title">{self.title}</title><desc id="{self.name}-told">{self.description}</desc>'
            f"{''.join(self._grid())}"
            f'<svg width="100%" height="{HEIGHT}" viewBox="0 0 {WIDE} {HEIGHT}" preserveAspectRatio="none">'
            f"{''.join(self.paths)}</svg>"
            f"{''.join(self.over)}</svg>"
        )

    def _grid(self) -> Iterable[str]:
        for value, name in self.y.ticks:
            y = down(self.y.place(value))
            yield f'<line class="grid" x1="0" x2="100%" y1="{y}" y2="{y}"/>'
            yield f'<text class="tick end" x="-8" y="{y}" dy="4">{name}</text>'
        crowded = len(self.x.ticks) > 4
        for number, (value, name) in enumerate(self.x.ticks):
            place = self.x.place(value)
            kind = "tick" + (" end" if place > 0.97 else " mid" if place > 0.03 else "")
            kind += " spare" if crowded and number % 2 else ""
            yield f'<text class="{kind}" x="{across(place)}" y="{HEIGHT + 18}">{name}</text>'


def across(place: float) -> str:
    """A place on the x axis, in per cent of the width."""
    return f"{100 * place:.2f}%"


def down(place: float) -> str:
    """A place on the y axis, in pixels from above."""
    return f"{HEIGHT * (1 - place):.1f}"


def line(points: Iterable[Point | None], kind: str) -> str:
    """A line, broken where a point is missing; one point alone is a short dash."""
    parts = [f"M{_join(run)}" + ("h6" if len(run) == 1 else "") for run in _runs(points)]
    return f'<path class="{kind}" d="{"".join(parts)}"/>'


def steps(points: Sequence[Point], kind: str) -> str:
    """A line of steps: each height holds until the next point."""
    return f'<path class="{kind}" d="M{_at(points[0])}{_stairs(points[1:])}"/>'


def area(
    low: Sequence[Point | None], high: Sequence[Point | None], kind: str, *, stepped: bool = False
) -> str:
    """What lies between two lines over the same places."""
    parts = []
    for lower, upper in zip(_runs(low), _runs(high), strict=True):
        if stepped:
            back = "".join(f"V{_y(y)}H{_x(x)}" for x, y in lower[-2::-1])
            parts.append(f"M{_at(upper[0])}{_stairs(upper[1:])}{back}Z")
        else:
            parts.append(f"M{_join(upper)}L{_join(lower[::-1])}Z")
    return f'<path class="{kind}" d="{"".join(parts)}"/>'


def bars(boxes: Iterable[tuple[float, float, float, float]], kind: str) -> str:
    """Boxes, each from left to right and from bottom to top."""
    parts = [
        f"M{_x(left)} {_y(top)}H{_x(right)}V{_y(bottom)}H{_x(left)}Z"
        for left, right, bottom, top in boxes
        if top > bottom
    ]
    return f'<path class="{kind}" d="{"".join(parts)}"/>'


def bar_cell(share: float) -> str:
    """A bar the size of a cell, as long as the share; the number stands in a cell beside it."""
    return f'<svg aria-hidden="true"><rect class="bar" y="3" width="{100 * share:.1f}%" height="12"/></svg>'


def interval_cell(places: Sequence[float], overall: float, kind: str) -> str:
    """A point in its interval (low, middle, high; nothing where there is none), and where all together are."""
    line = across(overall)
    shape = f'<line class="all" x1="{line}" x2="{line}" y1="-7" y2="25"/>'
    if places:
        low, middle, high = map(across, places)
        shape += (
            f'<line class="reach {kind}" x1="{low}" x2="{high}" y1="9" y2="9"/>'
            f'<circle class="dot {kind}" cx="{middle}" cy="9" r="4.5"/>'
        )
    return f'<svg aria-hidden="true">{shape}</svg>'


def _runs(points: Iterable[Point | None]) -> list[list[Point]]:
    return [[p for p in run if p] for known, run in groupby(points, key=lambda p: p is not None) if known]


def _stairs(points: Iterable[Point]) -> str:
    return "".join(f"H{_x(x)}V{_y(y)}" for x, y in points)


def _join(points: Iterable[Point]) -> str:
    return "L".join(map(_at, points))


def _at(point: Point) -> str:
    return f"{_x(point[0])} {_y(point[1])}"


def _x(place: float) -> str:
    return f"{WIDE * place:.1f}"


def _y(place: float) -> str:
    return f"{HEIGHT * (1 - place):.1f}"
