"""Merge the staged rows of a month into the rows that the lake has: the latest row of each job, in the order of a file.

Theory of operation. Which row wins: a staged row replaces the lake's row of the same job, whatever their time stamps say,
because it was read later (`core.rows.replace_rows`). Servers stamp `last_updated_at` by clocks that differ, or not at all:
while the later stamp won, a job whose end was stamped before its start stayed open in the lake for ever. Among the staged
rows of one job, an ended one wins, then the later `last_updated_at`, then the later fetch (`keep_latest`). The same order
decides between it and the lake's row if another writer has committed since this run began (`raced`): then that row can be the
later one. Jobs that a server has moved to another month (`leaving`) are dropped from the month that they leave.

A small month, up to two pieces of 25,000 rows, is merged as a whole. A larger one is merged as an external sort, in memory
that does not grow with the month: the process peaks at 390 MB for a month of 2.8 million jobs.

1. Sort. Staged rows come in the order they were fetched. They are sorted some batches at a time, and each sorted run goes
   to a scratch file. There are at most `RUNS` runs, however large the month is: every piece reads a little of every run, so
   with runs of a fixed size the cost grew with the square of the month (4.4 CPU seconds a million at 100 million jobs; now
   2.1, as at 10 million).
2. Count. `_Outline` counts the rows of each company and day, in each run and in the lake's files. From these counts
   `_split_ranges` makes ranges of companies and days, each with the rows of one piece.
3. Merge. For one range after the other, read its rows from the files, take as many rows from the front of each run as were
   counted, and merge them. Ranges follow each other in the order of a file, so the pieces are written as they come.

A range holds whole days, so all rows of a job are in one range, unless the server has changed the job's day within the
month. Then the job would be kept twice: such a month, which step 2 detects by hashes, is merged as a whole.

A month is written only if a row of it has changed. A sync with nothing new asks about a few rows in large months: these are
looked up (`LOOKUP`) before anything is sorted. What is merged goes to the table: `lake/folder/table.py`, or that of Delta.
"""

from __future__ import annotations

import io
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import polars as pl

from pleo_extract.contract import KEY, POLARS_SCHEMA
from pleo_extract.core.rows import FILE_ORDER, has_rows, merge_rows, replace_rows, same_rows
from pleo_extract.lake import disk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from collections.abc import Set as AbstractSet
    from datetime import date
    from pathlib import Path

    from pleo_extract.core.state import JobKey
    from pleo_extract.lake.layout import FileEntry
    from pleo_extract.lake.staging import Staging

__all__ = ["MonthMerge"]

PIECE: Final = 25_000
"""Rows of a large month that are merged together; a month of at most two such pieces is merged as a whole."""
RUN: Final = 20_000
"""Staged rows in a sorted run, at least."""
RUNS: Final = 50
"""Sorted runs of a month, at most."""
SLICE: Final = 1_000
"""Rows that are read together from a sorted run."""
FRAME: Final = 1_000
"""Staged rows in a frame, at least: a frame takes more memory than its rows, and thousands of companies stage a few each."""
LOOKUP: Final = 2_000
"""Staged rows of a month, at most, that are looked up in its files before the month is merged."""
_DAY: Final = pl.col("created_at").dt.date().alias("day")

CompanyDay = tuple[str, "date"]
Range = tuple[CompanyDay | None, CompanyDay | None]
"""The rows after one company and day, up to and including another; None for no limit."""


