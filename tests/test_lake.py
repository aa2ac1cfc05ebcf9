"""Test the lake room by itself: layout, lock, staging, publish, prune, verify, repair, record, and the calls of the disk."""

from __future__ import annotations

import ast
import errno
import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock
import msgspec
import polars as pl
import pytest
from lakes import publish_staged

import pleo_extract.lake
from pleo_extract import Client, connect, dump_export_jobs, scan_lake, verify_lake
from pleo_extract.answers.verification import repair_catalogue
from pleo_extract.contract import POLARS_SCHEMA
from pleo_extract.core.decode import Rejected
from pleo_extract.core.rows import merge_rows
from pleo_extract.core.walk import Checkpoint
from pleo_extract.errors import (
    ConfigurationError,
    LakeError,
    LakeLocked,
    RejectedRows,
    RequestsExceeded,
    StorageError,
    TryLater,
    UsageError,
)
from pleo_extract.lake import disk, keys, merging
from pleo_extract.lake.folder.lake import FolderLake
from pleo_extract.lake.folder.opening import open_snapshot
from pleo_extract.lake.folder.pruning import prune
from pleo_extract.lake.folder.repair import repair_lake
from pleo_extract.lake.journal import Header
from pleo_extract.lake.layout import Layout, Manifest
from pleo_extract.lake.lock import hold_lock
from pleo_extract.lake.record import read_last_run, write_last_run
from pleo_extract.lake.staging import Staging
from pleo_extract.lake.table import Change, Info, Keep, merge_staged
from pleo_extract.sandbox import API_KEY, Sandbox, World

if TYPE_CHECKING:
    from collections.abc import Callable

NOW = datetime(2026, 11, 24, tzinfo=UTC)
SERVER = "https://sandbox.invalid"
COMPANY = "6f1f2c1e-8f5b-4a53-9f0a-0d3c6f0a7b11"
AT_ONCE = Keep(span=timedelta(0))
ROOM = Path(pleo_extract.lake.__file__).parent


def rows(*numbers: int, month: int = 10, status: str = "completed", hour: int = 1) -> pl.DataFrame:
    """Make jobs of one month; a later hour is a later version."""
    created = [datetime(2026, month, 1, tzinfo=UTC) + timedelta(minutes=number) for number in numbers]
    return pl.DataFrame(
        {
            "id": [f"00000000-0000-4000-8000-{number:012d}" for number in numbers],
            "company_id": [COMPANY] * len(numbers),
            "status": [status] * len(numbers),
            "created_at": created,
            "last_updated_at": [instant + timedelta(hours=hour) for instant in created],
        },
        schema_overrides=POLARS_SCHEMA,
    ).select(
        pl.col(name) if name in ("id", "company_id", "status", "created_at", "last_updated_at") else pl.lit(None, kind).alias(name)
        for name, kind in POLARS_SCHEMA.items()
    )  # fmt: skip


def header(layout: Layout, run: str = "run") -> Header:
    """Make a header on top of the current snapshot."""
    return Header(run=run, mode="full", base=layout.number() or 0, started_at=datetime.now(UTC))


def put(
    lake: Path,
    *frames: pl.DataFrame,
    leaving: dict[str, set[tuple[str, str]]] | None = None,
    keep: Keep | None = None,
) -> Manifest:
    """Publish these rows as a dump does; `leaving` are jobs that leave a month."""
    store = FolderLake(lake)
    with store.hold():
        store.begin()
        staging = Staging.start(store.scratch, "binding", header(store.layout))
        for frame in frames:
            staging.add(frame)
        staging.leaving.update(leaving or {})
        manifest = publish_staged(store, staging)
        store.expire(keep or Keep())
    return manifest


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """Make a lake of two months and two snapshots."""
    place = tmp_path / "lake"
    put(place, rows(1, 2, 3), rows(4, month=11, status="pending"))
    put(place, rows(4, 5, month=11, hour=2))
    return place


def find_file(lake: Path, month: str = "2026-11") -> Path:
    """Return one of its visible files."""
    return lake / f"created_month={month}/part-0.parquet"


def find_object(lake: Path, month: str = "2026-11", number: int = 2) -> Path:
    """Return the object of a month of a snapshot."""
    (entry,) = (entry for entry in Layout(lake).manifest(number).files if entry.month == month)
    return lake / "_lake/objects" / entry.object


def read_plainly(lake: Path) -> pl.DataFrame:
    """Read a lake as a tool does that does not know lakes, in every way that it can look for files."""
    (each, *others) = (
        pl.read_parquet(lake / pattern, hive_partitioning=False)
        for pattern in ("*/*.parquet", "**/*.parquet")
    )
    assert all(other.equals(each) for other in others)
    return each


def overwrite(path: Path, data: bytes) -> None:
    """Change a file in place, even one that is read-only."""
    path.chmod(0o644)
    path.write_bytes(data)
    path.chmod(0o444)


# The layout


def test_a_lake_is_the_current_months_and_a_row_of_snapshots_behind_them(lake: Path) -> None:
    """Visible months are second names of objects; the pointer is a small file; the manifest describes the files."""
    assert sorted(path.name for path in lake.iterdir()) == [
        "_lake",
        "created_month=2026-10",
        "created_month=2026-11",
    ]
    assert (lake / "_lake/current").read_bytes() == b"2\n"
    assert sorted(path.name for path in (lake / "_lake/snapshots").iterdir()) == [
        "000001.json",
        "000002.json",
    ]
    assert find_object(lake, "2026-10", 1) == find_object(lake, "2026-10", 2)
    assert find_object(lake, "2026-11", 1) != find_object(lake, "2026-11", 2)
    for month in ("2026-10", "2026-11"):
        assert find_file(lake, month).samefile(find_object(lake, month))
        assert stat.S_IMODE(find_file(lake, month).stat().st_mode) == 0o444
        sha256 = hashlib.sha256(find_file(lake, month).read_bytes()).hexdigest()
        assert find_object(lake, month).name == f"{month}-{sha256}"
    assert len(list((lake / "_lake/objects").iterdir())) == 3
    assert not [path for path in lake.rglob("*") if path.is_symlink()]
    manifest = Layout(lake).manifest(2)
    assert [(entry.path, entry.rows) for entry in manifest.files] == [
        ("created_month=2026-10/part-0.parquet", 3),
        ("created_month=2026-11/part-0.parquet", 2),
    ]
    assert (manifest.rows, manifest.server, manifest.snapshot) == (5, SERVER, 2)
    assert read_plainly(lake).equals(scan_lake(lake).collect())
    assert read_plainly(lake).height == 5


def test_nothing_but_the_visible_months_ends_in_parquet(lake: Path) -> None:
    """Every glob below the folder finds each job once, and never staged or rejected rows, objects or temporary files."""
    store = FolderLake(lake)
    with store.hold():
        store.begin()
        staging = Staging.start(store.scratch, "binding", header(store.layout))
        staging.add(rows(7), [Rejected(1, "$.data[0]", "no", b"{}")])
        staging.keep_rejected(store.layout.rejected)
        change = Change(store.latest(SERVER))
        merge_staged(store, change, [staging])
        assert list(change.months) != []
        found = sorted(path.relative_to(lake).as_posix() for path in lake.rglob("*.parquet"))
    assert found == ["created_month=2026-10/part-0.parquet", "created_month=2026-11/part-0.parquet"]


