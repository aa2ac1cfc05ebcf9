"""Keep what is fetched but not yet published: batches of rows, which the next run finds if this one is killed.

Theory of operation. Each account has a folder of its own, `_lake/staging/<hash of its key>-<random>/`, with the rows of
each batch in a file and a journal that says which batches are whole (see `journal`). The files are written and synced first,
then the line of the journal. So a kill costs the pages that are not staged yet, about `fetch.driver.BATCH_ROWS` rows, and
nothing that an earlier batch has. A file without a line is overwritten by the next batch of its number.

The next run resumes if the account was not published since and the lake has forgotten no more jobs (`Header.base`). It moves
the folder to a new name, so that a paused run, which has lost the lake and wakes up late, no longer finds it and stages
nothing more. Then it writes the journal again without what is not whole.

Staged pages save requests and do nothing else: a run that resumes makes its closing reads itself (see `sync.closing`), so
staging has no age at which it becomes wrong. What nobody has resumed for `KEEP_STAGED` is removed. `sync/account.py` stages
an account and hands its folder on.
"""

from __future__ import annotations

import hashlib
import secrets
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import TYPE_CHECKING, Final

import polars as pl

from pleo_extract.contract import KEY, POLARS_SCHEMA, STATUSES
from pleo_extract.core.rows import count_months, created_month, is_unknown, job_name
from pleo_extract.core.state import RejectedRecord
from pleo_extract.errors import LakeError, StorageError
from pleo_extract.lake import disk
from pleo_extract.lake.batches import HELD, decode_rows, encode_rows
from pleo_extract.lake.forgotten import NOTHING
from pleo_extract.lake.journal import (
    StagedBatch,
    append_batch,
    read_header,
    read_journal,
    read_lines,
    write_header,
    write_journal,
)
from pleo_extract.lake.keys import IdInstants, hash_id
from pleo_extract.lake.rejects import encode_rejected, is_kept_in

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from pleo_extract.core.decode import Rejected
    from pleo_extract.core.state import JobKey
    from pleo_extract.core.walk import Checkpoint
    from pleo_extract.lake.journal import Header

    Left = Mapping[str, Sequence[Path]]
    """The staging folders that earlier runs left, by the hash of their owner."""

__all__ = [
    "KEEP_STAGED",
    "Staging",
    "count_staged",
    "count_staged_full",
    "find_resumable",
    "may_continue",
    "name_run",
]

KEEP_STAGED: Final = timedelta(days=30)
"""How long staged pages are kept after a run last added to them."""
SHORT: Final = 2
"""Pages of a whole list that is read again rather than continued."""


