"""Test `Lake`: opened once, asked everything; the changes between two snapshots; how long snapshots stay."""

from __future__ import annotations

import inspect
import subprocess
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import duckdb
import polars as pl
import pytest
from canary import CANARY
from lakes import dump

import pleo_extract
from pleo_extract import COLUMNS, Lake, scan_lake, verify_lake
from pleo_extract.answers.doors import write_catalogue
from pleo_extract.cli import group
from pleo_extract.errors import LakeError, PleoExtractError, UsageError
from pleo_extract.lake.folder.pruning import prune
from pleo_extract.lake.folder.publish import write_manifest
from pleo_extract.lake.folder.repair import repair_lake
from pleo_extract.lake.layout import Layout
from pleo_extract.lake.status import read_status
from pleo_extract.lake.table import Keep
from pleo_extract.report import write_report
from pleo_extract.sandbox import Sandbox, World

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """Make a lake of two snapshots; return the job of each kind of change between them."""
    world = World(jobs=0, now=NOW)
    for n in range(150):
        world.insert(NOW - timedelta(days=59 - n / 3, hours=1), status="completed")
    jobs = [job["id"] for job in world.visible()]
    open_one = world.insert(NOW - timedelta(hours=3), status="in_progress", completedAt=None)
    sandbox = Sandbox(world, api_keys={CANARY: None})
    lake = tmp_path_factory.mktemp("changed") / "lake"
    dump(lake, sandbox)
    new = world.insert(NOW, status="pending", startedAt=None, completedAt=None)
    world.change(open_one["id"], status="failed", failureReasonType="service_timeout")
    world.change(jobs[20], numberOfItems=999)
    world.remove(jobs[40])
    world.move(jobs[60], NOW - timedelta(days=1))
    dump(lake, sandbox, full=True)
    kinds = {
        "new": new["id"],
        "ended": open_one["id"],
        "changed": jobs[20],
        "vanished": jobs[40],
        "moved": jobs[60],
    }
    return lake, kinds


@pytest.fixture
def lake(changed: tuple[Path, dict[str, str]], tmp_path: Path) -> Path:
    """Copy that lake."""
    subprocess.run(["cp", "-a", changed[0], tmp_path / "lake"], check=True)
    return tmp_path / "lake"


def test_the_doors_of_a_lake_say_what_the_functions_say(lake: Path, tmp_path: Path) -> None:
    """Each method returns what the function of the same name returns."""
    found = Lake(lake)
    assert found.scan().collect().equals(scan_lake(lake).collect())
    assert found.scan(1).collect().equals(scan_lake(lake, 1).collect())
    assert found.connect().sql("SELECT count(*) FROM export_jobs").fetchall() == [(152,)]
    assert found.verify() == verify_lake(lake)
    assert found.status().rows == read_status(lake).rows == 152
    one, two = (tmp_path / f"{n}.html" for n in range(2))
    since = date(2030, 1, 1)  # a time without jobs, which is quick
    assert found.report(one, since=since).read_bytes() == write_report(lake, two, since=since).read_bytes()
    assert repr(found) == f"Lake({str(lake)!r})"


def test_a_lake_that_is_not_there() -> None:
    """To name a lake that does not exist costs nothing; every question raises."""
    found = Lake("/nowhere/at/all")
    for ask in (
        found.scan,
        found.connect,
        found.verify,
        found.status,
        found.snapshots,
        lambda: found.changes(1),
    ):
        with pytest.raises(LakeError, match="there is no lake"):
            ask()


@pytest.mark.parametrize("at", [-6, -40, 10])
def test_damaged_data_files_are_named_by_status_and_report(at: int, tmp_path: Path) -> None:
    """Bytes that polars cannot read are an error of the lake in words, wherever in the file they are."""
    lake = tmp_path / "lake"
    dump(lake, Sandbox(World(jobs=30), api_keys={CANARY: None}))
    for path in [*lake.glob("created_month=*/*.parquet"), *(lake / "_lake/objects").iterdir()]:
        data = bytearray(path.read_bytes())
        data[at : at + 5 if at + 5 < 0 or at >= 0 else None] = b"\xff" * 5
        path.chmod(0o644)
        path.write_bytes(data)
    # Only damage outside of the footer can go unseen.
    expected = suppress(PleoExtractError) if at == 10 else pytest.raises(LakeError, match="cannot be read")
    for ask in (read_status, lambda path: write_report(path, tmp_path / "report.html")):
        with expected:
            ask(lake)
    assert not verify_lake(lake).ok


