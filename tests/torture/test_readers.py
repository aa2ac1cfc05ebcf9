"""Readers in polars, duckdb and pyarrow beside a writer that publishes as fast as it can and removes old snapshots."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import timedelta
from typing import TYPE_CHECKING

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
from pleo_extract.lake import Layout
from pleo_extract.sandbox import API_KEY, Sandbox, World

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tally import Tally

PUBLISHES = 1_000 if FULL else 60
KEEP = timedelta(seconds=6)
"""How long a replaced snapshot stays: far longer than a read, far shorter than the test."""

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
from pleo_extract.lake import open_snapshot

def read(lake):
    opened = open_snapshot(lake)
    table = ds.dataset([str(path) for path in opened.files], format="parquet").to_table(["id", "number_of_items"])
    return opened.manifest.snapshot, table.num_rows, pc.sum(table["number_of_items"]).as_py(), pc.count_distinct(table["id"]).as_py()
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
    try:
        answer = read(lake)
    except Exception as exc:
        print(json.dumps(["failed", f"{type(exc).__name__}: {exc}"[:200]]), flush=True)
        answer = read(lake)
    print(json.dumps(answer), flush=True)
    time.sleep(float(sys.argv[3]))
"""
READERS = {"polars": POLARS, "duckdb": DUCKDB, "pyarrow": PYARROW}
PLAIN = {"polars": PLAIN_POLARS, "duckdb": PLAIN_DUCKDB, "pyarrow": PLAIN_PYARROW}


def start(code: str, lake: Path, stop: Path) -> subprocess.Popen[str]:
    """A reader that reads over and over, until it is to stop."""
    return subprocess.Popen(
        [sys.executable, "-c", code, str(lake), str(stop), "0.01" if FULL else "0.05"],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


class Writer:
    """A lake that is published to as fast as it can be, and what its snapshots hold."""

    def __init__(self, lake: Path) -> None:
        self.lake = lake
        self.world = World(jobs=1_200, days=200, seed=44)
        self.sandbox = Sandbox(self.world)
        self.published: set[tuple[int, int]] = set()
        self.dump()

    def dump(self) -> None:
        """One more snapshot."""
        with Client("http://127.0.0.1:1", api_key=API_KEY, transport=self.sandbox, rate=10_000_000) as client:
            receipt = dump_export_jobs(self.lake, client=client, progress=False, keep=KEEP)
        assert receipt.published
        rows = scan_lake(self.lake).select(pl.len(), pl.col("number_of_items").sum())
        self.published.add(rows.collect().row(0))

    def publish(self, number: int) -> None:
        """A new job, which changes at once."""
        job = self.world.insert(self.world.now - timedelta(hours=number % 40 + 1))
        self.world.change(job["id"], job["companyId"], numberOfItems=number + 2)
        self.dump()
        time.sleep(0.0 if FULL else 0.25)  # so that the small form prunes too

    def check(self, tally: Tally) -> None:
        """The lake at the end."""
        tally.tries = PUBLISHES
        assert len(Layout(self.lake).numbers()) < PUBLISHES, "nothing was pruned"
        examine(self.lake, tally, settled=True)
        judge(self.sandbox, self.lake, self.world.now, tally)
        tally.check()
        assert is_tidy(self.lake)


def test_f44_readers_beside_a_writer(ground: Path, tally: Callable[[str], Tally]) -> None:
    """No read fails, and each sees one published snapshot whole: its rows, their sum, every job once."""
    writer, stop = Writer(ground / "lake"), ground / "stop"
    readers = {name: start(code + LOOP, writer.lake, stop) for name, code in READERS.items()}
    try:
        for n in range(PUBLISHES):
            writer.publish(n)
    finally:
        stop.touch()
    for name, reader in readers.items():
        reads, complaint = reader.communicate(timeout=SOON)
        one = tally(f"readers, {name}")
        one.unreadable = int(reader.returncode != 0)
        if complaint:
            print(complaint)  # noqa: T201 - pytest shows it where the test fails
        for line in reads.splitlines():
            _, rows, total, ids = json.loads(line)
            one.tries += 1
            one.wrong += (rows, total) not in writer.published
            one.double += rows != ids
        one.check()
    writer.check(tally("readers, publishes beside them"))


def test_f44_plain_readers_beside_a_writer(ground: Path, tally: Callable[[str], Tally]) -> None:
    """Of the folder itself: no job is ever missing or double, whatever tool reads; a read that fails is cured by a second.

    A reader may see one month as it was and the next as it is: so the rows are never fewer than before, and each once.
    """
    writer, stop = Writer(ground / "plain-lake"), ground / "plain-stop"
    readers = {name: start(code + PATIENT_LOOP, writer.lake, stop) for name, code in PLAIN.items()}
    try:
        for n in range(PUBLISHES):
            writer.publish(n)
    finally:
        stop.touch()
    most = max(rows for rows, _ in writer.published)
    for name, reader in readers.items():
        reads, complaint = reader.communicate(timeout=SOON)
        one = tally(f"plain readers, {name}")
        one.unreadable = int(reader.returncode != 0)
        if complaint:
            print(complaint)  # noqa: T201 - pytest shows it where the test fails
        seen, failed = 1_200, []
        for line in reads.splitlines():
            answer = json.loads(line)
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
