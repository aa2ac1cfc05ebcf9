"""Make a lake whole again from what is left of it. What it held and is no longer there, the next dump reads anew.

A repair never changes a snapshot: it points to one that is whole, or makes a new one of the files that are.
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
from pleo_extract.lake.folder.carry import carry_over, carry_what_is_left
from pleo_extract.lake.folder.forgetting import finish_forgetting
from pleo_extract.lake.folder.objects import keep_visible
from pleo_extract.lake.folder.pruning import sweep
from pleo_extract.lake.folder.publish import make_current, point_to, write_manifest
from pleo_extract.lake.folder.verify import UNREADABLE, check_file, check_snapshot, has_columns, verify_lake
from pleo_extract.lake.folder.visible import find_strays, is_shown, show_months
from pleo_extract.lake.forgotten import read_forgotten
from pleo_extract.lake.layout import (
    FORMAT,
    MONTH,
    OBJECT,
    FileEntry,
    Layout,
    Manifest,
    name_object,
    refuse_newer,
)
from pleo_extract.lake.lock import hold_lock
from pleo_extract.lake.record import read_last_run
from pleo_extract.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
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
    broken is written anew from the visible months. Where files are broken, a new snapshot is made of the others, and of
    older versions of the broken ones where a snapshot kept one. What others have put beside the visible months is moved
    to `_lake/strays`.

    Args:
        lake: the lake's folder.

    Raises:
        LakeLocked: a run holds the lake. LakeError: there is no such folder, or a newer version wrote it.
    """
    layout = Layout(lake)
    if not layout.root.is_dir():
        raise LakeError(f"there is no lake at {layout.root}")
    with hold_lock(layout) as still_held:
        for number in layout.numbers():
            path = layout.manifest_file(number)
            if (data := _read(path)) is not None:
                refuse_newer(data, path)
        done = _mend_old(layout, still_held)
        done += _mend_pointer(layout)
        if (current := layout.number()) is not None:
            done += _mend_manifest(layout, current)
            done += _mend_files(layout, current, still_held)
            sweep(layout, layout.number(), now=datetime.now(UTC))
        if read_forgotten(layout).pending:
            finish_forgetting(layout, check=still_held)
            done.append("what was to be forgotten when a run was killed is forgotten now")
    found = verify_lake(lake)
    return Repair(found.snapshot, tuple(done), found.problems)


def _mend_old(layout: Layout, still_held: Callable[[], None]) -> list[str]:
    """A lake of format 1 is carried over first, with what is left of it; one that is half carried over, to the end."""
    done: list[str] = []
    if layout.is_old:
        best = _find_old_number(layout, done)
        if best is not None:
            done += _mend_manifest(layout, best)
        carried = carry_what_is_left(layout, best, check=still_held)
    else:
        carried = carry_over(layout, check=still_held)
    if carried:
        with suppress(LakeError, StorageError):  # what is broken or missing is seen to next
            if (number := layout.number()) is not None:
                show_months(layout, layout.manifest(number), check=still_held)
        done.append(f"a lake of an older format was carried over to format {FORMAT}")
    return done


def _find_old_number(layout: Layout, done: list[str]) -> int | None:
    """The current snapshot of a lake of format 1, or the one that is to be it; what that means is added to `done`."""
    try:
        return layout.number()
    except LakeError:
        if not layout.old.current.is_symlink() and layout.old.current.exists():
            raise  # not ours to move away
    numbers = [n for n in reversed(layout.numbers()) if layout.old.snapshot_folder(n).is_dir()]
    best = next((n for n in numbers if _is_whole(layout, n)), next(iter(numbers), None))
    done.append("the pointer was missing or broken" + (f": it leads to snapshot {best} now" if best else ""))
    return best


def _mend_pointer(layout: Layout) -> list[str]:
    if (later := _find_published(layout)) is not None:
        point_to(layout, later)
        return [
            f"the pointer was older than what readers of the folder see: it leads to snapshot {later} now"
        ]
    try:
        if (layout.number() is not None) == bool(layout.numbers() or _list_months(layout.root)):
            return []
    except LakeError:
        if layout.current.exists() and not layout.current.is_file():
            raise  # not ours to move away
    numbers = layout.numbers()[::-1]
    best = next((n for n in numbers if _is_whole(layout, n)), None)
    best = best or next((n for n in numbers if _has_files(layout, n)), None)
    if best is None and not _list_months(layout.root):
        disk.remove_file(layout.current)
        return ["the pointer led nowhere and no snapshot is left: the next dump begins anew"]
    best = best or max([1, *numbers])
    disk.make_folder(layout.snapshots)
    point_to(layout, best)
    return [f"the pointer was missing or broken: it leads to snapshot {best} now"]


def _find_published(layout: Layout) -> int | None:
    """A snapshot beyond the pointer that was current once, since its months are those that readers of the folder see."""
    with suppress(LakeError):
        newest, number = max(layout.numbers(), default=0), layout.number()
        if number is not None and newest > number:
            files = layout.manifest(newest).files
            if files != layout.manifest(number).files and all(is_shown(layout, entry) for entry in files):
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


