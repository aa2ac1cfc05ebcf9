"""What a lake remembers about an account between two runs.

An incremental sync reads four things: the open jobs, the jobs created after the watermark, the jobs that were open and
are no longer listed as open, and a sample of the rest. `SyncState` holds what it needs to know for that.

Rules of this room: no clock, no randomness, no I/O; instants come in as arguments.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from pleo_extract.contract import Key, instant_key, parse_instant_key
from pleo_extract.core.order import weakest
from pleo_extract.core.verdict import VERDICTS

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from typing import Self

__all__ = [
    "FULL_EVERY",
    "OVERLAP",
    "AccountKey",
    "JobKey",
    "Mode",
    "RejectedRecord",
    "RereadCounts",
    "SyncState",
    "TotalKind",
    "binding_of",
    "choose_mode",
    "join_accounts",
    "reset_walks",
    "stop_line",
]


FULL_EVERY: Final = timedelta(days=7)
OVERLAP: Final = timedelta(hours=1)
"""How far below the watermark an incremental sync reads, since some jobs become visible late."""
Mode = Literal["full", "refresh"]
TotalKind = Literal["", "exact", "constant", "unusable"]
"""What the server's `total` is worth.

``exact``: it is the number of jobs. ``constant``: it is wrong by the same number each time. ``unusable``: it is capped,
counts the page, or is an estimate, so that it proves nothing. Empty: not known, or absent."""
JobKey = tuple[str, str]
"""(company_id, id): one job."""
_ANY: Final = "*"


class RereadCounts(msgspec.Struct, frozen=True):
    """How often the rows of one unknown status were re-read without a change.

    Thousands of rows take three entries, not a count each.

    Attributes:
        lines: a row created at or before ``lines[n]`` was re-read n + 1 times or more.
        rows: the exceptions, by name (``company_id/id``): how often rows that changed since were re-read.
    """

    lines: list[Key] = []
    rows: dict[str, int] = {}


class RejectedRecord(msgspec.Struct, frozen=True):
    """A row that does not fit the contract.

    Attributes:
        created_at: the place of its job in the list, as `instant_key` writes it; empty if it cannot be read.
        sum: hash of the row's content; a row that stays bad is not kept twice.
        file: the file under ``_lake/rejected/`` that keeps it.
    """

    created_at: str = ""
    sum: str = ""
    file: str = ""


class SyncState(msgspec.Struct, kw_only=True, rename={"watermark": "frontier"}):
    """What the lake remembers about one account.

    The manifest keeps it, so that it is never ahead of the data. The manifest calls the watermark `frontier`. `refused_offset`, `ignores_statuses` and `misechoes` are habits of the
    server, which each full sync tries again.

    Attributes:
        name: what the accounts file calls the company.
        verdict: the verdict of the last run.
        order: the order that its walk proved.
        watermark: (created_at, id) of the newest job that a complete sync has seen.
        full_at: when the last complete full sync ended (UTC).
        updated_at: when a run last published for the account (UTC).
        full_jobs: different jobs that the last complete full sync met.
        vanished: (company_id, id) of jobs in the lake that the server no longer lists.
        rejected: names of rows that do not fit the contract, until a run reads them without fault.
        spoiled: more about each of these rows, by name.
        unknown: statuses that the contract does not know, and which of their rows count as settled.
        data_as_of: the instant as of which the rows are true (UTC): the last complete run began its closing reads then.
        total_kind: what the server's `total` is worth.
        total_offset: by how much `total` exceeds the number of jobs.
        total_misses: full syncs in a row whose `total` was doubtful.
        has_ranks: False if a full sync contradicted what reads by offset had shown.
        refused_offset: the smallest offset that the server refused.
        ignores_statuses: whether the server ignores the filter by status.
        misechoes: whether the server echoes another place than was asked for.
        forgotten: hashes of jobs that the server lists and that were erased from the lake; they count as read.
        forgotten_people: how many people had been erased from the lake when this was written.
        page_size: the rows that the server gives if many are asked for; 0 if that is not known.
        page_limit: the most rows to ask for, because more were refused; 0 if none were. Only an explicit full sync asks
            for more.
    """

    name: str = ""
    verdict: str = "incomplete"
    order: str = "none"
    watermark: Key | None = None
    full_at: datetime | None = None
    updated_at: datetime | None = None
    full_jobs: int = 0
    vanished: list[JobKey] = []
    rejected: list[str] = []
    spoiled: dict[str, RejectedRecord] = {}
    unknown: dict[str, RereadCounts] = {}
    data_as_of: datetime | None = None
    total_kind: TotalKind = ""
    total_offset: int = 0
    total_misses: int = 0
    has_ranks: bool = True
    refused_offset: int | None = None
    ignores_statuses: bool = False
    misechoes: bool = False
    forgotten: list[str] = []
    forgotten_people: int = 0
    page_size: int = 0
    page_limit: int = 0


def choose_mode(
    account: SyncState | None, *, now: datetime, full: bool, full_every: timedelta
) -> tuple[Mode, str]:
    """Return how to sync an account, and the reason if it is a full sync."""
    if account is None:
        return "full", "first dump"
    if full:
        return "full", "asked for"
    if account.verdict == "incomplete" or account.watermark is None or account.full_at is None:
        return "full", "the last walk was not complete"
    if account.order == "none":
        return "full", "the server does not keep the order of creation"
    if not timedelta(0) <= now - account.full_at < full_every:
        return "full", f"the last full walk ended {account.full_at:%Y-%m-%d %H:%M} UTC"
    return "refresh", ""


def binding_of(account: SyncState | None) -> int:
    """Return what staged pages of an account are bound to: when its rows were last published, in microseconds.

    Staged pages stay valid while other accounts publish. A merge of lakes moves the instant, so that they do not.
    """
    updated = account.updated_at if account is not None else None
    return int(updated.timestamp() * 1e6) if updated is not None else 0


def reset_walks(accounts: dict[AccountKey, SyncState]) -> dict[AccountKey, SyncState]:
    """Return these states without what would let the next sync be incremental; what is known about jobs stays."""
    return {
        key: SyncState(
            name=account.name,
            full_jobs=account.full_jobs,
            vanished=account.vanished,
            rejected=account.rejected,
            spoiled=account.spoiled,
            unknown=dict.fromkeys(account.unknown, RereadCounts()),
            data_as_of=account.data_as_of,
            total_kind=account.total_kind,
            total_offset=account.total_offset,
            forgotten=account.forgotten,
            forgotten_people=account.forgotten_people,
            page_size=account.page_size,
            page_limit=account.page_limit,
        )
        for key, account in accounts.items()
    }


def join_accounts(
    mine: Mapping[AccountKey, SyncState], theirs: Mapping[AccountKey, SyncState], *, taken: Collection[str]
) -> dict[AccountKey, SyncState]:
    """Return the states that change when a lake takes over rows of another one.

    If both lakes have an account, the more careful state stays, so that the next incremental sync reads all that can have
    changed. An account that only the other lake has is copied. The state of an account for any company is reset, so that
    its next sync is full: the lake now holds rows that this account has never read.

    Args:
        mine: the states of the lake, by account.
        theirs: the states of the other lake.
        taken: companies whose rows the lake takes over.

    Returns:
        The states that are new or changed.
    """
    joined: dict[AccountKey, SyncState] = {}
    for key, other in theirs.items():
        own, company = mine.get(key), key.company_id
        if own is None:
            joined[key] = other
        elif company in taken or (company is None and taken):
            joined[key] = _join(own, other)
    if mine:  # else the lake becomes a copy of the other
        changed = {**mine, **joined} if taken else joined
        joined |= reset_walks({key: state for key, state in changed.items() if key.company_id is None})
    # Also where no row was taken over: the lake's own rows are now known to be true as of a later instant.
    for key, other in theirs.items():
        known, now = joined.get(key) or mine.get(key), other.data_as_of
        if known is not None and now is not None and (known.data_as_of is None or known.data_as_of < now):
            joined[key] = msgspec.structs.replace(known, data_as_of=now)
    return joined


def _join(own: SyncState, other: SyncState) -> SyncState:
    both = (own, other)
    is_same = (own.vanished, own.rejected) == (other.vanished, other.rejected)
    watermarks = [each.watermark for each in both if each.watermark is not None]
    walks = [each.full_at for each in both if each.full_at is not None]
    updates = [each.updated_at for each in both if each.updated_at is not None]
    instants = [each.data_as_of for each in both if each.data_as_of is not None]
    return SyncState(
        name=own.name or other.name,
        verdict=max((each.verdict for each in both), key=VERDICTS.index),
        order=weakest(each.order for each in both),
        watermark=min(watermarks) if len(watermarks) == len(both) else None,
        full_at=min(walks) if len(walks) == len(both) and is_same else None,
        full_jobs=max(each.full_jobs for each in both),
        # One microsecond later: pages that were staged for the lake before the merge no longer fit, see `binding_of`.
        updated_at=max(updates) + timedelta(microseconds=1) if updates else None,
        vanished=sorted({*own.vanished, *other.vanished}),
        rejected=sorted({*own.rejected, *other.rejected}),
        spoiled={**other.spoiled, **own.spoiled},
        unknown=dict.fromkeys([*own.unknown, *other.unknown], RereadCounts()),
        data_as_of=max(instants, default=None),  # the lake has the rows of the later reading
        forgotten=own.forgotten,
        forgotten_people=own.forgotten_people,
        page_size=own.page_size,
        page_limit=own.page_limit,
    )


def stop_line(watermark: Key) -> Key:
    """Return the key at which the newest-first walk of an incremental sync may stop."""
    created = parse_instant_key(watermark[0])
    return instant_key(max(created, datetime.min.replace(tzinfo=UTC) + OVERLAP) - OVERLAP), ""


class AccountKey(str):
    """The name of an account: a server and a company, ``https://… 1f0c…``; ``*`` for any company the credential may see.

    It is a string, so that it can be the key of a JSON object.
    """

    __slots__ = ()

    @classmethod
    def of(cls, server: str, company_id: str | None) -> Self:
        """Return the key of a company, or of all that a credential may see."""
        return cls(f"{server} {company_id or _ANY}")

    @property
    def server(self) -> str:
        """The URL of the server."""
        return self.rpartition(" ")[0]

    @property
    def company(self) -> str:
        """The company as it is shown: its id, or ``*`` for any company."""
        return self.rpartition(" ")[2]

    @property
    def company_id(self) -> str | None:
        """The id of the company, or None for any company."""
        return None if self.company == _ANY else self.company
