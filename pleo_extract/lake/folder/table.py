"""A folder of Parquet as a table that runs publish to.

Theory of operation. The bytes of each month's file are an *object*, `_lake/objects/MONTH-SHA256`, written once and never
changed. A *manifest*, `_lake/snapshots/NUMBER.json`, lists the objects of one snapshot, the receipt of the run that made it
and the sync state of every account. The *pointer*, `_lake/current`, holds the number of the current snapshot. The *visible
months*, `created_month=MONTH/part-0.parquet`, are second names of the current objects, for programs that know nothing of
a lake. A run holds the lock of the folder from its start to its end, so nobody else commits meanwhile.

A commit takes these steps. Each is synced to disk, file and folder, before the next begins: power may fail anywhere.

    step                                         a kill after it leaves
    1  write changed months to staging/build-…   the old snapshot; the next run removes the build folder
    2  rename them to objects/                   the old snapshot; the build folder makes the next run look for, and
                                                 remove, objects that no manifest names
    3  write the manifest                        the old snapshot; the next run removes manifests beyond the pointer (but
                                                 completes the first one of a lake, which lacks only its pointer)
    4  replace the pointer                       the new snapshot; the next run updates the visible months
    5  replace the visible months                the new snapshot
    6  remove the build folder                   the new snapshot

Before every rename the run asks whether it still holds the lock: a process that was paused (a laptop asleep, a stopped
virtual machine) may wake up after another run has taken over. A run that finds nothing new makes no snapshot: it writes
its receipt and its sync states to `_lake/state.json`, which counts as long as that snapshot is current.
"""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
from polars.exceptions import PolarsError
from polars.io.plugins import register_io_source

from pleo_extract.contract import POLARS_SCHEMA
from pleo_extract.errors import LakeError, PleoExtractError
from pleo_extract.lake import disk
from pleo_extract.lake.folder.beginning import begin_run
from pleo_extract.lake.folder.objects import ROW_GROUP, begin_build, place_objects, sweep_objects
from pleo_extract.lake.folder.pruning import prune
from pleo_extract.lake.folder.publish import make_current
from pleo_extract.lake.layout import FORMAT, MOST_SNAPSHOTS, FileEntry, Layout, Manifest, name_object
from pleo_extract.lake.lock import hold_lock, refuse_unheld
from pleo_extract.lake.table import Base
from pleo_extract.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import polars as pl

    from pleo_extract.lake.table import Change, Info, Keep

__all__ = ["FolderTable"]


