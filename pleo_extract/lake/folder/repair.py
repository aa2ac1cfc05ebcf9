"""Repair a damaged lake. What is lost, the next dump reads from the server again.

A repair never changes a snapshot: it points to an undamaged one, or makes a new one from the undamaged files.
"""

from __future__ import annotations

import hashlib
import io
import secrets
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
import polars as pl

from pleo_extract.core.state import AccountKey, reset_walks
from pleo_extract.errors import LakeError, StorageError
from pleo_extract.lake import disk
from pleo_extract.lake.folder.carry import carry_over, carry_over_damaged
from pleo_extract.lake.folder.forgetting import finish_forgetting
from pleo_extract.lake.folder.objects import restore_object
from pleo_extract.lake.folder.opening import require_folder
from pleo_extract.lake.folder.pruning import sweep
from pleo_extract.lake.folder.publish import make_current, point_to, write_manifest
from pleo_extract.lake.folder.verify import check_file, check_snapshot, has_columns, verify_lake
from pleo_extract.lake.folder.visible import find_strays, is_same_bytes, is_shown, show_months
from pleo_extract.lake.forgotten import read_forgotten
from pleo_extract.lake.layout import (
    FORMAT,
    OBJECT,
    UNREADABLE,
    FileEntry,
    Layout,
    Manifest,
    list_months,
    name_object,
    refuse_newer,
)
from pleo_extract.lake.lock import hold_lock
from pleo_extract.lake.record import read_last_run
from pleo_extract.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

__all__ = ["Repair", "repair_lake"]


@dataclass(frozen=True, slots=True)
class Repair:
    """The result of `repair_lake`.

    Attributes:
        snapshot: the number of the snapshot that is current now; 0 for none.
        done: one line for each step that was taken; empty where nothing was wrong.
        problems: what is still wrong, one line each, as `verify_lake` finds it.
    """

    snapshot: int
    done: tuple[str, ...]
    problems: tuple[str, ...]


def repair_lake(lake: str | Path) -> Repair:
    """Repair a lake so that it can be read; where data is missing, the next dump is a full sync that restores it.

    A missing or broken pointer is set to the newest undamaged snapshot. A missing or broken manifest is rebuilt from the
    visible months. Where files are damaged, a new snapshot is made from the others, and from older versions of the
    damaged ones where an older snapshot has them. Files that others put beside the visible months move to `_lake/strays`.

    Args:
        lake: the lake's folder.

    Raises:
        LakeLocked: a run holds the lake.
        LakeError: there is no such folder, or a newer version of this library wrote it.
    """
    layout = Layout(lake)
    require_folder(layout)
    with hold_lock(layout) as still_held:
        for number in layout.numbers():
            path = layout.manifest_file(number)
            if (data := _read_plain(path)) is not None:
                refuse_newer(data, path)
        done = _repair_format(layout, still_held)
        done += _repair_pointer(layout)
        if (current := layout.number()) is not None:
            done += _repair_manifest(layout, current)
            done += _repair_files(layout, current, still_held)
            sweep(layout, layout.number(), now=datetime.now(UTC))
        if read_forgotten(layout).pending:
            finish_forgetting(layout, check=still_held)
            done.append("an unfinished erasure of forgotten jobs or people was finished")
    found = verify_lake(lake)
    return Repair(found.snapshot, tuple(done), found.problems)


def _repair_format(layout: Layout, still_held: Callable[[], None]) -> list[str]:
    """Convert a lake of format 1 first, damaged as it is, or finish a conversion that was killed."""
    done: list[str] = []
    if layout.is_old:
        best = _find_old_snapshot(layout, done)
        if best is not None:
            done += _repair_manifest(layout, best)
        carried = carry_over_damaged(layout, best, check=still_held)
    else:
        carried = carry_over(layout, check=still_held)
    if carried:
        with suppress(LakeError, StorageError):  # the next steps repair what is broken or missing
            if (number := layout.number()) is not None:
                show_months(layout, layout.manifest(number), check=still_held)
        done.append(f"the lake had an older format: converted to format {FORMAT}")
    return done


