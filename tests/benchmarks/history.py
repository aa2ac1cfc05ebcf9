"""The cost of keeping snapshots: bytes of a lake that is dumped hourly for some days, extrapolated to a year.

    python tests/benchmarks/history.py [--jobs 100000] [--days 4]

`--jobs` is the number of jobs in a year. The benchmark dumps the last days of a month hour by hour, when the month's
file is largest, and keeps each snapshot: a snapshot costs the bytes of the months that it changed. With
`--keep-for 365d` a lake keeps the hourly snapshots of 48 hours, and one a day before that. Since a month's file grows
from nothing, a daily snapshot counts half of the largest file.
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
    """Return the measured and the extrapolated sizes, MB."""
    world = World(jobs=jobs, days=365, seed=9, now=END - timedelta(days=days))
    with (
        tempfile.TemporaryDirectory() as folder,
        Client(
            "https://sandbox.invalid", api_key=API_KEY, transport=Sandbox(world), rate=10_000_000
        ) as client,
    ):
        lake = Path(folder, "lake")
        for _ in range(24 * days + 1):
            dump_export_jobs(lake, client=client, progress=False, keep_for=timedelta(days=400), keep_all=True)
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
    """Measure and print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--jobs", type=int, default=100_000)
    options.add_argument("--days", type=int, default=4)
    given = options.parse_args()
    print(f"| {given.jobs:,} jobs a year, dumped every hour | MB |\n|---|---:|")
    for name, size in measure(given.jobs, given.days):
        print(f"| {name} | {size:,.1f} |")


if __name__ == "__main__":
    main()
