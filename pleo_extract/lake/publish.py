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

from pleo_extract.contract import COLUMNS
from pleo_extract.lake import disk
from pleo_extract.lake.layout import FORMAT, FileEntry, Layout, Manifest, Snapshot
from pleo_extract.refresh import merge_rows, same_rows
from pleo_extract.version import __version__

if TYPE_CHECKING:
    from pathlib import Path

    from pleo_extract.lake.staging import Staging

__all__ = ["KEEP", "commit", "prune", "publish", "sweep", "write_manifest"]

KEEP: Final = timedelta(hours=24)
"""How long a snapshot stays after it was replaced, so that readers may finish."""
ROW_GROUP: Final = 100_000


def publish(
    layout: Layout, staging: Staging, base: Manifest | None, *, server: str
) -> tuple[Manifest, list[str]]:
    """Merge what is staged into the lake as a new snapshot, unless nothing changed.

    Returns:
        The manifest of the state that is now current, not yet holding this run's receipt and state where nothing
        changed, and the months that were written.
    """
    build = staging.folder / "snapshot"
    disk.remove_tree(build)
    disk.make_folder(build)
    old = {_month_of(entry): entry for entry in base.files} if base else {}
    source = layout.snapshot_folder(base.snapshot) if base else layout.root
    entries: list[FileEntry] = []
    written: list[str] = []
    for month in sorted(old.keys() | set(staging.months())):
        entry = old.get(month)
        merged = _merge_month(staging, month, source / entry.path if entry else None)
        if merged is None and entry is not None:
            _place_link(source / entry.path, build / entry.path)
            entries.append(entry)
        elif merged is not None:
            entries.append(_write_month(build, month, merged))
            written.append(month)
    if base is not None and not written:
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
    return manifest, written


def commit(
    layout: Layout, manifest: Manifest, *, receipt: dict[str, Any], accounts: dict[str, dict[str, Any]]
) -> None:
    """Write the manifest with this run's receipt and state, and point to its snapshot: now it is published."""
    manifest = msgspec.structs.replace(manifest, receipt=receipt, accounts={**manifest.accounts, **accounts})
    write_manifest(layout, manifest)
    disk.swap_link(layout.current, f"snapshots/{manifest.snapshot:06d}")


def write_manifest(layout: Layout, manifest: Manifest) -> None:
    """The manifest of a snapshot, whole or not at all."""
    disk.make_folder(layout.meta, private=True)
    data = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
    disk.replace_file(layout.manifest_file(manifest.snapshot), data)


def sweep(layout: Layout, current: Snapshot | None) -> None:
    """Remove what a run left that was killed: staging, and snapshots and manifests beyond the pointer."""
    newest = current.number if current else 0
    for number in layout.numbers():
        if number > newest:
            disk.remove_tree(layout.snapshot_folder(number))
            disk.remove_file(layout.manifest_file(number))
    if layout.staging.is_dir():
        for folder in sorted(layout.staging.iterdir()):
            disk.remove_tree(folder)


def prune(layout: Layout, current: int, *, now: datetime, keep: timedelta = KEEP) -> list[int]:
    """Remove snapshots that were replaced longer ago than `keep`; returns their numbers."""
    numbers = [n for n in layout.numbers() if n <= current]
    gone = [
        number
        for number, successor in itertools.pairwise(numbers)
        if now - layout.manifest(successor).made_at > keep
    ]
    for number in gone:
        disk.remove_tree(layout.snapshot_folder(number))
        disk.remove_file(layout.manifest_file(number))
    return gone


def _month_of(entry: FileEntry) -> str:
    return entry.path.partition("/")[0].partition("=")[2]


def _merge_month(staging: Staging, month: str, path: Path | None) -> pl.DataFrame | None:
    """The month's rows as they are to be, or None when they are as they were."""
    if path is None:
        return merge_rows(*staging.read(month))
    if month not in staging.months():
        return None
    old = pl.read_parquet(io.BytesIO(disk.read_file(path)), columns=list(COLUMNS))
    merged = merge_rows(old, *staging.read(month))
    return None if same_rows(old, merged) else merged


def _place_link(source: Path, target: Path) -> None:
    disk.make_folder(target.parent)
    disk.link_file(source, target)
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
