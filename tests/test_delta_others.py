"""A Delta table that other engines write: delta-rs compacts, appends, deletes and vacuums at chosen moments."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from deltalake import DeltaTable, Field, Schema, write_deltalake
from deltalake.schema import PrimitiveType
from test_delta import DAY, Home

from pleo_extract import COLUMNS, connect, scan_lake, verify_lake
from pleo_extract.contract import KEY
from pleo_extract.errors import ConfigurationError, LakeError, LakeLocked, PleoExtractError
from pleo_extract.lake.delta.address import read_address
from pleo_extract.lake.delta.version import Version
from pleo_extract.lake.store import open_lake
from pleo_extract.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pleo_extract.sandbox import RequestLike, Response


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Return a world, dumped twice, that has changed since: the next dump replaces a file."""
    found = Home(tmp_path / "table")
    for _ in range(2):
        assert found.dump().code == 0
        found.world.advance(2 * DAY)
    return found


def _compact(home: Home) -> None:
    assert home.table().optimize.z_order(["id"])["numFilesRemoved"]


def _append(home: Home) -> None:
    """Append the rows of the latest month once more."""
    rows = pl.read_delta(str(home.path))
    last = rows.filter(pl.col("created_month") == pl.col("created_month").max())
    write_deltalake(str(home.path), last.to_arrow(), mode="append")


def _append_all(home: Home) -> None:
    write_deltalake(str(home.path), pl.read_delta(str(home.path)).to_arrow(), mode="append")


def _delete(home: Home) -> None:
    assert home.table().delete("status = 'failed'")["num_deleted_rows"]


def _delete_a_month(home: Home) -> None:
    months = pl.read_delta(str(home.path))["created_month"].unique().sort()
    assert home.table().delete(f"created_month = '{months[0]}'")["num_deleted_rows"]


def _update(home: Home) -> None:
    assert home.table().update({"created_by": "'somebody'"}, predicate="status = 'completed'")


def _set_property(home: Home) -> None:
    home.table().alter.set_table_properties({"delta.logRetentionDuration": "interval 9 days"})


def _vacuum(home: Home) -> None:
    assert home.table().vacuum(0, dry_run=False, enforce_retention_duration=False, full=True)


OTHERS: dict[str, Callable[[Home], None]] = {
    "compact": _compact,
    "append": _append,
    "append all": _append_all,
    "delete": _delete,
    "delete a month": _delete_a_month,
    "update": _update,
    "set a property": _set_property,
    "vacuum": _vacuum,
}


class At(Sandbox):
    """A sandbox that calls a function before it answers request number `at`."""

    def __init__(self, home: Home, at: int, what: Callable[[Home], object]) -> None:
        super().__init__(home.world)
        self._home, self._at, self._what = home, at, what

    def __call__(self, request: RequestLike) -> Response:
        """Answer like the sandbox."""
        if len(self.requests) + 1 == self._at:
            self._what(self._home)
        return super().__call__(request)


def _before_commit(monkeypatch: pytest.MonkeyPatch, what: Callable[[], object], *, times: int = 1) -> None:
    """Call a function between merge and commit, after the new files were written."""
    look_up, left = Version.find_missing, [times]

    def after(table: Version, entries: Any) -> list[str]:
        if left[0]:
            left[0] -= 1
            what()
        return look_up(table, entries)

    monkeypatch.setattr(Version, "find_missing", after)


def _has_each_job_once(home: Home) -> bool:
    rows = pl.read_delta(str(home.path))
    return not rows.select(KEY).is_duplicated().any() and rows.height == home.truth().height