def _find_old_snapshot(layout: Layout, done: list[str]) -> int | None:
    """Return the number that a lake of format 1 points to, or else of its best snapshot; in that case add a line to `done`."""
    try:
        return layout.number()
    except LakeError:
        if not layout.old.current.is_symlink() and layout.old.current.exists():
            raise  # a file in place of the link is not ours to remove
    numbers = [n for n in reversed(layout.numbers()) if layout.old.snapshot_folder(n).is_dir()]
    best = next((n for n in numbers if _is_whole(layout, n)), next(iter(numbers), None))
    done.append("the pointer was missing or broken" + (f": set to snapshot {best}" if best else ""))
    return best


def _repair_pointer(layout: Layout) -> list[str]:
    if (later := _find_published(layout)) is not None:
        point_to(layout, later)
        return [
            f"the pointer was older than the visible months (restored from a backup?): set to snapshot {later}"
        ]
    try:
        if (layout.number() is not None) == bool(layout.numbers() or list_months(layout.root)):
            return []
    except LakeError:
        if layout.current.exists() and not layout.current.is_file():
            raise  # a folder in place of the pointer is not ours to remove
    numbers = layout.numbers()[::-1]
    best = next((n for n in numbers if _is_whole(layout, n)), None)
    best = best or next((n for n in numbers if _has_files(layout, n)), None)
    if best is None and not list_months(layout.root):
        disk.remove_file(layout.current)
        return ["the pointer named no snapshot and none is left: removed; the next dump reads the whole list"]
    best = best or max([1, *numbers])
    disk.make_folder(layout.snapshots)
    point_to(layout, best)
    return [f"the pointer was missing or broken: set to snapshot {best}"]


def _find_published(layout: Layout) -> int | None:
    """Return a snapshot beyond the pointer that was published, since the visible months are its files; else None.

    A pointer that was restored from a backup would otherwise make the repair take newer months away.
    """
    with suppress(LakeError):
        newest, number = max(layout.numbers(), default=0), layout.number()
        if number is not None and newest > number:
            files = layout.manifest(newest).files
            if files != layout.manifest(number).files and not _list_differing(layout, files):
                return newest
    return None


def _is_whole(layout: Layout, number: int) -> bool:
    try:
        return not check_snapshot(layout, layout.manifest(number))
    except LakeError:
        return False


def _has_files(layout: Layout, number: int) -> bool:
    try:
        return any(path.exists() for path in layout.paths_of(layout.manifest(number)))
    except LakeError:
        return False


def _repair_manifest(layout: Layout, number: int) -> list[str]:
    try:
        layout.manifest(number)
    except LakeError:
        manifest = _rebuild_manifest(layout, number)
    else:
        return []
    disk.make_folder(layout.snapshots)
    write_manifest(layout, manifest)
    cause = f"the manifest of snapshot {number} was missing or broken"
    return [f"{cause}: rebuilt from {len(manifest.files)} files; the next dump reads the whole list"]


def _rebuild_manifest(layout: Layout, number: int) -> Manifest:
    """Return a manifest of the readable visible months, with server and accounts from the newest earlier manifest."""
    earlier = _earlier_manifest(layout, number)
    entries, version = [], 1 if layout.is_old else FORMAT
    folder = layout.old.snapshot_folder(number) if layout.is_old else layout.root
    for path in list_months(folder):
        data = _read_plain(path)
        rows = _count_rows(data) if data is not None and has_columns(data, 0) else None
        if data is not None and rows is not None:
            version = version if has_columns(data) else 0
            name, sha256 = path.relative_to(folder).as_posix(), hashlib.sha256(data).hexdigest()
            entry = FileEntry(path=name, rows=rows, bytes=len(data), sha256=sha256)
            if not layout.is_old:
                entry = msgspec.structs.replace(entry, object=name_object(entry.month, sha256))
                restore_object(layout, entry)
            entries.append(entry)
    last_run = read_last_run(layout)
    account = AccountKey(last_run.receipt.get("account", "") if last_run else "")
    named = account.server if account.startswith("http") else ""
    return Manifest(
        format=version,
        snapshot=number,
        server=earlier.server if earlier else named,
        made_at=datetime.now(UTC),
        rows=sum(entry.rows for entry in entries),
        files=entries,
        library=__version__,
        accounts=reset_walks(earlier.accounts) if earlier else {},
    )


def _read_plain(path: Path) -> bytes | None:
    """Return the bytes of a file; None where it is missing, or a link, a folder or a pipe."""
    try:
        return disk.read_file(path)
    except LakeError:
        return None


def _count_rows(data: bytes) -> int | None:
    """Return how many rows a file has, after decoding all of them; None where that fails."""
    try:
        return pl.read_parquet(io.BytesIO(data)).height
    except UNREADABLE:
        return None