def test_earlier_snapshots_are_found_by_number_and_by_time(lake: Path) -> None:
    """A snapshot that was never published, or is no longer kept, is not found."""
    layout = Layout(lake)
    assert scan_lake(lake, as_of=1).collect().height == 4
    assert scan_lake(lake, as_of=layout.manifest(1).made_at).collect().height == 4
    assert scan_lake(lake, as_of=datetime.now(UTC)).collect().height == 5
    later = msgspec.structs.replace(layout.manifest(2), snapshot=3)  # killed before the pointer was replaced
    layout.manifest_file(3).write_bytes(msgspec.json.encode(later))
    for as_of in (3, 7, layout.manifest(1).made_at - timedelta(seconds=1), datetime(2026, 1, 1)):  # noqa: DTZ001 - that is the point
        with pytest.raises(UsageError):
            open_snapshot(lake, as_of)
    found = open_snapshot(lake, datetime.now(UTC))
    assert found is not None
    assert found.manifest.snapshot == 2


def test_a_folder_without_a_lake_is_refused(tmp_path: Path) -> None:
    """A missing folder, a file, or a folder with something else in place of the pointer, of either format, is refused."""
    with pytest.raises(LakeError, match="no lake"):
        scan_lake(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError):
        Layout(tmp_path / "file")
    (tmp_path / "old/_meta").mkdir(parents=True)
    (tmp_path / "old/current").touch()
    with pytest.raises(LakeError, match="not the link"):
        scan_lake(tmp_path / "old")
    (tmp_path / "new/_lake/current").mkdir(parents=True)
    with pytest.raises(LakeError, match="plain file"):
        scan_lake(tmp_path / "new")
    (tmp_path / "empty").mkdir()
    assert scan_lake(tmp_path / "empty").collect().schema == POLARS_SCHEMA


def test_f50_a_manifest_cannot_name_files_outside(lake: Path) -> None:
    """A manifest with a path that is not ours is broken."""
    file = Layout(lake).manifest_file(2)
    for path in (
        "../../x.parquet",
        "/etc/passwd",
        "created_month=2026-13/a.parquet",
        "created_month=2026-10/../a.parquet",
    ):
        manifest = json.loads(file.read_bytes())
        manifest["files"][0]["path"] = path
        file.write_text(json.dumps(manifest))
        with pytest.raises(LakeError, match="broken"):
            Layout(lake).manifest(2)
        assert not verify_lake(lake).ok


@pytest.mark.parametrize("name", ["", "../../../x", "/etc/passwd", "2026-10", "2026-10-" + "0" * 64])
def test_f50_a_manifest_cannot_name_other_objects(name: str, lake: Path) -> None:
    """A manifest with an object that is not named after its month and its bytes is broken."""
    file = Layout(lake).manifest_file(2)
    manifest = json.loads(file.read_bytes())
    manifest["files"][0]["object"] = name
    file.write_text(json.dumps(manifest))
    with pytest.raises(LakeError, match="broken"):
        scan_lake(lake)
    assert not verify_lake(lake).ok


@pytest.mark.parametrize(
    "data", [b"", b"0", b"000002", b"3\n", b"2\n2\n", b"-2", b"../2", b"\xd9\xa2", b"9" * 400]
)
def test_a_pointer_to_no_snapshot_is_refused(data: bytes, lake: Path) -> None:
    """Readers and the next dump end with 65, and repair points to the newest snapshot."""
    (lake / "_lake/current").write_bytes(data)
    with pytest.raises(LakeError):
        scan_lake(lake)
    with pytest.raises(LakeError):
        put(lake, rows(9))
    assert not verify_lake(lake).ok
    repaired = repair_lake(lake)
    assert repaired.problems == ()
    assert scan_lake(lake).collect().height == 5


# The lock


def test_f37_the_lock_says_who_holds_it(lake: Path) -> None:
    """The second run is refused with pid, host and since when."""
    layout = Layout(lake)
    with hold_lock(layout):
        code = f"from pleo_extract.lake.layout import Layout\nfrom pleo_extract.lake.lock import hold_lock\nwith hold_lock(Layout({str(lake)!r})): pass"
        done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
        assert f"LakeLocked: {lake} is held by another run (pid {os.getpid()} on " in done.stderr
        assert "since 20" in done.stderr
    with hold_lock(layout):
        pass


def test_f37_who_is_turned_away_names_the_holder_and_no_earlier_one(lake: Path) -> None:
    """A run takes the lock first and then signs; until then the name of the run before must not stand there."""
    layout = Layout(lake)
    with hold_lock(layout):
        signed = layout.lock.read_bytes()
    assert layout.lock.read_bytes() == b""
    held = filelock.FileLock(layout.lock, timeout=0)
    held.acquire()
    signs = threading.Timer(0.2, layout.lock.write_bytes, [signed])
    signs.start()
    try:
        with pytest.raises(LakeLocked, match=f"pid {os.getpid()} on "), hold_lock(layout):
            pass
    finally:
        signs.join()
        held.release()


