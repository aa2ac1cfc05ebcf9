"""What the commits of a table's log say: whether they changed rows, and what a run of ours wrote into its own."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from pleo_extract.core.state import AccountKey, SyncState
from pleo_extract.errors import LakeError
from pleo_extract.lake import strict
from pleo_extract.lake.layout import FORMAT

__all__ = ["APP", "Commit", "State", "read_commit"]

APP: Final = "pleo_extract"
"""Our name in commits, and in Delta's transaction identifiers."""


class State(msgspec.Struct, kw_only=True):
    """What a run writes into its commit, beside the data.

    Attributes:
        run: the committing run's own token, by which it knows its commit again.
        vacuumed_at: when files that no version needs were last removed.
        proven: months with files of other programs in which every job was found once, each with `sum_names` of its files.
    """

    format: int
    run: str
    server: str
    library: str
    vacuumed_at: datetime
    receipt: dict[str, Any] = {}
    accounts: dict[AccountKey, SyncState] = {}
    proven: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit of the log.

    Attributes:
        made_at: by the committer's clock (UTC). state: what our run wrote into it; None for another program's.
        changes_rows: whether it added or removed rows; a compaction or a new property does not.
    """

    made_at: datetime
    state: State | None
    changes_rows: bool


class _Info(msgspec.Struct):
    timestamp: int = 0
    pleo_extract: str | None = None


class _Action(msgspec.Struct):
    dataChange: bool = True  # noqa: N815 - Delta's name


class _Line(msgspec.Struct):
    commitInfo: _Info | None = None  # noqa: N815 - Delta's name
    add: _Action | None = None
    remove: _Action | None = None


class _Version(msgspec.Struct):
    format: int


def read_commit(data: bytes, where: str) -> Commit:
    """Return what one file of the log says.

    Args:
        data: its bytes.
        where: the table, for a message.

    Raises:
        LakeError: a newer version of this library wrote it.
    """
    info, changes = _Info(), False
    for text in data.splitlines():
        try:
            line = strict.decode(text, _Line)
        except strict.Malformed:
            changes = True  # it may say anything
            continue
        info = line.commitInfo or info
        action = line.add or line.remove
        changes = changes or (action is not None and action.dataChange)
    return Commit(_instant(info.timestamp), _decode_state(info, where), changes)


def _decode_state(info: _Info, where: str) -> State | None:
    if info.pleo_extract is None:
        return None
    try:
        version = strict.decode(info.pleo_extract, _Version).format
        if version > FORMAT:
            raise LakeError(
                f"{where} has lake format {version}; this version of pleo-extract knows {FORMAT}. "
                "Upgrade pleo-extract"
            )
        state = strict.decode(info.pleo_extract, State)
        strict.check_accounts(state.accounts)
        strict.check_receipt(state.receipt)
        vacuumed_at = strict.check_instant(state.vacuumed_at, "vacuumed_at")
    except strict.Malformed:
        return None
    return msgspec.structs.replace(state, vacuumed_at=vacuumed_at)


def _instant(milliseconds: int) -> datetime:
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (OverflowError, OSError, ValueError):
        return datetime.fromtimestamp(0, UTC)
