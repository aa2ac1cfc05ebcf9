"""Is every job there once? Proven over all files of a lake, in memory that does not grow with it.

Each key is a number of 64 bits, its hash. The numbers of one file after the other are sorted and put aside, each range
of numbers by itself; then one range at a time is looked at as a whole. The keys themselves are compared where two
numbers are the same: in a lake of a billion jobs that is to be expected once in 37 lakes, of a hundred million in 3,700.
"""

from __future__ import annotations

import io
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import polars as pl

from pleo_extract.contract import KEY
from pleo_extract.lake import disk

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

__all__ = ["count_repeats"]

RANGE: Final = 8_000_000
"""Keys that are looked at together: 64 MB, and as much again for sorting."""
_HASH: Final = pl.struct(KEY).hash().alias("hash")


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
    with disk.Scratch() as scratch:
        places: list[list[tuple[int, int]]] = [[] for _ in range(ranges)]
        for path in paths:
            hashes = _scan(path).select(_HASH).collect(engine="streaming").to_series().sort()
            ends = [0, *hashes.search_sorted(starts), hashes.len()]
            for place, (start, end) in zip(places, pairwise(ends), strict=True):
                place.append(scratch.add(_spell(hashes[start:end])))
        for place in places:
            yield pl.concat(_read(scratch.read(*each)) for each in place)


def _scan(path: Path) -> pl.LazyFrame:
    return pl.scan_parquet(path, glob=False, hive_partitioning=False)


def _find_same(hashes: pl.Series) -> pl.Series:
    ordered = hashes.sort()
    return ordered.filter(ordered == ordered.shift())


def _spell(hashes: pl.Series) -> bytes:
    buffer = io.BytesIO()
    hashes.to_frame().write_ipc(buffer, compression="uncompressed")
    return buffer.getvalue()


def _read(data: bytes) -> pl.Series:
    return pl.read_ipc(io.BytesIO(data)).to_series()
