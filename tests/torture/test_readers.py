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

from pleo_extract import Client, dump_export_jobs
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
from pleo_extract.lake import open_snapshot

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
    snapshot = open_snapshot(lake)
    table = ds.dataset([str(path) for path in snapshot.files()], format="parquet").to_table(["id", "number_of_items"])
    return snapshot.number, table.num_rows, pc.sum(table["number_of_items"]).as_py(), pc.count_distinct(table["id"]).as_py()
"""
LOOP = """
import json, sys, time
from pathlib import Path

lake, stop = Path(sys.argv[1]), Path(sys.argv[2])
while not stop.exists():
    print(json.dumps(read(lake)), flush=True)
    time.sleep(float(sys.argv[3]))
"""
READERS = {"polars": POLARS, "duckdb": DUCKDB, "pyarrow": PYARROW}


def test_f44_readers_beside_a_writer(ground: Path, tally: Callable[[str], Tally]) -> None:
    """No read fails, and each sees one published snapshot whole: its rows, their sum, every job once."""
    lake, stop = ground / "lake", ground / "stop"
    world = World(jobs=1_200, days=200, seed=44)
    sandbox = Sandbox(world)
    published: set[tuple[int, int]] = set()

    def dump() -> None:
        with Client("http://127.0.0.1:1", api_key=API_KEY, transport=sandbox, rate=10_000_000) as client:
            receipt = dump_export_jobs(lake, client=client, progress=False, keep=KEEP)
        assert receipt.published
        snapshot = Layout(lake).snapshot()
        assert snapshot is not None
        published.add(snapshot.scan().select(pl.len(), pl.col("number_of_items").sum()).collect().row(0))

    dump()
    pause = "0.01" if FULL else "0.05"
    readers = {
        name: subprocess.Popen(
            [sys.executable, "-c", code + LOOP, str(lake), str(stop), pause],
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name, code in READERS.items()
    }
    try:
        pace = 0.0 if FULL else 0.25  # so that the small form prunes too
        for n in range(PUBLISHES):
            job = world.insert(world.now - timedelta(hours=n % 40 + 1))
            world.change(job["id"], job["companyId"], numberOfItems=n + 2)
            dump()
            time.sleep(pace)
    finally:
        stop.touch()
    assert len(Layout(lake).numbers()) < PUBLISHES, "nothing was pruned"
    for name, reader in readers.items():
        reads, complaint = reader.communicate(timeout=SOON)
        one = tally(f"readers, {name}")
        one.unreadable = int(reader.returncode != 0)
        if complaint:
            print(complaint)  # noqa: T201 - pytest shows it where the test fails
        for line in reads.splitlines():
            _, rows, total, ids = json.loads(line)
            one.tries += 1
            one.wrong += (rows, total) not in published
            one.double += rows != ids
        one.check()
    writer = tally("readers, publishes beside them")
    writer.tries = PUBLISHES
    examine(lake, writer)
    judge(sandbox, lake, world.now, writer)
    writer.check()
    assert is_tidy(lake)
