"""Filter pushdown: the filters of a query that spare requests, on companies, known statuses and bounds of created_at."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from pyspark.sql.datasource import (
    EqualNullSafe,
    EqualTo,
    GreaterThan,
    GreaterThanOrEqual,
    In,
    LessThan,
    LessThanOrEqual,
)

from pleo_extract.contract import STATUSES, uuid_problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pyspark.sql.datasource import Filter

__all__ = ["bounds_in", "companies_in", "statuses_in"]


def companies_in(filters: Iterable[Filter]) -> frozenset[str] | None:
    """Return the companies that can pass all filters; None if the filters do not restrict the company.

    Texts that are not canonical UUIDs are left out: no row has such a company, so Spark finds nothing for them anyway.
    """
    found = list(_accepted_values(filters, "company_id"))
    return frozenset(filter(_is_canonical, frozenset.intersection(*found))) if found else None


def statuses_in(filters: Iterable[Filter]) -> frozenset[str] | None:
    """Return the statuses that can pass all filters; None if the filters do not restrict the status.

    Rows can have statuses that the server's filter does not know; a filter with such a status is left to Spark.
    """
    known = [each for each in _accepted_values(filters, "status") if all(value in STATUSES for value in each)]
    return frozenset.intersection(*known) if known else None


def bounds_in(filters: Iterable[Filter]) -> tuple[datetime | None, datetime | None]:
    """Return the span of created_at outside which no job passes all filters: its start, and its end, exclusive.

    None for a side that no filter bounds. The span may be wider than the filters, never narrower.
    """
    after = timedelta(microseconds=1)
    starts: list[datetime] = []
    ends: list[datetime] = []
    for one in filters:
        if not isinstance(one, GreaterThan | GreaterThanOrEqual | LessThan | LessThanOrEqual | EqualTo):
            continue
        if (
            one.attribute != ("created_at",)
            or not isinstance(one.value, datetime)
            or one.value.tzinfo is None
        ):
            continue
        if isinstance(one, GreaterThan | GreaterThanOrEqual | EqualTo):
            starts.append(one.value)
        if isinstance(one, LessThan | LessThanOrEqual | EqualTo):
            ends.append(one.value if isinstance(one, LessThan) else one.value + after)
    return max(starts, default=None), min(ends, default=None)


def _accepted_values(filters: Iterable[Filter], column: str) -> Iterable[frozenset[Any]]:
    """Yield the values that each filter on the column accepts."""
    for one in filters:
        if isinstance(one, EqualTo | EqualNullSafe | In) and one.attribute == (column,):
            values: Sequence[Any] = one.value if isinstance(one, In) else (one.value,)
            yield frozenset(values)


def _is_canonical(value: Any) -> bool:
    return uuid_problem(value) is None and value == value.lower()