class FolderTable:
    """A folder of Parquet that implements `Table`, which documents the methods.

    Attributes:
        name: the folder, as the caller gave it.
        layout: the paths below it.
    """

    def __init__(self, lake: str | Path) -> None:
        self.name = str(lake)
        self.layout = Layout(lake)
        self._base: Manifest | None = None
        self._build: Path | None = None
        self._still_held: Callable[[], None] = refuse_unheld

    @property
    def scratch(self) -> Path:
        """See `Table`."""
        return self.layout.staging

    @contextmanager
    def hold(self) -> Iterator[Callable[[], None]]:
        """See `Table`."""
        with hold_lock(self.layout) as self._still_held:
            yield self._still_held

    def begin(self) -> Manifest | None:
        """Return the manifest that a run starts from; see `begin_run`."""
        self._base = begin_run(self.layout, self._still_held, now=datetime.now(UTC))
        return self._base

    def latest(self, server: str) -> Base:  # noqa: ARG002 - a folder is bound to its server by its first commit
        """See `Table`. Nobody else commits while the lock is held, so this is what the run found or committed itself."""
        base = self._base
        if base is None:
            return Base(0, None, must_commit=True)
        is_older = base.format < FORMAT
        files = Counter(entry.month for entry in base.files)
        # An old format lacks columns; a damaged lake may have had several files for one month.
        rewrite = frozenset(month for month, count in files.items() if is_older or count > 1)
        return Base(base.snapshot, base, base.files, rewrite=rewrite, must_commit=is_older)

    def read(self, entry: FileEntry) -> bytes:
        """See `Table`."""
        path = self._path_of(entry)
        data = disk.read_file(path)
        if hashlib.sha256(data).hexdigest() != entry.sha256:
            raise self._changed_error(path)
        return data

    def write(
        self,
        month: str,
        pieces: Iterator[pl.DataFrame],
        there: Sequence[FileEntry],  # noqa: ARG002 - a month is one file, so that one rename replaces it
    ) -> list[FileEntry]:
        """See `Table`."""
        return [_write_month(self._begin_build(), month, pieces)]

    def commit(self, change: Change, info: Info) -> Manifest:
        """See `Table`."""
        self._still_held()
        base = change.base.manifest
        accounts = {**(base.accounts if base else {}), **info.accounts}
        if base is not None and not change.makes_snapshot:
            manifest = base
        else:
            manifest = self._build_manifest(change)
            place_objects(self.layout, self._begin_build())
        manifest = msgspec.structs.replace(
            manifest, server=info.server, receipt=dict(info.receipt), accounts=accounts
        )
        make_current(self.layout, manifest, base, still_held=self._still_held)
        self._base = manifest
        self._end_build()
        return manifest

    def is_published(self, number: int) -> bool:
        """See `Table`."""
        return self.layout.number() == number

    def discard(self, change: Change) -> None:  # noqa: ARG002 - every object that no manifest names is removed
        """See `Table`. On a full disk, what is left over would be in the way of the next run."""
        if self._build is not None:
            with suppress(PleoExtractError):  # tidying up must not hide the error that led here
                self._still_held()  # if not, unnamed objects may be those of the run that took over
                sweep_objects(self.layout, self._still_held)
                self._end_build()

    def expire(self, keep: Keep) -> None:
        """See `Table`."""
        if self._base is not None:
            prune(self.layout, self._base.snapshot, keep, now=datetime.now(UTC), check=self._still_held)

    def _begin_build(self) -> Path:
        self._build = self._build or begin_build(self.layout)
        return self._build

    def _end_build(self) -> None:
        if self._build is not None:
            disk.remove_tree(self._build)
            self._build = None

    def _build_manifest(self, change: Change) -> Manifest:
        """Return the manifest of a new snapshot, without server, receipt and accounts."""
        if change.number > MOST_SNAPSHOTS:
            raise LakeError(f"no snapshot number is left in {self.layout.root}; merge it into a new lake")
        for entry in change.files:
            if entry.month not in change.months and disk.size_of(path := self._path_of(entry)) != entry.bytes:
                raise self._changed_error(path)
        files = [entry for entry in change.files if entry.rows or _is_needed(self.layout, entry)]
        return Manifest(
            format=FORMAT,
            snapshot=change.number,
            server="",
            made_at=datetime.now(UTC),
            rows=change.rows,
            files=files,
            library=__version__,
            leaving=sorted(change.leaving),
        )

    def _path_of(self, entry: FileEntry) -> Path:
        return self.layout.path_of(self._base.snapshot if self._base else 0, entry)

    def _changed_error(self, path: Path) -> LakeError:
        return LakeError(f"{path} changed since it was written; run: pleo-extract repair {self.layout.root}")


def _is_needed(layout: Layout, entry: FileEntry) -> bool:
    """Return whether an empty month must keep a file: some kept snapshot has rows in it.

    A program that lists the folder now may read its files later. It must find the file of that month, although all its
    jobs moved away.
    """
    for number in reversed(layout.numbers()):
        with suppress(LakeError):
            if any(each.month == entry.month and each.rows for each in layout.manifest(number).files):
                return True
    return False


def _write_month(build: Path, month: str, pieces: Iterator[pl.DataFrame]) -> FileEntry:
    """Write the rows of a month to a build folder, a piece at a time: no more than one piece is in memory as a frame."""
    buffer, rows = io.BytesIO(), 0
    failures: list[BaseException] = []

    def read_pieces(columns: list[str] | None, *_: object) -> Iterator[pl.DataFrame]:
        nonlocal rows
        try:
            for piece in pieces:
                rows += piece.height
                yield piece if columns is None else piece.select(columns)
        except BaseException as exc:
            failures.append(exc)
            raise

    try:
        register_io_source(read_pieces, schema=POLARS_SCHEMA).sink_parquet(
            buffer, compression="zstd", compression_level=1, row_group_size=ROW_GROUP, maintain_order=True
        )
    except PolarsError:
        # Polars wraps what the generator raised, and would hide a LakeError or a KeyboardInterrupt.
        if failures:
            raise failures[0] from None
        raise
    data = buffer.getbuffer()
    sha256 = hashlib.sha256(data).hexdigest()
    name = name_object(month, sha256)
    disk.write_file(build / name, data, read_only=True)
    path = f"created_month={month}/part-0.parquet"
    return FileEntry(path=path, rows=rows, bytes=len(data), sha256=sha256, object=name)
