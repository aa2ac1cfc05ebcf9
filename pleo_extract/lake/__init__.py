"""The lake: a folder of Parquet that is always whole. The only room that touches disk.

A lake is a row of immutable snapshots and one pointer, `current`. Readers resolve the pointer once and then read
files that never change; the one writer builds the next snapshot beside them and swaps the pointer last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pleo_extract.lake.filesystem import require_abilities
from pleo_extract.lake.layout import DATA_FILE, FORMAT, FileEntry, Layout, Manifest, Snapshot, scan_files
from pleo_extract.lake.lock import hold_lock
from pleo_extract.lake.opening import Opened, open_snapshot, refuse_other_server, require_files
from pleo_extract.lake.publish import KEEP, KEEP_COUNT, commit, finish_first, prune, publish, sweep
from pleo_extract.lake.record import LastRun, read_last_run, write_last_run
from pleo_extract.lake.staging import Header, Staging, find_left, name_run
from pleo_extract.lazy import attach

if TYPE_CHECKING:
    from pleo_extract.lake.repair import Repair, repair_lake
    from pleo_extract.lake.verify import Verification, check_rows, has_columns, verify_lake

__all__ = [
    "DATA_FILE",
    "FORMAT",
    "KEEP",
    "KEEP_COUNT",
    "FileEntry",
    "Header",
    "LastRun",
    "Layout",
    "Manifest",
    "Opened",
    "Repair",
    "Snapshot",
    "Staging",
    "Verification",
    "check_rows",
    "commit",
    "find_left",
    "finish_first",
    "has_columns",
    "hold_lock",
    "name_run",
    "open_snapshot",
    "prune",
    "publish",
    "read_last_run",
    "refuse_other_server",
    "repair_lake",
    "require_abilities",
    "require_files",
    "scan_files",
    "sweep",
    "verify_lake",
    "write_last_run",
]

if not TYPE_CHECKING:
    __getattr__ = attach(
        __name__,
        {
            "Repair": "repair",
            "Verification": "verify",
            "check_rows": "verify",
            "has_columns": "verify",
            "repair_lake": "repair",
            "verify_lake": "verify",
        },
    )
