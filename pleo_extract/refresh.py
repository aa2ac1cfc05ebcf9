"""What the lake lacks, and what replaces what. Frames in, frames and decisions out.

A job's id and createdAt never change, and a settled job stays as it is. So a refresh reads the open jobs, the jobs
that are newer than what the lake has seen, those that were open in the lake and are so no longer, and a sample of
the rest; whatever does not fit turns the run into a full walk.

Rules of this room: no clock, no randomness, no files, no network; instants and chances come in as arguments.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Literal

import msgspec
import polars as pl

from pleo_extract.contract import COLUMNS, KEY, STATUSES, TERMINAL, Key, instant_key

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from pleo_extract.account_key import AccountKey

__all__ = [
    "FILE_ORDER",
    "FULL_EVERY",
    "OPEN",
    "OVERLAP",
    "Account",
    "JobKey",
    "Mode",
    "Readings",
    "Spoiled",
    "TotalKind",
    "binding_of",
    "chance_of_shift",
    "choose_mode",
    "count_readings",
    "created_month",
    "expect_total",
    "find_changed",
    "find_left",
    "find_news",
    "find_other",
    "find_unknown",
    "forget_walks",
    "group_ranks",
    "has_rows",
    "is_as_late",
    "is_beyond",
    "is_ended",
    "is_later",
    "is_same_list",
    "is_unknown",
    "is_unsettled",
    "join_accounts",
    "keep_latest",
    "learn_total",
    "merge_rows",
    "months_of",
    "read_key",
    "replace_rows",
    "same_rows",
    "spread_ranks",
    "stop_line",
]

OPEN: Final = ("pending", "in_progress")
"""The open statuses that the request can name."""
FULL_EVERY: Final = timedelta(days=7)
OVERLAP: Final = timedelta(hours=1)
"""How far below the frontier a refresh reads: jobs that became visible late are met there."""
MANY_JOBS: Final = 100
"""By how many jobs, or 1 % of them, a `total` may wobble while the list moves."""
MANY_MISSES: Final = 2
_ROUND: Final = 1_000
"""Caps are multiples of this: search engines count to 10,000."""
_SAID: Final = [column for column in COLUMNS if column != "expires_in"]
"""What is compared where rows are said to be the same: `expires_in` may count down."""
_VERDICTS: Final = ("complete", "complete_with_drift", "incomplete")
FILE_ORDER: Final = ("company_id", "created_at", "id")

Mode = Literal["full", "refresh"]
TotalKind = Literal["", "exact", "constant", "unusable"]
"""`exact`: it counts the jobs; `constant`: it is wrong by the same number each time; `unusable`: capped, of the page, or an
estimate, so that counts prove nothing. Empty: not known, or absent."""
JobKey = tuple[str, str]
"""(company_id, id): one job."""


SETTLED_AFTER: Final = 3
"""A row of an unknown status is settled when it was re-read so often and had not changed."""
MANY_LATE: Final = 1_000
"""Rows of one status that are counted one by one; where more have changed at once, the whole status starts over."""
MANY_UNKNOWN: Final = 20
"""Unknown statuses that are remembered."""


class Readings(msgspec.Struct, frozen=True):
    """How often the rows of one unknown status were re-read unchanged.

    A row created at or before ``lines[n]`` was re-read n + 1 times or more. `rows` are the exceptions, by name: rows that
    have changed since. So thousands of rows take three lines, and not a count each.
    """

    lines: list[Key] = []
    rows: dict[str, int] = {}


class Spoiled(msgspec.Struct, frozen=True):
    """A row that does not fit the contract.

    `created_at` is where its job stands in the list, as `instant_key` has it; empty where that cannot be read. `sum` is of
    what the row says, `file` the one under ``_lake/rejected/`` that keeps it.
    """

    created_at: str = ""
    sum: str = ""
    file: str = ""


class Account(msgspec.Struct, kw_only=True):
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
    frontier: Key | None = None
    full_at: datetime | None = None
    updated_at: datetime | None = None
    full_jobs: int = 0
    vanished: list[JobKey] = []
    rejected: list[str] = []
    spoiled: dict[str, Spoiled] = {}
    unknown: dict[str, Readings] = {}
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
    account: Account | None, *, now: datetime, full: bool, full_every: timedelta
) -> tuple[Mode, str]:
    """Full walk or refresh, and why a full walk where it is one."""
    if account is None:
        return "full", "first dump"
    if full:
        return "full", "asked for"
    if account.verdict == "incomplete" or account.frontier is None or account.full_at is None:
        return "full", "the last walk was not complete"
    if account.order == "none":
        return "full", "the server does not keep the order of creation"
    if not timedelta(0) <= now - account.full_at < full_every:
        return "full", f"the last full walk ended {account.full_at:%Y-%m-%d %H:%M} UTC"
    return "refresh", ""


def binding_of(account: Account | None) -> int:
    """Return what the staged pages of an account are bound to: when its rows were last published, in microseconds.

    Other accounts may publish meanwhile, in this run or in another, and a merge moves the instant on.
    """
    updated = account.updated_at if account is not None else None
    return int(updated.timestamp() * 1e6) if updated is not None else 0


def forget_walks(accounts: dict[AccountKey, Account]) -> dict[AccountKey, Account]:
    """What is known of jobs stays; where the walks stood is forgotten, so that the next one reads everything."""
    return {
        key: Account(
            name=account.name,
            full_jobs=account.full_jobs,
            vanished=account.vanished,
            rejected=account.rejected,
            spoiled=account.spoiled,
            unknown=dict.fromkeys(account.unknown, Readings()),
            data_as_of=account.data_as_of,
            total_kind=account.total_kind,
            total_offset=account.total_offset,
            forgotten=account.forgotten,
            forgotten_people=account.forgotten_people,
        )
        for key, account in accounts.items()
    }


def join_accounts(
    mine: Mapping[AccountKey, Account], theirs: Mapping[AccountKey, Account], *, taken: Collection[str]
) -> dict[AccountKey, Account]:
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
    joined: dict[AccountKey, Account] = {}
    for key, other in theirs.items():
        own, company = mine.get(key), key.company_id
        if own is None:
            joined[key] = other
        elif company in taken or (company is None and taken):
            joined[key] = _join(own, other)
    if mine:  # else it is a copy of the other
        changed = {**mine, **joined} if taken else joined
        joined |= forget_walks({key: state for key, state in changed.items() if key.company_id is None})
    for key, other in theirs.items():  # that nothing was taken is news too: the rows are true as of later
        known, now = joined.get(key) or mine.get(key), other.data_as_of
        if known is not None and now is not None and (known.data_as_of is None or known.data_as_of < now):
            joined[key] = msgspec.structs.replace(known, data_as_of=now)
    return joined


def _join(own: Account, other: Account) -> Account:
    both = (own, other)
    is_same = (own.vanished, own.rejected) == (other.vanished, other.rejected)
    frontiers = [each.frontier for each in both if each.frontier is not None]
    walks = [each.full_at for each in both if each.full_at is not None]
    updates = [each.updated_at for each in both if each.updated_at is not None]
    instants = [each.data_as_of for each in both if each.data_as_of is not None]
    return Account(
        name=own.name or other.name,
        verdict=max((each.verdict for each in both), key=_VERDICTS.index),
        order=min((each.order for each in both), key=("none", "created", "strict").index),
        frontier=min(frontiers) if len(frontiers) == len(both) else None,
        full_at=min(walks) if len(walks) == len(both) and is_same else None,
        full_jobs=max(each.full_jobs for each in both),
        # A moment later: pages that were staged for the lake as it was are not for this one.
        updated_at=max(updates) + timedelta(microseconds=1) if updates else None,
        vanished=sorted({*own.vanished, *other.vanished}),
        rejected=sorted({*own.rejected, *other.rejected}),
        spoiled={**other.spoiled, **own.spoiled},
        unknown=dict.fromkeys([*own.unknown, *other.unknown], Readings()),
        data_as_of=max(instants, default=None),  # the rows of the later reading are among those of both
        forgotten=own.forgotten,
        forgotten_people=own.forgotten_people,
    )


def read_key(created: str) -> datetime | None:
    """The instant that `instant_key` has written; None for any other text."""
    try:
        return datetime.fromisoformat(created).replace(tzinfo=UTC)
    except ValueError:
        return None


def expect_total(account: Account, totals: tuple[int | None, int | None]) -> tuple[int | None, int | None]:
    """Return these totals as the number of jobs they stand for, None where they stand for nothing."""
    if account.total_kind == "unusable":
        return None, None
    first, last = (None if total is None else total - account.total_offset for total in totals)
    return first, last


def learn_total(before: Account, jobs: int, totals: Sequence[int | None], *, page: int) -> Account:
    """Return the state with what a full walk, which met `jobs` jobs, shows of `total`.

    A total that is wrong by a constant is as good as a right one, since its changes are compared. One that is wrong by
    another number at each full walk is an estimate or has a cap; so is one that no change of the list can explain. Jobs
    that appear during a walk are met by it, so the last total tells of all of them, however many: what it has grown by is
    no doubt where it fits, what it has fallen by always is. One doubtful walk proves nothing either way, two are believed.

    Args:
        before: the state before the walk.
        jobs: different jobs met.
        totals: as told in the walk, the last one by the closing reads.
        page: rows of the page that told the last one.
    """
    told = [total for total in totals if total is not None and total >= 0]
    if not told:
        return msgspec.structs.replace(before, total_kind="", total_offset=0, total_misses=0)
    much, offset = max(MANY_JOBS, jobs // 100), told[-1] - jobs
    fits = offset == before.total_offset
    fall = max(high - low for n, high in enumerate(told) for low in told[n:])
    wobble = fall if fits else max(told) - min(told)
    if min(told) <= jobs + before.total_offset <= max(told):  # jobs that came or went meanwhile
        offset = before.total_offset
    moved = abs(offset - before.total_offset) if before.total_kind or before.total_misses else 0
    misses = before.total_misses + 1 if wobble or (moved and offset) else 0
    is_short = offset < 0 and (told[-1] % _ROUND == 0 or told[-1] <= page)  # a cap, or the rows of the page
    kind: TotalKind = "constant" if offset else "exact"
    if misses:
        kind = ""
    if is_short or wobble > much or (offset and moved > much) or misses >= MANY_MISSES:
        kind = "unusable"
    return msgspec.structs.replace(before, total_kind=kind, total_offset=offset, total_misses=misses)


def is_same_list(first: pl.DataFrame, again: pl.DataFrame) -> bool:
    """Return whether a second reading met the same jobs as the first."""
    return first.height == again.height == first.join(again, on=KEY, how="semi").height


def spread_ranks(start: int, jobs: int, *, page: int, count: int, phase: float) -> list[int]:
    """Return offsets of `count` pages, evenly spread over the ranks from `start` to the end of a list of so many jobs.

    `phase`, from 0 to 1, says where in its part of the list each lies: by chance, so that every rank is met in time.
    """
    room = jobs - page - start + 1
    if room <= 0:
        return []
    return [start + int((n + phase) * room / count) for n in range(count)]


def chance_of_shift(start: int, jobs: int, ranks: Sequence[int]) -> float:
    """Return the chance that pages at these ranks show that one job was deleted and another one inserted.

    Both shift all jobs between them by one, so they escape only when no page lies between the two, and both lie below
    the newest `start` jobs, which are read anyway. The two places are taken as independent and equally likely.
    """
    if jobs <= 0:
        return 1.0
    ends = [min(start, jobs), *sorted(ranks), jobs]
    return 1.0 - sum((high - low) ** 2 for low, high in pairwise(ends)) / jobs**2


def stop_line(frontier: Key) -> Key:
    """Where the newest-first walk of a refresh may stop."""
    created = datetime.fromisoformat(frontier[0]).replace(tzinfo=UTC)
    return instant_key(max(created, datetime.min.replace(tzinfo=UTC) + OVERLAP) - OVERLAP), ""


def group_ranks(ranks: Sequence[int], *, page: int, slack: int) -> list[int]:
    """Offsets of as few pages as show all these ranks, each with `slack` rows before it."""
    offsets: list[int] = []
    for rank in sorted(ranks):
        if not offsets or rank >= offsets[-1] + page - slack:
            offsets.append(max(0, rank - slack))
    return offsets


def is_unknown() -> pl.Expr:
    """Rows of a status that the contract does not know."""
    return ~pl.col("status").is_in(pl.Series(STATUSES).implode())


def is_unsettled(unknown: Mapping[str, Readings] | None = None) -> pl.Expr:
    """Rows whose job may still change: of every status but the terminal ones, and those known to be settled."""
    settled = is_ended()
    for status, readings in (unknown or {}).items():
        if len(readings.lines) == SETTLED_AFTER:
            late = pl.Series(list(readings.rows), dtype=pl.String).implode()
            is_late = pl.concat_str(KEY, separator="/").is_in(late)
            settled |= (pl.col("status") == status) & ~is_beyond(readings.lines[-1]) & ~is_late
    return ~settled


def count_readings(before: Account, statuses: Collection[str], changed: pl.DataFrame) -> dict[str, Readings]:
    """Return how often rows of unknown statuses were re-read unchanged, after a sync that re-read all unsettled ones.

    Args:
        before: the state before the sync.
        statuses: the unknown statuses that it met.
        changed: rows of these statuses that it read and that the lake did not have as they are.
    """
    counted: dict[str, Readings] = {}
    for status in sorted({*before.unknown, *statuses})[:MANY_UNKNOWN]:
        old = before.unknown.get(status, Readings())
        newest = [key for key in (before.frontier, *old.lines[:1]) if key is not None]
        lines = [max(newest), *old.lines][:SETTLED_AFTER] if newest else []
        late: list[str] = []
        if lines:
            rows = changed.filter(pl.col("status") == status, ~is_beyond(lines[0]))
            late = rows.select(pl.concat_str(KEY, separator="/")).to_series().to_list()
        again = {name: count + 1 for name, count in old.rows.items() if count + 1 < SETTLED_AFTER}
        exceptions = {**again, **dict.fromkeys(late, 0)}
        is_many = len(exceptions) > MANY_LATE
        counted[status] = Readings() if is_many else Readings(lines, exceptions)
    return counted


def find_changed(
    lake: pl.DataFrame, fresh: pl.DataFrame, unknown: Mapping[str, Readings] | None = None
) -> pl.DataFrame:
    """Settled rows of the lake that were read anew and say something else; `expires_in` aside."""
    settled = lake.filter(~is_unsettled(unknown))
    met = settled.join(fresh, on=KEY, how="semi")
    again = fresh.join(met, on=KEY, how="semi")
    return met.join(again, on=_SAID, how="anti", nulls_equal=True)


def find_news(lake: pl.DataFrame, rows: pl.DataFrame, *, fetched_later: Collection[str]) -> pl.DataFrame:
    """Of the rows of another lake those that say more than the lake: of jobs that it does not have, and later ones.

    `fetched_later` names the companies whose rows were fetched later than the lake's: of these also rows of the same
    `last_updated_at` that say something else; `expires_in` aside.
    """
    had = lake.select(*KEY, _had="last_updated_at", _had_ended=is_ended(), _is_there=True)
    found = rows.join(had, on=KEY, how="left", maintain_order="left")
    found = found.filter(pl.col("_is_there").is_null() | _is_later(fetched_later)).select(rows.columns)
    return found.join(lake, on=_SAID, how="anti", nulls_equal=True)


def find_left(lake: pl.LazyFrame, rows: pl.DataFrame, *, fetched_later: Collection[str]) -> pl.DataFrame:
    """The jobs of these rows of another lake that the lake has in another month, each with the month that it leaves.

    The later row stays, chosen as in `find_news`.
    """
    had = lake.select(*KEY, _had="last_updated_at", _had_ended=is_ended(), _old=created_month())
    near = had.join(rows.select(KEY).lazy(), on=KEY, how="semi").collect(engine="streaming")
    found = rows.select(*KEY, "status", "last_updated_at", _new=created_month()).join(near, on=KEY)
    found = found.filter(pl.col("_new") != pl.col("_old"))
    month = pl.when(_is_later(fetched_later)).then("_old").otherwise("_new")
    return found.select(*KEY, month=month)


def _is_later(fetched_later: Collection[str]) -> pl.Expr:
    """Rows that say something later than the lake's, as in `keep_latest`; of equals those fetched later."""
    said, known = pl.col("last_updated_at"), pl.col("_had")
    is_tie = said.eq_missing(known) & pl.col("company_id").is_in(list(fetched_later))
    is_later = (said > known) | (said.is_not_null() & known.is_null()) | is_tie
    ended, had_ended = is_ended(), pl.col("_had_ended")
    return (ended & ~had_ended) | ((ended == had_ended) & is_later)


