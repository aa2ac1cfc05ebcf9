"""The last steps of a new snapshot: its manifest, then the pointer, then the visible months, see `visible`.

Whatever lies beyond the pointer was never published; the next run sweeps it away.
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

__all__ = ["finish_first", "make_current", "point_to", "write_manifest"]


def make_current(
    layout: Layout, manifest: Manifest, base: Manifest | None, *, still_held: Callable[[], None]
) -> None:
    """Write a manifest and point to it: now it is published.

    Where it has its base's number there is no new snapshot: what the run has learned is kept beside the current one.

    Raises:
        LakeLocked: another run has taken the lake, or published since `base` was read; this one publishes nothing.
    """

    def check() -> None:
        still_held()
        if (layout.number() or 0) != (base.snapshot if base else 0):
            raise LakeLocked(
                f"another run has published to {layout.root} meanwhile, although this one held the lock; run again"
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
    """Write a manifest in place of the one of its number."""
    disk.replace_file(layout.manifest_file(manifest.snapshot), strict.encode(manifest), check=check)


def point_to(layout: Layout, number: int, *, check: Callable[[], None] | None = None) -> None:
    """Make this snapshot the current one."""
    disk.replace_file(layout.current, f"{number}\n".encode(), check=check)


def finish_first(layout: Layout) -> int | None:
    """The current snapshot. A first one that lacks nothing but the pointer, since its run was killed, is given it."""
    number = layout.number()
    if number is None and layout.numbers() == [1]:
        with suppress(LakeError):
            manifest = layout.manifest(1)
            if all(disk.size_of(layout.path_of(1, entry)) == entry.bytes for entry in manifest.files):
                point_to(layout, 1)
                return 1
    return number
