"""Find the files of a lake of format 1.

current -> snapshots/000012                              a link, the pointer
snapshots/000012/created_month=2026-11/part-0.parquet    the files of a snapshot
_meta/000012.json, _meta/last_run.json                   manifests, and how the last run ended
_staging/, _rejected/, _lock, _now.csv, _vanished.csv, jobs.duckdb
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from pleo_extract.errors import LakeError
from pleo_extract.lake import disk

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["NUMBER", "OLD_NAMES", "OldNames"]

OLD_NAMES: Final = re.compile(
    r"current|snapshots|_meta|_staging|_rejected|_lock|_now\.csv|_vanished\.csv|jobs\.duckdb(\.wal)?"
)
NUMBER: Final = re.compile(r"(?!000000)(?:[0-9]{6}|[1-9][0-9]{6,8})")
"""The number of a snapshot in the name of its manifest, and here of its folder; any other spelling is not ours."""


class OldNames:
    """The paths of format 1 below a lake's root, and the reader of its pointer."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.current = root / "current"
        self.snapshots = root / "snapshots"
        self.meta = root / "_meta"
        self.lock = root / "_lock"
        self.last_run = self.meta / "last_run.json"

    def exists(self) -> bool:
        """Return whether there is such a lake, or a part of one."""
        return self.current.is_symlink() or self.snapshots.is_dir() or self.meta.is_dir()

    def snapshot_folder(self, number: int) -> Path:
        """Return the folder of snapshot `number`."""
        return self.snapshots / f"{number:06d}"

    def snapshots_there(self) -> list[int]:
        """Return the numbers of the snapshots that have a folder, oldest first."""
        return sorted(
            int(path.name) for path in disk.list_folder(self.snapshots) if NUMBER.fullmatch(path.name)
        )

    def number(self) -> int | None:
        """Return the number of the current snapshot; None before the first.

        Raises:
            LakeError: the pointer leads nowhere, or out of the lake.
        """
        if not self.current.is_symlink():
            if self.current.exists():
                raise LakeError(f"{self.current} is not the link that a lake has there; check the path")
            # A kill during the first publish leaves 1 without a pointer.
            if self.snapshots_there() not in ([], [1]):
                raise LakeError(f"{self.root} has snapshots but no pointer 'current'; run repair")
            return None
        try:
            folder = self.current.resolve()
            is_inside = folder.parent == self.snapshots.resolve() and folder.is_dir()
            if is_inside and NUMBER.fullmatch(folder.name):
                return int(folder.name)
        except (OSError, RuntimeError, ValueError):  # a loop of links, or a name that is no path
            pass
        raise LakeError(f"{self.current} does not lead to a snapshot of this lake; run repair")