@pytest.mark.slow
@pytest.mark.parametrize("full", [False, True], ids=["incremental", "full"])
@pytest.mark.parametrize("what", OTHERS)
def test_f73_another_commits_between_merge_and_commit(
    home: Home,
    what: str,
    full: bool,  # noqa: FBT001
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever another engine commits before ours, the dump is published on top of it, each job once."""
    _before_commit(monkeypatch, lambda: OTHERS[what](home))
    receipt = home.dump(full=full)
    assert (receipt.code, receipt.published) == (0, True)
    assert receipt.snapshot == home.table().version()
    assert receipt.lake_rows == home.truth().height
    assert _has_each_job_once(home)
    assert home.is_right()
    monkeypatch.undo()
    home.world.advance(DAY)
    assert home.dump().code == 0
    assert home.is_right()


@pytest.mark.slow
@pytest.mark.parametrize("at", [1, 3])
@pytest.mark.parametrize("what", ["compact", "append", "delete", "vacuum"])
def test_f73_another_commits_while_the_list_is_read(home: Home, what: str, at: int) -> None:
    """A commit of another engine during the walk is merged: nothing is lost or doubled."""
    if what == "vacuum":
        _compact(home)  # leaves files to vacuum
    home.sandbox = At(home, at, OTHERS[what])
    assert home.dump().code == 0
    assert _has_each_job_once(home)
    assert home.is_right()


def test_f73_a_first_dump_is_overtaken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A property set by another engine during the first commit does no harm."""
    home = Home(tmp_path / "table")
    written: list[str] = []
    write = Version.write

    def watch(table: Version, path: str, data: bytes) -> None:
        written.append(path)
        write(table, path, data)

    monkeypatch.setattr(Version, "write", watch)
    _before_commit(monkeypatch, lambda: _set_property(home))
    receipt = home.dump()
    assert receipt.snapshot == 2
    assert len(written) == len(home.table().file_uris()), "no file was written a second time"
    assert home.is_right()


def test_f73_others_always_commit_first(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five conflicts of any kind give 69, and nothing of the run is left."""
    before = home.lake()
    _before_commit(monkeypatch, lambda: _set_property(home), times=5)
    with pytest.raises(LakeLocked, match="5 times in a row") as caught:
        home.dump()
    assert caught.value.code == 69
    assert home.lake().equals(before)
    files = {str(path) for path in home.path.glob("created_month=*/*.parquet")}
    assert files == set(home.table().file_uris())
    assert home.dump().resumed
    assert home.is_right()


@pytest.mark.parametrize("what", ["append", "append all"])
def test_f73_rows_appended_a_second_time(home: Home, what: str) -> None:
    """After another engine appended rows twice, the next dump keeps one row per job."""
    OTHERS[what](home)
    assert "repeat a (company_id, id)" in verify_lake(home.path).problems[0]
    receipt = home.dump()
    assert (receipt.code, receipt.mode, receipt.published) == (0, "full", True)
    assert _has_each_job_once(home)
    assert home.is_right()
    with connect(home.path) as con:
        assert con.sql("select sum(jobs) from failure_rates('all')").fetchall() == [(home.lake().height,)]
    home.world.advance(DAY)
    assert home.dump().mode == "refresh"
    assert home.is_right()


def test_f73_rows_that_an_earlier_race_has_doubled(tmp_path: Path) -> None:
    """Doubles of an earlier race are found by the files, although our own commit was the last."""
    home = Home(tmp_path / "table")
    home.dump()
    _append(home)
    table = Version(read_address(home.path))
    known = Version(read_address(home.path), 1)
    assert known.state is not None
    table.commit([], [], known.state)  # what the losing run left: its own state, and doubled rows
    receipt = home.dump()
    assert (receipt.published, receipt.code) == (True, 0)
    assert _has_each_job_once(home)
    assert home.is_right()


def test_f73_a_compaction_is_looked_through_once(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that another engine compacted are searched once for doubles, and not rewritten."""
    home.dump()
    _compact(home)
    assert verify_lake(home.path).ok
    compacted = set(home.table().file_uris())
    assert Version(read_address(home.path)).suspects
    home.world.advance(DAY)
    receipt = home.dump()
    assert receipt.mode == "refresh"
    assert set(home.table().file_uris()) & compacted, "months without news are not rewritten"
    assert not Version(read_address(home.path)).suspects
    assert home.is_right()
    _append(home)
    assert Version(read_address(home.path)).suspects


REFUSALS: dict[str, tuple[str, type[PleoExtractError]]] = {
    "append only": ("append-only", ConfigurationError),
    "a constraint": ("has a constraint", ConfigurationError),
    "a feature": ("RowTracking", ConfigurationError),
    "deletion vectors": ("deletionVectors", LakeError),
}


def test_columns_that_others_add_are_kept(home: Home) -> None:
    """A nullable column of another engine stays with its values, also in the months that a dump rewrites."""
    home.table().alter.add_columns(
        [Field("note", PrimitiveType("string")), Field("weight", PrimitiveType("long"))]
    )
    noted = "status = 'completed'"
    assert home.table().update(
        {"note": "concat('about ', id)", "weight": "number_of_items * 2"}, predicate=noted
    )
    known = pl.DataFrame(home.table().to_pyarrow_table()).filter(pl.col("note").is_not_null())
    for days in (1, 20):
        home.world.advance(days * DAY)
        assert home.dump().months_written
        assert home.is_right()
        assert verify_lake(home.path).ok
        assert scan_lake(home.path).collect_schema().names() == list(COLUMNS)
    after = pl.DataFrame(home.table().to_pyarrow_table())
    assert after.height > known.height > 100
    assert (
        after.filter(pl.col("note").is_not_null()).select(known.columns).sort("id").equals(known.sort("id"))
    )
    assert after["weight"].null_count() == after["note"].null_count()


def test_a_column_of_others_that_requires_values_is_refused(home: Home) -> None:
    """Our rows have no value for such a column."""
    table = home.table()
    fields = [*table.schema().fields, Field("note", PrimitiveType("string"), nullable=False)]
    empty = home.path.with_name("strict")
    DeltaTable.create(str(empty), Schema(fields), partition_by=["created_month"])
    with pytest.raises(LakeError, match="requires"):
        scan_lake(empty)


def _refuse(home: Home, what: str) -> None:
    """Make the table one that this library cannot write to."""
    table = home.table()
    if what == "append only":
        table.alter.set_table_properties({"delta.appendOnly": "true"})
    elif what == "a constraint":
        table.alter.add_constraint({"named": "status <> ''"})
    else:
        kinds = (
            {
                "minReaderVersion": 1,
                "minWriterVersion": 7,
                "writerFeatures": ["rowTracking", "domainMetadata"],
            }
            if what == "a feature"
            else {
                "minReaderVersion": 3,
                "minWriterVersion": 7,
                "readerFeatures": ["deletionVectors"],
                "writerFeatures": ["deletionVectors"],
            }
        )
        lines = [{"commitInfo": {"timestamp": 1, "operation": "UPGRADE PROTOCOL"}}, {"protocol": kinds}]
        log = home.path / "_delta_log" / f"{table.version() + 1:020d}.json"
        log.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before the run", "between merge and commit"])
@pytest.mark.parametrize("what", REFUSALS)
def test_f47_a_refusal_is_no_conflict(
    home: Home, what: str, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table that refuses the commit gives 65 or 78 with its own words, never 69."""
    before = home.lake()
    said, kind = REFUSALS[what]
    if moment == "before the run":
        _refuse(home, what)
    else:
        _before_commit(monkeypatch, lambda: _refuse(home, what))
    with pytest.raises(kind, match=said) as caught:
        home.dump()
    assert caught.value.code in (65, 78)
    if what != "deletion vectors":
        assert home.lake().equals(before)
    files = {path.name for path in home.path.glob("created_month=*/*.parquet")}
    assert files == {uri.rpartition("/")[2] for uri in home.table().file_uris()}


def test_f73_repair_leaves_one_row_of_each_job(home: Home, pleo: Callable[..., Any]) -> None:
    """`repair` removes rows that were appended twice; a second repair finds nothing."""
    truth = home.lake()
    _append_all(home)
    said = pleo("repair", home.path)
    assert (said.code, f"{truth.height} rows that repeated a job removed" in said.out) == (0, True)
    assert home.lake().equals(truth)
    assert verify_lake(home.path).ok
    found = open_lake(home.path).repair()
    assert (found.done, found.problems, found.snapshot) == ((), (), home.table().version())
    assert home.dump().code == 0
    assert home.is_right()


@pytest.mark.parametrize("how", ["damaged", "lost"])
def test_f43_repair_leaves_out_what_is_broken(home: Home, how: str) -> None:
    """`repair` removes damaged and missing files from the table, and the next dump reads the whole list."""
    path = next(home.path.glob("created_month=*/*.parquet"))
    if how == "lost":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-20])
    done = open_lake(home.path).repair().done
    assert "the next dump reads the whole list" in done[-1]
    assert verify_lake(home.path).ok
    assert home.dump().mode == "full"
    assert home.is_right()


def test_f73_repair_is_overtaken(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit of another engine during a repair makes the repair start over."""
    truth, commit, left = home.lake(), Version.commit, [1]
    _append_all(home)

    def after(table: Version, *given: Any) -> None:
        if left:
            left.clear()
            _compact(home)
        commit(table, *given)

    monkeypatch.setattr(Version, "commit", after)
    assert open_lake(home.path).repair().problems == ()
    assert home.lake().equals(truth)


def _age_commit(path: Path, version: int, by: timedelta) -> None:
    """Set back the time of a commit."""
    file = path / "_delta_log" / f"{version:020d}.json"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    for line in lines:
        if "commitInfo" in line:
            line["commitInfo"]["timestamp"] -= int(by.total_seconds() * 1000)
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_f58_other_machines_learn_that_nothing_is_new(home: Home, tmp_path: Path) -> None:
    """A run without news commits its state at most once an hour, so that all machines agree on now."""
    home.dump(workspace=tmp_path / "one")
    version = home.table().version()
    assert home.dump(workspace=tmp_path / "one").snapshot == version, "told less than an hour ago"
    assert home.table().version() == version
    _age_commit(home.path, version, timedelta(hours=2))
    began = datetime.now(UTC)
    receipt = home.dump(workspace=tmp_path / "one")
    assert (receipt.published, receipt.months_written, receipt.code) == (False, [], 0)
    assert home.table().version() == version + 1 == receipt.snapshot
    elsewhere = open_lake(home.path, workspace=tmp_path / "two").open()
    assert elsewhere is not None
    (account,) = elsewhere.manifest.accounts.values()
    assert account.data_as_of is not None
    assert account.data_as_of >= began
    assert home.dump(workspace=tmp_path / "two").mode == "refresh"
    assert home.table().version() == version + 1
    assert home.is_right()