@pytest.mark.parametrize("ask", [verify_lake, repair_lake, read_status])
def test_a_mistyped_folder_names_the_lake_beside_it(ask: Callable[[Path], object], tmp_path: Path) -> None:
    """The message for a missing folder names the lake that is meant, but no folder that is none."""
    dump(tmp_path / "export_jobs", Sandbox(World(jobs=3), api_keys={CANARY: None}))
    (tmp_path / "export_jobz").mkdir()
    (tmp_path / "export_job.txt").touch()
    with pytest.raises(LakeError, match=r"export_job; did you mean .*/export_jobs\?"):
        ask(tmp_path / "export_job")
    with pytest.raises(LakeError, match="elsewhere; make one with"):
        ask(tmp_path / "elsewhere")


def test_what_public_signatures_name_is_public() -> None:
    """`Lake` and `Receipt` can be imported from the top, and every method of a lake has a docstring."""
    assert {"Lake", "Receipt"} <= set(pleo_extract.__all__)
    verbs = [each for name, each in vars(Lake).items() if callable(each) and not name.startswith("_")]
    assert all(inspect.getdoc(each) for each in verbs)
    assert {each.__name__ for each in verbs} == {
        "changes", "connect", "forget", "report", "scan", "snapshots", "status", "verify",
    }  # fmt: skip


def test_snapshots_and_what_each_costs(lake: Path) -> None:
    """There is one row a snapshot; its new bytes are those of files that the one before does not have."""
    found = Lake(lake).snapshots()
    assert found["snapshot"].to_list() == [1, 2]
    assert found["rows"].to_list() == [151, 152]
    assert found["made_at"].is_sorted()
    objects = {path.name: path.stat().st_size for path in Layout(lake).objects.iterdir()}
    assert found["new_bytes"].sum() == sum(objects.values())
    assert found["bytes"][1] == sum(path.stat().st_size for path in lake.glob("created_month=*/*.parquet"))


def test_changes_name_each_kind_once(lake: Path, changed: tuple[Path, dict[str, str]]) -> None:
    """There is one row for each job that is new, ended, changed (a move to another month included) or vanished."""
    kinds = changed[1]
    found = Lake(lake).changes(1, 2)
    assert found.columns == ["change", "status_before", *COLUMNS]
    assert dict(found.select("id", "change").iter_rows()) == {
        kinds["new"]: "new",
        kinds["ended"]: "ended",
        kinds["changed"]: "changed",
        kinds["moved"]: "changed",
        kinds["vanished"]: "vanished",
    }
    before = dict(found.select("change", "status_before").iter_rows())
    assert (before["new"], before["ended"], before["vanished"]) == (None, "in_progress", "completed")
    assert found.filter(change="ended")["status"].to_list() == ["failed"]
    assert found["created_at"].is_sorted()


def test_changes_between_instants_and_numbers(lake: Path) -> None:
    """A snapshot is named by number or by an instant; the later one is the current one by default."""
    found = Lake(lake)
    made = found.snapshots()["made_at"].to_list()
    assert found.changes(made[0]).equals(found.changes(1))
    assert found.changes(made[0], made[1]).equals(found.changes(1, 2))
    assert found.changes(2).is_empty()
    assert found.changes(2, 2).schema == found.changes(1).schema
    with pytest.raises(UsageError, match="name the earlier one first"):
        found.changes(2, 1)
    with pytest.raises(UsageError, match="not kept"):
        found.changes(7)


@pytest.mark.catalogue
def test_changes_after_a_repair_name_what_is_gone(lake: Path) -> None:
    """A row that the later snapshot does not have is `removed`."""
    layout = Layout(lake)
    manifest = layout.manifest(2)
    entry = manifest.files[0]
    manifest.files.remove(entry)
    manifest.rows -= entry.rows
    manifest.snapshot = 3
    write_manifest(layout, manifest)
    layout.current.write_text("3\n")
    found = Lake(lake).changes(2)
    assert found["change"].unique().to_list() == ["removed"]
    assert found.height == entry.rows
    assert ask_catalogue(lake, "2").equals(found)


