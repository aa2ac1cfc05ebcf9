"""A dump with a rate limit: does it use the limit, and never exceed it, at any latency?

    python tests/benchmarks/pace.py [--rate 500] [--pages 1050]

All latencies run at the same time, each with its own server, because they mostly wait. The server counts the requests
in any 60 seconds.
"""

from __future__ import annotations

import argparse
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from curve import dump
from measure import serve, table

LATENCIES = ((20, 8), (200, 8), (2000, 20))
"""Milliseconds per response, and requests in flight: with 2 s per response 500 a minute need 17 in flight."""
HEAD = ("latency ms", "in flight", "requests", "most in 60 s", "wall s", "pages / rate s", "ratio")


def one(rate: int, pages: int, case: tuple[int, int]) -> list[object]:
    """Return the row of one latency."""
    latency, in_flight = case
    with (
        serve(pages * 100, "--latency-ms", str(latency)) as server,
        tempfile.TemporaryDirectory() as folder,
    ):
        cost = dump(server.url, Path(folder, "lake"), "--rate", str(rate), "--in-flight", str(in_flight))
        seen = server.ask("/seen")
    due = pages / rate * 60
    return [latency, in_flight, seen["requests"], seen["most"], cost.wall, due, cost.wall / due]


def run(rate: int, pages: int) -> list[list[object]]:
    """Return a row for each latency."""
    with ThreadPoolExecutor(len(LATENCIES)) as pool:
        return list(pool.map(partial(one, rate, pages), LATENCIES))


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rate", type=int, default=500)
    parser.add_argument("--pages", type=int, default=1050)
    asked = parser.parse_args()
    print(table(HEAD, run(asked.rate, asked.pages)))


if __name__ == "__main__":
    main()
