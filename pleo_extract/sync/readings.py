"""Rows of statuses that the contract does not know: how often they were re-read, and had not changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from pleo_extract.contract import POLARS_SCHEMA
from pleo_extract.core.rows import count_readings, created_month, find_other, is_unknown, keep_latest

if TYPE_CHECKING:
    from pleo_extract.core.state import RereadCounts
    from pleo_extract.sync.task import Task

__all__ = ["count_unknown"]


def count_unknown(task: Task) -> dict[str, RereadCounts]:
    """Return how often the rows of unknown statuses were re-read unchanged, this sync's reading included."""
    statuses = task.staging.unknown_statuses()
    changed = [pl.DataFrame(schema=POLARS_SCHEMA)]
    if statuses and task.before.watermark is not None:
        for month in task.staging.months():
            rows = keep_latest(task.staging.read_unknown(month))
            if rows.height:
                lake = task.lake.filter(created_month() == month, is_unknown()).collect()
                changed.append(find_other(lake, rows))
    return count_readings(task.before, statuses, pl.concat(changed))
