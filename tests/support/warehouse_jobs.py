"""Jobs for the tests of the answers, as the lake stores them: Parquet with the contract's columns."""

from __future__ import annotations

import atexit
import shutil
from collections import defaultdict
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl
from hypothesis import strategies as st

from pleo_extract.answers import (
    SnapshotFacts,
    answer,
    open_warehouse,
    translate_errors,
    write_catalogue,
    write_facts,
)
from pleo_extract.contract import FIELDS, POLARS_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Sequence

    import duckdb

Row = dict[str, Any]


class Open(NamedTuple):
    """An open warehouse, and the file that it reads."""

    file: Path
    con: duckdb.DuckDBPyConnection


_free: defaultdict[Hashable, list[Open]] = defaultdict(list)

A, B = (f"0000000{letter}-0000-4000-8000-000000000000" for letter in "ab")
START = datetime(2026, 3, 1, tzinfo=UTC)
REASONS = ("validation_failure", "service_timeout", "job_expired", None)
STATUSES = ("pending", "in_progress", "archived", "failed", "completed", "completed_with_errors")
TERMINAL = STATUSES[3:]


def job(number: int, status: str = "completed", **fields: Any) -> Row:
    """Return a job created `number` hours after START that waits one minute and runs two."""
    created = START + timedelta(hours=number)
    ended = created + timedelta(minutes=3)
    done = status in {"completed", "completed_with_errors"}
    usual: Row = {
        "id": f"00000000-0000-4000-8000-{number:012d}",
        "company_id": A,
        "status": status,
        "created_at": created,
        "started_at": created + timedelta(minutes=1),
        "completed_at": ended if done else None,
        "last_updated_at": ended,
        "expires_in": 3600,
        "is_interactive": True,
        "number_of_items": 10,
        "vendor_based_bookkeeping": False,
        "failure_reason_type": "validation_failure" if status == "failed" else None,
    }
    return usual | fields


def frame(rows: Iterable[Row]) -> pl.DataFrame:
    """Return rows as a frame with the columns of `export_jobs`."""
    return pl.DataFrame(list(rows), schema=POLARS_SCHEMA, orient="row")


def parquet(path: Path, rows: Iterable[Row]) -> Path:
    """Write rows as a file of a lake."""
    frame(rows).write_parquet(path)
    return path


def make_catalogue(folder: Path, jobs: Iterable[Row], facts: SnapshotFacts | None = None) -> Path:
    """Write a lake of these jobs, in one month, and its catalogue; return the path of the catalogue."""
    facts, rows = facts or SnapshotFacts(), list(jobs)
    if rows:
        (folder / "created_month=2026-01").mkdir(exist_ok=True)
        parquet(folder / "created_month=2026-01" / "part-0.parquet", rows)
    (folder / "_lake").mkdir(exist_ok=True)
    write_facts(folder, facts)
    write_catalogue(folder / "_jobs.duckdb", folder, facts=facts, has_months=bool(rows))
    return folder / "_jobs.duckdb"


def ask(
    sql: str, jobs: Sequence[Row] | pl.DataFrame, as_of: datetime | None = None, **params: object
) -> pl.DataFrame:
    """Return the answer to one query about these jobs."""
    with warehouse(jobs, as_of) as con:
        return rows_of(con, sql, **params)


@contextmanager
def warehouse(
    jobs: Sequence[Row] | pl.DataFrame, as_of: datetime | None = None
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a warehouse of these jobs; without jobs, of a lake without files."""
    table = jobs if isinstance(jobs, pl.DataFrame) else frame(jobs)
    kind = (as_of, table.height > 0, tuple(table.schema.items()))
    lent = _free[kind].pop() if _free[kind] else _open(table, as_of)
    table.write_parquet(lent.file)
    try:
        yield lent.con
    finally:
        _free[kind].append(lent)


def _open(table: pl.DataFrame, as_of: datetime | None) -> Open:
    """Open a warehouse. It costs as much as ten queries, so `warehouse` uses it again with another file content."""
    file = Path(mkdtemp(dir=_folder()), "jobs.parquet")
    table.write_parquet(file)
    con = open_warehouse([file] if table.height else [], facts=SnapshotFacts(as_of))
    con.execute("SET enable_external_file_cache = FALSE")  # `warehouse` overwrites the file
    return Open(file, con)


@cache
def _folder() -> str:
    folder = mkdtemp()
    atexit.register(shutil.rmtree, folder)
    return folder


def rows_of(con: duckdb.DuckDBPyConnection, sql: str, **params: object) -> pl.DataFrame:
    """Return the answer to one query."""
    with translate_errors():
        rows: pl.DataFrame = answer(con, sql, params).pl()
        return rows


def recorded(records: Iterable[Row]) -> pl.DataFrame:
    """Return records of the API as a frame with the columns and types of `export_jobs`."""
    texts = {
        field.column: pl.String() if field.kind == "instant" else POLARS_SCHEMA[field.column]
        for field in FIELDS
    }
    rows = [{field.column: record.get(field.name) for field in FIELDS} for record in records]
    instants = [field.column for field in FIELDS if field.kind == "instant"]
    return (
        pl.DataFrame(rows, schema=texts, orient="row")
        .with_columns(pl.col(instants).str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_unit="us", time_zone="UTC"))
        .with_columns(extra=pl.lit(None, pl.String))
    )


@st.composite
def histories(draw: st.DrawFn, *, most: int = 40) -> list[Row]:
    """Draw zero to `most` jobs of two companies, of all statuses or a few, with ties and missing instants."""
    statuses = draw(st.sampled_from((STATUSES, TERMINAL, ("failed",), ("pending",), ("completed",))))
    offset = st.integers(0, 12).map(lambda days: days * 7200 + 10)
    seconds = st.sampled_from((0, 1, 1.5, 2, 2.25, 30, 30.000001, 600))
    rows = []
    for number in range(draw(st.integers(0, most))):
        created = START + timedelta(seconds=draw(offset))
        wait = draw(st.none() | seconds)
        started = None if wait is None else created + timedelta(seconds=wait)
        ended = (started or created) + timedelta(seconds=draw(seconds))
        status = draw(st.sampled_from(statuses))
        ends = draw(st.sampled_from(("completed_at", "expired_at", "last_updated_at", "none")))
        rows.append(
            job(number, status, company_id=draw(st.sampled_from((A, B))), created_at=created)
            | {"started_at": started, "completed_at": None, "last_updated_at": None}
            | ({ends: ended} if status in TERMINAL and ends != "none" else {})
            | {"failure_reason_type": draw(st.sampled_from(REASONS)) if status == "failed" else None}
            | {"number_of_items": draw(st.integers(0, 5))}
        )
    return rows
