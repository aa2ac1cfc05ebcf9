"""Objects: the bytes of every kept file, named by month and hash, never changed, removed when no manifest names them."""

from __future__ import annotations

import hashlib
import io
import os
import secrets
from typing import TYPE_CHECKING, Final

from pleo_extract.errors import LakeError
from pleo_extract.lake import disk
from pleo_extract.lake.layout import OBJECT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import polars as pl

    from pleo_extract.lake.layout import FileEntry, Layout

__all__ = ["ROW_GROUP", "begin_build", "encode_rows", "place_objects", "restore_object", "sweep_objects"]


ROW_GROUP: Final = 50_000
"""Rows of a row group, which a reader holds in memory as a whole.

Measured: groups of this size brought a run that finds nothing new in a Delta table from 390 MB to 245 MB.
"""


def begin_build(layout: Layout) -> Path:
    """Make and return a folder to write objects in; the caller removes it when its commit is complete.

    A build folder that is still there tells the next run that this one was killed and may have left unnamed objects.
    """
    disk.make_folder(layout.staging, private=True)
    build = layout.staging / f"build-{secrets.token_hex(4)}"
    disk.make_folder(build)
    return build


def encode_rows(rows: pl.DataFrame) -> tuple[bytes, str]:
    """Return the bytes of a Parquet file with these rows, and their sha256."""
    buffer = io.BytesIO()
    rows.write_parquet(buffer, compression="zstd", compression_level=1, row_group_size=ROW_GROUP)
    data = buffer.getvalue()
    return data, hashlib.sha256(data).hexdigest()


def place_objects(layout: Layout, build: Path) -> None:
    """Move the objects of a build folder into place, durably. Nobody reads them before a manifest names them."""
    disk.make_folder(layout.objects)
    disk.sync_folder(build)
    for path in disk.list_folder(build):
        disk.rename(path, layout.objects / path.name)
    disk.sync_folder(layout.objects)


def sweep_objects(layout: Layout, check: Callable[[], None]) -> None:
    """Remove objects that no manifest names, and the temporary files of killed runs.

    A manifest that cannot be read may name any object: then all stay, until it is pruned or repaired.

    Args:
        layout: the lake.
        check: raises LakeLocked when another run has taken the lake; asked before each removal, since a process that was
            paused must not remove objects that the other run has just written and not named yet.
    """
    try:
        named = {entry.object for number in layout.numbers() for entry in layout.manifest(number).files}
    except LakeError:
        return
    unnamed = [
        path
        for path in disk.list_folder(layout.objects)
        if path.name not in named and (OBJECT.fullmatch(path.name) or disk.is_temporary(path))
    ]
    for path in unnamed:
        check()
        disk.remove_file(path)
    # Before the caller removes its build folder: after power loss, nothing else would point to them.
    if unnamed:
        disk.sync_folder(layout.objects)


def restore_object(layout: Layout, entry: FileEntry) -> bool:
    """Restore a lost object from its visible file, if that has the same bytes; return whether the object exists now."""
    kept = layout.objects / entry.object
    if disk.is_plain(kept) or not entry.object:
        return True
    visible = layout.path_of(0, entry)
    if visible == kept or os.path.lexists(kept):  # `repair` moves away what blocks the place
        return False
    disk.make_folder(layout.objects)
    disk.link_file(visible, kept)
    return True
