"""Decode the log of a table: whether a commit changed rows, and the state that a run of ours wrote into it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from pleo_extract.core.state import AccountKey, SyncState
from pleo_extract.errors import LakeError
from pleo_extract.lake import strict
from pleo_extract.lake.layout import FORMAT

__all__ = ["APP", "Commit", "CommitState", "read_commit"]

APP: Final = "pleo_extract"
"""The key of our state in a commit, and our name in Delta's transaction identifiers."""


class CommitState(msgspec.Struct, kw_only=True):
    """What a run writes into its commit beside the data.

    Attributes:
        format: the version of the lake's format.
        run: a random token of the run, by which it finds its own commit.
        server: the server whose jobs the table holds.
        library: the version of this library.
        vacuumed_at: when files that no kept version needs were last removed (UTC).
        receipt: the receipt of the run.
        accounts: the sync state of every account; empty if it is in `accounts_file`.
        accounts_file: the file with the state of many accounts, see `states`.
        proven: months with files of other programs that hold no job twice, each with `hash_paths` of its files.
    """

    format: int
    run: str
    server: str
    library: str
    vacuumed_at: datetime
    receipt: dict[str, Any] = {}
    accounts: dict[AccountKey, SyncState] = {}
    accounts_file: str = ""
    proven: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit of the log.

    Attributes:
        made_at: when it was made, by the writer's clock (UTC).
        state: what a run of ours wrote into it; None for a commit of another program.
        changes_rows: whether it added or removed rows; a compaction or a new property does not.
    """

    made_at: datetime
    state: CommitState | None
    changes_rows: bool


class _CommitInfo(msgspec.Struct):
    timestamp: int = 0
    pleo_extract: str | None = None


class _Action(msgspec.Struct):
    dataChange: bool = True  # noqa: N815 - Delta's name


class _LogLine(msgspec.Struct):
    commitInfo: _CommitInfo | None = None  # noqa: N815 - Delta's name
    add: _Action | None = None
    remove: _Action | None = None


class _StateFormat(msgspec.Struct):
    format: int


def read_commit(data: bytes, where: str) -> Commit:
    """Decode one file of the log.

    Args:
        data: its bytes.
        where: the table's address, for the message.

    Raises:
        LakeError: a newer version of this library wrote it.
    """
    info, changes = _CommitInfo(), False
    for text in data.splitlines():
        try:
            line = strict.decode(text, _LogLine)
        except strict.Malformed:
            changes = True  # a line that cannot be decoded may have changed rows
            continue
        info = line.commitInfo or info
        action = line.add or line.remove
        changes = changes or (action is not None and action.dataChange)
    return Commit(_parse_timestamp(info.timestamp), _decode_state(info, where), changes)


def _decode_state(info: _CommitInfo, where: str) -> CommitState | None:
    if info.pleo_extract is None:
        return None
    try:
        version = strict.decode(info.pleo_extract, _StateFormat).format
        if version > FORMAT:
            raise LakeError(
                f"{where} has lake format {version}; this version of pleo-extract knows {FORMAT}. "
                "Upgrade pleo-extract"
            )
        state = strict.decode(info.pleo_extract, CommitState)
        strict.check_accounts(state.accounts)
        strict.check_receipt(state.receipt)
        vacuumed_at = strict.check_instant(state.vacuumed_at, "vacuumed_at")
    except strict.Malformed:
        return None
    return msgspec.structs.replace(state, vacuumed_at=vacuumed_at)


def _parse_timestamp(milliseconds: int) -> datetime:
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (OverflowError, OSError, ValueError):
        return datetime.fromtimestamp(0, UTC)
