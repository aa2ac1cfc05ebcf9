"""What the syncs of one account share: the session, the lake's rows, the staging folder, and questions about them.

The two syncs, the closing reads and the audit all take a `Task`. Whatever they read goes through `Task.stage`,
`Task.add` or `Task.read_pages` into staging, so that a kill at any point costs at most the batch under way.
"""

from __future__ import annotations

from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import polars as pl

from pleo_extract.contract import KEY, POLARS_SCHEMA
from pleo_extract.core.decode import build_frame
from pleo_extract.core.rows import created_month, is_unsettled, read_key
from pleo_extract.core.verdict import is_many
from pleo_extract.core.walk import Walk
from pleo_extract.errors import DataError, RequestRefused
from pleo_extract.fetch.driver import Driver, ask_offset, drive
from pleo_extract.signals import hold_signals

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterable, Sequence
    from datetime import datetime
    from pathlib import Path

    from pleo_extract.client import Session
    from pleo_extract.contract import PageInfo, Query
    from pleo_extract.core.state import JobKey, SyncState
    from pleo_extract.fetch.driver import Batch
    from pleo_extract.lake.staging import Staging
    from pleo_extract.sync.receipt import Evidence

__all__ = ["Task", "Unsettled", "build_key_frame", "drop_jobs"]

MANY_INSTANTS: Final = 1_000
"""With at most this many different instants, the lake is asked for exactly these; with more, for a time span per month.

A longer list of literals costs more in the query engine than the rows that it would spare."""


class Unsettled:
    """Staged jobs that may still change, each with the number of the batch that showed it last.

    Staged rows can be days old, so a job that staging holds as open may have ended since. The closing reads must look
    each of these up.
    """

    def __init__(self) -> None:
        self._seen: dict[JobKey, tuple[str, datetime, int]] = {}

    def note(self, frame: pl.DataFrame, batch: int) -> None:
        """Record the unsettled jobs of one batch, and drop those that the batch shows as settled."""
        if self._seen:
            for key in frame.select(KEY).join(build_key_frame(self._seen), on=KEY, how="semi").iter_rows():
                self._seen.pop(key, None)
        for company, name, status, created in (
            frame.select(*KEY, "status", "created_at").filter(is_unsettled()).iter_rows()
        ):
            self._seen[company, name] = (status, created, batch)

    def find(self, *, before: int) -> pl.DataFrame:
        """Return the jobs last shown by a batch numbered below `before`: status, created_at, company_id, id."""
        rows = [
            (status, created, *key) for key, (status, created, batch) in self._seen.items() if batch < before
        ]
        schema = {
            "status": pl.String(),
            "created_at": pl.Datetime("us", "UTC"),
            **dict.fromkeys(KEY, pl.String()),
        }
        return pl.DataFrame(rows, schema=schema, orient="row")

    def clear(self) -> None:
        """Drop all recorded jobs."""
        self._seen.clear()