def test_f38_the_lock_dies_with_its_holder(lake: Path) -> None:
    """A killed holder leaves no stale lock."""
    code = (
        "import os, signal\nfrom pleo_extract.lake.layout import Layout\nfrom pleo_extract.lake.lock import hold_lock\n"
        f"with hold_lock(Layout({str(lake)!r})): os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    with hold_lock(Layout(lake)):
        pass


def test_f37_a_writer_that_lost_the_lock_publishes_nothing(lake: Path) -> None:
    """A paused run whose lock was broken is refused after another run, and does not touch what that one has prepared."""
    store = FolderLake(lake)
    layout = store.layout
    with store.hold():
        store.begin()
        staging = Staging.start(layout.staging, "binding", header(layout))
        staging.add(rows(7))
        change = Change(store.latest(SERVER))
        merge_staged(store, change, [staging])
        layout.lock.unlink()
        assert put(lake, rows(8)).snapshot == 3
        with pytest.raises(LakeLocked, match="taken over"):
            store.commit(change, Info(SERVER, {}, {}))
        store.discard(change)
        with pytest.raises(StorageError):
            staging.add(rows(9))
    assert verify_lake(lake).ok
    assert scan_lake(lake).filter(pl.col("id").str.ends_with("8")).collect().height == 1
    assert scan_lake(lake).filter(pl.col("id").str.ends_with("7")).collect().height == 0


# Staging


MARK = Checkpoint(
    first=("2026-10-01", "a"), furthest=("2026-10-02", "b"), newest=("2026-10-02", "b"), cursor="AAAA", at_end=False,
    order="strict", pages=20, rows=2_000, distinct=2_000, unkeyed=0, totals=(5_000, 5_001),
)  # fmt: skip


def resume(layout: Layout, base: int = 0) -> Staging | None:
    """Return what is staged for this owner."""
    return Staging.resume(layout.staging, "binding", base=base)


def test_staged_batches_are_found_again(tmp_path: Path) -> None:
    """Rows, checkpoints by segment, phases and rejected rows are found again."""
    layout = Layout(tmp_path)
    staging = Staging.start(layout.staging, "binding", header(layout))
    staging.add(rows(1, 2), phase="full", checkpoints={0: MARK, 3: MARK})
    staging.add(rows(3, month=11), [Rejected(4, "$.data[1]", "no", b"{")], checkpoints={3: MARK})
    staging.finish("open")
    again = resume(layout)
    assert again is not None
    assert (again.run, again.mode, again.resumed) == ("run", "full", True)
    assert again.checkpoints("full") == {0: MARK, 3: MARK}
    assert again.checkpoints("new") == {}
    assert again.months() == ["2026-10", "2026-11"]
    assert again.frame().height == 3
    assert [name.partition(":")[0] for name in again.names] == ["sha256"]
    assert len(again.reasons) == 1
    assert again.is_done("open")
    assert not again.is_done("full")


@pytest.mark.parametrize(
    "spoil", ["torn line", "torn in the middle", "file gone", "file changed", "file empty"]
)
def test_a_journal_counts_up_to_the_first_line_that_is_not_whole(spoil: str, tmp_path: Path) -> None:
    """What follows a broken line is dropped for good, and the next batch is not appended to half a line."""
    layout = Layout(tmp_path)
    staging = Staging.start(layout.staging, "binding", header(layout))
    for number in range(3):
        staging.add(rows(number))
    journal = staging.folder / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    if spoil == "torn line":
        journal.write_bytes(b"".join(lines[:2]) + lines[2][:40])
    elif spoil == "torn in the middle":
        journal.write_bytes(b"".join(lines[:2]) + lines[2][:40] + lines[2])
    elif spoil == "file gone":
        (staging.folder / "batch-000002.arrow").unlink()
    else:
        data = (staging.folder / "batch-000002.arrow").read_bytes()
        (staging.folder / "batch-000002.arrow").write_bytes(b"" if "empty" in spoil else bytes(len(data)))
    again = resume(layout)
    assert again is not None
    assert again.frame().height == 2
    again.add(rows(9))
    third = resume(layout)
    assert third is not None
    assert third.frame()["id"].str.slice(-1).to_list() == ["0", "1", "9"]


def test_foreign_staging_is_not_resumed(tmp_path: Path) -> None:
    """Staging with another base, without a batch, with a broken header or behind a link is not resumed."""
    layout = Layout(tmp_path)
    staging = Staging.start(layout.staging, "binding", header(layout))
    assert resume(layout) is None
    staging.add(rows(1))
    assert resume(layout, base=1) is None
    (staging.folder / "run.json").write_bytes(b"")
    assert resume(layout) is None
    outside = tmp_path / "outside"
    staging.folder.rename(outside)
    (outside / "run.json").write_bytes(msgspec.json.encode(header(layout)))
    staging.folder.symlink_to(outside)
    assert resume(layout) is None
    Staging.start(layout.staging, "binding", header(layout))
    assert (outside / "journal.jsonl").exists()
    assert not staging.folder.is_symlink()


def test_rejected_rows_are_kept_once(tmp_path: Path) -> None:
    """They are there once however often they are copied: a run can be killed between that and the pointer."""
    layout = Layout(tmp_path)
    staging = Staging.start(layout.staging, "binding", header(layout))
    staging.add(rows(1), [Rejected(1, "$.data[0]", "no", b"{\xff}")])
    for _ in range(2):
        staging.keep_rejected(layout.rejected)
    (kept,) = layout.rejected.iterdir()
    assert kept.name.startswith("run-")
    assert [json.loads(line)["reason"] for line in kept.read_bytes().splitlines()] == ["no"]
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


# Publishing and pruning


def test_nothing_new_makes_no_snapshot(lake: Path) -> None:
    """The same rows again make no file and no snapshot; what the run learned is kept."""
    places = "created_month=*/*", "_lake/objects/*", "_lake/snapshots/*", "_lake/current"

    def look() -> dict[Path, tuple[int, int]]:
        paths = [path for place in places for path in lake.glob(place)]
        return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in paths}

    before = look()
    assert put(lake, rows(1, 2), rows(4, 5, month=11, hour=2)).snapshot == 2
    assert look() == before
    assert list((lake / "_lake/staging").iterdir()) == []


def test_the_later_version_of_a_row_stays(lake: Path) -> None:
    """The row that a later run read stays, whatever its last_updated_at; for the rows of one run see `keep_latest`."""
    put(lake, rows(1, status="failed", hour=0), rows(2, status="failed", hour=5), rows(3, status="failed"))
    found = scan_lake(lake).filter(pl.col("created_at").dt.month() == 10).sort("id").collect()
    assert found["status"].to_list() == ["failed", "failed", "failed"]