def _mend_manifest(layout: Layout, number: int) -> list[str]:
    try:
        layout.manifest(number)
    except LakeError:
        manifest = _rebuild(layout, number)
    else:
        return []
    disk.make_folder(layout.snapshots)
    write_manifest(layout, manifest)
    what = f"the manifest of snapshot {number} was missing or broken"
    return [f"{what}: written anew from {len(manifest.files)} files; the next dump reads the whole list"]


def _rebuild(layout: Layout, number: int) -> Manifest:
    """A manifest of the visible months that can be read, with what an earlier one knew of the server and its accounts."""
    earlier = _earlier_manifest(layout, number)
    entries, version = [], 1 if layout.is_old else FORMAT
    folder = layout.old.snapshot_folder(number) if layout.is_old else layout.root
    for path in _list_months(folder):
        data = _read(path)
        rows = _count_rows(data) if data is not None and has_columns(data, 0) else None
        if data is not None and rows is not None:
            version = version if has_columns(data) else 0
            name, sha256 = path.relative_to(folder).as_posix(), hashlib.sha256(data).hexdigest()
            entry = FileEntry(path=name, rows=rows, bytes=len(data), sha256=sha256)
            if not layout.is_old:
                entry = msgspec.structs.replace(entry, object=name_object(entry.month, sha256))
                keep_visible(layout, entry)
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


def _list_months(folder: Path) -> list[Path]:
    """The files that a lake may have put into a folder for readers, one a month."""
    months = (
        path for path in disk.list_folder(folder) if MONTH.fullmatch(path.name) and not path.is_symlink()
    )
    return [path for month in months if (path := month / "part-0.parquet").exists()]


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
    for earlier in reversed(layout.numbers()):
        if earlier < number:
            try:
                return layout.manifest(earlier)
            except LakeError:
                continue
    return None


def _mend_files(layout: Layout, number: int, still_held: Callable[[], None]) -> list[str]:
    """A new snapshot of what is whole, where the current one holds what is not; and the visible months brought in line."""
    manifest = layout.manifest(number)
    blocked = [path for path in disk.list_folder(layout.objects) if OBJECT.fullmatch(path.name)]
    done = [line for path in blocked if not disk.is_plain(path) for line in _hide(layout, path)]
    problems = check_snapshot(layout, manifest)
    done += [line for stray in find_strays(layout, manifest) for line in _hide(layout, stray)]
    broken = [entry for entry in manifest.files if _is_broken(layout, manifest, entry)]
    for entry in manifest.files:
        if entry not in broken:
            keep_visible(layout, entry)
    if not broken:
        hidden = [entry.path for entry in manifest.files if not is_shown(layout, entry)]
        show_months(layout, manifest, check=still_held)
        return done + [f"{path} was not what the snapshot has: put right" for path in hidden]
    entries = [entry for entry in manifest.files if entry not in broken]
    older = [found for entry in broken if (found := _find_older(layout, manifest, entry)) is not None]
    files = sorted([*entries, *older], key=lambda entry: entry.path)
    known = layout.apply_state(manifest)
    mended = msgspec.structs.replace(
        known,
        snapshot=number + 1,
        made_at=datetime.now(UTC),
        files=files,
        rows=sum(entry.rows for entry in files),
        accounts=reset_walks(known.accounts),
        leaving=[],
    )
    make_current(layout, mended, manifest, still_held=still_held)
    return [
        *problems,
        *done,
        f"snapshot {mended.snapshot} was made of the {len(entries)} files that are whole"
        + (f", and of {len(older)} as an older snapshot had them" if older else "")
        + "; the next dump reads the whole list",
    ]


def _hide(layout: Layout, stray: Path) -> Iterator[str]:
    """Move what is not the lake's from where readers of the folder take it for part of it; says what was done.

    Files are moved one by one, under names that no glob for Parquet finds. A link holds nothing, and goes.
    """
    inside = stray.relative_to(layout.root)
    name = inside.as_posix()
    if stray.is_symlink():
        disk.remove_file(stray)
        yield f"{name}: a link, removed"
    elif stray.is_dir():
        for each in disk.list_folder(stray):
            yield from _hide(layout, each)
        disk.remove_tree(stray)
    else:
        folder = layout.own / "strays"
        disk.make_folder(folder)
        short = "-".join(inside.parts).encode()[-200:].decode(errors="ignore")
        target = folder / f"{short}.{secrets.token_hex(4)}"
        disk.rename(stray, target)
        yield f"{name}: moved out of readers' sight, to {target.relative_to(layout.root).as_posix()}"
    disk.sync_folder(stray.parent)


def _is_broken(layout: Layout, manifest: Manifest, entry: FileEntry) -> bool:
    """Not as it was written, or in the wrong month."""
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


def _find_older(layout: Layout, current: Manifest, broken: FileEntry) -> FileEntry | None:
    """The newest whole version of a broken file that an older snapshot has."""
    for older in reversed([n for n in layout.numbers() if n < current.snapshot]):
        try:
            manifest = layout.manifest(older)
        except LakeError:
            continue
        for entry in manifest.files:
            if entry.path == broken.path and not _is_broken(layout, manifest, entry):
                return entry
    return None
