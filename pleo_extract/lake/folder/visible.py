"""The visible months: the current rows, one file a month right under the folder, for readers that know nothing of a lake.

Each is a second name of its object. They follow the pointer: a run that was killed between the two is followed by one
that brings them in line. A month is replaced by one rename, so that whoever reads the folder meanwhile sees each month as
it was or as it is, and since a job stays in its month, every job once. Where jobs have left for another month, the month
that they left is replaced first: they may be missing for a moment, and the folder never holds them twice.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from pleo_extract.errors import LakeError
from pleo_extract.lake import disk
from pleo_extract.lake.layout import MONTH
from pleo_extract.lake.old import OLD_NAMES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pleo_extract.lake.layout import FileEntry, Layout, Manifest

__all__ = ["find_strays", "is_shown", "show_months"]

_PART: Final = re.compile(r"part-[0-9]{1,6}\.parquet")
"""The names of our files; what others put beside them is left to a repair."""


def show_months(layout: Layout, manifest: Manifest, *, check: Callable[[], None]) -> None:
    """Bring the visible months in line with the current snapshot, unless `check` raises: whoever was paused comes too late.

    Raises:
        LakeError: an object is missing. StorageError: the disk refuses; the next run tries again.
    """
    shown = {layout.root / entry.path for entry in manifest.files}
    for path in _list_parts(layout):
        if path not in shown:
            check()
            _hide(path)
    behind = [entry for entry in manifest.files if not is_shown(layout, entry)]
    leaving = [entry for entry in behind if entry.month in manifest.leaving]
    if len(leaving) > 1:  # jobs may have changed places
        for entry in leaving:
            check()
            disk.remove_file(layout.root / entry.path)
    for entry in [*leaving, *(entry for entry in behind if entry not in leaving)]:
        target, source = layout.root / entry.path, layout.path_of(manifest.snapshot, entry)
        if source == target:  # the object is lost, and this is the same
            continue
        if not disk.is_plain(source):
            raise LakeError(f"{source} is missing, or no plain file; run: pleo-extract repair {layout.root}")
        disk.make_folder(target.parent)
        if target.is_dir():
            raise LakeError(
                f"{target} is a folder where a lake keeps a file; run: pleo-extract repair {layout.root}"
            )
        disk.link_file(source, target, check=check)


def find_strays(layout: Layout, manifest: Manifest) -> list[Path]:
    """What lies in the folders of months, and that a reader of the folder takes for part of it, although it is not the lake's."""
    shown = {layout.root / entry.path for entry in manifest.files}
    strays = [
        path
        for folder in _list_months(layout)
        for path in ([folder] if not folder.is_dir() or folder.is_symlink() else disk.list_folder(folder))
        if not (path in shown and disk.is_plain(path)) and not _is_passed_over(path)
    ]
    # What is left of a lake of format 1 that is half carried over, the next run removes before any month appears.
    beyond = [
        path
        for path in sorted(layout.root.rglob("*.parquet"))
        if path not in shown and not OLD_NAMES.fullmatch(path.relative_to(layout.root).parts[0])
    ]
    return strays + [
        path for path in beyond if not _is_in(path, strays) and not _is_of_other_lake(layout, path)
    ]


def _is_in(path: Path, folders: list[Path]) -> bool:
    return any(path == folder or folder in path.parents for folder in folders)


def _is_of_other_lake(layout: Layout, path: Path) -> bool:
    """Whether a lake in the lake holds this file; whoever put it there named a folder that is taken."""
    between = path.relative_to(layout.root).parents
    return any((layout.root / folder / layout.own.name).is_dir() for folder in list(between)[:-1])


def _is_passed_over(path: Path) -> bool:
    """Whether readers pass over this file, such as what a desktop or a run under way leaves there."""
    return path.name[0] in "._" and path.suffix != ".parquet" and (path.is_file() and not path.is_symlink())


def is_shown(layout: Layout, entry: FileEntry) -> bool:
    """Whether readers of the folder see this file as the snapshot has it."""
    return disk.is_same(layout.root / entry.path, layout.objects / entry.object)


def _hide(path: Path) -> None:
    disk.remove_file(path)
    disk.sync_folder(path.parent)
    if not disk.list_folder(path.parent):
        disk.remove_tree(path.parent)


def _list_parts(layout: Layout) -> Iterator[Path]:
    for folder in _list_months(layout):
        if folder.is_symlink():
            raise LakeError(f"{folder} is a link; a lake keeps its folders itself. Put a folder in its place")
        for path in disk.list_folder(folder):
            if _PART.fullmatch(path.name):
                yield path
            elif disk.is_temporary(path):
                disk.remove_file(path)


def _list_months(layout: Layout) -> Iterator[Path]:
    return (path for path in disk.list_folder(layout.root) if MONTH.fullmatch(path.name))
