"""The lake as a Delta table on disk: the promises of a Parquet lake, and several writers."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from deltalake import DeltaTable
from pyarrow.dataset import field

from pleo_extract import Client, connect, dump_export_jobs, load_export_jobs, scan_lake, verify_lake
from pleo_extract.core.rows import created_month, merge_rows
from pleo_extract.errors import (
    ConfigurationError,
    CredentialsError,
    LakeError,
    LakeLocked,
    NoLake,
    PleoExtractError,
    RequestsExceeded,
    TryLater,
    UsageError,
)
from pleo_extract.lake import merging
from pleo_extract.lake.delta import change
from pleo_extract.lake.delta.address import read_address
from pleo_extract.lake.delta.translate import translated
from pleo_extract.lake.delta.version import Version
from pleo_extract.lake.status import read_status
from pleo_extract.lake.store import is_delta, open_lake
from pleo_extract.report import write_report
from pleo_extract.sandbox import API_KEY, Sandbox, World
from pleo_extract.sync.dump import dump_accounts
from pleo_extract.sync.plan import plan_dump

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pleo_extract.client import AccountEntry
    from pleo_extract.sync.receipt import Receipt

DAY = 86_400.0
URL = "http://127.0.0.1:1"


class Home:
    """A world, and a Delta table of it at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.world = World(jobs=400, days=60)
        self.sandbox = Sandbox(self.world)

    @contextlib.contextmanager
    def client(self) -> Iterator[Client]:
        """Return a client of the server."""
        with Client(URL, api_key=API_KEY, transport=self.sandbox, rate=10_000_000) as client:
            yield client

    def dump(self, **options: Any) -> Receipt:
        """Dump to the table."""
        options.setdefault("format", "delta")
        with self.client() as client:
            return dump_export_jobs(self.path, client=client, **options)

    def truth(self) -> pl.DataFrame:
        """Return what the server lists now."""
        with self.client() as client:
            return load_export_jobs(client=client).sort("id")

    def lake(self, as_of: datetime | int | None = None) -> pl.DataFrame:
        """Return the rows of the table."""
        return scan_lake(self.path, as_of).collect().sort("id")

    def is_right(self) -> bool:
        """Return whether the table equals the server and is not damaged."""
        same = self.lake().drop("expires_in").equals(self.truth().drop("expires_in"))
        return same and verify_lake(self.path).ok

    def table(self) -> DeltaTable:
        """Return the table as delta-rs opens it."""
        return DeltaTable(self.path)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Return a world and the path of its table, before the first dump."""
    return Home(tmp_path / "table")


def _before(monkeypatch: pytest.MonkeyPatch, what: Callable[[], object], *, times: int = 1) -> None:
    """Call a function before each of the next commits."""
    commit, left = Version.commit, [times]

    def commit_after(table: Version, *given: Any) -> None:
        if left[0]:
            left[0] -= 1
            what()
        commit(table, *given)

    monkeypatch.setattr(Version, "commit", commit_after)


def test_dump_refresh_and_nothing_new(home: Home) -> None:
    """The first dump is version 1, a refresh the next; without news there is no new version."""
    first = home.dump()
    assert (first.mode, first.snapshot, first.published, first.code) == ("full", 1, True, 0)
    assert home.is_right()
    home.world.advance(2 * DAY)
    second = home.dump()
    assert (second.mode, second.snapshot, second.published) == ("refresh", 2, True)
    assert home.is_right()
    third = home.dump(full=True)
    assert (third.mode, third.snapshot, third.published) == ("full", 2, False)
    assert home.table().version() == 2
    status = read_status(home.path)
    assert status.accounts[0].full_at is not None
    assert status.accounts[0].full_at > status.made_at  # type: ignore[operator]
    assert home.dump().mode == "refresh"


def test_other_programs_read_it(home: Home) -> None:
    """Any Delta reader reads the table, partitioned by month, with the columns of a Parquet lake."""
    home.dump()
    with home.client() as client:
        dump_export_jobs(home.path.with_name("parquet"), client=client)
    read = pl.scan_delta(str(home.path)).collect().sort("id")
    assert home.table().metadata().partition_columns == ["created_month"]
    assert read["created_month"].to_list() == read.select(created_month()).to_series().to_list()
    assert read.drop("created_month").equals(scan_lake(home.path.with_name("parquet")).collect().sort("id"))
    assert read.drop("created_month").equals(home.lake())


def test_other_engines_skip_files(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """A filter on one company or one week opens only the files whose statistics allow such rows, and loses none."""
    monkeypatch.setattr(change, "FILE_ROWS", 10)
    home.dump()
    table, rows = home.table().to_pyarrow_dataset(), home.lake()
    total = len(list(table.get_fragments()))
    assert total > 40
    company = rows["company_id"].value_counts(sort=True)["company_id"][-1]
    week = datetime(2026, 10, 10, tzinfo=UTC), datetime(2026, 10, 17, tzinfo=UTC)
    created = field("created_at")
    for asked, wanted, most in (
        (field("company_id") == company, pl.col("company_id") == company, total // 8),
        (
            (created >= week[0]) & (created < week[1]),
            pl.col("created_at").is_between(*week, closed="left"),
            total // 2,
        ),
        (field("status") == "zzz", pl.lit(value=False), 0),
    ):
        assert len(list(table.get_fragments(filter=asked))) <= most
        found = pl.DataFrame(table.to_table(filter=asked, columns=rows.columns))
        assert found.sort("id").equals(rows.filter(wanted).sort("id"))


def test_statistics_leave_no_row_outside() -> None:
    """The bounds of a file's instants have milliseconds: the earliest is rounded down, the latest up."""
    start = datetime(2026, 3, 1, 12, 0, 0, 1, tzinfo=UTC)
    instants = [start, start + timedelta(microseconds=998), start + timedelta(microseconds=1_500)]
    rows = pl.DataFrame({"created_at": instants, "company_id": ["b", "a", "b"], "status": ["x", "y", "x"]})
    entry, _ = change.encode_file(
        "2026-03", pl.DataFrame(rows, schema_overrides={"created_at": pl.Datetime("us", "UTC")})
    )
    assert json.loads(entry.stats) == {
        "numRecords": 3,
        "minValues": {"company_id": "a", "status": "x", "created_at": "2026-03-01T12:00:00.000Z"},
        "maxValues": {"company_id": "b", "status": "y", "created_at": "2026-03-01T12:00:00.002Z"},
        "nullCount": {"company_id": 0, "status": 0, "created_at": 0},
    }


