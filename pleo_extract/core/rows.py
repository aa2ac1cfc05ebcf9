"""Rows compared and merged: which rows are settled, which are news to the lake, which of two rows stays.

Frames and lazy frames come in; frames, expressions and decisions go out.

Which of two rows of one job stays is decided in one place, `keep_latest`: a row that has ended beats one that has not,
then the later `last_updated_at` wins, then the later fetch. Two rows are the same if all columns are equal but
`expires_in`, which some servers count down.

Rules of this room: no clock, no randomness, no files, no network; instants come in as arguments.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Final

import polars as pl

from pleo_extract.contract import COLUMNS, KEY, STATUSES, TERMINAL, Key, parse_instant_key
from pleo_extract.core.state import RereadCounts

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from pleo_extract.core.state import SyncState

__all__ = [
    "FILE_ORDER",
    "OPEN",
    "count_months",
    "count_readings",
    "created_month",
    "find_changed",
    "find_moved",
    "find_news",
    "find_other",
    "find_unknown",
    "has_rows",
    "is_as_late",
    "is_beyond",
    "is_confirmed",
    "is_ended",
    "is_later",
    "is_unknown",
    "is_unsettled",
    "job_name",
    "keep_latest",
    "merge_rows",
    "read_key",
    "replace_rows",
    "same_rows",
]
OPEN: Final = ("pending", "in_progress")
"""The open statuses that a request can ask for."""
_COMPARED: Final = [column for column in COLUMNS if column != "expires_in"]
"""The columns in which two rows must be equal to be the same; some servers count `expires_in` down."""
FILE_ORDER: Final = ("company_id", "created_at", "id")
SETTLED_AFTER: Final = 3
"""How often a row of an unknown status is re-read without a change before it counts as settled."""
MANY_LATE: Final = 1_000
"""Rows of one unknown status that are counted one by one; if more have changed, the status is counted from 0 again."""
MANY_UNKNOWN: Final = 20
"""Unknown statuses that are remembered."""


def read_key(created: str) -> datetime | None:
    """Return the instant (UTC) of a job's place in the list; None for a text that `instant_key` does not write."""
    try:
        return parse_instant_key(created)
    except ValueError:
        return None


def is_confirmed(first: pl.DataFrame, again: pl.DataFrame, *, arrivals: range | None) -> bool:
    """Return whether a second reading of the list confirms the first one: it met all its jobs again.

    Args:
        first: the jobs that the first reading met, each once.
        again: the same of the second reading.
        arrivals: how many jobs the second one may have met that the first one did not, see `count_arrivals`; None for any.
    """
    more = again.height - first.height
    has_all = first.height == first.join(again, on=KEY, how="semi").height
    return has_all and (arrivals is None or more == 0 or more in arrivals)


def is_unknown() -> pl.Expr:
    """Match rows of a status that the contract does not know."""
    return ~pl.col("status").is_in(pl.Series(STATUSES).implode())


def is_unsettled(unknown: Mapping[str, RereadCounts] | None = None) -> pl.Expr:
    """Match rows whose job may still change: all but the terminal ones and those of `unknown` that are settled."""
    settled = is_ended()
    for status, readings in (unknown or {}).items():
        if len(readings.lines) == SETTLED_AFTER:
            changed = pl.Series(list(readings.rows), dtype=pl.String).implode()
            has_changed = job_name().is_in(changed)
            settled |= (pl.col("status") == status) & ~is_beyond(readings.lines[-1]) & ~has_changed
    return ~settled


