"""What is staged, published: the one loop for dump and merge, over whichever table.

A commit goes on top of the state that was merged. Whoever was not first reads what others have committed and merges
again. Until the commit, signals end a run at once and nothing was published; while it is made they wait.
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
"""How often a run that was not the first merges again."""

_log = logging.getLogger(__name__)


class Publication(Protocol):
    """A run that publishes."""

    def account_for(self, change: Change) -> Info:
        """What is to be committed with this change. Asked again where another run was first."""

    def stand(self, change: Change) -> None:
        """Note that this change is committed, however the run ends."""


def publish(table: Table, stagings: Sequence[Staging], run: Publication, *, server: str) -> Manifest:
    """Merge what is staged into a table and commit it.

    Args:
        table: held by this run.
        stagings: what is staged, in the order it was fetched; cleared when it is published.
        run: gives what is committed with it.
        server: whose jobs these are.

    Returns:
        The state that is current now.

    Raises:
        LakeLocked: another run has taken the table; or others were first, `TRIES` times running.
        LakeError: a file of the table is not as it was written. TryLater: whether it is committed cannot be known.
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
            _log.info("%s; reading what others have committed", exc)
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
        f"other writers have committed to {table.name} first, {TRIES} times running; run again later"
    )


def _commit(table: Table, change: Change, run: Publication, stagings: Sequence[Staging]) -> Manifest:
    with hold_signals():
        info = run.account_for(change)
        try:
            manifest = table.commit(change, info)
        finally:
            if table.is_published(change.number):
                run.stand(change)
        for staging in stagings:
            staging.clear()
    return manifest
