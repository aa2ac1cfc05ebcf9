"""The visible months: the current rows, one file a month right under the folder, for readers that know nothing of a lake.

Each is a second name (a hard link) of its object. They follow the pointer: if a run is killed between the two, the next
run brings them up to date. A month is replaced by one rename, so a program that reads the folder meanwhile sees the old or
the new file of each month. A job stays in its month, so that program sees every job once. Where jobs moved to another
month, the month that they left is replaced first: the jobs may be missing for a moment, but are never there twice.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Final

from pleo_extract.errors import LakeError, StorageError
from pleo_extract.lake import disk
from pleo_extract.lake.layout import MONTH
from pleo_extract.lake.old import OLD_NAMES
from pleo_extract.system import IS_WINDOWS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pleo_extract.lake.layout import FileEntry, Layout, Manifest

__all__ = ["find_strays", "is_same_bytes", "is_shown", "show_months"]

_log = logging.getLogger(__name__)
_PART: Final = re.compile(r"part-[0-9]{1,6}\.parquet")
"""The names of our files. Files that others put beside them are left to `repair`."""


def show_months(layout: Layout, manifest: Manifest, *, check: Callable[[], None]) -> None:
    """Make the visible months show the current snapshot.

    Args:
        layout: the lake.
        manifest: the current snapshot.
        check: raises LakeLocked when another run has taken the lake; asked before each change, since a process that was
            paused must not show an old snapshot.

    Raises:
        LakeError: an object is missing, or something else stands in the place of a visible file.
        StorageError: the disk refuses; the next run tries again. On Windows a month that a program has open is left to
            the next run with a warning.
    """
    ours = {layout.root / entry.path for entry in manifest.files}
    for path in _list_parts(layout):
        if path not in ours:
            check()
            _remove_part(path)
    behind = [entry for entry in manifest.files if not is_shown(layout, entry)]
    leaving = [entry for entry in behind if entry.month in manifest.leaving]
    if len(leaving) > 1:  # a job may have moved between two of them: neither order of replacing would do
        _hide([layout.root / entry.path for entry in leaving], check)
    for entry in [*leaving, *(entry for entry in behind if entry not in leaving)]:
        target, source = layout.root / entry.path, layout.path_of(manifest.snapshot, entry)
        if source == target:  # the object is lost, and `path_of` found the same bytes in the visible file
            continue
        if not disk.is_plain(source):
            raise LakeError(
                f"{source} is missing or not a plain file; run: pleo-extract repair {layout.root}"
            )
        _make_place(layout, target)
        try:
            disk.link_file(source, target, check=check)
        except StorageError as exc:
            is_open = IS_WINDOWS and isinstance(exc.__cause__, PermissionError)
            if not is_open or entry in leaving:
                raise
            _log.warning("%s is open in another program; the next run replaces it", target)


def _make_place(layout: Layout, target: Path) -> None:
    """Make the folder of a visible file; raise LakeError where something else stands in the place of either."""
    cure = f"run: pleo-extract repair {layout.root}"
    if target.parent.is_file():
        raise LakeError(f"{target.parent} is a file where a lake keeps a folder; {cure}")
    if target.is_dir():
        raise LakeError(f"{target} is a folder where a lake keeps a file; {cure}")
    disk.make_folder(target.parent)


def find_strays(layout: Layout, manifest: Manifest) -> list[Path]:
    """Return the paths that a reader of the folder takes for data although they are not the lake's.

    These are whatever others put into the folders of months, and Parquet files anywhere else below the root.
    """
    ours = {layout.root / entry.path for entry in manifest.files}
    strays = [
        path
        for folder in _list_months(layout)
        for path in ([folder] if not folder.is_dir() or folder.is_symlink() else disk.list_folder(folder))
        if not (path in ours and disk.is_plain(path)) and not _is_skipped(path)
    ]
    # Remains of a half converted lake of format 1 are no strays: the next run removes them before any month appears.
    beyond = [
        path
        for path in sorted(layout.root.rglob("*.parquet"))
        if path not in ours and not OLD_NAMES.fullmatch(path.relative_to(layout.root).parts[0])
    ]
    return strays + [
        path for path in beyond if not _is_below(path, strays) and not _is_in_other_lake(layout, path)
    ]


def _is_below(path: Path, folders: list[Path]) -> bool:
    return any(path == folder or folder in path.parents for folder in folders)


def _is_in_other_lake(layout: Layout, path: Path) -> bool:
    """Return whether the file belongs to another lake that somebody made below this one."""
    between = path.relative_to(layout.root).parents
    return any((layout.root / folder / layout.own.name).is_dir() for folder in list(between)[:-1])


def _is_skipped(path: Path) -> bool:
    """Return whether readers skip this file, such as `.DS_Store` or the temporary file of a run."""
    return path.name[0] in "._" and path.suffix != ".parquet" and (path.is_file() and not path.is_symlink())


def is_shown(layout: Layout, entry: FileEntry) -> bool:
    """Return whether the visible file is the object of this entry."""
    return disk.is_same(layout.root / entry.path, layout.objects / entry.object)


def is_same_bytes(layout: Layout, entry: FileEntry) -> bool:
    """Return whether the visible file has the bytes of this entry: in a copy without hard links it is no object."""
    visible = layout.root / entry.path
    try:
        return disk.size_of(visible) == entry.bytes and disk.hash_file(visible) == entry.sha256
    except (LakeError, StorageError):
        return False


def _hide(paths: list[Path], check: Callable[[], None]) -> None:
    """Remove these visible files for good: after power loss, none may come back beside those that replace it."""
    for path in paths:
        check()
        disk.remove_file(path)
    for folder in {path.parent for path in paths}:
        if folder.is_dir():
            disk.sync_folder(folder)


def _remove_part(path: Path) -> None:
    disk.remove_file(path)
    disk.sync_folder(path.parent)
    if not disk.list_folder(path.parent):
        disk.remove_tree(path.parent)


def _list_parts(layout: Layout) -> Iterator[Path]:
    for folder in _list_months(layout):
        if folder.is_symlink():
            raise LakeError(f"{folder} is a link, where a lake keeps a folder; replace it by a folder")
        for path in disk.list_folder(folder):
            if _PART.fullmatch(path.name):
                yield path
            elif disk.is_temporary(path):
                disk.remove_file(path)


def _list_months(layout: Layout) -> Iterator[Path]:
    return (path for path in disk.list_folder(layout.root) if MONTH.fullmatch(path.name))