def count_readings(
    before: SyncState, statuses: Collection[str], changed: pl.DataFrame
) -> dict[str, RereadCounts]:
    """Return how often rows of unknown statuses have been re-read without a change, after one more sync.

    The sync has re-read all unsettled rows, so each row that it did not find changed counts one reading more.

    Args:
        before: the state before the sync.
        statuses: the unknown statuses that the sync met.
        changed: rows of these statuses that the sync read and that differ from the lake's.
    """
    counted: dict[str, RereadCounts] = {}
    for status in sorted({*before.unknown, *statuses})[:MANY_UNKNOWN]:
        old = before.unknown.get(status, RereadCounts())
        newest = [key for key in (before.watermark, *old.lines[:1]) if key is not None]
        lines = [max(newest), *old.lines][:SETTLED_AFTER] if newest else []
        restarted: list[str] = []
        if lines:
            rows = changed.filter(pl.col("status") == status, ~is_beyond(lines[0]))
            restarted = rows.select(job_name()).to_series().to_list()
        reread = {name: count + 1 for name, count in old.rows.items() if count + 1 < SETTLED_AFTER}
        exceptions = {**reread, **dict.fromkeys(restarted, 0)}
        is_many = len(exceptions) > MANY_LATE
        counted[status] = RereadCounts() if is_many else RereadCounts(lines, exceptions)
    return counted


def find_changed(
    lake: pl.DataFrame, fresh: pl.DataFrame, unknown: Mapping[str, RereadCounts] | None = None
) -> pl.DataFrame:
    """Return the settled rows of the lake that a sync has read again and found changed."""
    settled = lake.filter(~is_unsettled(unknown))
    met = settled.join(fresh, on=KEY, how="semi")
    reread = fresh.join(met, on=KEY, how="semi")
    return met.join(reread, on=_COMPARED, how="anti", nulls_equal=True)


def find_news(lake: pl.DataFrame, rows: pl.DataFrame, *, fetched_later: Collection[str]) -> pl.DataFrame:
    """Return the rows of another lake that this lake does not have, and those that are later than its own.

    Args:
        lake: rows of this lake.
        rows: rows of the other lake.
        fetched_later: companies whose rows were fetched later for the other lake; their rows win if `last_updated_at` is
            the same.
    """
    had = lake.select(*KEY, _had="last_updated_at", _had_ended=is_ended(), _is_there=True)
    found = rows.join(had, on=KEY, how="left", maintain_order="left")
    found = found.filter(pl.col("_is_there").is_null() | _is_later(fetched_later)).select(rows.columns)
    return found.join(lake, on=_COMPARED, how="anti", nulls_equal=True)


def find_moved(lake: pl.LazyFrame, rows: pl.DataFrame, *, fetched_later: Collection[str]) -> pl.DataFrame:
    """Return the jobs of another lake that this lake has in another month, each with the `month` that it leaves.

    A job leaves the month of the earlier row; which row is later is decided as in `find_news`.
    """
    had = lake.select(*KEY, _had="last_updated_at", _had_ended=is_ended(), _old=created_month())
    near = had.join(rows.select(KEY).lazy(), on=KEY, how="semi").collect(engine="streaming")
    found = rows.select(*KEY, "status", "last_updated_at", _new=created_month()).join(near, on=KEY)
    found = found.filter(pl.col("_new") != pl.col("_old"))
    month = pl.when(_is_later(fetched_later)).then("_old").otherwise("_new")
    return found.select(*KEY, month=month)


def _is_later(fetched_later: Collection[str]) -> pl.Expr:
    """Match rows that are later than the lake's by the rules of `keep_latest`."""
    updated, known = pl.col("last_updated_at"), pl.col("_had")
    is_tie = updated.eq_missing(known) & pl.col("company_id").is_in(list(fetched_later))
    is_later = (updated > known) | (updated.is_not_null() & known.is_null()) | is_tie
    ended, had_ended = is_ended(), pl.col("_had_ended")
    return (ended & ~had_ended) | ((ended == had_ended) & is_later)


def is_ended() -> pl.Expr:
    """Match rows of jobs that have ended: those of a terminal status that the contract knows."""
    return pl.col("status").is_in(pl.Series(TERMINAL).implode())


