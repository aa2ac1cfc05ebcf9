"""What a merge makes of one version of a table: files to add, and files to remove."""

from __future__ import annotations

import hashlib
import io
import secrets
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from pleo_extract.delta.copies import check_sum, keep_copy, path_of
from pleo_extract.delta.log import State
from pleo_extract.delta.table import sum_names
from pleo_extract.errors import PleoExtractError
from pleo_extract.lake import FORMAT, FileEntry, disk
from pleo_extract.lake.merging import Merge
from pleo_extract.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from pleo_extract.delta.table import Table
    from pleo_extract.lake import Manifest, Staging
    from pleo_extract.refresh import Account

__all__ = ["VACUUM_EVERY", "Change", "make_state", "spell_file"]

VACUUM_EVERY: Final = timedelta(days=1)
"""How often files that no version needs are removed."""

FILE_ROWS: Final = 100_000
"""Rows of a file at most: some megabytes. A month that grows at its end keeps the files before."""
ROW_GROUP: Final = 50_000
"""Rows that a reader holds at once, at least."""


@dataclass(slots=True)
class Change:
    """Files to add to a version of a table and to remove from it, and the months they are of.

    Attributes:
        proven: the months with files of other programs in which every job was found once; see `State.proven`.
        spoiled: whether a file of it is gone, so that it can no longer be committed.
    """

    new: list[FileEntry] = field(default_factory=list)
    old: list[FileEntry] = field(default_factory=list)
    months: list[str] = field(default_factory=list)
    proven: dict[str, str] = field(default_factory=dict)
    spoiled: bool = False

    def merge(
        self,
        table: Table,
        scratch: Path,
        stagings: Sequence[Staging] = (),
        *,
        lost: Iterable[FileEntry] = (),
        search: bool = False,
        raced: bool = False,
    ) -> None:
        """Merge staged rows into the table, a month at a time, and write the files that come of it.

        Files that are to be removed already are left out.

        Args:
            table: the version to merge with.
            scratch: a folder of this machine, for what is sorted.
            stagings: what is staged.
            lost: files that another program has taken from the table while the list was read; their rows stay.
            raced: whether others have committed while the list was read: then their rows may be the later ones.
            search: whether all months are searched for jobs that they hold twice, not only those in doubt.
        """

        def read(entry: FileEntry) -> bytes:
            data = disk.read_file(path_of(table, entry))
            check_sum(entry, data, table.address.uri)
            return data

        merge = Merge(scratch, stagings, self.apply(table.manifest.files), read, raced=raced)
        merge.add_lost(lost)
        for month in merge.months:
            if merge.is_changed(month, search=search or month in table.suspects):
                self._write(table, month, merge)
            elif month in table.suspects:
                self.proven[month] = sum_names(merge.old[month])

    def stands_on(self, table: Table) -> bool:
        """Whether it may be committed on top of this version as well, where the same rows may lie in other files."""
        held = {entry.path for entry in table.manifest.files}
        return not self.spoiled and all(entry.path in held for entry in self.old)

    def apply(self, files: Iterable[FileEntry]) -> list[FileEntry]:
        """Return the files of the version that it makes of one with these."""
        gone = {entry.path for entry in self.old}
        return sorted([*(e for e in files if e.path not in gone), *self.new], key=lambda entry: entry.path)

    def discard(self, table: Table) -> None:
        """Remove files that were written and not committed; what cannot be removed goes with the next vacuum."""
        with suppress(PleoExtractError):
            table.remove([entry.path for entry in self.new])

    def _write(self, table: Table, month: str, merge: Merge) -> None:
        self.months.append(month)
        old = merge.old.get(month, [])
        there = {entry.sha256: entry for entry in old if entry.sha256}
        kept: set[str] = set()
        for part in _slice(merge.pieces(month)):
            entry, data = spell_file(month, part)
            if entry.sha256 in there:
                kept.add(there.pop(entry.sha256).path)
                continue
            table.write(entry.path, data)
            self.new.append(entry)
            keep_copy(table, entry, data)
        self.old += [entry for entry in old if entry.path not in kept]


def make_state(
    table: Table,
    run: str,
    change: Change,
    planned: Manifest,
    told: tuple[dict[str, Any], dict[str, Account]],
) -> State:
    """Return what a run writes into its commit.

    Args:
        table: the version that it is committed on top of.
        run: the run's own token.
        change: what it adds and removes.
        planned: the manifest of the version that it makes.
        told: the run's receipt, and the state of its accounts.
    """
    now, before = datetime.now(UTC), table.state
    last = before.vacuumed_at if before else now
    receipt, accounts = told
    return State(
        format=FORMAT,
        run=run,
        server=table.manifest.server,
        library=__version__,
        vacuumed_at=now if now - last >= VACUUM_EVERY else last,
        receipt=receipt,
        accounts={**planned.accounts, **accounts},
        proven=_keep_proven({**(before.proven if before else {}), **change.proven}, planned.files),
    )


def _keep_proven(proven: Mapping[str, str], files: Iterable[FileEntry]) -> dict[str, str]:
    """Return what is proven of months that have these very files, and need a proof since others wrote some of them."""
    months: dict[str, list[FileEntry]] = {}
    for entry in files:
        months.setdefault(entry.month, []).append(entry)
    return {
        month: proven[month]
        for month, held in months.items()
        if proven.get(month) == sum_names(held) and not all(entry.sha256 for entry in held)
    }


def _slice(pieces: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """The same rows, a file's at a time, however many there are in a piece."""
    held: list[pl.DataFrame] = []
    rows = 0
    for piece in pieces:
        held.append(piece)
        rows += piece.height
        if rows >= FILE_ROWS:
            *full, rest = pl.concat(held, rechunk=False).iter_slices(FILE_ROWS)
            yield from full
            held, rows = [rest], rest.height
    if rows:
        yield pl.concat(held, rechunk=False)


def spell_file(month: str, rows: pl.DataFrame) -> tuple[FileEntry, bytes]:
    """Return a file of these rows, named after its sum and by chance: a name is never used again."""
    buffer = io.BytesIO()
    rows.write_parquet(buffer, compression="zstd", compression_level=1, row_group_size=ROW_GROUP)
    data = buffer.getvalue()
    sha256 = hashlib.sha256(data).hexdigest()
    path = f"created_month={month}/part-{sha256}-{secrets.token_hex(4)}.parquet"
    return FileEntry(path=path, rows=rows.height, bytes=len(data), sha256=sha256), data
