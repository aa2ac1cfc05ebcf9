"""Our client against the sandbox, with Stoplight Prism between them, which checks every request and response."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

import httpx
import pytest

from contract.conftest import name_kind
from contract.recorder import Recorder
from contract.server import run_prism
from pleo_extract import (
    Client,
    PleoExtractError,
    Query,
    dump_export_jobs,
    fetch_page,
    load_export_jobs,
    scan_lake,
    verify_lake,
)
from pleo_extract.contract import PATH, STATUSES, PageOrder
from pleo_extract.errors import CredentialsError, RequestRefused
from pleo_extract.sandbox import API_KEY, Rules, Sandbox, World, serve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import polars as pl

    from contract.conftest import Note
    from pleo_extract.client import Clock
    from pleo_extract.sandbox import RequestLike, Response

JOBS: Final = 400
MOVING: Final[dict[str, Any]] = {"tick": 120.0, "max_limit": 30}
"""Each request advances the clock by two minutes: jobs appear, start and end while we page."""
SERVERS: Final[dict[str, dict[str, Any]]] = {
    "friendly": {},
    "sparing": {
        "echo": "bare",
        "total": False,
        "last_cursor": False,
        "sorting": (),
        "offsets": "refuse",
    },
    "lavish": {
        "extra": True,
        "unknown_status": True,
        "null_reason": True,
        "fraction": 9,
        "zone": 330,
        "upper_uuid": True,
        "countdown": True,
        "gzip": True,
    },
}
"""Servers that keep the contract in different ways."""
BAD: Final = {
    "badrow": "numberOfItems",
    "badrow.null": "status",
    "badrow.float": "numberOfItems",
    "badrow.string_number": "numberOfItems",
    "badrow.string_bool": "isInteractive",
    "badrow.baddate": "createdAt",
    "badrow.baduuid": "id",
    "badrow.overflow32": "expiresIn",
    "nopagination": "pagination",
    "nodata": "data",
}
"""Faults of the sandbox, and the violated property that Prism must name."""


def draw_world() -> World:
    """Return a world whose jobs were created within four days, on a busy morning."""
    return World(jobs=JOBS, days=4, now=datetime(2026, 10, 29, 9, tzinfo=UTC))


class Line(NamedTuple):
    """Both ends of a test: the client with its recorder, and the sandbox with its oracle."""

    client: Client
    seen: Recorder
    sandbox: Sandbox

    def wrong(self, frame: pl.DataFrame, **asked: Any) -> list[Any]:
        """Return what is wrong with the rows of a walk during the whole life of this sandbox."""
        since = draw_world().now
        return self.sandbox.truth(frame.drop("extra").to_dicts(), since, **asked)


class Switch:
    """Prism's upstream server: answers as the sandbox of the current test, so that one Prism serves all tests."""

    sandbox: Sandbox

    def __call__(self, request: RequestLike) -> Response:
        """Answer as the current sandbox."""
        return self.sandbox(request)


@pytest.fixture(scope="module")
def proxied(mended: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Switch]]:
    """Run Prism as a validating proxy before a sandbox; yield its URL and the switch."""
    switch = Switch()
    log = tmp_path_factory.mktemp("proxy") / "prism.log"
    with (
        serve(cast("Sandbox", switch)) as served,
        run_prism(["proxy", mended, served.url, "--errors"], log) as url,
    ):
        yield url, switch


@pytest.fixture
def open_line(proxied: tuple[str, Switch], clock: Clock) -> Iterator[Callable[..., Line]]:
    """Return a function that opens a line: a `credential` for the client, `faults` and rules for the sandbox."""
    opened: list[Line] = []
    url, switch = proxied

    def open_one(credential: dict[str, str], *, faults: str = "", **rules: Any) -> Line:
        switch.sandbox = Sandbox(draw_world(), rules=Rules(**MOVING | rules), faults=faults)
        seen = Recorder()
        client = Client(url, transport=seen, clock=clock, rate=1_000_000, **credential)  # type: ignore[arg-type]
        opened.append(Line(client, seen, switch.sandbox))
        return opened[-1]

    yield open_one
    for line in opened:
        line.client.close()
        line.seen.close()


@pytest.mark.parametrize("server", SERVERS)
def test_load(open_line: Callable[..., Line], credential: dict[str, str], server: str, note: Note) -> None:
    """The whole list loads without a violation on either side, and each job appears once."""
    line = open_line(credential, **SERVERS[server])
    frame = load_export_jobs(client=line.client)
    assert line.seen.violations == []
    assert line.wrong(frame) == []
    assert {answer.status for answer in line.seen.answers} <= {200, 400}
    assert frame.height > JOBS or server == "sparing"  # jobs appeared during the walk
    note("Prism proxy", f"load, {name_kind(credential)}, {server} server", count(line, frame.height))


def test_load_filtered(open_line: Callable[..., Line], credential: dict[str, str], note: Note) -> None:
    """Both filters reach the server: one company's failed jobs load without a violation."""
    line = open_line(credential)
    company = line.sandbox.world.companies[0]
    for statuses in (["failed"], ["completed", "completed_with_errors"]):
        frame = load_export_jobs(company_id=company, statuses=statuses, client=line.client)
        asked = {"companies": frozenset({company}), "statuses": frozenset(statuses)}
        assert frame.height > 0
        assert line.wrong(frame, **asked) == []
    assert line.seen.violations == []
    note("Prism proxy", f"load, {name_kind(credential)}, company and statuses", count(line, 0))


