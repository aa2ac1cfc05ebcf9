"""What is fetched but not yet published: batches of rows, and a journal that says which of them are whole.

A batch counts once its line is in the journal; the line is written after the batch is synced.
"""

from __future__ import annotations

import io
import secrets
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl

from pleo_extract.contract import POLARS_SCHEMA
from pleo_extract.lake import disk
from pleo_extract.refresh import created_month, months_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from pleo_extract.decode import Rejected

__all__ = ["Batch", "Staging", "name_run"]


def name_run() -> str:
    """A name for this run: when it started (UTC), and something no other run has."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"


class Batch(msgspec.Struct, frozen=True):
    """A line of the journal: a file of rows, the months they fall in, and what the walk needs to go on after it."""

    file: str
    rows: int
    months: list[str]
    after: dict[str, Any] = {}


class Staging:
    """The staging folder of one run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run = folder.name
        self.batches: list[Batch] = []
        self.reasons: list[str] = []

    @classmethod
    def start(cls, staging: Path, run: str) -> Staging:
        """A new, empty one."""
        disk.make_folder(staging, private=True)
        folder = staging / run
        disk.make_folder(folder, private=True)
        return cls(folder)

    def add(
        self, frame: pl.DataFrame, rejected: Sequence[Rejected] = (), after: dict[str, Any] | None = None
    ) -> None:
        """Stage one batch; when this returns it will be found again."""
        name = f"batch-{len(self.batches):06d}.arrow"
        buffer = io.BytesIO()
        frame.write_ipc(buffer, compression="uncompressed")
        disk.write_file(self.folder / name, buffer.getvalue(), private=True)
        for row in rejected:
            line = {
                "page": row.page,
                "path": row.path,
                "reason": row.reason,
                "row": row.raw.decode("utf-8", "replace"),
            }
            disk.append_line(self.folder / "rejected.jsonl", msgspec.json.encode(line))
        self.reasons += map(str, rejected)
        batch = Batch(name, frame.height, months_of(frame), after or {})
        disk.append_line(self.folder / "journal.jsonl", msgspec.json.encode(batch))
        self.batches.append(batch)

    @property
    def rejected(self) -> int:
        """Rows set aside."""
        return len(self.reasons)

    @property
    def rows(self) -> int:
        """Rows staged, repeated ones included."""
        return sum(batch.rows for batch in self.batches)

    def months(self) -> list[str]:
        """The months that staged rows fall in."""
        return sorted({month for batch in self.batches for month in batch.months})

    def read(self, month: str) -> list[pl.DataFrame]:
        """The staged rows of one month, in the order they were fetched."""
        frames = [self._read(batch) for batch in self.batches if month in batch.months]
        return [frame.filter(created_month() == month) for frame in frames] or [
            pl.DataFrame(schema=POLARS_SCHEMA)
        ]

    def frames(self) -> Iterator[pl.DataFrame]:
        """All staged rows, batch by batch."""
        return (self._read(batch) for batch in self.batches)

    def _read(self, batch: Batch) -> pl.DataFrame:
        return pl.read_ipc(io.BytesIO(disk.read_file(self.folder / batch.file)))

    def keep_rejected(self, folder: Path) -> None:
        """Move the rows that were set aside to where they stay: ``_rejected/<run>.jsonl``."""
        if self.rejected:
            disk.make_folder(folder, private=True)
            disk.rename(self.folder / "rejected.jsonl", folder / f"{self.run}.jsonl")
            disk.sync_folder(folder)

    def clear(self) -> None:
        """Remove it all."""
        disk.remove_tree(self.folder)
