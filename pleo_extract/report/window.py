"""The time that a report is about, and the length of the periods in its charts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Final

import polars as pl

from pleo_extract.zones import to_utc

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

__all__ = ["ReportPeriod", "choose_window", "read_bound"]

YEAR: Final = timedelta(days=365)
RECENT: Final = timedelta(days=30)
WEEK: Final = timedelta(days=7)
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
"""The rate of a period with fewer jobs means almost nothing, and has no control limit."""


@dataclass(frozen=True, slots=True)
class ReportPeriod:
    """The time that a report is about. All instants are in the time zone of the report.

    Attributes:
        since: when it begins.
        until: its end as the caller gave it; None for no bound.
        end: when it ends: `until`, or the instant as of which the data is true.
        grain: the length of the periods in charts: hour, day, week, month or year.
        recent: when the time range of the headline figures begins; it ends at `end`.
        before: when the time range begins with which these are compared. It is as long, and ends at `recent`. None if
            the lake does not reach back that far.
    """

    since: datetime
    until: datetime | None
    end: datetime
    grain: str
    recent: datetime
    before: datetime | None

    @property
    def is_over(self) -> bool:
        """Return whether it ends before the lake was last read, so that what is open now belongs to a later time."""
        return self.until is not None and self.end == self.until

    @property
    def last_days(self) -> datetime:
        """Return when the last seven days begin."""
        return self.end - WEEK

    @property
    def zone(self) -> str:
        """Return the name of the time zone."""
        return str(self.end.tzinfo)

    @property
    def last(self) -> datetime:
        """Return when the last period ends, complete or not."""
        return _align(self.end, self.grain, up=True)

    def is_whole(self) -> pl.Expr:
        """Return whether the report contains a row's whole period: an incomplete one can look like an incident."""
        return (pl.col("starts_at") >= self.literal(self.since)) & (
            pl.col("ends_at") <= self.literal(self.end)
        )

    def literal(self, instant: datetime) -> pl.Expr:
        """Return an instant to compare with those of a frame. Polars reads only UTC for certain where a clock repeats."""
        return pl.lit(instant.astimezone(UTC)).dt.convert_time_zone(self.zone)


def choose_window(
    now: datetime, first: datetime, jobs: int, *, since: datetime | None, until: datetime | None
) -> ReportPeriod:
    """Choose the time of a report, and the length of its periods.

    Without `since`, charts show the last year, or less if there is less data, and the headline figures are those of the
    last 30 days. With `since`, both begin there.

    Args:
        now: the instant as of which the data is true.
        first: the created_at of the first job.
        jobs: the number of jobs.
        since: where to begin; None for a year before the end.
        until: where to end; None for now.
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


def read_bound(value: date | datetime | None, name: str, zone: ZoneInfo) -> datetime | None:
    """Return a bound as an instant in `zone`. A date means its midnight there.

    Raises:
        UsageError: the instant has no time zone.
    """
    if value is None:
        return None
    if not isinstance(value, datetime):
        return datetime.combine(value, time(), zone)
    return to_utc(value, name).astimezone(zone)


def _choose_grain(span: timedelta, jobs: int) -> str:
    """Return the shortest grain with at most `MOST_PERIODS` periods that have `ENOUGH_JOBS` jobs on average.

    If none has enough jobs, return the longest that still gives `FEWEST_PERIODS`: one period alone is no chart.
    """
    periods = {
        grain: span / length for grain, (_, length) in _PERIODS.items() if span / length <= MOST_PERIODS
    }
    several = [grain for grain, n in periods.items() if n >= FEWEST_PERIODS] or [*periods, "year"][:1]
    return next((grain for grain in several if jobs / periods.get(grain, 1) >= ENOUGH_JOBS), several[-1])


def _align(instant: datetime, grain: str, *, up: bool) -> datetime:
    if grain == "hour":  # reckoned in UTC: where clocks are set back, 02:00 is two instants
        past = timedelta(minutes=instant.minute, seconds=instant.second, microseconds=instant.microsecond)
        begin = instant.astimezone(UTC) - past
        return (begin + timedelta(hours=1) if up and past else begin).astimezone(instant.tzinfo)
    every = _PERIODS[grain][0]
    local = pl.Series([instant.replace(tzinfo=None)])
    moved = local.dt.truncate(every)
    found: datetime = (moved.dt.offset_by(every) if up and moved[0] < local[0] else moved).item()
    return found.replace(tzinfo=instant.tzinfo)
