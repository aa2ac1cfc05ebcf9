"""Find repeated keys over all files of a lake, in memory that does not grow with it.

A key stands for a job: (company_id, id), two UUIDs. Its hash has 8 bytes. `count_repeats` writes the sorted hashes of each
file to a scratch file, split into ranges of numbers, and then looks at one range of all files at a time. Two keys can have
one hash, which is to be expected once in 37 lakes of a billion jobs, or in 3,700 lakes of a hundred million: where two
hashes are equal, the keys themselves are compared.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final

import polars as pl

from pleo_extract.contract import KEY
from pleo_extract.lake import disk

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

__all__ = ["IdInstants", "count_repeats", "hash_id"]

RANGE: Final = 8_000_000
"""Keys of one range: 64 MB, and as much again to sort them."""
_HASH: Final = pl.struct(KEY).hash().alias("hash")
_MONTH_NUMBER: Final = pl.col("created_at").dt.year().cast(pl.UInt64) * 12 + pl.col(
    "created_at"
).dt.month().cast(pl.UInt64)
MONTH_BITS: Final = 10
"""How many bits of an entry say the month: months repeat after 85 years."""
INSTANT_BITS: Final = 14
"""How many bits of an entry are of the hash of the instant: of jobs that move within a month, one in 16,384 is not found."""
OTHER_BITS: Final = MONTH_BITS + INSTANT_BITS
HELD: Final = 250_000
"""Entries that are held in memory; more go to a file of this machine."""
SORTED: Final = 2_000_000
"""Entries that are sorted together."""


class IdInstants:
    """The instants of creation under which ids were staged, in 8 bytes a row: 40 bits of the id's hash, and `OTHER_BITS`.

    A first dump of ten million jobs must find the one that the server showed under two months or instants, and cannot
    hold ten million ids in memory for it.

    Args:
        folder: where the entries go that are too many for memory.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: list[pl.Series] = []
        self._rows = self._rows_held = 0
        self._spilled: list[tuple[int, int]] = []
        self._scratch: disk.ScratchFile | None = None

    def add(self, rows: pl.DataFrame) -> None:
        """Note the ids and instants of staged rows.

        Raises:
            StorageError: the folder has no room for 8 bytes a row.
        """
        month = _MONTH_NUMBER % 2**MONTH_BITS * 2**INSTANT_BITS
        instant = pl.col("created_at").hash() % 2**INSTANT_BITS
        entries = rows.select(entry=hash_id() * 2**OTHER_BITS + month + instant)
        self._held.append(entries.to_series())
        self._rows += rows.height
        self._rows_held += rows.height
        if self._rows_held > HELD:
            self._spill()

    def find_moved(self) -> pl.Series:
        """Return the hashes of the ids with two instants or more, see `hash_id`; a few others can be among them."""
        found = [pl.Series(dtype=pl.UInt64)]
        ranges = 1 + self._rows // SORTED
        starts = [2 ** (64 - OTHER_BITS) // ranges * n * 2**OTHER_BITS for n in range(ranges)]
        for start, end in zip(starts, [*starts[1:], None], strict=True):
            entries = [_select_range(each, start, end) for each in self._read_entries()]
            hashes = pl.concat([pl.Series(dtype=pl.UInt64), *entries]).unique() // 2**OTHER_BITS
            found.append(_find_repeated(hashes))
        return pl.concat(found).unique()

    def close(self) -> None:
        """Remove the scratch file and all entries."""
        if self._scratch is not None:
            self._scratch.__exit__()
        self._held, self._spilled, self._scratch = [], [], None

    def _spill(self) -> None:
        if self._scratch is None:
            self._scratch = disk.ScratchFile(self._folder).__enter__()
        self._spilled.append(self._scratch.add(pl.concat(self._held).to_frame()))
        self._held, self._rows_held = [], 0

    def _read_entries(self) -> Iterator[pl.Series]:
        for place in self._spilled:
            assert self._scratch is not None
            yield self._scratch.read(*place).to_series()
        yield from self._held


def _select_range(entries: pl.Series, start: int, end: int | None) -> pl.Series:
    return entries.filter((entries >= start) if end is None else (entries >= start) & (entries < end))


def hash_id() -> pl.Expr:
    """Return the 40 bits by which `IdInstants` knows an id."""
    return pl.col("id").hash() // 2**OTHER_BITS


def count_repeats(paths: Sequence[Path], rows: int) -> int:
    """Return how many rows of these files repeat the (company_id, id) of another row.

    Args:
        paths: the files.
        rows: about how many rows they have; it only sets how many ranges there are.

    Raises:
        StorageError: the machine's temporary folder has no room for 8 bytes a row.
    """
    if not paths:
        return 0
    ranges = _hash_by_range(paths, 1 + rows // RANGE)
    found = [repeated for hashes in ranges if (repeated := _find_repeated(hashes)).len()]
    if not found:
        return 0
    suspects = pl.concat(found).unique()
    rows_found = pl.concat(
        _scan(path).select(*KEY, _HASH).filter(pl.col("hash").is_in(suspects.implode())).collect()
        for path in paths
    )
    return rows_found.height - rows_found.select(KEY).n_unique()


def _hash_by_range(paths: Sequence[Path], ranges: int) -> Iterator[pl.Series]:
    """Yield the hashes of all keys, one range of numbers after the other."""
    starts = pl.Series([2**64 // ranges * n for n in range(1, ranges)], dtype=pl.UInt64)
    with disk.ScratchFile() as scratch:
        places: list[list[tuple[int, int]]] = [[] for _ in range(ranges)]
        for path in paths:
            hashes = _scan(path).select(_HASH).collect(engine="streaming").to_series().sort()
            ends = [0, *hashes.search_sorted(starts), hashes.len()]
            for place, (start, end) in zip(places, pairwise(ends), strict=True):
                place.append(scratch.add(hashes[start:end].to_frame()))
        for place in places:
            yield pl.concat(scratch.read(*each).to_series() for each in place)


def _scan(path: Path) -> pl.LazyFrame:
    return pl.scan_parquet(path, glob=False, hive_partitioning=False)


def _find_repeated(hashes: pl.Series) -> pl.Series:
    ordered = hashes.sort()
    return ordered.filter(ordered == ordered.shift())
