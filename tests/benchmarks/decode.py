"""From bytes to a typed frame: our decoder, and the same libraries by hand with the same checks and with none.

    python tests/benchmarks/decode.py [--pages 500]

The figures are rows per CPU second on one core, with the pages in memory. *checked* makes the same checks: msgspec
into structs, regular expressions for UUIDs and instants, an error for a bad value. *unchecked* only converts.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import polars as pl
from measure import HERE, count, table
from server import Jobs

from pleo_extract.core.decode import build_frame, parse_page

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

sys.path.insert(0, str(Path(HERE, "contenders")))
from careful import SCHEMA, TIMES, Job, Page, frame_of

BATCH = 20
NAME = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
INSTANT = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$"
HEAD = ("", "rows a CPU second", "times the checked one")


def ours(batch: Sequence[bytes]) -> int:
    """Decode a batch of pages as a dump does; return the number of rows."""
    frame, rejected = build_frame([parse_page(body) for body in batch])
    assert not rejected
    return frame.height


def checked(batch: Sequence[bytes]) -> int:
    """Decode by hand, check every value, and collect what paging needs: keys, companies, statuses."""
    decoder = msgspec.json.Decoder(Page)
    rows: list[Job] = []
    for body in batch:
        page = decoder.decode(body).data
        rows += page
        keys = [(row.created_at, row.id) for row in page]
        assert len({row.company_id for row in page}) + len({row.status for row in page}) + len(keys) > 0
    columns = zip(*map(msgspec.structs.astuple, rows), strict=True)
    frame = pl.DataFrame(
        [pl.Series(name, column, dtype=SCHEMA[name]) for name, column in zip(SCHEMA, columns, strict=True)]
    )
    fits = [
        pl.col(name).str.contains(f"^{NAME.pattern}$").all() for name in ("id", "company_id", "created_by")
    ]
    fits += [pl.col(name).str.contains(INSTANT).all() for name in TIMES]
    assert all(frame.select(fits).row(0))
    instants = pl.col(TIMES).str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_unit="us").dt.replace_time_zone("UTC")
    return frame.with_columns(instants).height


def unchecked(batch: Sequence[bytes]) -> int:
    """Decode as the careful script does: msgspec checks types, nothing checks values."""
    decoder = msgspec.json.Decoder(Page)
    return frame_of([row for body in batch for row in decoder.decode(body).data]).height


def run(pages: int, runs: int = 7) -> list[list[object]]:
    """Return a row for each decoder: medians of runs that take turns."""
    jobs = Jobs(pages * 100)
    bodies = [jobs.page({"offset": [str(n * 100)]}) for n in range(pages)]
    batches = [bodies[n : n + BATCH] for n in range(0, pages, BATCH)]
    decoders: tuple[Callable[[Sequence[bytes]], int], ...] = (ours, checked, unchecked)
    speeds: dict[str, list[float]] = {decoder.__name__: [] for decoder in decoders}
    for _ in range(runs):
        for decoder in decoders:
            started = time.process_time()
            rows = sum(map(decoder, batches))
            speeds[decoder.__name__].append(rows / (time.process_time() - started))
    speed = {name: statistics.median(each) for name, each in speeds.items()}
    return [[name, count(each), each / speed["checked"]] for name, each in speed.items()]


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pages", type=int, default=500)
    print(table(HEAD, run(parser.parse_args().pages)))


if __name__ == "__main__":
    main()
