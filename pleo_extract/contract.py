"""The contract of GET /v3/export-jobs as declarations: what may be asked, what a job is, what a page says.

`FIELDS` is the one declaration from which the Polars, Arrow and DuckDB schemas, the decoder and the
documentation are computed. Source: Pleo's OpenAPI document, Export API 32.4.0, operation getExportJobsListV3.

Rules of this room: facts only. Nothing is sent, read or waited for here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Literal

import polars as pl

from pleo_extract.errors import UsageError, escape

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "COLUMNS",
    "DUCKDB_SCHEMA",
    "EXTRA",
    "FIELDS",
    "KEY",
    "PATH",
    "POLARS_SCHEMA",
    "SERVERS",
    "STATUSES",
    "TERMINAL",
    "UUID",
    "Field",
    "Key",
    "PageInfo",
    "PageOrder",
    "Query",
    "canonical_uuid",
    "instant_key",
    "is_cursor",
    "parse_instant_key",
    "uuid_problem",
]

PATH: Final = "/v3/export-jobs"
SERVERS: Final = {
    "production": "https://external.pleo.io",
    "staging": "https://external.staging.pleo.io",
}
STATUSES: Final = ("pending", "in_progress", "failed", "completed", "completed_with_errors")
TERMINAL: Final = ("failed", "completed", "completed_with_errors")
"""Statuses in which a job is settled. Every other one, unknown ones included, may still change."""

UUID: Final = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}", re.ASCII)
_CURSOR: Final = re.compile(r"[A-Z2-7=~]+", re.ASCII)

Kind = Literal["uuid", "text", "instant", "int32", "int64", "bool", "json"]

_POLARS: Final[dict[Kind, pl.DataType]] = {
    "uuid": pl.String(),
    "text": pl.String(),
    "json": pl.String(),
    "instant": pl.Datetime("us", "UTC"),
    "int32": pl.Int32(),
    "int64": pl.Int64(),
    "bool": pl.Boolean(),
}
_DUCKDB: Final[dict[Kind, str]] = {
    "uuid": "VARCHAR",
    "text": "VARCHAR",
    "json": "VARCHAR",
    "instant": "TIMESTAMP WITH TIME ZONE",
    "int32": "INTEGER",
    "int64": "BIGINT",
    "bool": "BOOLEAN",
}


@dataclass(frozen=True, slots=True)
class Field:
    """One field of ExportJobV3 and the column it becomes.

    `name` is the contract's, `column` ours; `required` means present and not null. `note` is the documentation.
    """

    name: str
    column: str
    kind: Kind
    required: bool
    note: str


FIELDS: Final = (
    Field("id", "id", "uuid", required=True, note="The job; one job is one attempt, a retry is a new job"),
    Field("companyId", "company_id", "uuid", required=True, note="The company the job belongs to"),
    Field(
        "status",
        "status",
        "text",
        required=True,
        note="pending, in_progress, failed, completed, completed_with_errors, or newer",
    ),
    Field(
        "createdAt",
        "created_at",
        "instant",
        required=True,
        note="When the export was asked for; never changes",
    ),
    Field("startedAt", "started_at", "instant", required=False, note="When it became in_progress"),
    Field("completedAt", "completed_at", "instant", required=False, note="When it was completed"),
    Field("expiredAt", "expired_at", "instant", required=False, note="When it expired"),
    Field("lastUpdatedAt", "last_updated_at", "instant", required=False, note="The last action on the job"),
    Field(
        "expiresIn",
        "expires_in",
        "int32",
        required=True,
        note="Seconds until it expires, counted from the last action",
    ),
    Field(
        "createdBy",
        "created_by",
        "uuid",
        required=False,
        note="The user who asked for it; null for the system",
    ),
    Field(
        "isInteractive",
        "is_interactive",
        "bool",
        required=True,
        note="Asked for by a user (true) or by the system (false)",
    ),
    Field(
        "numberOfItems",
        "number_of_items",
        "int64",
        required=True,
        note="Accounting entries chosen for the export",
    ),
    Field(
        "vendorBasedBookkeeping",
        "vendor_based_bookkeeping",
        "bool",
        required=True,
        note="Items carry vendor and bookkeeping data",
    ),
    Field(
        "failureReasonType",
        "failure_reason_type",
        "text",
        required=False,
        note="The kind of failure, an open set",
    ),
    Field("failureReason", "failure_reason", "text", required=False, note="The failure in words"),
)
EXTRA: Final = Field(
    "",
    "extra",
    "json",
    required=False,
    note="Fields the contract does not know, as JSON text; null when there is none",
)

COLUMNS: Final = tuple(field.column for field in (*FIELDS, EXTRA))
KEY: Final = ("company_id", "id")
"""What makes a row one row."""
POLARS_SCHEMA: Final = pl.Schema({field.column: _POLARS[field.kind] for field in (*FIELDS, EXTRA)})
DUCKDB_SCHEMA: Final = {field.column: _DUCKDB[field.kind] for field in (*FIELDS, EXTRA)}


class PageOrder(StrEnum):
    """The contract's PageOrder: one for each sorting key."""

    ASC = "ASC"
    ASC_NULLS_FIRST = "ASC_NULLS_FIRST"
    ASC_NULLS_LAST = "ASC_NULLS_LAST"
    DESC = "DESC"
    DESC_NULLS_FIRST = "DESC_NULLS_FIRST"
    DESC_NULLS_LAST = "DESC_NULLS_LAST"