def find_other(lake: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """Return those of these rows that the lake does not have, or has with other content."""
    return rows.join(lake, on=_COMPARED, how="anti", nulls_equal=True)


def find_unknown(lake: pl.DataFrame, fresh: pl.DataFrame, *, until: Key) -> pl.DataFrame:
    """Return the rows at or before `until` whose jobs the lake does not have: jobs inserted into the past."""
    return fresh.filter(~is_beyond(until)).join(lake, on=KEY, how="anti")


def is_beyond(key: Key) -> pl.Expr:
    """Match rows beyond this key in the order of (created_at, id)."""
    created = _instant(key)
    return (pl.col("created_at") > created) | ((pl.col("created_at") == created) & (pl.col("id") > key[1]))


def is_later(key: Key) -> pl.Expr:
    """Match rows created after the instant of this key.

    Ties are left out: the lake holds microseconds and servers sort by nanoseconds, so their order is not known.
    """
    return pl.col("created_at") > _instant(key)


def is_as_late(key: Key) -> pl.Expr:
    """Match rows created at the instant of this key or later.

    It compares one column only, so that polars can skip files by their statistics.
    """
    return pl.col("created_at") >= _instant(key)


def _instant(key: Key) -> pl.Expr:
    return pl.lit(parse_instant_key(key[0])).cast(pl.Datetime("us", "UTC"))


def job_name() -> pl.Expr:
    """Return the name of a row's job: ``company_id/id``."""
    return pl.concat_str(KEY, separator="/")


def created_month() -> pl.Expr:
    """Return the partition of a row: the month of created_at in UTC, as ``2026-11``."""
    return pl.col("created_at").dt.strftime("%Y-%m")


def count_months(frame: pl.DataFrame) -> dict[str, int]:
    """Return how many of these rows each month has, the earliest first."""
    created = frame["created_at"]
    ends = [end for end in (created.min(), created.max()) if isinstance(end, datetime)]
    if len({_name_month(end) for end in ends}) <= 1:  # the common case, since a list is read in order
        return {_name_month(end): frame.height for end in ends[:1]}
    starts = created.dt.truncate("1mo").value_counts().sort("created_at")
    return {_name_month(start): count for start, count in starts.iter_rows()}


def _name_month(start: datetime) -> str:
    return f"{start.year:04d}-{start.month:02d}"


def keep_latest(rows: pl.DataFrame) -> pl.DataFrame:
    """Return one row for each (company_id, id); the order of the frame is kept only if no job repeats.

    Of several rows of a job, one that has ended stays, since a job does not start again; then the one with the later
    `last_updated_at` (null is oldest); then the later one in the frame. The end counts first because servers set
    `last_updated_at` by clocks that differ, or not at all.
    """
    if rows["id"].is_unique().all():
        return rows
    rows = rows.sort(is_ended(), "last_updated_at", nulls_last=False, maintain_order=True)
    return rows.unique(KEY, keep="last", maintain_order=True)


def merge_rows(*frames: pl.DataFrame) -> pl.DataFrame:
    """Return the latest row of each job, ordered by company_id, created_at and id; later frames were fetched later."""
    return keep_latest(pl.concat(frames)).select(COLUMNS).sort(FILE_ORDER)


def replace_rows(old: pl.DataFrame, *fresh: pl.DataFrame) -> pl.DataFrame:
    """Merge fresh rows over old ones; a fresh row always replaces an old one, whatever its `last_updated_at`."""
    latest = keep_latest(pl.concat([old.clear(), *fresh]))
    return merge_rows(old.join(latest, on=KEY, how="anti"), latest)


def has_rows(lake: pl.LazyFrame, rows: pl.DataFrame) -> bool:
    """Return whether the lake has all these rows with the same content, and each of them once."""
    near = lake.filter(pl.col("id").is_in(rows["id"].implode())).collect()
    if not near["id"].is_unique().all() and near.select(KEY).is_duplicated().any():
        return False
    return rows.join(near, on=_COMPARED, how="anti", nulls_equal=True).is_empty()


def same_rows(old: pl.DataFrame, new: pl.DataFrame) -> bool:
    """Return whether two merged frames hold the same jobs with the same content."""
    return old.height == new.height and old.select(_COMPARED).equals(new.select(_COMPARED))
