"""Is every job there once? Proven over all files of a lake, in memory that does not grow with it.

Each key is a number of 64 bits, its hash. The numbers of one file after the other are sorted and put aside, each range
of numbers by itself; then one range at a time is looked at as a whole. The keys themselves are compared where two
numbers are the same: in a lake of a billion jobs that is to be expected once in 37 lakes, of a hundred million in 3,700.
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

__all__ = ["Places", "count_repeats"]

RANGE: Final = 8_000_000
"""Keys that are looked at together: 64 MB, and as much again for sorting."""
_HASH: Final = pl.struct(KEY).hash().alias("hash")
MONTH_BITS: Final = 10
"""Of the 64 bits of a place, these say the month: 85 years go by before a month comes again."""
HELD: Final = 250_000
"""Places held in memory; more go to a file of this machine."""
TOGETHER: Final = 2_000_000
"""Places that are sorted at once."""


class Places:
    """The months under which ids were staged, in 8 bytes a row: 54 bits of the id's hash, 10 of the month.

    A first dump of ten million jobs must find the one that the server showed twice, in two months, and must not hold
    ten million ids for it. `folder` is where the places go that are too many for memory.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: list[pl.Series] = []
        self._rows = self._in_memory = 0
        self._spilled: list[tuple[int, int]] = []
        self._scratch: disk.ScratchFile | None = None

    def add(self, month: str, ids: pl.Series) -> None:
        """Note the places of the jobs with these ids in a month, as ``2026-11``.

        Raises:
            StorageError: the folder has no room for 8 bytes a row.
        """
        number = (int(month[:4]) * 12 + int(month[5:])) % 2**MONTH_BITS
        hashes = ids.hash()
        self._held.append(hashes - hashes % 2**MONTH_BITS + number)
        self._rows += ids.len()
        self._in_memory += ids.len()
        if self._in_memory > HELD:
            self._spill()

    def find_split(self) -> pl.Series:
        """Return the hashes of ids that were added under two months or more, see `hash_id`; a few others may be among them."""
        found = [pl.Series(dtype=pl.UInt64)]
        ranges = 1 + self._rows // TOGETHER
        starts = [2 ** (64 - MONTH_BITS) // ranges * n * 2**MONTH_BITS for n in range(ranges)]
        ends = [*starts[1:], None]
        for start, end in zip(starts, ends, strict=True):
            parts = [_within(part, start, end) for part in self._parts()]
            hashes = pl.concat([pl.Series(dtype=pl.UInt64), *parts]).unique() // 2**MONTH_BITS
            found.append(_find_same(hashes))
        return pl.concat(found).unique()

    def close(self) -> None:
        """Let go of the file."""
        if self._scratch is not None:
            self._scratch.__exit__()
        self._held, self._spilled, self._scratch = [], [], None

    def _spill(self) -> None:
        if self._scratch is None:
            self._scratch = disk.ScratchFile(self._folder).__enter__()
        self._spilled.append(self._scratch.add(pl.concat(self._held).to_frame()))
        self._held, self._in_memory = [], 0

    def _parts(self) -> Iterator[pl.Series]:
        for place in self._spilled:
            assert self._scratch is not None
            yield self._scratch.read(*place).to_series()
        yield from self._held


def _within(places: pl.Series, start: int, end: int | None) -> pl.Series:
    return places.filter((places >= start) if end is None else (places >= start) & (places < end))


def hash_id() -> pl.Expr:
    """The 54 bits by which an id is known in `Places`."""
    return pl.col("id").hash() // 2**MONTH_BITS


def count_repeats(paths: Sequence[Path], rows: int) -> int:
    """How many rows of these files repeat the (company_id, id) of another.

    Args:
        paths: the files.
        rows: about how many they have; it sets how much is looked at together, and nothing else.

    Raises:
        StorageError: the machine's temporary folder has no room for 8 bytes a row.
    """
    if not paths:
        return 0
    found = [same for hashes in _gather(paths, 1 + rows // RANGE) if (same := _find_same(hashes)).len()]
    if not found:
        return 0
    suspects = pl.concat(found).unique()
    near = pl.concat(
        _scan(path).select(*KEY, _HASH).filter(pl.col("hash").is_in(suspects.implode())).collect()
        for path in paths
    )
    return near.height - near.select(KEY).n_unique()


def _gather(paths: Sequence[Path], ranges: int) -> Iterator[pl.Series]:
    """The hashes of all keys, range by range."""
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


def _find_same(hashes: pl.Series) -> pl.Series:
    ordered = hashes.sort()
    return ordered.filter(ordered == ordered.shift())