_ORDERS: Final = frozenset(PageOrder)


def is_cursor(text: object) -> bool:
    """Whether this is a cursor by the contract's pattern, ``^[A-Z2-7=~]+$``."""
    return isinstance(text, str) and _CURSOR.fullmatch(text) is not None


def uuid_problem(text: object) -> str | None:
    """Why this is no UUID (8-4-4-4-12 hexadecimal digits, either case), or None if it is one."""
    if isinstance(text, str) and UUID.fullmatch(text):
        return None
    return (
        f"not a UUID: {escape(text, 50)!r}" if isinstance(text, str) else f"not a UUID: {type(text).__name__}"
    )


def canonical_uuid(text: object, *, what: str = "company_id") -> str:
    """The UUID in lower case.

    Raises:
        UsageError: it is missing (None), or not 8-4-4-4-12 hexadecimal digits.
    """
    if text is None:
        raise UsageError(f"{what} is missing. Give it as 8-4-4-4-12 hexadecimal digits")
    if problem := uuid_problem(text):
        raise UsageError(f"{what} is {problem}. Give it as 8-4-4-4-12 hexadecimal digits")
    return str(text).lower()


@dataclass(frozen=True, slots=True)
class Query:
    """One request of the list, with every parameter the endpoint has, checked before anything is sent.

    Attributes:
        company_id: UUID; the company whose jobs are wanted (canonical lower case once made).
        statuses: known statuses; none means all. Lists become tuples.
        before: cursor; rows preceding it.
        after: cursor; rows following it. `before`, `after` and `offset` exclude each other.
        offset: rows to skip, 0 to 2^63-1.
        limit: rows wanted, 0 to 2^31-1; the server may give fewer.
        sorting_keys: fields to sort by, as the API names them (``createdAt``, ``id``).
        sorting_order: one PageOrder for each key.

    Raises:
        UsageError: anything the contract does not allow.
    """

    company_id: str | None = None
    statuses: Sequence[str] = ()
    before: str | None = None
    after: str | None = None
    offset: int | None = None
    limit: int | None = None
    sorting_keys: Sequence[str] = ()
    sorting_order: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.company_id is not None:
            object.__setattr__(self, "company_id", canonical_uuid(self.company_id))
        for name in ("statuses", "sorting_keys", "sorting_order"):
            object.__setattr__(self, name, _texts(name, getattr(self, name)))
        _check_statuses(self.statuses)
        _check_position(self.before, self.after, self.offset)
        _check_range("offset", self.offset, 2**63 - 1)
        _check_range("limit", self.limit, 2**31 - 1)
        _check_sorting(self.sorting_keys, self.sorting_order)

    def params(self) -> list[tuple[str, str]]:
        """The query string's pairs, repeated for lists (``style: form, explode: true``), in the contract's order."""
        single = (
            ("before", self.before),
            ("after", self.after),
            ("offset", self.offset),
            ("limit", self.limit),
        )
        return [
            *([("company_id", self.company_id)] if self.company_id is not None else []),
            *(("statuses", status) for status in self.statuses),
            *((name, str(value)) for name, value in single if value is not None),
            *(("sorting_keys", key) for key in self.sorting_keys),
            *(("sorting_order", str(order)) for order in self.sorting_order),
        ]

    def at(self, *, after: str | None = None, before: str | None = None, offset: int | None = None) -> Query:
        """The same query at another place; without any, at the start."""
        return replace(self, after=after, before=before, offset=offset)

    @property
    def descending(self) -> bool:
        """Whether the first sorting key runs downwards."""
        return bool(self.sorting_order) and str(self.sorting_order[0]).startswith("DESC")