class MonthMerge:
    """The months of a lake and of staged rows; each is merged when it is checked or its pieces are asked for.

    Args:
        scratch: a folder of this machine for sorted rows.
        stagings: the staged rows, in the order they were fetched.
        files: the lake's files.
        read: returns the bytes of one of these files, verified.
        rewrite: months that are written even if no row has changed, such as those of an older format.
        raced: True if another writer may have committed rows that are later than the staged ones.

    Attributes:
        old: the lake's files by month.
        months: the months of the lake and of the staged rows, in order.
        leaving: the months that jobs leave for others.
    """

    def __init__(
        self,
        scratch: Path,
        stagings: Sequence[Staging],
        files: Iterable[FileEntry],
        read: Callable[[FileEntry], bytes],
        *,
        rewrite: AbstractSet[str] = frozenset(),
        raced: bool = False,
    ) -> None:
        self._scratch = scratch
        self._read = read
        self._rewrite = rewrite
        self._merge_frames = merge_rows if raced else replace_rows
        self._lost: dict[str, list[FileEntry]] = {}
        self.old: dict[str, list[FileEntry]] = {}
        for entry in files:
            self.old.setdefault(entry.month, []).append(entry)
        self._stagings: dict[str, list[Staging]] = {}
        for staging in stagings:
            for month in staging.months():
                self._stagings.setdefault(month, []).append(staging)
        self._leaving = _list_leaving(stagings)
        self.leaving = self._leaving.keys()
        self.months = sorted(self.old.keys() | self._stagings.keys())
        self._merged: tuple[str, pl.DataFrame] | None = None

    def add_lost(self, files: Iterable[FileEntry]) -> None:
        """Add files that another program has removed from the table but whose rows belong there; `read` must find them."""
        for entry in files:
            self._lost.setdefault(entry.month, []).append(entry)
        self.months = sorted({*self.months, *self._lost})

    def is_changed(self, month: str, *, search: bool = False) -> bool:
        """Return whether the month must be written: a row is new or changed, or its files hold a job more than once.

        Args:
            month: one of `months`.
            search: True to search its files for jobs that they hold twice, even if no staged row shows them.

        Raises:
            LakeError: a file of the month has changed since it was written.
        """
        self._merged = None
        if month not in self.old or month in self._lost or month in self._rewrite:
            return True
        if search and self._has_repeats(month):
            return True
        is_left = month in self._leaving
        if month not in self._stagings and not is_left:
            return False
        files = self._open_files(month)
        if (
            not is_left
            and self._count_staged(month) <= LOOKUP
            and has_rows(pl.concat(files), pl.concat(self._read_staged(month)))
        ):
            return False
        if self._is_small(month):
            old = self._collect_files(month, files)
            self._merged = month, self._merge(month, old, self._read_staged(month))
            pairs = iter([(old, self._merged[1])])
        else:
            pairs = self._merge_ranges(month)
        rows = 0
        for old, new in pairs:
            if not same_rows(old, new):
                return True
            rows += old.height
        self._merged = None
        # The files may hold a job twice, which `old` has once: then fewer rows were compared than there are.
        return rows != sum(entry.rows for entry in self.old.get(month, ()))

    def pieces(self, month: str) -> Iterator[pl.DataFrame]:
        """Yield the merged rows of the month, in order, a piece at a time."""
        merged, self._merged = self._merged, None
        if merged is not None and merged[0] == month:
            yield merged[1]
        else:
            yield from (new for _, new in self._merge_ranges(month))

    def _has_repeats(self, month: str) -> bool:
        """Return whether the month's files hold more rows than jobs."""
        jobs = [
            file.select(pl.struct(KEY).hash()).collect(engine="streaming").to_series()
            for file in self._open_files(month)
        ]
        return sum(each.len() for each in jobs) > _count_distinct(jobs)

    def _entries(self, month: str) -> list[FileEntry]:
        """Return the month's files; of equal rows of one job in two files, the later file's row stays."""
        return [*self.old.get(month, ()), *self._lost.get(month, ())]

    def _open_files(self, month: str) -> list[pl.LazyFrame]:
        return [_scan(self._read(entry)) for entry in self._entries(month)]

    def _is_small(self, month: str) -> bool:
        rows = sum(entry.rows for entry in self._entries(month))
        return self._count_staged(month) + rows <= 2 * PIECE

    def _count_staged(self, month: str) -> int:
        """Return how many rows of this month are staged."""
        return sum(staging.count_month(month) for staging in self._stagings.get(month, ()))

    def _read_staged(self, month: str) -> Iterator[pl.DataFrame]:
        """Yield the staged rows of the month in the order they were fetched."""
        frames = (frame for staging in self._stagings.get(month, ()) for frame in staging.read(month))
        return _combine(frames, FRAME)

    def _merge_ranges(self, month: str) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
        """Yield the lake's rows and the merged rows, one range after the other; see the theory of operation."""
        files = self._open_files(month)
        if not self._is_small(month):
            with self._sort_staged(month) as runs:
                outlines = [_outline(file.select(*KEY, "created_at").collect()) for file in files]
                ranges = _split_ranges([*outlines, *(run.outline for run in runs)])
                counts = [_count_in_ranges(run.outline, ranges) for run in runs]
                for n, limits in enumerate(ranges):
                    old = self._collect_files(month, [file.filter(_is_in(limits)) for file in files])
                    fresh = (run.take(rows[n]) for run, rows in zip(runs, counts, strict=True))
                    yield old, self._merge(month, old, fresh)
            if ranges:
                return
        old = self._collect_files(month, files)
        yield old, self._merge(month, old, self._read_staged(month))

    def _merge(self, month: str, old: pl.DataFrame, fresh: Iterable[pl.DataFrame]) -> pl.DataFrame:
        """Merge staged rows into the lake's, without the jobs that leave this month."""
        if (leaving := self._leaving.get(month)) is None:
            return self._merge_frames(old, *fresh)
        return self._merge_frames(*(frame.join(leaving, on=KEY, how="anti") for frame in (old, *fresh)))

    def _collect_files(self, month: str, files: Sequence[pl.LazyFrame]) -> pl.DataFrame:
        """Read rows of the month's files in the order of a file, each job once."""
        frames = [file.collect() for file in files]
        if len(frames) == 1 and self._entries(month)[0].sha256:  # ours, so it is in order
            return frames[0]
        return merge_rows(*frames) if frames else pl.DataFrame(schema=POLARS_SCHEMA)

    @contextmanager
    def _sort_staged(self, month: str) -> Iterator[list[_SortedRun]]:
        """Give the staged rows of the month as sorted runs, in the order they were fetched."""
        rows = max(RUN, self._count_staged(month) // RUNS)
        disk.make_folder(self._scratch, private=True)
        with disk.ScratchFile(self._scratch) as scratch:
            yield [_SortedRun(scratch, frame) for frame in _combine(self._read_staged(month), rows)]


def _list_leaving(stagings: Sequence[Staging]) -> dict[str, pl.DataFrame]:
    """Return the jobs that leave each month."""
    leaving: dict[str, set[JobKey]] = {}
    for staging in stagings:
        for month, jobs in staging.leaving.items():
            leaving.setdefault(month, set()).update(jobs)
    schema: dict[str, pl.DataType] = {name: pl.String() for name in KEY}
    return {month: pl.DataFrame(sorted(jobs), schema, orient="row") for month, jobs in leaving.items()}


@dataclass(frozen=True, slots=True)
class _Outline:
    """What must be known of rows to split them into ranges.

    Attributes:
        sizes: rows (`len`) of each `company_id` and `day`.
        jobs: the hash of each row's job.
        job_days: the hash of each row's job and day.
    """

    sizes: pl.DataFrame
    jobs: pl.Series
    job_days: pl.Series


class _SortedRun:
    """Staged rows in the order of a file, taken from the front; equal rows stay in the order they were fetched."""

    def __init__(self, scratch: disk.ScratchFile, staged: pl.DataFrame) -> None:
        rows = staged.sort(FILE_ORDER, maintain_order=True)
        self.outline = _outline(rows)
        self._scratch = scratch
        self._places = iter([scratch.add(part) for part in rows.iter_slices(SLICE)])
        self._rest = pl.DataFrame(schema=POLARS_SCHEMA)

    def take(self, rows: int) -> pl.DataFrame:
        """Return the next `rows` rows."""
        frames, height = [self._rest], self._rest.height
        while height < rows:
            frames.append(self._scratch.read(*next(self._places)))
            height += frames[-1].height
        found = pl.concat(frames)
        self._rest = found[rows:]
        return found[:rows]


def _scan(file: bytes) -> pl.LazyFrame:
    """Scan a file of the lake; columns that an older format did not have are null."""
    rows = pl.scan_parquet(io.BytesIO(file))
    names = rows.collect_schema()
    missing = [pl.lit(None, kind).alias(name) for name, kind in POLARS_SCHEMA.items() if name not in names]
    return rows.with_columns(missing).select(POLARS_SCHEMA.names()).cast(POLARS_SCHEMA)


def _combine(frames: Iterator[pl.DataFrame], least: int) -> Iterator[pl.DataFrame]:
    """Yield the same rows in frames of at least `least` rows, the last one aside."""
    held: list[pl.DataFrame] = []
    rows = 0
    for frame in frames:
        held.append(frame)
        rows += frame.height
        if rows >= least:
            yield pl.concat(held, rechunk=True) if len(held) > 1 else held[0]
            held, rows = [], 0
    if held:
        yield pl.concat(held, rechunk=True)


def _outline(rows: pl.DataFrame) -> _Outline:
    return _Outline(
        rows.group_by("company_id", _DAY).len(),
        rows.select(pl.struct(KEY).hash()).to_series(),
        rows.select(pl.struct(*KEY, _DAY).hash()).to_series(),
    )


def _split_ranges(outlines: Sequence[_Outline]) -> list[Range]:
    """Return ranges of companies and days with about `PIECE` rows each; none if a job would be in two of them."""
    if _count_distinct([each.jobs for each in outlines]) != _count_distinct([e.job_days for e in outlines]):
        return []
    sizes = pl.concat(each.sizes for each in outlines)
    total = sizes.group_by("company_id", "day").agg(pl.col("len").sum()).sort("company_id", "day")
    groups = total.with_columns(piece=pl.col("len").cum_sum() // PIECE).group_by("piece", maintain_order=True)
    ends = groups.agg(pl.col("company_id", "day").last()).select("company_id", "day").rows()
    return list(pairwise([None, *ends[:-1], None]))


def _count_in_ranges(outline: _Outline, ranges: Sequence[Range]) -> list[int]:
    """Return how many of the rows are in each of the ranges, which follow each other."""
    rows = outline.sizes.sort("company_id", "day").rows()
    counts, at = [], 0
    for _, upto in ranges:
        start = at
        while at < len(rows) and (upto is None or rows[at][:2] <= upto):
            at += 1
        counts.append(sum(row[2] for row in rows[start:at]))
    return counts


def _count_distinct(numbers: list[pl.Series]) -> int:
    ordered = pl.concat(numbers).sort()
    return int(ordered.ne_missing(ordered.shift()).sum())


def _is_in(limits: Range) -> pl.Expr:
    after, upto = limits
    is_after = pl.lit(value=True) if after is None else ~_is_up_to(*after)
    return is_after if upto is None else is_after & _is_up_to(*upto)


def _is_up_to(company: str, day: date) -> pl.Expr:
    is_before = pl.col("company_id") < company
    return is_before | ((pl.col("company_id") == company) & (pl.col("created_at").dt.date() <= day))
