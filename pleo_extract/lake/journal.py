"""The files of a staging folder that say what is in it: what the run is, and which batches are whole.

Theory of operation. A staging folder holds:

    run.json                       the run that began it, and the state of the lake that it began from
    batch-000000.arrow             rows, as an Arrow stream
    batch-000000.rejected.jsonl    the rows of the same pages that do not fit the contract
    journal.jsonl                  one line a batch: sha256, rows, months, and where each segment of the walk stood after it

A batch counts once its line is in the journal. A journal is read up to the first line that is not whole, or whose file has
other bytes, and written again without the rest, since a line that was cut short would spoil the next one.

Nothing that is found in a staging folder is trusted, since names there become paths and rows are published: a line counts
only if it, and the file that it names, are such as a run writes.
"""

from __future__ import annotations

import hashlib
import re
from datetime import datetime
from itertools import takewhile
from typing import TYPE_CHECKING, Final

import msgspec

from pleo_extract.core.rows import count_months
from pleo_extract.core.state import RejectedRecord
from pleo_extract.core.walk import Checkpoint
from pleo_extract.errors import LakeError
from pleo_extract.lake import disk, strict
from pleo_extract.lake.batches import decode_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

__all__ = [
    "Header",
    "StagedBatch",
    "append_batch",
    "read_header",
    "read_journal",
    "read_lines",
    "write_header",
    "write_journal",
]

_HEADER: Final = "run.json"
_JOURNAL: Final = "journal.jsonl"
_RUN: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,63}")
_MODE: Final = re.compile(r"full|refresh|merge")
_PHASE: Final = re.compile(r"[a-z][0-9a-z_-]{0,31}")
_FILE: Final = re.compile(r"batch-[0-9]{6,9}")


class StagedBatch(msgspec.Struct, frozen=True, kw_only=True, rename={"checkpoints": "marks"}):
    """A line of the journal.

    Attributes:
        phase: the walk that read it: ``open``, ``new``, ``full`` and others.
        file: the name of its files without an ending; empty for a line that only says `done`.
        sha256: the hash of the Arrow file.
        rows: how many rows it has.
        months: the months of these rows.
        counts: how many of the rows each of these months has; empty in journals of older versions.
        is_sorted: whether the rows of several months are in order of created_at.
        checkpoints: where the walk stood after it, by segment; ``marks`` in the journal.
        done: True if the phase has ended.
        rejected: one line for each row that does not fit the contract.
        names: what these rows are called, see `decode.Rejected`.
        spoiled: what must be known of each of these rows to find it again.
        unknown: statuses of its rows that the contract does not know.
        forgotten: a hash for each row that was read and not staged, because the lake has forgotten its job.
    """

    phase: str
    file: str = ""
    sha256: str = ""
    rows: int = 0
    months: list[str] = []
    counts: list[int] = []
    is_sorted: bool = False
    checkpoints: dict[int, Checkpoint] = {}
    done: bool = False
    rejected: list[str] = []
    names: list[str] = []
    spoiled: list[RejectedRecord] = []
    unknown: list[str] = []
    forgotten: list[str] = []


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What a staging folder is for.

    Attributes:
        run: the name of the run that began it.
        mode: ``full``, ``refresh`` or ``merge``.
        base: a number for the state of the lake that it began from; another state has another number.
        started_at: when the run began (UTC).
    """

    run: str
    mode: str
    base: int
    started_at: datetime


def write_header(folder: Path, header: Header) -> None:
    """Write what a new staging folder is for."""
    disk.write_file(folder / _HEADER, msgspec.json.encode(header), private=True)


def append_batch(folder: Path, batch: StagedBatch) -> None:
    """Add a line to the journal. Once this returns, a later run finds the batch."""
    disk.append_line(folder / _JOURNAL, msgspec.json.encode(batch))


def write_journal(folder: Path, batches: Sequence[StagedBatch]) -> None:
    """Replace the journal.

    As a new file: without a line that was cut short, and without the second name that a backup has given it.
    """
    data = b"".join(msgspec.json.encode(batch) + b"\n" for batch in batches)
    disk.replace_file(folder / _JOURNAL, data, private=True)


def read_header(folder: Path) -> Header | None:
    """Return what a staging folder is for; None if it says nothing that a run writes."""
    if folder.is_symlink():
        return None
    try:
        header = strict.decode(disk.read_file(folder / _HEADER), Header)
        strict.check_count(header.base, "base")
        started_at = strict.check_instant(header.started_at, "started_at")
    except (LakeError, strict.Malformed):
        return None
    if not _RUN.fullmatch(header.run) or not _MODE.fullmatch(header.mode):
        return None
    return msgspec.structs.replace(header, started_at=started_at)


def read_journal(folder: Path) -> list[StagedBatch]:
    """Return the batches up to the first line that is not whole, or whose file has other bytes than were written."""
    return list(takewhile(lambda batch: not batch.file or _is_whole(folder, batch), read_lines(folder)))


def read_lines(folder: Path) -> Iterator[StagedBatch]:
    """Yield the lines of a journal up to the first one that is not whole; their files are not read."""
    try:
        lines = disk.read_file(folder / _JOURNAL).split(b"\n")
    except LakeError:
        return
    for line in lines:
        try:
            batch = strict.decode(line, StagedBatch)
            _check_batch(batch)
        except strict.Malformed:
            return
        yield batch


def _check_batch(batch: StagedBatch) -> None:
    """Refuse a line that no run writes.

    Raises:
        strict.Malformed: a value of it is out of its range.
    """
    is_named = _PHASE.fullmatch(batch.phase) and (not batch.file or _FILE.fullmatch(batch.file))
    if not is_named or not all(map(strict.MONTH.fullmatch, batch.months)):
        raise strict.Malformed("invalid phase, file or month")
    if not all(map(strict.HASH.fullmatch, batch.forgotten)):
        raise strict.Malformed("invalid hash")
    if batch.file and not strict.SHA256.fullmatch(batch.sha256):
        raise strict.Malformed("invalid sha256")
    if not batch.file and (batch.rows or batch.months or batch.rejected):
        raise strict.Malformed("rows without a file")
    for count in (batch.rows, *batch.counts):
        strict.check_count(count, "rows")
    for number, checkpoint in batch.checkpoints.items():
        strict.check_count(number, "a segment")
        strict.check_checkpoint(checkpoint)


def _is_whole(folder: Path, batch: StagedBatch) -> bool:
    try:
        if batch.rejected:
            disk.read_file(folder / f"{batch.file}.rejected.jsonl")
        data = disk.read_file(folder / f"{batch.file}.arrow")
    except LakeError:
        return False
    if hashlib.sha256(data).hexdigest() != batch.sha256:
        return False
    frame = decode_rows(data)
    if frame is None or frame.height != batch.rows:
        return False
    months = count_months(frame)
    is_counted = [*months] == batch.months and batch.counts in ([], [*months.values()])
    return is_counted and (not batch.is_sorted or frame["created_at"].is_sorted())
