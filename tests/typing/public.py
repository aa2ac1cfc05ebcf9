"""The public types, pinned: read by mypy and pyright, never run. A change here is a change that users' checkers notice."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import assert_type

import duckdb
import polars as pl

import pleo_extract
from pleo_extract import Client, Lake, PleoExtractError, Query, Receipt
from pleo_extract.contract import PageInfo

__all__: list[str] = []

COMPANY = "6f1f2c1e-8f5b-4a53-9f0a-0d3c6f0a7b11"


def read(client: Client, since: datetime) -> None:
    """The live API: a frame, batches, a lazy frame, one page."""
    assert_type(pleo_extract.load_export_jobs(), pl.DataFrame)
    assert_type(
        pleo_extract.load_export_jobs(
            company_id=COMPANY, statuses=["failed"], since=since, client=client, progress=False, deadline=60
        ),
        pl.DataFrame,
    )
    for batch in pleo_extract.iter_export_jobs(client=client):
        assert_type(batch, pl.DataFrame)
    assert_type(pleo_extract.scan_export_jobs(client=client), pl.LazyFrame)
    page = pleo_extract.fetch_page(Query(limit=10), client=client)
    assert_type(page.frame, pl.DataFrame)
    assert_type(page.info, PageInfo)


def keep(client: Client, folder: Path) -> None:
    """A lake: dumped, merged, verified, scanned, erased from."""
    assert_type(pleo_extract.dump_export_jobs("data/export_jobs"), Receipt)
    assert_type(
        pleo_extract.dump_export_jobs(folder, client=client, full=True, keep_for=timedelta(days=2)), Receipt
    )
    assert_type(pleo_extract.dump_accounts(folder, "accounts.toml"), tuple[Receipt, list[Receipt]])
    assert_type(pleo_extract.merge_lakes("data/new", "s3://bucket/table"), Receipt)
    assert_type(pleo_extract.verify_lake(folder).ok, bool)
    assert_type(pleo_extract.verify_lake(folder).problems, tuple[str, ...])
    assert_type(pleo_extract.scan_lake(folder, 3), pl.LazyFrame)
    assert_type(pleo_extract.forget(folder, jobs=[COMPANY]).removed, int)


def ask(folder: Path) -> None:
    """Answers, and a lake opened once."""
    assert_type(pleo_extract.connect(folder), duckdb.DuckDBPyConnection)
    assert_type(pleo_extract.list_answers(), pl.DataFrame)
    lake = Lake(folder, storage_options={"AWS_REGION": "eu-north-1"})
    assert_type(lake.scan(), pl.LazyFrame)
    assert_type(lake.scan(datetime.now(UTC)), pl.LazyFrame)
    assert_type(lake.connect(), duckdb.DuckDBPyConnection)
    assert_type(lake.snapshots(), pl.DataFrame)
    assert_type(lake.changes(1, 2), pl.DataFrame)
    assert_type(lake.report("report.html"), Path)
    assert_type(lake.status().rows, int)
    assert_type(lake.status().data_as_of, datetime | None)


def name() -> None:
    """Constants and the root of all errors."""
    assert_type(pleo_extract.COLUMNS, tuple[str, ...])
    assert_type(pleo_extract.POLARS_SCHEMA, pl.Schema)
    assert_type(pleo_extract.__version__, str)
    try:
        pleo_extract.load_export_jobs()
    except PleoExtractError as exc:
        assert_type(exc.code, int)
