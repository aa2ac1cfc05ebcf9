"""Lakes of other versions: one of this format is kept under `golden`, and every later version must read it.

`python tests/test_lake_golden.py` makes `golden/format-<n>` for a new format; those of older ones are never made anew.
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

from pleo_extract import Client, dump_export_jobs, scan_lake, verify_lake
from pleo_extract.contract import COLUMNS
from pleo_extract.errors import LakeError
from pleo_extract.lake import FORMAT, Layout, read_last_run, repair_lake
from pleo_extract.sandbox import API_KEY, Sandbox, World

if TYPE_CHECKING:
    from pleo_extract.extract import Receipt

GOLDEN = Path(__file__).parent / "golden"
SERVER = "https://sandbox.invalid"
TAKEN = datetime(2026, 1, 1, tzinfo=UTC)
LONG = timedelta(days=100_000)


def first_world() -> World:
    """Forty jobs of two companies, over three months; nothing of them is drawn."""
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
    """A job whose ids follow from its number."""
    company, job = (
        uuid.uuid5(uuid.NAMESPACE_URL, f"{SERVER}/{name}") for name in (number % 2, f"job-{number}")
    )
    world.insert(created, id=str(job), company=str(company), **fields)


def then(world: World) -> World:
    """What happened between the two dumps of the golden lake."""
    for n in range(40, 44):
        insert(world, n, world.now - timedelta(hours=50 - n))
    return world


def dump(lake: Path | str, world: World) -> Receipt:
    """A dump of this world."""
    with Client(SERVER, api_key=API_KEY, transport=Sandbox(world), in_flight=1, rate=10_000_000) as client:
        return dump_export_jobs(lake, client=client, progress=False, full_every=LONG, keep=LONG)


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    """The golden lake of this format, to play with."""
    return Path(shutil.copytree(GOLDEN / f"format-{FORMAT}", tmp_path / "lake", symlinks=True))


def test_the_golden_lake_opens(golden: Path) -> None:
    """It verifies, holds what it was made from, and both its snapshots can be read."""
    found = verify_lake(golden)
    assert (found.ok, found.foreign, found.snapshot) == (True, (), 2), found
    world = first_world()
    first = scan_lake(golden, as_of=1).collect()
    assert Sandbox(world).truth(first.drop("extra").to_dicts(), world.now) == []
    rows = scan_lake(golden).collect()
    assert tuple(rows.columns) == COLUMNS
    then(world)
    assert Sandbox(world).truth(rows.drop("extra").to_dicts(), world.now) == []
    last = read_last_run(Layout(golden))
    assert last is not None
    assert last.code == 0


def test_the_golden_lake_is_gone_on_with(golden: Path) -> None:
    """A dump over it is a refresh that brings what is new."""
    world = then(first_world())
    insert(world, 50, world.now - timedelta(minutes=3))
    receipt = dump(golden, world)
    assert (receipt.mode, receipt.snapshot, receipt.lake_rows) == ("refresh", 3, 45), receipt.why_full
    assert Sandbox(world).truth(scan_lake(golden).collect().drop("extra").to_dicts(), world.now) == []
    assert verify_lake(golden).ok


def test_the_golden_lake_names_no_machine(golden: Path) -> None:
    """No absolute path, no host, and small."""
    files = [path for path in (GOLDEN / f"format-{FORMAT}").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 50_000
    assert not [path.name for path in files if path.name in ("_lock", "jobs.duckdb")]
    for path in golden.glob("_meta/*.json"):
        assert '"/' not in path.read_text(encoding="utf-8")
    assert (golden / "current").readlink() == Path("snapshots/000002")


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


def test_f42_an_older_lake_is_carried_over(golden: Path) -> None:
    """It can be read as it is; the next dump makes a snapshot of this format of it, and the old ones stay."""
    make_older(golden)
    assert verify_lake(golden).ok
    old = scan_lake(golden).collect()
    assert tuple(old.columns) == COLUMNS
    assert old["extra"].null_count() == old.height == 44
    receipt = dump(golden, then(first_world()))
    assert (receipt.snapshot, receipt.published) == (3, True)
    layout = Layout(golden)
    assert [layout.manifest(number).format for number in layout.numbers()] == [0, 0, FORMAT]
    assert verify_lake(golden).ok
    assert scan_lake(golden).collect().equals(old)
    assert scan_lake(golden, as_of=2).collect().equals(old)
    new = golden / "current" / layout.manifest(3).files[0].path
    assert tuple(pl.read_parquet_schema(new)) == COLUMNS
    assert dump(golden, then(first_world())).published is False


def test_f42_a_newer_lake_is_refused(golden: Path) -> None:
    """By a dump, verify and repair, with the version in the message, and nothing of it is touched."""
    file = golden / "_meta/000002.json"
    manifest = json.loads(file.read_bytes()) | {"format": 7, "files": "not as we know them"}
    file.write_text(json.dumps(manifest))
    for attempt in (lambda: dump(golden, first_world()), lambda: repair_lake(golden)):
        with pytest.raises(LakeError, match="lake format 7") as caught:
            attempt()
        assert caught.value.code == 65
    assert "lake format 7" in verify_lake(golden).problems[0]
    assert json.loads(file.read_bytes()) == manifest
    assert (golden / "current").readlink() == Path("snapshots/000002")
    assert sorted(path.name for path in (golden / "snapshots").iterdir()) == ["000001", "000002"]


def settle(value: Any, name: str = "") -> Any:
    """What differs between two runs and two machines, written over."""
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
        shutil.rmtree(lake / "_staging")
        for name in ("_lock", "jobs.duckdb"):
            (lake / name).unlink(missing_ok=True)
        for file in lake.glob("_meta/*.json"):
            file.write_text(json.dumps(settle(json.loads(file.read_bytes())), indent=1) + "\n")
        shutil.copytree(lake, target, symlinks=True)


if __name__ == "__main__":
    make_golden()
