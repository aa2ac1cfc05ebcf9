"""The lake: a folder of Parquet that is always whole. The only room that touches disk.

A lake is a row of immutable snapshots and one pointer, `current`. Readers resolve the pointer once and then read
files that never change; the one writer builds the next snapshot beside them and swaps the pointer last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pleo_extract.lake.layout import FORMAT, FileEntry, Layout, Manifest, Snapshot
from pleo_extract.lake.lock import hold_lock
from pleo_extract.lake.opening import open_snapshot
from pleo_extract.lake.publish import KEEP, KEEP_COUNT, commit, finish_first, prune, publish, sweep
from pleo_extract.lake.record import LastRun, read_last_run, write_last_run
from pleo_extract.lake.repair import Repair, repair_lake
from pleo_extract.lake.staging import Header, Staging, name_run
from pleo_extract.lake.verify import Verification, verify_lake

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    import polars as pl

__all__ = [
    "FORMAT",
    "KEEP",
    "KEEP_COUNT",
    "FileEntry",
    "Header",
    "LastRun",
    "Layout",
    "Manifest",
    "Repair",
    "Snapshot",
    "Staging",
    "Verification",
    "commit",
    "finish_first",
    "hold_lock",
    "name_run",
    "open_snapshot",
    "prune",
    "publish",
    "read_last_run",
    "repair_lake",
    "scan_lake",
    "sweep",
    "verify_lake",
    "write_last_run",
]


def scan_lake(lake: str | Path, as_of: datetime | int | None = None) -> pl.LazyFrame:
    """One whole snapshot of a lake as a LazyFrame, safe beside a running dump.

    Args:
        lake: the lake's folder.
        as_of: the snapshot that was current at this instant, or the snapshot of this number; the current one by default.

    Returns:
        One row a job, with the columns of `pleo_extract.COLUMNS`; no rows for a lake without a snapshot.

    Raises:
        LakeError: there is no such folder, or it is not a lake. UsageError: no such snapshot is kept.
    """
    snapshot = open_snapshot(lake, as_of)
    return snapshot.scan() if snapshot else Snapshot.scan_nothing()
