"""The live API as a LazyFrame that asks the server only for what a query needs (pushdown).

Polars hands a scan the columns, the predicate and the number of rows that a query needs. The API can filter by one
company and by known statuses, and a newest-first walk can end at a created_at. The whole predicate is applied here as
well: so a filter that is not understood costs requests, but never changes rows.

Polars offers no public way to inspect an expression. So a predicate is popped into its inputs and put together again, and
only if the result equals the original it is what we took it for.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import polars as pl
from polars.io.plugins import register_io_source

from pleo_extract.contract import POLARS_SCHEMA, STATUSES, uuid_problem
from pleo_extract.fetch.iterate import stream_wanted
from pleo_extract.fetch.load import DEADLINE
from pleo_extract.fetch.selection import check_amount, check_wanted
from pleo_extract.keywords import check_keywords
from pleo_extract.zones import has_zone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pleo_extract.client import Client

__all__ = ["Pushed", "scan_export_jobs", "understand"]


@check_keywords
def scan_export_jobs(*, client: Client | None = None, deadline: float | None = DEADLINE) -> pl.LazyFrame:
    """Return every export job of the live API as a LazyFrame that asks the server only for what a query needs.

    ``head(n)`` stops paging. These filters travel to the server, alone or joined by ``&``: ``status == …`` and ``is_in``
    with known statuses, ``company_id == …``, and lower bounds of ``created_at``. Everything else is applied here. Each
    `collect` reads the list again. Polars' streaming engine, its default, notices Ctrl-C only at the end of the list;
    ``collect(engine="in-memory")`` stops immediately, but reads the whole list when a filter stays here and `head` could
    stop sooner.

    Args:
        client: server and credential; by default from the environment, when the query runs.
        deadline: seconds that each query may take, an hour by default; None for no limit.

    Returns:
        A LazyFrame with the columns of `pleo_extract.COLUMNS`, in order of created_at and id if the server keeps that
        order.

    Raises:
        UsageError: the deadline cannot be used.
        PleoExtractError: when the query runs, as `iter_export_jobs`.
    """
    check_amount("deadline", deadline)

    def read(
        columns: list[str] | None, predicate: pl.Expr | None, rows: int | None, _batch: int | None
    ) -> Iterator[pl.DataFrame]:
        # With both, `rows` counts rows before the predicate is applied: then the server must not leave any out.
        pushed = understand(predicate) if predicate is not None and rows is None else Pushed()
        left = rows
        for frame in _stream_pushed(pushed, client, rows, deadline):
            part = frame if left is None else frame.head(left)
            left = None if left is None else left - part.height
            part = part if predicate is None else part.filter(predicate)
            yield part if columns is None else part.select(columns)
            if left is not None and left <= 0:
                return

    return register_io_source(read, schema=POLARS_SCHEMA, explain_name="pleo export jobs")


@dataclass(frozen=True, slots=True)
class Pushed:
    """What the server is asked to filter.

    Attributes:
        company_id: the company; None for any.
        statuses: the statuses; None for any.
        since: the earliest created_at; None for any.
        nothing: whether no row can match, so that there is nothing to ask.
    """

    company_id: str | None = None
    statuses: frozenset[str] | None = None
    since: datetime | None = None
    nothing: bool = False

    def intersect(self, other: Pushed) -> Pushed:
        """Return what matches both this and the other."""
        statuses = [each.statuses for each in (self, other) if each.statuses is not None]
        companies = {each.company_id for each in (self, other) if each.company_id is not None}
        common = frozenset.intersection(*statuses) if statuses else None
        return Pushed(
            company_id=next(iter(companies), None),
            statuses=common,
            since=max((each.since for each in (self, other) if each.since is not None), default=None),
            nothing=self.nothing or other.nothing or len(companies) > 1 or common == frozenset(),
        )


def _stream_pushed(
    pushed: Pushed, client: Client | None, rows: int | None, deadline: float | None
) -> Iterator[pl.DataFrame]:
    """Yield the rows that the server gives for these filters, in ascending order; at least `rows` of them, if given."""
    if pushed.nothing or rows == 0:
        return iter([pl.DataFrame(schema=POLARS_SCHEMA)])
    wanted = check_wanted(pushed.company_id, sorted(pushed.statuses or ()), pushed.since, None)
    frames = stream_wanted(wanted, client, few=rows, deadline=deadline)
    if pushed.since is None:
        return frames
    newest_first = [pl.DataFrame(schema=POLARS_SCHEMA), *frames]
    return iter([pl.concat(newest_first).sort("created_at", "id")])


def understand(predicate: pl.Expr) -> Pushed:
    """Return what the server can filter of this predicate; only what is understood for certain."""
    if (parts := _split(predicate, lambda a, b: a & b)) is not None:
        return understand(parts[0]).intersect(understand(parts[1]))
    if (statuses := _parse_statuses(predicate)) is not None:
        return Pushed(statuses=statuses)
    if (company := _parse_equal(predicate, "company_id")) is not None:
        # The server takes a UUID in capitals for the same company, but here it is another text, which no row has. And it
        # refuses a text that is not a UUID.
        is_canonical = (
            isinstance(company, str) and uuid_problem(company) is None and company == company.lower()
        )
        return Pushed(company_id=str(company)) if is_canonical else Pushed()
    return Pushed(since=_parse_lower_bound(predicate))


def _split(e: pl.Expr, join: Callable[[pl.Expr, pl.Expr], pl.Expr]) -> tuple[pl.Expr, pl.Expr] | None:
    """Return the two sides of an expression if joining them gives the same expression again, else None."""
    inputs = e.meta.pop()
    if len(inputs) != 2:
        return None
    right, left = inputs
    return (left, right) if join(left, right).meta.eq(e) else None


def _parse_statuses(e: pl.Expr) -> frozenset[str] | None:
    """Return the known statuses that this expression selects; None if it tests anything else."""
    if (parts := _split(e, lambda a, b: a | b)) is not None:
        left, right = map(_parse_statuses, parts)
        return None if left is None or right is None else left | right
    value = _parse_equal(e, "status")
    values = [value] if value is not None else _parse_is_in(e, "status")
    if values is None or not all(isinstance(each, str) and each in STATUSES for each in values):
        return None
    return frozenset(values)


def _parse_equal(e: pl.Expr, name: str) -> Any:
    """Return the value of ``col(name) == value``, in either order; None for any other expression."""
    parts = _split(e, lambda a, b: a == b)
    return None if parts is None else _other_side(parts, name)


def _parse_is_in(e: pl.Expr, name: str) -> list[Any] | None:
    """Return the values of ``col(name).is_in(values)``; None for any other expression."""
    inputs = e.meta.pop()
    if len(inputs) != 2 or not inputs[0].meta.is_literal() or not pl.col(name).is_in(inputs[0]).meta.eq(e):
        return None
    values = pl.select(inputs[0]).to_series()
    return values.explode().to_list() if isinstance(values.dtype, pl.List) else values.to_list()


_COMPARISONS: Final[tuple[tuple[Callable[[Any, Any], pl.Expr], bool], ...]] = (
    (lambda a, b: a >= b, True),
    (lambda a, b: a > b, True),
    (lambda a, b: a <= b, False),
    (lambda a, b: a < b, False),
)
"""Comparisons, each with whether the column stands on the left when the comparison is a lower bound of it."""


def _parse_lower_bound(e: pl.Expr) -> datetime | None:
    """Return the instant of ``created_at >= instant`` or ``>``, in either order; None for any other expression."""
    for compare, column_first in _COMPARISONS:
        parts = _split(e, compare)
        if parts is None or not parts[0 if column_first else 1].meta.eq(pl.col("created_at")):
            continue
        value = _other_side(parts, "created_at")
        if isinstance(value, datetime) and has_zone(value):
            return value.astimezone(UTC)
    return None


def _other_side(parts: tuple[pl.Expr, pl.Expr], name: str) -> Any:
    """Return the literal beside this column; None if the two sides are anything else."""
    left, right = parts
    if left.meta.eq(pl.col(name)) and right.meta.is_literal():
        return pl.select(right).item()
    if right.meta.eq(pl.col(name)) and left.meta.is_literal():
        return pl.select(left).item()
    return None
