"""What it costs to keep snapshots: bytes of a lake that is dumped every hour, for some days, and reckoned for a year.

    python tests/benchmarks/history.py [--jobs 100000] [--days 4]

`--jobs` are those of a year. The last days of a month are dumped hour by hour, its file being at its largest, and each
snapshot kept: the bytes of one are those of the months that it changed. A year of `--keep-for 365d` keeps those of the
last 48 hours, and of the days before the last of each; a month's file grows from nothing, so that half of its largest
is taken for a day.
"""

from __future__ import annotations

import argparse
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pleo_extract import Client, Lake, dump_export_jobs
from pleo_extract.sandbox import API_KEY, Sandbox, World

END = datetime(2026, 11, 30, 23, tzinfo=UTC)


def measure(jobs: int, days: int) -> list[tuple[str, float]]:
    """What was measured, and what follows from it, in MB."""
    world = World(jobs=jobs, days=365, seed=9, now=END - timedelta(days=days))
    with (
        tempfile.TemporaryDirectory() as folder,
        Client(
            "https://sandbox.invalid", api_key=API_KEY, transport=Sandbox(world), rate=10_000_000
        ) as client,
    ):
        lake = Path(folder, "lake")
        for _ in range(24 * days + 1):
            dump_export_jobs(lake, client=client, progress=False, keep=timedelta(days=400), keep_all=True)
            world.advance(3_600)
        kept = Lake(lake).snapshots()
    hourly = kept["new_bytes"][1:].mean()
    assert isinstance(hourly, float)
    current = float(kept["bytes"][-1])
    return [
        ("the current rows", current / 1e6),
        ("an hourly snapshot at the end of a month", hourly / 1e6),
        ("those of 24 hours, as kept by default", (current + 24 * hourly) / 1e6),
        ("those of a year, one a day after 48 hours", (current + 48 * hourly + 363 * hourly / 2) / 1e6),
        ("those of a year, each", (current + 8_760 * hourly / 2) / 1e6),
    ]


def main() -> None:
    """Print a table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--jobs", type=int, default=100_000)
    options.add_argument("--days", type=int, default=4)
    given = options.parse_args()
    print(f"| {given.jobs:,} jobs a year, dumped every hour | MB |\n|---|---:|")
    for name, size in measure(given.jobs, given.days):
        print(f"| {name} | {size:,.1f} |")


if __name__ == "__main__":
    main()
