"""What the lake lacks, and what replaces what. Frames in, frames and decisions out.

A job's id and createdAt never change, and a settled job stays as it is. So a refresh reads the open jobs, the jobs
that are newer than what the lake has seen, those that were open in the lake and are so no longer, and a sample of
the rest; whatever does not fit turns the run into a full walk.

Rules of this room: no clock, no randomness, no files, no network; instants and chances come in as arguments.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal

import msgspec
import polars as pl

from pleo_extract.contract import COLUMNS, KEY, TERMINAL, Key, instant_key

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "FILE_ORDER",
    "FULL_EVERY",
    "OPEN",
    "OVERLAP",
    "Account",
    "JobKey",
    "Mode",
    "choose_mode",
    "created_month",
    "find_changed",
    "find_unknown",
    "forget_walks",
    "group_ranks",
    "has_rows",
    "is_as_late",
    "is_beyond",
    "is_unsettled",
    "keep_latest",
    "merge_rows",
    "months_of",
    "same_rows",
    "stop_line",
]

OPEN: Final = ("pending", "in_progress")
"""The open statuses that the request can name."""
FULL_EVERY: Final = timedelta(days=7)
OVERLAP: Final = timedelta(hours=1)
"""How far below the frontier a refresh reads: jobs that became visible late are met there."""
_SAID: Final = [column for column in COLUMNS if column != "expires_in"]
"""What is compared where rows are said to be the same: `expires_in` may count down."""
FILE_ORDER: Final = ("company_id", "created_at", "id")

Mode = Literal["full", "refresh"]
JobKey = tuple[str, str]
"""(company_id, id): one job."""


class Account(msgspec.Struct, kw_only=True):
    """Sync state of one account (a server and a company, or any company), kept in the manifest.

    Attributes:
        name: what the accounts file calls the company. verdict: of the last run. order: that its walk proved.
        frontier: (created_at, id) of the newest job that a complete walk has seen.
        full_at: when the last complete full walk ended (UTC). full_jobs: different jobs it met.
        vanished: (company_id, id) of jobs in the lake that the server no longer lists.
        updated_at: when a run last published for it (UTC).
        rejected: names of rows that do not fit the contract and were not seen right since.
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


def forget_walks(accounts: dict[str, Account]) -> dict[str, Account]:
    """What is known of jobs stays; where the walks stood is forgotten, so that the next one reads everything."""
    return {
        key: Account(
            name=account.name,
            full_jobs=account.full_jobs,
            vanished=account.vanished,
            rejected=account.rejected,
        )
        for key, account in accounts.items()
    }


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


def is_unsettled() -> pl.Expr:
    """Rows whose job may still change: every status but the terminal ones, unknown ones included."""
    return ~pl.col("status").is_in(pl.Series(TERMINAL).implode())


def find_changed(lake: pl.DataFrame, fresh: pl.DataFrame) -> pl.DataFrame:
    """Settled rows of the lake that were read anew and say something else; `expires_in` aside."""
    settled = lake.filter(~is_unsettled())
    met = settled.join(fresh, on=KEY, how="semi")
    again = fresh.join(met, on=KEY, how="semi")
    return met.join(again, on=_SAID, how="anti", nulls_equal=True)


def find_unknown(lake: pl.DataFrame, fresh: pl.DataFrame, *, until: Key) -> pl.DataFrame:
    """Rows read that lie at or before `until` and that the lake does not have: inserted into the past."""
    return fresh.filter(~is_beyond(until)).join(lake, on=KEY, how="anti")


def is_beyond(key: Key) -> pl.Expr:
    """Rows that were created later than this key: (created_at, id)."""
    created = _instant(key)
    return (pl.col("created_at") > created) | ((pl.col("created_at") == created) & (pl.col("id") > key[1]))


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

    Of several the one with the later `last_updated_at` stays (null is oldest), of equals the later in the frame.
    """
    if rows["id"].is_unique().all():
        return rows
    rows = rows.sort("last_updated_at", nulls_last=False, maintain_order=True)
    return rows.unique(KEY, keep="last", maintain_order=True)


def merge_rows(*frames: pl.DataFrame) -> pl.DataFrame:
    """The latest row of each job, ordered as a file is: by company_id, created_at, id. Later frames were fetched later."""
    return keep_latest(pl.concat(frames)).select(COLUMNS).sort(FILE_ORDER)


def has_rows(lake: pl.LazyFrame, rows: pl.DataFrame) -> bool:
    """Whether the lake has all these rows as they are; `expires_in` aside, which may count down."""
    near = lake.filter(pl.col("id").is_in(rows["id"].implode())).collect()
    return rows.join(near, on=_SAID, how="anti", nulls_equal=True).is_empty()


def same_rows(old: pl.DataFrame, new: pl.DataFrame) -> bool:
    """Whether two merged frames say the same of the same jobs; `expires_in` aside, which may count down."""
    return old.height == new.height and old.select(_SAID).equals(new.select(_SAID))
