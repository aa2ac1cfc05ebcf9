"""The folder of Parquet as a table: changed months become objects, all synced, then the pointer is replaced.

Order, so that power may fail at any point: objects synced, renamed, their folder synced, manifest, pointer, visible months.
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
    """A folder of Parquet; what each verb does, `Table` says.

    Attributes:
        name: as it was given. layout: its folders.
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
        """The state that a run starts from; see `begin_run`."""
        self._base = begin_run(self.layout, self._still_held, now=datetime.now(UTC))
        return self._base

    def latest(self, server: str) -> Base:  # noqa: ARG002 - a folder is bound to its server by its first commit
        """See `Table`. Nobody else publishes while the folder is held: it is as this run found or left it."""
        base = self._base
        if base is None:
            return Base(0, None, must_commit=True)
        is_older = base.format < FORMAT
        files = Counter(entry.month for entry in base.files)
        rewrite = frozenset(month for month, count in files.items() if is_older or count > 1)
        return Base(base.snapshot, base, base.files, rewrite=rewrite, must_commit=is_older)

    def read(self, entry: FileEntry) -> bytes:
        """See `Table`."""
        path = self._path_of(entry)
        data = disk.read_file(path)
        if hashlib.sha256(data).hexdigest() != entry.sha256:
            raise self._changed(path)
        return data

    def write(
        self,
        month: str,
        pieces: Iterator[pl.DataFrame],
        there: Sequence[FileEntry],  # noqa: ARG002 - one file a month, so that it is replaced in one step
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
            manifest = self._describe(change)
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

    def discard(self, change: Change) -> None:  # noqa: ARG002 - all that nothing names goes
        """See `Table`."""
        if self._build is not None:
            with suppress(PleoExtractError):  # on a full disk they would be in the way
                self._still_held()  # else what nothing names may be another run's
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

    def _describe(self, change: Change) -> Manifest:
        """The manifest of a new snapshot, still without what the run says of it."""
        if change.number > MOST_SNAPSHOTS:
            raise LakeError(f"{self.layout.root} has no number left for a snapshot; merge it into a new lake")
        for entry in change.files:
            if entry.month not in change.months:
                self._require_size(entry)
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

    def _require_size(self, entry: FileEntry) -> None:
        """A file that stays as it is must be there.

        Raises:
            LakeError: it is not as it was written, as far as its size tells.
        """
        path = self._path_of(entry)
        if disk.size_of(path) != entry.bytes:
            raise self._changed(path)

    def _path_of(self, entry: FileEntry) -> Path:
        return self.layout.path_of(self._base.snapshot if self._base else 0, entry)

    def _changed(self, path: Path) -> LakeError:
        return LakeError(f"{path} changed since it was written; run: pleo-extract repair {self.layout.root}")


def _is_needed(layout: Layout, entry: FileEntry) -> bool:
    """Whether readers of the folder may still have begun with rows of this month, all of which have moved since."""
    for number in reversed(layout.numbers()):
        with suppress(LakeError):
            if any(each.month == entry.month and each.rows for each in layout.manifest(number).files):
                return True
    return False


def _write_month(build: Path, month: str, pieces: Iterator[pl.DataFrame]) -> FileEntry:
    buffer, rows = io.BytesIO(), 0
    failures: list[BaseException] = []

    def give(columns: list[str] | None, *_: object) -> Iterator[pl.DataFrame]:
        nonlocal rows
        try:
            for piece in pieces:
                rows += piece.height
                yield piece if columns is None else piece.select(columns)
        except BaseException as exc:
            failures.append(exc)
            raise

    try:
        register_io_source(give, schema=POLARS_SCHEMA).sink_parquet(
            buffer, compression="zstd", compression_level=1, row_group_size=ROW_GROUP, maintain_order=True
        )
    except PolarsError:
        if failures:  # polars has made an error of its own of it
            raise failures[0] from None
        raise
    data = buffer.getbuffer()
    sha256 = hashlib.sha256(data).hexdigest()
    name = name_object(month, sha256)
    disk.write_file(build / name, data, read_only=True)
    path = f"created_month={month}/part-0.parquet"
    return FileEntry(path=path, rows=rows, bytes=len(data), sha256=sha256, object=name)