def test_old_snapshots_go_at_once(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A prune that is interrupted leaves no half of a snapshot that could be read, and the next one finishes it."""
    whole = disk.remove_file

    def stop(path: Path) -> None:
        whole(path)
        raise KeyboardInterrupt

    monkeypatch.setattr(disk, "remove_file", stop)
    with pytest.raises(KeyboardInterrupt):
        prune(Layout(lake), 2, AT_ONCE, now=datetime.now(UTC))
    monkeypatch.undo()
    assert Layout(lake).numbers() == [2]
    with pytest.raises(UsageError):
        scan_lake(lake, as_of=1)
    put(lake, rows(8), keep=AT_ONCE)
    assert verify_lake(lake).ok
    assert sorted(path.name for path in (lake / "_lake/objects").iterdir()) == sorted(
        find_object(lake, month, 3).name for month in ("2026-10", "2026-11")
    )


def set_made_at(layout: Layout, number: int, made_at: datetime) -> None:
    """Write another time of publishing into a manifest."""
    manifest = json.loads(layout.manifest_file(number).read_bytes())
    layout.manifest_file(number).write_text(json.dumps(manifest | {"made_at": made_at.isoformat()}))


def test_prune_by_age_and_by_count(lake: Path) -> None:
    """A broken manifest of an old snapshot does not stop a prune; the objects that it may name stay until it is gone."""
    for number in range(10, 14):
        put(lake, rows(number))
    layout = Layout(lake)
    layout.manifest_file(3).write_bytes(b"{")
    now = datetime.now(UTC)
    assert prune(layout, 6, Keep(), now=now) == []
    kept = sorted(layout.objects.iterdir())
    assert prune(layout, 6, Keep(count=5), now=now) == [1]
    assert sorted(layout.objects.iterdir()) == kept
    put(lake)
    for number, days in ((2, 9), (4, 8), (5, 2), (6, 0)):
        set_made_at(layout, number, now - timedelta(days=days))
    assert prune(layout, 6, Keep(), now=now) == [2, 3]
    assert prune(layout, 6, AT_ONCE, now=now) == [4, 5]
    assert layout.numbers() == [6]
    assert len(list(layout.objects.iterdir())) == 2


def test_leftovers_of_a_killed_run_are_removed(lake: Path) -> None:
    """Manifests and objects beyond the pointer, builds and temporary files are removed; foreign files stay."""
    layout = Layout(lake)
    unnamed = f"2026-10-{'0' * 64}"
    prepared = [layout.snapshots, layout.objects, layout.own, lake / "created_month=2026-11"]
    for path in (
        layout.manifest_file(3),
        layout.manifest_file(9),
        layout.objects / unnamed,
        lake / "notes.txt",
        *(folder / ".something.0123456789abcdef.new" for folder in prepared),
    ):
        path.write_text("{}")
    (layout.staging / "build-0").mkdir()
    (lake / ".catalogue-x").mkdir()
    old = Staging.start(layout.staging, "another", header(layout))
    os.utime(old.folder, (0, 0))
    put(lake)
    assert layout.numbers() == [1, 2]
    assert list(layout.staging.iterdir()) == []
    assert len(list(layout.objects.iterdir())) == 3
    assert not (layout.objects / unnamed).exists()
    assert not list(lake.rglob(".*"))
    assert sorted(path.name for path in lake.iterdir()) == [
        "_lake", "created_month=2026-10", "created_month=2026-11", "notes.txt"
    ]  # fmt: skip


def test_a_first_snapshot_without_its_pointer_gets_one(tmp_path: Path) -> None:
    """After a kill between manifest and pointer the next run finds the snapshot whole and continues from it."""
    put(tmp_path, rows(1))
    (tmp_path / "_lake/current").unlink()
    shutil.rmtree(tmp_path / "created_month=2026-10")
    with pytest.raises(TryLater, match=r"no dump to .* has been completed yet; run: pleo-extract dump"):
        scan_lake(tmp_path)
    assert put(tmp_path, rows(2)).snapshot == 2
    assert scan_lake(tmp_path).collect().height == read_plainly(tmp_path).height == 2


@pytest.mark.parametrize("what", ["nothing", "older", "another"])
def test_the_visible_months_follow_the_pointer(what: str, lake: Path) -> None:
    """After a kill between pointer and months, or a change by hand, the next run brings the months in line."""
    for month in ("2026-10", "2026-11"):
        find_file(lake, month).unlink()
    if what == "older":
        find_file(lake).hardlink_to(find_object(lake, number=1))
        (lake / "created_month=2026-09").mkdir()
        shutil.copy(find_file(lake), find_file(lake, "2026-09"))
    elif what == "another":
        rows(8, month=11).write_parquet(find_file(lake))
    assert scan_lake(lake).collect().height == 5, "readers of a snapshot do not mind"
    assert not verify_lake(lake).ok
    assert put(lake, rows(1)).snapshot == 2
    assert verify_lake(lake).ok
    assert read_plainly(lake).equals(scan_lake(lake).collect())
    assert find_file(lake).samefile(find_object(lake))


@pytest.mark.parametrize("lost", ["objects", "visible"])
def test_one_of_two_names_is_enough(lost: str, lake: Path) -> None:
    """A lost object is taken from the visible month with the same bytes, and a lost month from its object."""
    if lost == "objects":
        shutil.rmtree(lake / "_lake/objects")
    else:
        for folder in lake.glob("created_month=*"):
            shutil.rmtree(folder)
    assert scan_lake(lake).collect().height == 5
    put(lake, rows(6, month=11))
    assert verify_lake(lake).ok
    assert scan_lake(lake).collect().height == read_plainly(lake).height == 6
    assert find_file(lake, "2026-10").samefile(find_object(lake, "2026-10"))


def test_a_month_that_jobs_have_left_is_replaced_first(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader of the folder never sees a job in both months; a month without jobs is a file without rows."""
    seen: list[pl.DataFrame] = []
    whole = disk.rename

    def look(source: Path, target: Path) -> None:
        whole(source, target)
        if target.suffix == ".parquet":
            seen.append(pl.read_parquet(lake / "*/*.parquet", hive_partitioning=False))

    monkeypatch.setattr(disk, "rename", look)
    moved = rows(1, 2, 3, month=9, hour=9)
    put(lake, moved, leaving={"2026-10": set(moved.select("company_id", "id").iter_rows())})
    monkeypatch.undo()
    assert len(seen) == 2
    for frame in seen:
        assert frame.select("company_id", "id").is_duplicated().sum() == 0
    assert read_plainly(lake).equals(scan_lake(lake).collect())
    assert pl.read_parquet(find_file(lake, "2026-10")).is_empty()
    assert verify_lake(lake).ok
    for number in (10, 11):
        put(lake, rows(number, month=11), keep=AT_ONCE)
    assert not find_file(lake, "2026-10").parent.exists(), "nobody can still be reading rows of it"
    assert verify_lake(lake).ok


def test_a_changed_file_is_not_merged(lake: Path) -> None:
    """A month that is merged is verified by its hash, one that stays by its size."""
    file = find_file(lake)
    data = file.read_bytes()
    overwrite(file, data[:-4] + b"XXXX")
    with pytest.raises(LakeError, match="repair"):
        put(lake, rows(6, month=11))
    overwrite(file, data[:-4])
    with pytest.raises(LakeError, match="repair"):
        put(lake, rows(6))
    assert list((lake / "_lake/staging").glob("build-*")) == []


def test_files_are_copied_where_links_are_not_possible(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk without hard links costs space and nothing else: a copy is recognized, and not made again."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    put(lake, rows(6, month=11))
    assert find_file(lake, "2026-10").samefile(find_object(lake, "2026-10", 3))
    assert not find_file(lake).samefile(find_object(lake, number=3))
    assert verify_lake(lake).ok
    before = find_file(lake).stat()
    put(lake, rows(7))
    assert find_file(lake).stat() == before
    assert verify_lake(lake).ok
    assert read_plainly(lake).equals(scan_lake(lake).collect())


# Verify


def spoil(lake: Path, how: str) -> str:  # noqa: C901, PLR0912 - one branch a harm
    """Damage a lake; return what verify must report."""
    file, layout = find_file(lake), Layout(lake)
    data = file.read_bytes()
    manifest = json.loads(layout.manifest_file(2).read_bytes())
    if how == "bit":
        overwrite(file, bytes([data[0]]) + bytes([data[1] ^ 1]) + data[2:])
    elif how == "truncation":
        overwrite(file, data[:-100])
    elif how == "nothing in it":
        overwrite(file, b"")
    elif how == "both names":
        find_object(lake).unlink()
        file.unlink()
    elif how == "object, and another month":
        find_object(lake).unlink()
        file.unlink()
        rows(8, month=11).write_parquet(file)
    elif how == "visible":
        file.unlink()
    elif how == "another month":
        file.unlink()
        rows(8, month=11).write_parquet(file)
    elif how == "stranger":
        shutil.copy(file, file.with_name("part-1.parquet"))
    elif how == "month too many":
        shutil.copytree(file.parent, lake / "created_month=2026-12")
    elif how == "link":
        file.rename(lake.parent / "elsewhere")
        file.symlink_to(lake.parent / "elsewhere")
    elif how == "columns":
        rewrite(lake, manifest, pl.read_parquet(file).drop("status"))
    elif how == "month":
        rewrite(lake, manifest, rows(7, 8))
    elif how == "double":
        rewrite(lake, manifest, pl.concat([rows(4, month=11)] * 2))
    elif how == "rows":
        manifest["rows"] = 4
        layout.manifest_file(2).write_text(json.dumps(manifest))
    elif how == "manifest":
        layout.manifest_file(2).unlink()
    elif how == "broken manifest":
        layout.manifest_file(2).write_bytes(b'{"format": 2, "snap')
    elif how == "state":
        layout.manifest_file(2).write_text(json.dumps(manifest | {"accounts": {"x": {"frontier": 7}}}))
    elif how == "pointer":
        layout.current.unlink()
    elif how == "pointer out":
        layout.current.write_text("../2")
    elif how == "pointer beyond":
        layout.current.write_text("7\n")
    return {
        "bit": "sha256 differs", "truncation": "written with", "nothing in it": "0 bytes", "both names": "cannot be read",
        "object, and another month": "cannot be read", "visible": "visible file cannot be read",
        "another month": "differs from the snapshot", "stranger": "not in the lake", "month too many": "not in the lake",
        "link": "visible file cannot be read", "columns": "columns or types", "month": "holds rows of 2026-10",
        "double": "repeat a (company_id, id)", "rows": "4 in the manifest", "manifest": "missing", "broken manifest": "broken",
        "state": "broken", "pointer": "no pointer", "pointer out": "does not name", "pointer beyond": "does not name",
    }[how]  # fmt: skip


def rewrite(lake: Path, manifest: dict[str, Any], frame: pl.DataFrame) -> None:
    """Put other rows into the file of November, and change the manifest to match."""
    file = find_file(lake)
    file.unlink()
    frame.write_parquet(file)
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    entry = manifest["files"][1]
    entry |= {
        "rows": frame.height,
        "bytes": file.stat().st_size,
        "sha256": sha256,
        "object": f"2026-11-{sha256}",
    }
    (lake / "_lake/objects" / entry["object"]).hardlink_to(file)
    manifest["rows"] = 3 + frame.height
    Layout(lake).manifest_file(2).write_text(json.dumps(manifest))


HARMS = (
    "bit", "truncation", "nothing in it", "both names", "object, and another month", "visible", "another month",
    "stranger", "month too many", "link", "columns", "month", "double", "rows", "manifest", "broken manifest", "state",
    "pointer", "pointer out", "pointer beyond",
)  # fmt: skip


@pytest.mark.parametrize("how", HARMS)
def test_f43_verify_finds(how: str, lake: Path) -> None:
    """Every kind of damage is reported."""
    said = spoil(lake, how)
    found = verify_lake(lake)
    assert not found.ok
    assert any(said in problem for problem in found.problems), found.problems


def test_f41_foreign_files_are_reported_and_left(lake: Path) -> None:
    """A foreign file in the lake's folder is named by verify, is no problem, and is still there after a dump."""
    foreign = [
        "README.md",
        "_lake/notes",
        "_lake/objects/old",
        "_lake/snapshots/notes.json",
        "created_month=2026-1x",
    ]
    for name in foreign:
        (lake / name).write_text("mine")
    found = verify_lake(lake)
    assert found.ok
    assert found.foreign == tuple(sorted(foreign))
    put(lake, rows(9), keep=AT_ONCE)
    assert [(lake / name).read_text() for name in foreign] == ["mine"] * 5


# Repair


@pytest.mark.slow
@pytest.mark.parametrize("how", HARMS)
def test_f43_repair_makes_it_whole(how: str, lake: Path) -> None:
    """The lake can be read again with all that is left of it, and a second repair finds nothing to do."""
    spoil(lake, how)
    done = repair_lake(lake)
    found = verify_lake(lake)
    if how == "double":  # whole files that contradict each other: for a person to look at
        assert done.problems == found.problems != ()
        return
    assert done.done
    assert done.problems == ()
    assert found.ok, found.problems
    assert done.snapshot == found.snapshot
    left = scan_lake(lake).collect()
    assert left.filter(pl.col("created_at").dt.month() == 10).height == 3
    assert left.height >= 4, "November is there as an older snapshot had it"
    assert read_plainly(lake).equals(left)
    assert repair_lake(lake).done == ()


def test_f43_repair_moves_strays_out_of_sight(lake: Path) -> None:
    """Foreign files beside the visible months are kept where no reader takes them for part of the lake."""
    shutil.copy(find_file(lake), find_file(lake).with_name("copy.parquet"))
    (lake / "created_month=2026-12/more").mkdir(parents=True)
    (lake / "created_month=2026-12/more/x.parquet").write_bytes(find_file(lake).read_bytes())
    (lake / "created_month=2026-12/again").symlink_to(lake / "created_month=2026-11")
    (lake / "created_month=2026-11/.DS_Store").write_text("passed over")
    assert len(repair_lake(lake).done) == 3
    assert read_plainly(lake).height == 5
    strays = sorted((lake / "_lake/strays").iterdir())
    assert [path.name.rpartition(".")[0] for path in strays] == [
        "created_month=2026-11-copy.parquet", "created_month=2026-12-more-x.parquet"
    ]  # fmt: skip
    assert all(path.read_bytes() == find_file(lake).read_bytes() for path in strays)
    assert (lake / "created_month=2026-11/.DS_Store").exists()
    assert not list((lake / "_lake").rglob("*.parquet"))


def test_f43_repair_without_any_whole_copy(tmp_path: Path) -> None:
    """A broken or unreadable file that no older snapshot has whole is left out."""
    put(tmp_path, rows(1), rows(4, month=11))
    kept = find_object(tmp_path, number=1)
    overwrite(find_file(tmp_path), b"PAR1")
    repaired = repair_lake(tmp_path)
    assert (repaired.snapshot, repaired.problems) == (2, ())
    assert scan_lake(tmp_path).collect().height == read_plainly(tmp_path).height == 1
    assert not find_file(tmp_path).exists()
    assert kept.read_bytes() == b"PAR1", "an object never changes"


def test_f43_repair_with_nothing_left(tmp_path: Path) -> None:
    """With a pointer to nowhere, no snapshot and no month, the next dump starts from the beginning."""
    put(tmp_path, rows(1))
    for name in ("_lake/snapshots", "_lake/objects", "created_month=2026-10"):
        shutil.rmtree(tmp_path / name)
    assert repair_lake(tmp_path).snapshot == 0
    assert put(tmp_path, rows(1)).snapshot == 1
    with pytest.raises(LakeError, match="no lake"):
        repair_lake(tmp_path / "nowhere")


def test_f43_repair_of_nothing_but_the_visible_months(lake: Path) -> None:
    """If only the visible months are left they are the lake, and the next dump reads the whole list."""
    shutil.rmtree(lake / "_lake")
    (lake / "_jobs.duckdb").touch()
    for open_it in (scan_lake, lambda lake: put(lake, rows(1))):
        with pytest.raises(LakeError, match="has months but no pointer"):
            open_it(lake)
    assert not verify_lake(lake).ok
    assert read_plainly(lake).height == 5, (
        "a dump replaced them, without the jobs that its server no longer lists"
    )
    assert repair_lake(lake).problems == ()
    assert scan_lake(lake).collect().height == read_plainly(lake).height == 5
    assert put(lake, rows(6, month=11)).rows == 6
    repair_catalogue(lake)
    assert verify_lake(lake).ok


def test_f43_repair_waits_for_nobody(lake: Path) -> None:
    """Repair takes the lock or is refused; it does not move a folder that is in the place of the pointer."""
    with hold_lock(Layout(lake)), pytest.raises(LakeLocked):
        repair_lake(lake)
    (lake / "_lake/current").unlink()
    (lake / "_lake/current").mkdir()
    with pytest.raises(LakeError, match="plain file"):
        repair_lake(lake)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["file", "damage", "manifest", "pointer"])
def test_f43_after_a_repair_the_next_dump_brings_all_back(how: str, tmp_path: Path) -> None:
    """The next dump is full if data was missing, and vanished jobs stay vanished."""
    sandbox = Sandbox(World(jobs=600, days=80, seed=2))

    def dump() -> Any:
        with Client(SERVER, api_key=API_KEY, transport=sandbox, rate=10_000_000) as client:
            return dump_export_jobs(tmp_path, client=client, progress=False)

    dump()
    job = sandbox.world.visible()[5]
    sandbox.world.remove(job["id"], job["companyId"])
    assert dump().vanished == [(job["companyId"], job["id"])]
    sandbox.world.advance(86_400)
    dump()
    layout = Layout(tmp_path)
    number = layout.number()
    assert number is not None
    last = layout.manifest(number).files[-1]
    if how == "file":
        (layout.objects / last.object).unlink()
        (tmp_path / last.path).unlink()
    elif how == "damage":
        overwrite(tmp_path / last.path, bytes(last.bytes))
    elif how == "manifest":
        layout.manifest_file(number).unlink()
    else:
        layout.current.unlink()
    sandbox.world.advance(86_400)
    with pytest.raises(LakeError):
        dump()
    assert repair_lake(tmp_path).problems == ()
    receipt = dump()
    assert receipt.mode == ("refresh" if how == "pointer" else "full")
    for lake_rows in (scan_lake(tmp_path).collect(), read_plainly(tmp_path)):
        found = lake_rows.filter(pl.col("id") != job["id"]).drop("extra").to_dicts()
        assert sandbox.truth(found, sandbox.world.now) == []
    (state,) = layout.manifest(receipt.snapshot).accounts.values()
    assert state.vanished == [(job["companyId"], job["id"])]
    assert dump().mode == "refresh"


# The record


def test_last_run_is_written_and_read(tmp_path: Path) -> None:
    """Failed runs are recorded, too; the last complete run is carried on; an unreadable record counts as none."""
    layout = Layout(tmp_path)
    assert read_last_run(layout) is None
    for code, complete in ((0, True), (75, False)):
        receipt = {"run": "r", "code": code, "published": complete}
        write_last_run(layout, receipt=receipt, error=None, complete=complete, failed={})
    last = read_last_run(layout)
    assert last is not None
    assert (last.code, last.published) == (75, False)
    assert last.last_complete_at is not None
    assert last.last_complete_at < last.ended_at
    assert last.seconds_since_complete is not None
    layout.last_run.write_bytes(b"{")
    assert read_last_run(layout) is None


def test_a_record_that_cannot_be_written_hides_nothing(tmp_path: Path) -> None:
    """The error of the run is raised, not that of the record."""
    sandbox = Sandbox(World(jobs=900))
    (tmp_path / "_lake/last_run.json").mkdir(parents=True)
    with (
        Client(SERVER, api_key=API_KEY, transport=sandbox, rate=10_000_000) as client,
        pytest.raises(RequestsExceeded),
    ):
        dump_export_jobs(tmp_path, client=client, progress=False, max_requests=1)


# The disk


def test_nothing_but_disk_changes_a_lake() -> None:
    """No other file of the room opens, renames or removes files, except the lock's own."""
    doors = ("status.py", "store.py")  # what they open is a lake, not a file
    changing = {
        "chmod", "copy", "copyfile", "copytree", "fdopen", "hardlink_to", "link", "link_to", "makedirs", "mkdir", "move",
        "open", "remove", "removedirs", "rename", "renames", "rmdir", "rmtree", "symlink", "symlink_to", "touch",
        "truncate", "unlink", "utime", "write_bytes", "write_text", "sink_ipc", "write_ipc",
    }  # fmt: skip
    for path in sorted([*ROOM.glob("*.py"), *ROOM.glob("folder/*.py")]):
        if path.name == "disk.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            owner = ast.unparse(node.func.value) if isinstance(node.func, ast.Attribute) else ""
            if name in ("write_parquet", "write_ipc_stream", "sink_parquet"):
                assert ast.unparse(node.args[0]) == "buffer", f"{path.name}:{node.lineno}"
            elif name == "replace":
                assert owner == "msgspec.structs", f"{path.name}:{node.lineno}"
            elif (path.name, owner, name) != ("lock.py", "os", "open") and (
                path.name not in doors or name != "open"
            ):
                assert name not in changing or owner == "disk", (
                    f"{path.name}:{node.lineno} calls {owner}.{name}"
                )


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o022, 0o027, 0o077])
def test_f55_modes_follow_the_umask(umask: int, tmp_path: Path) -> None:
    """A lake has other readers than its writer: its files follow the umask, but staging and rejected rows stay private."""
    before = os.umask(umask)
    try:
        sandbox = Sandbox(World(jobs=400, days=20), faults="2:badrow.float")
        lake = tmp_path / "lake"
        with Client(SERVER, api_key=API_KEY, transport=sandbox, rate=10_000_000) as client:
            for options in ({"max_requests": 3}, {}):
                with pytest.raises((RequestsExceeded, RejectedRows)):
                    dump_export_jobs(lake, client=client, progress=False, **options)  # type: ignore[arg-type]
                check_modes(lake, umask)
    finally:
        os.umask(before)
    assert list(lake.glob("created_month=*/*"))


