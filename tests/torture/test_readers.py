"""Polars, DuckDB and pyarrow readers while a writer publishes as fast as it can and removes old snapshots."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import polars as pl
from tally import FULL
from theatre import (
    ENVIRONMENT,
    SOON,
    examine,
    is_tidy,
    judge,
)

from pleo_extract import Client, dump_export_jobs, scan_lake
from pleo_extract.lake.layout import Layout
from pleo_extract.sandbox import API_KEY, Sandbox, World

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tally import Tally

PUBLISHES = 1_000 if FULL else 60
READS = 100_000 if FULL else 300
"""The minimum number of reads through `Lake`."""
KEEP = timedelta(seconds=6)
"""How long a replaced snapshot is kept: much longer than a read, much shorter than the test."""

POLARS = """
import polars as pl
from pleo_extract import scan_lake

def read(lake):
    rows = scan_lake(lake).select(pl.len(), pl.col("number_of_items").sum(), pl.col("id").n_unique())
    return None, *rows.collect().row(0)
"""
DUCKDB = """
from pleo_extract import connect

def read(lake):
    with connect(lake) as con:
        return None, *con.execute("SELECT count(*), sum(number_of_items)::BIGINT, count(DISTINCT id) FROM export_jobs").fetchone()
"""
PYARROW = """
import pyarrow.compute as pc
import pyarrow.dataset as ds
from pleo_extract.lake.folder.opening import open_snapshot

def read(lake):
    opened = open_snapshot(lake)
    table = ds.dataset([str(path) for path in opened.files], format="parquet").to_table(["id", "number_of_items"])
    return opened.manifest.snapshot, table.num_rows, pc.sum(table["number_of_items"]).as_py(), pc.count_distinct(table["id"]).as_py()
"""
LAKE = """
import polars as pl
from functools import cache
from pleo_extract import Lake

open_lake = cache(Lake)

def read(lake):
    rows = open_lake(lake).scan().select(pl.len(), pl.col("number_of_items").sum(), pl.col("id").n_unique())
    return None, *rows.collect().row(0)
"""
PLAIN_POLARS = """
import polars as pl

def read(lake):
    rows = pl.scan_parquet(lake / "**/*.parquet", hive_partitioning=False)
    return None, *rows.select(pl.len(), pl.col("number_of_items").sum(), pl.col("id").n_unique()).collect().row(0)
"""
PLAIN_DUCKDB = """
import duckdb

def read(lake):
    asked = f"SELECT count(*), sum(number_of_items)::BIGINT, count(DISTINCT id) FROM '{lake}/**/*.parquet'"
    with duckdb.connect() as con:
        return None, *con.execute(asked).fetchone()
"""
PLAIN_PYARROW = """
import pyarrow.compute as pc
import pyarrow.dataset as ds

def read(lake):
    table = ds.dataset(lake, format="parquet", partitioning="hive").to_table(["id", "number_of_items"])
    return None, table.num_rows, pc.sum(table["number_of_items"]).as_py(), pc.count_distinct(table["id"]).as_py()
"""
LOOP = """
import json, sys, time
from pathlib import Path

lake, stop = Path(sys.argv[1]), Path(sys.argv[2])
while not stop.exists():
    print(json.dumps(read(lake)), flush=True)
    time.sleep(float(sys.argv[3]))
"""
PATIENT_LOOP = """
import json, sys, time
from pathlib import Path

lake, stop = Path(sys.argv[1]), Path(sys.argv[2])
while not stop.exists():
    for chance in range(4, -1, -1):
        try:
            print(json.dumps(read(lake)), flush=True)
            break
        except BaseException as exc:  # a panic of Polars is not an Exception
            print(json.dumps(["failed", f"{type(exc).__name__}: {exc}"[:200]]), flush=True)
            if not chance:
                raise
    time.sleep(float(sys.argv[3]))
