"""Which stretch of time a report is about, and in which periods it shows it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final

import polars as pl

from pleo_extract.zones import to_utc

__all__ = ["ReportPeriod", "choose_window", "read_bound"]

YEAR: Final = timedelta(days=365)
RECENT: Final = timedelta(days=30)
_PERIODS: Final = {
    "hour": ("1h", timedelta(hours=1)),
    "day": ("1d", timedelta(days=1)),
    "week": ("1w", timedelta(days=7)),
    "month": ("1mo", timedelta(days=30)),
    "year": ("1y", timedelta(days=365)),
}
MOST_PERIODS: Final = 110
FEWEST_PERIODS: Final = 5
ENOUGH_JOBS: Final = 10
"""A period with fewer jobs has a rate that says next to nothing, and no control limit."""


@dataclass(frozen=True, slots=True)
class ReportPeriod:
    """The time a report is about (UTC).

    Attributes:
        since: when it begins. until: its end as it was asked for, None for all there is.
        end: when it ends: `until`, or as of when the data is true.
        grain: the length of the periods that charts show.
        recent: when the stretch of the headline figures begins; it ends with the window.
        before: when the stretch they are compared with begins, as long and just before; None where the lake
            does not reach so far back.
    """

    since: datetime
    until: datetime | None
    end: datetime
    grain: str
    recent: datetime
    before: datetime | None

    @property
    def every(self) -> str:
        """A period's length in Polars' words."""
        return _PERIODS[self.grain][0]

    @property
    def days(self) -> float:
        """Days in a period that charts count jobs in: 1 for hours, whose jobs are counted by the hour."""
        return 1.0 if self.grain == "hour" else _PERIODS[self.grain][1] / timedelta(days=1)

    @property
    def last(self) -> datetime:
        """When the last period ends, whole or not."""
        return _align(self.end, self.grain, up=True)

    def is_whole(self) -> pl.Expr:
        """Whether a row's `period` lies wholly in the window: a part of one looks like an event."""
        start = pl.col("period")
        return (start >= self.since.replace(tzinfo=None)) & (
            start.dt.offset_by(self.every) <= self.end.replace(tzinfo=None)
        )


def choose_window(
    now: datetime, first: datetime, jobs: int, *, since: datetime | None, until: datetime | None
) -> ReportPeriod:
    """The window of a report.

    Without `since` the charts show a year, or what there is of it, and the headline figures are those of the last
    30 days. With it, both show all from there on.

    Args:
        now: as of when the data is true.
        first: the first job's created_at.
        jobs: how many there are.
        since: where to begin, None for a year ago.
        until: where to end, None for now.
    """
    end = now if until is None else min(until, now)
    start = since or max(first, end - YEAR)
    span = max(end - start, timedelta(hours=1))
    grain = _choose_grain(span, jobs)
    if since is None:
        start = _align(start, grain, up=first < end - YEAR)
    recent = start if since or span < 2 * RECENT else end - RECENT
    before = recent - (end - recent)
    return ReportPeriod(start, until, end, grain, recent, before if first <= before else None)


def read_bound(value: date | datetime | None, name: str) -> datetime | None:
    """A bound as an instant: a date is its midnight, UTC.

    Raises:
        UsageError: an instant without a time zone.
    """
    if value is None:
        return None
    if not isinstance(value, datetime):
        return datetime.combine(value, time(), UTC)
    return to_utc(value, name)


def _choose_grain(span: timedelta, jobs: int) -> str:
    """The shortest period of which there are not too many, and in which there are enough jobs if that leaves a few."""
    few = {grain: span / length for grain, (_, length) in _PERIODS.items() if span / length <= MOST_PERIODS}
    several = [grain for grain, number in few.items() if number >= FEWEST_PERIODS] or [*few, "year"][:1]
    return next((grain for grain in several if jobs / few.get(grain, 1) >= ENOUGH_JOBS), several[-1])


def _align(instant: datetime, grain: str, *, up: bool) -> datetime:
    every = _PERIODS[grain][0]
    moved = pl.Series([instant]).dt.truncate(every)
    found: datetime = (moved.dt.offset_by(every) if up and moved[0] < instant else moved).item()
    return found