def check_modes(lake: Path, umask: int) -> None:
    """Check that every mode is exactly what the umask says."""
    for path in [lake, *lake.rglob("*")]:
        inside = path.relative_to(lake).parts
        mode = stat.S_IMODE(path.stat().st_mode)
        if inside[:2] in (("_lake", "staging"), ("_lake", "rejected")):
            assert not mode & 0o077, f"{path}: {mode:o}"
        elif inside[:2] == ("_lake", "objects") or inside[:1] > ("created_month=",):
            assert mode == (0o777 if path.is_dir() else 0o444) & ~umask, f"{path}: {mode:o}"
        else:
            assert mode == (0o777 if path.is_dir() else 0o666) & ~umask, f"{path}: {mode:o}"


PLANTED = (
    "_lake", "_lake/staging", "_lake/snapshots", "_lake/objects", "_lake/rejected", "_lake/strays", "_lake/lock",
    "created_month=2026-10"
)  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
def test_f55_a_planted_link_is_not_followed(name: str, tmp_path: Path) -> None:
    """Nothing is written, truncated or removed where a link leads that is in place of a file of the lake."""
    lake, outside = tmp_path / "lake", tmp_path / "outside"
    (lake / name).parent.mkdir(parents=True)
    if name.startswith("created_month"):
        put(lake, rows(1, month=9))
    outside.mkdir()
    (outside / "precious").write_text("mine")
    os.utime(outside / "precious", (0, 0))
    (lake / name).symlink_to(outside / "precious" if name.endswith("lock") else outside)
    with pytest.raises((LakeError, StorageError)):
        put(lake, rows(1))
    if name.startswith("created_month"):
        assert repair_lake(lake).done == (f"{name}: a link, removed",)
    else:
        with pytest.raises((LakeError, StorageError)):
            repair_lake(lake)
    assert [path.name for path in outside.iterdir()] == ["precious"]
    assert (outside / "precious").read_text() == "mine"


