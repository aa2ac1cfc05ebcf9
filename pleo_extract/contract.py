"""The contract of GET /v3/export-jobs as declarations: what a request may ask, what a job is, what a page says.

`FIELDS` is the one declaration of a job: the Polars, Arrow and DuckDB schemas, the decoder and the documentation are
computed from it. Source: Pleo's OpenAPI document, Export API 32.4.0, operation getExportJobsListV3.

Rules of this room: facts only. Nothing here sends, reads or waits.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Literal

import polars as pl

from pleo_extract.errors import UsageError, escape
from pleo_extract.keywords import check_keywords, check_keywords_of

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
"""Statuses in which a job is settled. In every other status, unknown ones included, it may still change."""

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
    """One field of ExportJobV3, and the column that it becomes.

    Attributes:
        name: the field's name in the API.
        column: the column's name in our frames.
        kind: its type, from which the types of all schemas follow.
        required: whether it must be present and not null.
        note: what it means, for the documentation.
    """

    name: str
    column: str
    kind: Kind
    required: bool
    note: str


FIELDS: Final = (
    Field("id", "id", "uuid", required=True, note="The job. One job is one attempt; a retry is a new job"),
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
        note="When the export was requested; never changes",
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
        note="The user who requested it; null for the system",
    ),
    Field(
        "isInteractive",
        "is_interactive",
        "bool",
        required=True,
        note="Requested by a user (true) or by the system (false)",
    ),
    Field(
        "numberOfItems",
        "number_of_items",
        "int64",
        required=True,
        note="Accounting entries in the export",
    ),
    Field(
        "vendorBasedBookkeeping",
        "vendor_based_bookkeeping",
        "bool",
        required=True,
        note="Whether items carry vendor and bookkeeping data",
    ),
    Field(
        "failureReasonType",
        "failure_reason_type",
        "text",
        required=False,
        note="The kind of failure; new kinds may appear",
    ),
    Field("failureReason", "failure_reason", "text", required=False, note="What failed, in words"),
)
EXTRA: Final = Field(
    "",
    "extra",
    "json",
    required=False,
    note="Fields that the contract does not know, as JSON text; null if there are none",
)

COLUMNS: Final = tuple(field.column for field in (*FIELDS, EXTRA))
KEY: Final = ("company_id", "id")
"""The columns that identify a job."""
POLARS_SCHEMA: Final = pl.Schema({field.column: _POLARS[field.kind] for field in (*FIELDS, EXTRA)})
DUCKDB_SCHEMA: Final = {field.column: _DUCKDB[field.kind] for field in (*FIELDS, EXTRA)}


class PageOrder(StrEnum):
    """A sorting order of the API; a request gives one for each sorting key."""

    ASC = "ASC"
    ASC_NULLS_FIRST = "ASC_NULLS_FIRST"
    ASC_NULLS_LAST = "ASC_NULLS_LAST"
    DESC = "DESC"
    DESC_NULLS_FIRST = "DESC_NULLS_FIRST"
    DESC_NULLS_LAST = "DESC_NULLS_LAST"


_ORDERS: Final = frozenset(PageOrder)


def is_cursor(text: object) -> bool:
    """Return whether this is a cursor by the contract's pattern, ``^[A-Z2-7=~]+$``."""
    return isinstance(text, str) and _CURSOR.fullmatch(text) is not None


def uuid_problem(text: object) -> str | None:
    """Return why this is not a UUID (8-4-4-4-12 hexadecimal digits in either case), or None if it is one."""
    if isinstance(text, str) and UUID.fullmatch(text):
        return None
    return (
        f"not a UUID: {escape(text, 50)!r}" if isinstance(text, str) else f"not a UUID: {type(text).__name__}"
    )


