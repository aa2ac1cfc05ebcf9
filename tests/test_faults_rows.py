"""F27, F61 and F64: rows that are rejected for a while, unknown statuses, jobs that move to another month."""

from __future__ import annotations

import dataclasses
import json
import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from canary import CANARY
from cases import mostly_slow

from pleo_extract import Client, dump_export_jobs, merge_lakes, scan_lake, verify_lake
from pleo_extract.core.rows import keep_latest
from pleo_extract.errors import ContractError, RejectedRows, RequestsExceeded
from pleo_extract.lake.layout import Layout, Manifest
from pleo_extract.sandbox import API_KEY, Rules, Sandbox, World, parse_faults

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pleo_extract.lake.store import Format
    from pleo_extract.sandbox import RequestLike, Response
    from pleo_extract.sync.receipt import Receipt

    OpenClient = Callable[[Sandbox], Client]
    MakeSandbox = Callable[..., Sandbox]


FORMATS = ["parquet", "delta"]


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """Return the path of the lake."""
    return tmp_path / "lake"


@pytest.fixture
def dump(open_client: OpenClient, lake: Path) -> Callable[..., Receipt]:
    """Return a function that dumps a sandbox to the lake and counts requests from zero."""

    def run(sandbox: Sandbox, **options: Any) -> Receipt:
        sandbox.requests.clear()
        return dump_export_jobs(lake, client=open_client(sandbox), **options)

    return run


def is_true(lake: Path, sandbox: Sandbox) -> bool:
    """Check that the lake has every job of the server once, in its current version and month."""
    rows = scan_lake(lake).collect().drop("extra").to_dicts()
    assert sandbox.truth(rows, sandbox.world.now) == []
    found = verify_lake(lake)
    assert found.ok, found.problems
    return True


def rows_of(lake: Path, name: str) -> list[dict[str, Any]]:
    """Return the lake's rows of this job."""
    return scan_lake(lake).filter(pl.col("id") == name).collect().to_dicts()


def read_manifest(lake: Path) -> Manifest:
    """Return the manifest of the current snapshot."""
    layout = Layout(lake)
    number = layout.number()
    assert number is not None
    return layout.apply_state(layout.manifest(number))


class TestJobsOfTheFuture:
    """F29: a job whose createdAt is later than now, which stands before all others in the newest-first list for days."""

    @pytest.mark.parametrize(
        "rules", mostly_slow([{"total": False, "offsets": "refuse"}, {"total": False}, {}])
    )
    @pytest.mark.parametrize("cut", [False, True])
    def test_f29_later_jobs_are_read_below_it(
        self, rules: dict[str, Any], dump: Callable[..., Receipt], lake: Path, *, cut: bool
    ) -> None:
        """Refreshes read the jobs that are created after it but dated earlier, resumed ones too."""
        world = World(jobs=400, days=8, now=datetime.now(UTC))
        sandbox = Sandbox(world, rules=Rules(max_limit=13, **rules), api_keys={CANARY: None, API_KEY: None})
        world.insert(datetime.now(UTC) + timedelta(days=6))
        dump(sandbox)
        for _ in range(3):
            world.advance(20 * 3600)
            if cut:
                with pytest.raises(RequestsExceeded):
                    dump(sandbox, max_requests=3)
                world.advance(3 * 3600)
            receipt = dump(sandbox)
            assert (receipt.mode, receipt.verdict) == ("refresh", "complete")
            assert is_true(lake, sandbox)