@pytest.mark.parametrize("what", ["month", "file"])
def test_f55_repair_removes_a_planted_link(what: str, lake: Path) -> None:
    """Our readers do not follow a link in place of a visible month or its file, and the next dump replaces it."""
    outside = lake.parent / "outside"
    find_file(lake).parent.rename(outside)
    if what == "month":
        find_file(lake).parent.symlink_to(outside)
    else:
        find_file(lake).parent.mkdir()
        find_file(lake).symlink_to(outside / "part-0.parquet")
    assert not verify_lake(lake).ok
    assert repair_lake(lake).problems == ()
    assert not find_file(lake).is_symlink()
    assert not find_file(lake).parent.is_symlink()
    assert read_plainly(lake).equals(scan_lake(lake).collect())
    assert read_plainly(lake).height == 5
    assert [path.name for path in outside.iterdir()] == ["part-0.parquet"]


def test_f55_a_link_at_a_batch_or_temporary_name_is_not_followed(lake: Path) -> None:
    """The link is replaced, and what it led to stays."""
    layout = Layout(lake)
    precious = lake.parent / "precious"
    precious.write_text("mine")
    staging = Staging.start(layout.staging, "binding", header(layout))
    (staging.folder / "batch-000000.arrow").symlink_to(precious)
    staging.add(rows(1))
    assert staging.frame().height == 1
    (staging.folder / "journal.jsonl").unlink()
    (staging.folder / "journal.jsonl").symlink_to(precious)
    with pytest.raises(StorageError):
        staging.add(rows(2))
    for name in (
        "_lake/snapshots/.000003.json.new",
        "_lake/.current.new",
        "created_month=2026-10/.part-0.parquet.new",
    ):
        (lake / name).symlink_to(precious)
    put(lake, rows(9))
    assert precious.read_text() == "mine"
    assert verify_lake(lake).ok


