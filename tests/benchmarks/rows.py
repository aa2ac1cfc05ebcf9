"""The jobs of `server.py` as frames, so that a lake of a hundred million jobs needs no requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl
import pyarrow as pa
from server import FIRST, SPREAD, Jobs, company

from pleo_extract import POLARS_SCHEMA

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers = NDArray[np.uint64]

__all__ = ["make_rows"]

HIGH: Final = np.uint64(SPREAD >> 64)
LOW: Final = tuple(np.uint64(part) for part in (SPREAD & (1 << 32) - 1, SPREAD >> 32 & (1 << 32) - 1))
HALF: Final = np.uint64(32)
PAIRS: Final = np.frombuffer("".join(f"{n:02x}" for n in range(256)).encode(), dtype="S2")
FAILED: Final = "accounting_system_unreachable", "The accounting system did not answer in time"


def make_rows(jobs: Jobs, first: int, last: int) -> pl.DataFrame:
    """Return the jobs with numbers from `first` to `last` - 1."""
    n = np.arange(first, last, dtype=np.uint64)
    high, low = _multiply(n)
    seconds = (n * jobs.step).astype(np.int64)
    start = np.datetime64(FIRST, "us")
    created = pl.Series(start + seconds.astype("m8[s]")).dt.replace_time_zone("UTC")
    frame = pl.DataFrame(
        {
            "number": n,
            "id": _format_uuids(high, low),
            "created_at": created,
            "run": _remainder(high, low, 900),
            "luck": _remainder(high, low, 29),
            "number_of_items": _remainder(high, low, 200),
        }
    )
    number, created_at = pl.col("number"), pl.col("created_at")
    is_open, is_interactive = number >= jobs.open_from, number % 3 == 0
    has_failed = ~is_open & (pl.col("luck") == 0)
    ended = created_at + pl.duration(seconds=60 + pl.col("run").cast(pl.Int64))
    status = pl.when(is_open).then(pl.lit("pending")).when(has_failed).then(pl.lit("failed"))
    made: dict[str, Any] = {
        "company_id": _pick(number % jobs.companies, jobs.companies),
        "status": status.otherwise(pl.lit("completed")),
        "started_at": pl.when(~is_open).then(
            created_at + pl.duration(seconds=5 + (number % 50).cast(pl.Int64))
        ),
        "completed_at": pl.when(~is_open & ~has_failed).then(ended),
        "last_updated_at": pl.when(is_open).then(created_at).otherwise(ended),
        "expires_in": pl.lit(86_400),
        "created_by": pl.when(is_interactive).then(_pick(number % 7, 7)),
        "is_interactive": is_interactive,
        "vendor_based_bookkeeping": pl.lit(value=False),
        "failure_reason_type": pl.when(has_failed).then(pl.lit(FAILED[0])),
        "failure_reason": pl.when(has_failed).then(pl.lit(FAILED[1])),
    }
    return frame.select(
        made.get(name, pl.col(name) if name in frame.columns else pl.lit(None)).cast(kind).alias(name)
        for name, kind in POLARS_SCHEMA.items()
    )


def _multiply(n: Numbers) -> tuple[Numbers, Numbers]:
    """Return the high and the low 64 bits of `n` times SPREAD modulo 2**128; `n` is below 2**32."""
    lower, upper = n * LOW[0], n * LOW[1]
    carry = (upper + (lower >> HALF)) >> HALF
    return n * HIGH + carry, lower + (upper << HALF)


def _remainder(high: Numbers, low: Numbers, by: int) -> Numbers:
    divisor = np.uint64(by)
    return (high % divisor * np.uint64(2**64 % by) + low % divisor) % divisor


def _format_uuids(high: Numbers, low: Numbers) -> pl.Series:
    """Format 128 bits as UUIDs."""
    octets = np.stack([high, low], axis=1).astype(">u8").view(np.uint8).reshape(len(high), 16)
    digits = PAIRS[octets].view("S1").reshape(len(high), 32).view(np.uint8)
    text = np.full((len(high), 36), ord("-"), dtype=np.uint8)
    for at, start, size in ((0, 0, 8), (9, 8, 4), (14, 12, 4), (19, 16, 4), (24, 20, 12)):
        text[:, at : at + size] = digits[:, start : start + size]
    offsets = np.arange(0, 36 * (len(high) + 1), 36, dtype=np.int64)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(text)]
    return pl.Series(pl.from_arrow(pa.Array.from_buffers(pa.large_string(), len(high), buffers)))


def _pick(number: pl.Expr, companies: int) -> pl.Expr:
    return number.replace_strict({n: company(n) for n in range(companies)}, return_dtype=pl.String)
