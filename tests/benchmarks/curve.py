"""First dumps of ten thousand to ten million jobs: do the cost per job and the memory grow?

    python tests/benchmarks/curve.py [--up-to 10000000]

Each size runs once, after a small dump that does not count.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from measure import KEY, Cost, count, measure, serve, table

SIZES = (10_000, 100_000, 1_000_000, 10_000_000)


def dump(url: str, lake: Path, *more: str, python: str = sys.executable) -> Cost:
    """Dump with the command line and return the cost."""
    command = [python, "-m", "pleo_extract", "dump", str(lake), "--base-url", url, "--quiet"]
    pace = [] if "--rate" in more else ["--rate", "10000000"]
    return measure([*command, *pace, *more], {"PLEO_API_KEY": KEY, "PLEO_TRANSPORT": "httpx"})


def run(up_to: int) -> list[list[object]]:
    """Return a row for each size."""
    rows: list[list[object]] = []
    costs: dict[int, Cost] = {}
    for size in (1_000, *(size for size in SIZES if size <= up_to)):
        with serve(size) as server, tempfile.TemporaryDirectory() as folder:
            costs[size] = cost = dump(server.url, Path(folder, "lake"))
        if size < SIZES[0]:
            continue
        base = costs.get(100_000)
        marginal = (
            ""
            if base is None or size <= 100_000
            else (cost.cpu - base.cpu) / (size - 100_000) * 1e6 / base.cpu
        )
        memory = "" if base is None else cost.peak / base.peak
        rows.append([count(size), cost.cpu, cost.wall, cost.cpu / size * 1e6, marginal, cost.peak, memory])
    return rows


HEAD = (
    "jobs",
    "CPU s",
    "wall s",
    "CPU s a million",
    "CPU of a further million / of 100,000",
    "peak MB",
    "peak / of 100,000",
)


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--up-to", type=int, default=SIZES[-1])
    print(table(HEAD, run(parser.parse_args().up_to)))


if __name__ == "__main__":
    main()
