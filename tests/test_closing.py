"""The closing reads: no run calls an old state complete, whatever it resumes and whatever `total` says."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import polars as pl
import pytest
from canary import CANARY
from cases import mostly_slow

from pleo_extract import (
    Client,
    connect,
    dump_accounts,
    dump_export_jobs,
    iter_export_jobs,
    load_export_jobs,
    scan_lake,
    verify_lake,
)
from pleo_extract.client import read_accounts
from pleo_extract.core.ranks import chance_of_shift, spread_ranks
from pleo_extract.errors import PleoExtractError, RequestsExceeded, StorageError
from pleo_extract.lake import disk
from pleo_extract.lake.folder import table as folder_module
from pleo_extract.lake.layout import OBJECT
from pleo_extract.lake.status import read_status
from pleo_extract.sandbox import Rules, Sandbox, World, serve
from pleo_extract.sync import account as account_module

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pleo_extract import Receipt
    from pleo_extract.sandbox import RequestLike, Response

    Later = Callable[[Sandbox, float], None]

pytestmark = pytest.mark.usefixtures("read_in_segments")

HOUR = 3_600.0
DAY = 24 * HOUR


def wrong(sandbox: Sandbox, lake: Path, since: datetime | None = None) -> list[Any]:
    """Return what is wrong with a lake, by the sandbox's oracle."""
    rows = scan_lake(lake).collect().drop("extra").to_dicts()
    return sandbox.truth(rows, since or sandbox.world.now)


def dump(lake: Path, sandbox: Callable[[RequestLike], Response], **options: Any) -> Receipt:
    """Dump the sandbox to the lake; count requests from zero."""
    if isinstance(sandbox, Sandbox):
        sandbox.requests.clear()
    with Client("http://127.0.0.1:1", api_key=CANARY, transport=sandbox, rate=10_000_000) as client:
        return dump_export_jobs(lake, client=client, **options)


def copy_lake(dumped: Path, lake: Path) -> Path:
    """Copy a lake, which is cheaper than a dump, without the catalogue, which names the old path."""
    shutil.copytree(dumped, lake, symlinks=True, ignore=shutil.ignore_patterns("jobs.duckdb"))
    return lake


def tell(lake: Path, sandbox: Sandbox, **options: Any) -> dict[str, Any]:
    """Return the receipt of a dump, also of one that reached its request limit."""
    try:
        return dump(lake, sandbox, **options).to_dict()
    except RequestsExceeded as error:
        return dict(error.receipt or {})


def cut(lake: Path, sandbox: Sandbox, requests: int, **options: Any) -> None:
    """Dump to the request limit."""
    with pytest.raises(RequestsExceeded):
        dump(lake, sandbox, max_requests=requests, **options)


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Later:
    """Return a function that advances the clocks of the world and of this machine."""

    class Moved(datetime):
        passed = timedelta(0)

        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) + cls.passed

    for module in (account_module, folder_module):
        monkeypatch.setattr(module, "datetime", Moved)

    def move(sandbox: Sandbox, seconds: float) -> None:
        sandbox.world.advance(seconds)
        Moved.passed += timedelta(seconds=seconds)

    return move


def make_sandbox(jobs: int = 5_000, **rules: Any) -> Sandbox:
    """Return a busy world with about a hundred jobs a day and some open at any time."""
    return Sandbox(World(jobs=jobs, days=30), rules=Rules(**rules), api_keys={CANARY: None})


def fill(patch: pytest.MonkeyPatch) -> None:
    """Fill the disk: it accepts staged pages, but no months."""
    real = disk.write_file

    def write(path: Path, *given: Any, **more: Any) -> None:
        if OBJECT.fullmatch(path.name):
            raise StorageError(f"cannot write {path}: {os.strerror(errno.ENOSPC)}")
        real(path, *given, **more)

    patch.setattr(disk, "write_file", write)


