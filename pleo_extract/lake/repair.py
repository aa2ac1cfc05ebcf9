"""Make a lake whole again from what is left of it. What it held and is no longer there, the next dump reads anew.

A repair never changes a snapshot: it points to one that is whole, or makes a new one of the files that are.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
import polars as pl

from pleo_extract.errors import LakeError
from pleo_extract.lake import disk
from pleo_extract.lake.layout import FORMAT, FileEntry, Layout, Manifest, Snapshot, refuse_newer
from pleo_extract.lake.lock import hold_lock
from pleo_extract.lake.publish import building, commit, place, place_link, sweep
from pleo_extract.lake.record import read_last_run
from pleo_extract.lake.verify import (
    UNREADABLE,
    check_file,
    check_snapshot,
    find_strangers,
    has_columns,
    verify_lake,
)
from pleo_extract.refresh import forget_walks
from pleo_extract.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["Repair", "repair_lake"]


@dataclass(frozen=True, slots=True)
class Repair:
    """What `repair_lake` did.

    Attributes:
        snapshot: the one that is current now; 0 for none.
        done: one line for each thing that was done; none where nothing was wrong.
        problems: what is wrong still, as `verify_lake` says.
    """

    snapshot: int
    done: tuple[str, ...]
    problems: tuple[str, ...]


def repair_lake(lake: str | Path) -> Repair:
    """Make a lake readable again; where data is missing, the next dump is a full walk that brings it back.

    A pointer that is missing or broken leads to the newest snapshot that is whole. A manifest that is missing or
    broken is written anew from the files. Where files are broken, a new snapshot is made of the others, and of older
    versions of the broken ones where a snapshot kept one.

    Args:
        lake: the lake's folder.

    Raises:
        LakeLocked: a run holds the lake. LakeError: there is no such folder, or a newer version wrote it.
    """
    layout = Layout(lake)
    if not layout.root.is_dir():
        raise LakeError(f"there is no lake at {layout.root}")
    with hold_lock(layout) as still_held:
        for number in layout.manifest_numbers():
            path = layout.manifest_file(number)
            if (data := _read(path)) is not None:
                refuse_newer(data, path)
        done = _mend_pointer(layout)
        snapshot = layout.snapshot()
        if snapshot is not None:
            sweep(layout, snapshot, now=datetime.now(UTC))
            done += _mend_manifest(layout, snapshot)
            done += _mend_files(layout, snapshot, still_held)
    found = verify_lake(lake)
    return Repair(found.snapshot, tuple(done), found.problems)


def _mend_pointer(layout: Layout) -> list[str]:
    try:
        if layout.snapshot() is not None or not layout.numbers():
            return []
    except LakeError:
        if not layout.current.is_symlink() and layout.current.exists():
            raise  # not ours to move away
    numbers = layout.numbers()[::-1]
    best = next((n for n in numbers if _is_whole(layout, n)), None)
    best = best or next((n for n in numbers if _open(layout, n).files()), None)
    if best is None:
        disk.remove_file(layout.current)
        return ["the pointer led nowhere and no snapshot is left: the next dump begins anew"]
    disk.swap_link(layout.current, f"snapshots/{best:06d}")
    return [f"the pointer was missing or broken: it leads to snapshot {best} now"]


def _open(layout: Layout, number: int) -> Snapshot:
    return Snapshot(number, layout.snapshot_folder(number).resolve())


def _is_whole(layout: Layout, number: int) -> bool:
    try:
        return not check_snapshot(_open(layout, number), layout.manifest(number))
    except LakeError:
        return False


def _mend_manifest(layout: Layout, snapshot: Snapshot) -> list[str]:
    try:
        layout.manifest(snapshot.number)
    except LakeError:
        manifest = _rebuild(layout, snapshot)
    else:
        return []
    data = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
    disk.make_folder(layout.meta, private=True)
    disk.replace_file(layout.manifest_file(snapshot.number), data)
    what = f"the manifest of snapshot {snapshot.number} was missing or broken"
    return [f"{what}: written anew from {len(manifest.files)} files; the next dump reads the whole list"]


def _rebuild(layout: Layout, snapshot: Snapshot) -> Manifest:
    """A manifest of what can be read, with what an earlier one knew of the server and its accounts."""
    earlier = _earlier_manifest(layout, snapshot.number)
    entries, version = [], FORMAT
    for path in snapshot.files():
        data = _read(path)
        rows = _count_rows(data) if data is not None and has_columns(data, 0) else None
        if data is not None and rows is not None:
            version = FORMAT if version == FORMAT and has_columns(data) else 0
            name, sha256 = path.relative_to(snapshot.folder).as_posix(), hashlib.sha256(data).hexdigest()
            entries.append(FileEntry(path=name, rows=rows, bytes=len(data), sha256=sha256))
    last_run = read_last_run(layout)
    account = str(last_run.receipt.get("account", "")) if last_run else ""
    named = account.partition(" ")[0] if account.startswith("http") else ""
    return Manifest(
        format=version,
        snapshot=snapshot.number,
        server=earlier.server if earlier else named,
        made_at=datetime.now(UTC),
        rows=sum(entry.rows for entry in entries),
        files=entries,
        library=__version__,
        accounts=forget_walks(earlier.accounts) if earlier else {},
    )


def _read(path: Path) -> bytes | None:
    """The bytes of a file; None for a link, a folder or a pipe in its place."""
    try:
        return disk.read_file(path)
    except LakeError:
        return None


def _count_rows(data: bytes) -> int | None:
    """How many rows a file has, all of them read; None where one cannot be."""
    try:
        return pl.read_parquet(io.BytesIO(data)).height
    except UNREADABLE:
        return None


def _earlier_manifest(layout: Layout, number: int) -> Manifest | None:
    for earlier in reversed(layout.manifest_numbers()):
        if earlier < number:
            try:
                return layout.manifest(earlier)
            except LakeError:
                continue
    return None


def _mend_files(layout: Layout, snapshot: Snapshot, still_held: Callable[[], None]) -> list[str]:
    """A new snapshot of what is whole, where the current one holds what is not, or what is not the lake's."""
    manifest = layout.manifest(snapshot.number)
    problems = check_snapshot(snapshot, manifest)
    broken = [entry for entry in manifest.files if _is_broken(snapshot, entry, manifest.format)]
    if not broken and not find_strangers(snapshot, manifest):
        return []
    entries = [entry for entry in manifest.files if entry not in broken]
    older = [found for entry in broken if (found := _find_older(layout, manifest, entry)) is not None]
    with building(layout) as build:
        for entry in entries:
            place_link(snapshot.folder, build, entry)
        for number, entry in older:
            place_link(layout.snapshot_folder(number), build, entry)
        place(layout, build, snapshot.number + 1)
    files = sorted([*entries, *(entry for _, entry in older)], key=lambda entry: entry.path)
    mended = msgspec.structs.replace(
        manifest,
        snapshot=snapshot.number + 1,
        made_at=datetime.now(UTC),
        files=files,
        rows=sum(entry.rows for entry in files),
        accounts=forget_walks(manifest.accounts) if broken else manifest.accounts,
    )
    commit(layout, mended, manifest, receipt=manifest.receipt, accounts={}, still_held=still_held)
    return [
        *problems,
        f"snapshot {mended.snapshot} was made of the {len(entries)} files that are whole"
        + (f", and of {len(older)} as an older snapshot had them" if older else "")
        + ("; the next dump reads the whole list" if broken else ""),
    ]


def _is_broken(snapshot: Snapshot, entry: FileEntry, version: int) -> bool:
    """Not as it was written, or in the wrong month."""
    if check_file(snapshot, entry, version):
        return True
    months = pl.scan_parquet(snapshot.folder / entry.path, glob=False).select(
        pl.col("created_at").dt.strftime("created_month=%Y-%m").unique()
    )
    try:
        found = months.collect().to_series().to_list()
    except UNREADABLE:
        return True
    return found not in ([], [entry.path.partition("/")[0]])


def _find_older(layout: Layout, current: Manifest, broken: FileEntry) -> tuple[int, FileEntry] | None:
    """The newest whole version of a broken file that an older snapshot has, and which snapshot that is."""
    for older in reversed([n for n in layout.numbers() if n < current.snapshot]):
        try:
            manifest = layout.manifest(older)
        except LakeError:
            continue
        for entry in manifest.files:
            if entry.path == broken.path and not _is_broken(_open(layout, older), entry, current.format):
                return older, entry
    return None
