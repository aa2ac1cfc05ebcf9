"""Filters of a query that the server can be asked for: companies, and statuses that it knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyspark.sql.datasource import EqualNullSafe, EqualTo, In

from pleo_extract.contract import STATUSES, uuid_problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pyspark.sql.datasource import Filter

__all__ = ["companies_in", "statuses_in"]


def companies_in(filters: Iterable[Filter]) -> frozenset[str] | None:
    """The companies that a row must have to pass all filters; None where they leave it open.

    A text that is no canonical UUID is no row's company: it is left out, and Spark finds nothing for it.
    """
    found = _values(filters, "company_id")
    return None if found is None else frozenset(filter(_is_canonical, found))


def statuses_in(filters: Iterable[Filter]) -> frozenset[str] | None:
    """The statuses that a row must have to pass all filters; None where they leave it open.

    The server's filter knows fewer statuses than its rows may have: a test for another one is left to Spark.
    """
    known = [each for each in _each(filters, "status") if all(value in STATUSES for value in each)]
    return frozenset.intersection(*known) if known else None


def _values(filters: Iterable[Filter], column: str) -> frozenset[Any] | None:
    found = list(_each(filters, column))
    return frozenset.intersection(*found) if found else None


def _each(filters: Iterable[Filter], column: str) -> Iterable[frozenset[Any]]:
    for one in filters:
        if isinstance(one, EqualTo | EqualNullSafe | In) and one.attribute == (column,):
            values: Sequence[Any] = one.value if isinstance(one, In) else (one.value,)
            yield frozenset(values)


def _is_canonical(value: Any) -> bool:
    return uuid_problem(value) is None and value == value.lower()
