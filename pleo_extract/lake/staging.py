"""What is fetched but not yet published: batches of rows, and a journal that says which of them are whole.

A batch counts once its line is in the journal; the line is written after the batch is synced. One folder an
account, named after what binds it: server, company and query. A run that was cut short is gone on with from there.
"""

from __future__ import annotations

import hashlib
import io
import secrets
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import msgspec
import polars as pl

from pleo_extract.contract import POLARS_SCHEMA
from pleo_extract.lake import disk
from pleo_extract.paging import Mark
from pleo_extract.refresh import created_month, months_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from pleo_extract.decode import Rejected

__all__ = ["RESUME_WITHIN", "Batch", "Staging", "name_run"]

RESUME_WITHIN: Final = timedelta(hours=6)
"""How old staged pages may be and still be gone on with; cursors expire."""


def name_run() -> str:
    """A name for this run: when it started (UTC), and something no other run has."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the journal: a file of rows, the months they fall in, and where the walk stood after it.

    `phase` names the walk (``open``, ``new``, ``full`` …), `segment` its part, `done` that nothing more of the phase
    is to come. A line without a file only says so.
    """

    phase: str
    file: str = ""
    rows: int = 0
    months: list[str] = []
    segment: int = 0
    mark: Mark | None = None
    done: bool = False
    rejected: list[str] = []
    names: list[str] = []


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What a staging folder is bound to, and how its run was meant."""

    run: str
    mode: str
    base: int
    started_at: datetime


class Staging:
    """The staging folder of one account.

    Attributes:
        run, mode: of the run that began it. resumed: whether it was begun by an earlier run.
        reasons: one line for each row set aside. names: what these rows are called, see `decode.Rejected`.
    """

    def __init__(self, folder: Path, header: Header, batches: list[Batch] | None = None) -> None:
        self.folder = folder
        self.run = header.run
        self.mode = header.mode
        self.batches = batches or []
        self.resumed = batches is not None
        self.reasons = [reason for batch in self.batches for reason in batch.rejected]
        self.names = [name for batch in self.batches for name in batch.names]
        self._number = len(self.batches)

    @classmethod
    def start(cls, staging: Path, binding: str, header: Header) -> Staging:
        """A new, empty one, in place of any of that binding."""
        disk.make_folder(staging, private=True)
        folder = staging / _name_folder(binding)
        disk.remove_tree(folder)
        disk.make_folder(folder, private=True)
        disk.write_file(folder / "run.json", msgspec.json.encode(header), private=True)
        disk.sync_folder(folder)
        disk.sync_folder(staging)
        return cls(folder, header)

    @classmethod
    def resume(cls, staging: Path, binding: str, *, base: int, now: datetime) -> Staging | None:
        """What an earlier run of this binding left, if it is young enough and began from the same snapshot."""
        folder = staging / _name_folder(binding)
        if not (folder / "run.json").exists():
            return None
        try:
            header = msgspec.json.decode(disk.read_file(folder / "run.json"), type=Header)
        except msgspec.DecodeError:
            return None
        batches = _read_journal(folder)
        if header.base != base or not timedelta(0) <= now - header.started_at <= RESUME_WITHIN or not batches:
            return None
        return cls(folder, header, batches)

    def add(
        self,
        frame: pl.DataFrame,
        rejected: Sequence[Rejected] = (),
        *,
        phase: str = "full",
        segment: int = 0,
        mark: Mark | None = None,
    ) -> None:
        """Stage one batch; when this returns it will be found again."""
        name = f"batch-{self._number:06d}"
        self._number += 1
        buffer = io.BytesIO()
        frame.write_ipc(buffer, compression="uncompressed")
        disk.remove_file(self.folder / f"{name}.arrow")
        disk.write_file(self.folder / f"{name}.arrow", buffer.getvalue(), private=True)
        if rejected:
            disk.remove_file(self.folder / f"{name}.rejected.jsonl")
            disk.write_file(self.folder / f"{name}.rejected.jsonl", _spell_rejected(rejected), private=True)
        disk.sync_folder(self.folder)
        batch = Batch(
            phase=phase,
            file=name,
            rows=frame.height,
            months=months_of(frame),
            segment=segment,
            mark=mark,
            rejected=[str(row) for row in rejected],
            names=[row.name for row in rejected],
        )
        self._note(batch)
        self.reasons += batch.rejected
        self.names += batch.names

    def finish(self, phase: str) -> None:
        """Nothing more of this phase is to come."""
        self._note(Batch(phase=phase, done=True))

    def is_done(self, phase: str) -> bool:
        """Whether the phase was finished, by this run or the one it goes on with."""
        return any(batch.done for batch in self.batches if batch.phase == phase)

    def marks(self, phase: str) -> list[Mark]:
        """Where the walk of this phase stood, one mark a segment."""
        marks = {b.segment: b.mark for b in self.batches if b.phase == phase and b.mark is not None}
        return list(marks.values())

    @property
    def rejected(self) -> int:
        """Rows set aside."""
        return len(self.reasons)

    def months(self) -> list[str]:
        """The months that staged rows fall in."""
        return sorted({month for batch in self.batches for month in batch.months})

    def read(self, month: str) -> list[pl.DataFrame]:
        """The staged rows of one month, in the order they were fetched."""
        frames = [self._read(batch) for batch in self.batches if month in batch.months]
        return [frame.filter(created_month() == month) for frame in frames]

    def frame(self, *phases: str) -> pl.DataFrame:
        """All staged rows of these phases, or of all, in the order they were fetched."""
        batches = [batch for batch in self.batches if batch.rows and (not phases or batch.phase in phases)]
        return pl.concat([pl.DataFrame(schema=POLARS_SCHEMA), *map(self._read, batches)])

    def pages(self, *phases: str) -> Iterator[pl.DataFrame]:
        """The staged rows of these phases, batch by batch."""
        return (self._read(batch) for batch in self.batches if batch.rows and batch.phase in phases)

    def keep_rejected(self, folder: Path) -> None:
        """Copy the rows that were set aside to where they stay: ``_rejected/<run>.jsonl``."""
        files = [self.folder / f"{batch.file}.rejected.jsonl" for batch in self.batches if batch.rejected]
        if files:
            disk.make_folder(folder, private=True)
            for file in files:
                disk.append_line(folder / f"{self.run}.jsonl", disk.read_file(file).rstrip(b"\n"))
            disk.sync_folder(folder)

    def clear(self) -> None:
        """Remove it all."""
        disk.remove_tree(self.folder)

    def _note(self, batch: Batch) -> None:
        disk.append_line(self.folder / "journal.jsonl", msgspec.json.encode(batch))
        self.batches.append(batch)

    def _read(self, batch: Batch) -> pl.DataFrame:
        return pl.read_ipc(io.BytesIO(disk.read_file(self.folder / f"{batch.file}.arrow")))


def _name_folder(binding: str) -> str:
    return hashlib.sha256(binding.encode()).hexdigest()[:16]


def _read_journal(folder: Path) -> list[Batch]:
    """The lines that are whole, up to the first that is not, or whose file is not there."""
    if not (folder / "journal.jsonl").exists():
        return []
    batches: list[Batch] = []
    for line in disk.read_file(folder / "journal.jsonl").splitlines():
        try:
            batch = msgspec.json.decode(line, type=Batch)
        except msgspec.DecodeError:
            break
        if batch.file and not (folder / f"{batch.file}.arrow").exists():
            break
        batches.append(batch)
    return batches


def _spell_rejected(rejected: Sequence[Rejected]) -> bytes:
    lines = (
        {"page": row.page, "path": row.path, "reason": row.reason, "row": row.raw.decode("utf-8", "replace")}
        for row in rejected
    )
    return b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
