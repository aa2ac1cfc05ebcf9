"""What is fetched but not yet published: batches of rows, and a journal that says which of them are whole.

A batch counts once its line is in the journal; the line is written after the batch is synced. One folder an
account, named after what binds it: server, company and query. The next run resumes there, under a new name: whoever
still writes to the old one, having lost the lake, finds it gone.

Staged pages save requests and nothing else: a run that resumes makes its closing reads itself (see `extract.closing`).
So staging has no age at which it turns wrong; what nobody resumed for `KEEP_STAGED` is removed.

What is found there is not trusted: names become paths, rows are published. A journal counts as far as each line, and
the file that it names, are what a run writes.
"""

from __future__ import annotations

import hashlib
import io
import re
import secrets
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import msgspec
import polars as pl

from pleo_extract.contract import KEY, POLARS_SCHEMA, STATUSES
from pleo_extract.core.rows import created_month, is_unknown, months_of
from pleo_extract.core.state import RejectedRecord
from pleo_extract.core.walk import Checkpoint
from pleo_extract.errors import LakeError
from pleo_extract.lake import disk, strict
from pleo_extract.lake.forgotten import NOTHING
from pleo_extract.lake.keys import Places, hash_id
from pleo_extract.lake.rejects import is_kept_in

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from pleo_extract.core.decode import Rejected
    from pleo_extract.core.state import JobKey

    Left = Mapping[str, Sequence[Path]]
    """Folders that earlier runs left, by what binds them."""

__all__ = ["KEEP_STAGED", "Header", "StagedBatch", "Staging", "find_resumable", "name_run", "spell_rejected"]

_RUN: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,63}")
_MODE: Final = re.compile(r"full|refresh|merge")
_PHASE: Final = re.compile(r"[a-z][0-9a-z_-]{0,31}")
_FILE: Final = re.compile(r"batch-[0-9]{6,9}")
_MONTH: Final = re.compile(r"[0-9]{4}-(?:0[1-9]|1[0-2])")
_SUM: Final = re.compile(r"[0-9a-f]{64}")
_NEEDED: Final = (*KEY, "created_at")
"""Columns without which a row has no place in a lake."""
KEEP_STAGED: Final = timedelta(days=30)
"""Staged pages that no run has added to for longer than this are removed."""