def name_run() -> str:
    """Return a name for this run: when it started (UTC), and a random part."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"


class Staging:
    """The staging folder of one account, or of one merge.

    Attributes:
        folder: where it is.
        run: the run that began it.
        mode: how that run reads.
        batches: its journal.
        resumed: True if an earlier run began it.
        reasons: one line for each row that does not fit the contract.
        names: what these rows are called, see `decode.Rejected`.
        leaving: by month, the jobs that no longer belong there: publishing drops their rows, the lake's and the staged ones.
        forgotten: the jobs and people that the lake has forgotten: these are not staged.
    """

    def __init__(self, folder: Path, header: Header, batches: list[StagedBatch] | None = None) -> None:
        self.folder = folder
        self.run = header.run
        self.mode = header.mode
        self.batches = batches or []
        self.resumed = batches is not None
        self.reasons = [reason for batch in self.batches for reason in batch.rejected]
        self.names = [name for batch in self.batches for name in batch.names]
        self.leaving: dict[str, set[JobKey]] = {}
        self.forgotten = NOTHING
        self._number = len(self.batches)
        self._id_instants = IdInstants(folder.parent)
        self._unnoted = list(self.batches)  # of an earlier run; read only if `find_moved` is called

    @classmethod
    def start(cls, staging: Path, owner: str, header: Header, *, left: Left | None = None) -> Staging:
        """Make a new, empty staging folder, in place of any of that owner.

        Args:
            staging: the folder that holds all staging folders.
            owner: what it is for: the key of an account, or the source of a merge.
            header: what the run is.
            left: what `find_resumable` has found, if it was called before.
        """
        disk.make_folder(staging, private=True)
        for folder in _find_folders(staging, owner, left):
            disk.remove_tree(folder)
        folder = _new_folder(staging, owner)
        disk.make_folder(folder, private=True)
        write_header(folder, header)
        disk.sync_folder(folder)
        return cls(folder, header)

    @classmethod
    def resume(cls, staging: Path, owner: str, *, base: int, left: Left | None = None) -> Staging | None:
        """Return what an earlier run has staged for this owner, if it began from the same state of the lake."""
        for found in _find_folders(staging, owner, left):
            header = read_header(found)
            if header is None or header.base != base:
                continue
            if batches := read_journal(found):
                folder = _new_folder(staging, owner)
                disk.rename(found, folder)
                disk.sync_folder(staging)
                write_journal(folder, batches)
                return cls(folder, header, batches)
        return None

    def add(
        self,
        frame: pl.DataFrame,
        rejected: Sequence[Rejected] = (),
        *,
        phase: str = "full",
        checkpoints: Mapping[int, Checkpoint] | None = None,
    ) -> pl.DataFrame:
        """Stage one batch; once this returns, a later run finds it.

        Args:
            frame: its rows.
            rejected: rows that do not fit the contract.
            phase: the walk that read it.
            checkpoints: by segment, where the walk stands now.

        Returns:
            The rows that were staged: all but those of forgotten jobs, which are only counted. If the batch has any of
            these, it has no checkpoints, since a cursor can spell an id: what was read since the last checkpoint is read
            again after a kill.
        """
        stripped = self.forgotten.strip_rows(frame)
        rejected, lost = self.forgotten.strip_rejected(rejected)
        checkpoints = {} if lost else self.forgotten.strip_checkpoints(checkpoints or {})
        frame, months = stripped.rows, count_months(stripped.rows)
        is_mixed = len(months) > 1 and len(checkpoints) > 1
        if is_mixed:  # rows of several segments have no order among each other
            frame = frame.sort("created_at", maintain_order=True)
        name = f"batch-{self._number:06d}"
        self._number += 1
        data = encode_rows(frame, whole=not (stripped.lost or stripped.blanked))
        self._write(f"{name}.arrow", data)
        if rejected:
            self._write(f"{name}.rejected.jsonl", encode_rejected(rejected))
        disk.sync_folder(self.folder)
        batch = StagedBatch(
            phase=phase,
            file=name,
            sha256=hashlib.sha256(data).hexdigest(),
            rows=frame.height,
            months=[*months],
            counts=[*months.values()],
            is_sorted=len(months) > 1 and frame["created_at"].is_sorted(),
            checkpoints=checkpoints,
            rejected=[str(row) for row in rejected],
            names=[row.name for row in rejected],
            spoiled=[RejectedRecord(created_at=row.created_at, sum=row.sum) for row in rejected],
            unknown=sorted(set(frame["status"].unique()).difference(STATUSES)),
            forgotten=[*(job for _, job in stripped.lost), *lost],
        )
        self._append(batch)
        # An incremental sync reads its few pages again and again. A batch of one full walk has few months; of thousands
        # of companies, it would only fill memory.
        if is_mixed or phase != "full":
            HELD.put(self.folder / f"{name}.arrow", frame, len(data))
        self._id_instants.add(frame)
        self.reasons += batch.rejected
        self.names += batch.names
        return frame

    def finish(self, phase: str) -> None:
        """Record that the phase has ended."""
        self._append(StagedBatch(phase=phase, done=True))

    def is_done(self, phase: str) -> bool:
        """Return whether the phase has ended, in this run or in the one that it resumes."""
        return _has_ended(self.batches, phase)

    def count_rows(self, phase: str) -> int:
        """Return how many rows the phase has read, rejected and forgotten ones included."""
        batches = [batch for batch in self.batches if batch.phase == phase]
        return sum(batch.rows + len(batch.rejected) + len(batch.forgotten) for batch in batches)

    def met_forgotten(self, *phases: str) -> set[str]:
        """Return the hashes of the jobs that these phases read and did not stage, because the lake has forgotten them."""
        batches = [batch for batch in self.batches if not phases or batch.phase in phases]
        return {job for batch in batches for job in batch.forgotten}

    def checkpoints(self, phase: str) -> dict[int, Checkpoint]:
        """Return where the walk of this phase stood, by segment."""
        return _find_checkpoints(self.batches, phase)

    @property
    def rejected(self) -> int:
        """How many rows do not fit the contract."""
        return len(self.reasons)

    def months(self) -> list[str]:
        """Return the months of the staged rows, in order."""
        return sorted({month for batch in self.batches for month in batch.months})

    def count_month(self, month: str) -> int:
        """Return how many rows of this month are staged; for batches of older versions that did not count, at most."""
        return sum(
            batch.counts[batch.months.index(month)] if batch.counts else batch.rows
            for batch in self.batches
            if month in batch.months
        )

    def read(self, month: str, *phases: str) -> Iterator[pl.DataFrame]:
        """Yield the rows of one month that these phases, or all, staged, batch by batch, in the order they were fetched."""
        for batch in self.batches:
            if month in batch.months and (not phases or batch.phase in phases):
                yield _take_month(self._read(batch), batch, month)

    def frame(self, *phases: str) -> pl.DataFrame:
        """Return all staged rows of these phases, or of all phases, in the order they were fetched."""
        return pl.concat([pl.DataFrame(schema=POLARS_SCHEMA), *self.pages(*phases)])

    def pages(self, *phases: str) -> Iterator[pl.DataFrame]:
        """Yield the staged rows of these phases, or of all phases, batch by batch."""
        batches = [batch for batch in self.batches if batch.rows and (not phases or batch.phase in phases)]
        return map(self._read, batches)

    def numbered(
        self, *, start: int = 0, months: Collection[str] | None = None
    ) -> Iterator[tuple[int, pl.DataFrame]]:
        """Yield the number and the rows of each batch from number `start` on, or of those with rows of these months."""
        for n, batch in enumerate(self.batches[start:], start):
            if batch.rows and (months is None or not set(months).isdisjoint(batch.months)):
                yield n, self._read(batch)

    def unknown_statuses(self) -> set[str]:
        """Return the statuses of staged rows that the contract does not know."""
        return {status for batch in self.batches for status in batch.unknown}

    def read_unknown(self, month: str) -> pl.DataFrame:
        """Return the staged rows of one month whose status the contract does not know, in the order they were fetched."""
        batches = [batch for batch in self.batches if batch.unknown and month in batch.months]
        frames = (self._read(batch).filter(is_unknown(), created_month() == month) for batch in batches)
        return pl.concat([pl.DataFrame(schema=POLARS_SCHEMA), *frames])

    def find_moved(self) -> pl.DataFrame:
        """Return all staged rows of the jobs that are staged with two created_at or more, in the order they were fetched.

        A column `phase` says which walk read them.
        """
        while self._unnoted:
            if (batch := self._unnoted.pop()).rows:
                self._id_instants.add(self._read(batch))
        suspects = self._id_instants.find_moved()
        if suspects.is_empty():
            return pl.DataFrame(schema=POLARS_SCHEMA | {"phase": pl.String()})
        frames = ((self._read(batch), batch.phase) for batch in self.batches if batch.rows)
        rows = pl.concat(
            frame.filter(hash_id().is_in(suspects.implode())).with_columns(phase=pl.lit(phase))
            for frame, phase in frames
        )
        return rows.filter(pl.col("created_at").n_unique().over(KEY) > 1)

    def unresolved(self) -> set[str]:
        """Return the names of the rows that were rejected and that no later batch has shown without fault."""
        bad: set[str] = set()
        for batch in self.batches:
            if bad and batch.rows:
                names = self._read(batch).select(job_name()).to_series()
                bad.difference_update(names.filter(names.is_in(pl.Series(list(bad)).implode())))
            bad.update(batch.names)
        return bad

    def place_rejected(self, folder: Path, known: Mapping[str, RejectedRecord]) -> dict[str, RejectedRecord]:
        """Return a record for each rejected row, with the file of this folder that keeps it.

        Args:
            folder: the folder of rejected rows.
            known: records of earlier runs; a row that still says the same stays in the file it is in.
        """
        mine = f"{self.run}-{self.folder.name.partition('-')[0]}.jsonl"  # a run of many accounts writes many files
        placed: dict[str, RejectedRecord] = {}
        for batch in self.batches:
            for name, row in zip(batch.names, batch.spoiled, strict=False):
                old = known.get(name)
                is_kept = old is not None and old.sum == row.sum and is_kept_in(folder, old.file)
                file = old.file if old is not None and is_kept else mine
                placed[name] = RejectedRecord(created_at=row.created_at, sum=row.sum, file=file)
        return placed

    def keep_rejected(
        self, folder: Path, known: Mapping[str, RejectedRecord] | None = None
    ) -> dict[str, RejectedRecord]:
        """Copy the rejected rows to ``_lake/rejected/<run>-<account>.jsonl``; repeated, it writes the same file again.

        A row that an earlier run has kept, and that still says the same, is not copied: a row that stays bad makes one file
        and not one a run.

        Args:
            folder: the folder of rejected rows.
            known: records of earlier runs, by name.

        Returns:
            As `place_rejected`.
        """
        placed = self.place_rejected(folder, known or {})
        lines: dict[str, bytes] = {}
        target = ""
        for batch in self.batches:
            if not batch.rejected:
                continue
            data = disk.read_file(self.folder / f"{batch.file}.rejected.jsonl")
            for name, row, line in zip(
                batch.names, batch.spoiled, data.splitlines(keepends=True), strict=False
            ):
                old = (known or {}).get(name)
                if old is None or (old.sum, old.file) != (row.sum, placed[name].file):
                    lines[f"{name} {row.sum}"] = line
                    target = placed[name].file
        if lines:
            disk.make_folder(folder, private=True)
            disk.replace_file(folder / target, b"".join(lines.values()), private=True)
        return placed

    def restart(self) -> None:
        """Drop every staged row, and stage from the beginning in the same folder."""
        write_journal(self.folder, [])
        for batch in self.batches:
            for suffix in ("arrow", "rejected.jsonl"):
                disk.remove_file(self.folder / f"{batch.file}.{suffix}")
        self.batches, self.reasons, self.names = [], [], []
        self.leaving = {}
        self._number = 0
        self.release()
        self._id_instants.close()
        self._id_instants, self._unnoted = IdInstants(self.folder.parent), []

    def release(self) -> None:
        """Hold no batch in memory any more; each is on the disk."""
        HELD.drop(self.folder)

    def clear(self) -> None:
        """Remove the folder."""
        self.release()
        self._id_instants.close()
        disk.remove_tree(self.folder)

    def _write(self, name: str, data: bytes) -> None:
        # A run that was killed before its journal line can have left one.
        disk.remove_file(self.folder / name)
        disk.write_file(self.folder / name, data, private=True)

    def _append(self, batch: StagedBatch) -> None:
        append_batch(self.folder, batch)
        self.batches.append(batch)

    def _read(self, batch: StagedBatch) -> pl.DataFrame:
        path = self.folder / f"{batch.file}.arrow"
        held = HELD.get(path)
        frame = decode_rows(disk.read_file(path)) if held is None else held
        if frame is None:
            raise LakeError(
                f"{path} has changed since it was written; run again to read its rows from the server"
            )
        return frame


def _hash_owner(owner: str) -> str:
    return hashlib.sha256(owner.encode()).hexdigest()[:16]


def _new_folder(staging: Path, owner: str) -> Path:
    return staging / f"{_hash_owner(owner)}-{secrets.token_hex(4)}"


def find_resumable(staging: Path) -> Left:
    """Return what lies in the folder of all staging folders, by the hash of its owner; links and files included.

    One call serves all accounts of a run: there can be 10,000.
    """
    left: dict[str, list[Path]] = {}
    for path in disk.list_folder(staging):
        left.setdefault(path.name.partition("-")[0], []).append(path)
    return left


def count_staged(staging: Path, owner: str | None = None) -> int:
    """Return how many rows lie there, for one owner or for all. No batch is read.

    Staging is private: a user who may not read it counts nothing.
    """
    try:
        left = find_resumable(staging)
    except StorageError:
        return 0
    owned = left.values() if owner is None else [left.get(_hash_owner(owner), ())]
    folders = [folder for folder in chain.from_iterable(owned) if read_header(folder) is not None]
    return sum(batch.rows for folder in folders for batch in read_lines(folder))


def count_staged_full(staging: Path, owner: str, *, base: int, mode: str) -> int | None:
    """Return how many rows of a full sync a run in this mode would continue; None if there is none. No batch is read.

    An incremental sync that gave way to a full one is a full sync.
    """
    try:
        folders = _find_folders(staging, owner, None)
    except StorageError:
        return None
    for folder in folders:
        header, batches = read_header(folder), list(read_lines(folder))
        if header is None or header.base != base or not batches:
            continue
        is_full = header.mode == "full" or _has_ended(batches, "refresh")
        is_continued = is_full and may_continue(header.mode, batches, mode)
        return sum(batch.rows for batch in batches) if is_continued else None
    return None


def may_continue(mode: str, batches: Sequence[StagedBatch], next_mode: str) -> bool:
    """Return whether a run in `next_mode` is to continue what a run in `mode` has staged.

    What an incremental sync staged cannot stand in for a full sync. A list of a page or two is read again, which costs no
    more than the closing reads over it.
    """
    if mode == "refresh" and next_mode == "full":
        return False
    checkpoints = _find_checkpoints(batches, "full").values()
    is_whole = bool(checkpoints) and all(each.at_end for each in checkpoints)
    return not is_whole or sum(each.pages for each in checkpoints) > SHORT


def _has_ended(batches: Sequence[StagedBatch], phase: str) -> bool:
    return any(batch.done for batch in batches if batch.phase == phase)


def _find_checkpoints(batches: Sequence[StagedBatch], phase: str) -> dict[int, Checkpoint]:
    own = [batch for batch in batches if batch.phase == phase]
    return {number: each for batch in own for number, each in batch.checkpoints.items()}


def _find_folders(staging: Path, owner: str, left: Left | None) -> Sequence[Path]:
    found = find_resumable(staging) if left is None else left
    return found.get(_hash_owner(owner), ())


def _take_month(rows: pl.DataFrame, batch: StagedBatch, month: str) -> pl.DataFrame:
    """Return the rows of a batch that belong to this month, in the same order."""
    if len(batch.months) == 1:
        return rows
    if batch.is_sorted and batch.counts:
        place = batch.months.index(month)
        return rows.slice(sum(batch.counts[:place]), batch.counts[place])
    return rows.filter(created_month() == month)
