"""What a refresh costs on a lake of 100,000 jobs: requests and files, with nothing new and with a day's work.

    python tests/benchmarks/refresh.py [--jobs 100000]

Against the sandbox in process, so requests are counted where they arrive; after each dump the lake is compared with
the sandbox's truth, row by row.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from pleo_extract import Client, dump_export_jobs, scan_lake
from pleo_extract.sandbox import API_KEY, Sandbox, World


def main() -> None:
    """Dump, then refresh three times."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=100_000)
    jobs = parser.parse_args().jobs
    sandbox = Sandbox(World(jobs=jobs))
    print(f"{'':34}{'mode':>9}{'requests':>10}{'new':>7}{'changed':>9}{'months written':>16}{'equal':>7}")
    with (
        tempfile.TemporaryDirectory() as folder,
        Client("http://127.0.0.1:1", api_key=API_KEY, transport=sandbox, rate=1_000_000) as client,
    ):
        steps = (
            ("first dump", 0.0),
            ("nothing new", 0.0),
            ("half a day later", 0.55),
            ("nothing new again", 0.0),
        )
        for name, days in steps:
            before = {(row["id"], row["last_updated_at"]) for row in _rows(Path(folder))}
            sandbox.world.advance(days * 86_400)
            sandbox.requests.clear()
            receipt = dump_export_jobs(folder, client=client)
            rows = _rows(Path(folder))
            fresh = [row for row in rows if (row["id"], row["last_updated_at"]) not in before]
            known = {key for key, _ in before}
            added = sum(1 for row in fresh if row["id"] not in known)
            equal = not sandbox.truth(rows, sandbox.world.now)
            print(
                f"{name:34}{receipt.mode:>9}{len(sandbox.requests):>10}{added:>7}{len(fresh) - added:>9}"
                f"{len(receipt.months_written):>16}{'yes' if equal else 'NO':>7}"
            )


def _rows(lake: Path) -> list[dict[str, object]]:
    return scan_lake(lake).drop("extra").collect().to_dicts()


if __name__ == "__main__":
    main()
