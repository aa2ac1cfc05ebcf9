"""A lake of format 1 carried over: its files become objects, its manifests are written anew, its pointer is moved.

All that is whole is carried, history too, and nothing is read from the server. Whoever kills it leaves one format or
the other: until `_lake/current` is there the lake is what it was, and from then on what is left of the old one is removed,
before the first visible month appears, so that no glob ever sees both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from pleo_extract.errors import LakeError
from pleo_extract.lake import disk, strict
from pleo_extract.lake.folder.publish import point_to
from pleo_extract.lake.layout import FORMAT, name_object
from pleo_extract.lake.old import OLD_NAMES

if TYPE_CHECKING:
    from collections.abc import Callable

    from pleo_extract.lake.layout import FileEntry, Layout, Manifest

__all__ = ["carry_over", "carry_what_is_left"]


def carry_over(layout: Layout, *, check: Callable[[], None]) -> bool:
    """Make a lake of format 1 one of this format; returns whether it was one, whole or half carried over.

    Args:
        layout: the lake.
        check: raises where the lake is another run's by now.

    Raises:
        LakeError: its pointer is broken, or the current snapshot is not as it was written.
    """
    if layout.is_old:
        _carry(layout, check, layout.number(), lenient=False)
    return _finish(layout, check)


def carry_what_is_left(layout: Layout, number: int | None, *, check: Callable[[], None]) -> bool:
    """As `carry_over`, but this snapshot is to be the current one, and its files need not be as they were written."""
    _carry(layout, check, number, lenient=True)
    return _finish(layout, check)


def _finish(layout: Layout, check: Callable[[], None]) -> bool:
    if not _list_old(layout):
        return False
    for name in ("staging", "rejected"):
        if (folder := layout.root / f"_{name}").is_dir() and not (layout.own / name).exists():
            disk.rename(folder, layout.own / name)
    check()
    _remove_old(layout)
    return True


def _carry(layout: Layout, check: Callable[[], None], number: int | None, *, lenient: bool) -> None:
    manifests = []
    for each in layout.numbers():
        try:
            manifests.append(layout.manifest(each))
        except LakeError:
            if each == number and not lenient:
                raise
    disk.make_folder(layout.objects)
    disk.make_folder(layout.snapshots)
    carried = [_carry_files(layout, manifest) for manifest in manifests]
    for manifest in carried:
        if manifest.snapshot == number and not lenient:
            _require_objects(layout, manifest)
    last_run = layout.last_run
    if last_run.exists():
        disk.replace_file(layout.own / last_run.name, disk.read_file(last_run))
    if number is None:
        return
    for manifest in carried:
        target = (
            layout.snapshots / f"{manifest.snapshot:06d}.json"
        )  # manifest_file names the old one until the pointer is there
        disk.replace_file(target, strict.encode(manifest), check=check)
    disk.sync_folder(layout.own)
    point_to(layout, number, check=check)


def _require_objects(layout: Layout, manifest: Manifest) -> None:
    for entry in manifest.files:
        if not (layout.objects / entry.object).exists():
            raise LakeError(
                f"{entry.path} of snapshot {manifest.snapshot} of {layout.root} is missing, or not as it was written; "
                f"run: pleo-extract repair {layout.root}"
            )


def _carry_files(layout: Layout, manifest: Manifest) -> Manifest:
    """The manifest of a snapshot whose whole files are objects now.

    Its format stays below this one where its files lack columns: then the next publish writes them anew.
    """
    files: list[FileEntry] = []
    for entry in manifest.files:
        carried = _carry_file(layout, manifest.snapshot, entry)
        number = sum(
            each.month == entry.month for each in files
        )  # a repair may have left several, of any names
        path = f"created_month={entry.month}/part-{number}.parquet"
        files.append(msgspec.structs.replace(carried, path=path))
    return msgspec.structs.replace(
        manifest, format=FORMAT if manifest.format == 1 else manifest.format, files=files
    )


def _carry_file(layout: Layout, snapshot: int, entry: FileEntry) -> FileEntry:
    name = name_object(entry.month, entry.sha256)
    source, target = layout.old.snapshot_folder(snapshot) / entry.path, layout.objects / name
    try:
        if (
            not target.exists()
            and disk.size_of(source) == entry.bytes
            and disk.hash_file(source) == entry.sha256
        ):
            disk.link_file(source, target)
            disk.protect_file(target)
    except LakeError:  # it is missing; whoever needs it says so
        pass
    return msgspec.structs.replace(entry, object=name)


def _remove_old(layout: Layout) -> None:
    """The pointer first, so that nobody takes what is left for a lake."""
    disk.remove_file(layout.old.current)
    disk.sync_folder(layout.root)
    for name in _list_old(layout):
        if name != layout.old.lock.name:
            disk.remove_tree(layout.root / name)
    disk.remove_file(layout.old.lock)
    disk.sync_folder(layout.root)


def _list_old(layout: Layout) -> list[str]:
    return [path.name for path in disk.list_folder(layout.root) if OLD_NAMES.fullmatch(path.name)]