def test_unchanged_files_stay(home: Home) -> None:
    """A refresh writes the months that changed and keeps the files of the others."""
    home.dump()
    before = set(home.table().file_uris())
    home.world.advance(DAY)
    receipt = home.dump()
    after = set(home.table().file_uris())
    assert receipt.months_written
    assert {uri.split("created_month=")[1][:7] for uri in before ^ after} == set(receipt.months_written)


def test_receipt_and_state_are_in_the_commit(home: Home) -> None:
    """Another machine continues with a refresh from the table alone, and has the last receipt."""
    receipt = home.dump(workspace=home.path.with_name("one"))
    manifest = open_lake(home.path, workspace=home.path.with_name("two")).open().manifest  # type: ignore[union-attr]
    assert manifest.receipt["run"] == receipt.run
    assert manifest.server == URL
    home.world.advance(DAY)
    assert home.dump(workspace=home.path.with_name("two")).mode == "refresh"
    assert home.is_right()


def test_as_of_by_version_and_by_time(home: Home) -> None:
    """Older versions are read by number and instant; a missing one is a usage error."""
    home.dump()
    then, old = datetime.now(UTC), home.lake()
    home.world.advance(2 * DAY)
    home.dump()
    assert home.lake().height > old.height
    assert home.lake(1).equals(home.lake(then))
    assert home.lake(1).equals(old)
    assert connect(home.path, 1).sql("select count(*) from export_jobs").fetchall() == [(old.height,)]
    for wrong in (7, -1, then - timedelta(days=1), then.replace(tzinfo=None)):
        with pytest.raises(UsageError):
            home.lake(wrong)


def test_everything_works_on_it(home: Home, tmp_path: Path) -> None:
    """`connect`, `plan`, `status`, `report` and `verify` work on a Delta table as on a Parquet lake."""
    with home.client() as client:
        assert plan_dump(home.path, client=client).mode == "full"
    home.dump()
    jobs = home.lake().height
    with contextlib.closing(connect(home.path, locked=True)) as con:
        assert con.sql("select sum(jobs) from failure_rates('all')").fetchall() == [(jobs,)]
    with home.client() as client:
        assert plan_dump(home.path, client=client).known == jobs
    status = read_status(home.path)
    assert (status.rows, status.snapshot, status.last_run and status.last_run.code) == (jobs, 1, 0)
    assert write_report(home.path, tmp_path / "report.html").stat().st_size > 10_000
    found = verify_lake(home.path)
    assert (found.ok, found.rows, found.snapshot) == (True, jobs, 1)


