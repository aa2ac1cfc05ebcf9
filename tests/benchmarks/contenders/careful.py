"""The careful hand-written script: httpx, msgspec and Polars in one pass. Arguments: URL, key, output folder, rows of a page.

It is what a good engineer writes for one use: no durable publish, no proof of completeness, no rate limit, no retries.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import httpx
import msgspec
import polars as pl

TITLE = "httpx + msgspec + polars, careful"
REQUIREMENTS = ["httpx", "msgspec", "polars"]

Int32 = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]
Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class Job(msgspec.Struct, gc=False, rename="camel"):
    """One row of the list."""

    id: str
    company_id: str
    status: str
    created_at: str
    expires_in: Int32
    is_interactive: bool
    number_of_items: Int64
    vendor_based_bookkeeping: bool
    started_at: str | None = None
    completed_at: str | None = None
    expired_at: str | None = None
    last_updated_at: str | None = None
    created_by: str | None = None
    failure_reason_type: str | None = None
    failure_reason: str | None = None


class Info(msgspec.Struct, rename="camel"):
    """The pagination of a page."""

    has_next_page: bool
    end_cursor: str | None = None


class Page(msgspec.Struct):
    """One page."""

    data: list[Job]
    pagination: Info


TIMES = ("created_at", "started_at", "completed_at", "expired_at", "last_updated_at")
SCHEMA = {
    name: {"expires_in": pl.Int32, "number_of_items": pl.Int64}.get(
        name, pl.Boolean if name in ("is_interactive", "vendor_based_bookkeeping") else pl.String
    )
    for name in Job.__struct_fields__
}


def frame_of(rows: list[Job]) -> pl.DataFrame:
    """Return rows as a typed frame."""
    columns = zip(*map(msgspec.structs.astuple, rows), strict=True)
    series = [
        pl.Series(name, column, dtype=SCHEMA[name]) for name, column in zip(SCHEMA, columns, strict=True)
    ]
    instants = pl.col(TIMES).str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_unit="us").dt.replace_time_zone("UTC")
    return pl.DataFrame(series).with_columns(instants)


def write(frame: pl.DataFrame, out: str) -> None:
    """Write one Parquet file a month."""
    for (month,), part in frame.group_by(pl.col("created_at").dt.strftime("%Y-%m")):
        folder = Path(out, f"created_month={month}")
        folder.mkdir(parents=True)
        part.write_parquet(folder / "part-0.parquet")


def run(url: str, key: str, out: str, limit: str = "100") -> None:
    """Fetch all jobs into Parquet files below the folder, one a month."""
    decoder = msgspec.json.Decoder(Page)
    params: dict[str, str | int] = {"limit": int(limit)}
    frames, rows = [], []
    with httpx.Client(base_url=url, auth=(key, "")) as client:
        while True:
            response = client.get("/v3/export-jobs", params=params)
            page = decoder.decode(response.raise_for_status().content)
            rows += page.data
            if len(rows) >= 5_000 or not page.pagination.has_next_page:
                frames.append(frame_of(rows))
                rows = []
            if not page.pagination.has_next_page:
                break
            params["after"] = page.pagination.end_cursor or ""
    write(pl.concat(frames), out)


if __name__ == "__main__":
    run(*sys.argv[1:5])
