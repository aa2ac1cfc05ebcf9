"""What is no longer kept: snapshots that were replaced long enough ago, and what killed runs have left."""

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
"""How long every snapshot stays that is kept at all; of older ones the last of each day stays."""
SLACK: Final = timedelta(minutes=5)
"""By how much clocks of two machines may differ."""

_log = logging.getLogger(__name__)


def sweep(
    layout: Layout, current: int | None, *, now: datetime, check: Callable[[], None] = lambda: None
) -> None:
    """Remove what a run left that was killed: manifests and objects beyond the pointer, staging that nobody resumed for a month.

    `check` raises where the lake is another run's by now.
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
    """Remove the snapshots that are not to be kept, as long as `check` lets it; returns their numbers.

    A clock that runs ahead makes everything old at once, and the newest manifest says what that clock says. So an age
    is taken between manifests: from the one that replaced a snapshot to the last but one. An instant in the future
    says that a clock was wrong, and not which: then nothing is removed for its age.
    """
    numbers = [n for n in layout.numbers() if n <= current]
    gone = set(numbers[: max(0, len(numbers) - max(1, keep.count))])
    made: dict[int, datetime] = {}
    for number in numbers:
        with suppress(LakeError):  # a broken manifest does not say when: no earlier than its successor
            made[number] = layout.made_at(number)
    if ahead := [number for number, made_at in made.items() if made_at > now + SLACK]:
        _log.warning(
            "snapshot %d of %s says that it was made at %s, which is in the future: a clock was wrong. Snapshots are "
            "kept, whatever their age; a dump with --keep %s removes them",
            ahead[-1],
            layout.root,
            f"{made[ahead[-1]]:%Y-%m-%d %H:%M} UTC",
            len(numbers) // 2 or 1,
        )
    else:
        gone |= _find_old(numbers, made, keep, now=now)
    if gone:
        mark = begin_build(layout)  # so that what a killed one has left is found
        for number in sorted(gone):
            check()
            disk.remove_file(layout.manifest_file(number))
        disk.sync_folder(layout.snapshots)
        sweep_objects(layout, check)
        disk.remove_tree(mark)
    return sorted(gone)


def _find_old(numbers: Sequence[int], made: dict[int, datetime], keep: Keep, *, now: datetime) -> set[int]:
    """Those of these snapshots, the current one last, that were replaced so long before the last but one was made."""
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