def test_a_list_without_jobs(home: Home) -> None:
    """An empty list is published once, as an empty table."""
    home.sandbox = Sandbox(World(jobs=0, days=1))
    assert (home.dump().snapshot, home.dump().snapshot) == (1, 1)
    assert home.lake().height == 0
    assert verify_lake(home.path).ok


def test_the_kinds_keep_apart(home: Home, tmp_path: Path) -> None:
    """The kind of an existing lake is detected, and a lake of the other kind is not created over it."""
    home.dump()
    assert home.dump(format=None).snapshot == 1
    with pytest.raises(ConfigurationError, match="is a Delta table"):
        home.dump(format="parquet")
    with home.client() as client:
        dump_export_jobs(tmp_path / "parquet", client=client)
        with pytest.raises(ConfigurationError, match="is a Parquet lake"):
            dump_export_jobs(tmp_path / "parquet", client=client, format="delta")
    assert (is_delta(home.path), is_delta(tmp_path / "parquet"), is_delta("s3://bucket/x")) == (
        True,
        False,
        True,
    )
    with pytest.raises(UsageError):
        scan_lake(tmp_path / "parquet", storage_options={"aws_region": "nowhere"})


def test_a_table_of_another_server_or_of_other_columns(home: Home) -> None:
    """A table of another server, or one without export jobs, is refused."""
    home.dump()
    other = Client("http://127.0.0.1:2", api_key=API_KEY, transport=home.sandbox)
    with other, pytest.raises(ConfigurationError, match="needs a lake of its own"):
        dump_export_jobs(home.path, client=other)
    pl.DataFrame({"a": [1]}).write_delta(str(home.path.with_name("other")))
    with pytest.raises(LakeError, match="not a table of export jobs"):
        scan_lake(home.path.with_name("other"))


def test_f37_second_run_for_the_same_account(home: Home) -> None:
    """On one machine a second run for the same account is refused; for another account it is not."""
    home.dump()
    key = f"{URL} *"
    with open_lake(home.path, accounts=[key]).hold():
        with pytest.raises(LakeLocked, match="held by another run"):
            home.dump()
        company = home.truth()["company_id"][0]
        with home.client() as client:
            assert dump_export_jobs(home.path, client=client, company_id=company).code == 0