def test_load_since(open_line: Callable[..., Line], credential: dict[str, str], note: Note) -> None:
    """With `since` the list is read newest first and stops early."""
    line = open_line(credential)
    frame = load_export_jobs(since=line.sandbox.world.now - timedelta(hours=24), client=line.client)
    assert line.seen.violations == []
    assert 0 < frame.height < JOBS // 2
    assert all("sorting_order=DESC" in answer.query for answer in line.seen.answers)
    assert len(line.seen.answers) < JOBS // MOVING["max_limit"]
    note("Prism proxy", f"load, {name_kind(credential)}, since", count(line, frame.height))


def test_dump(open_line: Callable[..., Line], credential: dict[str, str], tmp_path: Path, note: Note) -> None:
    """Two dumps of a changing world cause no violation, and the lake has each job once."""
    line = open_line(credential)
    lake = tmp_path / "lake"
    for _ in range(2):
        receipt = dump_export_jobs(lake, client=line.client)
        assert receipt.verdict in ("complete", "complete_with_drift")
    assert line.seen.violations == []
    jobs = scan_lake(lake).collect()
    assert line.wrong(jobs) == []
    verify_lake(lake)
    note("Prism proxy", f"two dumps, {name_kind(credential)}", count(line, jobs.height))


def test_fetch_page(open_line: Callable[..., Line], credential: dict[str, str], note: Note) -> None:
    """`fetch_page` sends each parameter and each order without a violation."""
    line = open_line(credential)
    company = line.sandbox.world.companies[0]
    first = fetch_page(Query(limit=5), client=line.client)
    third = fetch_page(Query(limit=5, offset=10), client=line.client)
    cursor, later = first.info.end_cursor, third.info.start_cursor
    queries = [
        Query(),
        Query(limit=0),
        Query(limit=1_000),
        Query(offset=JOBS * 10),
        Query(offset=2**53 - 1, limit=2**31 - 1),  # the largest integer that Prism accepts
        Query(after=cursor, limit=3),
        Query(before=later, limit=3),
        Query(company_id=company),
        *(Query(statuses=[status]) for status in STATUSES),
        Query(company_id=company.upper(), statuses=STATUSES, limit=7),
        *(Query(sorting_keys=["completedAt"], sorting_order=[order], limit=4) for order in PageOrder),
        Query(sorting_keys=["status", "createdAt", "id"], sorting_order=["ASC", "DESC", "ASC_NULLS_FIRST"]),
    ]
    rows = sum(fetch_page(query, client=line.client).frame.height for query in queries)
    assert line.seen.violations == []
    assert {answer.status for answer in line.seen.answers} == {200}
    note("Prism proxy", f"fetch_page, {name_kind(credential)}, every parameter", count(line, rows))


def test_errors_keep_the_contract(open_line: Callable[..., Line], note: Note) -> None:
    """Wrong keys, foreign companies and unknown cursors get contract-conforming errors, each with its own class."""
    line = open_line({"api_key": API_KEY})
    with pytest.raises(RequestRefused):
        fetch_page(Query(after="AAAA"), client=line.client)
    with pytest.raises(CredentialsError):
        fetch_page(Query(company_id="00000000-0000-4000-8000-000000000000"), client=line.client)
    stranger = Client(str(line.client.server), api_key="wrong", transport=line.seen)
    with pytest.raises(CredentialsError):
        fetch_page(Query(), client=stranger)
    assert [answer.status for answer in line.seen.answers] == [400, 403, 401]
    assert line.seen.violations == []
    note("Prism proxy", "refusals: 400, 401, 403", count(line, 0))


@pytest.mark.parametrize("fault", BAD)
def test_violation_of_the_server_is_reported(open_line: Callable[..., Line], fault: str, note: Note) -> None:
    """Prism names each violation that the sandbox makes on purpose, and our client raises."""
    line = open_line({"api_key": API_KEY}, faults=f"*:{fault}", tick=0)
    with pytest.raises(PleoExtractError):
        load_export_jobs(client=line.client)
    assert line.seen.violations
    assert all(BAD[fault] in violation for violation in line.seen.violations), line.seen.violations
    note("Prism proxy", "answers broken on purpose, found out", fault)


@pytest.mark.parametrize(
    "query",
    [
        "limit=-1",
        "limit=ten",
        "offset=-1",
        "after=no+cursor",
        "statuses=cancelled",
        "company_id=pleo",
        "sorting_order=UP",
    ],
)
def test_violation_of_a_request_is_reported(open_line: Callable[..., Line], query: str, note: Note) -> None:
    """Prism stops a request that breaks the contract before it reaches the server."""
    line = open_line({"api_key": API_KEY})
    with httpx.Client(transport=line.seen, auth=(API_KEY, "")) as careless:
        answer = careless.get(f"{str(line.client.server).rstrip('/')}{PATH}?{query}")
    assert answer.status_code == 422
    assert line.seen.violations
    assert line.sandbox.requests == []
    note("Prism proxy", "requests broken on purpose, found out", query)


def count(line: Line, rows: int) -> str:
    """Return the number of requests and responses, for the table."""
    pages = sum(answer.status == httpx.codes.OK for answer in line.seen.answers)
    reported = f"{len(line.seen.answers)} requests, {pages} pages"
    return f"{reported}, {rows:,} rows" if rows else reported