@pytest.mark.parametrize("hours", [5, 5 * 24])
def test_f57_a_full_disk_at_publish_then_later(
    hours: float, later: Later, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that resumes after a full disk also reads new and open jobs, and records its `data_as_of`."""
    sandbox = make_sandbox()

    with monkeypatch.context() as patch:
        fill(patch)
        with pytest.raises(StorageError):
            dump(tmp_path, sandbox)
    later(sandbox, hours * HOUR)
    started = datetime.now(UTC)
    receipt = dump(tmp_path, sandbox)
    assert (receipt.code, receipt.verdict, receipt.resumed) == (0, "complete", True)
    assert receipt.requests <= 6 + hours * HOUR / DAY * 3
    assert wrong(sandbox, tmp_path) == []
    assert receipt.data_as_of is not None
    assert receipt.data_as_of >= started


def test_f57_a_refresh_cut_by_requests_then_later(later: Later, tmp_path: Path) -> None:
    """A refresh interrupted several times, hours apart, reads the head, the open list and staged open jobs again."""
    sandbox = make_sandbox(jobs=4_000, max_limit=50)
    dump(tmp_path, sandbox)
    later(sandbox, 6 * DAY)
    for requests in (6, 9, 5):
        cut(tmp_path, sandbox, requests)
        later(sandbox, 5.5 * HOUR)
    receipt = dump(tmp_path, sandbox)
    assert (receipt.code, receipt.mode, receipt.resumed) == (0, "refresh", True), receipt.why_full
    assert wrong(sandbox, tmp_path) == []
    assert dump(tmp_path, sandbox).requests <= 6


def test_f57_the_same_on_delta(later: Later, tmp_path: Path) -> None:
    """A Delta table is correct after an interrupted first dump and refresh that are resumed hours later."""
    pytest.importorskip("deltalake")
    sandbox, table = make_sandbox(jobs=3_000), tmp_path / "table"
    options: dict[str, Any] = {"format": "delta", "workspace": tmp_path / "work"}
    cut(table, sandbox, 20, **options)
    later(sandbox, 7 * HOUR)
    assert dump(table, sandbox, **options).resumed
    rows = scan_lake(table, workspace=tmp_path / "work").collect().drop("extra").to_dicts()
    assert sandbox.truth(rows, sandbox.world.now) == []
    later(sandbox, 4 * DAY)
    cut(table, sandbox, 3, **options)
    later(sandbox, 5 * HOUR)
    assert dump(table, sandbox, **options).mode == "refresh"
    rows = scan_lake(table, workspace=tmp_path / "work").collect().drop("extra").to_dicts()
    assert sandbox.truth(rows, sandbox.world.now) == []


def test_f57_a_server_that_refuses_sorting(later: Later, tmp_path: Path) -> None:
    """Without order, resumed dumps are correct: the totals show new jobs between the staged pages."""
    sandbox = make_sandbox(jobs=2_000, sorting=(), unsortable="refuse")
    for _ in range(6):
        cut(tmp_path, sandbox, 12)
        later(sandbox, 2 * HOUR)
        since = sandbox.world.now
        assert dump(tmp_path, sandbox).code == 0
        assert wrong(sandbox, tmp_path, since) == []
        later(sandbox, HOUR)


def test_f57_many_accounts_killed_half_way(
    later: Later, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Companies read before a kill are read again, so that all are as of the run that publishes."""
    world = World(jobs=2_400, days=30, companies=24)
    sandbox = Sandbox(world, api_keys={CANARY: None})

    def entries() -> Any:
        key = tmp_path / "key"
        key.write_text(CANARY)
        key.chmod(0o600)
        lines = [
            f'[[account]]\ncompany_id = "{each}"\napi_key_file = "key"\nrate = 100000'
            for each in world.companies
        ]
        (tmp_path / "accounts.toml").write_text(f'base_url = "{server.url}"\n' + "\n".join(lines))
        return read_accounts(tmp_path / "accounts.toml")

    lake = tmp_path / "lake"
    with serve(sandbox) as server:
        for account in entries()[:12]:  # a killed run leaves them staged and not published
            with monkeypatch.context() as patch:
                fill(patch)
                with pytest.raises(StorageError):
                    dump_accounts(lake, [account])
        later(sandbox, 20 * HOUR)
        total, receipts = dump_accounts(lake, entries())
    assert (total.code, len(receipts)) == (0, 24)
    assert wrong(sandbox, lake) == []


def test_f57_deleted_while_a_walk_was_cut(later: Later, tmp_path: Path) -> None:
    """Deletes and backdated inserts during an interruption do not fit the totals, and the run walks again."""
    sandbox = make_sandbox(jobs=3_000)
    cut(tmp_path, sandbox, 20)
    for job in sandbox.world.visible()[100:104]:
        sandbox.world.remove(job["id"], job["companyId"])
    sandbox.world.insert(sandbox.world.now - timedelta(days=28))
    later(sandbox, HOUR)
    since = sandbox.world.now
    receipt = dump(tmp_path, sandbox)
    assert (receipt.code, receipt.verdict, receipt.shift_chance) == (0, "complete", 1)
    assert wrong(sandbox, tmp_path, since) == []


def test_f57_a_first_dump_that_takes_days(later: Later, tmp_path: Path) -> None:
    """A first dump interrupted every eight hours for days completes and reads no page twice, except closing reads."""
    sandbox = make_sandbox(jobs=6_000, max_limit=50)
    cuts = 0
    while True:
        try:
            receipt = dump(tmp_path, sandbox, max_requests=15)
        except RequestsExceeded:
            cuts += 1
            assert cuts < 20
            later(sandbox, 8 * HOUR)
        else:
            break
    assert cuts >= 8
    assert (receipt.code, receipt.resumed) == (0, True)
    assert receipt.shift_chance == 0  # for staged pages only the totals are checked
    assert wrong(sandbox, tmp_path) == []
    assert verify_lake(tmp_path).ok


def test_f57_another_company_that_publishes_costs_no_staged_page(tmp_path: Path) -> None:
    """Publishes of other companies do not invalidate the staged pages of one that was interrupted."""
    sandbox = make_sandbox(jobs=4_000)
    large, small = sandbox.world.companies[0], sandbox.world.companies[-1]
    cut(tmp_path, sandbox, 8, company_id=large)
    assert dump(tmp_path, sandbox, company_id=small).published
    assert dump(tmp_path, sandbox, company_id=large).resumed
    companies = frozenset({large, small})
    rows = scan_lake(tmp_path).collect().drop("extra").to_dicts()
    assert sandbox.truth(rows, sandbox.world.now, companies=companies) == []


def test_f57_status_and_record_say_as_of_when(later: Later, tmp_path: Path) -> None:
    """`status`, receipt and record show `data_as_of`; a failed run does not change it."""
    sandbox = make_sandbox(jobs=500)
    receipt = dump(tmp_path, sandbox)
    assert receipt.data_as_of is not None
    later(sandbox, HOUR)
    broken = Sandbox(sandbox.world, faults="*:500", api_keys={CANARY: None})
    with pytest.raises(PleoExtractError) as caught:
        dump(tmp_path, broken, deadline=0.5)
    assert caught.value.receipt is not None
    assert caught.value.receipt["data_as_of"] == receipt.to_dict()["data_as_of"]
    assert read_status(tmp_path).data_as_of == receipt.data_as_of
    later(sandbox, HOUR)
    quiet = dump(tmp_path, sandbox)
    assert quiet.data_as_of is not None
    assert quiet.data_as_of - receipt.data_as_of > timedelta(hours=1.9)
    assert read_status(tmp_path).data_as_of == quiet.data_as_of
    last = json.loads((tmp_path / "_lake/last_run.json").read_text())
    assert datetime.fromisoformat(last["receipt"]["data_as_of"]) == quiet.data_as_of


@pytest.mark.slow
def test_f23_a_delete_and_a_backdated_insert_are_found(tmp_path: Path) -> None:
    """The audit finds a delete and a backdated insert that cancel in `total` about as often as the receipt says."""
    met, chances, tries = 0, [], 24

    def make() -> Sandbox:
        return Sandbox(World(jobs=5_000, seed=3), api_keys={CANARY: None})

    dump(tmp_path / "dumped", make())
    for seed in range(tries):
        luck, sandbox = random.Random(seed), make()
        lake = copy_lake(tmp_path / "dumped", tmp_path / f"{seed}")
        job = luck.choice(sandbox.world.visible()[:4_800])
        sandbox.world.remove(job["id"], job["companyId"])
        sandbox.world.insert(sandbox.world.now - timedelta(days=10 + 350 * luck.random()))
        random.seed(seed)
        # One of the cases that read everything again is enough.
        reported = tell(lake, sandbox, max_requests=None if met == 0 else 6)
        if reported["mode"] == "full":
            assert reported["code"] == RequestsExceeded.code or len(reported["vanished"]) == 1
            met += 1
        else:
            assert (reported["code"], reported["requests"] <= 4) == (0, True)
            chances.append(reported["shift_chance"])
    assert met >= tries / 2
    assert all(0.45 < chance < 0.65 for chance in chances)


@pytest.mark.parametrize("status", ["in_progress", "completed"])
def test_f23_a_job_that_is_listed_again_is_no_shift(status: str, tmp_path: Path) -> None:
    """A vanished job that comes back does not end the audit; an open one, which a refresh sees, costs no full sync."""
    sandbox = make_sandbox(jobs=600)
    job = sandbox.world.visible()[450]
    sandbox.world.change(job["id"], job["companyId"], status=status)
    dump(tmp_path, sandbox)
    sandbox.world.remove(job["id"], job["companyId"])
    assert dump(tmp_path, sandbox, full=True).vanished == [(job["companyId"], job["id"])]
    sandbox.world._find(job["id"], None).deleted_at = 1 << 62
    sandbox.world.change(
        job["id"], job["companyId"], status=status
    )  # the same, but an edit, which the list shows
    modes = []
    for seed in range(4):
        random.seed(seed)
        receipt = dump(tmp_path, sandbox)
        modes.append(receipt.mode)
        assert receipt.verdict == "complete"
        assert receipt.shift_chance > 0.5 or receipt.mode == "full"
    assert modes[1:] == ["refresh"] * 3
    assert status == "completed" or modes[0] == "refresh"


def test_f23_the_chance_considers_ties(tmp_path: Path) -> None:
    """A page looks at a job without a tie; where every job has nine, the chance is lower, and not overstated."""
    chances = []
    for ties in (1, 10):
        sandbox = Sandbox(World(jobs=0, days=30), api_keys={CANARY: None})
        newest = sandbox.world.now - timedelta(days=1)
        for number in range(1_000):
            sandbox.world.insert(newest - timedelta(hours=number // ties))
        # Among the newest jobs, which are read anyway, none escapes.
        receipts = [dump(tmp_path / f"{ties}", sandbox) for _ in range(2)]
        chances.append(receipts[-1].shift_chance)
        assert receipts[-1].mode == "refresh"
    least = chance_of_shift(100, 1_000, [])
    assert chances[0] > 0.5
    assert least < chances[1] < least + 0.1


def test_f23_the_chance_is_what_is_computed() -> None:
    """The audit hits the range between two jobs as often as `chance_of_shift` computes."""
    luck = random.Random(7)
    start, jobs, tries, met, reported = 100, 5_000, 20_000, 0, 0.0
    for _ in range(tries):
        ranks = spread_ranks(start, jobs, page=100, count=2, phase=luck.random())
        assert all(start <= rank <= jobs - 100 for rank in ranks)
        low, high = sorted(luck.randrange(jobs) for _ in range(2))
        met += low < start or any(low < rank <= high for rank in ranks)
        reported += chance_of_shift(start, jobs, ranks)
    assert abs(met - reported) / tries < 0.02
    assert reported / tries > 0.55
    assert chance_of_shift(0, 0, []) == 1.0
    assert spread_ranks(100, 150, page=100, count=3, phase=0.5) == [100]  # one page shows them all
    assert spread_ranks(100, 100, page=100, count=3, phase=0.5) == []


@pytest.mark.parametrize(("jobs", "page"), mostly_slow([(150, 100), (100, 10), (190, 100)], quick=2))
def test_f23_a_short_list_is_audited_too(jobs: int, page: int, tmp_path: Path) -> None:
    """Where fewer than a page of jobs lie below the head, one page shows them all, and a swap among them."""
    random.seed(1)
    sandbox = Sandbox(World(jobs=jobs, seed=3), rules=Rules(max_limit=page), api_keys={CANARY: None})
    dump(tmp_path, sandbox)
    old = sandbox.world.visible()[:20]
    sandbox.world.remove(old[2]["id"], old[2]["companyId"])
    sandbox.world.insert(datetime.fromisoformat(old[15]["createdAt"]) + timedelta(seconds=1))
    receipts = [dump(tmp_path, sandbox) for _ in range(1 if page == 100 else 12)]
    assert receipts[0].audited > 0
    assert "full" in {receipt.mode for receipt in receipts}


@pytest.mark.slow
def test_f23_jobs_that_come_while_ranks_are_read_are_no_shift(tmp_path: Path) -> None:
    """New jobs that shift every rank during the audit are explained by a second read of the head."""
    for total in (True, False):
        lake = tmp_path / f"{total}"
        sandbox = make_sandbox(jobs=2_000, total=total, tick=300.0)
        dump(lake, sandbox)
        for _ in range(6):
            sandbox.world.advance(HOUR)
            since = sandbox.world.now
            receipt = dump(lake, sandbox)
            assert receipt.mode == "refresh", receipt.why_full
            assert wrong(sandbox, lake, since) == []


def test_f23_the_oldest_job_of_a_list_that_is_read_to_its_end(tmp_path: Path) -> None:
    """A refresh that reads the whole list notices that the oldest job is gone, whatever `total` says."""
    sandbox = make_sandbox(jobs=30, total=False)
    assert dump(tmp_path, sandbox).code == 0
    oldest = scan_lake(tmp_path).sort("created_at").first().collect().row(0, named=True)
    sandbox.world.remove(oldest["id"], oldest["company_id"])
    assert dump(tmp_path, sandbox).vanished == [(oldest["company_id"], oldest["id"])]


@pytest.mark.parametrize("offsets", ["refuse", "ignore"])
def test_f23_where_offsets_do_not_work_nothing_is_concluded(offsets: Any, tmp_path: Path) -> None:
    """Without offsets a refresh makes no audit, and the receipt states the smaller chance."""
    sandbox = make_sandbox(jobs=5_000, offsets=offsets)
    dump(tmp_path, sandbox)
    receipt = dump(tmp_path, sandbox)
    assert (receipt.mode, receipt.code) == ("refresh", 0), receipt.why_full
    assert receipt.shift_chance < 0.1


@pytest.mark.parametrize("kind", ["high", "low", "capped", "page", "estimate", "falling"])
def test_f60_reading_without_a_lake(kind: str, open_client: Any) -> None:
    """Without a remembered kind of total, a load reads the list at most twice."""
    sandbox = Counting(World(jobs=1_500), api_keys={CANARY: None})
    sandbox.kind = kind
    truth = {job["id"] for job in sandbox.world.visible()}
    assert set(load_export_jobs(client=open_client(sandbox))["id"]) == truth
    first = len(sandbox.requests)
    batches = list(iter_export_jobs(client=open_client(sandbox)))
    assert pl.concat(batches)["id"].sort().to_list() == sorted(truth)
    assert len(sandbox.requests) - first <= 2 * 15


class Counting(Sandbox):
    """A server with a `total` of its own kind."""

    kind = "exact"

    def __call__(self, request: RequestLike) -> Response:
        """Return the response with another total."""
        said = super().__call__(request)
        if said.status != 200:
            return said
        page = json.loads(said.body)
        total, number = page["pagination"]["total"], len(self.requests)
        page["pagination"]["total"] = {
            "high": total + 17,
            "low": total - 17,
            "capped": min(total, 1_000),
            "oddly capped": min(total, 777),
            "falls in the head": total - ("after=" in request.query and "DESC" in request.query),
            "exact": total,
            "page": len(page["data"]),
            "falling": total + max(0, 400 - 10 * number),
            "estimate": int(total * (1 + 0.1 * random.Random(number + self.world.t).uniform(-1, 1))),
        }[self.kind]
        return replace(said, body=json.dumps(page).encode())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["high", "low", "capped", "page", "estimate"])
def test_f60_kinds_of_total(
    kind: str, later: Later, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each kind of total is recognised in the first runs and remembered; later refreshes are cheap."""
    sandbox = Counting(World(jobs=2_000, days=365), api_keys={CANARY: None})
    sandbox.kind = kind
    for _ in range(3):  # until the kind of total is known
        assert dump(tmp_path, sandbox).code == 0
        later(sandbox, DAY)
    caplog.clear()
    for _ in range(4):
        since = sandbox.world.now
        receipt = dump(tmp_path, sandbox)
        assert (receipt.code, receipt.mode, receipt.verdict) == (0, "refresh", "complete"), receipt
        assert receipt.requests <= 12
        assert wrong(sandbox, tmp_path, since) == []
        later(sandbox, 8 * HOUR)
    assert caplog.records == []
    full = dump(tmp_path, sandbox, full=True)
    assert (full.code, full.verdict) == (0, "complete")
    assert full.pages <= 21 + 12  # no second pass
    assert wrong(sandbox, tmp_path) == []


def test_f60_a_low_total_is_constant_once_it_has_grown_with_the_list(later: Later, tmp_path: Path) -> None:
    """A total that is too low may be a cap: its kind is known only when jobs were added and it grew by as many."""
    kinds: dict[str, list[str]] = {}
    for kind in ("low", "oddly capped"):
        sandbox = Counting(World(jobs=1_500, days=365), api_keys={CANARY: None})
        sandbox.kind = kind
        kinds[kind] = [dump(tmp_path / kind, sandbox).total_kind, dump(tmp_path / kind, sandbox).total_kind]
        later(sandbox, 2 * DAY)
        receipt = dump(tmp_path / kind, sandbox)
        kinds[kind].append(f"{receipt.total_kind} {receipt.mode}")
        assert wrong(sandbox, tmp_path / kind) == []
    assert kinds == {"low": ["", "", "constant refresh"], "oddly capped": ["", "", " full"]}
    for known in (
        "unusable full",
        "unusable refresh",
        "unusable refresh",
    ):  # and from then on no doubt is left
        later(sandbox, 2 * DAY)
        receipt = dump(tmp_path / "oddly capped", sandbox)
        assert f"{receipt.total_kind} {receipt.mode}" == known
        assert wrong(sandbox, tmp_path / "oddly capped") == []


def test_f60_a_total_that_falls_while_a_refresh_reads_asks_for_a_full_sync(
    later: Later, tmp_path: Path
) -> None:
    """Between two pages of the head a total can fall only because of a deletion, or because it is an estimate."""
    sandbox = Counting(World(jobs=1_500, days=30), api_keys={CANARY: None})
    dump(tmp_path, sandbox)
    later(sandbox, 5 * DAY)
    sandbox.kind = "falls in the head"
    receipt = dump(tmp_path, sandbox)
    assert (receipt.code, receipt.mode) == (0, "full")
    assert "total fell" in receipt.why_full
    assert wrong(sandbox, tmp_path) == []


def test_f57_vanished_jobs_stay_marked_where_the_order_is_lost(tmp_path: Path) -> None:
    """A full sync of a list in no order finds no job gone, and forgets none that is known to be gone."""
    sandbox = make_sandbox(jobs=400)
    dump(tmp_path, sandbox)
    gone = sandbox.world.visible()[0]
    sandbox.world.remove(gone["id"], gone["companyId"])
    assert dump(tmp_path, sandbox, full=True).vanished == [(gone["companyId"], gone["id"])]
    sandbox.rules = replace(sandbox.rules, sorting=(), unsortable="refuse")
    for _ in range(2):
        receipt = dump(tmp_path, sandbox, full=True)
        assert (receipt.mode, receipt.order, receipt.code) == ("full", "none", 0)
        with contextlib.closing(connect(tmp_path)) as con:
            assert con.sql("SELECT id FROM vanished").fetchall() == [(gone["id"],)]


class Windowed(Sandbox):
    """A server that lists no more than the first 500 jobs of any order, and then says that there are no more."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.places: dict[str, int] = {}
        self.window = 500

    def __call__(self, request: RequestLike) -> Response:
        """Return the response, cut off at the window."""
        said = super().__call__(request)
        if said.status != 200:
            return said
        page = json.loads(said.body)
        asked = dict(parse_qsl(request.query))
        start = self.places.get(asked.get("after", ""), 0) + int(asked.get("offset", 0))
        page["data"] = page["data"][: max(0, self.window - start)]
        info = page["pagination"]
        if start + len(page["data"]) >= self.window:
            info["hasNextPage"] = False
        elif info.get("endCursor"):
            self.places[info["endCursor"]] = start + len(page["data"])
        return replace(said, body=json.dumps(page).encode())


def test_f21_a_list_cut_off_at_both_ends_is_incomplete(tmp_path: Path) -> None:
    """If oldest first and newest first have no job in common, jobs between them are missing, whatever repeats."""
    sandbox = Windowed(World(jobs=1_500, days=30), api_keys={CANARY: None})
    for _ in range(2):
        with pytest.raises(PleoExtractError, match="no job in common") as caught:
            dump(tmp_path, sandbox)
        assert caught.value.code == 76
    sandbox.window = 900  # the two lists meet
    assert dump(tmp_path, sandbox).code == 0
    assert scan_lake(tmp_path).collect().height == 1_500


@pytest.mark.parametrize("total", [True, False])
def test_f21_a_list_in_no_order_that_shrinks_is_not_believed(tmp_path: Path, *, total: bool) -> None:
    """Without order a loss of many jobs gives 76 until it is confirmed, whether `total` has fallen as well or not."""
    sandbox = Windowed(
        World(jobs=1_500, days=30), rules=Rules(sorting=(), unsortable="refuse"), api_keys={CANARY: None}
    )
    sandbox.window = 10_000
    dump(tmp_path, sandbox)
    if total:
        for job in sandbox.world.visible()[:900]:
            sandbox.world.remove(job["id"], job["companyId"])
    else:
        sandbox.window = 600
    with pytest.raises(PleoExtractError, match="--accept-vanished") as caught:
        dump(tmp_path, sandbox, full=True)
    assert caught.value.code == 76
    assert scan_lake(tmp_path).collect().height == 1_500
    assert dump(tmp_path, sandbox, full=True, accept_vanished=True).code == 0


def test_f60_a_list_that_lost_many_jobs_is_not_believed_all_the_same(tmp_path: Path) -> None:
    """Without a usable total a large loss is measured against the last full sync."""
    sandbox = Counting(World(jobs=3_000), api_keys={CANARY: None})
    sandbox.kind = "page"
    for _ in range(2):
        dump(tmp_path, sandbox)
    for job in sandbox.world.visible()[:200]:
        sandbox.world.remove(job["id"], job["companyId"])
    with pytest.raises(PleoExtractError, match="--accept-vanished") as caught:
        dump(tmp_path, sandbox, full=True)
    assert caught.value.code == 76


def test_f57_a_job_deleted_since_an_earlier_run_met_it(tmp_path: Path) -> None:
    """Rows of an earlier refresh do not count as read by the full sync that resumes it."""
    sandbox = make_sandbox(jobs=600)
    dump(tmp_path, sandbox)
    newest, changed = sandbox.world.visible()[-2:]
    sandbox.world.change(changed["id"], changed["companyId"], status="completed", numberOfItems=77)
    cut(tmp_path, sandbox, 4)
    sandbox.world.remove(newest["id"], newest["companyId"])
    receipt = dump(tmp_path, sandbox)
    assert (receipt.code, receipt.mode) == (0, "full")
    assert receipt.vanished == [(newest["companyId"], newest["id"])]


def test_f57_a_new_job_that_an_earlier_run_met_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new job that an earlier run staged does not compensate a deleted one in the totals."""
    sandbox = make_sandbox(jobs=600)
    dump(tmp_path, sandbox)
    for _ in range(2):
        sandbox.world.insert(sandbox.world.now, status="completed")
        with monkeypatch.context() as patch:
            fill(patch)
            with pytest.raises(StorageError):
                dump(tmp_path, sandbox, full=True)
    oldest = sandbox.world.visible()[0]
    sandbox.world.remove(oldest["id"], oldest["companyId"])
    receipt = dump(tmp_path, sandbox, full=True)
    assert (receipt.code, receipt.mode) == (0, "full")
    assert receipt.vanished == [(oldest["companyId"], oldest["id"])]