def test_f47_who_loses_a_race_merges_again(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a conflict the rows of both writers are in the table."""
    home.dump()
    home.world.advance(2 * DAY)
    companies = home.truth()["company_id"].unique().to_list()

    def other() -> None:
        with home.client() as client:
            dump_export_jobs(home.path, client=client, company_id=companies[0])

    _before(monkeypatch, other)
    receipt = home.dump()
    assert (receipt.snapshot, home.table().version()) == (3, 3)
    assert len(read_status(home.path).accounts) == 2
    assert home.is_right()
    files = {path.name for path in home.path.glob("created_month=*/*.parquet")}
    known = {Path(uri).name for version in (1, 2, 3) for uri in DeltaTable(home.path, version).file_uris()}
    assert files == known, "what the loser wrote in vain is gone"


def test_f47_first_dumps_race(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two first dumps at the same time create one table."""
    company = home.truth()["company_id"][0]

    def other() -> None:
        with home.client() as client:
            dump_export_jobs(home.path, client=client, company_id=company, format="delta")

    _before(monkeypatch, other)
    assert home.dump().snapshot == 2
    assert home.is_right()


def test_f47_five_races_lost(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five conflicts give 69 and leave the winners' table; the next run resumes the staged rows."""
    home.dump()
    home.world.advance(2 * DAY)

    def other() -> None:
        table = Version(read_address(home.path))
        assert table.state is not None
        undone(table, [], [], table.state)

    undone = Version.commit
    with monkeypatch.context() as patch:
        _before(patch, other, times=5)
        with pytest.raises(LakeLocked, match="5 times in a row") as caught:
            home.dump()
    assert caught.value.code == 69
    assert caught.value.receipt is None or not caught.value.receipt["published"]
    assert home.table().version() == 6
    receipt = home.dump()
    assert receipt.resumed
    assert home.is_right()


@pytest.mark.parametrize("done", [True, False])
def test_f46_answer_to_the_commit_lost(home: Home, monkeypatch: pytest.MonkeyPatch, done: bool) -> None:  # noqa: FBT001
    """If the response to a commit is lost, the log decides whether to repeat it, once."""
    home.dump()
    home.world.advance(2 * DAY)
    commit, left = Version.commit, [1]

    def lost(table: Version, *given: Any) -> None:
        if left:
            left.clear()
            if done:
                commit(table, *given)
            raise TryLater("the store does not answer properly")
        commit(table, *given)

    monkeypatch.setattr(Version, "commit", lost)
    receipt = home.dump()
    assert (receipt.snapshot, receipt.published, home.table().version()) == (2, True, 2)
    assert home.is_right()


def test_f46_whether_it_is_committed_cannot_be_known(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """If neither commit nor log respond, the run gives 75, and the next run is correct in either case."""
    home.dump()
    home.world.advance(2 * DAY)

    def lost(table: Version, *given: Any) -> None:
        def silent(*_: Any) -> None:
            raise TryLater("the store does not answer properly")

        commit(table, *given)
        monkeypatch.setattr(Version, "find_commit", silent)
        raise TryLater("the store does not answer properly")

    commit, find = Version.commit, Version.find_commit
    monkeypatch.setattr(Version, "commit", lost)
    with pytest.raises(TryLater, match="not known whether") as caught:
        home.dump()
    assert caught.value.code == 75
    monkeypatch.setattr(Version, "commit", commit)
    monkeypatch.setattr(Version, "find_commit", find)
    assert home.is_right(), "it had got through, and its files are there"
    assert home.dump().code == 0
    assert home.is_right()


def test_a_first_dump_that_is_not_finished_is_a_lake(home: Home) -> None:
    """An unfinished first dump is no account without jobs: readers say so. It has a record, and the next run resumes."""
    with pytest.raises(RequestsExceeded):
        home.dump(max_requests=2)
    status = read_status(home.path)
    assert (status.snapshot, status.rows) == (0, 0)
    assert status.last_run is not None
    assert (status.last_run.code, "fetched pages are kept" in str(status.last_run.error)) == (75, True)
    for door in (scan_lake, connect):
        with pytest.raises(TryLater, match=r"no dump to .* has been completed yet; run: pleo-extract dump"):
            door(home.path)
    assert verify_lake(home.path).ok
    with home.client() as client:
        assert plan_dump(home.path, client=client).known == 0
        receipt = dump_export_jobs(home.path, client=client)
    assert (receipt.resumed, receipt.snapshot) == (True, 1)
    assert home.is_right()
    shutil.rmtree(home.path / "_delta_log")
    for read in (scan_lake, read_status, verify_lake):
        with pytest.raises(NoLake):
            read(home.path)


def test_f43_damaged_and_lost_files(home: Home) -> None:
    """Damaged and missing files are found, and reading them is an error."""
    home.dump()
    path = Path(home.table().file_uris()[0])
    whole = path.read_bytes()
    path.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    assert "sha256" in verify_lake(home.path).problems[0]
    path.write_bytes(whole[:-1])
    assert not verify_lake(home.path).ok
    with pytest.raises(LakeError, match="changed since it was written"):
        scan_lake(home.path)
    path.unlink()
    assert not verify_lake(home.path).ok
    with pytest.raises(LakeError, match="missing"):
        scan_lake(home.path)


def test_f41_others_may_keep_the_table(home: Home) -> None:
    """OPTIMIZE by another program changes no rows: the next run is a refresh."""
    home.dump()
    home.world.advance(DAY)
    home.dump()
    home.table().optimize.compact()
    home.world.advance(DAY)
    assert home.dump().mode == "refresh"
    assert home.is_right()


@pytest.mark.parametrize("what", ["delete", "restore"])
def test_f41_others_take_rows_away(home: Home, what: str) -> None:
    """Rows that a DELETE or RESTORE removed come back: the sync state is never ahead of the data."""
    home.dump()
    home.world.advance(5 * DAY)
    home.dump()
    if what == "delete":
        home.table().delete("status = 'failed'")
    else:
        home.table().restore(1)
    receipt = home.dump()
    assert (receipt.mode, receipt.why_full) == ("full", "the last walk was not complete")
    assert home.is_right()


def test_f42_newer_version(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of a newer version is refused with its number."""
    with monkeypatch.context() as patch:
        for room in ("change", "log"):
            patch.setattr(f"pleo_extract.lake.delta.{room}.FORMAT", 99)
        home.dump()
    with pytest.raises(LakeError, match="lake format 99"):
        scan_lake(home.path)


def test_old_files_are_removed(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that no kept version needs are removed once a day; current ones stay."""
    home.dump()
    vacuumed: list[int] = []
    monkeypatch.setattr(Version, "vacuum", lambda _table, hours: vacuumed.append(hours))
    home.world.advance(DAY)
    home.dump()
    assert vacuumed == []
    monkeypatch.setattr("pleo_extract.lake.delta.table.VACUUM_EVERY", timedelta(0))
    home.world.advance(DAY)
    home.dump(keep_for=timedelta(minutes=90))
    assert vacuumed == [2]
    monkeypatch.undo()
    Version(read_address(home.path)).vacuum(1)
    assert home.is_right()


def test_a_month_is_merged_in_pieces(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A month merged in pieces has the same rows, order and files as one merged in memory."""
    home.dump()
    once, most = home.table(), 0
    files = {Path(uri).name.rpartition("-")[0] for uri in once.file_uris()}

    def watch(*frames: pl.DataFrame) -> pl.DataFrame:
        nonlocal most
        merged = merge_rows(*frames)
        most = max(most, merged.height)
        return merged

    monkeypatch.setattr(merging, "PIECE", 20)
    monkeypatch.setattr(merging, "merge_rows", watch)
    home.path = tmp_path / "pieces"
    home.dump()
    assert {Path(uri).name.rpartition("-")[0] for uri in home.table().file_uris()} == files
    monkeypatch.setattr(change, "FILE_ROWS", 30)
    home.path = tmp_path / "small"
    home.dump()
    home.world.advance(5 * DAY)
    before = set(home.table().file_uris())
    home.dump()
    after = set(home.table().file_uris())
    home.table().optimize.compact()
    home.world.advance(DAY)
    home.dump(full=True)
    assert 0 < most <= 2 * 20 + 20  # a piece may exceed its size by the jobs of one company and day
    assert before & after
    assert max(pl.read_parquet(uri).height for uri in after) == 30
    assert home.is_right()


@pytest.mark.parametrize("piece", [20, 25_000])
def test_nothing_new_in_anothers_files_writes_nothing(
    home: Home, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that another program rewrote are compared by content, so that no news means no commit."""
    monkeypatch.setattr(merging, "PIECE", piece)
    monkeypatch.setattr(merging, "LOOKUP", 0)
    home.dump()
    path = Path(home.table().file_uris()[0])
    rows = pl.read_parquet(path)
    month = path.parent.name.partition("=")[2]
    shuffled = rows.sample(fraction=1, shuffle=True, seed=3).with_columns(created_month=pl.lit(month))
    shuffled.write_delta(
        str(home.path), mode="overwrite", delta_write_options={"predicate": f"created_month = '{month}'"}
    )
    assert home.lake().height == home.truth().height
    receipt = home.dump(full=True)
    assert receipt.months_written == []


def test_keep_is_refused(home: Home) -> None:
    """A number of snapshots to keep is refused for Delta, which keeps versions by age."""
    with pytest.raises(UsageError, match="kept by age alone"):
        home.dump(keep_count=3)
    assert not home.path.exists()
    home.dump(keep_for=timedelta(hours=3))


def test_f15_one_company_of_many(home: Home) -> None:
    """Two companies in one table have separate states, and one that fails does not affect the other."""
    ids = home.truth()["company_id"].unique().sort().to_list()[:2]
    with home.client() as good, Client(URL, api_key="wrong", transport=home.sandbox) as bad:

        class Entry:
            server = URL

            def __init__(self, name: str, company_id: str, client: Client) -> None:
                self.name, self.company_id, self.client = name, company_id, client
                self.shared = contextlib.ExitStack()

            def open(self) -> contextlib.AbstractContextManager[Client]:
                return contextlib.nullcontext(self.client)

        entries: Any = [Entry("good", ids[0], good), Entry("bad", ids[1], bad)]
        accounts: list[AccountEntry] = entries
        _, receipts = dump_accounts(home.path, accounts, format="delta")
    assert [each.code for each in receipts] == [0, 77]
    assert home.lake()["company_id"].unique().to_list() == [ids[0]]
    status = read_status(home.path)
    assert status.last_run is not None
    assert list(status.last_run.failed) == ["bad"]


def test_f49_addresses_and_endpoints() -> None:
    """URLs with credentials, plain http endpoints of other machines and unknown schemes are refused."""
    for wrong in ("s3://key:secret@bucket/x", "s3://bucket/x?sig=1", "s3:///x", "ftp://host/x", "az://u@c/x"):
        with pytest.raises(ConfigurationError):
            read_address(wrong, {"azure_storage_account_key": "x"})
    for endpoint in ("http://example.com", "https://u:p@example.com", "ftp://127.0.0.1"):
        with pytest.raises(ConfigurationError):
            read_address("s3://bucket/x", {"aws_endpoint_url": endpoint})
    assert read_address("s3://bucket/x/", {"aws_endpoint_url": "http://127.0.0.1:9"}).uri == "s3://bucket/x"


def test_f49_no_metadata_service_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a named credential no metadata service of a cloud is contacted."""
    for name in ("AZURE_STORAGE_ACCOUNT_KEY", "GOOGLE_APPLICATION_CREDENTIALS", "AWS_EC2_METADATA_DISABLED"):
        monkeypatch.delenv(name, raising=False)
    for uri in ("az://c/x", "abfss://c@account.dfs.core.windows.net/x", "gs://b/x"):
        with pytest.raises(CredentialsError, match="instance_metadata=true"):
            read_address(uri)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "canary")
    assert read_address("az://c/x").options["azure_msi_endpoint"] == "http://127.0.0.1:9"
    with monkeypatch.context() as patch:
        patch.setenv("AWS_EC2_METADATA_DISABLED", "false")
        assert read_address("s3://b/x").options["aws_metadata_endpoint"] == "http://127.0.0.1:9"
    reported = read_address("s3://b/x", {"instance_metadata": "true"}).options
    assert not reported.keys() & {"instance_metadata", "aws_metadata_endpoint"}


def test_f48_what_a_store_says_is_not_shown(home: Home) -> None:
    """An error of a store shows only its codes, and no repr shows the storage options."""
    address = read_address("s3://bucket/x", {"aws_secret_access_key": "canary"})
    assert "canary" not in repr(address)
    cases = {
        "Generic S3 error: status 403 <Code>SignatureDoesNotMatch</Code> canary": CredentialsError,
        "Generic S3 error: <Code>NoSuchBucket</Code> canary": ConfigurationError,
        "Generic S3 error: status: 503 https://host/x?sig=canary": TryLater,
        "Object at location x/canary not found": LakeError,
    }
    for said, kind in cases.items():
        with pytest.raises(kind) as caught, translated(address, "read"):
            raise OSError(said)
        assert "canary" not in f"{caught.value} {caught.value.__cause__}"
        assert isinstance(caught.value, PleoExtractError)


def test_f48_secrets_are_no_options(home: Home) -> None:
    """The command line refuses storage options with secrets, and does not show them."""
    for name in ("aws_secret_access_key", "AZURE_STORAGE_SAS_TOKEN", "account_key"):
        ended = subprocess.run(
            [
                sys.executable,
                "-m",
                "pleo_extract",
                "status",
                "s3://bucket/x",
                "--storage-option",
                f"{name}=canary",
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 2
        assert "environment" in ended.stderr
        assert "canary" not in ended.stderr


def test_parquet_does_not_import_it(tmp_path: Path) -> None:
    """A Parquet lake imports nothing of Delta; without the extra, a URL names what to install."""
    code = (
        "import sys\n"
        "sys.modules['deltalake'] = None\n"
        "from pleo_extract import scan_lake\n"
        f"scan_lake({str(Path(__file__).parent.parent / 'data' / 'sample')!r}).collect()\n"
        "assert not any(name.startswith('pleo_extract.lake.delta') for name in sys.modules)\n"
        "try: scan_lake('s3://bucket/x')\n"
        "except Exception as exc: print(type(exc).__name__, exc)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.startswith("ConfigurationError")
    assert "pip install 'pleo-extract[delta]'" in ended.stdout
