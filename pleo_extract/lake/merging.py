"""A month merged: what the lake has of it and what is staged, the latest row of each job, in a file's order.

A month of many rows is merged in pieces, one range of companies and days after the other, so that memory holds a
piece and not the month: a dump of ten million jobs takes hardly more than one of a hundred thousand. For that what is
staged is sorted first, some batches at a time, into files of which a piece reads only its rows: an external sort.
"""

from __future__ import annotations

import io
import secrets
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import polars as pl

from pleo_extract.contract import KEY, POLARS_SCHEMA
from pleo_extract.lake import disk
from pleo_extract.refresh import FILE_ORDER, has_rows, merge_rows, same_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from datetime import date
    from pathlib import Path

    from pleo_extract.lake.layout import FileEntry
    from pleo_extract.lake.staging import Staging

__all__ = ["Merge"]

PIECE: Final = 25_000
"""Rows of a month that are merged at once; a month of fewer is merged as a whole."""
RUN: Final = 20_000
"""Staged rows of a larger month that are sorted at once, at least, before its pieces are merged."""
RUNS: Final = 50
"""Runs of a month at most: each piece reads a little of each of them."""
RECORD_BATCH: Final = 5_000
"""Rows that are read at once, at least, of those that were sorted."""
ENOUGH: Final = 1_000
"""Staged rows in a frame, at least: of thousands of companies, many have staged a few only."""
FEW: Final = 2_000
"""Staged rows of a month that are looked up one by one."""
_DAY: Final = pl.col("created_at").dt.date().alias("day")

End = tuple[str, "date"]
Span = tuple[End | None, End | None]
"""Beyond one company and day, up to another; None for no limit."""
Place = tuple[int, int]
"""Offset and length."""


