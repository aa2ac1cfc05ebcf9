"""Dumps of servers with habits that the contract leaves open: the echo, deep offsets, the order of the list.

The server is that of the soak test, which shares no code with the sandbox.

"""

from __future__ import annotations

import signal
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import TYPE_CHECKING, Any
from zlib import crc32

import httpx
import polars as pl
import pytest
from canary import CANARY
from cases import mostly_slow
from habits import COMPANY, Habits, Server

from pleo_extract import Client, dump_export_jobs, iter_export_jobs, load_export_jobs, scan_lake, verify_lake
from pleo_extract.core.pace import Patience
from pleo_extract.errors import IncompleteWalk, RequestsExceeded, StorageError, TryLater, WalkError
from pleo_extract.lake import disk
from pleo_extract.lake.store import open_lake

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pleo_extract.client import Clock
    from pleo_extract.sync.receipt import Receipt

pytestmark = pytest.mark.usefixtures("read_in_segments")

MANY = 5_000
QUIET = 12
"""The most requests of a refresh with few new jobs at 5,000 jobs, whatever the server's habits."""
PLAIN = 6


class Heard(Server):
    """A server that records its requests, its responses, and the offsets that it refused.

    `edit` may change a response, and the cursor of request number `refuses_at` is refused.

    """

    def __init__(self, habits: Habits, jobs: int) -> None:
        super().__init__(habits, seed=11, jobs=jobs)
        self.asked: list[dict[str, list[str]]] = []
        self.statuses: list[int] = []
        self.refused: set[int] = set()
        self.refuses_at = 0
        self.edit: Callable[[dict[str, Any], dict[str, list[str]]], None] = lambda _body, _asked: None

    def _answer(self, asked: dict[str, list[str]]) -> tuple[int, Any]:
        status, body = super()._answer(asked)
        if "after" in asked and self.requests == self.refuses_at:
            status, body = 400, {"type": "bad_request", "message": "cursor is gone"}
        self.asked.append(asked)
        self.statuses.append(status)
        if "offset" in asked and (status != 200 or not body["data"]):
            self.refused.add(int(asked["offset"][0]))
        if status == 200:
            self.edit(body, asked)
        return status, body

    @property
    def offsets(self) -> list[int]:
        """Return the requested offsets other than 0."""
        return [int(asked["offset"][0]) for asked in self.asked if asked.get("offset", ["0"]) != ["0"]]


@pytest.fixture
def dump(tmp_path: Path, clock: Clock) -> Callable[..., Receipt]:
    """Return a function that dumps a server to the lake, checks the lake, and counts requests from zero."""

    def run(server: Heard, *, in_flight: int = 4, **options: Any) -> Receipt:
        server.asked.clear()
        server.statuses.clear()
        with open_client(server, clock, in_flight=in_flight) as client:
            receipt = dump_export_jobs(tmp_path, client=client, **options)
        assert is_true(server, scan_lake(tmp_path).collect())
        assert verify_lake(tmp_path).ok
        return receipt

    return run


def open_client(server: Heard, clock: Clock, **options: Any) -> Client:
    """Return a client of the server that never waits."""
    return Client(
        "http://127.0.0.1:1", api_key=CANARY, transport=server, clock=clock, rate=10_000_000, **options
    )


def read_all(how: str, client: Client, lake: Path) -> pl.DataFrame:
    """Return all jobs, read with `load`, with `iterate`, or else with a dump to this lake."""
    if how == "load":
        return load_export_jobs(client=client)
    if how == "iterate":
        return pl.concat(iter_export_jobs(client=client))
    dump_export_jobs(lake, client=client)
    return scan_lake(lake).collect()


def is_true(server: Heard, frame: pl.DataFrame) -> bool:
    """Return whether the frame has every job of the server once, in its current version."""
    there = {(job.id, job.status) for job in server.jobs.values() if not job.is_deleted}
    return sorted(there) == sorted(frame.select("id", "status").iter_rows())


def live(server: Heard) -> None:
    """Make a little happen: two jobs begin, one of them ends, and a recent open job ends."""
    young = server.now - timedelta(days=1)
    for job in [job for job in server.jobs.values() if job.status == "pending" and job.created > young][:1]:
        server.finish(job)
    server.now += timedelta(hours=1)
    server.create()
    server.finish(server.create())


class TestLargePages:
    """F11: a server that refuses, or fails at, more than 100 rows at a time, instead of giving fewer."""

    @pytest.mark.parametrize("large", mostly_slow(["400", "500", "lowered", "413", "422"], quick=3))
    def test_f11_pages_of_100_are_found(self, large: str, dump: Callable[..., Receipt]) -> None:
        """The first dump asks once or twice too much, and later ones take the usual requests."""
        server = Heard(Habits(page=100, large=large), 2_000)
        first = dump(server)
        assert (first.mode, first.order, first.verdict, first.code) == ("full", "strict", "complete", 0)
        assert server.requests <= 2_000 / 100 + 8
        for _ in range(3):
            live(server)
            receipt = dump(server)
            assert (receipt.mode, receipt.code) == ("refresh", 0), receipt.why_full
            assert receipt.requests <= PLAIN

    @pytest.mark.parametrize("total", mostly_slow(["absent", "exact"]))
    @pytest.mark.parametrize("deepest", [0, 10_000])
    def test_f17_a_cursor_goes_with_its_limit(
        self, total: str, deepest: int, dump: Callable[..., Receipt]
    ) -> None:
        """Where a cursor is the number of a page, another limit would skip rows: no walk changes its own."""
        server = Heard(
            Habits(page=1_000, cursors="pages", total=total, offsets="400", deepest=deepest), 2_500
        )
        dump(server)
        for new in (250, 900):
            for _ in range(new):
                server.now += timedelta(minutes=1)
                server.finish(server.create())
            assert dump(server).verdict == "complete"
        chains = [asked["limit"] for asked in server.asked if "after" in asked]
        assert len(chains) > 5
        assert len({*map(tuple, chains)}) == 1

    @pytest.mark.parametrize("failing", [(3, 4), (3, 400)])
    @pytest.mark.parametrize("total", mostly_slow(["absent", "exact"]))
    def test_f17_large_pages_that_fail_under_way(
        self, failing: tuple[int, int], total: str, dump: Callable[..., Receipt]
    ) -> None:
        """A server that begins to fail at large pages costs the run at most; the next one goes on with small ones."""
        server = Failing(Habits(page=1_000, cursors="pages", total=total, deepest=0, offsets="400"), 5_200)
        server.failing = failing
        try:
            receipt = dump(server)
        except TryLater:
            assert failing == (3, 400)
            receipt = dump(server)
            assert receipt.resumed
        assert (receipt.verdict, receipt.code) == ("complete", 0)

    def test_f11_a_limit_that_is_refused_one_day(self, dump: Callable[..., Receipt]) -> None:
        """A lake that knows large pages finds out that they are refused now, also when it resumes, and keeps the order."""
        server = Heard(Habits(page=1_000), 2_500)
        dump(server)
        with pytest.raises(RequestsExceeded):
            dump(server, full=True, max_requests=3)
        server.habits = replace(server.habits, large="400", page=100)
        for _ in range(3):
            receipt = dump(server, full_every=timedelta(0))
            assert (receipt.order, receipt.verdict) == ("strict", "complete")


