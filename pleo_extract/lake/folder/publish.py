"""Make a snapshot current: write its manifest, replace the pointer, then update the visible months.

A manifest beyond the pointer was never published, and the next run removes it. The module `table` tells what a kill leaves.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from pleo_extract.errors import LakeError, LakeLocked
from pleo_extract.lake import disk, strict
from pleo_extract.lake.folder.visible import show_months
from pleo_extract.lake.layout import State

if TYPE_CHECKING:
    from collections.abc import Callable

    from pleo_extract.lake.layout import Layout, Manifest

__all__ = ["finish_first_publish", "make_current", "point_to", "write_manifest"]


def make_current(
    layout: Layout, manifest: Manifest, base: Manifest | None, *, still_held: Callable[[], None]
) -> None:
    """Write a manifest and point to it: this publishes the snapshot.

    A manifest with the number of its base is no new snapshot: then only its receipt and its accounts go to `state.json`.

    Args:
        layout: the lake.
        manifest: the snapshot to publish; its objects are in place.
        base: the snapshot that it was made from; None for the first one.
        still_held: raises LakeLocked when another run has taken the lake.

    Raises:
        LakeLocked: another run has taken the lake, or has published since `base` was read. Nothing was published.
    """

    def check() -> None:
        still_held()
        if (layout.number() or 0) != (base.snapshot if base else 0):
            raise LakeLocked(
                f"another run published to {layout.root} although this one held the lock; run again"
            )

    if base is not None and base.snapshot == manifest.snapshot:
        state = State(
            snapshot=manifest.snapshot,
            server=manifest.server,
            receipt=manifest.receipt,
            accounts=manifest.accounts,
        )
        disk.replace_file(layout.state, strict.encode(state), check=check)
        return
    disk.make_folder(layout.snapshots)
    write_manifest(layout, manifest, check=check)
    point_to(layout, manifest.snapshot, check=check)
    show_months(layout, manifest, check=still_held)


def write_manifest(layout: Layout, manifest: Manifest, *, check: Callable[[], None] | None = None) -> None:
    """Write a manifest; it replaces one of the same number."""
    disk.replace_file(layout.manifest_file(manifest.snapshot), strict.encode(manifest), check=check)


def point_to(layout: Layout, number: int, *, check: Callable[[], None] | None = None) -> None:
    """Make this snapshot current by replacing the pointer."""
    disk.replace_file(layout.current, f"{number}\n".encode(), check=check)


def finish_first_publish(layout: Layout) -> int | None:
    """Return the number of the current snapshot; None where nothing was published.

    A first publish that was killed just before its pointer is completed: manifest 1 and all its files are there.
    """
    number = layout.number()
    if number is None and layout.numbers() == [1]:
        with suppress(LakeError):
            manifest = layout.manifest(1)
            if all(disk.size_of(layout.path_of(1, entry)) == entry.bytes for entry in manifest.files):
                point_to(layout, 1)
                return 1
    return number
