"""A month merged: what the lake has of it and what is staged, the latest row of each job, in a file's order.

A month of many rows is merged in pieces, one range of companies and days after the other, so that memory holds a
piece and not the month: a dump of ten million jobs takes hardly more than one of a hundred thousand. For that what is
staged is sorted first, some batches at a time, into a file of which each piece reads only its rows: an external sort.
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
"""Rows of a large month that are merged at once; a month of no more than two such pieces is merged as a whole."""
RUN: Final = 20_000
"""Staged rows of a larger month that are sorted at once, at least, before its pieces are merged."""
RUNS: Final = 50
"""Runs of a month at most: each piece reads a little of each of them."""
BATCH: Final = 1_000
"""Rows that are read at once of those that were sorted."""
ENOUGH: Final = 1_000
"""Staged rows in a frame, at least: of thousands of companies, many have staged a few only."""
FEW: Final = 2_000
"""Staged rows of a month that are looked up one by one."""
_DAY: Final = pl.col("created_at").dt.date().alias("day")

End = tuple[str, "date"]
Span = tuple[End | None, End | None]
"""Beyond one company and day, up to another; None for no limit."""


class MonthMerge:
    """The months of a lake and of what is staged, each merged when it is asked for.

    Args:
        scratch: a folder of this machine, for what is sorted. stagings: what is staged, in the order it was fetched.
        files: what the lake has. read: the bytes of one of these files, as it was written.
        anew: months that are written anew, such as those of an older format.

    Attributes:
        old: the lake's files by month. months: all there will be, in order. leaving: those that jobs leave for others.
    """

    def __init__(
        self,
        scratch: Path,
        stagings: Sequence[Staging],
        files: Iterable[FileEntry],
        read: Callable[[FileEntry], bytes],
        *,
        anew: AbstractSet[str] = frozenset(),
        raced: bool = False,
    ) -> None:
        self._scratch = scratch
        self._read = read
        self._anew = anew
        self._put = merge_rows if raced else replace_rows
        self._lost: dict[str, list[FileEntry]] = {}
        self.old: dict[str, list[FileEntry]] = {}
        for entry in files:
            self.old.setdefault(entry.month, []).append(entry)
        self._fresh: dict[str, list[Staging]] = {}
        for staging in stagings:
            for month in staging.months():
                self._fresh.setdefault(month, []).append(staging)
        self._leaving = _list_leaving(stagings)
        self.leaving = self._leaving.keys()
        self.months = sorted(self.old.keys() | self._fresh.keys())
        self._kept: tuple[str, pl.DataFrame] | None = None

    def add_lost(self, files: Iterable[FileEntry]) -> None:
        """Add files that are no longer in the lake although their rows belong there; `read` must still find them."""
        for entry in files:
            self._lost.setdefault(entry.month, []).append(entry)
        self.months = sorted({*self.months, *self._lost})

    def is_changed(self, month: str, *, search: bool = False) -> bool:
        """Whether the month is not as it was: rows are new or changed, or its files hold a job more than once.

        Args:
            month: one of `months`.
            search: whether its files are searched for jobs that they hold twice, where nothing is staged that shows them.

        Raises:
            LakeError: a file of it is not as it was written.
        """
        self._kept = None
        if month not in self.old or month in self._lost or month in self._anew:
            return True
        if search and self._has_repeats(month):
            return True
        is_left = month in self._leaving
        if month not in self._fresh and not is_left:
            return False
        files = self._open(month)
        if (
            not is_left
            and self._count_staged(month) <= FEW
            and has_rows(pl.concat(files), pl.concat(self._staged(month)))
        ):
            return False
        if self._is_small(month):
            old = self._collect(month, files)
            self._kept = month, self._join(month, old, self._staged(month))
            pairs = iter([(old, self._kept[1])])
        else:
            pairs = self._merge(month)
        rows = 0
        for old, new in pairs:
            if not same_rows(old, new):
                return True
            rows += old.height
        self._kept = None
        return rows != self._count_old(month)

    def pieces(self, month: str) -> Iterator[pl.DataFrame]:
        """The month's rows as they are to be, in order, piece by piece."""
        kept, self._kept = self._kept, None
        if kept is not None and kept[0] == month:
            yield kept[1]
        else:
            yield from (new for _, new in self._merge(month))

    def _has_repeats(self, month: str) -> bool:
        """Whether the month's files hold more rows than jobs."""
        jobs = [
            file.select(pl.struct(KEY).hash()).collect(engine="streaming").to_series()
            for file in self._open(month)
        ]
        return sum(each.len() for each in jobs) > _count_different(jobs)

    def _count_old(self, month: str) -> int:
        return sum(entry.rows for entry in self.old.get(month, ()))

    def _entries(self, month: str) -> list[FileEntry]:
        """The month's files; of a job with the same `last_updated_at` in two, the later one's row stays."""
        return [*self.old.get(month, ()), *self._lost.get(month, ())]

    def _is_small(self, month: str) -> bool:
        there = sum(entry.rows for entry in self._entries(month))
        return self._count_staged(month) + there <= 2 * PIECE

    def _count_staged(self, month: str) -> int:
        """Staged rows of the batches that have any of this month."""
        batches = (batch for each in self._fresh.get(month, ()) for batch in each.batches)
        return sum(batch.rows for batch in batches if month in batch.months)

    def _merge(self, month: str) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
        """What the lake has and what it is to have, of one range after the other."""
        files = self._open(month)
        if not self._is_small(month):
            with self._sort_staged(month) as runs:
                outlines = [_outline(file.select(*KEY, "created_at").collect()) for file in files]
                spans = _cut([*outlines, *(run.outline for run in runs)])
                lengths = [_count_in(run.outline, spans) for run in runs]
                for n, span in enumerate(spans):
                    old = self._collect(month, [file.filter(_lies_in(span)) for file in files])
                    fresh = (run.take(rows[n]) for run, rows in zip(runs, lengths, strict=True))
                    yield old, self._join(month, old, fresh)
            if spans:
                return
        old = self._collect(month, files)
        yield old, self._join(month, old, self._staged(month))

    def _join(self, month: str, old: pl.DataFrame, fresh: Iterable[pl.DataFrame]) -> pl.DataFrame:
        """Merge rows of the lake with staged ones, without those of jobs that have left this month."""
        if (leaving := self._leaving.get(month)) is None:
            return self._put(old, *fresh)
        return self._put(*(frame.join(leaving, on=KEY, how="anti") for frame in (old, *fresh)))

    def _collect(self, month: str, files: Sequence[pl.LazyFrame]) -> pl.DataFrame:
        """The rows of a month's files in a file's order, which one of ours has already."""
        frames = [file.collect() for file in files]
        if len(frames) == 1 and self._entries(month)[0].sha256:
            return frames[0]
        return merge_rows(*frames) if frames else _nothing()

    def _staged(self, month: str) -> Iterator[pl.DataFrame]:
        return _gather(
            (frame for staging in self._fresh.get(month, ()) for frame in staging.read(month)), ENOUGH
        )

    @contextmanager
    def _sort_staged(self, month: str) -> Iterator[list[_Run]]:
        """What is staged of the month in the order it was fetched, some batches at a time, sorted."""
        rows = max(RUN, self._count_staged(month) // RUNS)
        disk.make_folder(self._scratch, private=True)
        with disk.ScratchFile(self._scratch) as scratch:
            yield [_Run(scratch, staged) for staged in _gather(self._staged(month), rows)]

    def _open(self, month: str) -> list[pl.LazyFrame]:
        return [_scan(self._read(entry)) for entry in self._entries(month)]


def _list_leaving(stagings: Sequence[Staging]) -> dict[str, pl.DataFrame]:
    """The jobs that leave each month."""
    leaving: dict[str, set[JobKey]] = {}
    for staging in stagings:
        for month, jobs in staging.leaving.items():
            leaving.setdefault(month, set()).update(jobs)
    schema = dict.fromkeys(KEY, pl.String)
    return {month: pl.DataFrame(sorted(jobs), schema, orient="row") for month, jobs in leaving.items()}


@dataclass(frozen=True, slots=True)
class _Outline:
    """Rows of each company and day (`company_id`, `day`, `len`), and every row's job, and job and day, as numbers."""

    sizes: pl.DataFrame
    jobs: pl.Series
    places: pl.Series


class _Run:
    """Staged rows in a file's order, taken from the front; those of one job at one instant are in the order fetched."""

    def __init__(self, scratch: disk.ScratchFile, staged: pl.DataFrame) -> None:
        rows = staged.sort(FILE_ORDER, maintain_order=True)
        self.outline = _outline(rows)
        self._scratch = scratch
        self._places = iter([scratch.add(batch) for batch in rows.iter_slices(BATCH)])
        self._rest = _nothing()

    def take(self, rows: int) -> pl.DataFrame:
        """The next so many."""
        held, there = [self._rest], self._rest.height
        while there < rows:
            held.append(self._scratch.read(*next(self._places)))
            there += held[-1].height
        found = pl.concat(held)
        self._rest = found[rows:]
        return found[:rows]


def _scan(file: bytes) -> pl.LazyFrame:
    """A file of the base; columns that an older format did not have are null."""
    rows = pl.scan_parquet(io.BytesIO(file))
    there = rows.collect_schema()
    missing = [pl.lit(None, kind).alias(name) for name, kind in POLARS_SCHEMA.items() if name not in there]
    return rows.with_columns(missing).select(POLARS_SCHEMA.names()).cast(POLARS_SCHEMA)


def _nothing() -> pl.DataFrame:
    return pl.DataFrame(schema=POLARS_SCHEMA)


def _gather(frames: Iterator[pl.DataFrame], enough: int) -> Iterator[pl.DataFrame]:
    """The same rows in fewer frames, of so many rows at least: a frame of few takes more memory than its rows."""
    held: list[pl.DataFrame] = []
    rows = 0
    for frame in frames:
        held.append(frame)
        rows += frame.height
        if rows >= enough:
            yield _join(held)
            held, rows = [], 0
    if held:
        yield _join(held)


def _join(frames: list[pl.DataFrame]) -> pl.DataFrame:
    return frames[0] if len(frames) == 1 else pl.concat(frames, rechunk=True)


def _outline(rows: pl.DataFrame) -> _Outline:
    return _Outline(
        rows.group_by("company_id", _DAY).len(),
        rows.select(pl.struct(KEY).hash()).to_series(),
        rows.select(pl.struct(*KEY, _DAY).hash()).to_series(),
    )


def _cut(outlines: Sequence[_Outline]) -> list[Span]:
    """Ranges of companies and days, of so many rows each; none where a job is in two of them."""
    if _count_different([each.jobs for each in outlines]) != _count_different([e.places for e in outlines]):
        return []
    sizes = pl.concat(each.sizes for each in outlines)
    total = sizes.group_by("company_id", "day").agg(pl.col("len").sum()).sort("company_id", "day")
    groups = total.with_columns(piece=pl.col("len").cum_sum() // PIECE).group_by("piece", maintain_order=True)
    ends = groups.agg(pl.col("company_id", "day").last()).select("company_id", "day").rows()
    return list(pairwise([None, *ends[:-1], None]))


def _count_in(outline: _Outline, spans: Sequence[Span]) -> list[int]:
    """How many of these rows lie in each of the ranges, which follow on each other."""
    rows = outline.sizes.sort("company_id", "day").rows()
    counts, at = [], 0
    for _, upto in spans:
        start = at
        while at < len(rows) and (upto is None or rows[at][:2] <= upto):
            at += 1
        counts.append(sum(row[2] for row in rows[start:at]))
    return counts


def _count_different(numbers: list[pl.Series]) -> int:
    ordered = pl.concat(numbers).sort()
    return int(ordered.ne_missing(ordered.shift()).sum())


def _lies_in(span: Span) -> pl.Expr:
    after, upto = span
    beyond = pl.lit(value=True) if after is None else ~_is_upto(*after)
    return beyond if upto is None else beyond & _is_upto(*upto)


def _is_upto(company: str, day: date) -> pl.Expr:
    is_before = pl.col("company_id") < company
    return is_before | ((pl.col("company_id") == company) & (pl.col("created_at").dt.date() <= day))
