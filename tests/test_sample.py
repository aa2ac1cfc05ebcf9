"""The sample lake: the same rows each time, and nothing of the machine that made it."""

from __future__ import annotations

import re
import runpy
import shutil
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import polars as pl
import pyarrow.dataset as ds
import pytest
from polars.testing import assert_frame_equal

from pleo_extract import (
    COLUMNS,
    Client,
    Lake,
    connect,
    dump_export_jobs,
    load_export_jobs,
    scan_lake,
    verify_lake,
)
from pleo_extract.lake.layout import Layout
from pleo_extract.sandbox import API_KEY, Sandbox, World

ROOT = Path(__file__).parent.parent
SAMPLE = ROOT / "data" / "sample"


def test_the_sample_is_as_it_was_written() -> None:
    """The committed sample is an undamaged lake of 3,000 jobs."""
    found = verify_lake(SAMPLE)
    assert (found.problems, found.rows) == ((), 3_000)


def test_a_copy_is_up_to_date_for_programs_that_read_the_folder(tmp_path: Path) -> None:
    """A copy has no hard links to say that a month is the snapshot's; its bytes say so, and also where they differ."""
    assert Lake(SAMPLE).status().behind == ()
    world = World(jobs=200, days=90)
    with Client("http://127.0.0.1:1", api_key=API_KEY, transport=Sandbox(world)) as client:
        dump_export_jobs(tmp_path / "lake", client=client)
    copy = shutil.copytree(tmp_path / "lake", tmp_path / "copy")
    assert Lake(copy).status().behind == ()
    first, second, *_ = sorted(copy.glob("created_month=*/part-0.parquet"))
    first.chmod(0o644)
    first.write_bytes(first.read_bytes()[:-1] + b"?")
    second.unlink()
    assert Lake(copy).status().behind == tuple(path.parent.name[-7:] for path in (first, second))


def test_making_it_again_gives_the_same(tmp_path: Path) -> None:
    """`make sample` makes the committed rows, and the same files and records each time."""
    make = runpy.run_path(str(ROOT / "data" / "make_sample.py"))["make_sample"]
    for name in ("once", "twice"):
        make(tmp_path / name)
    assert_frame_equal(scan_lake(tmp_path / "once").collect(), scan_lake(SAMPLE).collect())
    once, twice = (
        {path.relative_to(lake): path.read_bytes() for path in lake.rglob("*") if path.is_file()}
        for lake in (tmp_path / "once", tmp_path / "twice")
    )
    assert once == twice


def test_the_api_of_the_documents_has_its_jobs() -> None:
    """The world that stands in for the API in the documents' examples gives the frame of the sample."""
    world = runpy.run_path(str(SAMPLE.parent / "make_sample.py"))["make_world"]()
    with Client("https://sandbox.invalid", api_key=API_KEY, transport=Sandbox(world), rate=10_000) as client:
        read = load_export_jobs(client=client)
    kept = scan_lake(SAMPLE).collect()
    assert_frame_equal(read.sort("company_id", "id"), kept.sort("company_id", "id"))


def test_nothing_of_a_machine_is_in_it() -> None:
    """The sample has no lock, catalogue, staging, host name or foreign path."""
    files = [path for path in SAMPLE.rglob("*") if path.is_file()]
    names = {path.relative_to(SAMPLE).as_posix() for path in files if path.suffix != ".parquet"}
    ours = {"_lake/current", "_lake/last_run.json", "_lake/snapshots/000001.json"}
    assert names >= ours
    assert names - ours <= {"_lake/lock", "_lake/now.csv", "_lake/vanished.csv", "_jobs.duckdb"}, (
        "git ignores what reading and dumping leave behind"
    )
    for path in files:
        if path.suffix == ".json":
            assert not re.search(r'"host|"/', path.read_text())


def test_no_byte_of_it_is_there_twice(tmp_path: Path) -> None:
    """The sample has no objects, verifies without them, and a dump restores them."""
    assert not (SAMPLE / "_lake/objects").exists()
    lake = Path(shutil.copytree(SAMPLE, tmp_path / "lake"))
    make = runpy.run_path(str(ROOT / "data" / "make_sample.py"))
    world = World(jobs=3_000, companies=5, seed=21, now=make["TAKEN"], days=364)
    with Client(
        "https://sandbox.invalid", api_key=API_KEY, transport=Sandbox(world), rate=1_000_000
    ) as client:
        world.advance(3_600.0)
        receipt = dump_export_jobs(lake, client=client, progress=False)
    assert (receipt.snapshot, receipt.published) == (2, True)
    assert verify_lake(lake).ok
    manifests = [Layout(lake).manifest(number) for number in (1, 2)]
    named = {entry.object for manifest in manifests for entry in manifest.files}
    assert {path.name for path in (lake / "_lake/objects").iterdir()} == named
    assert_frame_equal(scan_lake(lake, as_of=1).collect(), scan_lake(SAMPLE).collect())


def test_the_story_is_in_it() -> None:
    """The sample has the incident, expired, hanging and running jobs that the documents describe."""
    con = connect(SAMPLE)
    week = con.sql("from failure_rates('week', per_company := false, since := '2026-02-23') limit 1").pl()
    assert week.select("failed", "finished").row(0) == (48, 92)
    ends = con.sql("select outcome, count(*) as n from job_durations group by outcome").pl()
    assert dict(ends.iter_rows()).items() >= {"expired": 5, "open": 5}.items()
    assert set(con.sql("from snapshot").pl().row(0)) == {datetime(2026, 9, 30, 15, tzinfo=UTC)}


@pytest.mark.parametrize("engine", ["polars", "duckdb", "pyarrow"])
def test_other_tools_read_it(engine: str) -> None:
    """A plain glob over the folder reads every job once, with the contract's columns."""
    files = str(SAMPLE / "**" / "*.parquet")
    if engine == "polars":
        frame = pl.scan_parquet(files, hive_partitioning=False).collect()
    elif engine == "duckdb":
        frame = (
            duckdb.connect()
            .sql("from read_parquet($files, hive_partitioning = false)", params={"files": files})
            .pl()
        )
    else:
        frame = pl.DataFrame(ds.dataset(SAMPLE).to_table())
    assert (frame.height, tuple(frame.columns)) == (3_000, COLUMNS)
