"""The lake: a folder of Parquet that is always whole. The only room that touches disk.

A lake is the folder that any tool reads, and behind it a row of immutable snapshots and one pointer, `current`. Readers
of ours resolve the pointer once and then read files that never change; the one writer builds the next snapshot beside
them, replaces the pointer, and then the visible months one by one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pleo_extract.lake.folder import FolderTable
from pleo_extract.lake.forgotten import (
    NOTHING,
    Forgotten,
    decode_forgotten,
    forget_more,
    read_forgotten,
    require_forgotten,
    spell_forgotten,
)
from pleo_extract.lake.layout import DATA_FILE, FORMAT, FileEntry, Layout, Manifest, scan_files
from pleo_extract.lake.lock import hold_lock, refuse_unheld
from pleo_extract.lake.opening import Opened, open_snapshot, refuse_other_server, require_lake
from pleo_extract.lake.pruning import KEEP, KEEP_COUNT, Keep, prune, sweep
from pleo_extract.lake.record import LastRun, read_last_run, write_last_run
from pleo_extract.lake.rejects import prune_rejected
from pleo_extract.lake.staging import Header, Staging, find_left, name_run
from pleo_extract.lazy import attach

if TYPE_CHECKING:
    from pleo_extract.lake.forgetting import Erasure, forget_rows
    from pleo_extract.lake.repair import Repair, repair_lake
    from pleo_extract.lake.verify import Verification, check_rows, has_columns, verify_lake

__all__ = [
    "DATA_FILE",
    "FORMAT",
    "KEEP",
    "KEEP_COUNT",
    "NOTHING",
    "Erasure",
    "FileEntry",
    "FolderTable",
    "Forgotten",
    "Header",
    "Keep",
    "LastRun",
    "Layout",
    "Manifest",
    "Opened",
    "Repair",
    "Staging",
    "Verification",
    "check_rows",
    "decode_forgotten",
    "find_left",
    "forget_more",
    "forget_rows",
    "has_columns",
    "hold_lock",
    "name_run",
    "open_snapshot",
    "prune",
    "prune_rejected",
    "read_forgotten",
    "read_last_run",
    "refuse_other_server",
    "refuse_unheld",
    "repair_lake",
    "require_forgotten",
    "require_lake",
    "scan_files",
    "spell_forgotten",
    "sweep",
    "verify_lake",
    "write_last_run",
]

if not TYPE_CHECKING:
    __getattr__ = attach(
        __name__,
        {
            "Erasure": "forgetting",
            "Repair": "repair",
            "Verification": "verify",
            "check_rows": "verify",
            "forget_rows": "forgetting",
            "has_columns": "verify",
            "repair_lake": "repair",
            "verify_lake": "verify",
        },
    )
