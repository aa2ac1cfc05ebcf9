"""The live API as a LazyFrame: what a query does not need is not asked for.

Polars hands a scan the columns, the predicate and the number of rows that a query needs. The API can filter by one
company and by known statuses, and a newest-first walk can end at a created_at; whatever else a predicate says is
applied here, and polars' whole predicate always is, so a filter that is not understood costs requests, never rows.

A predicate is taken apart with public means only: popped into its inputs, put together again, and believed where
the result is equal to what was taken apart.
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
    """Every export job of the live API, lazily: a query asks the server only for what it needs.

    ``head(n)`` stops paging; ``status == …`` and ``is_in`` of known statuses, ``company_id == …`` and lower bounds of
    ``created_at`` travel to the server, alone or joined by ``&``; everything else is applied here. Each `collect`
    reads anew. Polars' streaming engine, its default, sees Ctrl-C when the list has come to its end;
    ``collect(engine="in-memory")`` stops at once, but reads all where a filter stays here and `head` could stop sooner.

    Args:
        client: server and credential; by default from the environment, when the query runs.
        deadline: seconds that each query may take, an hour by default; None for as long as it takes.

    Returns:
        A LazyFrame with the columns of `pleo_extract.COLUMNS`, in order of created_at and id where the server keeps
        that order.

    Raises:
        When the query runs, as `iter_export_jobs`.
    """
    check_amount("deadline", deadline)

    def read(
        columns: list[str] | None, predicate: pl.Expr | None, rows: int | None, _batch: int | None
    ) -> Iterator[pl.DataFrame]:
        # With both, `rows` counts rows before the predicate: then nothing may be left out.
        pushed = understand(predicate) if predicate is not None and rows is None else Pushed()
        left = rows
        for frame in _read(pushed, client, rows, deadline):
            some = frame if left is None else frame.head(left)
            left = None if left is None else left - some.height
            some = some if predicate is None else some.filter(predicate)
            yield some if columns is None else some.select(columns)
            if left is not None and left <= 0:
                return

    return register_io_source(read, schema=POLARS_SCHEMA, explain_name="pleo export jobs")


@dataclass(frozen=True, slots=True)
class Pushed:
    """What the server is asked for: None leaves it open; `nothing` means that no row can fit."""

    company_id: str | None = None
    statuses: frozenset[str] | None = None
    since: datetime | None = None
    nothing: bool = False

    def both(self, other: Pushed) -> Pushed:
        """What fits this and the other."""
        statuses = [each.statuses for each in (self, other) if each.statuses is not None]
        companies = {each.company_id for each in (self, other) if each.company_id is not None}
        common = frozenset.intersection(*statuses) if statuses else None
        return Pushed(
            company_id=next(iter(companies), None),
            statuses=common,
            since=max((each.since for each in (self, other) if each.since is not None), default=None),
            nothing=self.nothing or other.nothing or len(companies) > 1 or common == frozenset(),
        )


def _read(
    pushed: Pushed, client: Client | None, rows: int | None, deadline: float | None
) -> Iterator[pl.DataFrame]:
    if pushed.nothing or rows == 0:
        return iter([pl.DataFrame(schema=POLARS_SCHEMA)])
    wanted = check_wanted(pushed.company_id, sorted(pushed.statuses or ()), pushed.since, None)
    frames = stream_wanted(wanted, client, few=rows, deadline=deadline)
    if pushed.since is None:
        return frames
    newest_first = [pl.DataFrame(schema=POLARS_SCHEMA), *frames]
    return iter([pl.concat(newest_first).sort("created_at", "id")])


def understand(predicate: pl.Expr) -> Pushed:
    """What of a predicate the server can be asked for; nothing of what is not understood for certain."""
    if (parts := _split(predicate, lambda a, b: a & b)) is not None:
        return understand(parts[0]).both(understand(parts[1]))
    if (statuses := _statuses(predicate)) is not None:
        return Pushed(statuses=statuses)
    if (company := _equal(predicate, "company_id")) is not None:
        # Another spelling of a UUID is another text, and no row has it; a text that is none cannot be asked for.
        fits = isinstance(company, str) and uuid_problem(company) is None and company == company.lower()
        return Pushed(company_id=str(company)) if fits else Pushed()
    return Pushed(since=_lower_bound(predicate))


def _split(e: pl.Expr, join: Callable[[pl.Expr, pl.Expr], pl.Expr]) -> tuple[pl.Expr, pl.Expr] | None:
    """The two sides of an expression, if joining them gives it again."""
    inputs = e.meta.pop()
    if len(inputs) != 2:
        return None
    right, left = inputs
    return (left, right) if join(left, right).meta.eq(e) else None


def _statuses(e: pl.Expr) -> frozenset[str] | None:
    """The known statuses that this tests for, and nothing else; None where it tests for something else, or more."""
    if (parts := _split(e, lambda a, b: a | b)) is not None:
        left, right = map(_statuses, parts)
        return None if left is None or right is None else left | right
    one = _equal(e, "status")
    values = [one] if one is not None else _among(e, "status")
    if values is None or not all(isinstance(value, str) and value in STATUSES for value in values):
        return None
    return frozenset(values)


def _equal(e: pl.Expr, name: str) -> Any:
    """The value of ``col(name) == value``, either way round; None where it is something else."""
    parts = _split(e, lambda a, b: a == b)
    return None if parts is None else _value_beside(parts, name)


def _among(e: pl.Expr, name: str) -> list[Any] | None:
    """The values of ``col(name).is_in(values)``; None where it is something else."""
    inputs = e.meta.pop()
    if len(inputs) != 2 or not inputs[0].meta.is_literal() or not pl.col(name).is_in(inputs[0]).meta.eq(e):
        return None
    values = pl.select(inputs[0]).to_series()
    return values.explode().to_list() if isinstance(values.dtype, pl.List) else values.to_list()


_BOUNDS: Final[tuple[tuple[Callable[[Any, Any], pl.Expr], bool], ...]] = (
    (lambda a, b: a >= b, True),
    (lambda a, b: a > b, True),
    (lambda a, b: a <= b, False),
    (lambda a, b: a < b, False),
)


def _lower_bound(e: pl.Expr) -> datetime | None:
    """The instant that ``created_at`` must reach, from a comparison either way round."""
    for compare, column_first in _BOUNDS:
        parts = _split(e, compare)
        if parts is None or not parts[0 if column_first else 1].meta.eq(pl.col("created_at")):
            continue
        value = _value_beside(parts, "created_at")
        if isinstance(value, datetime) and has_zone(value):
            return value.astimezone(UTC)
    return None


def _value_beside(parts: tuple[pl.Expr, pl.Expr], name: str) -> Any:
    left, right = parts
    if left.meta.eq(pl.col(name)) and right.meta.is_literal():
        return pl.select(right).item()
    if right.meta.eq(pl.col(name)) and left.meta.is_literal():
        return pl.select(left).item()
    return None
