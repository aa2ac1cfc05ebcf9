"""A table in memory that any number of runs use at the same time: the simplest implementation of `Table`."""

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

__all__ = ["MemoryStore", "MemoryTable"]


@dataclass
class MemoryStore:
    """The storage that the runs share.

    Attributes:
        states: the manifests by snapshot number.
        blobs: the bytes of files by path.
        foreign: the files that another program added.
        on_change: called before each step that changes the store; may run another run's step, or raise.
        on_commit: called before each commit is checked.
        loses_answer: the number of next commits that succeed but raise an error.
        written: the number of files written so far.
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
        """The number of the newest snapshot; 0 if there is none."""
        return max(self.states, default=0)

    def rows(self, number: int | None = None) -> pl.DataFrame:
        """Return the rows of a snapshot, by default the newest."""
        wanted = self.number if number is None else number
        if number is not None and number not in self.states:
            raise UsageError(f"snapshot {number} is not kept")
        files = self.states[wanted].files if wanted else []
        frames = [pl.read_parquet(self.blobs[entry.path]) for entry in files]
        return pl.concat([pl.DataFrame(schema=POLARS_SCHEMA), *frames])

    def keep(self, month: str, rows: pl.DataFrame) -> FileEntry:
        """Write a file of these rows."""
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
        """Commit a file as another program would, without information about a run."""
        state = self.states[self.number]
        files = sorted([*state.files, entry], key=lambda each: each.path)
        added = msgspec.structs.replace(
            state, snapshot=state.snapshot + 1, files=files, rows=state.rows + entry.rows
        )
        self.foreign.add(entry.path)
        self.states[added.snapshot] = added


class MemoryTable:
    """One run's view of a memory store; see `Table`."""

    def __init__(self, store: MemoryStore, scratch: Path) -> None:
        self.name = "memory"
        self.store = store
        self._scratch = scratch
        self._begun = 0
        self._committed = 0

    @property
    def scratch(self) -> Path:
        """See `Table`."""
        return self._scratch

    @contextmanager
    def hold(self) -> Iterator[Callable[[], None]]:
        """See `Table`. Any number of runs hold the table at the same time."""
        yield lambda: None

    def begin(self) -> Manifest | None:
        """Return the manifest that a run starts from."""
        self._begun = self.store.number
        return self.store.states.get(self._begun)

    def latest(self, server: str) -> Base:
        """See `Table`."""
        store, number = self.store, self.store.number
        raced = number not in (self._begun, self._committed)
        if not number:
            return Base(0, None, must_commit=True)
        state = store.states[number]
        if state.server != server:
            raise LakeError(f"it holds jobs of {state.server}")
        suspects = frozenset(entry.month for entry in state.files if entry.path in store.foreign)
        return Base(number, state, state.files, suspects=suspects, is_raced=raced)

    def read(self, entry: FileEntry) -> bytes:
        """See `Table`."""
        data = self.store.blobs.get(entry.path, b"")
        if hashlib.sha256(data).hexdigest() != entry.sha256:
            raise LakeError(f"{entry.path} changed since it was written")
        return data

    def write(
        self, month: str, pieces: Iterator[pl.DataFrame], there: Sequence[FileEntry]
    ) -> list[FileEntry]:
        """See `Table`."""
        entry = self.store.keep(month, pl.concat(pieces))
        for each in there:
            if each.sha256 == entry.sha256:
                del self.store.blobs[entry.path]
                return [each]
        return [entry]

    def commit(self, change: Change, info: Info) -> Manifest:
        """See `Table`."""
        store = self.store
        store.on_change()
        store.on_commit()
        if store.number != change.base.number:
            raise LakeConflict(f"state {store.number} came first")
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
        store.states[state.snapshot] = state
        self._committed = state.snapshot
        if store.loses_answer:
            store.loses_answer -= 1
            raise TryLater("the answer was lost")
        return state

    def is_published(self, number: int) -> bool:
        """See `Table`."""
        return self._committed == number

    def discard(self, change: Change) -> None:
        """See `Table`."""
        if self._committed != change.number:
            for entry in change.new:
                self.store.blobs.pop(entry.path, None)

    def expire(self, keep: Keep) -> None:
        """See `Table`. Only the number counts, not the age."""
        store = self.store
        for number in sorted(store.states)[: -keep.count]:
            del store.states[number]
        named = {entry.path for state in store.states.values() for entry in state.files}
        store.blobs = {path: data for path, data in store.blobs.items() if path in named}
