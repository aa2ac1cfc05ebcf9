"""Dumps in the life of a lake: refresh, rejected rows, resume, vanished jobs, many companies."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import random
import signal
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import polars as pl
import pytest
from canary import CANARY
from cases import mostly_slow
from lakes import list_months, lose_month, spoil_month

from pleo_extract import Client, connect, dump_export_jobs, load_export_jobs, scan_lake, verify_lake
from pleo_extract.errors import (
    ContractError,
    IncompleteWalk,
    LakeError,
    LakeLocked,
    PleoExtractError,
    RejectedRows,
    RequestsExceeded,
    UsageError,
)
from pleo_extract.lake.layout import Layout
from pleo_extract.lake.lock import hold_lock
from pleo_extract.lake.staging import Staging
from pleo_extract.lake.status import read_status
from pleo_extract.sandbox import Sandbox, World
from pleo_extract.sync import run as run_module

if TYPE_CHECKING:
    from collections.abc import Callable

    from pleo_extract.sandbox import RequestLike, Response
    from pleo_extract.sync.receipt import Receipt

    OpenClient = Callable[[Sandbox], Client]
    MakeSandbox = Callable[..., Sandbox]

pytestmark = pytest.mark.usefixtures("read_in_segments")

HOUR = 3_600.0
DAY = 86_400.0


def wrong(sandbox: Sandbox, lake: Path, since: datetime | None = None) -> list[Any]:
    """Return what is wrong with a lake, by the sandbox's oracle."""
    rows = scan_lake(lake).collect().drop("extra").to_dicts()
    return sandbox.truth(rows, since or sandbox.world.now)


@pytest.fixture
def refresh(open_client: OpenClient, tmp_path: Path) -> Callable[..., Receipt]:
    """Return a function that dumps a sandbox to the lake and counts requests from zero."""

    def run(sandbox: Sandbox, **options: Any) -> Receipt:
        sandbox.requests.clear()
        return dump_export_jobs(tmp_path, client=open_client(sandbox), **options)

    return run


def test_nothing_new_costs_a_handful_of_requests(
    refresh: Callable[..., Receipt], make_sandbox: MakeSandbox, tmp_path: Path
) -> None:
    """A refresh without news takes at most 6 requests and writes no file and no snapshot."""
    sandbox = make_sandbox(jobs=5_000)
    first = refresh(sandbox)
    files = sorted(tmp_path.rglob("*.parquet"))
    again = refresh(sandbox)
    assert (again.mode, again.verdict, again.code) == ("refresh", "complete", 0)
    assert len(sandbox.requests) == again.requests <= 6
    assert (again.snapshot, again.published, again.months_written) == (first.snapshot, False, [])
    assert sorted(tmp_path.rglob("*.parquet")) == files
    assert wrong(sandbox, tmp_path) == []


@pytest.mark.parametrize("days", mostly_slow([0.5, 40, 0.02, 3], quick=2))
def test_a_refresh_brings_what_is_new_and_what_changed(
    days: float, refresh: Callable[..., Receipt], make_sandbox: MakeSandbox, tmp_path: Path
) -> None:
    """After minutes or weeks, with jobs changing during the read, the lake equals the server again."""
    sandbox = make_sandbox(jobs=1_500, tick=20.0)
    refresh(sandbox)
    for _ in range(3):
        sandbox.world.advance(days * DAY)
        since = sandbox.world.now
        receipt = refresh(sandbox)
        assert receipt.mode == "refresh", receipt.why_full
        assert receipt.verdict in ("complete", "complete_with_drift")
        assert wrong(sandbox, tmp_path, since) == []
    assert verify_lake(tmp_path).ok


