"""What publishing needs of a table: a base to merge with, a place to write files, and a commit on top of that base.

A folder of Parquet and a Delta table are such tables, and tests/table has one that lies in memory; one suite of tests runs
over all three. Here is what they share: how staged rows become a change, and what can be said of it before the commit.

Theory of operation. Publishing is optimistic: nobody waits for another writer, and whoever comes second merges again.

1. `latest` returns the Base: the state to merge with now.
2. `merge_staged` merges the staged rows into it, month by month. It writes the months that have changed to new files that
   no reader sees (`write`), and lists them in a Change.
3. `commit` makes the change current if the base still is. If another commit came first it raises LakeConflict, and the run
   goes back to step 1. The files of the first try stay if the new base has the same files (`Change.fits`): then the other
   commit was one of state alone, as those of other accounts' runs often are.
4. `discard` removes what was written for a change that is given up.

Three things can go wrong between the steps. The answer to a commit is lost: `is_published` says whether it got through.
Another program removes files from a Delta table: those of the base come back, since a dump mirrors the server's list
(`Base.lost`), and missing new files make the change spoiled. A writer was paused and has lost the lock: `hold` gives a
function that every table calls before it puts anything in place. The loop itself is in `sync.publish`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Protocol

from pleo_extract.lake.merging import MonthMerge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    import polars as pl

    from pleo_extract.core.state import AccountKey, SyncState
    from pleo_extract.lake.layout import FileEntry, Manifest
    from pleo_extract.lake.staging import Staging

__all__ = ["KEEP", "KEEP_COUNT", "Base", "Change", "Files", "Info", "Keep", "Table", "merge_staged"]

KEEP: Final = timedelta(hours=24)
"""How long a snapshot stays after it was replaced, so that readers can finish."""
KEEP_COUNT: Final = 1_000
"""How many snapshots stay, at most."""


@dataclass(frozen=True, slots=True)
class Keep:
    """Which snapshots stay beside the current one.

    Attributes:
        span: how long each stays after it was replaced.
        count: how many stay, at most.
        every: True to keep all of them for that long. By default only the last of each day stays, of those that were
            replaced more than `KEEP_ALL` ago.
    """

    span: timedelta = KEEP
    count: int = KEEP_COUNT
    every: bool = False


@dataclass(frozen=True, slots=True)
class Base:
    """A state of a table: a change is made from it and committed on top of it.

    Attributes:
        number: the number of its snapshot; 0 before the first.
        manifest: its description; None before the first snapshot.
        files: its files.
        suspects: months that may hold a job twice; the merge searches them.
        lost: files that another program has removed from the table since the run began; their rows come back.
        rewrite: months that are written even if no row has changed.
        is_raced: True if others have committed since the run began: then their rows can be later than the staged ones.
        must_commit: True if it is committed even if nothing was merged.
    """

    number: int
    manifest: Manifest | None
    files: Sequence[FileEntry] = ()
    suspects: frozenset[str] = frozenset()
    lost: Sequence[FileEntry] = ()
    rewrite: frozenset[str] = frozenset()
    is_raced: bool = False
    must_commit: bool = False


@dataclass(slots=True)
class Change:
    """What a merge makes of a base.

    Attributes:
        base: that state.
        months: the months that were written, each with all files that it has after the commit.
        dropped: files that are removed from the months that were not written.
        searched: suspect months in which every job was found once.
        leaving: months that jobs leave for others.
        is_spoiled: True if a file that was written for it is gone.
    """

    base: Base
    months: dict[str, list[FileEntry]] = field(default_factory=dict)
    dropped: Sequence[FileEntry] = ()
    searched: list[str] = field(default_factory=list)
    leaving: frozenset[str] = frozenset()
    is_spoiled: bool = False

    def fits(self, base: Base) -> bool:
        """Return whether a merge would make the same of this base: it has the same files."""
        return not self.is_spoiled and (base.files, base.lost) == (self.base.files, self.base.lost)

    @property
    def files(self) -> list[FileEntry]:
        """All files after the commit, sorted by path."""
        kept = [
            each for each in self.base.files if each.month not in self.months and each not in self.dropped
        ]
        written = [each for files in self.months.values() for each in files]
        return sorted([*kept, *written], key=lambda each: each.path)

    @property
    def new(self) -> list[FileEntry]:
        """The files that it adds."""
        known = {each.path: each for each in self.base.files}
        return [e for files in self.months.values() for e in files if known.get(e.path) != e]

    @property
    def old(self) -> list[FileEntry]:
        """The files that it removes."""
        left = {(each.path, each.sha256) for each in self.files}
        return [each for each in self.base.files if (each.path, each.sha256) not in left]

    @property
    def makes_snapshot(self) -> bool:
        """Whether its commit makes a new snapshot; else it only keeps what the run has learned."""
        return bool(self.months or self.dropped or self.base.must_commit)

    @property
    def number(self) -> int:
        """The number of the snapshot that is current after the commit."""
        return self.base.number + self.makes_snapshot

    @property
    def rows(self) -> int:
        """How many rows the table has after the commit."""
        return sum(entry.rows for entry in self.files)


@dataclass(frozen=True, slots=True)
class Info:
    """What is committed with a change.

    Attributes:
        server: the server whose jobs these are.
        receipt: the run's receipt, as plain data.
        accounts: the sync state of the accounts that the run has read.
    """

    server: str
    receipt: Mapping[str, Any]
    accounts: Mapping[AccountKey, SyncState]


class Files(Protocol):
    """Where the files of a base are read, and those of a change are written."""

    @property
    def scratch(self) -> Path:
        """A folder of this machine for sorted rows."""
        ...

    def read(self, entry: FileEntry) -> bytes:
        """Return the bytes of a file of the base, verified.

        Raises:
            LakeError: the file is missing, or has changed since it was written.
        """
        ...

    def write(
        self, month: str, pieces: Iterator[pl.DataFrame], there: Sequence[FileEntry]
    ) -> list[FileEntry]:
        """Write all rows of a month to files that nobody reads before they are committed.

        Args:
            month: the month.
            pieces: its rows, in order.
            there: the files that it has now; one of them may stay, if a new one would have the very same rows.

        Returns:
            The files of the month after the commit.
        """
        ...

    def discard(self, change: Change) -> None:
        """Remove what was written for a change that is not committed."""


class Table(Files, Protocol):
    """What publishing needs of a table; see the theory of operation above.

    Attributes:
        name: the path or URL that the user gave.
    """

    name: str

    def latest(self, server: str) -> Base:
        """Return the state to merge with now; make the table, for jobs of this server, if it does not exist yet.

        Raises:
            LakeError: the table is damaged.
            ConfigurationError: it would not take the commit.
        """
        ...

    def commit(self, change: Change, info: Info) -> Manifest:
        """Make a change current, whole or not at all; if it makes no snapshot, keep what the run has learned.

        Raises:
            LakeConflict: another commit came first; merge again into a later base.
            LakeLocked: this run no longer holds the table.
        """
        ...

    def is_published(self, number: int) -> bool:
        """Return whether the commit of this number got through, even if it raised an error."""
        ...

    def expire(self, keep: Keep) -> None:
        """Remove the snapshots that are no longer kept."""

    def hold(self) -> AbstractContextManager[Callable[[], None]]:
        """Hold the table for a run; give a function that raises LakeLocked once the run no longer holds it."""
        ...


def merge_staged(
    table: Files, change: Change, stagings: Sequence[Staging] = (), *, search: bool = False
) -> None:
    """Merge staged rows into the change's base, a month at a time, and write the months that have changed.

    Args:
        table: reads the files of the base and writes the new ones.
        change: takes the result, so that it can be discarded wherever this stops.
        stagings: the staged rows, in the order they were fetched.
        search: True to search all months for jobs that they hold twice, not only the suspects.

    Raises:
        LakeError: a file of the base is missing, or has changed since it was written.
    """
    base = change.base
    merge = MonthMerge(
        table.scratch, stagings, change.files, table.read, rewrite=base.rewrite, raced=base.is_raced
    )
    merge.add_lost(base.lost)
    for month in merge.months:
        is_suspect = month in base.suspects
        if merge.is_changed(month, search=search or is_suspect):
            change.months[month] = table.write(month, merge.pieces(month), merge.old.get(month, ()))
        elif is_suspect:
            change.searched.append(month)
    change.leaving = frozenset(merge.leaving & change.months.keys())
