"""What the lake lacks, and what replaces what. Frames in, frames and decisions out.

A job's id and createdAt never change, and a settled job stays as it is. So a refresh reads the open jobs, the jobs
that are newer than what the lake has seen, those that were open in the lake and are so no longer, and a sample of
the rest; whatever does not fit turns the run into a full walk.

Rules of this room: no clock, no randomness, no files, no network; instants and chances come in as arguments.
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
    "is_ended",
    "is_later",
    "is_same_list",
    "is_unknown",
    "is_unsettled",
    "keep_latest",
    "merge_rows",
    "months_of",
    "read_key",
    "replace_rows",
    "same_rows",
]
OPEN: Final = ("pending", "in_progress")
"""The open statuses that the request can name."""
_SAID: Final = [column for column in COLUMNS if column != "expires_in"]
"""What is compared where rows are said to be the same: `expires_in` may count down."""
FILE_ORDER: Final = ("company_id", "created_at", "id")
SETTLED_AFTER: Final = 3
"""A row of an unknown status is settled when it was re-read so often and had not changed."""
MANY_LATE: Final = 1_000
"""Rows of one status that are counted one by one; where more have changed at once, the whole status starts over."""
MANY_UNKNOWN: Final = 20
"""Unknown statuses that are remembered."""


def read_key(created: str) -> datetime | None:
    """Return the instant (UTC) of a job's place in the list; None for a text that `instant_key` does not write."""
    try:
        return parse_instant_key(created)
    except ValueError:
        return None


def is_same_list(first: pl.DataFrame, again: pl.DataFrame) -> bool:
    """Return whether a second reading met the same jobs as the first."""
    return first.height == again.height == first.join(again, on=KEY, how="semi").height


def is_unknown() -> pl.Expr:
    """Rows of a status that the contract does not know."""
    return ~pl.col("status").is_in(pl.Series(STATUSES).implode())


def is_unsettled(unknown: Mapping[str, RereadCounts] | None = None) -> pl.Expr:
    """Rows whose job may still change: of every status but the terminal ones, and those known to be settled."""
    settled = is_ended()
    for status, readings in (unknown or {}).items():
        if len(readings.lines) == SETTLED_AFTER:
            late = pl.Series(list(readings.rows), dtype=pl.String).implode()
            is_late = pl.concat_str(KEY, separator="/").is_in(late)
            settled |= (pl.col("status") == status) & ~is_beyond(readings.lines[-1]) & ~is_late
    return ~settled


def count_readings(
    before: SyncState, statuses: Collection[str], changed: pl.DataFrame
) -> dict[str, RereadCounts]:
    """Return how often rows of unknown statuses were re-read unchanged, after a sync that re-read all unsettled ones.

    Args:
        before: the state before the sync.
        statuses: the unknown statuses that it met.
        changed: rows of these statuses that it read and that the lake did not have as they are.
    """
    counted: dict[str, RereadCounts] = {}
    for status in sorted({*before.unknown, *statuses})[:MANY_UNKNOWN]:
        old = before.unknown.get(status, RereadCounts())
        newest = [key for key in (before.watermark, *old.lines[:1]) if key is not None]
        lines = [max(newest), *old.lines][:SETTLED_AFTER] if newest else []
        late: list[str] = []
        if lines:
            rows = changed.filter(pl.col("status") == status, ~is_beyond(lines[0]))
            late = rows.select(pl.concat_str(KEY, separator="/")).to_series().to_list()
        again = {name: count + 1 for name, count in old.rows.items() if count + 1 < SETTLED_AFTER}
        exceptions = {**again, **dict.fromkeys(late, 0)}
        is_many = len(exceptions) > MANY_LATE
        counted[status] = RereadCounts() if is_many else RereadCounts(lines, exceptions)
    return counted


def find_changed(
    lake: pl.DataFrame, fresh: pl.DataFrame, unknown: Mapping[str, RereadCounts] | None = None
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


def find_moved(lake: pl.LazyFrame, rows: pl.DataFrame, *, fetched_later: Collection[str]) -> pl.DataFrame:
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
    return pl.lit(parse_instant_key(key[0])).cast(pl.Datetime("us", "UTC"))


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
