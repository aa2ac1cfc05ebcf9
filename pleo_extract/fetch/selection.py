"""What a caller wants of the list: which jobs, and therefore which walk."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

import polars as pl

from pleo_extract.contract import Query, instant_key
from pleo_extract.core.walk import BY_CREATION, NEWEST_FIRST, Walk
from pleo_extract.errors import UsageError
from pleo_extract.fetch.segments import narrow, read_list, read_walk
from pleo_extract.zones import assume_utc, to_utc

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from pleo_extract.client import Client, Session
    from pleo_extract.fetch.driver import Batch

__all__ = ["Instant", "Selection", "check_amount", "check_wanted"]

_log = logging.getLogger(__name__)

Instant = datetime | date | str


@dataclass(frozen=True, slots=True)
class Selection:
    """The jobs that a caller wants.

    Attributes:
        company_id: their company; None for all that the credential may see.
        statuses: their statuses; empty for all.
        since: the earliest created_at, inclusive.
        until: the latest created_at, exclusive.
    """

    company_id: str | None
    statuses: tuple[str, ...]
    since: datetime | None
    until: datetime | None

    def for_company_of(self, client: Client) -> Selection:
        """Return the same selection for the client's company, if the caller named none."""
        return replace(self, company_id=self.company_id or client.company_id)

    def start_reading(
        self, session: Session, segments: int, on_page: Callable[[Walk], None]
    ) -> tuple[list[Walk], Generator[Batch, None, None]]:
        """Return the walks that read the selection, and their batches; only a whole list is read in segments."""
        if self.since is None and not self.statuses:
            query = narrow(BY_CREATION, company_id=self.company_id)
            return read_list(session, query, segments=segments, on_page=on_page)
        walk = self.start_walk()
        return [walk], read_walk(session, walk, on_page)

    def start_walk(self, *, page: int | None = None) -> Walk:
        """Return the walk that reads the selection: ascending to the end, or with `since` newest first down to it.

        Args:
            page: the rows to ask for at a time; by default as many as suit the walk.
        """
        query = narrow(
            BY_CREATION if self.since is None else NEWEST_FIRST,
            company_id=self.company_id,
            statuses=self.statuses,
        )
        line = None if self.since is None else (instant_key(self.since), "")
        return Walk(replace(query, limit=page or query.limit), until=line, restarts=5 if self.statuses else 1)

    def filter(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Return the rows that belong to the selection. The server may ignore `statuses`, and knows no dates."""
        if self.statuses:
            frame = frame.filter(pl.col("status").is_in(self.statuses))
        if self.since is not None:
            frame = frame.filter(pl.col("created_at") >= self.since)
        if self.until is not None:
            frame = frame.filter(pl.col("created_at") < self.until)
        return frame


def check_wanted(
    company_id: str | None, statuses: Sequence[str] | None, since: Instant | None, until: Instant | None
) -> Selection:
    """Return what a caller wants as a selection. Warn of a `since` in the future, which usually is a mistyped year.

    Raises:
        UsageError: a status is unknown, the company_id is not a UUID, an instant has no zone, or the span is empty.
    """
    query = Query(company_id=company_id, statuses=statuses or ())
    low, high = _to_instant("since", since), _to_instant("until", until)
    if low is not None and high is not None and low >= high:
        raise UsageError(f"since ({low}) is not before until ({high})")
    if low is not None and low > datetime.now(
        UTC
    ):  # no error: clocks differ, and a server may date jobs ahead
        _log.warning(
            "since (%s) is in the future by this machine's clock, so there is hardly a job to read", low
        )
    return Selection(query.company_id, tuple(query.statuses), low, high)


def check_amount(name: str, value: float | None) -> None:
    """Raise UsageError if a limit, such as a deadline in seconds, is neither None nor a finite number above 0."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is not None and not (is_number and 0 < value < float("inf")):
        raise UsageError(f"{name} must be a number above 0, not {value!r}")


def _to_instant(name: str, value: Instant | None) -> datetime | None:
    """Return an argument as an instant in UTC; a day is its midnight.

    Raises:
        UsageError: it is neither, or has no time zone; the message calls it `name`.
    """
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        raise UsageError(
            f"{name} is neither a date nor an instant: {value!r}. Write 2026-11-01 or 2026-11-01T08:00:00Z"
        ) from None
    is_day = isinstance(value, str) and len(value) <= len("2026-11-01")
    if not isinstance(moment, date):
        raise UsageError(f"{name} is neither a date nor an instant: {value!r}")
    if not isinstance(moment, datetime):
        moment, is_day = datetime(moment.year, moment.month, moment.day), True  # noqa: DTZ001 - the zone follows
    return assume_utc(moment) if is_day else to_utc(moment, name)
