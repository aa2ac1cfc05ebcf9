"""The bytes of every kept file of a lake: named by what they are, never changed, gone when no snapshot names them."""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING, Final

from pleo_extract.errors import LakeError
from pleo_extract.lake import disk
from pleo_extract.lake.layout import OBJECT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pleo_extract.lake.layout import FileEntry, Layout

__all__ = ["ROW_GROUP", "begin_build", "keep_visible", "place_objects", "sweep_objects"]


ROW_GROUP: Final = 50_000
"""Rows that a reader holds at once, at least."""


def begin_build(layout: Layout) -> Path:
    """Make a folder to write objects in before they get their names; it goes when all is published.

    One that is still there tells the next run that this one was killed, and may have left objects that nothing names.
    """
    disk.make_folder(layout.staging, private=True)
    build = layout.staging / f"build-{secrets.token_hex(4)}"
    disk.make_folder(build)
    return build


def place_objects(layout: Layout, build: Path) -> None:
    """Put the objects that were written in this folder where they belong, durably; nobody reads them before a manifest does."""
    disk.make_folder(layout.objects)
    disk.sync_folder(build)
    for path in disk.list_folder(build):
        disk.rename(path, layout.objects / path.name)
    disk.sync_folder(layout.objects)


def sweep_objects(layout: Layout, check: Callable[[], None]) -> None:
    """Remove the objects that no manifest names, and what was left of links on their way, as long as `check` lets it.

    Whoever was paused and wakes late must not take those away that another run has just put there.
    A manifest that cannot be read may name any of them: then they stay, until it is pruned or mended.
    """
    try:
        named = {entry.object for number in layout.numbers() for entry in layout.manifest(number).files}
    except LakeError:
        return
    for path in disk.list_folder(layout.objects):
        if path.name not in named and (OBJECT.fullmatch(path.name) or disk.is_temporary(path)):
            check()
            disk.remove_file(path)


def keep_visible(layout: Layout, entry: FileEntry) -> bool:
    """Make the visible file the object that is lost, if it is the same; returns whether the object is there now."""
    kept = layout.objects / entry.object
    if disk.is_plain(kept) or not entry.object:
        return True
    visible = layout.path_of(0, entry)
    if visible == kept or os.path.lexists(kept):  # what stands in its way is seen to by a repair
        return False
    disk.make_folder(layout.objects)
    disk.link_file(visible, kept)
    return True