Key = tuple[str, str]
"""(created_at as UTC text, as fine as it is known, id in lower case): sorts as the jobs do.

A page's keys have all digits that were sent, nanoseconds too; those made of rows of a lake end at microseconds, so of
two that are equal that far nothing is known."""


def instant_key(instant: datetime) -> str:
    """An instant as text that sorts as instants do: UTC, no zone, no trailing zeros in the fraction."""
    text = instant.astimezone(UTC).replace(tzinfo=None).isoformat()
    return text.rstrip("0") if "." in text else text


def parse_instant_key(text: str) -> datetime:
    """Return the instant (UTC) of the first part of a key; digits beyond microseconds are cut.

    Raises:
        ValueError: `instant_key` does not write such a text.
    """
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class PageInfo:
    """What one page says about itself and about the walk: all that flows back from `decode` to `paging`.

    Attributes:
        rows: rows on the page, unusable ones included.
        keys: (created_at, id) of the usable rows, in the page's order.
        has_next: `hasNextPage`. has_previous: `hasPreviousPage`, None when absent.
        start_cursor, end_cursor: as sent; None when absent or null. Not yet checked.
        total: `total`, or None when absent.
        limit, sorting_keys, sorting_order: what the server understood; None when it did not say.
        after, before, offset: the place that the answer says it is for; None when it did not say.
        companies, statuses: the company_ids (as sent) and the statuses on the page.
    """

    rows: int
    has_next: bool
    has_previous: bool | None = None
    keys: tuple[Key, ...] = ()
    start_cursor: str | None = None
    end_cursor: str | None = None
    total: int | None = None
    limit: int | None = None
    sorting_keys: tuple[str, ...] | None = None
    sorting_order: tuple[str, ...] | None = None
    after: str | None = None
    before: str | None = None
    offset: int | None = None
    companies: frozenset[str] = frozenset()
    statuses: frozenset[str] = frozenset()


def _texts(name: str, value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    kinds = tuple | list | frozenset | set if name == "statuses" else tuple | list  # sorting has an order
    if not isinstance(value, kinds):
        raise UsageError(f"{name} takes a list of texts, not {value!r}")
    if not all(isinstance(item, str) for item in value):
        raise UsageError(f"{name} takes texts only, not {value!r}")
    return tuple(sorted(value) if isinstance(value, set | frozenset) else value)


def _check_statuses(statuses: Sequence[str]) -> None:
    if unknown := [status for status in statuses if status not in STATUSES]:
        raise UsageError(f"unknown status {unknown[0]!r}; the API takes {', '.join(STATUSES)}")


def _check_position(before: object, after: object, offset: object) -> None:
    given = [
        name
        for name, value in (("before", before), ("after", after), ("offset", offset))
        if value is not None
    ]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} exclude each other; give one of them")
    for name, value in (("before", before), ("after", after)):
        if value is not None and not is_cursor(value):
            raise UsageError(f"{name} is not a cursor of the API (pattern ^[A-Z2-7=~]+$): {value!r}")


def _check_range(name: str, value: object, highest: int) -> None:
    if value is None:
        return
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= highest:
        raise UsageError(f"{name} must be a whole number from 0 to {highest}, not {value!r}")


def _check_sorting(keys: Sequence[str], orders: Sequence[str]) -> None:
    if len(keys) != len(orders):
        raise UsageError(
            f"sorting_keys has {len(keys)} entries and sorting_order {len(orders)}; give one order a key"
        )
    if not all(key and key.isprintable() for key in keys):
        raise UsageError("a sorting key is empty or holds characters that no field's name has")
    if wrong := [order for order in orders if order not in _ORDERS]:
        raise UsageError(f"unknown sorting order {wrong[0]!r}; the API takes {', '.join(PageOrder)}")