def ask_catalogue(lake: Path, arguments: str) -> pl.DataFrame:
    """Return the answer of the catalogue's macro `changes`, with the types of `Lake.changes`."""
    target = lake.parent / "catalogue.duckdb"
    if not target.exists():  # it reads the lake as it is when it is asked
        write_catalogue(lake, target)
    with duckdb.connect(str(target), read_only=True) as con:
        con.execute("SET TimeZone = 'UTC'")
        found: pl.DataFrame = con.sql(f"FROM changes({arguments})").pl()
        return found.cast(Lake(lake).changes(2).schema)


@pytest.mark.catalogue
def test_the_catalogue_has_changes_as_a_macro(lake: Path) -> None:
    """The macro gives the rows of `Lake.changes`, between numbers and between instants."""
    found = Lake(lake)
    made = found.snapshots()["made_at"].to_list()
    for since, until in ((1, None), (1, 2), (2, 2), (made[0], made[1]), (made[1], None)):
        arguments = ", ".join(f"'{each}'" for each in (since, until) if each is not None)
        assert ask_catalogue(lake, arguments).equals(found.changes(since, until)), arguments
    assert ask_catalogue(lake, "until := 2, since := 1").height == 5
    for wrong, message in (
        ("7", "no such snapshot is kept"),
        ("NULL", "no such snapshot is kept"),
        ("'yesterday'", "no such snapshot is kept"),
        ("2, 1", "name the earlier one first"),
    ):
        with pytest.raises(duckdb.Error, match=message):
            ask_catalogue(lake, wrong)
    missing = next(each for each in Layout(lake).manifest(1).files if each.object not in objects_of(lake, 2))
    Layout(lake).objects.joinpath(missing.object).unlink()
    with pytest.raises(duckdb.Error, match="is missing"):
        ask_catalogue(lake, "1")


def objects_of(lake: Path, snapshot: int) -> set[str]:
    """Return the names of the objects of a snapshot."""
    return {entry.object for entry in Layout(lake).manifest(snapshot).files}


def test_the_command(lake: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """`changes` compares the last two snapshots by default, and writes a file as `sql` does."""
    group.main(["changes", str(lake)], standalone_mode=False)
    shown = capsys.readouterr().out
    assert "vanished" in shown
    assert "(5 rows" in shown
    group.main(["changes", str(lake), "--since", "1", "-o", str(tmp_path / "x.csv")], standalone_mode=False)
    assert pl.read_csv(tmp_path / "x.csv")["change"].sort().to_list() == [
        "changed", "changed", "ended", "new", "vanished",
    ]  # fmt: skip


class TestKeep:
    """Which snapshots stay."""

    @pytest.fixture
    def layout(self, lake: Path) -> Layout:
        """Make a lake with a snapshot an hour for ten days, all of the same files."""
        layout = Layout(lake)
        manifest = layout.manifest(2)
        for number in range(1, 241):
            manifest.snapshot, manifest.made_at = number, NOW + timedelta(hours=number)
            write_manifest(layout, manifest)
        layout.current.write_text("240\n")
        return layout

    def test_one_a_day_after_two_days(self, layout: Layout) -> None:
        """With a long keep time, only the last of each day stays of snapshots replaced more than 48 hours ago."""
        now = NOW + timedelta(hours=240)
        prune(layout, 240, Keep(timedelta(days=90)), now=now)
        kept = [layout.made_at(number) for number in layout.numbers()]
        recent = [made for made in kept if made > now - timedelta(hours=49)]
        assert len(recent) in (48, 49)
        older = [made for made in kept if made not in recent]
        assert [made.date().day for made in older] == list(range(1, 9))
        assert all(made.hour == 23 for made in older[:-1])

    def test_all_snapshots_on_request(self, layout: Layout) -> None:
        """An option keeps every snapshot."""
        prune(layout, 240, Keep(timedelta(days=90), every=True), now=NOW + timedelta(hours=240))
        assert len(layout.numbers()) == 240

    def test_a_day_by_default(self, layout: Layout) -> None:
        """By default snapshots stay that were replaced within the 24 hours before the last but one was made."""
        prune(layout, 240, Keep(), now=NOW + timedelta(hours=240))
        assert layout.numbers() == list(range(215, 241))

    def test_it_is_the_same_an_hour_later(self, layout: Layout) -> None:
        """Thinning is stable: the last snapshot of a day stays the last of that day."""
        for later in range(5):
            prune(layout, 240, Keep(timedelta(days=90)), now=NOW + timedelta(hours=240 + later))
        days = [layout.made_at(number).date() for number in layout.numbers()]
        assert len(set(days)) == 11
