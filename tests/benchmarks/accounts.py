"""Ten thousand companies with a key each in one process: memory, connections, and what one failure costs.

    python tests/benchmarks/accounts.py [--companies 10000] [--jobs 50000]

Every twentieth company is refused. All others must be in the lake, and the exit code must say that some are not.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import polars as pl
from measure import KEY, Cost, count, measure, serve, table
from server import company

REFUSED = 0.05
HEAD = ("", "companies", "published", "requests", "connections", "CPU s", "wall s", "peak MB", "exit code")


def write_accounts(path: Path, url: str, companies: int) -> None:
    """The accounts file."""
    entries = (
        f'[[account]]\nname = "Company {n}"\ncompany_id = "{company(n)}"\napi_key_env = "KEY_{n % 100}"\nrate = 1000000\n'
        for n in range(companies)
    )
    path.write_text(f'base_url = "{url}"\n\n' + "\n".join(entries), encoding="utf-8")


def dump(accounts: Path, lake: Path, *more: str) -> tuple[Cost, int]:
    """One dump of all, and how it ended."""
    command = [
        sys.executable,
        "-m",
        "pleo_extract",
        "dump",
        str(lake),
        "--accounts",
        str(accounts),
        "--quiet",
        *more,
    ]
    code = lake.parent / "code"
    keys = {f"KEY_{n}": f"{KEY}_{n}" for n in range(100)}
    cost = measure(["/bin/sh", "-c", f'"$@" 2> /dev/null; echo $? > {code}', "sh", *command], keys)
    return cost, int(code.read_text(encoding="ascii"))


def run(companies: int, jobs: int) -> list[list[object]]:
    """A row for the first dump and one for the next."""
    rows: list[list[object]] = []
    with (
        serve(jobs, "--companies", str(companies), "--refuse", str(REFUSED)) as server,
        tempfile.TemporaryDirectory() as folder,
    ):
        accounts, lake = Path(folder, "accounts.toml"), Path(folder, "lake")
        write_accounts(accounts, server.url, companies)
        before = 0
        for name in ("first dump", "nothing new"):
            cost, code = dump(accounts, lake)
            seen = server.ask("/seen")
            published = pl.scan_parquet(f"{lake}/current/*/*.parquet", hive_partitioning=False)
            found = published.select(pl.col("company_id").n_unique(), jobs=pl.len()).collect().row(0)
            assert found[1] == sum(n % companies + 1 and (n % companies + 1) % 20 != 0 for n in range(jobs))
            rows.append(
                [name, count(companies), count(found[0]), count(seen["requests"] - before), seen["connections"],
                 cost.cpu, cost.wall, cost.peak, code]
            )  # fmt: skip
            before = seen["requests"]
    return rows


def main() -> None:
    """Run, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--companies", type=int, default=10_000)
    parser.add_argument("--jobs", type=int, default=50_000)
    asked = parser.parse_args()
    print(table(HEAD, run(asked.companies, asked.jobs)))


if __name__ == "__main__":
    main()