def canonical_uuid(text: object, *, what: str = "company_id") -> str:
    """Return the UUID in lower case; `what` is the parameter that an error names.

    Raises:
        UsageError: it is missing (None), or is not 8-4-4-4-12 hexadecimal digits.
    """
    if text is None:
        raise UsageError(f"{what} is missing. Give it as 8-4-4-4-12 hexadecimal digits")
    if problem := uuid_problem(text):
        raise UsageError(f"{what} is {problem}. Give it as 8-4-4-4-12 hexadecimal digits")
    return str(text).lower()


@check_keywords_of
@dataclass(frozen=True, slots=True)
class Query:
    """One request for a page of the list, with every parameter of the endpoint.

    It is checked when it is made, before anything is sent. Of `before`, `after` and `offset` only one may be given.

    Attributes:
        company_id: UUID of the company whose jobs to return, in lower case; None for all the credential may see.
        statuses: return only jobs in these states; empty for all.
        before: cursor; return the rows that precede it.
        after: cursor; return the rows that follow it.
        offset: rows to skip, 0 to 2^63-1.
        limit: rows on the page, 0 to 2^31-1; the server may return fewer.
        sorting_keys: fields to sort by, as the API names them (``createdAt``, ``id``).
        sorting_order: one PageOrder for each key.

    Raises:
        UsageError: a parameter that the contract does not allow.
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
            object.__setattr__(self, name, _check_texts(name, getattr(self, name)))
        _check_statuses(self.statuses)
        _check_position(self.before, self.after, self.offset)
        _check_range("offset", self.offset, 2**63 - 1)
        _check_range("limit", self.limit, 2**31 - 1)
        _check_sorting(self.sorting_keys, self.sorting_order)

    def params(self) -> list[tuple[str, str]]:
        """Return the pairs of the query string in the order of the contract; lists are repeated pairs.

        That is what ``style: form, explode: true`` means in OpenAPI.
        """
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

    @check_keywords
    def at(self, *, after: str | None = None, before: str | None = None, offset: int | None = None) -> Query:
        """Return the same query for another place of the list; for its start if none is given."""
        return replace(self, after=after, before=before, offset=offset)

    @property
    def descending(self) -> bool:
        """Whether the first sorting key is in descending order."""
        return bool(self.sorting_order) and str(self.sorting_order[0]).startswith("DESC")


Key = tuple[str, str]
"""A job's place in the list: (created_at as UTC text, id in lower case). Keys sort as the jobs do.

The keys of a page keep all digits that were sent, nanoseconds included. Keys made from rows of a lake end at
microseconds, so the order of two that are equal that far is not known."""


def instant_key(instant: datetime) -> str:
    """Return an instant as text that sorts as instants do: UTC without a zone, no trailing zeros in the fraction."""
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
    """What one page says about itself: all that a walk learns from it.

    `limit` to `offset` are the echo of the request; each is None if the server does not echo it.

    Attributes:
        rows: rows on the page, unusable ones included.
        has_next: `hasNextPage`.
        has_previous: `hasPreviousPage`; None if absent.
        keys: (created_at, id) of the usable rows, in the order of the page.
        start_cursor: `startCursor` as sent, not yet checked; None if absent or null.
        end_cursor: `endCursor`, likewise.
        total: `total`; None if absent.
        limit: the page size that the server understood.
        sorting_keys: the fields that it sorted by.
        sorting_order: the order of each of these fields.
        after: the cursor that the page follows.
        before: the cursor that the page precedes.
        offset: the rows that the server skipped.
        companies: the company ids on the page, as sent.
        statuses: the statuses on the page.
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


def _check_texts(name: str, value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    # A set has no order, and sorting keys do.
    kinds = tuple | list | frozenset | set if name == "statuses" else tuple | list
    if not isinstance(value, kinds):
        raise UsageError(f"{name} must be a list of strings, not {value!r}")
    if not all(isinstance(item, str) for item in value):
        raise UsageError(f"{name} must be a list of strings only, not {value!r}")
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
        raise UsageError("a sorting key is empty or holds a character that cannot be printed")
    if wrong := [order for order in orders if order not in _ORDERS]:
        raise UsageError(f"unknown sorting order {wrong[0]!r}; the API takes {', '.join(PageOrder)}")
