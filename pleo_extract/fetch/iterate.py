"""The live API as a stream of frames: each job once, in bounded memory."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import polars as pl

from pleo_extract.contract import KEY, POLARS_SCHEMA
from pleo_extract.core.pages import MOST
from pleo_extract.core.rows import job_name
from pleo_extract.core.verdict import count_arrivals, decide_part, decide_verdict
from pleo_extract.core.walk import Walk
from pleo_extract.errors import IncompleteWalk, RejectedRows, WalkError, amount
from pleo_extract.fetch.driver import BATCH_ROWS
from pleo_extract.fetch.load import DEADLINE, open_client
from pleo_extract.fetch.segments import RowCount, is_moving, meets_arrivals, read_walk, repeated_of
from pleo_extract.fetch.selection import Instant, Selection, check_amount, check_wanted
from pleo_extract.keywords import check_keywords
from pleo_extract.progress import show_progress

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    import pyarrow as pa

    from pleo_extract.client import Client, Session
    from pleo_extract.core.state import JobKey
    from pleo_extract.core.verdict import Verdict

__all__ = ["Batches", "iter_export_jobs", "stream_wanted"]

_log = logging.getLogger(__name__)


class Batches:
    """Export jobs while they are read: an iterator of typed frames, or one Arrow stream. It can be read once.

    Each job comes once, in order of created_at and id if the server keeps that order. A batch is in memory at a time,
    and eight bytes for each job before it; without a proven order, the keys of all jobs so far.
    """

    def __init__(self, source: Iterator[pl.DataFrame]) -> None:
        self._source = source

    def __repr__(self) -> str:
        return "<Batches of export jobs: iterate over it for frames, or call to_arrow() for one stream; reads once>"

    def __iter__(self) -> Iterator[pl.DataFrame]:
        return self._source

    def __next__(self) -> pl.DataFrame:
        return next(self._source)

    def to_arrow(self) -> pa.RecordBatchReader:
        """Return the rows as a pyarrow.RecordBatchReader, for DuckDB, Delta Lake or a Parquet writer."""
        import pyarrow as pa  # noqa: PLC0415 - only for those who ask for Arrow

        schema = pl.DataFrame(schema=POLARS_SCHEMA).to_arrow().schema
        batches = (batch for frame in self for batch in frame.to_arrow().cast(schema).to_batches())
        return pa.RecordBatchReader.from_batches(schema, batches)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.to_arrow().__arrow_c_stream__(requested_schema)


@check_keywords
def iter_export_jobs(  # noqa: PLR0913 - each is a choice of its own, and all have defaults
    *,
    company_id: str | None = None,
    statuses: Sequence[str] | None = None,
    since: Instant | None = None,
    until: Instant | None = None,
    client: Client | None = None,
    progress: bool | None = None,
    deadline: float | None = DEADLINE,
) -> Batches:
    """Return every export job once, in batches and bounded memory.

    Arguments and columns are those of `load_export_jobs`. Each frame holds at most 20 pages, and 2,000 rows or a page
    more. With `since`, the newest jobs come first. An error comes after the batches that were read before it. If the list
    ends with fewer jobs than `total` says, it is read a second time to find out which of the two is wrong.

    Raises:
        WalkError: the server's order broke after jobs were given out, so that repeated jobs can no longer be recognised;
            or jobs were given out twice, because their created_at changed while the list was read.
        PleoExtractError: as `load_export_jobs`.
    """
    wanted = check_wanted(company_id, statuses, since, until)
    check_amount("deadline", deadline)
    return Batches(stream_wanted(wanted, client, progress=progress, deadline=deadline))


def stream_wanted(
    wanted: Selection,
    client: Client | None,
    *,
    progress: bool | None = None,
    few: int | None = None,
    deadline: float | None = DEADLINE,
) -> Iterator[pl.DataFrame]:
    """Yield the frames of `iter_export_jobs`.

    Args:
        wanted: what the caller wants.
        client: server and credential; by default from the environment.
        progress: whether to show a progress bar.
        few: the rows that are wanted, if not all; pages are then no larger, and each is a batch.
        deadline: seconds that reading may take; None for no limit.

    Raises:
        PleoExtractError: as `iter_export_jobs`.
    """
    with open_client(client) as source, show_progress("export jobs", show=progress) as update:
        session = source.start_session(deadline=deadline)
        walk = wanted.for_company_of(source).start_walk(page=None if few is None else min(few, MOST))
        given = _GivenOut(walk, since=wanted.since)
        rows = BATCH_ROWS if few is None else 1
        for batch in read_walk(session, walk, RowCount(session, update).count, rows=rows):
            if batch.rejected:
                raise RejectedRows([str(row) for row in batch.rejected])
            kept = wanted.filter(given.select_new(batch.frame))
            if kept.height:
                yield kept
        given.refuse_repeated()
        at = walk.checkpoint
        if walk.ended == "end":
            read = given.earlier + given.count
            verdict = decide_verdict(
                read,
                at.totals,
                moves=at.moves,
                repeated=repeated_of([walk]),
                is_moving=is_moving([walk], read),
                meets_arrivals=meets_arrivals([walk]),
            )
        else:
            verdict = decide_part(at.moves, at.totals[0], repeated=repeated_of([walk]))
        if verdict.again:
            _confirm(session, walk, given, verdict)


def _confirm(session: Session, walk: Walk, first: _GivenOut, verdict: Verdict) -> None:
    """Read the list a second time: if it has the same jobs again, nothing is missing, and `total` is wrong or has moved.

    Jobs that are newer than all of the first time have come since, if `total` can have grown by as many.

    Raises:
        IncompleteWalk: the second time the list has other jobs.
    """
    walk_again = Walk(walk.query, until=walk.until)
    second = _GivenOut(walk_again, since=first.since, before=first)
    for batch in read_walk(session, walk_again):
        second.select_new(batch.frame)
    arrivals = count_arrivals(walk.checkpoint.totals, walk_again.checkpoint.totals)
    is_explained = not second.later or arrivals is None or second.later in arrivals
    if (second.count, second.digest) != (first.count, first.digest) or not is_explained:
        raise IncompleteWalk(
            f"the list has {first.count} jobs when read once and {second.count + second.later} when read again, "
            f"and its total is {walk.checkpoint.totals[0]} and {walk_again.checkpoint.totals[1]}. Try again"
        )
    at, repeated = walk_again.checkpoint, repeated_of([walk_again])
    if walk.ended == "end":
        read, totals = second.earlier + second.count + second.later, (walk.checkpoint.totals[0], at.totals[1])
        again = decide_verdict(read, totals, repeated=repeated, previous=read, confirmed=True)
    else:  # without a total, rows may have come twice because of new jobs
        again = decide_part(at.moves, at.totals[0], repeated=0 if at.totals[0] is None else repeated)
    if again.name == "incomplete":
        raise IncompleteWalk(f"{again.why}. Try again")
    if verdict.why and walk.checkpoint.totals[0] is not None:
        _log.warning("complete_with_drift: total_untrusted: %s, but the same jobs in two passes", verdict.why)


class _GivenOut:
    """The jobs of a walk that were given out, so that each is given out once.

    In proven order the last job is enough to recognise a repeated one. Otherwise all keys are remembered.

    Attributes:
        since: jobs that were created before are left out.
        earlier: how many jobs were created before `since`: those of the page in which a reading ends.
        count: how many jobs were given out.
        digest: a checksum of their keys that does not depend on the order.
        newest: when the newest of them was created.
        at_newest: the hashes of the jobs that were created at that instant.
        later: how many jobs are newer than all of the reading `before`; they are not among the others.
    """

    def __init__(self, walk: Walk, *, since: datetime | None = None, before: _GivenOut | None = None) -> None:
        self.since = since
        self.count = self.earlier = self.later = 0
        self.digest = 0
        self.newest: datetime | None = None
        self.at_newest: set[int] = set()
        self._walk, self._before = walk, before
        self._order = ""
        self._last: datetime | None = None
        self._at_last: list[str] = []
        self._seen: set[JobKey] = set()
        self._hashes: list[pl.Series] = []

    def select_new(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Return the rows whose jobs were not given out before, and count them as given out.

        Raises:
            WalkError: the order was proven when jobs were given out, and is broken now.
        """
        if self._order == "strict" != self._walk.order and self.count:
            raise WalkError(
                f"the server's order broke at page {self._walk.checkpoint.pages}, after {self.count} jobs were given out; "
                "use load_export_jobs, which removes repeated jobs at the end"
            )
        # A walk may prove its order late, by its rows. If keys were remembered until then, that continues: the last job
        # alone says nothing about jobs that were given out while there was no order.
        self._order = "none" if self._seen else self._walk.order
        if not frame["id"].is_unique().all():
            frame = frame.unique(KEY, keep="last", maintain_order=True)
        if self._order == "strict":
            frame = self._select_beyond_last(frame)
        else:
            keys = list(frame.select(KEY).iter_rows())
            frame = frame.filter(pl.Series([key not in self._seen for key in keys], dtype=pl.Boolean))
            self._seen.update(keys)
        if self.since is not None:
            wanted = frame.filter(pl.col("created_at") >= self.since)
            self.earlier += frame.height - wanted.height
            frame = wanted
        hashes = frame.select(pl.struct(KEY).hash()).to_series()
        if (before := self._before) is not None and before.newest is not None:
            created = frame["created_at"]
            same = hashes.is_in(pl.Series(list(before.at_newest), dtype=pl.UInt64).implode())
            is_known = (created < before.newest) | ((created == before.newest) & same)
            self.later += frame.height - int(is_known.sum())
            frame, hashes = frame.filter(is_known), hashes.filter(is_known)
        if frame.height:
            newest: datetime = frame.select(pl.col("created_at").max()).item()
            if self.newest is None or newest >= self.newest:
                at_newest = set(hashes.filter(frame["created_at"] == newest))
                self.at_newest = at_newest | (self.at_newest if newest == self.newest else set())
                self.newest = newest
        self._hashes.append(hashes)
        self.count += frame.height
        self.digest = (self.digest + int(hashes.sum())) % 2**64
        return frame

    def refuse_repeated(self) -> None:
        """Raise WalkError if a job was given out twice; in proven order `select_new` sees only that it is newer or older.

        Such a job may also have made up for a missing one in the count.
        """
        twice = self.count - pl.concat([pl.Series(dtype=pl.UInt64), *self._hashes]).n_unique()
        if twice:
            raise WalkError(
                f"{amount(twice, 'job was', 'jobs were')} given out twice, because created_at changed while the list was "
                "read; use load_export_jobs, which removes repeated jobs at the end"
            )

    def _select_beyond_last(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Return the rows beyond the last one given out; a walk that lost its cursor reads some rows again.

        Jobs created at the same microsecond are compared by name, because the server may order them by nanoseconds, which
        a frame does not hold.
        """
        created = pl.col("created_at")
        if self._last is not None:
            down = self._walk.query.descending
            beyond = created < self._last if down else created > self._last
            known = job_name().is_in(self._at_last)
            frame = frame.filter(beyond | ((created == self._last) & ~known))
        if frame.height:
            last = frame["created_at"][-1]
            names = frame.filter(created == last).select(job_name()).to_series()
            self._at_last = [*(self._at_last if last == self._last else ()), *names]
            self._last = last
        return frame