"""
READERS = {"polars": POLARS, "duckdb": DUCKDB, "pyarrow": PYARROW}
PLAIN = {"polars": PLAIN_POLARS, "duckdb": PLAIN_DUCKDB, "pyarrow": PLAIN_PYARROW}


def start(code: str, lake: Path, stop: Path, reads: Path) -> subprocess.Popen[str]:
    """Start a process that reads again and again until the file `stop` exists."""
    with reads.open("w") as file:  # a pipe would fill up and block the reader
        return subprocess.Popen(
            [sys.executable, "-c", code, str(lake), str(stop), "0.0" if FULL else "0.05"],
            env=ENVIRONMENT,
            stdout=file,
            stderr=subprocess.PIPE,
            text=True,
        )


class Writer:
    """Publishes to a lake as fast as it can, and records rows and sum of each snapshot."""

    def __init__(self, lake: Path) -> None:
        self.lake = lake
        self.world = World(jobs=1_200, days=200, seed=44)
        self.sandbox = Sandbox(self.world)
        self.published: set[tuple[int, int]] = set()
        self.dump()

    def dump(self) -> None:
        """Publish a snapshot."""
        with Client("http://127.0.0.1:1", api_key=API_KEY, transport=self.sandbox, rate=10_000_000) as client:
            receipt = dump_export_jobs(self.lake, client=client, progress=False, keep_for=KEEP)
        assert receipt.published
        rows = scan_lake(self.lake).select(pl.len(), pl.col("number_of_items").sum())
        self.published.add(rows.collect().row(0))

    def publish(self, number: int, pause: float) -> None:
        """Insert a job, change it and publish."""
        job = self.world.insert(self.world.now - timedelta(hours=number % 40 + 1))
        self.world.change(job["id"], job["companyId"], numberOfItems=number + 2)
        self.dump()
        time.sleep(pause)

    def check(self, tally: Tally) -> None:
        """Check the lake at the end."""
        tally.tries = len(self.published) - 1
        assert len(Layout(self.lake).numbers()) < len(self.published), "nothing was pruned"
        examine(self.lake, tally, settled=True)
        judge(self.sandbox, self.lake, self.world.now, tally)
        tally.check()
        assert is_tidy(self.lake)


def read_beside(
    writer: Writer, programs: Mapping[str, str], pause: float, *, at_least: int = 0
) -> list[tuple[str, bool, list[Any]]]:
    """Publish while these programs read, until they have made `at_least` reads.

    Return each program's name, whether it failed, and what it read.
    """
    stop = writer.lake.with_name(f"{writer.lake.name}-stop")
    outputs = {name: writer.lake.with_name(f"{writer.lake.name}-{name}") for name in programs}
    readers = {name: start(program, writer.lake, stop, outputs[name]) for name, program in programs.items()}
    try:
        for n in itertools.count():
            if n >= PUBLISHES and (
                all(one.poll() is not None for one in readers.values())
                or sum(path.read_bytes().count(b"\n") for path in outputs.values()) >= at_least
            ):
                break
            writer.publish(n, pause)
    finally:
        stop.touch()
    found = []
    for name, reader in readers.items():
        _, complaint = reader.communicate(timeout=SOON)
        if complaint:
            print(complaint)  # noqa: T201 - pytest shows it where the test fails
        reads = outputs[name].read_text().splitlines()
        strange = [line for line in reads if not line.startswith("[")]
        assert not strange, f"{name} printed {strange[:3]}"
        found.append((name, reader.returncode != 0, [json.loads(line) for line in reads]))
    return found


def test_f44_readers_beside_a_writer(ground: Path, tally: Callable[[str], Tally]) -> None:
    """While a writer publishes, no read fails, and each sees one complete snapshot."""
    see_whole_snapshots(ground / "lake", READERS, tally)


def test_f44_readers_of_an_open_lake(ground: Path, tally: Callable[[str], Tally]) -> None:
    """A `Lake` that is opened once and read 100,000 times sees one complete snapshot in every read."""
    see_whole_snapshots(ground / "open-lake", {"Lake": LAKE, "another Lake": LAKE}, tally, at_least=READS)


def see_whole_snapshots(
    lake: Path, readers: Mapping[str, str], tally: Callable[[str], Tally], *, at_least: int = 0
) -> None:
    """Run these readers while a writer publishes, and count what they see."""
    writer = Writer(lake)
    programs = {name: code + LOOP for name, code in readers.items()}
    # The pause lets snapshots expire in the small form, too.
    for name, is_bad, answers in read_beside(
        writer, programs, pause=0.0 if FULL else 0.25, at_least=at_least
    ):
        one = tally(f"readers, {name}")
        one.unreadable = int(is_bad)
        for _, rows, total, ids in answers:
            one.tries += 1
            one.wrong += (rows, total) not in writer.published
            one.double += rows != ids
        one.check()
    writer.check(tally(f"{', '.join(readers)}: publishes beside them"))


def test_f44_plain_readers_beside_a_writer(ground: Path, tally: Callable[[str], Tally]) -> None:
    """A plain reader of the folder never misses a job or sees one twice; a read that fails succeeds when repeated.

    A reader may see an old month and a new month together, so rows never become fewer, and each appears once. A read
    fails if a month is replaced while the tool reads it. Here months are replaced several times a second, so the
    repeated read may fail, too.
    """
    writer = Writer(ground / "plain-lake")
    programs = {name: code + PATIENT_LOOP for name, code in PLAIN.items()}
    for name, is_bad, answers in read_beside(writer, programs, pause=0.25):
        most = max(rows for rows, _ in writer.published)
        one = tally(f"plain readers, {name}")
        one.unreadable = int(is_bad)
        seen, failed = 1_200, []
        for answer in answers:
            if answer[0] == "failed":
                failed.append(answer[1])
                continue
            _, rows, _, ids = answer
            one.tries += 1
            one.double += rows != ids
            one.lost += rows < seen
            one.wrong += rows > most
            seen = max(seen, rows)
        print(f"{name}: {len(failed)} reads failed and were tried again, such as {failed[:1]}")  # noqa: T201 - a count to see
        one.check()
    writer.check(tally("plain readers, publishes beside them"))
