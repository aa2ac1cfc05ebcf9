"""From staging to a new snapshot: months merged, unchanged ones linked, all synced, then the pointer swapped.

Order, so that power may fail at any point: data synced, renamed, folders synced, manifest, pointer. Whatever lies
beyond the pointer was never published; the next run sweeps it away.
"""

from __future__ import annotations

import hashlib
import io
import itertools
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import msgspec
import polars as pl

from pleo_extract.contract import POLARS_SCHEMA
from pleo_extract.errors import LakeError, LakeLocked
from pleo_extract.lake import disk
from pleo_extract.lake.layout import FORMAT, FileEntry, Layout, Manifest, Snapshot
from pleo_extract.lake.staging import RESUME_WITHIN
from pleo_extract.refresh import Account, merge_rows, same_rows
from pleo_extract.version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pleo_extract.lake.staging import Staging

__all__ = ["KEEP", "KEEP_COUNT", "commit", "prune", "publish", "sweep"]

KEEP: Final = timedelta(hours=24)
"""How long a snapshot stays after it was replaced, so that readers may finish."""
KEEP_COUNT: Final = 1_000
"""How many snapshots stay at most."""
ROW_GROUP: Final = 100_000


def publish(
    layout: Layout, stagings: Sequence[Staging], base: Manifest | None, *, server: str
) -> tuple[Manifest, list[str]]:
    """Build a new snapshot of the lake and what is staged, unless nothing changed. `commit` makes it current.

    Returns:
        The manifest of the state to commit (the base where nothing changed), and the months that were written.

    Raises:
        LakeError: a file of the base is not as it was written.
    """
    build = layout.staging / "build"
    disk.remove_tree(build)
    disk.make_folder(layout.staging, private=True)
    disk.make_folder(build)
    old = {_month_of(entry): entry for entry in base.files} if base else {}
    source = layout.snapshot_folder(base.snapshot) if base else layout.root
    carried = base is not None and base.format < FORMAT
    entries: list[FileEntry] = []
    written: list[str] = []
    for month in sorted(old.keys() | {month for staging in stagings for month in staging.months()}):
        fresh = [frame for staging in stagings for frame in staging.read(month)]
        merged = _merge_month(source, old.get(month), fresh, carried=carried)
        if merged is None:
            _place_link(source, build, old[month])
            entries.append(old[month])
        else:
            entries.append(_write_month(build, month, merged))
            written.append(month)
    if base is not None and not written and not carried:
        disk.remove_tree(build)
        return base, []
    disk.sync_folder(build)
    manifest = Manifest(
        format=FORMAT,
        snapshot=(base.snapshot if base else 0) + 1,
        server=server,
        made_at=datetime.now(UTC),
        rows=sum(entry.rows for entry in entries),
        files=entries,
        library=__version__,
        accounts=base.accounts if base else {},
    )
    disk.make_folder(layout.snapshots)
    disk.rename(build, layout.snapshot_folder(manifest.snapshot))
    disk.sync_folder(layout.snapshots)
    disk.sync_folder(layout.root)
    return manifest, written


def commit(
    layout: Layout,
    manifest: Manifest,
    base: Manifest | None,
    *,
    receipt: dict[str, Any],
    accounts: dict[str, Account],
) -> Manifest:
    """Write the manifest with this run's receipt and state, and point to its snapshot: now it is published.

    Raises:
        LakeLocked: another run has published since `base` was read; this one's snapshot is not published.
    """
    current = layout.snapshot()
    if (current.number if current else 0) != (base.snapshot if base else 0):
        raise LakeLocked(
            f"another run has published to {layout.root} meanwhile, although this one held the lock; run again"
        )
    manifest = msgspec.structs.replace(manifest, receipt=receipt, accounts={**manifest.accounts, **accounts})
    disk.make_folder(layout.meta, private=True)
    data = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
    disk.replace_file(layout.manifest_file(manifest.snapshot), data)
    if base is None or base.snapshot != manifest.snapshot:
        disk.swap_link(layout.current, f"snapshots/{manifest.snapshot:06d}")
    return manifest


def sweep(layout: Layout, current: Snapshot | None, *, now: datetime) -> None:
    """Remove what a run left that was killed: snapshots and manifests beyond the pointer, staging too old to go on with."""
    newest = current.number if current else 0
    for number in layout.numbers():
        if number > newest:
            disk.remove_tree(layout.snapshot_folder(number))
            disk.remove_file(layout.manifest_file(number))
    if layout.staging.is_dir():
        for folder in sorted(layout.staging.iterdir()):
            age = now.timestamp() - folder.lstat().st_mtime
            if folder.name == "build" or not 0 <= age + 60 <= RESUME_WITHIN.total_seconds() + 60:
                disk.remove_tree(folder)


def prune(
    layout: Layout, current: int, *, now: datetime, keep: timedelta = KEEP, count: int = KEEP_COUNT
) -> list[int]:
    """Remove snapshots that were replaced longer ago than `keep`, and all but the newest `count`; returns their numbers."""
    numbers = [n for n in layout.numbers() if n <= current]
    gone = set(numbers[: max(0, len(numbers) - max(1, count))])
    for number, successor in itertools.pairwise(numbers):
        if number not in gone and now - layout.manifest(successor).made_at >= keep:
            gone.add(number)
    for number in sorted(gone):
        disk.remove_tree(layout.snapshot_folder(number))
        disk.remove_file(layout.manifest_file(number))
    return sorted(gone)


def _month_of(entry: FileEntry) -> str:
    return entry.path.partition("/")[0].partition("=")[2]


def _merge_month(
    source: Path, entry: FileEntry | None, fresh: list[pl.DataFrame], *, carried: bool
) -> pl.DataFrame | None:
    """The month's rows as they are to be, or None when they are as they were."""
    if entry is None:
        return merge_rows(*fresh)
    if not fresh and not carried:
        return None
    old = _read_month(source, entry)
    merged = merge_rows(old, *fresh)
    return None if same_rows(old, merged) and not carried else merged


def _read_month(source: Path, entry: FileEntry) -> pl.DataFrame:
    """A file of the base, as written; columns that an older format did not have are null."""
    data = disk.read_file(source / entry.path)
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        raise LakeError(
            f"{source / entry.path} changed since it was written; run: pleo-extract repair {source.parent.parent}"
        )
    rows = pl.read_parquet(io.BytesIO(data))
    missing = [
        pl.lit(None, kind).alias(name) for name, kind in POLARS_SCHEMA.items() if name not in rows.columns
    ]
    return rows.with_columns(missing).select(POLARS_SCHEMA.names()).cast(POLARS_SCHEMA)


def _place_link(source: Path, build: Path, entry: FileEntry) -> None:
    if disk.size_of(source / entry.path) != entry.bytes:
        raise LakeError(
            f"{source / entry.path} changed since it was written; run: pleo-extract repair {source.parent.parent}"
        )
    target = build / entry.path
    disk.make_folder(target.parent)
    disk.link_file(source / entry.path, target)
    disk.sync_folder(target.parent)


def _write_month(build: Path, month: str, rows: pl.DataFrame) -> FileEntry:
    path = f"created_month={month}/part-0.parquet"
    buffer = io.BytesIO()
    rows.write_parquet(buffer, compression="zstd", compression_level=1, row_group_size=ROW_GROUP)
    data = buffer.getvalue()
    target = build / path
    disk.make_folder(target.parent)
    disk.write_file(target, data)
    disk.sync_folder(target.parent)
    return FileEntry(path=path, rows=rows.height, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
