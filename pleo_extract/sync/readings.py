"""How often rows of unknown statuses were re-read unchanged.

A status that the contract does not know may be terminal. If its rows counted as unsettled for ever, each sync would
look all of them up: fifty such rows cost 37 requests a run. A row that was re-read unchanged three times counts as
settled (`core.rows.is_unsettled`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from pleo_extract.contract import POLARS_SCHEMA
from pleo_extract.core.rows import count_readings, created_month, find_other, is_unknown, keep_latest

if TYPE_CHECKING:
    from pleo_extract.core.state import RereadCounts
    from pleo_extract.sync.task import Task

__all__ = ["count_rereads"]


def count_rereads(task: Task) -> dict[str, RereadCounts]:
    """Return the account's reread counts per unknown status, this sync included."""
    statuses = task.staging.unknown_statuses()
    changed = [pl.DataFrame(schema=POLARS_SCHEMA)]
    if statuses and task.before.watermark is not None:
        for month in task.staging.months():
            rows = keep_latest(task.staging.read_unknown(month))
            if rows.height:
                lake = task.lake.filter(created_month() == month, is_unknown()).collect()
                changed.append(find_other(lake, rows))
    return count_readings(task.before, statuses, pl.concat(changed))
