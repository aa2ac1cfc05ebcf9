"""A table that lies in memory, with as many runs at once as like, and the tables that the suite tries beside it."""

from __future__ import annotations

import hashlib
import io
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
import polars as pl

from pleo_extract.contract import POLARS_SCHEMA
from pleo_extract.errors import LakeConflict, LakeError, TryLater, UsageError
from pleo_extract.lake.layout import FORMAT, FileEntry, Manifest
from pleo_extract.lake.table import Base

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from pleo_extract.lake.table import Change, Info, Keep

__all__ = ["MemoryTable", "Shelf"]


@dataclass
class Shelf:
    """What the runs share: the states, by number, and the bytes of files, by path.

    Attributes:
        foreign: the files that another program has put there.
        on_change: is called before each step that changes the shelf: it may be another run's, or raise.
        on_commit: is called before each commit is looked at.
        loses_answer: how many of the next commits are made although they seem to fail.
    """

    states: dict[int, Manifest] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    foreign: set[str] = field(default_factory=set)
    on_change: Callable[[], None] = lambda: None
    on_commit: Callable[[], None] = lambda: None
    loses_answer: int = 0
    written: int = 0

    @property
    def number(self) -> int:
        """The number of the newest state; 0 for none."""
        return max(self.states, default=0)

    def rows(self, number: int | None = None) -> pl.DataFrame:
        """The rows of a state."""
        wanted = self.number if number is None else number
        if number is not None and number not in self.states:
            raise UsageError(f"snapshot {number} is not kept")
        files = self.states[wanted].files if wanted else []
        frames = [pl.read_parquet(self.blobs[entry.path]) for entry in files]
        return pl.concat([pl.DataFrame(schema=POLARS_SCHEMA), *frames])

    def keep(self, month: str, rows: pl.DataFrame) -> FileEntry:
        """Put a file of these rows on the shelf."""
        self.on_change()
        buffer = io.BytesIO()
        rows.write_parquet(buffer)
        data = buffer.getvalue()
        self.written += 1
        path = f"created_month={month}/part-{self.written}.parquet"
        self.blobs[path] = data
        sha256 = hashlib.sha256(data).hexdigest()
        return FileEntry(path=path, rows=rows.height, bytes=len(data), sha256=sha256)

    def append(self, entry: FileEntry) -> None:
        """Another program adds a file that it has put on the shelf; it says nothing of who it is."""
        state = self.states[self.number]
        files = sorted([*state.files, entry], key=lambda each: each.path)
        added = msgspec.structs.replace(
            state, snapshot=state.snapshot + 1, files=files, rows=state.rows + entry.rows
        )
        self.foreign.add(entry.path)
        self.states[added.snapshot] = added


class MemoryTable:
    """One run's view of a shelf; see `Table`."""

    def __init__(self, shelf: Shelf, scratch: Path) -> None:
        self.name = "memory"
        self.shelf = shelf
        self._scratch = scratch
        self._begun = 0
        self._committed = 0

    @property
    def scratch(self) -> Path:
        """See `Table`."""
        return self._scratch

    @contextmanager
    def hold(self) -> Iterator[Callable[[], None]]:
        """See `Table`. Any number of runs hold it at once."""
        yield lambda: None

    def begin(self) -> Manifest | None:
        """The state that a run starts from."""
        self._begun = self.shelf.number
        return self.shelf.states.get(self._begun)

    def latest(self, server: str) -> Base:
        """See `Table`."""
        shelf, number = self.shelf, self.shelf.number
        raced = number not in (self._begun, self._committed)
        if not number:
            return Base(0, None, must_commit=True)
        state = shelf.states[number]
        if state.server != server:
            raise LakeError(f"it holds jobs of {state.server}")
        suspects = frozenset(entry.month for entry in state.files if entry.path in shelf.foreign)
        return Base(number, state, state.files, suspects=suspects, is_raced=raced)

    def read(self, entry: FileEntry) -> bytes:
        """See `Table`."""
        data = self.shelf.blobs.get(entry.path, b"")
        if hashlib.sha256(data).hexdigest() != entry.sha256:
            raise LakeError(f"{entry.path} is not as it was written")
        return data

    def write(
        self, month: str, pieces: Iterator[pl.DataFrame], there: Sequence[FileEntry]
    ) -> list[FileEntry]:
        """See `Table`."""
        entry = self.shelf.keep(month, pl.concat(pieces))
        for each in there:
            if each.sha256 == entry.sha256:
                del self.shelf.blobs[entry.path]
                return [each]
        return [entry]

    def commit(self, change: Change, info: Info) -> Manifest:
        """See `Table`."""
        shelf = self.shelf
        shelf.on_change()
        shelf.on_commit()
        if shelf.number != change.base.number:
            raise LakeConflict(f"state {shelf.number} came first")
        base = change.base.manifest
        state = Manifest(
            format=FORMAT,
            snapshot=change.number,
            server=info.server,
            made_at=datetime.now(UTC) if base is None or change.makes_snapshot else base.made_at,
            rows=change.rows,
            files=[entry for entry in change.files if entry.rows],
            library="memory",
            receipt=dict(info.receipt),
            accounts={**(base.accounts if base else {}), **info.accounts},
        )
        shelf.states[state.snapshot] = state
        self._committed = state.snapshot
        if shelf.loses_answer:
            shelf.loses_answer -= 1
            raise TryLater("the answer was lost")
        return state

    def is_published(self, number: int) -> bool:
        """See `Table`."""
        return self._committed == number

    def discard(self, change: Change) -> None:
        """See `Table`."""
        if self._committed != change.number:
            for entry in change.new:
                self.shelf.blobs.pop(entry.path, None)

    def expire(self, keep: Keep) -> None:
        """See `Table`. By number alone."""
        shelf = self.shelf
        for number in sorted(shelf.states)[: -keep.count]:
            del shelf.states[number]
        named = {entry.path for state in shelf.states.values() for entry in state.files}
        shelf.blobs = {path: data for path, data in shelf.blobs.items() if path in named}
