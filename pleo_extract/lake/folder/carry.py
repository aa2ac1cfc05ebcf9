"""Convert a lake of format 1 in place: files become objects, manifests are rewritten, the pointer moves.

Every undamaged snapshot is converted, history included, and nothing is read from the server. A kill leaves one format or
the other: until `_lake/current` exists the lake is of format 1. After that the remains of format 1 are removed, before
the first visible month appears, so that no glob ever matches both.
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

__all__ = ["carry_over", "carry_over_damaged"]


def carry_over(layout: Layout, *, check: Callable[[], None]) -> bool:
    """Convert a lake of format 1; return whether it was one, including one that is half converted.

    Args:
        layout: the lake.
        check: raises LakeLocked when another run has taken the lake.

    Raises:
        LakeError: the pointer is broken, or a file of the current snapshot is missing or damaged.
    """
    if layout.is_old:
        _convert(layout, check, layout.number(), lenient=False)
    return _remove_leftovers(layout, check)


def carry_over_damaged(layout: Layout, number: int | None, *, check: Callable[[], None]) -> bool:
    """Convert a damaged lake of format 1 and make snapshot `number` current, although files of it may be damaged."""
    _convert(layout, check, number, lenient=True)
    return _remove_leftovers(layout, check)


def _remove_leftovers(layout: Layout, check: Callable[[], None]) -> bool:
    if not _list_leftovers(layout):
        return False
    for name in ("staging", "rejected"):
        if (folder := layout.root / f"_{name}").is_dir() and not (layout.own / name).exists():
            disk.rename(folder, layout.own / name)
    check()
    _remove_old(layout)
    return True


def _convert(layout: Layout, check: Callable[[], None], number: int | None, *, lenient: bool) -> None:
    manifests = []
    for each in layout.numbers():
        try:
            manifests.append(layout.manifest(each))
        except LakeError:
            if each == number and not lenient:
                raise
    disk.make_folder(layout.objects)
    disk.make_folder(layout.snapshots)
    carried = [_convert_manifest(layout, manifest) for manifest in manifests]
    for manifest in carried:
        if manifest.snapshot == number and not lenient:
            _require_objects(layout, manifest)
    last_run = layout.last_run
    if last_run.exists():
        disk.replace_file(layout.own / last_run.name, disk.read_file(last_run))
    if number is None:
        return
    for manifest in carried:
        # Until the pointer exists, `layout.manifest_file` is the path of format 1.
        target = layout.snapshots / f"{manifest.snapshot:06d}.json"
        disk.replace_file(target, strict.encode(manifest), check=check)
    disk.sync_folder(layout.own)
    point_to(layout, number, check=check)


def _require_objects(layout: Layout, manifest: Manifest) -> None:
    for entry in manifest.files:
        if not (layout.objects / entry.object).exists():
            raise LakeError(
                f"{entry.path} of snapshot {manifest.snapshot} of {layout.root} is missing or damaged; "
                f"run: pleo-extract repair {layout.root}"
            )


def _convert_manifest(layout: Layout, manifest: Manifest) -> Manifest:
    """Return the manifest in this format, and link its undamaged files as objects.

    A format below 1 is kept, since its files lack columns: the next publish then rewrites them.
    """
    files: list[FileEntry] = []
    for entry in manifest.files:
        carried = _link_object(layout, manifest.snapshot, entry)
        # A repair of format 1 may have left a month with several files, under any names.
        number = sum(each.month == entry.month for each in files)
        path = f"created_month={entry.month}/part-{number}.parquet"
        files.append(msgspec.structs.replace(carried, path=path))
    return msgspec.structs.replace(
        manifest, format=FORMAT if manifest.format == 1 else manifest.format, files=files
    )


def _link_object(layout: Layout, snapshot: int, entry: FileEntry) -> FileEntry:
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
    except LakeError:  # the file is missing; `_require_objects` or the next reader reports it
        pass
    return msgspec.structs.replace(entry, object=name)


def _remove_old(layout: Layout) -> None:
    """Remove the files of format 1, the pointer first: a kill in between must not leave what looks like a lake."""
    disk.remove_file(layout.old.current)
    disk.sync_folder(layout.root)
    for name in _list_leftovers(layout):
        if name != layout.old.lock.name:
            disk.remove_tree(layout.root / name)
    disk.remove_file(layout.old.lock)
    disk.sync_folder(layout.root)


def _list_leftovers(layout: Layout) -> list[str]:
    return [path.name for path in disk.list_folder(layout.root) if OLD_NAMES.fullmatch(path.name)]
