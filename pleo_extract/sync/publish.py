"""The publish loop of dump and merge, over any table: merge staged rows into the latest state and commit the result.

Theory of operation. Concurrency is optimistic. Each attempt takes these steps:

    base = table.latest()            the state to merge with
    change = merge(base, staged)     new files are written; no reader sees them
    info = run.build_info(change)    receipt and account states, built as values for this attempt
    table.commit(change, info)       makes the change current, or raises LakeConflict: another commit came first

After a conflict the loop reads what the others have committed. If their commit changed no files (it brought only state),
the files already written are still right, and only the commit is repeated; else they are discarded and merged again.
Receipt and states are values made per attempt, so a failed attempt leaves nothing to undo.

Until the commit begins, a signal ends the run at once and nothing was published. During the commit signals wait:
between "the pointer was replaced" and "the run knows it" there must be no way out, or the receipt would deny a snapshot
that exists. An error can still come after the commit got through (a lost answer of an object store); then
`table.is_published` finds out, and the run is notified before the error goes on.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, Protocol

from pleo_extract.errors import LakeConflict, LakeLocked, TryLater
from pleo_extract.lake.table import Change, Info, merge_staged
from pleo_extract.signals import hold_signals

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pleo_extract.lake.layout import Manifest
    from pleo_extract.lake.staging import Staging
    from pleo_extract.lake.table import Table

__all__ = ["Publication", "publish"]

TRIES: Final = 5
"""Attempts before a run gives up because other writers keep committing first."""

_log = logging.getLogger(__name__)


class Publication(Protocol):
    """A run that publishes: a dump or a merge."""

    def build_info(self, change: Change) -> Info:
        """Return the receipt and the account states to commit with a change; called once per attempt."""

    def note_committed(self, change: Change) -> None:
        """Remember that this change is current now, even if an error follows."""


def publish(table: Table, stagings: Sequence[Staging], run: Publication, *, server: str) -> Manifest:
    """Merge staged rows into a table and commit the result.

    Args:
        table: the table, held by this run.
        stagings: the staged rows, in the order in which they were fetched; removed once they are published.
        run: builds what is committed with the rows.
        server: the server that the jobs belong to.

    Returns:
        The manifest of the snapshot that is current now.

    Raises:
        LakeLocked: another run has taken the table, or other writers committed first `TRIES` times in a row.
        LakeError: a file of the table is damaged.
        TryLater: the store did not say whether the commit got through.
    """
    last: LakeConflict | None = None
    change: Change | None = None
    for _ in range(TRIES):
        try:
            base = table.latest(server)
            if change is not None and change.fits(base):
                change.base = base
            else:
                if change is not None:
                    table.discard(change)
                change = Change(base)
                merge_staged(table, change, stagings)
            return _commit(table, change, run, stagings)
        except LakeConflict as exc:
            _log.info("%s; merging with what other writers have committed", exc)
            last = exc
        except BaseException:
            if change is not None:
                table.discard(change)
            raise
    if change is not None:
        table.discard(change)
    if last is not None and isinstance(last.__cause__, TryLater):
        raise last.__cause__
    raise LakeLocked(
        f"other writers have committed to {table.name} first, {TRIES} times in a row; run again later"
    )


def _commit(table: Table, change: Change, run: Publication, stagings: Sequence[Staging]) -> Manifest:
    with hold_signals():
        info = run.build_info(change)
        try:
            manifest = table.commit(change, info)
        finally:
            if table.is_published(change.number):
                run.note_committed(change)
        for staging in stagings:
            staging.clear()
    return manifest
