"""F27, F61 and F64: rows that are rejected for a while, statuses that nobody knows, jobs that move to another month."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from pleo_extract import Client, dump_export_jobs, scan_lake, verify_lake
from pleo_extract.errors import ContractError
from pleo_extract.lake import Layout, Manifest
from pleo_extract.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path

    from pleo_extract.extract import Receipt
    from pleo_extract.sandbox import Request, Response

    OpenClient = Callable[[Sandbox], Client]
    MakeSandbox = Callable[..., Sandbox]

FORMATS = ["parquet", "delta"]


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """Where the lake is to be."""
    return tmp_path / "lake"


@pytest.fixture
def dump(open_client: OpenClient, lake: Path) -> Callable[..., Receipt]:
    """Dumps a sandbox to the test's lake, counting requests from nought."""

    def run(sandbox: Sandbox, **options: Any) -> Receipt:
        sandbox.requests.clear()
        return dump_export_jobs(lake, client=open_client(sandbox), **options)

    return run


def is_true(lake: Path, sandbox: Sandbox) -> bool:
    """Whether the lake has every job of the server once, as it is now, each row where it belongs."""
    rows = scan_lake(lake).collect().drop("extra").to_dicts()
    assert sandbox.truth(rows, sandbox.world.now) == []
    found = verify_lake(lake)
    assert found.ok, found.problems
    return True


def rows_of(lake: Path, name: str) -> list[dict[str, Any]]:
    """The lake's rows of this job."""
    return scan_lake(lake).filter(pl.col("id") == name).collect().to_dicts()


def read_manifest(lake: Path) -> Manifest:
    """The manifest of the lake's current snapshot."""
    layout = Layout(lake)
    snapshot = layout.snapshot()
    assert snapshot is not None
    return layout.manifest(snapshot.number)


class TestMovedJobs:
    """F64: createdAt never changes, the contract says; it did."""

    @pytest.mark.parametrize("kind", FORMATS)
    def test_f64_a_refresh_moves_a_job(
        self, kind: str, dump: Callable[..., Receipt], make_sandbox: MakeSandbox, lake: Path
    ) -> None:
        """A job that is listed among the newest since: its row stands there and nowhere else, for a refresh's few requests."""
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
        """Jobs that moved between two old months are moved by a full sync, whether or not the server sorts."""
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
        """Within one month a row is replaced by its key; that is no move, and the counts fit."""
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
        """When the only job of a month moves, the month is gone."""
        sandbox = make_sandbox(jobs=300)
        lonely = sandbox.world.insert(sandbox.world.now - timedelta(days=900))
        dump(sandbox, format=kind)
        assert len(list(lake.rglob("created_month=2024-05/*.parquet"))) == 1
        sandbox.world.move(lonely["id"], sandbox.world.now - timedelta(minutes=5))
        receipt = dump(sandbox)
        assert (receipt.code, receipt.moved) == (0, 1)
        assert is_true(lake, sandbox)
        assert scan_lake(lake).select(pl.col("created_at").min()).collect().item().year > 2024

    def test_f64_a_job_that_was_said_to_have_vanished_is_found_again(
        self, dump: Callable[..., Receipt], make_sandbox: MakeSandbox, lake: Path
    ) -> None:
        """A job that the server listed no more, and lists elsewhere later, is one job all the same."""
        sandbox = make_sandbox(jobs=1_000)
        dump(sandbox)
        job = sandbox.world.visible()[300]
        sandbox.world.remove(job["id"])
        assert dump(sandbox).vanished == [(job["companyId"], job["id"])]
        sandbox.world._find(job["id"], None).gone = 1 << 62
        sandbox.world.move(job["id"], sandbox.world.now - timedelta(days=30))
        receipt = dump(sandbox, full=True)
        assert (receipt.code, receipt.moved, receipt.vanished) == (0, 1, [])
        assert is_true(lake, sandbox)
        assert dump(sandbox).mode == "refresh"

    @pytest.mark.parametrize("options", [{"full": True}, {}], ids=["full", "refresh"])
    def test_f64_many_moved_jobs_are_not_believed(
        self, options: dict[str, Any], dump: Callable[..., Receipt], make_sandbox: MakeSandbox, lake: Path
    ) -> None:
        """Up to 100 jobs are moved; of more than these and 1 %, nothing: 76, and the lake as it was."""
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
    """F61: a status that the contract does not know, on many old rows."""

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
        """Re-read unchanged three times they are as good as settled: a quiet refresh; one warning a lake, not one a run."""
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

    def test_f61_a_late_row_is_counted_for_itself(
        self, dump: Callable[..., Receipt], make_sandbox: MakeSandbox, lake: Path
    ) -> None:
        """A job that ends in a settled status of its own kind is read three times more; the others stay settled."""
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
        """Where the audit or a full sync reads it; until it is settled, at once."""
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
        assert "settled job(s) changed" in receipt.why_full
        assert is_true(lake, sandbox)


class Moving(Sandbox):
    """A sandbox that moves a job as soon as it has shown it."""

    job = "none"
    to: datetime

    def __call__(self, request: Request) -> Response:
        """The answer, and then the move."""
        answer = super().__call__(request)
        if self.job.encode() in answer.body and self.world.interventions[-1].kind != "change":
            self.world.move(self.job, self.to)
        return answer


class TestShownTwice:
    """A job that the server shows twice in one walk, under two months."""

    @pytest.mark.parametrize("kind", FORMATS)
    @pytest.mark.parametrize("mode", ["first", "full", "refresh"])
    def test_f64_a_job_shown_under_two_months_is_one_row(
        self, mode: str, kind: str, dump: Callable[..., Receipt], make_sandbox: MakeSandbox, lake: Path
    ) -> None:
        """A job that moves while the list is read is met before and after: the later row stays, in its month."""
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
