"""The page size: asked for large, found once, remembered, lowered in trouble, small where few rows are wanted."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from canary import CANARY
from cases import mostly_slow

from pleo_extract import (
    Client,
    Query,
    dump_accounts,
    dump_export_jobs,
    fetch_page,
    load_export_jobs,
    scan_export_jobs,
    scan_lake,
)
from pleo_extract.client import wire
from pleo_extract.core.pages import GROW_AFTER, LARGEST, MOST, SAFE, PageSize
from pleo_extract.errors import PageTooLarge, RequestRefused, TryLater, UsageError
from pleo_extract.fetch import workers
from pleo_extract.lake.store import open_lake
from pleo_extract.sandbox import Response, Rules, Sandbox, World, serve
from pleo_extract.sync.plan import plan_dump
from pleo_extract.sync.pool import THREADS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pleo_extract.client import Clock
    from pleo_extract.sandbox import RequestLike

pytestmark = pytest.mark.usefixtures("read_in_segments")

JOBS = 2_345
DAY = 86_400.0
REFUSALS = (400, 413, 422)


def limits(sandbox: Sandbox, *, status: int | None = None) -> list[int]:
    """Return the limits that the requests had, of all or of those with this response, and forget the requests."""
    asked = [int(each.parameters["limit"][0]) for each in sandbox.requests if status in (None, each.status)]
    sandbox.requests.clear()
    return asked


def known_size(lake: Path) -> int:
    """Return the page size that the lake remembers."""
    opened = open_lake(lake).open()
    assert opened is not None
    (state,) = opened.manifest.accounts.values()
    return state.page_size


def chosen(sandbox: Sandbox, clock: Clock, **options: Any) -> Client:
    """Return a client of the sandbox in process with these options."""
    return Client(
        "http://127.0.0.1:1", api_key=CANARY, transport=sandbox, clock=clock, rate=10_000_000, **options
    )


@pytest.fixture
def make(make_sandbox: Callable[..., Sandbox]) -> Callable[..., Sandbox]:
    """Return a function that makes sandboxes of `JOBS` jobs."""
    return lambda **rules: make_sandbox(jobs=JOBS, **rules)


@pytest.fixture
def dump(open_client: Callable[[Sandbox], Client], tmp_path: Path) -> Callable[..., list[int]]:
    """Return a function that dumps a sandbox and returns the limits of its requests."""

    def run(sandbox: Sandbox, **options: Any) -> list[int]:
        sandbox.requests.clear()
        receipt = dump_export_jobs(tmp_path, client=open_client(sandbox), **options)
        assert receipt.verdict == "complete", receipt.why
        ids = scan_lake(tmp_path).select("id").collect().to_series()
        assert ids.is_unique().all()
        assert set(ids) == {job["id"] for job in sandbox.world.visible()}
        return limits(sandbox)

    return run


class TestFullWalk:
    """A full walk asks for 1,000 rows and takes what comes."""

    def test_a_server_that_gives_them_is_read_in_large_pages(
        self, make: Callable[..., Sandbox], open_client: Callable[[Sandbox], Client]
    ) -> None:
        """2,345 jobs are three pages."""
        sandbox = make(max_limit=5_000)
        assert load_export_jobs(client=open_client(sandbox)).height == JOBS
        assert limits(sandbox) == [MOST] * 3

    @pytest.mark.parametrize("most", [20, 100, 250])
    def test_a_server_that_lowers_the_limit_costs_no_further_request(
        self, make: Callable[..., Sandbox], open_client: Callable[[Sandbox], Client], most: int
    ) -> None:
        """The list is as many pages as the server makes of it."""
        sandbox = make(max_limit=most)
        assert load_export_jobs(client=open_client(sandbox)).height == JOBS
        assert limits(sandbox) == [MOST] * -(-JOBS // most)

    @pytest.mark.parametrize("status", mostly_slow(REFUSALS))
    def test_a_server_that_refuses_the_limit_costs_one_request_once_a_lake(
        self, make: Callable[..., Sandbox], dump: Callable[..., list[int]], tmp_path: Path, status: int
    ) -> None:
        """Only an explicit full sync tries again; the order stays proven."""
        sandbox = make(large_limits=status)
        first = dump(sandbox)
        assert first[0] == MOST
        assert max(first[1:]) == SAFE
        assert known_size(tmp_path) == SAFE
        sandbox.world.advance(DAY)
        assert max(dump(sandbox)) == SAFE
        assert max(dump(sandbox, full_every=timedelta(0))) == SAFE
        assert Counter(dump(sandbox, full=True))[MOST] == 1
        assert known_size(tmp_path) == SAFE

    @pytest.mark.parametrize("status", REFUSALS)
    def test_a_server_that_refuses_limit_and_sorting_is_read_whole(
        self, make: Callable[..., Sandbox], open_client: Callable[[Sandbox], Client], status: int
    ) -> None:
        """One change a request, until the server takes it."""
        sandbox = make(large_limits=status, sorting=())
        assert load_export_jobs(client=open_client(sandbox)).height == JOBS
        tried = [
            (int(each.parameters["limit"][0]), len(each.parameters.get("sorting_keys", [])))
            for each in sandbox.requests[:6]
        ]
        assert tried == [(MOST, 2), (SAFE, 2), (MOST, 1), (SAFE, 1), (MOST, 0), (SAFE, 0)]

    def test_a_server_that_refuses_only_the_sorting_keeps_its_large_pages(
        self, make: Callable[..., Sandbox], open_client: Callable[[Sandbox], Client]
    ) -> None:
        """The limit is cleared of suspicion by one small request."""
        sandbox = make(max_limit=1_000, sorting=("createdAt",))
        assert load_export_jobs(client=open_client(sandbox)).height == JOBS
        assert limits(sandbox) == [MOST, SAFE, MOST, MOST, MOST]

    @pytest.mark.parametrize("status", [500, 503, 504])
    def test_a_server_that_fails_at_large_pages_is_asked_for_small_ones(
        self, make: Callable[..., Sandbox], clock: Clock, status: int
    ) -> None:
        """After two failures of one request; the size then doubles again, more rarely each time."""
        sandbox = make(large_limits=status, max_limit=150)
        with chosen(sandbox, clock, in_flight=1) as client:
            assert load_export_jobs(client=client).height == JOBS
        assert sandbox.requests[0].status == sandbox.requests[1].status == status
        asked = limits(sandbox)
        assert asked[: 3 + GROW_AFTER] == [MOST] * 2 + [SAFE] * (1 + GROW_AFTER)
        assert asked.count(2 * SAFE) <= 2

    def test_trouble_is_forgotten_with_the_run(
        self, make: Callable[..., Sandbox], dump: Callable[..., list[int]], tmp_path: Path
    ) -> None:
        """A lake never remembers small pages because of a bad hour."""
        sandbox = make(large_limits=503)
        dump(sandbox)
        assert known_size(tmp_path) == 0

    def test_a_server_that_always_fails_is_not_asked_more_often(
        self, make_sandbox: Callable[..., Sandbox], open_client: Callable[[Sandbox], Client]
    ) -> None:
        """A smaller page is one of the eight attempts of a request, not a request of its own."""
        sandbox = make_sandbox(faults="1-:503")
        with pytest.raises(TryLater, match="after 8 tries"):
            load_export_jobs(client=open_client(sandbox))
        assert limits(sandbox) == [MOST] * 2 + [SAFE] * 6

    def test_f11_a_page_too_large_to_hold_is_halved(
        self,
        make: Callable[..., Sandbox],
        open_client: Callable[[Sandbox], Client],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Down to a size that fits; the list is still read whole."""
        monkeypatch.setattr(wire, "LARGEST_PAGE", 100_000)
        sandbox = make(max_limit=5_000)
        assert load_export_jobs(client=open_client(sandbox)).height == JOBS
        asked = limits(sandbox)
        assert asked[:3] == [MOST, MOST // 2, MOST // 4]
        assert len(asked) < 40

    def test_f11_a_row_too_large_to_hold_is_an_error(
        self,
        make: Callable[..., Sandbox],
        open_client: Callable[[Sandbox], Client],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """At one row there is nothing left to halve."""
        monkeypatch.setattr(wire, "LARGEST_PAGE", 100)
        sandbox = make(max_limit=5_000)
        with pytest.raises(PageTooLarge, match="more than 100 bytes"):
            load_export_jobs(client=open_client(sandbox))
        assert limits(sandbox)[-1] == 1


class TestAnotherServer:
    """What is remembered is an upper bound: a server may give fewer rows one day."""

    def test_smaller_pages_are_noticed(
        self, make: Callable[..., Sandbox], dump: Callable[..., list[int]], tmp_path: Path
    ) -> None:
        """By the next full sync. An incremental one asks for too few rows to know."""
        sandbox = make(max_limit=1_000)
        dump(sandbox)
        assert known_size(tmp_path) == 1_000
        sandbox.rules = replace(sandbox.rules, max_limit=70)
        sandbox.world.advance(30 * DAY)
        dump(sandbox)
        assert known_size(tmp_path) == 1_000
        dump(sandbox, full=True)
        assert known_size(tmp_path) == 70

    def test_larger_pages_are_noticed(
        self, make: Callable[..., Sandbox], dump: Callable[..., list[int]], tmp_path: Path
    ) -> None:
        """By the next full sync."""
        sandbox = make(max_limit=70)
        dump(sandbox)
        assert known_size(tmp_path) == 70
        sandbox.rules = replace(sandbox.rules, max_limit=500)
        sandbox.world.advance(DAY)
        dump(sandbox, full=True)
        assert known_size(tmp_path) == 500


class TestFewRows:
    """Where few rows are wanted, few are asked for."""

    def test_an_incremental_sync_asks_for_few(self, dump: Callable[..., list[int]]) -> None:
        """With nothing new and after a long pause: a walk keeps its limit, because its cursors may go with it."""
        world = World(jobs=JOBS, days=30)
        sandbox = Sandbox(world, rules=Rules(max_limit=1_000), api_keys={CANARY: None})
        dump(sandbox)
        assert max(dump(sandbox)) == SAFE
        known = len(sandbox.world.visible())
        sandbox.world.advance(6 * DAY)
        new = len(sandbox.world.visible()) - known
        assert new > 3 * SAFE, "the world must move far enough"
        asked = dump(sandbox)
        assert max(asked) == SAFE
        assert len(asked) < 8 + new // SAFE

    def test_a_rank_is_read_with_the_rows_around_it(
        self, make: Callable[..., Sandbox], dump: Callable[..., list[int]]
    ) -> None:
        """No read by offset asks for a large page, however large pages may be."""
        sandbox = make(max_limit=1_000)
        dump(sandbox)
        sandbox.world.advance(DAY)
        sandbox.requests.clear()
        dump(sandbox)
        at_offset = [each for each in sandbox.requests if each.parameters.get("offset", ["0"]) != ["0"]]
        assert all(int(each.parameters["limit"][0]) <= SAFE for each in at_offset)

    @pytest.mark.parametrize("rows", [1, 30, 1_500])
    def test_head_asks_for_what_it_shows(
        self, make: Callable[..., Sandbox], open_client: Callable[[Sandbox], Client], rows: int
    ) -> None:
        """`head(n)` asks for n rows, or for as many as a page may have."""
        sandbox = make(max_limit=1_000)
        assert scan_export_jobs(client=open_client(sandbox)).head(rows).collect().height == rows
        assert limits(sandbox)[0] == min(rows, MOST)

    def test_a_page_asked_for_by_hand_keeps_its_limit(
        self, make: Callable[..., Sandbox], open_client: Callable[[Sandbox], Client]
    ) -> None:
        """`fetch_page` sends the query as it is, and its refusal is the caller's."""
        sandbox = make(large_limits=400)
        with pytest.raises(RequestRefused):
            fetch_page(Query(limit=5_000), client=open_client(sandbox))
        assert limits(sandbox) == [5_000]


class TestChosen:
    """A page size that the user chooses is asked for, come what may."""

    @pytest.mark.parametrize("size", [1, 50, 400, 2_000])
    def test_it_is_asked_for(self, make_sandbox: Callable[..., Sandbox], clock: Clock, size: int) -> None:
        """Also if it is larger than what is asked for otherwise."""
        sandbox = make_sandbox(jobs=120, max_limit=5_000)
        with chosen(sandbox, clock, page_size=size) as client:
            assert load_export_jobs(client=client).height == 120
        assert set(limits(sandbox)) == {size}

    def test_its_refusal_is_an_error(self, make: Callable[..., Sandbox], clock: Clock) -> None:
        """No smaller page is asked for behind the user's back."""
        sandbox = make(large_limits=422)
        with chosen(sandbox, clock, page_size=500) as client, pytest.raises(RequestRefused):
            load_export_jobs(client=client)
        assert set(limits(sandbox)) == {500}

    @pytest.mark.parametrize("size", [0, -1, LARGEST + 1, 1.5, True, "100"])
    def test_bad_sizes_are_refused(self, size: Any) -> None:
        """At the door, with the range."""
        with pytest.raises(UsageError, match="page_size must be a whole number from 1 to 10,000"):
            Client("http://127.0.0.1:1", api_key=CANARY, page_size=size)


class TestPlan:
    """The plan's one request finds out how many rows the server gives."""

    @pytest.mark.parametrize(("most", "pages"), [(100, 24), (1_000, 3)])
    def test_before_the_first_dump(
        self,
        make: Callable[..., Sandbox],
        open_client: Callable[[Sandbox], Client],
        tmp_path: Path,
        most: int,
        pages: int,
    ) -> None:
        """The range begins with the pages of the list."""
        sandbox = make(max_limit=most)
        plan = plan_dump(tmp_path / "lake", client=open_client(sandbox))
        assert plan.requests == (pages, 2 * pages)
        assert len(sandbox.requests) == 1


def test_the_accounts_of_a_run_share_what_they_find(tmp_path: Path) -> None:
    """Only those that are read at the same time as the first one lose a request each."""
    world = World(jobs=600, companies=40)
    sandbox = Sandbox(world, rules=Rules(large_limits=400), api_keys={CANARY: None})
    key = tmp_path / "key"
    key.write_text(CANARY)
    key.chmod(0o600)
    with serve(sandbox) as running:
        entries = [f'[[account]]\ncompany_id = "{each}"\napi_key_file = "key"' for each in world.companies]
        (tmp_path / "accounts.toml").write_text(f'base_url = "{running.url}"\n' + "\n".join(entries))
        whole, _ = dump_accounts(tmp_path / "lake", tmp_path / "accounts.toml", progress=False)
    assert whole.verdict == "complete"
    assert scan_lake(tmp_path / "lake").collect().height == 600
    assert 1 <= len(limits(sandbox, status=400)) <= THREADS


def test_one_network_failure_lowers_nothing(
    make: Callable[..., Sandbox], open_client: Callable[[Sandbox], Client]
) -> None:
    """The first failure of a request may be chance."""
    sandbox = make(max_limit=1_000)
    calls = 0

    def flaky(request: RequestLike) -> Response:
        nonlocal calls
        calls += 1
        return Response(503, {}, b"", "whole", 0.0) if calls == 2 else sandbox(request)

    with Client("http://127.0.0.1:1", api_key=CANARY, transport=flaky, rate=10_000_000) as client:
        assert load_export_jobs(client=client).height == JOBS
    assert set(limits(sandbox)) == {MOST}


def test_sizes_grow_back_more_rarely_each_time() -> None:
    """10 good pages after the first trouble, 20 after the second."""
    size = PageSize()
    needed = []
    for _ in range(2):
        size.lower(SAFE)
        good = 0
        while size.most == SAFE:
            size.note_page(SAFE, SAFE, has_next=True)
            good += 1
        needed.append(good)
    assert needed == [2 * GROW_AFTER, 4 * GROW_AFTER]
    assert size.learned == 0


def test_requests_that_fail_together_lower_the_size_once() -> None:
    """Eight requests in flight that fail are one sign of trouble, not eight."""
    size, alone = PageSize(), PageSize()
    alone.lower(SAFE)
    for _ in range(8):
        size.lower(SAFE)
    for each in (size, alone):
        for _ in range(2 * GROW_AFTER):
            each.note_page(SAFE, SAFE, has_next=True)
    assert size.most == alone.most == 2 * SAFE


def test_a_worker_that_ends_makes_room() -> None:
    """A worker waits for the room of a page that is under way; when that turns out to be small, it goes on."""
    room = workers._Room(20, [[], []])
    room.fill([fake_page(70 * 2**20)])  # of two that are under way
    room.take()
    room.fill([fake_page(70 * 2**20)])
    waiting = threading.Thread(target=room.take)
    waiting.start()
    room.fill([fake_page(1_000)])
    waiting.join(10)
    assert not waiting.is_alive()


def fake_page(size: int) -> Any:
    """Return a page of this many bytes, without them."""
    return SimpleNamespace(body=range(size))
