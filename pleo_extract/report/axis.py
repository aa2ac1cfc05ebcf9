"""Axes: the place of a value, from 0 to 1, and the values that have a label."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import polars as pl

from pleo_extract.report.words import duration, percent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

__all__ = ["Axis", "count_axis", "duration_axis", "share_axis", "time_axis"]

_DURATIONS: Final = (
    0.1, 1, 10, 60, 600, 3_600, 21_600, 86_400, 604_800, 2_592_000, 31_536_000, 315_360_000,
)  # fmt: skip
_STEPS: Final = (
    "1h",
    "3h",
    "6h",
    "12h",
    "1d",
    "2d",
    "1w",
    "2w",
    "1mo",
    "2mo",
    "3mo",
    "6mo",
    "1y",
    "2y",
    "10y",
)
MOST_TICKS: Final = 7


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis from `low` to `high`.

    Attributes:
        low: the value at its beginning.
        high: the value at its end.
        ticks: the values that have a label, each with its label.
        scale: what its places are proportional to: the value, or its logarithm.
    """

    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    scale: Callable[[float], float] = float

    def place(self, value: float) -> float:
        """Return the place of a value, from 0 to 1; a value outside the axis is at its end."""
        low, high = self.scale(self.low), self.scale(self.high)
        return (self.scale(min(max(value, self.low), self.high)) - low) / (high - low)


def share_axis(highest: float) -> Axis:
    """Return an axis of shares from 0 to a round value that is at least `highest`, but at most 1."""
    step, ticks = _round_steps(min(max(highest, 0.02), 1.0))
    digits = 0 if round(100 * step, 6).is_integer() else 1
    return Axis(0.0, min(ticks[-1], 1.0), [(tick, percent(tick, digits)) for tick in ticks if tick <= 1])


def count_axis(highest: float) -> Axis:
    """Return an axis of counts from 0 to a round value that is at least `highest`."""
    _, ticks = _round_steps(max(highest, 1.0))
    return Axis(0.0, ticks[-1], [(tick, f"{tick:,g}") for tick in ticks])


def duration_axis(lowest: float, highest: float, *, snug: bool = False) -> Axis:
    """Return a logarithmic axis of durations in seconds, which begins and ends at a duration of `_DURATIONS`.

    A shorter duration is at its beginning. A `snug` axis ends at `highest` instead.
    """
    above = (n for n, each in enumerate(_DURATIONS) if n and each >= highest)
    last = next(above, len(_DURATIONS) - 1)
    below = [n for n, each in enumerate(_DURATIONS[:last]) if each <= max(lowest, _DURATIONS[0])]
    first = below[-1]
    ticks = [(float(each), duration(each)) for each in _DURATIONS[first : last + 1]]
    if snug and highest > ticks[0][0]:
        return Axis(ticks[0][0], highest, [tick for tick in ticks if tick[0] <= highest], math.log10)
    return Axis(ticks[0][0], ticks[-1][0], ticks, math.log10)


def time_axis(since: datetime, until: datetime) -> Axis:
    """Return an axis of instants, in seconds since 1970, with at most `MOST_TICKS` starts of hours, days, weeks, months or years."""
    span = pl.Series([each.replace(tzinfo=None) for each in (since, until)])
    low, high = since.timestamp(), until.timestamp()
    step = next(
        step for step in _STEPS if len(_period_starts(span, step)) <= MOST_TICKS or step == _STEPS[-1]
    )
    ticks = _period_starts(span, step)
    places = (tick.replace(tzinfo=since.tzinfo).timestamp() for tick in ticks)
    labels = _label_starts(ticks, step)
    return Axis(low, max(high, low + 1), list(zip(places, labels, strict=True)))


def _period_starts(span: pl.Series, step: str) -> pl.Series:
    found = pl.datetime_range(span.dt.truncate(step)[0], span[1], step, time_unit="us", eager=True)
    return found.filter(found >= span[0])


def _label_starts(ticks: pl.Series, step: str) -> list[str]:
    """Return the labels of instants: hours with a date at the first and at midnight, months with a year at the first and in January."""
    kind = step.lstrip("0123456789")
    short, long, starts = {
        "h": ("%H:%M", "%-d %b", ticks.dt.hour() == 0),
        "mo": ("%b", "%b %Y", ticks.dt.month() == 1),
        "y": ("%Y", "%Y", ticks.dt.month() == 1),
    }.get(kind, ("%-d %b", "%-d %b", ticks.dt.month() == 1))
    named = zip(ticks.dt.strftime(short), ticks.dt.strftime(long), starts, strict=True)
    return [full if first or number == 0 else brief for number, (brief, full, first) in enumerate(named)]


def _round_steps(highest: float) -> tuple[float, list[float]]:
    """Return a round step, and its multiples from 0 to at least `highest`: four or five steps."""
    power = 10 ** math.floor(math.log10(highest / 4))
    step = next(each * power for each in (1, 2, 2.5, 5, 10) if each * power * 5 >= highest)
    return step, [round(n * step, 10) for n in range(math.ceil(highest / step - 1e-9) + 1)]
