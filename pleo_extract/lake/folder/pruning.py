"""Remove what is no longer kept: old snapshots, and what killed runs left."""

from __future__ import annotations

import logging
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from pleo_extract.errors import LakeError
from pleo_extract.lake import disk
from pleo_extract.lake.folder.objects import begin_build, sweep_objects
from pleo_extract.lake.staging import KEEP_STAGED

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pleo_extract.lake.layout import Layout
    from pleo_extract.lake.table import Keep

__all__ = ["prune", "sweep"]

KEEP_ALL: Final = timedelta(hours=48)
"""Up to this age, several snapshots of a day are kept; of older ones, only the last of each day."""
SLACK: Final = timedelta(minutes=5)
"""How far the clocks of two machines may differ before one counts as wrong."""

_log = logging.getLogger(__name__)


def sweep(
    layout: Layout, current: int | None, *, now: datetime, check: Callable[[], None] = lambda: None
) -> None:
    """Remove what killed runs left: manifests beyond the pointer, unnamed objects, staging that nobody resumed for 30 days.

    Args:
        layout: the lake.
        current: the number of the current snapshot; None where nothing was published.
        now: the current time (UTC).
        check: raises LakeLocked when another run has taken the lake.
    """
    newest = current or 0
    beyond = [number for number in layout.numbers() if number > newest]
    for number in beyond:
        check()
        disk.remove_file(layout.manifest_file(number))
    staged = disk.list_folder(layout.staging)
    builds = [folder for folder in staged if folder.name.startswith("build-")]
    if beyond or builds:
        sweep_objects(layout, check)
    for folder in staged:
        if folder in builds or now.timestamp() - folder.lstat().st_mtime > KEEP_STAGED.total_seconds():
            disk.remove_tree(folder)


def prune(
    layout: Layout,
    current: int,
    keep: Keep,
    *,
    now: datetime,
    check: Callable[[], None] = lambda: None,
) -> list[int]:
    """Remove the snapshots that need not be kept; return their numbers.

    Once, a clock that ran ahead made every snapshot look old, and all but the current one were removed. The newest
    manifest carries the time of that same clock, so ages are measured without it: from the manifest that replaced a
    snapshot to the last manifest but one. An instant in the future proves that some clock was wrong, but not which one:
    then no snapshot is removed because of its age.

    Args:
        layout: the lake.
        current: the number of the current snapshot, which always stays.
        keep: the rule by which others stay.
        now: the current time (UTC).
        check: raises LakeLocked when another run has taken the lake; called before each removal.
    """
    numbers = [n for n in layout.numbers() if n <= current]
    gone = set(numbers[: max(0, len(numbers) - max(1, keep.count))])
    made: dict[int, datetime] = {}
    for number in numbers:
        with suppress(LakeError):  # a broken manifest has no instant; `_find_old` uses that of its successor
            made[number] = layout.made_at(number)
    if ahead := [number for number, made_at in made.items() if made_at > now + SLACK]:
        _log.warning(
            "snapshot %d of %s has a time in the future (%s): a clock was wrong. No snapshot is removed because of its "
            "age; to remove old ones, run a dump with --keep-count %s",
            ahead[-1],
            layout.root,
            f"{made[ahead[-1]]:%Y-%m-%d %H:%M} UTC",
            len(numbers) // 2 or 1,
        )
    else:
        gone |= _find_old(numbers, made, keep, now=now)
    if gone:
        # If this run is killed, the marker tells the next one to look for unnamed objects.
        marker = begin_build(layout)
        for number in sorted(gone):
            check()
            disk.remove_file(layout.manifest_file(number))
        disk.sync_folder(layout.snapshots)
        sweep_objects(layout, check)
        disk.remove_tree(marker)
    return sorted(gone)


def _find_old(numbers: Sequence[int], made: dict[int, datetime], keep: Keep, *, now: datetime) -> set[int]:
    """Return the snapshots that are too old; `numbers` ends with the current one.

    The age of a snapshot runs from the instant of its successor to that of the last snapshot but one, see `prune`.
    """
    earlier = [made[number] for number in numbers[:-1] if number in made]
    until = min([now, *earlier[-1:]]) if keep.span else now
    old, replaced_at, day = set(), now, None
    for number in reversed(numbers):
        age, made_at = until - replaced_at, made.get(number, replaced_at)
        is_thinned = age >= KEEP_ALL and made_at.date() == day and not keep.every
        if number != numbers[-1] and (age >= keep.span or is_thinned):
            old.add(number)
        replaced_at, day = made_at, made_at.date()
    return old
