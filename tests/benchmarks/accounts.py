"""A dump of ten thousand companies, each with its own key, in one process: memory, connections, isolation of failures.

    python tests/benchmarks/accounts.py [--companies 10000] [--jobs 50000]
    python tests/benchmarks/accounts.py --guard
    python tests/benchmarks/accounts.py --slow [--companies 1000]

The server refuses every twentieth company and answers every twentieth request with 503. A signal stops the first dump
when half of the companies are read; the next dump resumes. Then the lake must have every job of every company that is
not refused, once; the exit code must report the refused ones; no process may open more than 64 files or 8
connections. `--guard`, for CI, compares two small numbers of companies and bounds the growth of peak memory.

`--slow` asks how long the healthy companies wait for the others: the server refuses every tenth company, and answers one
with a byte a second. It measures when readers see all jobs of the others, in a first dump and in a refresh, and how long a
dump of these alone takes.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import polars as pl
from measure import KEY, Cost, count, measure, serve, table
from server import company

from pleo_extract import scan_lake

if TYPE_CHECKING:
    from collections.abc import Collection

    from measure import Server

REFUSED: Final = 20
"""The server refuses one company in 20, and answers one request in 20 with 503."""
CONNECTIONS: Final = 8
FILES: Final = 64
HEAD = ("", "companies", "published", "requests", "connections", "CPU s", "wall s", "peak MB", "exit code")
SLOW_HEAD = ("", "healthy", "alone: CPU s", "alone: wall s", "among all: seconds until published", "ratio")
FEW, MANY = 100, 500
SICK: Final = 10
"""With `--slow` the server refuses one company in 10."""
GROWTH: Final = 1.2
"""The largest ratio of the peak memory of MANY companies to that of FEW."""


@dataclass(frozen=True)
class Ground:
    """The companies, their keys, and the folder of the lake."""

    companies: int
    jobs: int
    folder: Path

    @property
    def lake(self) -> Path:
        """The lake of all companies."""
        return self.folder / "lake"

    def write_accounts(self, url: str, without: Collection[int] = ()) -> None:
        """Write the accounts file."""
        entries = (
            f'[[account]]\nname = "Company {n}"\ncompany_id = "{company(n)}"\napi_key_env = "KEY_{n}"\n'
            for n in range(self.companies)
            if n not in without
        )
        text = f'base_url = "{url}"\n\n' + "\n".join(entries)
        (self.folder / "accounts.toml").write_text(text, encoding="utf-8")

    def command(self) -> list[str]:
        """Return the command of a dump with a limit on open files; it writes its exit code to a file."""
        words = [
            "-m",
            "pleo_extract",
            "dump",
            str(self.lake),
            "--accounts",
            str(self.folder / "accounts.toml"),
        ]
        shell = f'ulimit -n {FILES}; "$@" 2> {self.folder / "errors"}; echo $? > {self.folder / "code"}'
        return ["/bin/sh", "-c", shell, "sh", sys.executable, *words, "--quiet"]

    def environment(self) -> dict[str, str]:
        """Return an environment with a key for each company and a separate cache."""
        keys = {f"KEY_{n}": f"{KEY}_{n}" for n in range(self.companies)}
        return {**keys, "XDG_CACHE_HOME": str(self.folder)}

    def dump(self) -> tuple[Cost, int]:
        """Dump and return the cost and the exit code."""
        cost = measure(self.command(), self.environment())
        return cost, int((self.folder / "code").read_text(encoding="ascii"))

    def begin(self, server: Server) -> None:
        """Start a dump, and stop it by a signal when the server has answered for half of the companies."""
        command = self.command()[4:]  # without the shell, so that the signal reaches it
        with subprocess.Popen(
            command, env=os.environ | self.environment(), stderr=subprocess.DEVNULL
        ) as process:
            while server.ask("/seen")["requests"] < self.companies // 2 and process.poll() is None:
                time.sleep(0.05)
            process.send_signal(signal.SIGTERM)
        assert process.returncode == 128 + signal.SIGTERM, process.returncode
        assert not (self.lake / "_lake/current").exists(), "half of the companies were published"

    def check(self) -> int:
        """Check that every job of every company that is not refused is in the lake once; return their number."""
        published = pl.scan_parquet(f"{self.lake}/**/*.parquet", hive_partitioning=False)
        jobs, different, companies = (
            published.select(
                pl.len(), different=pl.col("id").n_unique(), companies=pl.col("company_id").n_unique()
            )
            .collect()
            .row(0)
        )
        expected = sum((n % self.companies + 1) % REFUSED != 0 for n in range(self.jobs))
        assert jobs == different == expected, (jobs, different, expected)
        return int(companies)


def run(companies: int, jobs: int) -> list[list[object]]:
    """Return a row for the dump that resumes a stopped one, and one for the next dump."""
    rows: list[list[object]] = []
    share = str(1 / REFUSED)
    asked = ["--companies", str(companies), "--refuse", share, "--flaky", share, "--keys", KEY]
    with serve(jobs, *asked) as server, tempfile.TemporaryDirectory() as folder:
        ground = Ground(companies, jobs, Path(folder))
        ground.write_accounts(server.url)
        ground.begin(server)
        before = server.ask("/seen")["requests"]
        for name in ("the other half", "nothing new"):
            cost, code = ground.dump()
            seen = server.ask("/seen")
            rows.append(
                [name, count(companies), count(ground.check()), count(seen["requests"] - before), seen["connections"],
                 cost.cpu, cost.wall, cost.peak, code]
            )  # fmt: skip
            before = seen["requests"]
            assert code == 77, (ground.folder / "errors").read_text()[-2000:]
            assert seen["connections"] <= CONNECTIONS, seen
    return rows


def wait_for_slow(companies: int, jobs: int) -> list[list[object]]:
    """Return a row for a first dump and one for a refresh; see `--slow`."""
    slow = companies // 2
    sick = {n for n in range(companies) if (n + 1) % SICK == 0} | {slow}
    asked = ["--companies", str(companies), "--refuse", str(1 / SICK), "--keys", KEY, "--slow", company(slow)]
    rows: list[list[object]] = []
    with serve(jobs, *asked) as server, tempfile.TemporaryDirectory() as folder:
        alone, all_ = (Ground(companies, jobs, Path(folder, name)) for name in ("alone", "all"))
        for ground, without in ((alone, sick), (all_, frozenset[int]())):
            ground.folder.mkdir()
            ground.write_accounts(server.url, without)
        for name in ("first dump", "refresh"):
            cost, code = alone.dump()
            assert code == 0, (alone.folder / "errors").read_text()[-2000:]
            expected = _count_jobs(alone)
            seconds = _time_until(all_, expected)
            rows.append([name, companies - len(sick), cost.cpu, cost.wall, seconds, seconds / cost.wall])
            server.ask("/grow?new=5000&ended=0")
    return rows


def _count_jobs(ground: Ground) -> int:
    return int(scan_lake(ground.lake).select(pl.len()).collect().item())


def _time_until(ground: Ground, expected: int) -> float:
    """Start a dump, wait until readers see this many jobs, stop it, and return the seconds that it took."""
    started, seen, current = time.monotonic(), 0, ground.lake / "_lake/current"
    before = current.read_bytes() if current.exists() else b""
    with subprocess.Popen(
        ground.command()[4:], env=os.environ | ground.environment(), stderr=subprocess.DEVNULL
    ) as process:
        while seen < expected:
            time.sleep(0.2)
            assert process.poll() is None, f"ended with {process.returncode} and {seen} of {expected} jobs"
            if current.exists() and current.read_bytes() != before:
                seen = _count_jobs(ground)
        seconds = time.monotonic() - started
        process.send_signal(signal.SIGTERM)
    assert seen == expected, (seen, expected)
    return seconds


def guard() -> int:
    """Measure FEW and MANY companies; return 1 if memory grows beyond the bound."""
    few, many = (run(companies, 5 * companies) for companies in (FEW, MANY))
    print(table(HEAD, few + many))
    growths = [float(str(more[7])) / float(str(less[7])) for less, more in zip(few, many, strict=True)]
    print(f"peak memory of {MANY:,} / of {FEW:,} companies: {max(growths):.2f}, bound {GROWTH}")
    return int(max(growths) > GROWTH)


def main() -> int:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--companies", type=int, default=10_000)
    parser.add_argument("--jobs", type=int, default=50_000)
    parser.add_argument("--guard", action="store_true")
    parser.add_argument("--slow", action="store_true")
    asked = parser.parse_args()
    if asked.guard:
        return guard()
    if asked.slow:
        print(table(SLOW_HEAD, wait_for_slow(asked.companies, asked.jobs)))
        return 0
    print(table(HEAD, run(asked.companies, asked.jobs)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