def is_ended() -> pl.Expr:
    """Rows of jobs that have ended, as far as the contract knows their status."""
    return pl.col("status").is_in(pl.Series(TERMINAL).implode())


def find_other(lake: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """Those of these rows that the lake does not have as they are; `expires_in` aside."""
    return rows.join(lake, on=_SAID, how="anti", nulls_equal=True)


def find_unknown(lake: pl.DataFrame, fresh: pl.DataFrame, *, until: Key) -> pl.DataFrame:
    """Rows read that lie at or before `until` and that the lake does not have: inserted into the past."""
    return fresh.filter(~is_beyond(until)).join(lake, on=KEY, how="anti")


def is_beyond(key: Key) -> pl.Expr:
    """Rows that were created later than this key: (created_at, id)."""
    created = _instant(key)
    return (pl.col("created_at") > created) | ((pl.col("created_at") == created) & (pl.col("id") > key[1]))


def is_later(key: Key) -> pl.Expr:
    """Rows that were created after the instant of this key; the lake knows microseconds, so of ties nothing is known."""
    return pl.col("created_at") > _instant(key)


def is_as_late(key: Key) -> pl.Expr:
    """Rows that were created at the instant of this key or later; by this a file that has none is not read."""
    return pl.col("created_at") >= _instant(key)


def _instant(key: Key) -> pl.Expr:
    return pl.lit(datetime.fromisoformat(key[0]).replace(tzinfo=UTC)).cast(pl.Datetime("us", "UTC"))


def created_month() -> pl.Expr:
    """The partition of a row: the month of created_at, in UTC, as ``2026-11``."""
    return pl.col("created_at").dt.strftime("%Y-%m")


def months_of(frame: pl.DataFrame) -> list[str]:
    """The months that these rows fall in, in order."""
    created = frame["created_at"]
    ends = [end for end in (created.min(), created.max()) if isinstance(end, datetime)]
    if len({_name_month(end) for end in ends}) <= 1:  # the rule, in a list that is walked in order
        return [_name_month(end) for end in ends[:1]]
    return [_name_month(start) for start in created.dt.truncate("1mo").unique().sort()]


def _name_month(start: datetime) -> str:
    return f"{start.year:04d}-{start.month:02d}"


def keep_latest(rows: pl.DataFrame) -> pl.DataFrame:
    """One row for each (company_id, id), in the order given where nothing repeats.

    Of several one that has ended stays, since a job does not begin again; of these the one with the later
    `last_updated_at` (null is oldest), of equals the later in the frame. The end counts first because servers stamp
    `last_updated_at` by clocks that differ, or not at all.
    """
    if rows["id"].is_unique().all():
        return rows
    rows = rows.sort(is_ended(), "last_updated_at", nulls_last=False, maintain_order=True)
    return rows.unique(KEY, keep="last", maintain_order=True)


def merge_rows(*frames: pl.DataFrame) -> pl.DataFrame:
    """The latest row of each job, ordered as a file is: by company_id, created_at, id. Later frames were fetched later."""
    return keep_latest(pl.concat(frames)).select(COLUMNS).sort(FILE_ORDER)


def replace_rows(old: pl.DataFrame, *fresh: pl.DataFrame) -> pl.DataFrame:
    """As `merge_rows`, where all fresh rows were read after the old ones: what was read last is true, whatever its stamps."""
    latest = keep_latest(pl.concat([old.clear(), *fresh]))
    return merge_rows(old.join(latest, on=KEY, how="anti"), latest)


def has_rows(lake: pl.LazyFrame, rows: pl.DataFrame) -> bool:
    """Whether the lake has all these rows as they are, and each once; `expires_in` aside, which may count down."""
    near = lake.filter(pl.col("id").is_in(rows["id"].implode())).collect()
    if not near["id"].is_unique().all() and near.select(KEY).is_duplicated().any():
        return False
    return rows.join(near, on=_SAID, how="anti", nulls_equal=True).is_empty()


def same_rows(old: pl.DataFrame, new: pl.DataFrame) -> bool:
    """Whether two merged frames say the same of the same jobs; `expires_in` aside, which may count down."""
    return old.height == new.height and old.select(_SAID).equals(new.select(_SAID))
