"""What the lake lacks, and what replaces what. Frames in, frames and decisions out.

Rules of this room: no clock, no files, no network.
"""

from __future__ import annotations

from typing import Final

import polars as pl

from pleo_extract.contract import COLUMNS, KEY

__all__ = ["created_month", "keep_latest", "merge_rows", "months_of", "same_rows"]

_FILE_ORDER: Final = ("company_id", "created_at", "id")


def created_month() -> pl.Expr:
    """The partition of a row: the month of created_at, in UTC, as ``2026-11``."""
    return pl.col("created_at").dt.strftime("%Y-%m")


def months_of(frame: pl.DataFrame) -> list[str]:
    """The months that these rows fall in, in order."""
    starts = frame.select(pl.col("created_at").dt.truncate("1mo").unique().sort()).to_series()
    return [f"{start.year:04d}-{start.month:02d}" for start in starts]


def keep_latest(rows: pl.DataFrame) -> pl.DataFrame:
    """One row for each (company_id, id), in the order given where nothing repeats.

    Of several the one with the later `last_updated_at` stays (null is oldest), of equals the later in the frame.
    """
    if rows["id"].is_unique().all():
        return rows
    rows = rows.sort("last_updated_at", nulls_last=False, maintain_order=True)
    return rows.unique(KEY, keep="last", maintain_order=True)


def merge_rows(*frames: pl.DataFrame) -> pl.DataFrame:
    """The latest row of each job, ordered as a file is: by company_id, created_at, id. Later frames were fetched later."""
    return keep_latest(pl.concat(frames)).select(COLUMNS).sort(_FILE_ORDER)


def same_rows(old: pl.DataFrame, new: pl.DataFrame) -> bool:
    """Whether two merged frames say the same of the same jobs; `expires_in` aside, which may count down."""
    return old.height == new.height and old.drop("expires_in").equals(new.drop("expires_in"))