class Merge:
    """The months of a lake and of what is staged, each merged when it is asked for.

    Args:
        scratch: a folder of this machine, for what is sorted. stagings: what is staged, in the order it was fetched.
        files: what the lake has. read: the bytes of one of these files, as it was written.
        anew: whether every month is written anew, such as those of an older format.

    Attributes:
        old: the lake's files by month. months: all there will be, in order.
    """

    def __init__(
        self,
        scratch: Path,
        stagings: Sequence[Staging],
        files: Iterable[FileEntry],
        read: Callable[[FileEntry], bytes],
        *,
        anew: bool = False,
    ) -> None:
        self._scratch = scratch
        self._read = read
        self._anew = anew
        self.old: dict[str, list[FileEntry]] = {}
        for entry in files:
            self.old.setdefault(entry.month, []).append(entry)
        self._fresh: dict[str, list[Staging]] = {}
        for staging in stagings:
            for month in staging.months():
                self._fresh.setdefault(month, []).append(staging)
        self.months = sorted(self.old.keys() | self._fresh.keys())
        self._kept: tuple[str, pl.DataFrame] | None = None

    def is_changed(self, month: str) -> bool:
        """Whether the month is not as it was.

        Raises:
            LakeError: a file of it is not as it was written.
        """
        self._kept = None
        if month not in self.old or self._anew:
            return True
        if month not in self._fresh:
            return False
        if not self._is_small(month):
            return any(not same_rows(old, new) for old, new in self._merge(month))
        files, fresh = self._open(month), pl.concat(self._staged(month))
        if fresh.height <= FEW and has_rows(pl.concat(files), fresh):
            return False
        old = self._collect(month, files)
        new = merge_rows(old, fresh)
        if same_rows(old, new):
            return False
        self._kept = (month, new)
        return True

    def pieces(self, month: str) -> Iterator[pl.DataFrame]:
        """The month's rows as they are to be, in order, piece by piece."""
        kept, self._kept = self._kept, None
        if kept is not None and kept[0] == month:
            yield kept[1]
        else:
            yield from (new for _, new in self._merge(month))

    def _is_small(self, month: str) -> bool:
        return self._count_staged(month) + sum(entry.rows for entry in self.old.get(month, ())) <= PIECE

    def _count_staged(self, month: str) -> int:
        """Staged rows of the batches that have any of this month."""
        batches = (batch for each in self._fresh.get(month, ()) for batch in each.batches)
        return sum(batch.rows for batch in batches if month in batch.months)

    def _merge(self, month: str) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
        """What the lake has and what it is to have, of one range after the other."""
        files = self._open(month)
        if not self._is_small(month):
            with self._sort_staged(month) as runs:
                spans, places = _cut(files, runs)
                for n, span in enumerate(spans):
                    old = self._collect(month, [file.filter(_lies_in(span)) for file in files])
                    fresh = (run.slice(*place[n]).collect() for run, place in zip(runs, places, strict=True))
                    yield old, merge_rows(old, *fresh)
            if spans:
                return
        old = self._collect(month, files)
        yield old, merge_rows(old, *self._staged(month))

    def _collect(self, month: str, files: Sequence[pl.LazyFrame]) -> pl.DataFrame:
        """The rows of a month's files in a file's order, which one of ours has already."""
        frames = [file.collect() for file in files]
        if len(frames) == 1 and self.old[month][0].sha256:
            return frames[0]
        return merge_rows(*frames) if frames else _nothing()

    def _staged(self, month: str) -> Iterator[pl.DataFrame]:
        return _gather(
            (frame for staging in self._fresh.get(month, ()) for frame in staging.read(month)), ENOUGH
        )

    @contextmanager
    def _sort_staged(self, month: str) -> Iterator[list[pl.LazyFrame]]:
        """What is staged of the month in the order it was fetched, some batches at a time in files of their own, sorted."""
        folder = self._scratch / f"build-{secrets.token_hex(4)}"
        disk.make_folder(folder, private=True)
        try:
            paths: list[Path] = []
            for rows in _gather(self._staged(month), max(RUN, self._count_staged(month) // RUNS)):
                paths.append(folder / f"{len(paths)}.arrow")
                _write_sorted(paths[-1], rows)
            yield [pl.scan_ipc(path, glob=False) for path in paths]
        finally:
            disk.remove_tree(folder)

    def _open(self, month: str) -> list[pl.LazyFrame]:
        return [_scan(self._read(entry)) for entry in self.old.get(month, ())]


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


def _write_sorted(path: Path, rows: pl.DataFrame) -> None:
    """These rows in a file's order; those of one job at one instant stay in the order given."""
    buffer = io.BytesIO()
    rows.sort(FILE_ORDER, maintain_order=True).write_ipc(
        buffer, compression="uncompressed", record_batch_size=RECORD_BATCH
    )
    disk.write_scratch(path, buffer.getbuffer())


def _cut(files: Sequence[pl.LazyFrame], runs: Sequence[pl.LazyFrame]) -> tuple[list[Span], list[list[Place]]]:
    """Ranges of companies and days, of so many rows each, and where each run has them; none where a job is in two.

    Returns:
        The ranges, and for each of the runs, which are in a file's order, offset and length of each range.
    """
    sizes, jobs, places = [], [], []
    for each in (*files, *runs):
        frame = each.select(*KEY, "created_at").collect()
        sizes.append(frame.group_by("company_id", _DAY).len())
        jobs.append(frame.select(pl.struct(KEY).hash()).to_series())
        places.append(frame.select(pl.struct(*KEY, _DAY).hash()).to_series())
    if _count_different(jobs) != _count_different(places):
        return [], []
    total = pl.concat(sizes).group_by("company_id", "day").agg(pl.col("len").sum()).sort("company_id", "day")
    pieces = total.select("company_id", "day", piece=(pl.col("len").cum_sum() // PIECE).rle_id())
    groups = pieces.group_by("piece", maintain_order=True)
    ends = groups.agg(pl.col("company_id", "day").last()).select("company_id", "day").rows()
    return list(pairwise([None, *ends[:-1], None])), [_place(each, pieces) for each in sizes[len(files) :]]


def _count_different(numbers: list[pl.Series]) -> int:
    ordered = pl.concat(numbers).sort()
    return int(ordered.ne_missing(ordered.shift()).sum())


def _place(sizes: pl.DataFrame, pieces: pl.DataFrame) -> list[Place]:
    """Offset and length of each piece in a run that has so many rows of each company and day."""
    lengths = pieces.join(sizes, on=("company_id", "day"), how="left", maintain_order="left").group_by(
        "piece", maintain_order=True
    )
    rows = lengths.agg(pl.col("len").sum()).select(
        start=pl.col("len").cum_sum() - pl.col("len"), length="len"
    )
    return rows.rows()


def _lies_in(span: Span) -> pl.Expr:
    after, upto = span
    beyond = pl.lit(value=True) if after is None else ~_is_upto(*after)
    return beyond if upto is None else beyond & _is_upto(*upto)


def _is_upto(company: str, day: date) -> pl.Expr:
    is_before = pl.col("company_id") < company
    return is_before | ((pl.col("company_id") == company) & (pl.col("created_at").dt.date() <= day))