class TestMovedJobs:
    """F64: a server changes createdAt, which the contract forbids."""

    @pytest.mark.parametrize("kind", FORMATS)
    def test_f64_a_refresh_moves_a_job(
        self, kind: str, dump: Callable[..., Receipt], make_sandbox: MakeSandbox, lake: Path
    ) -> None:
        """A refresh with few requests moves a job that is now among the newest to its new month, once."""
        sandbox = make_sandbox(jobs=2_000)
        dump(sandbox, format=kind)
        job = sandbox.world.visible()[400]
        sandbox.world.move(job["id"], sandbox.world.now - timedelta(minutes=5))
        receipt = dump(sandbox)
        assert (receipt.mode, receipt.verdict, receipt.code, receipt.moved) == ("refresh", "complete", 0, 1)
        assert receipt.requests <= 6
        assert receipt.lake_rows == 2_000
        assert is_true(lake, sandbox)
        assert (dump(sandbox).mode, dump(sandbox, full=True).moved) == ("refresh", 0)

    @pytest.mark.slow
    @pytest.mark.parametrize("kind", FORMATS)
    @pytest.mark.parametrize("sorting", [("createdAt", "id"), ()])
    def test_f64_a_full_sync_moves_a_job(
        self,
        kind: str,
        sorting: tuple[str, ...],
        dump: Callable[..., Receipt],
        make_sandbox: MakeSandbox,
        lake: Path,
    ) -> None:
        """A full sync moves jobs between old months, whether or not the server sorts."""
        sandbox = make_sandbox(jobs=1_500, sorting=sorting, unsortable="ignore")
        dump(sandbox, format=kind)
        jobs = sandbox.world.visible()
        for n in (100, 700, 1_400):
            sandbox.world.move(jobs[n]["id"], sandbox.world.now - timedelta(days=200 - n // 10))
        receipt = dump(sandbox, full=True)
        assert (receipt.verdict, receipt.code, receipt.moved, receipt.vanished) == ("complete", 0, 3, [])
        assert is_true(lake, sandbox)
        assert dump(sandbox).moved == 0

    def test_f64_a_job_that_moves_within_its_month_is_merged(
        self, dump: Callable[..., Receipt], make_sandbox: MakeSandbox, lake: Path
    ) -> None:
        """A job that moves within its month is replaced by its key and does not count as moved."""
        sandbox = make_sandbox(jobs=1_000)
        dump(sandbox)
        job = sandbox.world.visible()[-2]
        sandbox.world.move(job["id"], sandbox.world.now - timedelta(minutes=5))
        receipt = dump(sandbox)
        assert (receipt.code, receipt.moved, receipt.lake_rows) == (0, 0, 1_000)
        assert is_true(lake, sandbox)

    @pytest.mark.parametrize("kind", FORMATS)
    def test_f64_a_month_may_empty(
        self, kind: str, dump: Callable[..., Receipt], make_sandbox: MakeSandbox, lake: Path
    ) -> None:
        """When the only job of a month moves, the month disappears."""
        sandbox = make_sandbox(jobs=300)
        lonely = sandbox.world.insert(sandbox.world.now - timedelta(days=900))
        dump(sandbox, format=kind)
        assert len(list(lake.rglob("created_month=2024-05/*.parquet"))) == 1
        sandbox.world.move(lonely["id"], sandbox.world.now - timedelta(minutes=5))
        receipt = dump(sandbox)
        assert (receipt.code, receipt.moved) == (0, 1)
        assert is_true(lake, sandbox)
        assert scan_lake(lake).select(pl.col("created_at").min()).collect().item().year > 2024

    @pytest.mark.parametrize("kind", FORMATS)
    def test_f64_a_job_that_moves_and_was_rejected_on_the_way_is_one_row(
        self, kind: str, dump: Callable[..., Receipt], make_sandbox: MakeSandbox, lake: Path
    ) -> None:
        """A job whose row one page spoils and the next shows in another month leaves its old month."""
        sandbox = make_sandbox(jobs=1)
        dump(sandbox, format=kind)
        (job,) = sandbox.world.visible()
        sandbox.world.move(job["id"], sandbox.world.now - timedelta(days=60))
        sandbox.requests.clear()
        sandbox.faults = parse_faults("2:badrow.float")
        receipt = dump(sandbox)
        assert (receipt.mode, receipt.moved, receipt.lake_rows) == ("full", 1, 1)
        assert is_true(lake, sandbox)

    def test_f64_a_job_that_was_said_to_have_vanished_is_found_again(
        self, dump: Callable[..., Receipt], make_sandbox: MakeSandbox, lake: Path
    ) -> None:
        """A vanished job that appears again in another month is one job."""
        sandbox = make_sandbox(jobs=1_000)
        dump(sandbox)
        job = sandbox.world.visible()[300]
        sandbox.world.remove(job["id"])
        assert dump(sandbox).vanished == [(job["companyId"], job["id"])]
        sandbox.world._find(job["id"], None).deleted_at = 1 << 62
        sandbox.world.move(job["id"], sandbox.world.now - timedelta(days=30))
        receipt = dump(sandbox, full=True)
        assert (receipt.code, receipt.moved, receipt.vanished) == (0, 1, [])
        assert is_true(lake, sandbox)
        assert dump(sandbox).mode == "refresh"

    @pytest.mark.slow
    @pytest.mark.parametrize("newest_into_older", [True, False], ids=["newer into older", "older into newer"])
    @pytest.mark.parametrize("kind", FORMATS)
    def test_f64_lakes_that_have_a_job_in_two_months_are_merged(
        self,
        kind: Format,
        newest_into_older: object,
        open_client: OpenClient,
        make_sandbox: MakeSandbox,
        tmp_path: Path,
    ) -> None:
        """Merging two lakes that have a job in different months keeps the row that was read later, once."""
        sandbox = make_sandbox(jobs=600)
        older, newer = tmp_path / "older", tmp_path / "newer"
        dump_export_jobs(older, client=open_client(sandbox), format=kind)
        sandbox.world.move(sandbox.world.visible()[100]["id"], sandbox.world.now - timedelta(days=20))
        dump_export_jobs(newer, client=open_client(sandbox), format=kind)
        source, target = (newer, older) if newest_into_older else (older, newer)
        receipt = merge_lakes(source, target)
        assert (receipt.code, receipt.moved, receipt.lake_rows) == (0, 1, 600)
        assert is_true(target, sandbox)

    @pytest.mark.parametrize("options", [{"full": True}, {}], ids=["full", "refresh"])
    def test_f64_many_moved_jobs_are_not_believed(
        self, options: dict[str, Any], dump: Callable[..., Receipt], make_sandbox: MakeSandbox, lake: Path
    ) -> None:
        """More than 100 moved jobs and 1 % give 76, and the lake does not change."""
        sandbox = make_sandbox(jobs=1_500)
        dump(sandbox)
        jobs = sandbox.world.visible()
        before = scan_lake(lake).collect()

        def move(first: int, last: int) -> None:
            for n in range(first, last):
                sandbox.world.move(jobs[n]["id"], sandbox.world.now - timedelta(minutes=1 + n % 50))

        move(0, 101)
        with pytest.raises(ContractError, match="with another created_at") as caught:
            dump(sandbox, **options)
        assert caught.value.code == 76
        assert scan_lake(lake).collect().equals(before)
        sandbox.world._find(jobs[100]["id"], None).changes.clear()
        sandbox.world._views.clear()
        assert dump(sandbox, **options).moved == 100
        assert is_true(lake, sandbox)


class TestUnknownStatuses:
    """F61: an unknown status on many old rows."""

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("chosen", "most"), [(range(0, 5_000, 100), 60), (range(2_000, 2_300), 12)], ids=["50", "300"]
    )
    def test_f61_rows_of_an_unknown_status_settle(
        self,
        chosen: range,
        most: int,
        dump: Callable[..., Receipt],
        make_sandbox: MakeSandbox,
        lake: Path,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """A row of an unknown status settles after three unchanged reads, with one warning per lake."""
        sandbox = make_sandbox(jobs=5_000)
        jobs = sandbox.world.visible()
        for n in chosen:
            sandbox.world.change(jobs[n]["id"], jobs[n]["companyId"], status="canceled")
        dump(sandbox)
        for _ in range(3):
            receipt = dump(sandbox)
            assert (receipt.mode, receipt.verdict, receipt.code) == ("refresh", "complete", 0)
            assert receipt.requests <= most
        quiet = dump(sandbox)
        assert (quiet.mode, quiet.verdict, quiet.code) == ("refresh", "complete", 0)
        assert quiet.requests <= 6
        assert is_true(lake, sandbox)
        assert len([each for each in caplog.messages if "is unknown" in each]) == 1
        (account,) = read_manifest(lake).accounts.values()
        assert account.unknown["canceled"].rows == {}

    @pytest.mark.slow
    def test_f61_a_late_row_is_counted_for_itself(
        self, dump: Callable[..., Receipt], make_sandbox: MakeSandbox, lake: Path
    ) -> None:
        """A job that gets an unknown status later is read three more times; the others stay settled."""
        sandbox = make_sandbox(jobs=3_000)
        jobs = sandbox.world.visible()
        hanging = sandbox.world.insert(sandbox.world.now - timedelta(days=150), status="in_progress")["id"]
        for job in jobs[500:520]:
            sandbox.world.change(job["id"], status="canceled")
        for _ in range(5):
            dump(sandbox)
        sandbox.world.change(hanging, status="canceled")
        costs = [dump(sandbox).requests for _ in range(5)]
        assert costs[:4] == [costs[0]] * 4
        assert costs[4] < costs[0]
        assert is_true(lake, sandbox)

    def test_f61_a_settled_row_that_changes_is_noticed_like_a_terminal_one(
        self, dump: Callable[..., Receipt], make_sandbox: MakeSandbox, lake: Path
    ) -> None:
        """A change of a settled row is noticed by the audit or a full sync; before it settles, by the next run."""
        sandbox = make_sandbox(jobs=250)
        jobs = sandbox.world.visible()[:240]
        for job in jobs:
            sandbox.world.change(job["id"], status="canceled")
        dump(sandbox)
        sandbox.world.change(jobs[3]["id"], status="completed")
        assert dump(sandbox).mode == "refresh"
        assert is_true(lake, sandbox)
        for _ in range(3):
            dump(sandbox)
        for job in jobs:
            sandbox.world.change(job["id"], numberOfItems=77)
        receipt = dump(sandbox)
        assert receipt.mode == "full"
        assert "settled jobs changed" in receipt.why_full
        assert is_true(lake, sandbox)


class Spoiling(Sandbox):
    """A sandbox whose rows of some jobs break the contract wherever they are listed."""

    spoiled: dict[str, dict[str, Any]]

    def __call__(self, request: RequestLike) -> Response:
        """Return the response with those rows changed."""
        answer = super().__call__(request)
        body = json.loads(answer.body)
        for row in body.get("data", []):
            row.update(self.spoiled.get(row["id"], {}))
        return dataclasses.replace(answer, body=json.dumps(body).encode())


class TestRejectedRows:
    """F27: a rejected row is read again until it is valid."""

    def spoil(self, sandbox: Sandbox, number: int, **fields: Any) -> Spoiling:
        """Return the same server with these values in the row of one job."""
        spoiling = Spoiling(sandbox.world)
        spoiling.spoiled = {sandbox.world.visible()[number]["id"]: fields}
        return spoiling

    @pytest.mark.parametrize("kind", FORMATS)
    def test_f27_a_row_that_is_healthy_since_is_taken_at_once(
        self, kind: str, dump: Callable[..., Receipt], make_sandbox: MakeSandbox, lake: Path
    ) -> None:
        """The next refresh reads a row that is now valid at its rank, with a few requests: 0."""
        sandbox = make_sandbox(jobs=5_000)
        with pytest.raises(RejectedRows):
            dump(self.spoil(sandbox, 1_234, numberOfItems=1.5), format=kind)
        receipt = dump(sandbox)
        assert (receipt.mode, receipt.verdict, receipt.code) == ("refresh", "complete", 0)
        assert receipt.requests <= 12
        assert is_true(lake, sandbox)
        assert list(rejected_files(lake)) == []

    def test_f27_a_row_of_the_lake_that_was_spoiled_for_a_while(
        self, dump: Callable[..., Receipt], make_sandbox: MakeSandbox, lake: Path
    ) -> None:
        """A job in the lake keeps its old row while the new one is invalid."""
        sandbox = make_sandbox(jobs=3_000)
        dump(sandbox)
        spoiling = self.spoil(sandbox, 700, numberOfItems=1.5)
        with pytest.raises(RejectedRows):
            dump(spoiling, full=True)
        (name,) = spoiling.spoiled
        sandbox.world.change(name, numberOfItems=78)
        receipt = dump(sandbox)
        assert (receipt.mode, receipt.code) == ("refresh", 0)
        assert rows_of(lake, name)[0]["number_of_items"] == 78
        assert is_true(lake, sandbox)

    def test_f27_a_row_that_stays_bad_makes_one_file(
        self, dump: Callable[..., Receipt], make_sandbox: MakeSandbox, lake: Path
    ) -> None:
        """A row that stays invalid gives 65 each time but one file; a row with other content replaces it."""
        sandbox = make_sandbox(jobs=5_000)
        spoiling = self.spoil(sandbox, 1_234, numberOfItems=1.5)
        files = set()
        (name,) = spoiling.spoiled
        for count in range(4):
            spoiling.spoiled[name]["expiresIn"] = 3600 - count  # a countdown is not a change
            with pytest.raises(RejectedRows, match=r"_lake/rejected/.+\.jsonl") as caught:
                dump(spoiling)
            assert len(spoiling.requests) <= 51 + 2
            (file,) = rejected_files(lake)
            assert file.name in str(caught.value)
            files.add(file)
        assert len(files) == 1
        assert len(spoiling.requests) <= 12
        spoiling.spoiled[name] = {"numberOfItems": "none"}
        with pytest.raises(RejectedRows):
            dump(spoiling)
        (file,) = rejected_files(lake)
        assert file not in files
        assert '"none' in json.loads(file.read_text())["row"]

    def test_f27_a_rejected_job_that_is_deleted_is_waited_for_no_longer(
        self, dump: Callable[..., Receipt], make_sandbox: MakeSandbox, lake: Path
    ) -> None:
        """A rejected job that is deleted is no longer looked for."""
        sandbox = make_sandbox(jobs=2_000)
        spoiling = self.spoil(sandbox, 500, isInteractive=1)
        with pytest.raises(RejectedRows):
            dump(spoiling)
        (name,) = spoiling.spoiled
        sandbox.world.remove(name)
        receipt = dump(sandbox)
        assert (receipt.mode, receipt.code) == ("refresh", 0)
        assert is_true(lake, sandbox)

    def test_f27_files_that_nobody_names_go_after_a_month(
        self, dump: Callable[..., Receipt], make_sandbox: MakeSandbox, lake: Path
    ) -> None:
        """Files of unpublished runs are removed after 30 days; foreign files stay."""
        sandbox = make_sandbox(jobs=300)
        dump(sandbox)
        folder = lake / "_lake/rejected"
        folder.mkdir(exist_ok=True)
        for name in ("20260101T000000Z-0011-22.jsonl", "20260102T000000Z-0011-22.jsonl", "notes.txt"):
            (folder / name).write_text("{}\n")
        for name in ("20260101T000000Z-0011-22.jsonl", "notes.txt"):
            os.utime(folder / name, (0, 0))
        dump(sandbox)
        assert sorted(path.name for path in folder.iterdir()) == [
            "20260102T000000Z-0011-22.jsonl",
            "notes.txt",
        ]


def rejected_files(lake: Path) -> list[Path]:
    """Return the files of rejected rows, of a folder or a Delta table."""
    return sorted(lake.rglob("_lake/rejected/*.jsonl"))


class Moving(Sandbox):
    """A sandbox that moves a job after it has shown it."""

    job = "none"
    to: datetime

    def __call__(self, request: RequestLike) -> Response:
        """Return the response, then move the job."""
        answer = super().__call__(request)
        if self.job.encode() in answer.body and self.world.edits[-1].kind != "change":
            self.world.move(self.job, self.to)
        return answer


class TestShownTwice:
    """F64: a job that one walk lists twice, under two months."""

    @pytest.mark.slow
    @pytest.mark.parametrize("kind", FORMATS)
    @pytest.mark.parametrize("mode", ["first", "full", "refresh"])
    def test_f64_a_job_shown_under_two_months_is_one_row(
        self, mode: str, kind: str, dump: Callable[..., Receipt], make_sandbox: MakeSandbox, lake: Path
    ) -> None:
        """A job that moves during a walk is one row, the later one, in its month."""
        world = make_sandbox(jobs=1_000).world
        sandbox = Moving(world)
        opened = world.insert(
            world.now - timedelta(days=200), status="in_progress", lastUpdatedAt="2026-10-01T00:00:00Z"
        )
        if mode != "first":
            dump(sandbox, format=kind)
        sandbox.job = opened["id"]
        sandbox.to = world.now.replace(microsecond=0) - timedelta(minutes=5)
        receipt = dump(sandbox, full=mode == "full", format=kind)
        assert (receipt.code, receipt.mode) == (0, "refresh" if mode == "refresh" else "full")
        assert (receipt.moved, receipt.lake_rows) == (1, 1_001)
        assert [row["created_at"] for row in rows_of(lake, opened["id"])] == [sandbox.to]
        assert is_true(lake, sandbox)
        assert dump(sandbox).mode == "refresh"


class TestStamps:
    """F22: `lastUpdatedAt` comes from several clocks, or is null."""

    @pytest.mark.parametrize("kind", FORMATS)
    @pytest.mark.parametrize("stamp", ["earlier", "null"])
    def test_f22_a_job_that_ends_with_an_earlier_stamp(
        self, stamp: str, kind: str, dump: Callable[..., Receipt], make_sandbox: MakeSandbox, lake: Path
    ) -> None:
        """An end with an earlier `lastUpdatedAt` reaches the lake, for a settled row after a full sync."""
        sandbox = make_sandbox(jobs=600)
        job = next(each for each in reversed(sandbox.world.visible()) if each["status"] == "completed")
        name, stamps = job["id"], {"earlier": "2020-01-01T00:00:00Z", "null": None}
        stamping = Spoiling(sandbox.world)
        stamping.spoiled = {name: {"status": "in_progress", "completedAt": None}}
        dump(stamping, format=kind)
        assert rows_of(lake, name)[0]["status"] == "in_progress"
        stamping.spoiled = {name: {"lastUpdatedAt": stamps[stamp]}}
        receipt = dump(stamping)
        assert (receipt.mode, receipt.code) == ("refresh", 0)
        assert rows_of(lake, name)[0]["status"] == "completed"
        stamping.spoiled = {name: {"lastUpdatedAt": "2019-01-01T00:00:00Z", "numberOfItems": 77}}
        assert dump(stamping, full=True).code == 0
        assert rows_of(lake, name)[0]["number_of_items"] == 77

    def test_f22_within_one_run(self) -> None:
        """Of two rows of one run the ended one wins, then the later `lastUpdatedAt`, then the later row."""
        at = datetime(2026, 3, 1, tzinfo=UTC)
        for first, second, stays in (
            (("in_progress", at), ("completed", None), 1),
            (("completed", at - timedelta(days=1)), ("in_progress", at), 0),
            (("pending", at), ("in_progress", at), 1),
            (("failed", at), ("completed", at - timedelta(seconds=1)), 0),
        ):
            pair = pl.DataFrame(
                [
                    {"company_id": "a", "id": "b", "status": s, "last_updated_at": u, "n": n}
                    for n, (s, u) in enumerate((first, second))
                ],
                schema_overrides={"last_updated_at": pl.Datetime("us", "UTC")},
            )
            assert keep_latest(pair)["n"].to_list() == [stays]