def name_run() -> str:
    """A name for this run: when it started (UTC), and something no other run has."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"


class StagedBatch(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the journal: a file of rows, the months they fall in, and where the walk stood after it.

    `phase` names the walk (``open``, ``new``, ``full`` …), `marks` says where its segments stood, `done` that nothing
    more of the phase is to come. A line without a file only says so. `sha256` is of the file's bytes.
    `names` and `spoiled` tell of the rows set aside, `unknown` names statuses of its rows that the contract does not know,
    `forgotten` holds a hash for each row that was read and is not there, since the lake has forgotten its job.
    """

    phase: str
    file: str = ""
    sha256: str = ""
    rows: int = 0
    months: list[str] = []
    marks: dict[int, Checkpoint] = {}
    done: bool = False
    rejected: list[str] = []
    names: list[str] = []
    spoiled: list[RejectedRecord] = []
    unknown: list[str] = []
    forgotten: list[str] = []


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
        leaving: by month, the jobs that no longer belong there: publishing drops their rows, the lake's and the staged ones.
        forgotten: what is not staged, since the lake has forgotten it.
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
        self._places = Places(folder.parent)
        self._unplaced = list(self.batches)

    @classmethod
    def start(cls, staging: Path, binding: str, header: Header, *, left: Left | None = None) -> Staging:
        """A new, empty one, in place of any of that binding; `left` is what `find_resumable` has found."""
        disk.make_folder(staging, private=True)
        for folder in _choose(find_resumable(staging) if left is None else left, binding):
            disk.remove_tree(folder)
        folder = _new_folder(staging, binding)
        disk.make_folder(folder, private=True)
        disk.write_file(folder / "run.json", msgspec.json.encode(header), private=True)
        disk.sync_folder(folder)
        return cls(folder, header)

    @classmethod
    def resume(cls, staging: Path, binding: str, *, base: int, left: Left | None = None) -> Staging | None:
        """Return what an earlier run of this binding left, if it began from the same state of the lake."""
        for found in _choose(find_resumable(staging) if left is None else left, binding):
            header = _read_header(found)
            if header is None or header.base != base:
                continue
            if batches := _read_journal(found):
                folder = _new_folder(staging, binding)
                disk.rename(found, folder)
                disk.sync_folder(staging)
                _mend_journal(folder, batches)
                return cls(folder, header, batches)
        return None

    def add(
        self,
        frame: pl.DataFrame,
        rejected: Sequence[Rejected] = (),
        *,
        phase: str = "full",
        marks: Mapping[int, Checkpoint] | None = None,
    ) -> pl.DataFrame:
        """Stage one batch; when this returns it will be found again.

        Args:
            frame: its rows.
            rejected: those that do not fit.
            phase: which walk read it.
            marks: by segment, where the walk stands now.

        Returns:
            The rows that were staged: all but those that the lake has forgotten, of which only the number is noted. A walk
            that stands at such a job is not marked: what it read since its last mark is read again after a kill.
        """
        stripped = self.forgotten.strip_rows(frame)
        rejected, lost = self.forgotten.strip_rejected(rejected)
        marks = {} if lost else self.forgotten.strip_marks(marks or {})
        frame = stripped.rows
        name = f"batch-{self._number:06d}"
        self._number += 1
        buffer = io.BytesIO()
        # As views, texts lie in buffers that rows share, and those of rows that are gone would be written with them.
        level = pl.CompatLevel.oldest() if stripped.lost or stripped.blanked else None
        frame.write_ipc(buffer, compression="uncompressed", compat_level=level)
        data = buffer.getvalue()
        disk.remove_file(self.folder / f"{name}.arrow")
        disk.write_file(self.folder / f"{name}.arrow", data, private=True)
        if rejected:
            disk.remove_file(self.folder / f"{name}.rejected.jsonl")
            disk.write_file(self.folder / f"{name}.rejected.jsonl", spell_rejected(rejected), private=True)
        disk.sync_folder(self.folder)
        batch = StagedBatch(
            phase=phase,
            file=name,
            sha256=hashlib.sha256(data).hexdigest(),
            rows=frame.height,
            months=months_of(frame),
            marks=marks,
            rejected=[str(row) for row in rejected],
            names=[row.name for row in rejected],
            spoiled=[RejectedRecord(created_at=row.created_at, sum=row.sum) for row in rejected],
            unknown=sorted(set(frame["status"].unique()).difference(STATUSES)),
            forgotten=[*(job for _, job in stripped.lost), *lost],
        )
        self._note(batch)
        self._place(batch, frame)
        self.reasons += batch.rejected
        self.names += batch.names
        return frame

    def finish(self, phase: str) -> None:
        """Nothing more of this phase is to come."""
        self._note(StagedBatch(phase=phase, done=True))

    def is_done(self, phase: str) -> bool:
        """Whether the phase was finished, by this run or the one it goes on with."""
        return any(batch.done for batch in self.batches if batch.phase == phase)

    def count_rows(self, phase: str) -> int:
        """Rows of this phase, those set aside or forgotten included."""
        batches = [batch for batch in self.batches if batch.phase == phase]
        return sum(batch.rows + len(batch.rejected) + len(batch.forgotten) for batch in batches)

    def met_forgotten(self) -> set[str]:
        """The hashes of the jobs that were read and are not staged, since the lake has forgotten them."""
        return {job for batch in self.batches for job in batch.forgotten}

    def marks(self, phase: str) -> dict[int, Checkpoint]:
        """Where the walk of this phase stood, by segment."""
        return {n: mark for batch in self.batches if batch.phase == phase for n, mark in batch.marks.items()}

    @property
    def rejected(self) -> int:
        """Rows set aside."""
        return len(self.reasons)

    def months(self) -> list[str]:
        """The months that staged rows fall in."""
        return sorted({month for batch in self.batches for month in batch.months})

    def read(self, month: str) -> Iterator[pl.DataFrame]:
        """The staged rows of one month, batch by batch, in the order they were fetched."""
        for batch in self.batches:
            if month in batch.months:
                rows = self._read(batch)
                yield rows if batch.months == [month] else rows.filter(created_month() == month)

    def frame(self, *phases: str) -> pl.DataFrame:
        """All staged rows of these phases, or of all, in the order they were fetched."""
        batches = [batch for batch in self.batches if batch.rows and (not phases or batch.phase in phases)]
        return pl.concat([pl.DataFrame(schema=POLARS_SCHEMA), *map(self._read, batches)])

    def pages(self, *phases: str) -> Iterator[pl.DataFrame]:
        """Yield the staged rows of these phases, or of all, batch by batch."""
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
        """The statuses of staged rows that the contract does not know."""
        return {status for batch in self.batches for status in batch.unknown}

    def read_unknown(self, month: str) -> pl.DataFrame:
        """The staged rows of one month whose status the contract does not know, in the order they were fetched."""
        batches = [batch for batch in self.batches if batch.unknown and month in batch.months]
        frames = (self._read(batch).filter(is_unknown(), created_month() == month) for batch in batches)
        return pl.concat([pl.DataFrame(schema=POLARS_SCHEMA), *frames])

    def find_split(self) -> pl.DataFrame:
        """Return all staged rows of the jobs that are staged under two months or more, in the order they were fetched."""
        nothing = pl.DataFrame(schema=POLARS_SCHEMA)
        if len(self.months()) < 2:
            return nothing
        while self._unplaced:
            if (batch := self._unplaced.pop()).rows:
                self._place(batch, self._read(batch))
        suspects = self._places.find_split()
        if suspects.is_empty():
            return nothing
        frames = (self._read(batch) for batch in self.batches if batch.rows)
        rows = pl.concat(frame.filter(hash_id().is_in(suspects.implode())) for frame in frames)
        return rows.filter(created_month().n_unique().over(KEY) > 1)

    def unresolved(self) -> set[str]:
        """Names of the rows that were set aside and not read right since."""
        bad: set[str] = set()
        for batch in self.batches:
            if bad and batch.rows:
                names = self._read(batch).select(pl.concat_str(KEY, separator="/")).to_series()
                bad.difference_update(names.filter(names.is_in(pl.Series(list(bad)).implode())))
            bad.update(batch.names)
        return bad

    def place_rejected(self, folder: Path, known: Mapping[str, RejectedRecord]) -> dict[str, RejectedRecord]:
        """Say of each row set aside in which file of this folder it is kept: the `known` one where it says the same still."""
        mine = f"{self.run}-{self.folder.name.partition('-')[0]}.jsonl"  # a run of many accounts has many
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
        """Copy the rows that were set aside to where they stay: ``_lake/rejected/<run>-<account>.jsonl``; the same again if repeated.

        A row that is `known` and says what it said before is in a file already.

        Returns:
            Where each row is kept, by name.
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

    def clear(self) -> None:
        """Remove it all."""
        self._places.close()
        disk.remove_tree(self.folder)

    def _place(self, batch: StagedBatch, frame: pl.DataFrame) -> None:
        for month in batch.months:
            rows = frame if len(batch.months) == 1 else frame.filter(created_month() == month)
            self._places.add(month, rows["id"])

    def restart(self) -> None:
        """Forget every staged row, and stage from the beginning in the same place."""
        disk.replace_file(self.folder / "journal.jsonl", b"", private=True)
        for batch in self.batches:
            for suffix in ("arrow", "rejected.jsonl"):
                disk.remove_file(self.folder / f"{batch.file}.{suffix}")
        self._places.close()
        self.batches, self.reasons, self.names = [], [], []
        self.leaving = {}
        self._number = 0
        self._places.close()
        self._places, self._unplaced = Places(self.folder.parent), []

    def _note(self, batch: StagedBatch) -> None:
        disk.append_line(self.folder / "journal.jsonl", msgspec.json.encode(batch))
        self.batches.append(batch)

    def _read(self, batch: StagedBatch) -> pl.DataFrame:
        path = self.folder / f"{batch.file}.arrow"
        frame = _read_frame(disk.read_file(path))
        if frame is None:
            raise LakeError(
                f"{path} changed since it was written; run again, it will be read from the server"
            )
        return frame


def _name_binding(binding: str) -> str:
    return hashlib.sha256(binding.encode()).hexdigest()[:16]


def _new_folder(staging: Path, binding: str) -> Path:
    return staging / f"{_name_binding(binding)}-{secrets.token_hex(4)}"


def find_resumable(staging: Path) -> Left:
    """What there is of each binding, a link or a file in its place included; looked for once for many accounts."""
    left: dict[str, list[Path]] = {}
    for path in disk.list_folder(staging):
        left.setdefault(path.name.partition("-")[0], []).append(path)
    return left


def _choose(left: Left, binding: str) -> Sequence[Path]:
    return left.get(_name_binding(binding), ())


def _read_header(folder: Path) -> Header | None:
    if folder.is_symlink():
        return None
    try:
        header = strict.decode(disk.read_file(folder / "run.json"), Header)
        strict.check_count(header.base, "base")
        started_at = strict.read_instant(header.started_at, "started_at")
    except (LakeError, strict.Malformed):
        return None
    if not _RUN.fullmatch(header.run) or not _MODE.fullmatch(header.mode):
        return None
    return msgspec.structs.replace(header, started_at=started_at)


def _read_journal(folder: Path) -> list[StagedBatch]:
    """The lines that are whole, up to the first that is not, or whose file is not as it was written."""
    try:
        lines = disk.read_file(folder / "journal.jsonl").split(b"\n")
    except LakeError:
        return []
    batches: list[StagedBatch] = []
    for line in lines:
        try:
            batch = strict.decode(line, StagedBatch)
            _check_batch(batch)
        except strict.Malformed:
            break
        if batch.file and not _is_whole(folder, batch):
            break
        batches.append(batch)
    return batches


def _check_batch(batch: StagedBatch) -> None:
    """Refuse a line that no run has written.

    Raises:
        strict.Malformed: a name that is none, a count that is none.
    """
    is_named = _PHASE.fullmatch(batch.phase) and (not batch.file or _FILE.fullmatch(batch.file))
    if not is_named or not all(map(_MONTH.fullmatch, batch.months)):
        raise strict.Malformed("a phase, a file or a month that is none")
    if not all(map(strict.HASH.fullmatch, batch.forgotten)):
        raise strict.Malformed("a hash that is none")
    if batch.file and not _SUM.fullmatch(batch.sha256):
        raise strict.Malformed("a sum that is none")
    if not batch.file and (batch.rows or batch.months or batch.rejected):
        raise strict.Malformed("rows without a file")
    strict.check_count(batch.rows, "rows")
    for number, mark in batch.marks.items():
        strict.check_count(number, "a segment")
        strict.check_mark(mark)


def _is_whole(folder: Path, batch: StagedBatch) -> bool:
    try:
        if batch.rejected:
            disk.read_file(folder / f"{batch.file}.rejected.jsonl")
        data = disk.read_file(folder / f"{batch.file}.arrow")
    except LakeError:
        return False
    if hashlib.sha256(data).hexdigest() != batch.sha256:
        return False
    frame = _read_frame(data)
    return frame is not None and (frame.height, months_of(frame)) == (batch.rows, batch.months)


def _read_frame(data: bytes) -> pl.DataFrame | None:
    """The rows of a batch; None where the bytes are none of ours."""
    try:
        frame = pl.read_ipc(io.BytesIO(data))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError):
        return None
    return (
        frame
        if frame.schema == POLARS_SCHEMA and not any(frame[name].has_nulls() for name in _NEEDED)
        else None
    )


def _mend_journal(folder: Path, batches: list[StagedBatch]) -> None:
    """Without what follows the whole lines: one that is cut short would spoil the next; and under no second name."""
    data = b"".join(msgspec.json.encode(batch) + b"\n" for batch in batches)
    disk.replace_file(folder / "journal.jsonl", data, private=True)


def spell_rejected(rejected: Sequence[Rejected]) -> bytes:
    """Return the lines of a file of rows that do not fit."""
    lines = (
        {"page": row.page, "path": row.path, "reason": row.reason, "row": row.raw.decode("utf-8", "replace")}
        for row in rejected
    )
    return b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