def _earlier_manifest(layout: Layout, number: int) -> Manifest | None:
    for earlier in reversed(layout.numbers()):
        if earlier < number:
            try:
                return layout.manifest(earlier)
            except LakeError:
                continue
    return None


def _repair_files(layout: Layout, number: int, still_held: Callable[[], None]) -> list[str]:
    """Make a new snapshot from the undamaged files where the current one has damaged ones; update the visible months."""
    manifest = layout.manifest(number)
    blocked = [path for path in disk.list_folder(layout.objects) if OBJECT.fullmatch(path.name)]
    done = [line for path in blocked if not disk.is_plain(path) for line in _move_stray(layout, path)]
    problems = check_snapshot(layout, manifest)
    done += [line for stray in find_strays(layout, manifest) for line in _move_stray(layout, stray)]
    broken = [entry for entry in manifest.files if _is_broken(layout, manifest, entry)]
    for entry in manifest.files:
        if entry not in broken:
            restore_object(layout, entry)
    if not broken:
        differing = _list_differing(layout, manifest.files)
        show_months(layout, manifest, check=still_held)
        return done + [f"{path} differed from the snapshot: replaced" for path in differing]
    entries = [entry for entry in manifest.files if entry not in broken]
    older = [found for entry in broken if (found := _find_older_version(layout, manifest, entry)) is not None]
    files = sorted([*entries, *older], key=lambda entry: entry.path)
    known = layout.apply_state(manifest)
    repaired = msgspec.structs.replace(
        known,
        snapshot=number + 1,
        made_at=datetime.now(UTC),
        files=files,
        rows=sum(entry.rows for entry in files),
        accounts=reset_walks(known.accounts),
        leaving=[],
    )
    make_current(layout, repaired, manifest, still_held=still_held)
    return [
        *problems,
        *done,
        f"snapshot {repaired.snapshot} was made from {len(entries)} undamaged files"
        + (f" and older versions of {len(older)}" if older else "")
        + "; the next dump reads the whole list",
    ]


def _list_differing(layout: Layout, files: Iterable[FileEntry]) -> list[str]:
    """Return the paths of visible files that are missing or have other bytes than their entry.

    In a copy of a lake, visible files are no links of their objects. That is no damage, and needs no line.
    """
    return [entry.path for entry in files if not (is_shown(layout, entry) or is_same_bytes(layout, entry))]


def _move_stray(layout: Layout, stray: Path) -> Iterator[str]:
    """Move a stray to `_lake/strays`, where no reader takes it for data; yield one line for each file.

    The new names do not end in `.parquet`, so that no glob matches them. A link is removed.
    """
    inside = stray.relative_to(layout.root)
    name = inside.as_posix()
    if stray.is_symlink():
        disk.remove_file(stray)
        yield f"{name}: a link, removed"
    elif stray.is_dir():
        for each in disk.list_folder(stray):
            yield from _move_stray(layout, each)
        disk.remove_tree(stray)
    else:
        disk.make_folder(layout.strays)
        short = "-".join(inside.parts).encode()[-200:].decode(errors="ignore")
        target = layout.strays / f"{short}.{secrets.token_hex(4)}"
        disk.rename(stray, target)
        yield f"{name}: does not belong to the lake; moved to {target.relative_to(layout.root).as_posix()}"
    disk.sync_folder(stray.parent)


def _is_broken(layout: Layout, manifest: Manifest, entry: FileEntry) -> bool:
    """Return whether a file is missing, was changed, or has rows of another month."""
    if check_file(layout, manifest, entry):
        return True
    months = pl.scan_parquet(layout.path_of(manifest.snapshot, entry), glob=False).select(
        pl.col("created_at").dt.strftime("%Y-%m").unique()
    )
    try:
        found = months.collect().to_series().to_list()
    except UNREADABLE:
        return True
    return found not in ([], [entry.month])


def _find_older_version(layout: Layout, current: Manifest, broken: FileEntry) -> FileEntry | None:
    """Return the newest undamaged version of a broken file that an older snapshot has; None where none has."""
    for older in reversed([n for n in layout.numbers() if n < current.snapshot]):
        try:
            manifest = layout.manifest(older)
        except LakeError:
            continue
        for entry in manifest.files:
            if entry.path == broken.path and not _is_broken(layout, manifest, entry):
                return entry
    return None