class Failing(Heard):
    """A server that answers 500 to large pages in some of its requests."""

    failing = (0, 0)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Return 500, or what the habits give."""
        response = super().handle_request(request)
        first, last = self.failing
        is_large = int(self.asked[-1].get("limit", ["1"])[0]) > 100
        return httpx.Response(500) if is_large and first <= self.requests <= last else response


class TestEcho:
    """F59: the optional part of the echo is absent, but the list is sorted as requested."""

    @pytest.mark.slow
    @pytest.mark.parametrize("echo", ["absent", "keys"])
    def test_f59_first_dump_in_segments_then_refreshes(self, echo: str, dump: Callable[..., Receipt]) -> None:
        """The rows prove the order: a first dump uses segments, and a refresh takes the usual requests."""
        server = Heard(Habits(page=100, echo=echo), MANY)
        first = dump(server)
        assert (first.mode, first.order, first.verdict, first.code) == ("full", "strict", "complete", 0)
        assert len(server.offsets) >= 3
        assert server.requests <= MANY / 100 + 8
        for _ in range(3):
            live(server)
            receipt = dump(server)
            assert (receipt.mode, receipt.code) == ("refresh", 0), receipt.why_full
            assert receipt.requests <= PLAIN

    @pytest.mark.parametrize("has_clock", [False, True])
    def test_f29_a_clock_that_is_behind(
        self, dump: Callable[..., Receipt], monkeypatch: pytest.MonkeyPatch, *, has_clock: bool
    ) -> None:
        """Where every job of later segments is dated in the future, all are counted, and later jobs are read."""
        monkeypatch.setattr("habits.START", datetime.now(UTC) - timedelta(days=10))
        server = Heard(Habits(page=10), 800)
        server.has_clock = has_clock
        first = dump(server)
        assert (first.mode, first.order, first.verdict, first.code) == ("full", "strict", "complete", 0)
        assert len(server.offsets) >= 3
        for _ in range(3):
            live(server)
            receipt = dump(server)
            assert (receipt.mode, receipt.code) == ("refresh", 0), receipt.why_full
            assert receipt.requests <= QUIET or not has_clock

    def test_f59_an_order_that_is_not_kept_is_not_believed(self, dump: Callable[..., Receipt]) -> None:
        """A server without echo and without sorting is read completely each time, in one walk."""
        server = Heard(Habits(page=100, echo="absent", sorting="ignored"), 800)
        assert dump(server).order == "none"
        live(server)
        receipt = dump(server)
        assert (receipt.mode, receipt.code) == ("full", 0)
        assert server.offsets == []

    @pytest.mark.parametrize("page", [1, 3, 20])
    def test_f59_small_pages(self, page: int, dump: Callable[..., Receipt], clock: Clock) -> None:
        """Enough pages of a few rows also prove the order."""
        server = Heard(Habits(page=page, echo="absent"), 80)
        assert dump(server).order == "strict"
        live(server)
        assert dump(server).code == 0
        with open_client(server, clock) as client:
            assert is_true(server, pl.concat(iter_export_jobs(client=client)))
            assert is_true(server, load_export_jobs(client=client))


class TestOffsets:
    """F62: offsets, or deep ones, are refused, while cursors work."""

    @pytest.mark.slow
    @pytest.mark.parametrize("deepest", [0, 600])
    @pytest.mark.parametrize("refusal", ["400", "422", "500", "empty"])
    def test_f62_dumps_come_to_their_end(
        self, refusal: str, deepest: int, dump: Callable[..., Receipt]
    ) -> None:
        """Dumps, refreshes and full syncs continue by cursor, and a refused offset is remembered."""
        server = Heard(Habits(page=100, offsets=refusal, deepest=deepest), MANY)
        old = server.create(next(iter(server.jobs.values())).created)  # open, and deeper than offsets work
        first = dump(server)
        assert (first.mode, first.code, first.verdict) == ("full", 0, "complete")
        assert first.retries <= 40
        live(server)
        receipt = dump(server)
        assert (receipt.mode, receipt.code) == ("refresh", 0), receipt.why_full
        assert receipt.requests <= QUIET
        live(server)
        server.finish(old)
        known = min(server.refused)
        receipt = dump(server)
        assert (receipt.mode, receipt.code) == ("refresh", 0), receipt.why_full
        assert max(server.offsets, default=0) < known
        assert dump(server, full=True).code == 0

    @pytest.mark.slow
    def test_f62_segments_of_what_offsets_reach(self, dump: Callable[..., Receipt]) -> None:
        """If deep offsets are refused, the reachable part is cut into segments, and the rest is one."""
        server = Heard(Habits(page=20, offsets="422", deepest=800), 4_000)
        assert dump(server).code == 0
        answers = zip(server.asked, server.statuses, strict=True)
        worked = {asked["offset"][0] for asked, status in answers if "offset" in asked and status == 200}
        assert len(worked) >= 3
        assert server.requests <= 4_000 / 20 + 15

    def test_f62_the_end_of_the_list_is_no_refusal(
        self, dump: Callable[..., Receipt], clock: Clock, tmp_path: Path
    ) -> None:
        """An empty page beyond the last job does not count as a refusal of offsets."""
        server = Heard(Habits(page=100), 400)
        old = server.create(min(job.created for job in server.jobs.values()) - timedelta(days=1))
        dump(server)
        old.is_deleted = True
        server.note(old)
        with open_client(server, clock) as client:
            receipt = dump_export_jobs(tmp_path, client=client)
        assert (receipt.mode, receipt.vanished) == ("refresh", [(COMPANY, old.id)])
        assert len(server.refused) == 1
        snapshot = open_lake(tmp_path).open()
        assert snapshot is not None
        assert [account.refused_offset for account in snapshot.manifest.accounts.values()] == [None]

    def test_f62_an_unjust_refusal_is_forgotten(self, dump: Callable[..., Receipt]) -> None:
        """An unscheduled full sync tries offsets again that were refused before."""
        server = Heard(Habits(page=20, offsets="422", deepest=0), 400)
        dump(server)
        object.__setattr__(server.habits, "deepest", 10_000)
        newest = max(server.jobs.values(), key=lambda job: job.created)
        newest.items += 1
        newest.updated = server.now
        server.note(newest)
        receipt = dump(server)
        assert (receipt.mode, receipt.code) == ("full", 0)
        live(server)
        assert dump(server).mode == "refresh"
        assert max(server.offsets) > 0

    def test_f62_a_500_costs_a_few_tries_only(self, clock: Clock) -> None:
        """A 5xx for an offset is tried three times; a 5xx for a cursor gets the full retries."""
        server = Heard(Habits(page=100, offsets="500", deepest=0), 4_000)
        with open_client(server, clock, in_flight=4, patience=Patience(attempts=8)) as client:
            assert is_true(server, load_export_jobs(client=client))
        assert 0 < server.statuses.count(500) <= 3 * len(set(server.offsets))


class TestStatuses:
    """F59: `statuses` is ignored."""

    @pytest.mark.slow
    def test_f59_the_filter_is_tried_once(self, dump: Callable[..., Receipt]) -> None:
        """One page shows that the filter is ignored; only a full sync tries it again."""
        server = Heard(Habits(page=100, statuses=False), MANY)
        assert dump(server).code == 0
        assert sum("statuses" in asked for asked in server.asked) == 1
        for _ in range(2):
            live(server)
            receipt = dump(server)
            assert (receipt.mode, receipt.code) == ("refresh", 0), receipt.why_full
            assert receipt.requests <= QUIET
            assert not any("statuses" in asked for asked in server.asked)
        dump(server, full=True)
        assert sum("statuses" in asked for asked in server.asked) == 1


class TestOrder:
    """F59: lists ordered by more than is shown, and ids ordered as in Java."""

    @pytest.mark.slow
    @pytest.mark.parametrize("ids", ["text", "signed"])
    @pytest.mark.parametrize("nanoseconds", [False, True])
    def test_f59_ties(self, ids: str, nanoseconds: bool, dump: Callable[..., Receipt], clock: Clock) -> None:  # noqa: FBT001 - a case
        """Jobs of one second or microsecond in any known order count as strictly ordered."""
        server = Heard(Habits(page=50, ids=ids, nanoseconds=nanoseconds), 1_000)
        first = dump(server)
        assert (first.order, first.verdict, first.vanished) == ("strict", "complete", [])
        assert server.offsets != []
        for _ in range(3):
            moment = server.now
            for _ in range(4):
                server.finish(server.create(moment))
            live(server)
            receipt = dump(server)
            assert (receipt.mode, receipt.code, receipt.vanished) == ("refresh", 0, []), receipt.why_full
        with open_client(server, clock) as client:
            assert is_true(server, pl.concat(iter_export_jobs(client=client)))

    def test_f59_ids_in_no_known_order(
        self, dump: Callable[..., Receipt], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With ids in an unknown order, segments read through the ties, and refreshes stay incremental."""
        server = Heard(Habits(page=50), 1_000)
        monkeypatch.setattr(server, "_tie", lambda job: job.id[::-1])
        first = dump(server)
        assert (first.order, first.verdict) == ("created", "complete")
        assert server.offsets != []
        live(server)
        receipt = dump(server)
        assert (receipt.mode, receipt.code) == ("refresh", 0), receipt.why_full

    @pytest.mark.parametrize("total", mostly_slow(["absent", "low", "capped", "page"], quick=2))
    @pytest.mark.parametrize("read", ["dump", "load", "iterate", "cut", "refused"])
    def test_f22_ties_in_another_order_at_each_request(
        self, read: str, total: str, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where cursors are positions, rows that come twice have hidden others, also in a run that is cut or goes back."""
        server = Heard(Habits(page=37, cursors="positions", total=total), 700)
        server.wrong_by = 400
        monkeypatch.setattr(server, "_tie", lambda job: crc32(f"{job.id} {server.requests}".encode()))
        with open_client(server, clock, in_flight=1) as client:
            if read == "cut":
                with pytest.raises(RequestsExceeded):
                    dump_export_jobs(tmp_path, client=client, max_requests=9)
            if read == "refused":
                server.refuses_at = 6
            with pytest.raises(IncompleteWalk, match=r"came twice|when read again"):
                read_all(read, client, tmp_path)

    @pytest.mark.parametrize("read", ["dump", "load", "iterate", "load since", "iterate since"])
    @pytest.mark.parametrize("salt", mostly_slow(range(8), quick=3))
    def test_f22_two_passes_that_miss_the_same_job(
        self, read: str, salt: int, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Rows that came twice explain a shortfall: all jobs are read, or an error says why not, although `total` is exact."""
        server = Heard(Habits(page=7, cursors="positions"), 60)
        monkeypatch.setattr(server, "_tie", lambda job: crc32(f"{salt} {job.id} {server.requests}".encode()))
        by_age = sorted(server.jobs.values(), key=lambda job: job.created)
        since = by_age[20].created.replace(tzinfo=UTC) if "since" in read else None
        wanted = {job.id for job in by_age if since is None or job.created.replace(tzinfo=UTC) >= since}
        with open_client(server, clock, in_flight=1) as client, suppress(IncompleteWalk):
            if since is None:
                found = read_all(read, client, tmp_path)
            elif read == "load since":
                found = load_export_jobs(client=client, since=since)
            else:
                found = pl.concat(iter_export_jobs(client=client, since=since))
            assert set(found["id"]) == wanted

    @pytest.mark.parametrize("salt", range(3))
    def test_f22_ties_among_the_newest_jobs(
        self, salt: int, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A refresh whose newest jobs come twice may lack others: it reads the whole list, and says what is missing."""
        server = Heard(Habits(page=7, cursors="positions", total="absent", offsets="422", deepest=0), 60)
        by_age = sorted(server.jobs.values(), key=lambda job: job.created)
        for number, each in enumerate(by_age):  # no ties yet
            each.created = by_age[0].created + timedelta(hours=number)
            server.note(each)
        server.now = by_age[-1].created + timedelta(hours=5)
        monkeypatch.setattr(server, "_tie", lambda job: crc32(f"{salt} {job.id} {server.requests}".encode()))
        with open_client(server, clock, in_flight=1) as client:
            assert dump_export_jobs(tmp_path, client=client).code == 0
            for _ in range(20):
                server.finish(server.create())
            with suppress(IncompleteWalk):
                dump_export_jobs(tmp_path, client=client)
                assert set(scan_lake(tmp_path).collect()["id"]) == set(server.jobs)

    def test_f20_a_list_that_is_cut_off_after_its_first_page(self, tmp_path: Path, clock: Clock) -> None:
        """A list that says that its first page is its last one, while `total` counts more, is incomplete."""
        server = Heard(Habits(page=50), 400)

        def cut(body: dict[str, Any], _asked: dict[str, list[str]]) -> None:
            body["pagination"]["hasNextPage"] = False

        server.edit = cut
        with open_client(server, clock) as client, pytest.raises(IncompleteWalk, match="no job in common"):
            dump_export_jobs(tmp_path, client=client)

    def test_f22_the_same_rows_twice_in_two_passes(
        self, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A server that repeats the last row of each page hides none: the second pass meets the same jobs, or more."""
        server = Heard(Habits(page=37, total="absent"), 700)
        monkeypatch.setattr(server, "_tie", lambda job: job.id[::-1])
        last: list[Any] = []

        def repeat(body: dict[str, Any], asked: dict[str, list[str]]) -> None:
            rows = body["data"]
            body["data"] = [*(last if "after" in asked else ()), *rows]
            last[:] = rows[-1:]

        server.edit = repeat
        with open_client(server, clock, in_flight=1) as client:
            assert is_true(server, load_export_jobs(client=client))
            assert is_true(server, pl.concat(iter_export_jobs(client=client)))
            receipt = dump_export_jobs(tmp_path, client=client)
        assert (receipt.verdict, receipt.code) == ("complete", 0)
        assert is_true(server, scan_lake(tmp_path).collect())

    @pytest.mark.parametrize("read", ["dump", "load", "iterate"])
    def test_f22_jobs_that_come_explain_a_total_beside_rows_that_came_twice(
        self, read: str, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A second pass that meets the same jobs and one that is new has as many as the last total says."""
        server = Heard(Habits(page=37), 700)
        monkeypatch.setattr(server, "_tie", lambda job: job.id[::-1])
        old = set(server.jobs)
        last: list[Any] = []

        def come() -> None:
            if server.requests in {5, 24}:
                server.now += timedelta(minutes=1)
                server.finish(server.create())

        def repeat(body: dict[str, Any], asked: dict[str, list[str]]) -> None:
            rows = body["data"]
            body["data"] = [*(last if "after" in asked else ()), *rows]
            last[:] = rows[-1:]

        server.on_request, server.edit = come, repeat
        with open_client(server, clock, in_flight=1) as client:
            assert old <= set(read_all(read, client, tmp_path)["id"])
        assert len(server.jobs) == 702


class TestMovingList:
    """F22: a server that lists by the last change, whatever is asked, so that jobs move in the list while it is read."""

    @pytest.fixture
    def server(self, monkeypatch: pytest.MonkeyPatch) -> Heard:
        """Return a server of 80 jobs, half of them open, of which one ends at every other request, and others come."""
        server = Heard(Habits(page=5, cursors="positions", sorting="ignored"), 80)

        def by_last_change(*_: object) -> list[Any]:
            listed = [job for job in server.jobs.values() if not job.is_deleted]
            return sorted(listed, key=lambda job: (job.updated or job.created, job.id))

        monkeypatch.setattr(server, "_sort", by_last_change)
        for number, job in enumerate(server.jobs.values()):
            job.updated = server.now - timedelta(hours=number * 37 % 80)
            if number % 2:
                job.status, job.ended, job.reason = "pending", None, None
            server.note(job)
        return server

    @pytest.mark.parametrize("read", ["dump", "load", "iterate"])
    @pytest.mark.parametrize("salt", range(4))
    def test_f22_no_job_is_missing_in_silence(
        self, read: str, salt: int, server: Heard, tmp_path: Path, clock: Clock
    ) -> None:
        """All jobs are read, or an error says why not, although the exact total lets arrivals make up for missing jobs."""
        luck = Random(f"{salt}")
        old = set(server.jobs)

        def move() -> None:
            server.now += timedelta(minutes=1)
            if luck.random() < 0.3:
                server.create()
            if luck.random() < 0.3 and (job := server.pick(lambda job: job.status == "pending")):
                server.finish(job)

        server.on_request = move
        with open_client(server, clock, in_flight=1) as client, suppress(IncompleteWalk):
            assert old <= set(read_all(read, client, tmp_path)["id"])

    def test_f22_a_calm_list_is_read_once(self, server: Heard, dump: Callable[..., Receipt]) -> None:
        """Without a change meanwhile there is no doubt, and no second pass."""
        assert dump(server).verdict == "complete"
        assert len(server.asked) <= 80 / 5 + 6

    def test_f22_an_open_job_that_moved_past_the_reader(
        self, server: Heard, dump: Callable[..., Receipt]
    ) -> None:
        """A job that the lake has open and that a pass did not meet is looked for in another pass."""
        server.habits = replace(server.habits, total="absent")
        dump(server)
        jobs = sorted(server.jobs.values(), key=lambda job: (job.updated, job.id))
        hidden = next(job for job in jobs if job.status == "pending")
        server.now += timedelta(hours=1)
        server.finish(hidden)

        def hide(body: dict[str, Any], asked: dict[str, list[str]]) -> None:
            if len(server.asked) <= 30:
                body["data"] = [row for row in body["data"] if row["id"] != hidden.id]

        server.asked.clear()
        server.edit = hide
        assert dump(server).verdict == "complete"

    def test_f22_an_open_job_that_is_gone_is_said(self, server: Heard, tmp_path: Path, clock: Clock) -> None:
        """Where no order proves that a job is gone, the receipt says that it did not come."""
        server.habits = replace(server.habits, total="absent")
        with open_client(server, clock) as client:
            dump_export_jobs(tmp_path, client=client)
        gone = next(job for job in server.jobs.values() if job.status == "pending")
        gone.is_deleted = True
        server.note(gone)
        with open_client(server, clock) as client:
            receipt = dump_export_jobs(tmp_path, client=client)
        assert (receipt.verdict, receipt.code) == ("complete_with_drift", 0)
        assert receipt.why == "1 open job of the lake did not come in two readings of a list without order"


class TestArrivals:
    """F22: jobs that come between two readings explain what differs, and are no reason for an error."""

    @pytest.mark.parametrize("read", ["load", "iterate"])
    def test_f22_a_part_of_the_list_that_ends_elsewhere(
        self, read: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With `since`, the last page of the second reading may hold fewer jobs that are older, and not wanted."""
        server = Heard(Habits(page=7, cursors="positions", total="absent"), 60)
        by_age = sorted(server.jobs.values(), key=lambda job: job.created)
        for number, each in enumerate(by_age):
            each.created = by_age[0].created + timedelta(hours=number)
            server.note(each)
        server.now = by_age[-1].created + timedelta(hours=5)
        since = by_age[32].created.replace(tzinfo=UTC)
        wanted = {job.id for job in by_age[32:]}

        def come() -> None:
            if server.requests in {2, 3, 4, 6, 7}:
                server.now += timedelta(minutes=1)
                server.finish(server.create())

        monkeypatch.setattr(server, "_tie", lambda job: crc32(f"{job.id} {server.requests}".encode()))
        server.on_request = come
        with open_client(server, clock, in_flight=1) as client:
            if read == "load":
                found = load_export_jobs(client=client, since=since)
            else:
                found = pl.concat(iter_export_jobs(client=client, since=since))
        assert wanted <= set(found["id"])

    def test_f22_a_job_that_comes_in_the_second_of_the_newest(self, clock: Clock) -> None:
        """A stream that is confirmed by a second reading takes a job of the same second for one that has come since."""
        server = Heard(Habits(page=100, total="high"), 690)
        newest = max(server.jobs.values(), key=lambda job: job.created)

        def come() -> None:
            if server.requests == 9:
                server.now = newest.created
                server.finish(server.create())

        server.on_request = come
        with open_client(server, clock, in_flight=1) as client:
            found = pl.concat(iter_export_jobs(client=client))
        assert len(server.jobs) == 691
        assert found.height == 690


class TestTotals:
    """F22: a total that is wrong by a constant, while jobs come and go."""

    @pytest.mark.parametrize("total", ["exact", "low", "high"])
    @pytest.mark.parametrize("read", ["dump", "load", "iterate"])
    def test_f22_a_job_that_is_deleted_behind_the_reader(
        self, read: str, total: str, tmp_path: Path, clock: Clock
    ) -> None:
        """Where cursors are positions, it hides another job, which a second pass finds, though total is too low to tell."""
        server = Heard(Habits(page=100, total=total, cursors="positions"), 690)
        first = min(server.jobs.values(), key=lambda job: (job.created, job.id))
        server.wrong_by = 5

        def delete() -> None:
            if server.requests == 4:
                first.is_deleted = True
                server.note(first)

        server.on_request = delete
        with open_client(server, clock, in_flight=1) as client:
            if (
                read == "iterate" or total == "high"
            ):  # nothing that was given out can be taken back, or nothing fits
                with pytest.raises(IncompleteWalk):
                    read_all(read, client, tmp_path)
                return
            frame = read_all(read, client, tmp_path)
        assert set(server.jobs) - {first.id} <= set(frame["id"])

    @pytest.mark.parametrize("sorting", ["honoured", "ignored"])
    @pytest.mark.parametrize("read", ["dump", "load", "iterate"])
    def test_f22_jobs_that_come_between_two_passes(
        self, read: str, sorting: str, tmp_path: Path, clock: Clock
    ) -> None:
        """The second pass confirms the first where it meets as many jobs more as total can have grown by."""
        server = Heard(Habits(page=100, total="high", sorting=sorting), 690)
        old = {job.id for job in server.jobs.values()}

        def come() -> None:
            if server.requests in {5, 8, 9}:
                server.now += timedelta(minutes=1)
                server.finish(server.create())

        server.on_request = come
        with open_client(server, clock, in_flight=1) as client:
            frame = read_all(read, client, tmp_path)
        assert len(server.jobs) == len(old) + 3
        assert old <= set(frame["id"]) <= set(server.jobs)
        assert frame["id"].is_unique().all()

    def test_f60_an_estimate_that_fits_once_is_not_believed(self, dump: Callable[..., Receipt]) -> None:
        """A total that has been an estimate is believed when it fits twice in a row: once may be luck."""
        server = Heard(Habits(page=100), 250)
        wrong_by: list[int] = []

        def estimate(body: dict[str, Any], _asked: dict[str, list[str]]) -> None:
            body["pagination"]["total"] += wrong_by.pop(0) if wrong_by else 0

        server.edit = estimate
        kinds = []
        for errors in ([17, -9, 21, 4] * 20, [-20, 3, 14, -7] * 20, [], []):
            wrong_by[:] = errors
            kinds.append(dump(server, full=True).total_kind)
        assert kinds[1:] == ["unusable", "", "exact"]

    @pytest.mark.parametrize("read", ["load", "iterate"])
    def test_f22_a_list_that_ends_too_early_once(self, read: str, clock: Clock) -> None:
        """Jobs that the first pass alone missed are no jobs that have come since."""
        server = Heard(Habits(page=100, total="high"), 690)

        def end(body: dict[str, Any], asked: dict[str, list[str]]) -> None:
            if server.requests == 4:
                body["pagination"]["hasNextPage"] = False

        server.edit = end
        with open_client(server, clock, in_flight=1) as client, pytest.raises(IncompleteWalk):
            load_export_jobs(client=client) if read == "load" else list(iter_export_jobs(client=client))


class TestPlace:
    """F66: the echo shows which position a response is for."""

    def test_f66_an_answer_for_another_place_is_asked_for_again(self, dump: Callable[..., Receipt]) -> None:
        """A response that echoes another cursor is dropped and requested again."""
        server = Heard(Habits(page=100), 1_500)
        strays: list[Any] = []

        def stray(body: dict[str, Any], asked: dict[str, list[str]]) -> None:
            if "after" in asked and not strays:
                rows = server._list(asked["sorting_keys"], asked["sorting_order"], [], "")[700:800]
                body["data"] = [server._serve(job) for job in rows]
                body["pagination"] |= {
                    "endCursor": server._make_cursor(rows[-1], 799),
                    "currentRequestPagination": {"after": "ELSEWHERE"},
                }
                strays.append(rows)

        server.edit = stray
        receipt = dump(server, in_flight=1)
        assert strays
        assert (receipt.code, receipt.verdict, receipt.faults) == (0, "complete", {"stray answer": 1})

    @pytest.mark.parametrize("reported", ["ALWAYS", None])
    def test_f66_an_echo_that_never_fits_proves_nothing(
        self, reported: str | None, dump: Callable[..., Receipt]
    ) -> None:
        """A server that always echoes other cursors is asked once more, then its rows decide."""
        server = Heard(Habits(page=100), 1_500)
        count = 0

        def respell(body: dict[str, Any], asked: dict[str, list[str]]) -> None:
            nonlocal count
            echo = body["pagination"]["currentRequestPagination"]
            if "after" in asked:
                count += 1
                echo.pop("parameters", None)
                echo["after"] = reported or asked["after"][0].lower()

        server.edit = respell
        receipt = dump(server, in_flight=1)
        assert (receipt.code, receipt.verdict, receipt.retries) == (0, "complete", 1)
        live(server)
        receipt = dump(server, in_flight=1)
        assert (receipt.code, receipt.mode, receipt.retries) == (0, "refresh", 0)
        assert receipt.requests <= PLAIN

    def test_f66_the_first_page_instead_of_another(self, dump: Callable[..., Receipt]) -> None:
        """If a server has echoed cursors before, a response without one is dropped."""
        server = Heard(Habits(page=100), 1_500)
        seen = 0

        def first_page(body: dict[str, Any], asked: dict[str, list[str]]) -> None:
            nonlocal seen
            seen += "after" in asked
            if "after" in asked and seen == 3:
                _, again = Server._answer(server, {k: v for k, v in asked.items() if k != "after"})
                body.clear()
                body.update(again)

        server.edit = first_page
        receipt = dump(server, in_flight=1)
        assert (receipt.code, receipt.verdict, receipt.faults) == (0, "complete", {"stray answer": 1})


def test_f23_a_new_job_makes_up_for_no_other(dump: Callable[..., Receipt]) -> None:
    """A job that came after the head was read is not counted against its total."""
    server = Heard(Habits(page=20, offsets="422", deepest=0), jobs=200)
    old = server.create(server.now - timedelta(days=3))
    dump(server)
    live(server)
    dump(server)
    server.finish(old)  # a walk finds its position, since no offset reaches it
    server.backdate()
    came: list[str] = []

    def arrive(_body: dict[str, Any], asked: dict[str, list[str]]) -> None:
        if not came and not asked.keys() & {"statuses", "after", "offset"}:
            server.now += timedelta(minutes=10)
            came.append(server.create().id)

    server.edit = arrive
    receipt = dump(server)
    assert came
    assert (receipt.mode, receipt.code) == ("full", 0)


def test_f23_an_open_job_that_vanished_hides_no_deleted_one(tmp_path: Path, clock: Clock) -> None:
    """Where an open and a settled job are deleted, a job that comes while the head is read makes up for neither."""
    server = Heard(Habits(page=20, offsets="422", deepest=0), jobs=200)
    is_open = server.create(server.now - timedelta(days=3))
    settled = min(server.jobs.values(), key=lambda job: job.created)
    with open_client(server, clock) as client:
        dump_export_jobs(tmp_path, client=client)
    server.now += timedelta(days=1)
    for _ in range(30):  # more than a page of new jobs
        server.finish(server.create())
    for job in (is_open, settled):
        job.is_deleted = True
        server.note(job)

    def arrive(_body: dict[str, Any], asked: dict[str, list[str]]) -> None:
        if not asked.keys() & {"statuses", "after", "offset"} and len(server.jobs) == 231:
            server.create()

    server.edit = arrive
    with open_client(server, clock) as client:
        receipt = dump_export_jobs(tmp_path, client=client)
    assert len(server.jobs) == 232
    assert sorted(receipt.vanished) == sorted((COMPANY, job.id) for job in (is_open, settled))


@pytest.mark.parametrize("arrivals", mostly_slow([0, 1, 2], quick=2))
@pytest.mark.parametrize("read", ["dump", "cut dump", "load", "iterate"])
def test_f23_a_deletion_hides_no_job_from_cursors_that_are_positions(
    read: str, arrivals: int, tmp_path: Path, clock: Clock
) -> None:
    """If `total` falls while cursors are positions, the list is read once more, although jobs came that make up for it."""
    server = Heard(Habits(page=100, cursors="positions"), jobs=700)
    oldest = min(server.jobs.values(), key=lambda job: job.created)
    pages: list[str] = []

    def move(_body: dict[str, Any], asked: dict[str, list[str]]) -> None:
        pages.extend(asked.get("after", ()))
        if len(pages) == 1 and not oldest.is_deleted:
            oldest.is_deleted = True
            server.note(oldest)
        if len(pages) == 3:
            pages.append("")
            for _ in range(arrivals):
                server.create()

    server.edit = move
    with open_client(server, clock, in_flight=1) as client:
        if read == "load":
            found = set(load_export_jobs(client=client)["id"])
        elif read == "iterate":
            with pytest.raises(IncompleteWalk, match="jobs when read once and"):
                list(iter_export_jobs(client=client))
            found = set(server.jobs)  # the batches were given out before the walk could know
        else:
            if read == "cut dump":
                with pytest.raises(RequestsExceeded):
                    dump_export_jobs(tmp_path, client=client, max_requests=4)
            receipt = dump_export_jobs(tmp_path, client=client)
            assert (receipt.code, receipt.verdict) in ((0, "complete"), (0, "complete_with_drift"))
            found = set(scan_lake(tmp_path).collect()["id"])
    assert oldest.is_deleted
    assert len(pages) > 3
    assert {job.id for job in server.jobs.values() if not job.is_deleted} <= found
    if read == "dump":
        with open_client(server, clock) as client:
            assert dump_export_jobs(tmp_path, client=client, full=True).vanished == [(COMPANY, oldest.id)]


@pytest.mark.parametrize("place", ["this month", "a later month"])
@pytest.mark.parametrize("read", ["dump", "load", "iterate"])
def test_f23_a_job_that_moves_hides_no_job_from_cursors_that_are_positions(
    read: str, place: str, tmp_path: Path, clock: Clock
) -> None:
    """A job that moves from what was read to what was not moves another past the reader; an arrival makes up for it.

    The reader meets the job that moves twice, which makes up for the other one too if it is counted twice.
    """
    server = Heard(Habits(page=50, cursors="positions"), jobs=700)
    by_age = sorted(server.jobs.values(), key=lambda job: job.created)
    moving, behind = by_age[20], by_age[220 if place == "this month" else 600]
    assert (moving.created.month == behind.created.month) is (place == "this month")
    pages: list[str] = []

    def move(_body: dict[str, Any], asked: dict[str, list[str]]) -> None:
        pages.extend(asked.get("after", ()))
        if len(pages) == 2:
            pages.append("")
            moving.created = behind.created + timedelta(microseconds=1)
            server.note(moving)
            server.create()

    server.edit = move
    with open_client(server, clock, in_flight=1) as client:
        if read == "load":
            assert set(load_export_jobs(client=client)["id"]) == set(server.jobs)
        elif read == "iterate":
            with pytest.raises(IncompleteWalk, match="jobs when read once and 701 when read again"):
                list(iter_export_jobs(client=client))
        else:
            assert dump_export_jobs(tmp_path, client=client).code == 0
            assert set(scan_lake(tmp_path).collect()["id"]) == set(server.jobs)
    assert len(server.jobs) == 701


@pytest.mark.parametrize("since", [False, True])
def test_f64_a_stream_gives_no_job_twice_in_silence(clock: Clock, *, since: bool) -> None:
    """A job that moves to where the reader has not been is given out twice; the stream ends with an error that says so."""
    server = Heard(Habits(page=10), jobs=400)  # two batches of 20 pages
    by_age = sorted(server.jobs.values(), key=lambda job: job.created)
    moving, elsewhere = (by_age[-5], by_age[120]) if since else (by_age[5], by_age[300])
    pages: list[str] = []

    def move(_body: dict[str, Any], asked: dict[str, list[str]]) -> None:
        pages.extend(asked.get("after", ()))
        if len(pages) == 2:
            pages.append("")
            moving.created = elsewhere.created + timedelta(seconds=1)
            server.note(moving)

    server.edit = move
    bound = by_age[100].created.replace(tzinfo=UTC) if since else None
    with (
        open_client(server, clock, in_flight=1) as client,
        pytest.raises(WalkError, match="1 job was given out twice"),
    ):
        list(iter_export_jobs(client=client, since=bound))


@pytest.mark.parametrize("read", ["load", "iterate"])
def test_f23_a_deletion_hides_no_job_of_a_part_of_the_list(read: str, clock: Clock) -> None:
    """With `since`, a `total` that falls while the list is read newest first asks for a second reading."""
    server = Heard(Habits(page=50, cursors="positions"), jobs=700)
    by_age = sorted(server.jobs.values(), key=lambda job: job.created)
    newest, since = by_age[-1], by_age[300].created.replace(tzinfo=UTC)
    wanted = {job.id for job in by_age if job.created.replace(tzinfo=UTC) >= since}
    pages: list[str] = []

    def delete(_body: dict[str, Any], asked: dict[str, list[str]]) -> None:
        pages.extend(asked.get("after", ()))
        if len(pages) == 2 and not newest.is_deleted:
            newest.is_deleted = True
            server.note(newest)

    server.edit = delete
    with open_client(server, clock, in_flight=1) as client:
        if read == "load":
            found = set(load_export_jobs(client=client, since=since)["id"])
            assert wanted == found
        else:
            fewer = len(wanted) - 1  # one was skipped, then one is deleted
            with pytest.raises(
                IncompleteWalk, match=f"{fewer} jobs when read once and {fewer} when read again"
            ):
                list(iter_export_jobs(client=client, since=since))
    assert newest.is_deleted


def test_f57_a_resumed_run_counts_jobs_of_a_staged_second_pass_once(tmp_path: Path, clock: Clock) -> None:
    """What only a staged second pass has met does not make up for a job that was inserted in the past since then."""
    server = Heard(Habits(page=20, cursors="positions"), jobs=200)
    oldest = min(server.jobs.values(), key=lambda job: job.created)
    pages: list[str] = []

    def insert(_body: dict[str, Any], asked: dict[str, list[str]]) -> None:
        pages.extend(asked.get("after", ()))
        if len(pages) == 5:
            pages.append("")
            server.finish(server.create(oldest.created - timedelta(days=1)))

    server.edit = insert
    with open_client(server, clock, in_flight=1) as client:
        with pytest.raises(RequestsExceeded):
            dump_export_jobs(tmp_path, client=client, max_requests=22)
        first_pages = [asked for asked in server.asked if "after" not in asked and "statuses" not in asked]
        assert len(first_pages) == 2, "cut after the second pass"
        server.finish(server.create(oldest.created - timedelta(days=2)))
        receipt = dump_export_jobs(tmp_path, client=client)
    assert receipt.code == 0
    assert set(scan_lake(tmp_path).collect()["id"]) == set(server.jobs)


def test_f23_a_deleted_job_does_not_pass_for_a_total_that_is_too_low(tmp_path: Path, clock: Clock) -> None:
    """If a job is deleted and another one created during the first walk, the next dump finds the deleted one."""
    server = Heard(Habits(page=100), jobs=700)
    oldest = min(server.jobs.values(), key=lambda job: job.created)

    def move(_body: dict[str, Any], asked: dict[str, list[str]]) -> None:
        if "after" in asked and not oldest.is_deleted:
            oldest.is_deleted = True
            server.note(oldest)
        elif oldest.is_deleted and len(server.jobs) == 700:
            server.create()

    server.edit = move
    with open_client(server, clock, in_flight=1) as client:
        assert dump_export_jobs(tmp_path, client=client).verdict == "complete_with_drift"
        assert len(server.jobs) == 701
        receipt = dump_export_jobs(tmp_path, client=client)
    assert receipt.vanished == [(COMPANY, oldest.id)]


def test_f36_a_walk_ends_with_what_stages_it(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If staging fails, signals that were held during the walk are released."""
    server = Heard(Habits(page=100, slow=0.05), jobs=3_000)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    real = disk.write_file

    def write(path: Path, *given: Any, **more: Any) -> None:
        if path.suffix == ".arrow":
            assert signal.getsignal(signal.SIGTERM) is not before[signal.SIGTERM], "not read in segments"
            raise StorageError("no room")
        real(path, *given, **more)

    monkeypatch.setattr(disk, "write_file", write)
    with open_client(server, clock) as client, pytest.raises(StorageError, match="no room") as caught:
        dump_export_jobs(tmp_path, client=client)
    assert caught.value.__traceback__ is not None  # keeps all frames and their locals alive
    assert {number: signal.getsignal(number) for number in before} == before


@pytest.mark.parametrize("place", ["met again", "not read again"])
def test_f60_a_staged_job_is_deleted(place: str, tmp_path: Path, clock: Clock) -> None:
    """A new job that a cut refresh staged, and that is deleted then, is missed: by the head walk, or else it may be.

    The server counts nothing. So if no read passes the job's place again, the receipt does not claim that the run
    would have noticed.
    """
    server = Heard(Habits(page=10, total="absent"), jobs=5)
    with open_client(server, clock, in_flight=1) as client:
        dump_export_jobs(tmp_path, client=client)
        for _ in range(40):
            server.now += timedelta(minutes=10)
            server.finish(server.create())
        with pytest.raises(RequestsExceeded):
            dump_export_jobs(tmp_path, client=client, max_requests=4)
        youngest_first = sorted(server.jobs.values(), key=lambda job: job.created, reverse=True)
        lost = youngest_first[0 if place == "met again" else 15]
        lost.is_deleted = True
        server.note(lost)
        receipt = dump_export_jobs(tmp_path, client=client)
    rows = scan_lake(tmp_path).collect()
    if place == "met again":
        assert (receipt.mode, receipt.why_full) == (
            "full",
            "jobs that an earlier run staged are no longer listed",
        )
        assert is_true(server, rows)
    else:
        assert receipt.mode == "refresh"
        assert lost.id in set(rows["id"])
        assert receipt.shift_chance < 1


def test_f60_a_second_pass_begins_at_the_start(tmp_path: Path, clock: Clock) -> None:
    """After an audit that read the head twice, a second pass of the full sync does not continue from that reading.

    Both were staged under one name once. The pass then was left out, and the first one confirmed by nothing, or it began
    with a cursor into the list newest first, and so without its first page and without a proven order.
    """
    server = Heard(Habits(page=20), jobs=400)
    with open_client(server, clock, in_flight=1) as client:
        dump_export_jobs(tmp_path, client=client)
        by_age = sorted(server.jobs.values(), key=lambda job: job.created)
        by_age[-30].is_deleted = True
        server.note(by_age[-30])
        server.finish(
            server.create(by_age[0].created - timedelta(days=1))
        )  # cancels in `total`, shifts all ranks

        def count_more(body: dict[str, Any], asked: dict[str, list[str]]) -> None:
            if asked["sorting_order"][0] == "ASC" and "statuses" not in asked:
                body["pagination"]["total"] += 5

        server.edit = count_more
        server.asked.clear()
        receipt = dump_export_jobs(tmp_path, client=client, accept_vanished=True)
    assert (receipt.mode, receipt.order) == ("full", "strict")
    assert "begin with another job" in receipt.why_full
    passes = [
        asked for asked in server.asked if asked["sorting_order"][0] == "ASC" and "statuses" not in asked
    ]
    assert sum("after" not in asked for asked in passes) == 3, (
        "the first, the second, and that for vanished jobs"
    )
    assert receipt.vanished == [(COMPANY, by_age[-30].id)]
