"""One account's reading under way: what it reads with, what it knows, where it puts what it reads."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import polars as pl

from pleo_extract.contract import KEY
from pleo_extract.core.decode import build_frame
from pleo_extract.core.rows import created_month, is_unsettled, job_name, read_key
from pleo_extract.core.walk import Walk
from pleo_extract.errors import DataError, RequestRefused
from pleo_extract.fetch.driver import Driver, ask_offset, drive
from pleo_extract.signals import hold_signals

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence
    from datetime import datetime
    from pathlib import Path

    from pleo_extract.client import Session
    from pleo_extract.contract import PageInfo, Query
    from pleo_extract.core.state import JobKey, SyncState
    from pleo_extract.fetch.driver import Batch
    from pleo_extract.lake.staging import Staging
    from pleo_extract.sync.receipt import Evidence

__all__ = ["Task", "Unsettled"]

MANY_REJECTED: Final = 100
"""Above this many rejected rows, and above 1 % of all rows, nothing is published."""
MANY_INSTANTS: Final = 1_000
"""Up to so many, the lake is asked for rows of these very instants; above, for a span of each month."""


class Unsettled:
    """The jobs that staged rows show as unsettled, each with the batch that showed it last.

    What a closing read must confirm: a job that staging holds as open may have ended since it was read.
    """

    def __init__(self) -> None:
        self._seen: dict[JobKey, tuple[str, datetime, int]] = {}

    def note(self, frame: pl.DataFrame, batch: int) -> None:
        """Take in the rows of one batch; a job that it shows as settled is no longer of interest."""
        if self._seen:
            known = pl.DataFrame(list(self._seen), schema=dict.fromkeys(KEY, pl.String), orient="row")
            for key in frame.select(KEY).join(known, on=KEY, how="semi").iter_rows():
                self._seen.pop(key, None)
        for company, name, status, created in (
            frame.filter(is_unsettled()).select(*KEY, "status", "created_at").iter_rows()
        ):
            self._seen[company, name] = (status, created, batch)

    def find(self, *, before: int) -> pl.DataFrame:
        """Return the jobs that no batch from number `before` on has shown: status, created_at and key."""
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
        """Forget all of them."""
        self._seen.clear()


@dataclass(frozen=True, slots=True)
class Task:
    """One account of one dump.

    Attributes:
        run, in_flight: how requests are sent. company_id: whose jobs; None for all that the credential may see.
        lake: the lake's rows of this account, lazily. before: its state after the last run.
        staging: where rows go. evidence: what is counted. on_page: told of every page.
        rejected: the folder for rows that are set aside for good. clock: tells the instant, UTC.
        unsettled: the jobs that are staged as unsettled.
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

    def stage(self, phase: str, parts: Generator[Batch, None, None]) -> None:
        """Put what a walk reads into staging. When interrupted, what the walk holds is staged before it ends.

        However it ends, the walk does too: what it holds, such as signals, is not to wait until its memory is cleared up.
        """
        with closing(parts):
            self._stage(phase, parts)

    def _stage(self, phase: str, parts: Generator[Batch, None, None]) -> None:
        interrupt: BaseException | None = None
        while True:
            try:
                part = next(parts) if interrupt is None else parts.throw(interrupt)
            except StopIteration:
                break
            staged = len(self.staging.batches)
            try:
                self.add(phase, part)
            except (KeyboardInterrupt, SystemExit) as exc:
                interrupt = exc
                if (
                    len(self.staging.batches) == staged
                ):  # told before it began; none may be staged after a gap
                    self.add(phase, part)
        if interrupt is not None:
            raise interrupt

    def add(self, phase: str, part: Batch) -> None:
        """Stage one part, and note which of its jobs are unsettled."""
        with hold_signals():
            frame = self.staging.add(part.frame, part.rejected, phase=phase, checkpoints=part.marks)
        self.unsettled.note(frame, len(self.staging.batches) - 1)

    def walk(self, phase: str, walk: Walk, segment: int = 0) -> Walk:
        """Read a walk into staging, as this segment of its phase."""
        try:
            self.stage(phase, drive(Driver(self.session, walk, segment, on_page=self.on_page)))
        finally:
            self.evidence.count_walk(walk)
        return walk

    def restart(self) -> None:
        """Forget all that is staged: what follows is read by this run."""
        self.staging.restart()
        self.unsettled.clear()

    def read_pages(self, phase: str, query: Query, offsets: Sequence[int]) -> list[pl.DataFrame] | None:
        """Read single pages into staging; None where the server takes no offset that deep, or does not keep the order."""
        pages = self.read_places(phase, query, offsets)
        return None if pages is None else [frame for frame, _ in pages]

    def read_places(
        self, phase: str, query: Query, offsets: Sequence[int]
    ) -> list[tuple[pl.DataFrame, PageInfo]] | None:
        """Read single pages as `read_pages` does, each with what it says about itself.

        An offset that is known to be refused is not asked for.
        """
        if not all(map(self.session.habits.reaches, offsets)):
            return None
        pages = []
        for offset in offsets:
            walk = Walk(query.at(offset=offset))
            steps = walk.steps()
            try:
                page = ask_offset(self.session, next(steps))
                steps.send(page.info)
            except RequestRefused:
                return None
            except StopIteration:
                pass
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
        """Give up where so many rows do not fit that it is no matter of rows; they are kept, nothing is built on them.

        Raises:
            DataError: more than 100 rows, and 1 % of those read.
        """
        count = len(set(self.staging.names))
        if count > MANY_REJECTED and count > self.evidence.rows / 100:
            self.staging.keep_rejected(self.rejected)
            self.staging.clear()
            raise DataError(
                f"{count} of {self.evidence.rows} rows do not fit the contract, more than 1 %: nothing was published. "
                f"They are in {self.rejected}; perhaps the API changed: look for a newer pleo-extract"
            )

    def spoiled(self) -> set[JobKey]:
        """Jobs whose rows do not fit, where their names can be read: they are listed all the same."""
        keys = (name.partition("/") for name in self.staging.names)
        return {(company, name) for company, slash, name in keys if slash}

    def known_rejected(self) -> set[JobKey]:
        """Jobs whose rows earlier runs rejected, where their names can be read."""
        keys = (name.partition("/") for name in self.before.rejected)
        return {(company, name) for company, slash, name in keys if slash}

    def find_rejected(self) -> pl.DataFrame:
        """Jobs whose rows earlier runs rejected and this one has not met, where it can be told when they were created."""
        keys = sorted(self.known_rejected() - self.spoiled())
        wanted = pl.DataFrame(keys, schema=dict.fromkeys(KEY, pl.String), orient="row")
        if wanted.is_empty():
            return wanted.with_columns(created_at=pl.lit(None, pl.Datetime("us", "UTC")))
        had = (
            self.lake.filter(pl.col("id").is_in(wanted["id"].implode())).select(*KEY, "created_at").collect()
        )
        spoiled = self.before.spoiled
        said = [read_key(spoiled[f"{c}/{n}"].created_at) if f"{c}/{n}" in spoiled else None for c, n in keys]
        found = wanted.with_columns(said=pl.Series(said, dtype=pl.Datetime("us", "UTC")))
        found = found.join(had.unique(KEY), on=KEY, how="left")
        return found.select(*KEY, created_at=pl.coalesce("said", "created_at")).drop_nulls()

    def without_spoiled(self, jobs: pl.DataFrame) -> pl.DataFrame:
        """Return these jobs without those whose rows do not fit."""
        spoiled = self.spoiled()
        return jobs.filter([key not in spoiled for key in jobs.select(KEY).iter_rows()]) if spoiled else jobs

    def count_unknown(self, rejected: Sequence[str]) -> int:
        """How many of these rejected rows are of jobs that the lake does not have."""
        names = job_name()
        return len(rejected) - int(
            self.lake.select(names.is_in(rejected).sum()).collect().item() if rejected else 0
        )

    def list_forgotten(self) -> set[str]:
        """Jobs that the server lists and that the lake has forgotten, by their hashes, as far as it is known."""
        return {*self.before.forgotten, *self.staging.met_forgotten()}

    def is_unsettled(self) -> pl.Expr:
        """Rows whose job may still change, as far as this account knows."""
        return is_unsettled(self.before.unknown)

    def count_lake(self) -> int:
        """Jobs of this account in the lake."""
        return int(self.lake.select(pl.len()).collect().item())

    def lake_rows(self, fresh: pl.DataFrame, pages: Iterable[pl.DataFrame] = ()) -> pl.DataFrame:
        """Rows of the lake created when these were, and perhaps others: all that can share a key with them.

        With all that were created between the first and the last row of each of these pages.
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

    def count_new(self, fresh: pl.DataFrame, lake: pl.DataFrame | None = None) -> int:
        """Jobs of these rows that the lake does not have; `lake` is what `lake_rows` gives for them."""
        lake = self.lake_rows(fresh) if lake is None else lake
        return fresh.unique(KEY).join(lake, on=KEY, how="anti").height

    def known_vanished(self) -> set[JobKey]:
        """Jobs of the lake that the server was known not to list any more."""
        return {(company, name) for company, name in self.before.vanished}


def _is_within(start: object, end: object) -> pl.Expr:
    """Rows created from one instant to another; by this a file that has none is not read."""
    return pl.col("created_at").is_between(pl.lit(start), pl.lit(end))