@dataclass(frozen=True, slots=True)
class Task:
    """The sync of one account during one dump.

    Attributes:
        session: sends the requests.
        in_flight: how many requests may be under way together.
        company_id: whose jobs to read; None for all that the credential may see.
        lake: the lake's rows of this account, lazily.
        before: the account's state after the last run.
        staging: where rows go.
        evidence: the counts for the receipt.
        on_page: called after every page.
        rejected: the folder that keeps rejected rows after the run.
        clock: returns the current instant, UTC.
        unsettled: the staged jobs that may still change.
    """

    session: Session
    in_flight: int
    company_id: str | None
    lake: pl.LazyFrame
    before: SyncState
    staging: Staging
    evidence: Evidence
    on_page: Callable[[Walk], None]
    rejected: Path
    clock: Callable[[], datetime]
    unsettled: Unsettled = field(default_factory=Unsettled)

    def __post_init__(self) -> None:
        for number, frame in self.staging.numbered():
            self.unsettled.note(frame, number)

    def stage(self, phase: str, batches: Generator[Batch, None, None]) -> None:
        """Stage all batches of a walk. After a signal, stage what the walk still holds, then raise.

        The generator is closed in every case. After an error of staging it would otherwise live on in the frames of
        the traceback, with the signals that it holds back, until the garbage collector closes it, perhaps in another
        thread, where restoring signal handlers raises ValueError.
        """
        interrupt: BaseException | None = None
        with closing(batches):
            while True:
                try:
                    batch = next(batches) if interrupt is None else batches.throw(interrupt)
                except StopIteration:
                    break
                staged = len(self.staging.batches)
                try:
                    self.add(phase, batch)
                except (KeyboardInterrupt, SystemExit) as exc:
                    interrupt = exc
                    # The signal came before the batch was staged. Later batches move the checkpoints past this one,
                    # so without it the next run would resume beyond a gap.
                    if len(self.staging.batches) == staged:
                        self.add(phase, batch)
        if interrupt is not None:
            raise interrupt

    def add(self, phase: str, batch: Batch) -> None:
        """Stage one batch and record its unsettled jobs."""
        with hold_signals():
            frame = self.staging.add(batch.frame, batch.rejected, phase=phase, checkpoints=batch.checkpoints)
        self.unsettled.note(frame, len(self.staging.batches) - 1)

    def walk(self, phase: str, walk: Walk, segment: int = 0) -> Walk:
        """Read a walk into staging as one segment of a phase, and return it."""
        try:
            self.stage(phase, drive(Driver(self.session, walk, segment, on_page=self.on_page)))
        finally:
            self.evidence.count_walk(walk)
        return walk

    def restart(self) -> None:
        """Drop all staged rows, so that this run reads everything itself."""
        self.staging.restart()
        self.unsettled.clear()
        self.evidence.resumed_rows = 0

    def read_pages(self, phase: str, queries: Sequence[Query]) -> list[tuple[pl.DataFrame, PageInfo]] | None:
        """Read the pages at the offsets of these queries into staging. Never request an offset known to be refused.

        Returns:
            The rows and the page info of each; None if the server refuses an offset that deep, or does not keep the
            order.
        """
        offsets = [query.offset or 0 for query in queries]
        if not all(map(self.session.habits.reaches, offsets)):
            return None
        pages = []
        for query, offset in zip(queries, offsets, strict=True):
            walk = Walk(query)
            steps = walk.steps()
            try:
                page, _ = ask_offset(self.session, next(steps))
            except RequestRefused:
                return None
            with suppress(StopIteration):
                steps.send(page.info)
            self.evidence.pages += 1
            self.evidence.rows += page.info.rows
            if walk.checkpoint.candidate == "none" or not self.session.habits.reaches(offset):
                return None
            read, rejected = build_frame([page])
            frame = self.staging.add(read, rejected, phase=phase)
            self.unsettled.note(frame, len(self.staging.batches) - 1)
            pages.append((frame, page.info))
        return pages

    def refuse_many_rejected(self) -> None:
        """Stop the sync if too many rows were rejected: then the contract has changed, and not single rows.

        The rejected rows are kept for inspection; everything else that is staged is dropped.

        Raises:
            DataError: more than 100 rows, and more than 1 % of those read, were rejected.
        """
        count = len(set(self.staging.names))
        if is_many(count, self.evidence.rows):
            self.staging.keep_rejected(self.rejected)
            self.staging.clear()
            raise DataError(
                f"{count} of {self.evidence.rows} rows do not fit the contract, more than 1 %: nothing was published. "
                f"The API may have changed: look for a newer pleo-extract. The rows are in {self.rejected}"
            )

    def list_rejected(self) -> set[JobKey]:
        """Return the jobs whose staged rows were rejected, if their ids are readable. The server does list these jobs."""
        return _parse_names(self.staging.names)

    def known_rejected(self) -> set[JobKey]:
        """Return the jobs whose rows earlier runs rejected, if their ids are readable."""
        return _parse_names(self.before.rejected)

    def find_unmet_rejected(self) -> pl.DataFrame:
        """Return the jobs rejected by earlier runs and not met by this one, if their created_at is known.

        A job has a readable created_at in its rejected row, or else the one that the lake holds.
        """
        keys = sorted(self.known_rejected() - self.list_rejected())
        wanted = build_key_frame(keys)
        if wanted.is_empty():
            return wanted.with_columns(created_at=pl.lit(None, pl.Datetime("us", "UTC")))
        had = self.find_in_lake(wanted)
        records = self.before.spoiled
        created = [
            read_key(records[f"{c}/{n}"].created_at) if f"{c}/{n}" in records else None for c, n in keys
        ]
        found = wanted.with_columns(rejected_at=pl.Series(created, dtype=pl.Datetime("us", "UTC")))
        found = found.join(had.unique(KEY), on=KEY, how="left")
        return found.select(*KEY, created_at=pl.coalesce("rejected_at", "created_at")).drop_nulls()

    def drop_rejected(self, jobs: pl.DataFrame) -> pl.DataFrame:
        """Return `jobs` without those whose staged rows were rejected."""
        return drop_jobs(jobs, self.list_rejected())

    def count_missing(self, rejected: Sequence[str]) -> int:
        """Return how many of these rejected rows belong to jobs that are not in the lake."""
        return len(rejected) - self.find_in_lake(build_key_frame(_parse_names(rejected))).height

    def find_in_lake(self, jobs: pl.DataFrame) -> pl.DataFrame:
        """Return company_id, id and created_at of the lake's rows of these jobs."""
        if jobs.is_empty():
            return pl.DataFrame(schema={name: POLARS_SCHEMA[name] for name in (*KEY, "created_at")})
        rows = self.lake.filter(pl.col("id").is_in(jobs["id"].implode())).select(*KEY, "created_at").collect()
        return rows.join(jobs, on=KEY, how="semi")

    def list_forgotten(self) -> set[str]:
        """Return the hashes of the jobs that the lake has forgotten and that the server is known to list."""
        return {*self.before.forgotten, *self.staging.met_forgotten()}

    def is_unsettled(self) -> pl.Expr:
        """Return an expression for rows whose job may still change, by what is known of this account."""
        return is_unsettled(self.before.unknown)

    def count_lake(self) -> int:
        """Return how many jobs of this account the lake holds."""
        return int(self.lake.select(pl.len()).collect().item())

    def read_lake_near(self, fresh: pl.DataFrame, pages: Iterable[pl.DataFrame] = ()) -> pl.DataFrame:
        """Return the lake's rows that may be the same jobs as `fresh`, with every row in the time span of each page.

        One query for both, because each one reads through the lake's files. It selects by created_at, so that files and
        row groups outside these spans are skipped; it may return more rows than needed, never fewer.
        """
        if fresh.is_empty():
            return self.lake.head(0).collect()
        created = pl.col("created_at")
        instants = fresh["created_at"].unique()
        spans = fresh.group_by(created_month()).agg(start=created.min(), end=created.max())
        near = pl.any_horizontal(_is_within(*span) for span in spans.select("start", "end").iter_rows())
        if len(instants) <= MANY_INSTANTS:
            near &= created.is_in(instants.implode())
        ends = [(page["created_at"].min(), page["created_at"].max()) for page in pages if page.height]
        return self.lake.filter(pl.any_horizontal(near, *(_is_within(*span) for span in ends))).collect()

    def count_new(self, fresh: pl.DataFrame) -> int:
        """Return how many jobs of `fresh` are not in the lake."""
        return fresh.unique(KEY).join(self.read_lake_near(fresh), on=KEY, how="anti").height

    def known_vanished(self) -> set[JobKey]:
        """Return the jobs of the lake that the server had stopped listing before this run."""
        return {(company, name) for company, name in self.before.vanished}


def build_key_frame(keys: Iterable[JobKey]) -> pl.DataFrame:
    """Return a frame of company_id and id, one row per job, to join with."""
    return pl.DataFrame(list(keys), schema=dict.fromkeys(KEY, pl.String), orient="row")


def drop_jobs(rows: pl.DataFrame, keys: Collection[JobKey]) -> pl.DataFrame:
    """Return the rows without those of the given jobs."""
    return rows.filter([key not in keys for key in rows.select(KEY).iter_rows()]) if keys else rows


def _parse_names(names: Iterable[str]) -> set[JobKey]:
    """Return the jobs that names of rejected rows stand for; a row without a readable id has a name of another form."""
    keys = (name.partition("/") for name in names)
    return {(company, name) for company, slash, name in keys if slash}


def _is_within(start: object, end: object) -> pl.Expr:
    """Return an expression for rows created in a time span, one by which files without such rows are skipped."""
    return pl.col("created_at").is_between(pl.lit(start), pl.lit(end))