def test_a_file_that_no_manifest_names_is_not_read(tmp_path: Path) -> None:
    """A copy of a visible file, as a tool may leave one, counts nothing twice, and verify names it."""
    put(tmp_path, rows(1, 2, 3))
    part = find_file(tmp_path, "2026-10")
    shutil.copy(part, part.with_name("copy.parquet"))
    assert scan_lake(tmp_path).collect().height == 3
    assert connect(tmp_path).execute("select count(*) from export_jobs").fetchone() == (3,)
    assert not verify_lake(tmp_path).ok
    put(tmp_path, rows(4))
    assert scan_lake(tmp_path).collect().height == 4


def test_a_pointer_lost_after_a_failed_run_is_noticed(tmp_path: Path) -> None:
    """The catalogue also shows that something was published, where the record of a failed run does not."""
    put(tmp_path, rows(1))
    (tmp_path / "_lake/current").unlink()
    (tmp_path / "_jobs.duckdb").touch()
    with pytest.raises(LakeError, match="lost its pointer"):
        scan_lake(tmp_path)


def test_a_lake_may_be_reached_through_a_link(tmp_path: Path) -> None:
    """The lake's own folder can be a link, for example to a larger disk."""
    (tmp_path / "big").mkdir()
    (tmp_path / "lake").symlink_to("big")
    assert put(tmp_path / "lake", rows(1)).snapshot == 1
    assert scan_lake(tmp_path / "big").collect().height == 1


@pytest.mark.parametrize(
    "call",
    [
        lambda place: disk.write_file(place / "no/file", b"12345"),
        lambda place: disk.ScratchFile(place / "no").__enter__(),
        lambda place: disk.append_line(place / "no/file", b"1234"),
        lambda place: disk.replace_file(place / "no/file", b"12345"),
        lambda place: disk.make_folder(place / "file/folder"),
        lambda place: disk.rename(place / "nothing", place / "x"),
        lambda place: disk.link_file(place / "nothing", place / "x"),
        lambda place: disk.link_file(place / "file", place / "no/x"),
        lambda place: disk.protect_file(place / "nothing"),
        lambda place: disk.sync_file(place / "nothing"),
        lambda place: disk.sync_folder(place / "no"),
        lambda place: disk.remove_file(place / "folder"),
        lambda place: disk.remove_tree(place / "file/x"),
        lambda place: disk.list_folder(place / ("x" * 300)),
        lambda place: disk.open_lock(place / "no/file"),
        lambda place: disk.write_output(place / "no/file", b"1"),
        lambda place: disk.write_output(place / "folder", b"1"),
    ],
)
def test_f39_disk_errors_name_the_path(call: Callable[[Path], object], tmp_path: Path) -> None:
    """Every failing call raises StorageError, 74, with the path."""
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError, match=str(tmp_path)) as caught:
        call(tmp_path)
    assert caught.value.code == 74
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