@pytest.mark.slow
def test_a_lake_of_100_000_jobs_is_refreshed_in_a_handful_of_requests(
    refresh: Callable[..., Receipt], make_sandbox: MakeSandbox, tmp_path: Path
) -> None:
    """At 100,000 jobs a refresh takes at most 6 requests without news, and 10 with 150 new and 40 changed jobs."""
    sandbox = make_sandbox(jobs=100_000)
    world = sandbox.world
    running = [
        world.insert(
            world.now - timedelta(minutes=30 * n), status="in_progress", startedAt="2026-11-01T00:00:00Z"
        )
        for n in range(40)
    ]
    first = refresh(sandbox)
    assert first.pages - first.requests == 0
    assert first.pages <= -(-first.distinct // 100) + 1 + 2  # no page twice, except closing reads
    again = refresh(sandbox)
    assert (again.mode, again.published, again.months_written) == ("refresh", False, [])
    assert len(sandbox.requests) <= 6
    before = scan_lake(tmp_path).collect()
    for job in running:
        world.change(job["id"], job["companyId"], status="completed", completedAt="2026-11-01T01:00:00Z")
    world.advance(1.4 * DAY)
    receipt = refresh(sandbox)
    assert receipt.mode == "refresh", receipt.why_full
    assert len(sandbox.requests) <= 10
    after = scan_lake(tmp_path).collect()
    changed = after.join(before, on=after.columns, how="anti", nulls_equal=True)
    assert after.height - before.height >= 150
    assert changed.height >= 190
    assert receipt.months_written == sorted(set(changed["created_at"].dt.strftime("%Y-%m")))
    listed = {(job["companyId"], job["id"], job["status"]) for job in world.visible()}
    assert set(after.select("company_id", "id", "status").iter_rows()) == listed


def test_old_stuck_jobs_do_not_cost_history(
    refresh: Callable[..., Receipt], make_sandbox: MakeSandbox, tmp_path: Path
) -> None:
    """A job that hangs for months stays in the open list; when it ends, it is read at its rank."""
    sandbox = make_sandbox(jobs=4_000)
    refresh(sandbox)
    stuck = [job for job in sandbox.world.visible() if job["status"] in ("pending", "in_progress")]
    assert stuck
    job = stuck[0]
    sandbox.world.change(job["id"], job["companyId"], status="failed", lastUpdatedAt="2026-10-31T23:00:00Z")
    receipt = refresh(sandbox)
    assert receipt.mode == "refresh", receipt.why_full
    assert receipt.requests <= 8
    row = scan_lake(tmp_path).filter(pl.col("id") == job["id"]).collect()
    assert row["status"].to_list() == ["failed"]


def test_a_stuck_job_that_vanishes_is_remembered(
    refresh: Callable[..., Receipt], make_sandbox: MakeSandbox, tmp_path: Path
) -> None:
    """An open job that is no longer listed is recorded as vanished once; its row stays."""
    sandbox = make_sandbox(jobs=4_000)
    refresh(sandbox)
    job = next(job for job in sandbox.world.visible() if job["status"] in ("pending", "in_progress"))
    sandbox.world.remove(job["id"], job["companyId"])
    receipt = refresh(sandbox)
    assert (receipt.mode, receipt.verdict) == ("refresh", "complete_with_drift")
    assert receipt.vanished == [(job["companyId"], job["id"])]
    assert scan_lake(tmp_path).collect().height == 4_000
    later = refresh(sandbox)
    assert (later.mode, later.verdict, later.vanished) == ("refresh", "complete", [])
    assert later.requests <= 6


def test_a_deleted_job_is_noticed(
    refresh: Callable[..., Receipt], make_sandbox: MakeSandbox, tmp_path: Path
) -> None:
    """A deleted settled job does not fit `total`: two full walks record it as vanished, and its row stays."""
    sandbox = make_sandbox(jobs=3_000)
    refresh(sandbox)
    job = sandbox.world.visible()[100]
    sandbox.world.remove(job["id"], job["companyId"])
    receipt = refresh(sandbox)
    assert receipt.mode == "full"
    assert receipt.why_full
    assert receipt.verdict == "complete_with_drift"
    assert receipt.vanished == [(job["companyId"], job["id"])]
    assert scan_lake(tmp_path).filter(pl.col("id") == job["id"]).collect().height == 1
    later = refresh(sandbox)
    assert (later.mode, later.verdict) == ("refresh", "complete")


def test_a_job_inserted_in_the_past_is_noticed(
    refresh: Callable[..., Receipt], make_sandbox: MakeSandbox, tmp_path: Path
) -> None:
    """A job inserted in the past does not fit `total`: a full walk finds it."""
    sandbox = make_sandbox(jobs=3_000)
    refresh(sandbox)
    inserted = sandbox.world.insert(sandbox.world.now - timedelta(days=100))
    receipt = refresh(sandbox)
    assert receipt.mode == "full"
    assert scan_lake(tmp_path).filter(pl.col("id") == inserted["id"]).collect().height == 1
    assert wrong(sandbox, tmp_path) == []


def test_a_changed_terminal_row_is_noticed_when_read(
    refresh: Callable[..., Receipt], make_sandbox: MakeSandbox, tmp_path: Path
) -> None:
    """A change of a settled job is found by a full walk, or by the audit if it reads the row."""
    sandbox = make_sandbox(jobs=300)
    refresh(sandbox)
    for job in sandbox.world.visible()[:250]:
        if job["status"] == "completed":
            sandbox.world.change(job["id"], job["companyId"], numberOfItems=job["numberOfItems"] + 1)
    receipt = refresh(sandbox)
    assert receipt.mode == "full"
    assert "changed" in receipt.why_full
    assert receipt.audited > 0
    assert 0 < receipt.audited_share <= 1
    assert wrong(sandbox, tmp_path) == []


@pytest.mark.parametrize("total", ["big", "small"])
def test_f60_a_total_that_lies_is_named_once(
    total: str, refresh: Callable[..., Receipt], make_sandbox: MakeSandbox, tmp_path: Path
) -> None:
    """A wrong total gives drift in the first dump; later refreshes compare only its changes."""
    sandbox = make_sandbox(jobs=1_000, total=total)
    assert refresh(sandbox).verdict == "complete_with_drift"
    if total == "small":  # it may be a cap until it has grown with the list
        company = sandbox.world.visible()[0]["companyId"]
        sandbox.world.insert(sandbox.world.now, company=company, status="completed")
    receipt = refresh(sandbox)
    assert (receipt.mode, receipt.verdict, receipt.total_kind) == ("refresh", "complete", "constant")
    assert receipt.requests <= 6
    assert wrong(sandbox, tmp_path) == []


@pytest.mark.parametrize("unsortable", ["refuse", "ignore", "lie"])
def test_without_proven_order_every_dump_is_full(
    unsortable: str, refresh: Callable[..., Receipt], make_sandbox: MakeSandbox, tmp_path: Path
) -> None:
    """A server that does not sort is read completely each time, and the receipt says why."""
    sandbox = make_sandbox(jobs=500, sorting=(), unsortable=unsortable)
    refresh(sandbox)
    sandbox.world.advance(DAY)
    receipt = refresh(sandbox)
    assert receipt.mode == "full"
    assert "order" in receipt.why_full
    assert wrong(sandbox, tmp_path) == []


def test_a_server_that_ignores_statuses_is_found_out(
    refresh: Callable[..., Receipt], make_sandbox: MakeSandbox, tmp_path: Path
) -> None:
    """If the open list has settled jobs, the lake's open jobs are read one by one, with few requests."""
    sandbox = make_sandbox(jobs=5_000, filter_statuses=False)
    refresh(sandbox)
    sandbox.world.advance(HOUR)
    receipt = refresh(sandbox)
    assert (receipt.mode, receipt.code) == ("refresh", 0), receipt.why_full
    assert receipt.requests <= 12
    assert wrong(sandbox, tmp_path) == []


@pytest.mark.parametrize("options", [{"full": True}, {"full_every": timedelta(0)}])
def test_full_when_asked_and_when_due(
    options: dict[str, Any], refresh: Callable[..., Receipt], make_sandbox: MakeSandbox
) -> None:
    """A dump is full on request, and when the last full one is older than `full_every`."""
    sandbox = make_sandbox(jobs=500)
    refresh(sandbox)
    assert refresh(sandbox, **options).mode == "full"
    assert refresh(sandbox).mode == "refresh"


@pytest.mark.slow
def test_f21_many_jobs_gone_need_confirmation(
    refresh: Callable[..., Receipt], make_sandbox: MakeSandbox, tmp_path: Path
) -> None:
    """A loss of more than 100 jobs and 1 % gives 76 until --accept-vanished confirms it."""
    sandbox = make_sandbox(jobs=3_000)
    first = refresh(sandbox)
    for job in sandbox.world.visible()[:200]:
        sandbox.world.remove(job["id"], job["companyId"])
    with pytest.raises(ContractError, match="--accept-vanished") as caught:
        refresh(sandbox)
    assert caught.value.code == 76
    assert Layout(tmp_path).number() == first.snapshot
    receipt = refresh(sandbox, accept_vanished=True)
    assert len(receipt.vanished) == 200
    assert scan_lake(tmp_path).collect().height == 3_000
    assert refresh(sandbox).mode == "refresh"


def test_rejected_rows_are_remembered_until_seen_right(
    refresh: Callable[..., Receipt], make_sandbox: MakeSandbox, tmp_path: Path
) -> None:
    """Dumps give 65 until a rejected row is read as valid, at its rank or by a full sync."""
    sandbox = make_sandbox(jobs=1_000)
    with pytest.raises(RejectedRows):
        refresh(Sandbox(sandbox.world, faults="3:badrow.baddate"))
    assert scan_lake(tmp_path).collect().height == 999
    random.seed(2)  # with this seed the audit reads other rows
    with pytest.raises(RejectedRows, match="earlier run") as caught:
        refresh(sandbox)
    assert caught.value.receipt is not None
    assert caught.value.receipt["mode"] == "refresh"
    for seed in range(2, 100):  # until the audit reads the row and accepts the change
        random.seed(seed)
        try:
            receipt = refresh(sandbox)
        except RejectedRows:
            continue
        break
    assert (receipt.code, receipt.mode) == (0, "refresh")
    assert wrong(sandbox, tmp_path) == []
    assert refresh(sandbox, full=True).code == 0


class Spoiling(Sandbox):
    """A sandbox in which one job has a fraction as its count."""

    spoiled = ""

    def __call__(self, request: RequestLike) -> Response:
        """Return the response with that row changed."""
        answer = super().__call__(request)
        body = json.loads(answer.body)
        for row in body.get("data", []):
            if row["id"] == self.spoiled:
                row["numberOfItems"] = 1.5
        return dataclasses.replace(answer, body=json.dumps(body).encode())


@pytest.mark.slow
@pytest.mark.parametrize("place", ["newest", "old", "open", "settled since"])
def test_a_rejected_row_is_a_job_that_is_listed(place: str, refresh: Callable[..., Receipt]) -> None:
    """A job whose row becomes invalid is not missing: the refresh gives 65 and stays incremental."""
    world = World(jobs=400)
    sandbox = Spoiling(world)
    created = datetime.fromisoformat(world.visible()[100]["createdAt"])
    hanging = world.insert(
        created if place == "settled since" else world.now - timedelta(days=1),
        status="in_progress",
        startedAt="2026-10-01T00:00:00Z",
    )["id"]
    refresh(sandbox)
    if place == "settled since":
        world.change(hanging, status="completed")
    rows = world.visible()
    sandbox.spoiled = {"newest": rows[-1]["id"], "old": rows[200]["id"]}.get(place, hanging)
    met, tries = 0, 12 if place == "old" else 3  # the audit finds it by chance
    for seed in range(tries):
        random.seed(seed)
        try:
            receipt = refresh(sandbox)
        except RejectedRows as exc:
            met += 1
            reported = exc.receipt
            assert reported is not None
            assert (reported["mode"], reported["verdict"], reported["vanished"]) == (
                "refresh",
                "complete",
                [],
            )
        else:
            assert (place, receipt.mode, receipt.code, met) == ("old", "refresh", 0, 0)
    assert met == tries or (place == "old" and met)


def test_a_run_that_is_cut_short_is_gone_on_with(
    refresh: Callable[..., Receipt], make_sandbox: MakeSandbox, tmp_path: Path
) -> None:
    """A first dump at its request limit publishes nothing, and the next run resumes without reading a page twice."""
    sandbox = make_sandbox(jobs=9_000, tick=1.0)
    since = sandbox.world.now
    for _ in range(3):
        with pytest.raises(RequestsExceeded) as caught:
            refresh(sandbox, max_requests=25)
        assert caught.value.code == 75
        assert not (tmp_path / "_lake/current").exists()
    receipt = refresh(sandbox)
    assert receipt.resumed
    assert receipt.requests <= 90 - 75 + 2 + 2  # the closing reads
    assert wrong(sandbox, tmp_path, since) == []
    assert list((tmp_path / "_lake/staging").iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("call", [1, 2, 3])
@pytest.mark.parametrize(
    "place",
    [
        "pleo_extract.fetch.workers.build_batch",
        "pleo_extract.sync.task.hold_signals",
        "pleo_extract.lake.staging.count_months",
    ],
)
def test_f36_ctrl_c_between_reading_and_staging_loses_nothing(
    place: str,
    call: int,
    refresh: Callable[..., Receipt],
    make_sandbox: MakeSandbox,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ctrl-C before, during or after the staging of a batch leaves no gap in the staged pages."""
    sandbox = make_sandbox(jobs=3_600)
    room, _, name = place.rpartition(".")
    real = getattr(sys.modules[room], name)
    calls = itertools.count(1)

    def interrupted(*given: Any) -> Any:
        if next(calls) == call:
            os.kill(os.getpid(), signal.SIGINT)
        return real(*given)

    with monkeypatch.context() as patched:
        patched.setattr(place, interrupted)
        with pytest.raises(KeyboardInterrupt):
            refresh(sandbox)
    receipt = refresh(sandbox)
    assert receipt.resumed
    assert receipt.requests < 36
    assert wrong(sandbox, tmp_path) == []


@pytest.mark.parametrize("place", ["renew_catalogue", "write_last_run"])
def test_f36_ctrl_c_after_publishing_leaves_a_complete_run(
    place: str,
    refresh: Callable[..., Receipt],
    make_sandbox: MakeSandbox,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ctrl-C between the commit and the end of the run is recorded as what it is: a run that read and published all."""
    real = getattr(run_module, place)

    def interrupted(*given: Any, **named: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return real(*given, **named)

    sandbox = make_sandbox(jobs=300)
    with monkeypatch.context() as patched:
        patched.setattr(run_module, place, interrupted)
        with pytest.raises(KeyboardInterrupt):
            refresh(sandbox)
    status = read_status(tmp_path)
    assert (status.snapshot, status.rows) == (1, 300)
    assert status.last_run is not None
    assert status.last_run.last_complete_at is not None
    assert "never" not in str(status)
    assert refresh(sandbox).code == 0


def test_rows_that_were_counted_but_not_staged_are_read_again(
    refresh: Callable[..., Receipt],
    make_sandbox: MakeSandbox,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A checkpoint counts only as far as its rows are staged."""
    sandbox = make_sandbox(jobs=3_000)
    real = Staging.add
    calls = itertools.count(1)

    def forget(self: Staging, frame: pl.DataFrame, *given: Any, **named: Any) -> pl.DataFrame:
        return real(self, frame.clear() if next(calls) == 1 else frame, *given, **named)

    monkeypatch.setattr(Staging, "add", forget)
    assert refresh(sandbox).verdict == "complete"
    assert len(sandbox.requests) >= 60
    assert wrong(sandbox, tmp_path) == []


def test_a_refresh_that_is_cut_short_is_gone_on_with(
    refresh: Callable[..., Receipt], make_sandbox: MakeSandbox, tmp_path: Path
) -> None:
    """An interrupted long refresh is resumed, too."""
    sandbox = make_sandbox(jobs=2_000, max_limit=20)
    refresh(sandbox)
    sandbox.world.advance(60 * DAY)
    with pytest.raises(RequestsExceeded):
        refresh(sandbox, max_requests=10)
    since = sandbox.world.now
    sandbox.world.advance(HOUR)
    receipt = refresh(sandbox)
    assert receipt.resumed
    assert receipt.mode == "refresh", receipt.why_full
    assert wrong(sandbox, tmp_path, since) == []
    assert refresh(sandbox).code == 0
    assert wrong(sandbox, tmp_path) == []


def test_staging_of_another_query_is_not_resumed_and_has_no_age(
    refresh: Callable[..., Receipt], make_sandbox: MakeSandbox, tmp_path: Path
) -> None:
    """Staged pages belong to server, company and snapshot; their age does not matter."""
    sandbox = make_sandbox(jobs=3_000)
    company = sandbox.world.companies[0]
    with pytest.raises(RequestsExceeded):
        refresh(sandbox, max_requests=10)
    assert not refresh(sandbox, company_id=company).resumed
    with pytest.raises(RequestsExceeded):
        refresh(sandbox, max_requests=10)
    (folder,) = (tmp_path / "_lake/staging").iterdir()
    header = json.loads((folder / "run.json").read_text())
    header["started_at"] = "2020-01-01T00:00:00Z"
    (folder / "run.json").write_text(json.dumps(header))
    assert refresh(sandbox).resumed
    assert wrong(sandbox, tmp_path) == []


def test_f37_one_writer(refresh: Callable[..., Receipt], make_sandbox: MakeSandbox, tmp_path: Path) -> None:
    """A second run sends nothing, names the holder of the lake, and gives its own code."""
    sandbox = make_sandbox()
    with (
        hold_lock(Layout(tmp_path)),
        pytest.raises(LakeLocked, match=r"pid \d+ on .*, since \d{4}-") as caught,
    ):
        refresh(sandbox)
    assert caught.value.code == 69
    assert sandbox.requests == []
    assert refresh(sandbox).code == 0


def test_f43_a_changed_file_is_not_merged_over(
    refresh: Callable[..., Receipt], make_sandbox: MakeSandbox, tmp_path: Path
) -> None:
    """A flipped bit in the lake is found before a merge: 65, and verify names the file."""
    sandbox = make_sandbox(jobs=2_000)
    refresh(sandbox)
    file = list_months(tmp_path)[-1]
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    spoil_month(file, bytes(data))
    problems = verify_lake(tmp_path).problems
    assert problems
    assert all(file.parent.name in problem for problem in problems)
    sandbox.world.advance(DAY)
    with pytest.raises(PleoExtractError) as caught:
        refresh(sandbox)
    assert caught.value.code == 65


@pytest.mark.parametrize("how", ["missing", "short"])
@pytest.mark.parametrize("mode", ["refresh", "full"])
def test_f43_a_missing_or_short_file_is_found_before_anything_is_asked(
    how: str, mode: str, refresh: Callable[..., Receipt], make_sandbox: MakeSandbox, tmp_path: Path
) -> None:
    """A lake with a missing or truncated file gives 65 before a request, with advice to repair."""
    sandbox = make_sandbox(jobs=2_000)
    refresh(sandbox)
    file = list_months(tmp_path)[0]
    if how == "short":
        spoil_month(file, file.read_bytes()[:-1])
    else:
        lose_month(file)
    sandbox.world.advance(DAY)
    with pytest.raises(LakeError, match=f"{file.parent.name}.* run: pleo-extract repair {tmp_path}"):
        refresh(sandbox, full=mode == "full")
    assert sandbox.requests == []


@pytest.mark.slow
@pytest.mark.parametrize("other", [{"jobs": 3_000}, {"jobs": 5_000, "seed": 9}, {"jobs": 900, "seed": 3}])
def test_f21_a_lake_of_another_world(
    other: dict[str, int], refresh: Callable[..., Receipt], make_sandbox: MakeSandbox, tmp_path: Path
) -> None:
    """A server with other jobs than the lake gives 76, changes nothing, and says what to do.

    A world of the same seed has the same ids at other times: accepting it would double them.

    """
    refresh(make_sandbox(jobs=2_000))
    before = scan_lake(tmp_path).collect()
    with pytest.raises(ContractError, match=r"nothing was published. .* dump that to a folder of its own"):
        refresh(make_sandbox(**other))
    assert scan_lake(tmp_path).collect().equals(before)
    if "seed" in other:
        refresh(make_sandbox(**other), accept_vanished=True)
    else:
        with pytest.raises(ContractError, match="with another created_at"):
            refresh(make_sandbox(**other), accept_vanished=True)
    assert verify_lake(tmp_path).ok


def test_a_newer_lake_is_refused(
    refresh: Callable[..., Receipt], make_sandbox: MakeSandbox, tmp_path: Path
) -> None:
    """A lake of a newer version is not changed: 65 with the version."""
    sandbox = make_sandbox()
    refresh(sandbox)
    path = tmp_path / "_lake/snapshots/000001.json"
    path.write_text(path.read_text().replace('"format": 2', '"format": 99'))
    with pytest.raises(LakeError, match="99"):
        refresh(sandbox)


def test_companies_share_a_lake(make_sandbox: MakeSandbox, tmp_path: Path) -> None:
    """Companies dumped one by one into one lake keep separate states; a refresh of one does not touch others."""
    sandbox = make_sandbox(jobs=2_000)
    one, two = sandbox.world.companies[:2]
    with Client("http://127.0.0.1:1", api_key=CANARY, transport=sandbox, rate=100_000) as client:
        dump_export_jobs(tmp_path, company_id=one, client=client)
        dump_export_jobs(tmp_path, company_id=two, client=client)
        sandbox.world.advance(5 * DAY)
        receipts = [dump_export_jobs(tmp_path, company_id=company, client=client) for company in (one, two)]
    assert [receipt.mode for receipt in receipts] == ["refresh", "refresh"]
    rows = scan_lake(tmp_path).collect().drop("extra").to_dicts()
    assert sandbox.truth(rows, sandbox.world.now, companies=frozenset({one, two})) == []


def test_options_are_checked_before_anything_is_sent(
    refresh: Callable[..., Receipt], make_sandbox: MakeSandbox, tmp_path: Path
) -> None:
    """Invalid options are refused before anything is sent."""
    sandbox = make_sandbox()
    for name, value in (
        ("max_requests", 0),
        ("max_requests", "many"),
        ("deadline", -1.0),
        ("deadline", timedelta(1)),
        ("keep_for", timedelta(-1)),
        ("keep_for", 24),
        ("keep_count", 0),
        ("keep_count", "all"),
        ("full_every", "soon"),
        ("full_every", timedelta(-1)),
    ):
        with pytest.raises(UsageError, match=f"^{name} must be"):
            refresh(sandbox, **{name: value})
    assert sandbox.requests == []
    assert not (tmp_path / "_lake/current").exists()


def test_snapshots_are_pruned_by_age_and_count(
    refresh: Callable[..., Receipt], make_sandbox: MakeSandbox, tmp_path: Path
) -> None:
    """Snapshots expire by the time of their replacement or by count; the current one stays."""
    sandbox = make_sandbox(jobs=500)
    for _ in range(4):
        refresh(sandbox)
        sandbox.world.advance(10 * DAY)
    assert Layout(tmp_path).numbers() == [1, 2, 3, 4]
    refresh(sandbox, keep_count=3)
    assert Layout(tmp_path).numbers() == [3, 4, 5]
    sandbox.world.advance(10 * DAY)
    refresh(sandbox, keep_for=timedelta(0))
    assert Layout(tmp_path).numbers() == [6]
    assert [path.name for path in (tmp_path / "_lake/snapshots").iterdir()] == ["000006.json"]
    objects = {entry.object for entry in Layout(tmp_path).manifest(6).files}
    assert {path.name for path in (tmp_path / "_lake/objects").iterdir()} == objects
    assert wrong(sandbox, tmp_path) == []


def test_world_without_jobs_then_with(
    make_sandbox: MakeSandbox, open_client: OpenClient, tmp_path: Path
) -> None:
    """A lake that began empty accepts the first jobs."""
    world = World(jobs=0)
    sandbox = Sandbox(world)
    dump_export_jobs(tmp_path, client=open_client(sandbox))
    world.insert(world.now)
    receipt = dump_export_jobs(tmp_path, client=open_client(sandbox))
    assert receipt.lake_rows == 1


@pytest.mark.catalogue
def test_the_catalogue_is_for_any_duckdb_client(
    refresh: Callable[..., Receipt], make_sandbox: MakeSandbox, tmp_path: Path
) -> None:
    """After each publish _jobs.duckdb, opened or attached, answers like `connect`."""
    sandbox = make_sandbox(jobs=2_000)
    for _ in range(2):
        refresh(sandbox)
        sandbox.world.advance(40 * DAY)
        question = "from {}failure_rates('month') order by all"
        expected = connect(tmp_path).sql(question.format("")).pl()
        with duckdb.connect(str(tmp_path / "_jobs.duckdb"), read_only=True) as opened:
            opened.execute(
                "SET TimeZone = 'UTC'"
            )  # as `connect` has it; a client's own zone is the machine's
            assert opened.sql(question.format("")).pl().equals(expected)
            assert opened.sql("select count(*) from export_jobs").fetchall() == [(expected["jobs"].sum(),)]
        with duckdb.connect() as other:
            other.execute("SET TimeZone = 'UTC'")
            other.execute(f"attach '{tmp_path / '_jobs.duckdb'}' as lake (read_only)")
            assert other.sql(question.format("lake.")).pl().equals(expected)


@pytest.mark.catalogue
def test_a_moved_lake_gets_its_catalogue_anew(
    make_sandbox: MakeSandbox, open_client: OpenClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run rewrites the catalogue if the lake's path or the catalogue's version changed."""
    sandbox = make_sandbox()
    client = open_client(sandbox)
    dump_export_jobs(tmp_path / "old", client=client)
    moved = (tmp_path / "old").rename(tmp_path / "new")
    catalogue = moved / "_jobs.duckdb"
    assert not dump_export_jobs(moved, client=client).published
    with duckdb.connect(str(catalogue), read_only=True) as opened:
        assert opened.sql("select count(*) from export_jobs").fetchall() == [(300,)]
    written = catalogue.stat().st_ino
    dump_export_jobs(moved, client=client)
    assert catalogue.stat().st_ino == written
    monkeypatch.setattr("pleo_extract.answers.doors.__version__", "9.9.9")
    dump_export_jobs(moved, client=client)
    assert b"pleo_extract 9.9.9 " in catalogue.read_bytes()
    catalogue.unlink()
    dump_export_jobs(moved, client=client)
    assert catalogue.exists()


def test_a_client_that_is_closed_says_so(open_client: OpenClient, make_sandbox: MakeSandbox) -> None:
    """Closing a client twice is harmless, and using it afterwards is an error that says so."""
    client = Client("http://127.0.0.1:1", api_key="plp_any")
    client.close()
    with Path(os.devnull).open("rb") as other:  # reuses the file descriptor of the client's window
        client.close()
        assert other.read() == b""
    with pytest.raises(UsageError, match="closed"):
        load_export_jobs(client=client)


@pytest.mark.parametrize("lost", ["file", "pointer"])
def test_a_lake_that_lost_something_does_not_answer(
    lost: str, refresh: Callable[..., Receipt], make_sandbox: MakeSandbox, tmp_path: Path
) -> None:
    """A missing file or pointer is an error with advice to repair, never a smaller answer."""
    refresh(make_sandbox(jobs=1_000))
    if lost == "pointer":
        (tmp_path / "_lake/current").unlink()
    else:
        lose_month(list_months(tmp_path)[-1])
    for read in (scan_lake, connect, read_status):
        with pytest.raises(LakeError, match=r"repair|verify"):
            read(tmp_path)
    assert not verify_lake(tmp_path).ok


def test_a_total_that_falls_to_nothing_is_not_drift(
    refresh: Callable[..., Receipt], make_sandbox: MakeSandbox, open_client: OpenClient, tmp_path: Path
) -> None:
    """One empty page during a walk costs a second pass; a list that stays short is incomplete."""
    receipt = refresh(make_sandbox(jobs=800, faults="5:emptied"))
    assert (receipt.verdict, receipt.lake_rows) == ("complete", 800)
    with pytest.raises(IncompleteWalk):
        load_export_jobs(client=open_client(make_sandbox(jobs=800, faults="5-:emptied")))
