"""The cost of a refresh on a lake of a million jobs: with no, few and many new jobs.

    python tests/benchmarks/refresh.py [--jobs 1000000]

The server counts the requests. CPU is that of the whole process, compared with a process that only imports what a
dump imports. The lake is compared with the server after each.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from curve import dump
from measure import count, measure, medians, serve, table

IMPORTS = (
    "import httpcore, msgspec, polars, pleo_extract.cli.dump, pleo_extract.client, pleo_extract.sync.dump"
)
STEPS = (
    ("nothing new", 0, 0),
    ("150 new, 40 ended", 150, 40),
    ("nothing new again", 0, 0),
    ("10,000 new, 150 ended", 10_000, 150),
)
HEAD = ("", "requests", "months written", "CPU s", "CPU / of the imports", "jobs in the lake")


def run(jobs: int, runs: int = 3) -> list[list[object]]:
    """Return a row for each step."""
    rows: list[list[object]] = []
    with serve(jobs) as server, tempfile.TemporaryDirectory() as folder:
        lake = Path(folder, "lake")
        first = dump(server.url, lake)
        imports = medians([measure([sys.executable, "-c", IMPORTS]) for _ in range(runs + 1)][1:])
        rows.append(["imports alone", "", "", imports.cpu, 1.0, ""])
        rows.append(_make_row("first dump", server.ask("/seen")["requests"], lake, first.cpu, imports.cpu))
        for name, new, ended in STEPS:
            server.ask(f"/grow?new={new}&ended={ended}")
            before = server.ask("/seen")["requests"]
            times = 1 if new else runs
            cost = medians([dump(server.url, lake) for _ in range(times)])
            requests = (server.ask("/seen")["requests"] - before) // times
            rows.append(_make_row(name, requests, lake, cost.cpu, imports.cpu))
    return rows


def _make_row(name: str, requests: int, lake: Path, cpu: float, imports: float) -> list[object]:
    receipt = json.loads((lake / "_lake" / "last_run.json").read_text(encoding="utf-8"))["receipt"]
    return [
        name,
        count(requests),
        len(receipt["months_written"]),
        cpu,
        cpu / imports,
        count(receipt["lake_rows"]),
    ]


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=1_000_000)
    print(table(HEAD, run(parser.parse_args().jobs)))


if __name__ == "__main__":
    main()
