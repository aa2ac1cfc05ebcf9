"""What is remembered of an account between runs, and the name of the account.

An incremental sync reads the open jobs, the jobs created after the watermark, the jobs that were open and are not listed
as open any more, and a sample of the rest. What it needs to know for that is the `SyncState`.

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
"""How far below the frontier a refresh reads: jobs that became visible late are met there."""
Mode = Literal["full", "refresh"]
TotalKind = Literal["", "exact", "constant", "unusable"]
"""`exact`: it counts the jobs; `constant`: it is wrong by the same number each time; `unusable`: capped, of the page, or an
estimate, so that counts prove nothing. Empty: not known, or absent."""
JobKey = tuple[str, str]
"""(company_id, id): one job."""
_ANY: Final = "*"


class RereadCounts(msgspec.Struct, frozen=True):
    """How often the rows of one unknown status were re-read unchanged.

    A row created at or before ``lines[n]`` was re-read n + 1 times or more. `rows` are the exceptions, by name: rows that
    have changed since. So thousands of rows take three lines, and not a count each.
    """

    lines: list[Key] = []
    rows: dict[str, int] = {}


class RejectedRecord(msgspec.Struct, frozen=True):
    """A row that does not fit the contract.

    `created_at` is where its job stands in the list, as `instant_key` has it; empty where that cannot be read. `sum` is of
    what the row says, `file` the one under ``_lake/rejected/`` that keeps it.
    """

    created_at: str = ""
    sum: str = ""
    file: str = ""


class SyncState(msgspec.Struct, kw_only=True, rename={"watermark": "frontier"}):
    """Sync state of one account (a server and a company, or any company), kept in the manifest.

    Attributes:
        name: what the accounts file calls the company. verdict: of the last run. order: that its walk proved.
        frontier: (created_at, id) of the newest job that a complete walk has seen.
        full_at: when the last complete full walk ended (UTC). full_jobs: different jobs it met.
        vanished: (company_id, id) of jobs in the lake that the server no longer lists.
        updated_at: when a run last published for it (UTC).
        rejected: names of rows that do not fit the contract and were not seen right since. spoiled: more about each.
        unknown: statuses that the contract does not know, and which of their rows count as settled.
        refused_offset: the smallest offset known to be refused; ignores_statuses: the server does not filter by status;
            misechoes: it echoes a place that is not the one asked for. All are tried again by each full sync.
        data_as_of: the instant as of which the rows are true (UTC): when the last complete run began its closing reads.
        total_kind: what the server's `total` is worth, see `TotalKind`; total_offset: by how much it exceeds the jobs.
        total_misses: full walks in a row whose totals fit neither the jobs met nor the one before.
        has_ranks: False where a full walk did not bear out what offsets showed.
        forgotten: hashes of jobs that the server lists and that the lake has forgotten: they count, and are nowhere else.
        forgotten_people: how many people the lake had forgotten when this was written.
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


def choose_mode(
    account: SyncState | None, *, now: datetime, full: bool, full_every: timedelta
) -> tuple[Mode, str]:
    """Full walk or refresh, and why a full walk where it is one."""
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
    """Return what the staged pages of an account are bound to: when its rows were last published, in microseconds.

    Other accounts may publish meanwhile, in this run or in another, and a merge moves the instant on.
    """
    updated = account.updated_at if account is not None else None
    return int(updated.timestamp() * 1e6) if updated is not None else 0


def reset_walks(accounts: dict[AccountKey, SyncState]) -> dict[AccountKey, SyncState]:
    """What is known of jobs stays; where the walks stood is forgotten, so that the next one reads everything."""
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
        )
        for key, account in accounts.items()
    }


def join_accounts(
    mine: Mapping[AccountKey, SyncState], theirs: Mapping[AccountKey, SyncState], *, taken: Collection[str]
) -> dict[AccountKey, SyncState]:
    """What is to be said of the accounts of a lake that was given the rows of another.

    Of an account that both have, the more careful state stays, so that the next refresh reads all that can have changed;
    one that only the other has comes with it. A state for any company says nothing of a lake that has become another,
    so that the next walk of such an account reads everything.

    Args:
        mine: the states of the lake, by account.
        theirs: those of the other.
        taken: companies of which the lake was given rows.

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
    if mine:  # else it is a copy of the other
        changed = {**mine, **joined} if taken else joined
        joined |= reset_walks({key: state for key, state in changed.items() if key.company_id is None})
    for key, other in theirs.items():  # that nothing was taken is news too: the rows are true as of later
        known, now = joined.get(key) or mine.get(key), other.data_as_of
        if known is not None and now is not None and (known.data_as_of is None or known.data_as_of < now):
            joined[key] = msgspec.structs.replace(known, data_as_of=now)
    return joined


def _join(own: SyncState, other: SyncState) -> SyncState:
    both = (own, other)
    is_same = (own.vanished, own.rejected) == (other.vanished, other.rejected)
    frontiers = [each.watermark for each in both if each.watermark is not None]
    walks = [each.full_at for each in both if each.full_at is not None]
    updates = [each.updated_at for each in both if each.updated_at is not None]
    instants = [each.data_as_of for each in both if each.data_as_of is not None]
    return SyncState(
        name=own.name or other.name,
        verdict=max((each.verdict for each in both), key=VERDICTS.index),
        order=weakest(each.order for each in both),
        watermark=min(frontiers) if len(frontiers) == len(both) else None,
        full_at=min(walks) if len(walks) == len(both) and is_same else None,
        full_jobs=max(each.full_jobs for each in both),
        # A moment later: pages that were staged for the lake as it was are not for this one.
        updated_at=max(updates) + timedelta(microseconds=1) if updates else None,
        vanished=sorted({*own.vanished, *other.vanished}),
        rejected=sorted({*own.rejected, *other.rejected}),
        spoiled={**other.spoiled, **own.spoiled},
        unknown=dict.fromkeys([*own.unknown, *other.unknown], RereadCounts()),
        data_as_of=max(instants, default=None),  # the rows of the later reading are among those of both
        forgotten=own.forgotten,
        forgotten_people=own.forgotten_people,
    )


def stop_line(watermark: Key) -> Key:
    """Where the newest-first walk of a refresh may stop."""
    created = parse_instant_key(watermark[0])
    return instant_key(max(created, datetime.min.replace(tzinfo=UTC) + OVERLAP) - OVERLAP), ""


class AccountKey(str):
    """A server and a company, ``*`` for any company that the credential may see: ``https://… 1f0c…``.

    It is the text itself, so that it can be the key of an object in JSON.
    """

    __slots__ = ()

    @classmethod
    def of(cls, server: str, company_id: str | None) -> Self:
        """Return the key of a company, or of all that a credential may see."""
        return cls(f"{server} {company_id or _ANY}")

    @property
    def server(self) -> str:
        """The server's URL."""
        return self.rpartition(" ")[0]

    @property
    def company(self) -> str:
        """The company as it is shown: its id, or ``*`` for any."""
        return self.rpartition(" ")[2]

    @property
    def company_id(self) -> str | None:
        """The company, or None for any."""
        return None if self.company == _ANY else self.company