@pytest.mark.parametrize("failing", ["write", "fsync", "replace"])
def test_f39_a_file_that_cannot_be_written_leaves_nothing(
    failing: str, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The temporary file is removed, the old file stays, and the message has the size."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    file = lake / "_lake/snapshots/000002.json"
    data = file.read_bytes()
    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(StorageError, match="No space left") as caught:
        disk.replace_file(file, b"12345")
    monkeypatch.undo()
    assert failing == "replace" or "(5 bytes)" in str(caught.value)
    assert file.read_bytes() == data
    assert sorted(path.name for path in file.parent.iterdir()) == ["000001.json", "000002.json"]


def test_a_run_whose_publishing_failed_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pointer cannot be replaced: 74, `published` false, and the lake is as before, without a snapshot."""
    whole = disk.replace_file

    def fail(path: Path, *args: Any, **more: Any) -> None:
        if path.name == "current":
            raise StorageError(f"cannot rename {path}")
        whole(path, *args, **more)

    def dump() -> None:
        with Client(SERVER, api_key=API_KEY, transport=sandbox, rate=10_000_000) as client:
            dump_export_jobs(tmp_path, client=client, progress=False)

    sandbox = Sandbox(World(jobs=50))
    monkeypatch.setattr(disk, "replace_file", fail)
    with pytest.raises(StorageError) as caught:
        dump()
    last = read_last_run(Layout(tmp_path))
    assert last is not None
    assert (last.code, last.published, last.receipt["snapshot"], last.receipt["lake_rows"]) == (
        74,
        False,
        0,
        0,
    )
    assert caught.value.code == 74
    with pytest.raises(TryLater, match=r"no dump to .* has been completed yet \(100 rows staged\); run: "):
        scan_lake(tmp_path)
    monkeypatch.undo()
    dump()
    assert scan_lake(tmp_path).collect().height == 50


# Months of many rows


def dump_twice(lake: Path, sandbox: Sandbox) -> None:
    """Make a first dump, and a refresh some days later."""
    with Client(SERVER, api_key=API_KEY, transport=sandbox, rate=10_000_000) as client:
        dump_export_jobs(lake, client=client, progress=False)
        sandbox.world.advance(3 * 86_400)
        dump_export_jobs(lake, client=client, progress=False)


@pytest.mark.slow
@pytest.mark.parametrize("piece", [3, 150])
def test_a_month_in_pieces_is_the_month(piece: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory holds one piece; the rows and their order are those of a month that is merged as a whole."""
    dump_twice(tmp_path / "whole", Sandbox(World(jobs=900)))
    most = 0

    def watch(*frames: pl.DataFrame) -> pl.DataFrame:
        nonlocal most
        merged = merge_rows(*frames)
        most = max(most, merged.height)
        return merged

    monkeypatch.setattr(merging, "PIECE", piece)
    monkeypatch.setattr(merging, "merge_rows", watch)
    sandbox = Sandbox(World(jobs=900))
    dump_twice(tmp_path / "pieces", sandbox)
    whole, pieces = (sorted((tmp_path / name).glob("*/*.parquet")) for name in ("whole", "pieces"))
    assert [path.parent.name for path in pieces] == [path.parent.name for path in whole]
    for one, other in zip(pieces, whole, strict=True):
        assert pl.read_parquet(one).drop("expires_in").equals(pl.read_parquet(other).drop("expires_in"))
    assert most <= 2 * piece + 20  # the jobs of one company and day stay together
    assert not sandbox.truth(
        scan_lake(tmp_path / "pieces").drop("extra").collect().to_dicts(), sandbox.world.now
    )
    assert verify_lake(tmp_path / "pieces").ok


@pytest.mark.parametrize("at_once", [7, 100, 8_000_000])
@pytest.mark.parametrize("numbers", [50, 2**63])
def test_repeated_keys_are_counted(
    tmp_path: Path, at_once: int, numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that repeat a key are counted, over files and ranges; two keys with one hash are not one key."""
    monkeypatch.setattr(keys, "RANGE", at_once)
    if numbers == 50:
        monkeypatch.setattr(keys, "_HASH", (pl.struct("company_id", "id").hash() % numbers).alias("hash"))
    files = [tmp_path / f"{n}.parquet" for n in range(3)]
    for start, path in enumerate(files):
        rows(*range(100 * start, 100 * start + 100)).write_parquet(path)
    assert keys.count_repeats(files, 300) == 0
    rows(4, 150, 150, 900).write_parquet(tmp_path / "more.parquet")
    assert keys.count_repeats([*files, tmp_path / "more.parquet"], 304) == 3
    assert keys.count_repeats([], 0) == 0


def test_f39_verify_without_room_for_its_numbers(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full temporary folder is an error of the disk with its path, not an error of the lake."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    put(lake, rows(1, 2))
    monkeypatch.setattr(disk, "_write_all", full)
    with pytest.raises(StorageError, match=f"{tempfile.gettempdir()}.*No space left"):
        verify_lake(lake)


def test_a_job_in_two_pieces_is_merged_all_the_same(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server moves createdAt within the month: the later version stays, and there is one."""
    monkeypatch.setattr(merging, "PIECE", 1)
    moved = rows(2, status="failed", hour=5).with_columns(pl.col("created_at") + timedelta(days=1))
    put(lake, moved)
    found = scan_lake(lake).filter(pl.col("created_at").dt.month() == 10).sort("id").collect()
    assert found["status"].to_list() == ["completed", "failed", "completed"]


@pytest.mark.parametrize("runs", [1, 3, 50])
def test_rows_staged_in_many_batches_are_found_in_every_run(
    tmp_path: Path, runs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Staged rows are sorted in a limited number of runs, and each piece finds its rows in each run."""
    written: list[int] = []

    class Watched(merging._SortedRun):
        def __init__(self, scratch: disk.ScratchFile, staged: pl.DataFrame) -> None:
            written.append(staged.height)
            super().__init__(scratch, staged)

    monkeypatch.setattr(merging, "_SortedRun", Watched)
    monkeypatch.setattr(merging, "SLICE", 9)
    monkeypatch.setattr(merging, "PIECE", 7)
    monkeypatch.setattr(merging, "RUN", 20)
    monkeypatch.setattr(merging, "FRAME", 1)
    monkeypatch.setattr(merging, "RUNS", runs)
    companies = [f"0000000{n}-0000-4000-8000-00000000000{n}" for n in range(3)]
    all_rows = rows(*range(300)).with_columns(
        pl.Series("company_id", [companies[n % 3] for n in range(300)]),
        pl.col("created_at") + pl.duration(days=pl.int_range(300) % 11),
    )
    put(tmp_path, *(all_rows.gather_every(10, n) for n in range(10)))
    assert sum(written) == 300
    assert len(written) == {1: 1, 3: 3, 50: 10}[runs]
    assert scan_lake(tmp_path).collect().equals(merge_rows(all_rows))


def test_f39_a_disk_error_while_pieces_are_merged_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not an error of the library that writes the file."""
    monkeypatch.setattr(merging, "PIECE", 20)

    def fail(_: Staging, batch: object) -> pl.DataFrame:
        raise StorageError("cannot read batch-000001.arrow: Input/output error")

    monkeypatch.setattr(Staging, "_read", fail)
    with (
        Client(SERVER, api_key=API_KEY, transport=Sandbox(World(jobs=900)), rate=10_000_000) as client,
        pytest.raises(StorageError, match="Input/output error"),
    ):
        dump_export_jobs(tmp_path, client=client, progress=False)


def test_few_rows_that_a_large_month_has_already_cost_no_sorting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refresh without news looks its rows up instead of sorting a large month."""
    monkeypatch.setattr(merging, "PIECE", 3)
    put(tmp_path, rows(*range(10)))
    monkeypatch.setattr(merging, "_SortedRun", None)
    assert put(tmp_path, rows(2, 5)).snapshot == 1


@pytest.mark.parametrize("piece", [1, 25_000])
def test_f73_a_month_that_holds_a_job_twice_is_changed(
    tmp_path: Path, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A month with more rows than jobs is written again with one row each, even if no row that was read is new."""
    monkeypatch.setattr("pleo_extract.lake.merging.PIECE", piece)
    place, layout = tmp_path / "lake", Layout(tmp_path / "lake")
    put(place, rows(1, 2, 3))
    manifest, file = layout.manifest(1), find_file(place, "2026-10")
    doubled = pl.concat([pl.read_parquet(file)] * 2).sort("created_at")
    file.unlink()
    doubled.write_parquet(file)
    data = file.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    entry = msgspec.structs.replace(
        manifest.files[0], rows=6, bytes=len(data), sha256=sha256, object=f"2026-10-{sha256}"
    )
    (layout.objects / entry.object).hardlink_to(file)
    doubled_manifest = msgspec.structs.replace(manifest, rows=6, files=[entry])
    layout.manifest_file(1).write_bytes(msgspec.json.encode(doubled_manifest))
    assert put(place, rows(2)).rows == 3
    assert verify_lake(place).ok
    assert read_plainly(place).height == 3
    assert put(place, rows(1, 2, 3)).snapshot == 2, "nothing is new any more"
