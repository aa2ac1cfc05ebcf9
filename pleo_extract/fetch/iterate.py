"""The live API as a stream of frames, each job once, in bounded memory."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import polars as pl

from pleo_extract.contract import KEY, POLARS_SCHEMA
from pleo_extract.core.rows import job_name
from pleo_extract.core.verdict import decide_verdict
from pleo_extract.core.walk import PAGE_SIZE, Walk
from pleo_extract.errors import IncompleteWalk, RejectedRows, WalkError
from pleo_extract.fetch.driver import BATCH_PAGES
from pleo_extract.fetch.load import DEADLINE, open_client
from pleo_extract.fetch.segments import RowCount, read_walk
from pleo_extract.fetch.selection import Instant, Selection, check_amount, check_wanted
from pleo_extract.keywords import check_keywords
from pleo_extract.progress import show_progress

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    import pyarrow as pa

    from pleo_extract.client import Client, Session
    from pleo_extract.core.state import JobKey

__all__ = ["Batches", "iter_export_jobs", "stream_wanted"]

_log = logging.getLogger(__name__)


class Batches:
    """Export jobs as they are read: an iterator of typed frames, or one Arrow stream. To be read once.

    In order of created_at and id where the server keeps that order, each job once. The memory it takes is that of a
    batch; without a proven order, the keys read so far are remembered too.
    """

    def __init__(self, source: Iterator[pl.DataFrame]) -> None:
        self._source = source

    def __iter__(self) -> Iterator[pl.DataFrame]:
        return self._source

    def __next__(self) -> pl.DataFrame:
        return next(self._source)

    def to_arrow(self) -> pa.RecordBatchReader:
        """The same as a pyarrow.RecordBatchReader, for DuckDB, Delta Lake, a Parquet writer."""
        import pyarrow as pa  # noqa: PLC0415 - only where Arrow is asked for

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
    """Every export job once, in batches and bounded memory: what `load_export_jobs` gives at once.

    With `since` the newest come first. Arguments and columns are those of `load_export_jobs`; each frame holds up to
    20 pages. An error comes after the batches read before it. Where `total` promises more jobs than came, the list is
    read once more, to see whether that is so.

    Raises:
        As `load_export_jobs`; also WalkError where the server's order breaks on the way, since jobs given out before
        can then no longer be told from new ones.
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
    """The frames of `iter_export_jobs`. Where only a `few` rows are wanted, small pages, each given out at once."""
    with open_client(client) as source, show_progress("export jobs", show=progress) as update:
        session = source.start_session(deadline=deadline)
        walk = wanted.for_company_of(source).start_walk(
            page=PAGE_SIZE if few is None else min(few, PAGE_SIZE)
        )
        once = _Once(walk)
        pages = BATCH_PAGES if few is None else 1
        for part in read_walk(session, walk, RowCount(session, update).count, pages=pages):
            if part.rejected:
                raise RejectedRows([str(row) for row in part.rejected])
            kept = wanted.keep(once.keep_new(part.frame))
            if kept.height:
                yield kept
        if walk.ended == "end":
            verdict = decide_verdict(once.count, walk.checkpoint.totals)
            if verdict.name == "incomplete":
                _confirm(session, walk, once)


def _confirm(session: Session, walk: Walk, once: _Once) -> None:
    """Read the list once more, giving nothing out: the same jobs again mean that `total` is not to be trusted."""
    again = Walk(walk.query)
    seen = _Once(again)
    for part in read_walk(session, again):
        seen.keep_new(part.frame)
    if (seen.count, seen.digest) != (once.count, once.digest):
        raise IncompleteWalk(
            f"{once.count} jobs read, fewer than the total of {walk.checkpoint.totals[0]}, and {seen.count} when read again. Try again"
        )
    _log.warning(
        "complete_with_drift: total_untrusted: %s jobs read twice, fewer than the total of %s",
        once.count,
        walk.checkpoint.totals[0],
    )


class _Once:
    """Lets each job through once: by its place where the order is proven, by remembering keys where it is not."""

    def __init__(self, walk: Walk) -> None:
        self.count = 0
        self.digest = 0  # of the keys let through, in whatever order
        self._walk = walk
        self._order = ""
        self._last: datetime | None = None
        self._at_last: list[str] = []
        self._seen: set[JobKey] = set()

    def keep_new(self, frame: pl.DataFrame) -> pl.DataFrame:
        if self._order == "strict" != self._walk.order and self.count:
            raise WalkError(
                f"the server's order broke at page {self._walk.checkpoint.pages}, after {self.count} jobs were given out; "
                "use load_export_jobs, which sorts out repeated jobs at the end"
            )
        # Where keys were remembered at first, they go on to be: a walk can prove its order later, by its rows.
        self._order = "none" if self._seen else self._walk.order
        if not frame["id"].is_unique().all():
            frame = frame.unique(KEY, keep="last", maintain_order=True)
        if self._order == "strict":
            frame = self._beyond_last(frame)
        else:
            keys = list(frame.select(KEY).iter_rows())
            frame = frame.filter(pl.Series([key not in self._seen for key in keys], dtype=pl.Boolean))
            self._seen.update(keys)
        self.count += frame.height
        self.digest = (self.digest + frame.select(pl.struct(KEY).hash().sum()).item()) % 2**64
        return frame

    def _beyond_last(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Rows beyond the last one given out: after a lost cursor a walk reads some again.

        Jobs of one instant are told apart by name: the server may order them by digits that a frame does not hold.
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
