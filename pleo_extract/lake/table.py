"""What publishing asks of a table, whichever it is: a base to merge with, files written, a commit on top of that base.

A folder of Parquet and a Delta table are such tables, and tests have one that lies in memory. What stands here is the
same for all: how staged rows become a change, and what can be said of it before it is committed.
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
"""How long a snapshot stays after it was replaced, so that readers may finish."""
KEEP_COUNT: Final = 1_000
"""How many snapshots stay at most."""


@dataclass(frozen=True, slots=True)
class Keep:
    """Which snapshots stay beside the current one.

    Attributes:
        span: how long each stays after it was replaced. count: how many stay at most.
        every: whether all of them stay so long, and not, of those replaced more than `KEEP_ALL` ago, the last of each day.
    """

    span: timedelta = KEEP
    count: int = KEEP_COUNT
    every: bool = False


@dataclass(frozen=True, slots=True)
class Base:
    """A state of a table that a change is made of and committed on.

    Attributes:
        number: of its snapshot; 0 where nothing was published. manifest: what it is; None where nothing was published.
        files: the files it has.
        suspects: months that are searched for jobs that they hold twice. lost: files that another program has taken
            from the table since the run began; their rows belong there still.
        anew: months that are written anew, whatever is staged.
        is_raced: whether others have committed since the run began: then their rows may be the later ones.
        is_news: whether it is committed anew even where nothing is merged.
    """

    number: int
    manifest: Manifest | None
    files: Sequence[FileEntry] = ()
    suspects: frozenset[str] = frozenset()
    lost: Sequence[FileEntry] = ()
    anew: frozenset[str] = frozenset()
    is_raced: bool = False
    is_news: bool = False


@dataclass(slots=True)
class Change:
    """What a merge makes of a base.

    Attributes:
        base: that state. months: those it has written, with the files that they are to have. dropped: files that are
            left out of the others. searched: suspect months in which every job was found once.
        leaving: months that jobs leave for others. is_spoiled: whether a file that was written for it is gone.
    """

    base: Base
    months: dict[str, list[FileEntry]] = field(default_factory=dict)
    dropped: Sequence[FileEntry] = ()
    searched: list[str] = field(default_factory=list)
    leaving: frozenset[str] = frozenset()
    is_spoiled: bool = False

    def stands_on(self, base: Base) -> bool:
        """Whether it is what a merge would make of this base, too: of one with the same files."""
        return not self.is_spoiled and (base.files, base.lost) == (self.base.files, self.base.lost)

    @property
    def files(self) -> list[FileEntry]:
        """The files of the state that comes of it."""
        kept = [
            each for each in self.base.files if each.month not in self.months and each not in self.dropped
        ]
        written = [each for files in self.months.values() for each in files]
        return sorted([*kept, *written], key=lambda each: each.path)

    @property
    def new(self) -> list[FileEntry]:
        """The files that it adds."""
        there = {each.path: each for each in self.base.files}
        return [e for files in self.months.values() for e in files if there.get(e.path) != e]

    @property
    def old(self) -> list[FileEntry]:
        """The files that it removes."""
        left = {(each.path, each.sha256) for each in self.files}
        return [each for each in self.base.files if (each.path, each.sha256) not in left]

    @property
    def is_news(self) -> bool:
        """Whether a new snapshot comes of it."""
        return bool(self.months or self.dropped or self.base.is_news)

    @property
    def number(self) -> int:
        """The number of the snapshot that is current when it is committed."""
        return self.base.number + self.is_news

    @property
    def rows(self) -> int:
        """How many rows there are then."""
        return sum(entry.rows for entry in self.files)


@dataclass(frozen=True, slots=True)
class Info:
    """What is committed with a change: whose jobs these are, the run's receipt, and the state of its accounts."""

    server: str
    receipt: Mapping[str, Any]
    accounts: Mapping[AccountKey, SyncState]


class Files(Protocol):
    """Where the files of a base are read, and those of a change are written."""

    @property
    def scratch(self) -> Path:
        """A folder of this machine, for what is sorted on the way."""

    def read(self, entry: FileEntry) -> bytes:
        """The bytes of a file of the base, as they were written.

        Raises:
            LakeError: they are not.
        """

    def write(
        self, month: str, pieces: Iterator[pl.DataFrame], there: Sequence[FileEntry]
    ) -> list[FileEntry]:
        """Write the rows that a month is to have; nobody reads them before they are committed.

        Args:
            month: which.
            pieces: its rows, in order.
            there: the files that it has; one of them may stay where it has the very rows of a new one.

        Returns:
            The files that it is to have.
        """

    def discard(self, change: Change) -> None:
        """Remove what was written for a change that is not committed."""


class Table(Files, Protocol):
    """What publishing needs.

    Attributes:
        name: as it was given.
    """

    name: str

    def latest(self, server: str) -> Base:
        """The state to merge with now; a table that there is none of yet is made, for this server's jobs.

        Raises:
            LakeError, ConfigurationError: it is damaged, or does not take what would be committed.
        """

    def commit(self, change: Change, info: Info) -> Manifest:
        """Make a change current, whole or not at all; where nothing is new, what the run has learned is kept.

        Raises:
            LakeConflict: another commit came first; the change can be made again of a later base.
            LakeLocked: this run no longer holds the table.
        """

    def is_published(self, number: int) -> bool:
        """Whether a commit that ended in an error got through all the same."""

    def expire(self, keep: Keep) -> None:
        """Remove the states that are not to be kept."""

    def hold(self) -> AbstractContextManager[Callable[[], None]]:
        """Hold it for a run; gives a function that raises LakeLocked when that is over."""


def merge_staged(
    table: Files, change: Change, stagings: Sequence[Staging] = (), *, search: bool = False
) -> None:
    """Merge staged rows into the change's base, a month at a time, and write the months that are not as they were.

    Args:
        table: which has the files of the base.
        change: what comes of it is noted here, so that it can be discarded wherever this ends.
        stagings: what is staged, in the order it was fetched.
        search: whether all months are searched for jobs that they hold twice, not only the suspects.

    Raises:
        LakeError: a file of the base is not as it was written.
    """
    base = change.base
    merge = MonthMerge(table.scratch, stagings, change.files, table.read, anew=base.anew, raced=base.is_raced)
    merge.add_lost(base.lost)
    for month in merge.months:
        is_suspect = month in base.suspects
        if merge.is_changed(month, search=search or is_suspect):
            change.months[month] = table.write(month, merge.pieces(month), merge.old.get(month, ()))
        elif is_suspect:
            change.searched.append(month)
    change.leaving = frozenset(merge.leaving & change.months.keys())
