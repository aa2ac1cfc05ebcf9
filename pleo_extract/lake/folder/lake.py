"""A folder of Parquet as a lake: the table that runs publish to, with what readers need."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pleo_extract.errors import LakeError
from pleo_extract.lake.folder.opening import Opened, open_snapshot, refuse_other_server, require_lake
from pleo_extract.lake.folder.table import FolderTable
from pleo_extract.lake.folder.visible import is_same_bytes, is_shown
from pleo_extract.lake.forgotten import NOTHING, Forgotten, read_forgotten, require_forgotten
from pleo_extract.lake.layout import scan_files
from pleo_extract.lake.record import LastRun, read_last_run

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime
    from pathlib import Path

    import polars as pl

    from pleo_extract.lake.folder.forgetting import Erasure
    from pleo_extract.lake.folder.repair import Repair
    from pleo_extract.lake.folder.verify import Verification
    from pleo_extract.lake.layout import Manifest

__all__ = ["FolderLake"]


class FolderLake(FolderTable):
    """A folder of Parquet that implements `Store`, which documents the methods."""

    counts_snapshots: bool = True
    forgotten: Forgotten = NOTHING

    def __init__(self, lake: str | Path) -> None:
        super().__init__(lake)
        self.catalogue: Path | None = self.layout.catalogue

    def exists(self) -> bool:
        """See `Store`."""
        return self.layout.root.is_dir()

    def open(self, as_of: datetime | int | None = None) -> Opened | None:
        """See `Store`."""
        return open_snapshot(self.name, as_of)

    def history(self) -> Iterator[Manifest]:
        """See `Store`."""
        require_lake(self.layout)
        current = self.layout.number() or 0
        return (self.layout.manifest(number) for number in self.layout.numbers() if number <= current)

    def last_run(self) -> LastRun | None:
        """See `Store`."""
        return read_last_run(self.layout)

    def months_behind(self, manifest: Manifest) -> list[str]:
        """See `Store`."""
        if self.layout.is_old:
            return []
        files = (entry for entry in manifest.files if not is_shown(self.layout, entry))
        return [entry.month for entry in files if not is_same_bytes(self.layout, entry)]

    def verify(self) -> Verification:
        """See `Store`."""
        from pleo_extract.lake.folder.verify import verify_lake  # noqa: PLC0415 - a dump starts faster without it

        return verify_lake(self.name)

    def refuse_other(self, server: str) -> None:
        """See `Store`."""
        refuse_other_server(self.name, self.layout.server(), server)

    def repair(self) -> Repair:
        """See `Store`."""
        from pleo_extract.lake.folder.repair import repair_lake  # noqa: PLC0415 - as above

        return repair_lake(self.name)

    def scan(self, base: Manifest | None) -> pl.LazyFrame:
        """See `Store`."""
        return scan_files(self.layout.paths_of(base) if base else ())

    def read_forgotten(self) -> Forgotten:
        """See `Store`."""
        return read_forgotten(self.layout)

    def begin(self) -> Manifest | None:
        """See `Store`."""
        base, known = super().begin(), self.read_forgotten()
        self.forgotten = require_forgotten(known, base.accounts.values() if base else (), self.name)
        return base

    def forget(self, jobs: Sequence[str], people: Sequence[str]) -> Erasure:
        """See `Store`."""
        from pleo_extract.lake.folder.forgetting import forget_rows  # noqa: PLC0415 - as above

        require_lake(self.layout)
        if not self.layout.own.is_dir() and not self.layout.is_old:
            raise LakeError(f"there is no lake at {self.layout.root}")
        with self.hold() as still_held:
            super().begin()
            return forget_rows(self.layout, jobs, people, check=still_held)
