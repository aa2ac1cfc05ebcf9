"""Lakes of other versions: one of this format is kept under `golden`, and every later version must read it.

`python tests/test_lake_golden.py` makes `golden/format-<n>` for a new format; those of older formats are never made again.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tempfile
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from lakes import killed_at

from pleo_extract import Client, connect, dump_export_jobs, scan_lake, verify_lake
from pleo_extract.contract import COLUMNS
from pleo_extract.errors import LakeError
from pleo_extract.lake.folder.repair import repair_lake
from pleo_extract.lake.layout import FORMAT, Layout
from pleo_extract.lake.record import read_last_run
from pleo_extract.lake.status import read_status
from pleo_extract.sandbox import API_KEY, Sandbox, World

if TYPE_CHECKING:
    from pleo_extract.sync.receipt import Receipt

GOLDEN = Path(__file__).parent / "golden"
SERVER = "https://sandbox.invalid"
TAKEN = datetime(2026, 1, 1, tzinfo=UTC)
LONG = timedelta(days=100_000)


def first_world() -> World:
    """Make a world of forty jobs of two companies, over three months, without chance."""
    world = World(jobs=0, now=TAKEN)
    for n in range(40):
        fields: dict[str, Any] = {"numberOfItems": n}
        if n % 7 == 3:
            fields |= {"status": "failed", "failureReasonType": "job_expired", "failureReason": f"Köb {n}"}
        if n % 19 == 5:
            fields |= {"status": "in_progress", "completedAt": None}
        insert(world, n, TAKEN - timedelta(days=70 - n, hours=n), **fields)
    return world


def insert(world: World, number: int, created: datetime, **fields: Any) -> None:
    """Make a job whose ids follow from its number."""
    company, job = (
        uuid.uuid5(uuid.NAMESPACE_URL, f"{SERVER}/{name}") for name in (number % 2, f"job-{number}")
    )
    world.insert(created, id=str(job), company=str(company), **fields)


def then(world: World) -> World:
    """Let happen what happened between the two dumps of the golden lake."""
    for n in range(40, 44):
        insert(world, n, world.now - timedelta(hours=50 - n))
    return world


def dump(lake: Path | str, world: World) -> Receipt:
    """Dump this world."""
    with Client(SERVER, api_key=API_KEY, transport=Sandbox(world), in_flight=1, rate=10_000_000) as client:
        return dump_export_jobs(lake, client=client, progress=False, full_every=LONG, keep_for=LONG)


@pytest.fixture(params=range(1, FORMAT + 1))
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Copy the golden lake of each format."""
    return copy_golden(request.param, tmp_path / "lake")


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Copy the golden lake of format 1."""
    return copy_golden(1, tmp_path / "lake")


def copy_golden(version: int, target: Path) -> Path:
    """Copy the golden lake of this format."""
    return Path(shutil.copytree(GOLDEN / f"format-{version}", target, symlinks=True))


def read_plainly(lake: Path) -> pl.DataFrame:
    """Read a lake as a tool does that does not know lakes."""
    return pl.read_parquet(lake / "**/*.parquet", hive_partitioning=False)


def is_true(rows: pl.DataFrame, world: World) -> bool:
    """Return whether these are the jobs of this world."""
    return Sandbox(world).truth(rows.drop("extra").to_dicts(), world.now) == []


def list_files(lake: Path) -> dict[str, bytes]:
    """Return every file of a lake with its bytes."""
    return {
        path.relative_to(lake).as_posix(): path.read_bytes() if path.is_file() else b""
        for path in lake.rglob("*")
    }


def test_the_golden_lake_opens(golden: Path) -> None:
    """It verifies, has its jobs, and every reader can read both snapshots without writing anything."""
    before = list_files(golden)
    found = verify_lake(golden)
    assert (found.ok, found.foreign, found.snapshot) == (True, (), 2), found
    world = first_world()
    assert is_true(scan_lake(golden, as_of=1).collect(), world)
    rows = scan_lake(golden).collect()
    assert tuple(rows.columns) == COLUMNS
    then(world)
    assert is_true(rows, world)
    last = read_last_run(Layout(golden))
    assert last is not None
    assert last.code == 0
    with connect(golden) as con:
        assert con.execute("SELECT count(*) FROM export_jobs").fetchone() == (44,)
    with connect(golden, as_of=1) as con:
        assert con.execute("SELECT count(*) FROM export_jobs").fetchone() == (40,)
    status = read_status(golden)
    assert (status.snapshot, status.rows) == (2, 44)
    assert list_files(golden) == before


def test_the_golden_lake_is_gone_on_with(golden: Path) -> None:
    """A dump over it is a refresh that brings what is new; earlier snapshots are still found by number and by time."""
    world = then(first_world())
    before = {number: scan_lake(golden, as_of=number).collect() for number in (1, 2)}
    insert(world, 50, world.now - timedelta(minutes=3))
    receipt = dump(golden, world)
    assert (receipt.mode, receipt.snapshot, receipt.lake_rows) == ("refresh", 3, 45), receipt.why_full
    assert is_true(scan_lake(golden).collect(), world)
    assert read_plainly(golden).equals(scan_lake(golden).collect())
    for number, rows in before.items():
        assert scan_lake(golden, as_of=number).collect().equals(rows)
    assert scan_lake(golden, as_of=TAKEN).collect().equals(before[2])
    assert verify_lake(golden).ok
    assert verify_lake(golden).foreign == ()


def test_the_golden_lake_names_no_machine() -> None:
    """It has no absolute path and no host, and it is small."""
    golden = GOLDEN / f"format-{FORMAT}"
    files = [path for path in golden.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 80_000
    assert not [path.name for path in files if path.name in ("lock", "_jobs.duckdb")]
    for path in golden.glob("_lake/**/*.json"):
        assert '"/' not in path.read_text(encoding="utf-8")
    assert (golden / "_lake/current").read_text() == "2\n"


# Format 1


def test_a_lake_of_format_1_is_carried_over(old: Path) -> None:
    """A dump carries it over, even with nothing new: it is a refresh, no old name is left, and history is kept."""
    before = {number: scan_lake(old, as_of=number).collect() for number in (1, 2)}
    shutil.copy(old / "current/created_month=2025-12/part-0.parquet", old / "notes.txt")
    for name in ("_lock", "jobs.duckdb", "_now.csv"):
        (old / name).touch()
    world = then(first_world())
    receipt = dump(old, world)
    assert (receipt.mode, receipt.snapshot, receipt.published) == ("refresh", 2, False), receipt.why_full
    assert sorted(path.name for path in old.iterdir()) == [
        "_jobs.duckdb", "_lake", "created_month=2025-10", "created_month=2025-11", "created_month=2025-12", "notes.txt",
    ]  # fmt: skip
    assert not [path for path in old.rglob("*") if path.is_symlink()]
    assert verify_lake(old).problems == ()
    assert read_plainly(old).equals(before[2])
    for number, rows in before.items():
        assert scan_lake(old, as_of=number).collect().equals(rows)
    manifest = Layout(old).manifest(2)
    for entry in manifest.files:
        assert (old / entry.path).samefile(old / "_lake/objects" / entry.object)


@pytest.mark.slow
def test_killed_while_it_is_carried_over_it_is_one_or_the_other(old: Path, tmp_path: Path) -> None:
    """After a kill before any storage call our readers see all jobs and plain readers none twice; the next dump finishes."""
    world = then(first_world())
    rows = scan_lake(old).collect()
    with killed_at(10**9) as calls:
        dump(shutil.copytree(old, tmp_path / "whole", symlinks=True), world)
    for at in range(1, len(calls) + 1):
        lake = Path(shutil.copytree(old, tmp_path / f"killed-{at}", symlinks=True))
        with killed_at(at) as made:
            dump(lake, world)
        assert len(made) >= at, "it was killed"
        assert scan_lake(lake).collect().equals(rows)
        assert scan_lake(lake, as_of=1).collect().height == 40
        has_old = (lake / "current").exists() or (lake / "snapshots").exists()
        visible = list(lake.glob("created_month=*/*.parquet"))
        assert not (has_old and visible), "a recursive glob would see both"
        if visible:
            assert not read_plainly(lake).select("company_id", "id").is_duplicated().any()
        receipt = dump(lake, world)
        assert (receipt.mode, receipt.published) == ("refresh", False), receipt.why_full
        assert read_plainly(lake).equals(rows)
        assert verify_lake(lake).ok
        assert verify_lake(lake).foreign == ()
        assert scan_lake(lake, as_of=1).collect().height == 40


@pytest.mark.parametrize("harm", ["file", "manifest", "pointer", "old manifest", "stranger"])
def test_a_broken_lake_of_format_1_is_repaired(harm: str, old: Path) -> None:
    """Repair carries over what is left of it, with an older file in place of a lost one; a dump asks for a repair first."""
    rows = scan_lake(old).collect()
    part = old / "snapshots/000002/created_month=2025-12/part-0.parquet"
    if harm == "file":
        part.unlink()
    elif harm == "pointer":
        (old / "current").unlink()
    elif harm == "stranger":
        shutil.copy(part, part.with_name("copy.parquet"))
    else:
        (old / ("_meta/000001.json" if harm == "old manifest" else "_meta/000002.json")).write_text("{")
    if harm in ("file", "manifest", "pointer"):
        assert not verify_lake(old).ok
        with pytest.raises(LakeError, match="repair"):
            dump(old, first_world())
    repaired = repair_lake(old)
    assert repaired.done
    assert repaired.problems == ()
    found = scan_lake(old).collect()
    assert found.equals(rows if harm != "file" else rows.filter(pl.col("created_at").dt.month() != 12))
    assert read_plainly(old).equals(found)
    assert not (old / "current").is_symlink()
    world = then(first_world())
    dump(old, world)
    assert is_true(scan_lake(old).collect(), world)
    assert is_true(read_plainly(old), world)


# Format 0


def make_older(lake: Path) -> None:
    """Turn a lake into one of format 0, which had no column `extra`."""
    for number in (1, 2):
        file = lake / f"_meta/{number:06d}.json"
        manifest = json.loads(file.read_bytes())
        manifest["format"] = 0
        for entry in manifest["files"]:
            path = lake / f"snapshots/{number:06d}" / entry["path"]
            buffer = io.BytesIO()
            pl.read_parquet(path, columns=[name for name in COLUMNS if name != "extra"]).write_parquet(buffer)
            path.write_bytes(buffer.getvalue())
            entry["bytes"] = len(buffer.getvalue())
            entry["sha256"] = hashlib.sha256(buffer.getvalue()).hexdigest()
        file.write_text(json.dumps(manifest))


def test_f42_an_older_lake_is_carried_over(old: Path) -> None:
    """It can be read as it is; the next dump makes a snapshot of this format, and the old ones stay."""
    make_older(old)
    assert verify_lake(old).ok
    rows = scan_lake(old).collect()
    assert tuple(rows.columns) == COLUMNS
    assert rows["extra"].null_count() == rows.height == 44
    receipt = dump(old, then(first_world()))
    assert (receipt.snapshot, receipt.published) == (3, True)
    layout = Layout(old)
    assert [layout.manifest(number).format for number in layout.numbers()] == [0, 0, FORMAT]
    assert verify_lake(old).ok
    assert scan_lake(old).collect().equals(rows)
    assert scan_lake(old, as_of=2).collect().equals(rows)
    for entry in layout.manifest(3).files:
        assert tuple(pl.read_parquet_schema(old / entry.path)) == COLUMNS
    assert read_plainly(old).equals(rows)
    assert dump(old, then(first_world())).published is False


def test_f42_a_newer_lake_is_refused(golden: Path) -> None:
    """Dump, verify and repair refuse it, name the version, and change nothing."""
    file = Layout(golden).manifest_file(2)
    manifest = json.loads(file.read_bytes()) | {"format": 7, "files": "not as we know them"}
    file.write_text(json.dumps(manifest))
    before = list_files(golden)
    for attempt in (lambda: dump(golden, first_world()), lambda: repair_lake(golden)):
        with pytest.raises(LakeError, match="lake format 7") as caught:
            attempt()
        assert caught.value.code == 65
    assert "lake format 7" in verify_lake(golden).problems[0]
    after = list_files(golden)
    assert {name: after.pop(name) for name in before} == before
    assert set(after) <= {"_lake", "_lake/lock"}, "repair takes the lock"


def settle(value: Any, name: str = "") -> Any:
    """Return a receipt without what differs between two runs and two machines."""
    if isinstance(value, dict):
        return {key: settle(each, key) for key, each in value.items()}
    if isinstance(value, list):
        return [settle(each) for each in value]
    if value is not None and name.endswith("_at"):
        return TAKEN.isoformat()
    return {"run": "20260101T000000Z-golden", "seconds": 0.0, "seconds_since_complete": 0.0}.get(name, value)


def make_golden() -> None:
    """Make the golden lake of this format."""
    target = GOLDEN / f"format-{FORMAT}"
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        world = first_world()
        for step in (lambda: None, lambda: then(world)):
            step()
            dump("export_jobs", world)
        lake = Path("export_jobs")
        shutil.rmtree(lake / "_lake/staging")
        for name in ("_lake/lock", "_lake/now.csv", "_jobs.duckdb"):
            (lake / name).unlink(missing_ok=True)
        for file in lake.glob("_lake/**/*.json"):
            file.write_text(json.dumps(settle(json.loads(file.read_bytes())), indent=1) + "\n")
        shutil.copytree(lake, target)


if __name__ == "__main__":
    make_golden()
