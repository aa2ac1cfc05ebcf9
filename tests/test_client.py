"""Tests of the client: real sockets for promises about them, a simulated clock for every wait."""

from __future__ import annotations

import base64
import copy
import gzip
import itertools
import json
import logging
import os
import pickle
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import traceback
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx
import httpx2
import pytest
from canary import CANARY, SPELLINGS
from hypothesis import example, given
from hypothesis import strategies as st

from pleo_extract import Client
from pleo_extract.client import Secret, read_accounts, resolve_server
from pleo_extract.client import wire as wire_module
from pleo_extract.client.mask import Mask
from pleo_extract.client.session import RealClock
from pleo_extract.client.via_httpx import ROOTS
from pleo_extract.contract import PATH, SERVERS, Query
from pleo_extract.core.decode import Page, parse_page
from pleo_extract.core.pace import Patience
from pleo_extract.errors import (
    ConfigurationError,
    ContractError,
    CredentialsError,
    DeadlineExceeded,
    PageError,
    PageTooLarge,
    PleoExtractError,
    RequestRefused,
    RequestsExceeded,
    Stopped,
    TryLater,
    UsageError,
)
from pleo_extract.sandbox import API_KEY, TOKEN, RequestLike, Response, Rules, Sandbox, World, serve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pleo_extract.client import Session

    App = Callable[[RequestLike], Response]

COMPANY = "5e6a4a5a-3b0c-4e8e-9a51-0d7d3c2b1a90"
NOWHERE = "http://127.0.0.1:1"
TLS = Path(__file__).parent / "tls"
PAGE = b'{"data":[],"pagination":{"currentRequestPagination":{"parameters":{}},"hasNextPage":false,"hasPreviousPage":false,"total":7}}'
GRACE = 20.0
"""Seconds after which a hanging test fails; no test takes a hundredth of that."""


each_transport = pytest.mark.usefixtures("each_transport")


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the settings of this machine from the environment."""
    for name in (
        "PLEO_API_KEY",
        "PLEO_ACCESS_TOKEN",
        "PLEO_TOKEN_COMMAND",
        "PLEO_BASE_URL",
        "PLEO_COMPANY_ID",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
    ):
        monkeypatch.delenv(name, raising=False)


class Clock:
    """A clock that advances only when a caller waits."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.on_wait: Callable[[float], None] = lambda _: None
        self._lock = threading.Lock()

    def monotonic(self) -> float:
        """Return the seconds waited so far."""
        return self.now

    def wait(self, seconds: float, stop: threading.Event) -> None:
        """Advance the clock immediately."""
        with self._lock:
            self.now += seconds
        self.on_wait(seconds)


class HeldClock:
    """A clock that stands still until a test moves it; waiting threads really wait."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waiting = 0
        self._changed = threading.Condition()

    def monotonic(self) -> float:
        """Return the time, seconds."""
        return self.now

    def wait(self, seconds: float, stop: threading.Event) -> None:
        """Wait until the clock has advanced by `seconds`."""
        with self._changed:
            due = self.now + seconds
            self.waiting += 1
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: self.now >= due, GRACE), "nobody moved the clock"
            self.waiting -= 1

    def await_waiters(self, count: int) -> None:
        """Return once this many threads are waiting."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.waiting == count, GRACE), f"{self.waiting} wait"

    def move(self, seconds: float) -> None:
        """Advance the clock."""
        with self._changed:
            self.now += seconds
            self._changed.notify_all()


@dataclass
class Listener:
    """A raw server and the bytes that it received, by connection."""

    url: str
    received: list[bytes] = field(default_factory=list, repr=False)
    connections: int = 0


@contextmanager
def listen(
    answer: Callable[[socket.socket, int], None], *, tls: str | None = None, scheme: str | None = None
) -> Iterator[Listener]:
    """Run a server that reads one request head per connection, then lets `answer` use the socket."""
    context = None
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(TLS / tls)
    listening = socket.create_server(("127.0.0.1", 0), backlog=64)
    server = Listener(f"{scheme or ('https' if tls else 'http')}://127.0.0.1:{listening.getsockname()[1]}")
    threads: list[threading.Thread] = []

    def accept() -> None:
        for number in itertools.count(1):
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            server.connections += 1
            thread = threading.Thread(target=attend, args=(connection, number))
            threads.append(thread)
            thread.start()

    def attend(connection: socket.socket, number: int) -> None:
        connection.settimeout(GRACE)
        with suppress(OSError), connection:
            stream = context.wrap_socket(connection, server_side=True) if context else connection
            with stream:
                head = b""
                while b"\r\n\r\n" not in head:
                    if not (data := stream.recv(65536)):
                        break
                    head += data
                if head:
                    server.received.append(head)
                    answer(stream, number)

    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        yield server
    finally:
        with suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        accepting.join()
        for thread in threads:
            thread.join()


def http(body: bytes, *, status: str = "200 OK", framing: str = "length", **headers: str) -> bytes:
    """Return an HTTP response as bytes, framed by length, in chunks, or by the end of the connection."""
    lines = [f"HTTP/1.1 {status}", "Content-Type: application/json"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    if framing == "chunked":
        lines.append("Transfer-Encoding: chunked")
        half = len(body) // 2
        body = b"%x\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (half, body[:half], len(body) - half, body[half:])
    if framing == "length":
        lines.append(f"Content-Length: {len(body)}")
    lines.append("Connection: close")
    return "\r\n".join((*lines, "", "")).encode() + body


def says(status: int = 200, body: bytes = PAGE, **headers: str) -> App:
    """Return a server in process that always gives the same response."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _: Response(status, {"content-type": "application/json", **named}, body)


class Script:
    """A server in process that gives one response after another, repeats the last, and records the requests."""

    def __init__(self, *answers: App) -> None:
        self.answers = answers
        self.requests: list[RequestLike] = []

    def __call__(self, request: RequestLike) -> Response:
        """Return the next response."""
        self.requests.append(request)
        return self.answers[min(len(self.requests), len(self.answers)) - 1](request)


def client_of(app: App | httpx.BaseTransport | None = None, url: str = NOWHERE, **options: Any) -> Client:
    """Return a client with the canary as its key, and a clock that does not really wait."""
    if "access_token" not in options:
        options.setdefault("api_key", CANARY)
    return Client(url, transport=app, **{"clock": Clock(), "rate": 10_000, **options})


def sandbox_of(faults: str = "", *, jobs: int = 40, **rules: Any) -> Sandbox:
    """Return a sandbox that accepts the canary."""
    return Sandbox(World(jobs=jobs), rules=Rules(**rules), faults=faults, api_keys={CANARY: None})


def fetch(
    client: Client, query: Query | None = None, *, deadline: float | None = None
) -> tuple[Page, Session]:
    """Fetch one page; return it with the run."""
    run = client.start_session(deadline=deadline)
    return run.fetch(query or Query(limit=5), parse_page), run


def fail(client: Client, *, deadline: float | None = None) -> tuple[PleoExtractError, Session]:
    """Fetch one page, which must fail; return the error with the run."""
    run = client.start_session(deadline=deadline)
    with pytest.raises(PleoExtractError) as caught:
        run.fetch(Query(limit=5), parse_page)
    return caught.value, run


def in_threads(count: int, work: Callable[[], Any]) -> list[Any]:
    """Call a function in several threads; return their results or exceptions."""
    results: list[Any] = []

    def do() -> None:
        try:
            results.append(work())
        except Exception as exc:  # noqa: BLE001 - handed to the test
            results.append(exc)

    threads = [threading.Thread(target=do) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(GRACE)
    assert len(results) == count, "a thread hangs"
    return results


@each_transport
class TestRequest:
    """The requests that a client sends."""

    def test_what_a_request_says(self) -> None:
        """A request is a GET of the path with the query, the key as Basic user name, and gzip and JSON accepted."""
        with (
            listen(lambda stream, _: stream.sendall(http(PAGE))) as server,
            client_of(url=server.url) as client,
        ):
            fetch(client, Query(statuses=["failed", "completed"], after="A=~", limit=3))
        head = server.received[0].decode().split("\r\n")
        assert head[0] == f"GET {PATH}?statuses=failed&statuses=completed&after=A%3D~&limit=3 HTTP/1.1"
        sent = dict(line.split(": ", 1) for line in head[1:] if line)
        assert sent.pop("User-Agent").startswith("pleo-extract/")
        assert sent == {
            "Host": server.url.removeprefix("http://"),
            "Accept": "application/json",
            "Accept-Encoding": "gzip",
            "Authorization": "Basic " + base64.b64encode(f"{CANARY}:".encode()).decode(),
        }

    def test_bearer(self) -> None:
        """An access token is sent as a Bearer token."""
        app = Script(says())
        fetch(client_of(app, access_token=CANARY))
        assert app.requests[0].headers["authorization"] == f"Bearer {CANARY}"

    @pytest.mark.parametrize("base", [f"{NOWHERE}/", f"{NOWHERE}/api", f"{NOWHERE}/api/"])
    def test_base_url_may_have_a_path(self, base: str) -> None:
        """The path of the base URL is kept, with one slash after it."""
        app = Script(says())
        fetch(client_of(app, url=base))
        assert app.requests[0].path == httpx.URL(base).path.rstrip("/") + PATH

    def test_every_page_of_a_real_server(self) -> None:
        """A page over a real socket, compressed or not, equals the page in process."""
        sandbox = sandbox_of(gzip=True)
        direct, _ = fetch(client_of(sandbox))
        with serve(sandbox) as served, client_of(url=served.url) as client:
            page, run = fetch(client)
        assert page.columns == direct.columns
        assert (run.requests, run.retries, run.waited, dict(run.faults)) == (1, 0, 0, {})

    def test_a_query_too_long_for_a_url(self) -> None:
        """A query that is too long for a URL is refused before anything is sent."""
        app = Script(says())
        with pytest.raises(UsageError, match="longer than a URL"):
            fetch(client_of(app), Query(sorting_keys=["k" * 70_000], sorting_order=["ASC"]))
        assert app.requests == []


TRANSIENT = [408, 425, 429, 500, 501, 502, 503, 504, 507, 520, 599]
MEANS: list[tuple[int, type[PleoExtractError], str]] = [
    *[(status, RequestRefused, f"answered {status}") for status in (400, 413, 422)],
    (401, CredentialsError, "answered 401"),
    (403, CredentialsError, f"no access to export jobs of {COMPANY}"),
    (404, CredentialsError, f"no access to export jobs of {COMPANY}"),
    *[(status, ContractError, f"answered {status}") for status in (402, 405, 406, 409, 410, 414, 431, 451)],
    *[(status, ContractError, "a redirect") for status in (300, 301, 302, 303, 304, 307, 308)],
]


class TestStatus:
    """The meaning of status codes."""

    @pytest.mark.parametrize("status", TRANSIENT)
    def test_f4_what_may_pass_is_tried_again(self, status: int) -> None:
        """F4: a temporary status is retried, and the following page is the result."""
        app = Script(says(status), says(status), says())
        _, run = fetch(client_of(app))
        assert len(app.requests) == run.requests == 3
        assert run.retries == run.faults[str(status)] == 2

    @pytest.mark.parametrize("status", TRANSIENT)
    def test_f4_for_ever(self, status: int) -> None:
        """F4: a permanent 5xx ends after the allowed retries with 75 and names the last response."""
        app = Script(says(status, b'{"type":"busy","message":"come back"}'))
        error, run = fail(client_of(app, patience=Patience(attempts=4)))
        assert type(error) is TryLater
        assert f"answered {status}" in str(error)
        assert "come back" in str(error)
        assert "after 4 tries" in str(error)
        assert len(app.requests) == run.requests == 4

    def test_long_trouble_is_said_at_growing_intervals(self, caplog: pytest.LogCaptureFixture) -> None:
        """An outage is reported after 5 seconds, then after 10, 20, 40 … seconds."""
        clock = Clock()
        client = client_of(Script(says(503)), clock=clock, patience=Patience(attempts=200))
        reported: list[float] = []

        def note(_: logging.LogRecord) -> bool:
            reported.append(clock.now)
            return True

        caplog.handler.addFilter(note)
        with caplog.at_level("WARNING", "pleo_extract"):
            fail(client, deadline=3_600)
        caplog.handler.removeFilter(note)
        assert clock.now > 2_000
        assert 5 <= len(caplog.records) <= 10
        assert all("answered 503" in record.getMessage() for record in caplog.records)
        assert re.search(r"\(\d+ times so far\); retrying in \d+ s$", caplog.records[-1].getMessage())
        for number, (one, other) in enumerate(itertools.pairwise(reported)):
            assert other - one >= 10 * 2**number

    def test_a_long_wait_is_said_at_once_and_a_short_one_is_not(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A wait of half a minute is reported before it begins; a short fault is not reported."""
        with caplog.at_level("WARNING", "pleo_extract"):
            fetch(client_of(Script(says(503), says(503), says())))
            assert caplog.records == []
            fetch(client_of(Script(says(503, retry_after="30"), says())))
        (record,) = caplog.records
        assert re.search(r"answered 503 .*; retrying in 3\d s$", record.getMessage())

    @pytest.mark.parametrize(("status", "kind", "words"), MEANS)
    def test_what_will_not_pass(self, status: int, kind: type[PleoExtractError], words: str) -> None:
        """A permanent error is raised after one request, with its own class."""
        app = Script(says(status, b'{"type":"no","message":"on purpose"}'))
        run = client_of(app).start_session()
        with pytest.raises(PleoExtractError) as caught:
            run.fetch(Query(company_id=COMPANY, limit=5), parse_page)
        assert type(caught.value) is kind
        assert words in str(caught.value)
        assert len(app.requests) == 1

    def test_refused_request_says_what_was_asked(self) -> None:
        """The error of a 400 names the parameters and quotes the server."""
        query = Query(limit=5, sorting_keys=["colour"], sorting_order=["ASC"])
        with pytest.raises(RequestRefused, match="sorting_keys must be of") as caught:
            fetch(client_of(sandbox_of()), query)
        assert list(caught.value.params) == query.params()

    @pytest.mark.parametrize("status", [201, 202, 203, 204, 205, 206, 226])
    def test_f9_success_without_a_page(self, status: int) -> None:
        """F9: any other 2xx is not a page: three tries, then 76."""
        app = Script(says(status, b""))
        error, _ = fail(client_of(app))
        assert type(error) is PageError
        assert f"answered {status} without a page" in str(error)
        assert len(app.requests) == 3

    def test_every_status_ends(self) -> None:
        """Every status number gives a page or one of our errors."""
        for status in [*range(100, 600), 600, 700, 999]:
            client = client_of(says(status), patience=Patience(attempts=2))
            if status == 200:
                fetch(client)
            else:
                fail(client)

    def test_what_the_server_said_is_shown_on_one_line(self) -> None:
        """F54: the body of an error is shown escaped and clipped."""
        error, _ = fail(client_of(says(422, b"\x1b[2J\r\nlevel=error forged\xff" + b"x" * 10_000)))
        assert str(error).isprintable()
        assert len(str(error)) < 400


class TestWaiting:
    """429, Retry-After, back-off, retry budget and deadline, on a simulated clock."""

    def test_f1_429_pauses_all_threads(self) -> None:
        """F1: after a 429 with Retry-After no thread sends anything until that time."""
        clock, app = HeldClock(), Script(says(429, retry_after="30"), says())
        client = client_of(app, clock=clock)
        run = client.start_session()
        with ExitStack() as stack:
            for number in range(8):
                thread = threading.Thread(target=run.fetch, args=(Query(limit=number + 1), parse_page))
                thread.start()
                stack.callback(thread.join, GRACE)
                clock.await_waiters(number + 1)
            clock.move(29.9)
            assert len(app.requests) == 1
            assert clock.waiting == 8
            clock.move(2)
        assert len(app.requests) == run.requests == 9
        assert 30 <= run.waited <= clock.now

    @pytest.mark.parametrize(
        ("seconds", "least", "most"), [("0", 0, 1), ("7", 7, 8), ("120", 120, 120), ("999", 120, 120)]
    )
    def test_f1_seconds(self, seconds: str, least: float, most: float) -> None:
        """F1: the client waits for Retry-After plus a little jitter, at most 120 s at a time, then asks again."""
        clock = Clock()
        _, run = fetch(client_of(Script(says(429, retry_after=seconds), says()), clock=clock))
        assert least <= clock.now - 1000 <= most
        assert least <= run.waited <= most
        assert run.faults == {"429": 1}

    def test_f1_deadline_shorter_than_the_wait(self) -> None:
        """F1: a wait longer than the deadline ends the run immediately with 75 and says when to return."""
        clock, app = Clock(), Script(says(429, retry_after="30"))
        error, run = fail(client_of(app, clock=clock), deadline=10)
        assert type(error) is DeadlineExceeded
        assert error.code == 75
        assert re.search(r"Come back in 3[01] s", str(error))
        assert clock.now == 1000
        assert run.requests == 1

    def test_f1_a_pause_ends_other_runs_that_cannot_outlast_it(self) -> None:
        """F1: a pause for one run also ends other runs whose deadline lies within it."""
        app = Script(says(429, retry_after="30"), says())
        clock = HeldClock()
        client = client_of(app, clock=clock)
        thread = threading.Thread(target=fetch, args=(client,))
        thread.start()
        clock.await_waiters(1)
        error, run = fail(client, deadline=5)
        assert type(error) is DeadlineExceeded
        assert re.search("come back in 3[01] s", str(error))
        assert run.requests == 0
        clock.move(60)
        thread.join(GRACE)

    def test_f2_date(self) -> None:
        """F2: a date in Retry-After counts from the response's own Date, whatever our clock says."""
        clock = Clock()
        fetch(client_of(sandbox_of("1:429date.40"), clock=clock))
        assert 40 <= clock.now - 1000 <= 41

    @pytest.mark.parametrize(
        "fault", ["429none", "429empty", "429junk", "429negative", "429nan", "429past", "429", "503", "reset"]
    )
    def test_f3_without_a_usable_wait(self, fault: str) -> None:
        """F3: without a usable Retry-After the client backs off between 0 and 1 second."""
        clock = Clock()
        _, run = fetch(client_of(sandbox_of(f"1:{fault}"), clock=clock))
        assert 0 <= clock.now - 1000 <= 1
        assert run.retries == 1

    @pytest.mark.parametrize(
        ("refusal", "is_slower"), [(says(429), False), (says(429, retry_after="3"), True)]
    )
    def test_f25_a_lone_429_that_names_a_wait_lowers_the_rate(self, refusal: App, *, is_slower: bool) -> None:
        """F25: with nothing else in flight it is about the rate. Without a wait it may be chance."""
        clock = Clock()
        client = client_of(Script(refusal, says()), clock=clock, rate=50)
        for _ in range(45):  # with the 429 and its retry still within the rate
            fetch(client)
        assert (clock.now - 1000 > 50) == is_slower

    def test_f3_huge(self) -> None:
        """F3: a wait beyond any deadline ends the run."""
        error, run = fail(client_of(sandbox_of("1:429huge")), deadline=3600)
        assert "Come back in 100000000" in str(error)
        assert run.requests == 1

    def test_f4_backoff_stays_within_its_bounds(self) -> None:
        """F4: each back-off is between 0 and twice the previous bound, at most a minute."""
        clock, waits = Clock(), list[float]()
        clock.on_wait = waits.append
        fail(client_of(says(503), clock=clock))
        assert len(waits) == 7
        for attempt, wait in enumerate(waits):
            assert 0 <= wait <= min(60, 2**attempt)

    def test_f4_one_budget_for_a_run(self) -> None:
        """F4: all retries of a run share one budget: 100 without success, then the next failure is final."""
        run = client_of(Script(says(503))).start_session()
        for _ in range(40):
            with pytest.raises(TryLater):
                run.fetch(Query(), parse_page)
        assert run.requests == 100 + 40
        with pytest.raises(TryLater, match="this run's retries are used up"):
            run.fetch(Query(), parse_page)

    def test_f4_successes_earn_retries(self) -> None:
        """F4: five successful pages pay for one more retry."""
        run = client_of(Script(*[says(503)] * 140, *[says()] * 5, says(503))).start_session()
        for _ in range(40):
            with pytest.raises(TryLater):
                run.fetch(Query(), parse_page)
        assert run.retries == 100
        for _ in range(5):
            run.fetch(Query(), parse_page)
        with pytest.raises(TryLater):
            run.fetch(Query(), parse_page)
        assert run.retries == 101

    def test_f4_deadline_bounds_it_all(self) -> None:
        """F4: retries end within the deadline and never wait beyond it."""
        for deadline in (0.5, 3, 20, 45):
            clock = Clock()
            error, _ = fail(client_of(says(503), clock=clock), deadline=deadline)
            assert error.code == 75
            assert clock.now - 1000 <= deadline

    def test_pace_through_the_client(self) -> None:
        """1,200 requests at 500 a minute never exceed the limit of a server that counts them."""
        clock, sandbox = Clock(), sandbox_of(rate=500)
        sandbox.timer = clock.monotonic
        run = client_of(sandbox, clock=clock, rate=500).start_session()
        for _ in range(1_200):
            run.fetch(Query(limit=1), parse_page)
        assert run.faults == {}
        assert 120 <= clock.now - 1000 <= 121
        assert run.waited == pytest.approx(clock.now - 1000)

    def test_deadline_counts_the_pace(self) -> None:
        """A run that the rate limit would delay beyond its deadline ends instead of waiting."""
        clock = Clock()
        run = client_of(says(), clock=clock, rate=2).start_session(deadline=30)
        run.fetch(Query(), parse_page)
        run.fetch(Query(), parse_page)
        with pytest.raises(DeadlineExceeded, match="the rate limit allows"):
            run.fetch(Query(), parse_page)
        assert clock.now == 1000
        assert run.requests == 2

    def test_in_flight(self) -> None:
        """The client sends exactly as many requests at the same time as allowed."""
        together, lock = threading.Barrier(3), threading.Lock()
        now, peak = 0, 0

        def app(request: RequestLike) -> Response:
            nonlocal now, peak
            with lock:
                now += 1
                peak = max(peak, now)
            together.wait(GRACE)
            with lock:
                now -= 1
            return says()(request)

        client = client_of(app, in_flight=3)
        assert all(not isinstance(result, Exception) for result in in_threads(9, lambda: fetch(client)))
        assert peak == 3

    def test_as_many_requests_as_were_given(self) -> None:
        """A run with a request limit sends no more, retries included, and ends with 75."""
        app = Script(says(), says(503), says())
        run = client_of(app).start_session(max_requests=3)
        run.fetch(Query(), parse_page)
        run.fetch(Query(), parse_page)
        with pytest.raises(RequestsExceeded, match="limit of 3 requests is reached"):
            run.fetch(Query(), parse_page)
        assert len(app.requests) == run.requests == 3

    def test_stop_ends_all_waits(self) -> None:
        """Stopping a run ends all waits, sends nothing more, and raises Stopped."""
        app = Script(says(503))
        client = client_of(app)
        run = client.start_session()
        clock = client._channel.clock
        assert isinstance(clock, Clock)
        clock.on_wait = lambda _: run.stop.set()
        with pytest.raises(Stopped):
            run.fetch(Query(), parse_page)
        with pytest.raises(Stopped):
            run.fetch(Query(), parse_page)
        assert len(app.requests) == 1

    def test_real_time(self) -> None:
        """The system clock waits the given time, and does not wait after a stop."""
        clock, stop = RealClock(), threading.Event()
        started = clock.monotonic()
        clock.wait(0.01, stop)
        waited = clock.monotonic() - started
        assert waited >= 0.009
        stop.set()
        clock.wait(GRACE, stop)
        assert clock.monotonic() - started < GRACE

    def test_counts(self) -> None:
        """A run counts requests, retries by reason, and waits, over all threads."""
        client = client_of(sandbox_of(",".join(f"{n}:503" for n in range(1, 16, 2)), jobs=5))
        run = client.start_session()
        in_threads(8, lambda: run.fetch(Query(limit=1), parse_page))
        assert run.faults == {"503": 8}
        assert (run.requests, run.retries) == (16, 8)
        assert run.waited > 0


@each_transport
class TestWire:
    """Network faults over real sockets."""

    @pytest.mark.parametrize(
        ("fault", "counted"),
        [
            ("reset", "ReadError"),
            ("reset_mid", "ReadError"),
            ("cut", "RemoteProtocolError"),
            ("cut.1", "RemoteProtocolError"),
            ("cut.tail", "RemoteProtocolError"),
            ("cut.chunked", "RemoteProtocolError"),
            ("cut.short", "bad body"),
            ("cut.close", "bad body"),
            ("silence", "timeout"),
            ("drip.1", "timeout"),
            ("html", "bad body"),
            ("badutf8", "bad body"),
            ("503", "503"),
        ],
    )
    def test_f5_f6_f7_f8_is_tried_again(self, fault: str, counted: str) -> None:
        """F5 to F8: a response that is reset, cut, dripped or withheld is requested again, and the page is complete."""
        sandbox = sandbox_of(f"1:{fault}", gzip=True)
        whole, _ = fetch(client_of(sandbox_of()))
        slow = counted == "timeout"
        patience = Patience(request_seconds=0.3, read_seconds=0.2) if slow else Patience()
        with serve(sandbox) as served, client_of(url=served.url, patience=patience) as client:
            page, run = fetch(client)
        assert page.columns == whole.columns
        assert dict(run.faults) == {counted: 1}
        assert len(sandbox.requests) == 2

    @pytest.mark.parametrize("fault", ["reset", "reset_mid", "cut", "cut_chunked", "silence", "drip"])
    def test_in_process_wires_mean_the_same(self, fault: str) -> None:
        """A network fault in process causes the same failure as over a socket."""
        sandbox = sandbox_of(f"1:{fault.replace('cut_', 'cut.')}")
        page, run = fetch(client_of(sandbox))
        assert page.info.rows == 5
        assert run.retries == 1

    @pytest.mark.parametrize("framing", ["length", "chunked", "close"])
    def test_f6_cut_at_every_byte(self, framing: str) -> None:
        """F6: a response cut at any byte, in any framing, is requested again; a partial page is never accepted."""
        whole = http(PAGE, framing=framing)

        def answer(stream: socket.socket, number: int) -> None:
            place, again = divmod(number - 1, 2)
            stream.sendall(whole if again else whole[:place])

        pages: set[bytes] = set()

        def read(body: bytes) -> None:
            parse_page(body)
            pages.add(body)

        with listen(answer) as server, client_of(url=server.url) as client:
            for place in range(len(whole)):
                run = client.start_session()
                run.fetch(Query(), read)
                assert run.retries == 1, place
        assert pages == {PAGE}

    @pytest.mark.parametrize("part", ["status line", "head", "body", "chunk"])
    def test_f7_drip(self, part: str) -> None:
        """F7: endless single bytes in any part of a response do not block a request."""
        before, dripped = {
            "status line": (b"", b"HTTP/1.1 200 " + b"O" * 10_000),
            "head": (b"HTTP/1.1 200 OK\r\n", b"X-Slow: " + b"x" * 10_000),
            "body": (http(PAGE)[: -len(PAGE)].replace(b"Length: ", b"Length: 9"), b" " * 10_000),
            "chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n" * 2_000),
        }[part]
        over = threading.Event()

        def answer(stream: socket.socket, number: int) -> None:
            if number > 1:
                stream.sendall(http(PAGE))
                return
            stream.sendall(before)
            for place in range(len(dripped)):
                stream.sendall(dripped[place : place + 1])
                if over.wait(0.01):
                    break

        patience = Patience(request_seconds=0.15, read_seconds=5)
        with listen(answer) as server, client_of(url=server.url, patience=patience) as client:
            page, run = fetch(client)
            over.set()
        assert page.info.total == 7
        assert set(run.faults) == {"timeout"}  # a busy machine may need a second try

    def test_f8_silence_ends_with_the_run(self) -> None:
        """F8: silence ends at the run's deadline with 75, whatever the read timeout."""
        with serve(sandbox_of("*:silence")) as served:
            client = Client(
                served.url, api_key=CANARY, patience=Patience(request_seconds=60, read_seconds=60)
            )
            with client:
                error, _ = fail(client, deadline=0.2)
        assert type(error) is DeadlineExceeded

    def test_f8_timeouts_cost_double(self) -> None:
        """F8: a timeout costs two retries of the budget: 50 of them use it up."""
        run = client_of(sandbox_of("*:silence")).start_session()
        for _ in range(30):
            with pytest.raises(TryLater):
                run.fetch(Query(), parse_page)
        assert run.retries == 50

    def test_f13_refused_and_unknown(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """F13: a refused connection or an unknown host is retried, then ends with 75 and names the host."""
        with socket.create_server(("127.0.0.1", 0)) as closed:
            url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        with client_of(url=url, patience=Patience(attempts=3)) as client:
            error, run = fail(client)
        assert type(error) is TryLater
        assert "127.0.0.1" in str(error)
        assert run.requests == 3

        def unknown(*_: object, **__: object) -> None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        monkeypatch.setattr(socket, "getaddrinfo", unknown)
        with client_of(url="https://pleo.invalid", patience=Patience(attempts=2)) as client:
            error, run = fail(client)
        assert type(error) is TryLater
        assert "pleo.invalid" in str(error)
        assert run.requests == 2

    def test_f13_that_a_server_cannot_be_reached_is_said_at_once(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        """F13: the first refused connection of a run is reported once, with how long it is retried."""
        with socket.create_server(("127.0.0.1", 0)) as closed:
            url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        for deadline, longest in ((None, 1 + 2 + 4 + 8 + 16 + 32 + 60), (100, 100)):
            caplog.clear()
            clock = Clock()
            with client_of(url=url, clock=clock) as client:
                run = client.start_session(deadline=deadline)
                failed = in_threads(1 if deadline else 4, partial(run.fetch, Query(), parse_page))
            assert all(isinstance(each, TryLater) for each in failed)
            said = [r.getMessage() for r in caplog.records if "cannot be reached" in r.getMessage()]
            assert len(said) == 1
            doubt = "Connection refused; is the base URL right? See --base-url and PLEO_BASE_URL"
            assert said[0].endswith(f"{doubt}); retrying for at most {longest} s")
            assert caplog.records[0].levelname == "WARNING"

    def test_connections_are_kept(self) -> None:
        """Pages share one connection as long as it works."""

        def answer(stream: socket.socket, _: int) -> None:
            while True:
                stream.sendall(http(PAGE).replace(b"Connection: close\r\n", b""))
                if not stream.recv(65536):
                    break

        with listen(answer) as server, client_of(url=server.url) as client:
            for _ in range(5):
                fetch(client)
            assert server.connections == 1


class TestBodies:
    """Bodies that are not a page, and bodies that are too large."""

    @pytest.mark.parametrize(
        "fault",
        [
            "html",
            "empty",
            "error200",
            "badjson",
            "badutf8",
            "bom",
            "deep",
            "nan",
            "surrogate",
            "nodata",
            "nopagination",
        ],
    )
    def test_f9_f10_three_times_running(self, fault: str) -> None:
        """F9, F10: three bad bodies of the same kind in a row give 76; after two the run continues."""
        sandbox = sandbox_of(f"*:{fault}")
        error, run = fail(client_of(sandbox))
        assert type(error) is PageError
        assert len(sandbox.requests) == 3
        assert run.faults == {"bad body": 2}
        sandbox = sandbox_of(f"1-2:{fault}")
        page, run = fetch(client_of(sandbox))
        assert page.info.rows == 5
        assert len(sandbox.requests) == 3

    def test_f9_shows_what_came(self) -> None:
        """F9: the message shows type, length and the first characters of the body, escaped."""
        error, _ = fail(client_of(sandbox_of("*:html")))
        assert "49 bytes, starting '<!doctype html><title>Maintenance</title><p>Soon back.'"[-30:] in str(
            error
        )
        assert "sent as text/html" in str(error)
        error, _ = fail(client_of(lambda _: Response(200, {}, b"\x1b[2J")))
        assert "4 bytes, starting '\\x1b[2J', sent as no content type" in str(error)

    def test_not_running(self) -> None:
        """F9: bad bodies with another failure between them do not count as three in a row."""
        sandbox = sandbox_of("1:html,2:503,3:html,4:503,5:html")
        page, run = fetch(client_of(sandbox))
        assert page.info.rows == 5
        assert run.faults == {"bad body": 3, "503": 2}

    def test_f9_another_content_type(self, caplog: pytest.LogCaptureFixture) -> None:
        """F9: a page with another content type is accepted; the first of a run causes a warning."""
        run = client_of(sandbox_of("*:wrongtype")).start_session()
        for _ in range(3):
            assert run.fetch(Query(limit=5), parse_page).info.rows == 5
        assert run.retries == 0
        warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
        assert warnings == ["a page came as 'text/plain', not as JSON; its rows are used"]

    @each_transport
    def test_f11_gzip_bomb(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """F11: a body of more than 128 MiB after decoding is not read further and not retried: 76."""
        assert wire_module.LARGEST_PAGE == 128 * 2**20
        monkeypatch.setattr(wire_module, "LARGEST_PAGE", 2**20)
        sandbox = sandbox_of("*:bomb.3")
        with serve(sandbox) as served, client_of(url=served.url) as client:
            error, run = fail(client)
        assert type(error) is PageTooLarge
        assert "more than 1048576 bytes after decoding" in str(error)
        assert run.requests == 1

    def test_f11_large_pages_pass(self) -> None:
        """F11: a hundred rows with a megabyte of text each are a valid page."""
        body = PAGE.replace(b"[]", b'[{"status":"' + b"x" * 100 * 2**20 + b'"}]')
        page, _ = fetch(client_of(says(body=body)))
        assert page.info.rows == 1

    @pytest.mark.parametrize("encoding", ["gzip, gzip", "deflate", "br", "zstd", "x-new", "GZIP, identity"])
    def test_f11_only_what_was_asked_for_is_unpacked(self, encoding: str) -> None:
        """F11: an unrequested or nested content encoding is not decoded; three times give 76."""
        packed = gzip.compress(gzip.compress(PAGE)) if encoding == "gzip, gzip" else PAGE
        app = Script(says(body=packed, content_encoding=encoding))
        error, _ = fail(client_of(app))
        assert type(error) is PageError
        assert "which nobody asked for" in str(error)
        assert len(app.requests) == 3

    def test_packed_errors_keep_their_meaning(self) -> None:
        """A 401 stays a 401, however its body is encoded, and even if it cannot be decoded."""
        for encoding in ("zstd", "gzip, gzip"):
            error, _ = fail(client_of(says(401, b"\x28\xb5", content_encoding=encoding)))
            assert type(error) is CredentialsError

    def test_bad_gzip(self) -> None:
        """A body that cannot be decompressed is a bad body."""
        app = Script(says(body=b"no gzip at all", content_encoding="gzip"))
        error, _ = fail(client_of(app))
        assert type(error) is PageError
        assert "cannot be decompressed" in str(error)
        assert len(app.requests) == 3

    @each_transport
    def test_endless_error(self) -> None:
        """Only the needed part of an error's body is read, even if the body is endless."""

        def answer(stream: socket.socket, _: int) -> None:
            stream.sendall(b"HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n")
            while True:
                stream.sendall(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")

        with listen(answer) as server, client_of(url=server.url, patience=Patience(attempts=1)) as client:
            error, _ = fail(client)
        assert type(error) is TryLater
        assert "answered 503" in str(error)


@each_transport
class TestRedirects:
    """No host that a server names is ever contacted."""

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    @pytest.mark.parametrize("where", ["{}/v3/export-jobs", "//{host}/v3/export-jobs", "{}/", "{}"])
    def test_f12_other_host(self, status: int, where: str) -> None:
        """F12, F49: a redirect ends with 76 and names the host, which receives nothing; no retry."""
        with (
            listen(lambda stream, _: stream.sendall(http(PAGE))) as other,
            listen(
                lambda stream, _: stream.sendall(
                    http(
                        b"",
                        status=f"{status} Moved",
                        Location=where.format(other.url, host=other.url.removeprefix("http://")),
                    )
                )
            ) as server,
            client_of(url=server.url) as client,
        ):
            error, run = fail(client)
            assert other.connections == 0
        assert type(error) is ContractError
        assert "redirect to host '127.0.0.1'" in str(error)
        assert (server.connections, run.requests) == (1, 1)

    def test_f12_same_host(self) -> None:
        """F12: a redirect to the same host is not followed, so there can be no loop."""
        sandbox = sandbox_of("*:redirect.same")
        error, _ = fail(client_of(sandbox))
        assert "redirect to the same host" in str(error)
        assert len(sandbox.requests) == 1

    def test_f49_links_in_a_page(self) -> None:
        """F49: links in bodies and headers are plain text; a link as a cursor is invalid."""
        with listen(lambda stream, _: stream.sendall(http(PAGE))) as other:
            body = PAGE.replace(
                b'"total":7', json.dumps({"next": other.url, "endCursor": other.url})[1:-1].encode()
            )
            app = Script(says(body=body, link=f'<{other.url}>; rel="next"', refresh=f"0; url={other.url}"))
            fetch(client_of(app))
            assert other.connections == 0

    @given(
        st.text(st.characters(codec="ascii"), max_size=60)
        | st.sampled_from(["https://xn--", "//[", "http://a..b/"])
    )
    def test_f12_any_location(self, location: str) -> None:
        """F12: any Location gives 76 and one printable line."""
        error, _ = fail(client_of(says(302, b"", location=location.replace("\n", "").replace("\r", ""))))
        assert type(error) is ContractError
        assert str(error).isprintable()


@each_transport
class TestServer:
    """The servers that a client may contact, and how it verifies them."""

    @pytest.mark.parametrize("name", ["production", "staging"])
    def test_by_name(self, name: str) -> None:
        """The contract's two servers have names; production is the default."""
        assert str(resolve_server(name)) == SERVERS[name]
        assert str(Client(api_key=CANARY).server) == SERVERS["production"]

    @pytest.mark.parametrize(
        "url",
        [
            "https://pleo.example",
            "https://pleo.example:8443/base",
            "https://[2001:db8::1]/",
            "https://exämple.com",
            "http://127.0.0.1:8080",
            "http://127.8.9.10",
            "http://[::1]:1",
            "http://localhost:3",
            "HTTP://LOCALHOST",
        ],
    )
    def test_f49_allowed(self, url: str) -> None:
        """F49: https is allowed everywhere, http only on this machine."""
        assert resolve_server(url).host

    @pytest.mark.parametrize(
        ("url", "words"),
        [
            ("http://external.pleo.io", "unencrypted"),
            ("http://localhost.evil.example", "unencrypted"),
            ("http://127.0.0.1.evil.example", "unencrypted"),
            ("http://0.0.0.0", "unencrypted"),
            ("http://10.0.0.1", "unencrypted"),
            ("http://2130706433", "unencrypted"),
            ("https://user:secret@external.pleo.io", "user or password"),
            ("https://secret@external.pleo.io", "user or password"),
            ("https://external.pleo.io?token=secret", "query or fragment"),
            ("https://external.pleo.io#secret", "query or fragment"),
            ("ftp://external.pleo.io", "ftp://external.pleo.io"),
            ("file:///etc/passwd", "neither"),
            ("//external.pleo.io", "neither"),
            ("external.pleo.io", "write https:// before it"),
            ("external.pleo.io:443/v3", "write https:// before it"),
            ("127.0.0.1:18080", "http:// only for this machine"),
            ("localhost:18080", "http:// only for this machine"),
            ("localhost", "http:// only for this machine"),
            ("[::1]:18080", "http:// only for this machine"),
            ("user:secret@external.pleo.io", "neither"),
            ("prod", "neither production, staging nor .*; did you mean production"),
            ("Staging", "did you mean staging"),
            ("", "is empty"),
            (" https://external.pleo.io", "a space or a line break at its beginning or end"),
            ("https://external.pleo.io\n", "a space or a line break at its beginning or end"),
            ("https://external .pleo.io", "has a space in it"),
            ('"https://external.pleo.io"', "is in quotes"),
            ("<https://external.pleo.io>", "is in quotes or brackets"),
            ("https:/external.pleo.io", "has no :// after its https"),
            ("https//external.pleo.io", "has no :// after its https"),
            ("https://https://external.pleo.io", "has https:// twice"),
            ("https://pleo.example/v3/export-jobs", "leave that out"),
            ("https://external.pleo.io/v3", "of Pleo has no path"),
            ("https://", "neither"),
            ("https:///v3", "neither"),
            ("https://[::1", "cannot be read"),
            ("https://a..b", "cannot be read"),
            ("https://" + "a" * 64 + ".example", "cannot be read"),
            ("https://xn--", "cannot be read"),
            ("https://external.pleo.io:99999", "port"),
            ("https://external.pleo.io:0", "port"),
            ("https://external.pleo.io:x", "cannot be read"),
            ("https://" + "a" * 70_000, "cannot be read"),
        ],
    )
    def test_f49_refused(self, url: str, words: str) -> None:
        """F48, F49: any other URL gives 78 before anything is sent, in one line without secrets."""
        with pytest.raises(ConfigurationError, match=words) as caught:
            Client(url, api_key=CANARY)
        assert "secret" not in str(caught.value).replace("user or password; set", "")
        assert str(caught.value).isprintable()

    def test_a_key_in_the_place_of_the_url(self) -> None:
        """F48: a key given instead of the URL is not shown."""
        with pytest.raises(ConfigurationError) as caught:
            Client(CANARY, api_key=CANARY)
        assert CANARY not in str(caught.value)

    @given(st.text(max_size=40) | st.from_regex(r"https?://[\w.:@/?#\[\]%-]{0,30}"))
    def test_any_text_is_a_server_or_refused(self, text: str) -> None:
        """Any text is a server or raises ConfigurationError."""
        try:
            url = resolve_server(text)
        except ConfigurationError:
            return
        assert url.scheme == "https" or url.host in ("localhost", "::1") or url.host.startswith("127.")
        assert "@" not in url.netloc

    @given(st.from_regex(r"https?://[a-zA-Z0-9.:-]{1,20}(/[a-z0-9._~%A-Z/-]{0,12})?", fullmatch=True))
    @example("https://pleo.example/v3/")
    @example("http://127.0.0.1:8080/base")
    @example("http://localhost:8080")
    def test_a_server_is_what_httpx_takes_it_for(self, text: str) -> None:
        """Every part of a server's URL is the one that httpx finds, whether httpx was asked or not."""
        try:
            server = resolve_server(text)
        except ConfigurationError:
            return
        url = httpx.URL(text)
        assert (str(server), server.scheme, server.host, server.port) == (
            str(url),
            url.scheme,
            url.host,
            url.port,
        )
        assert (server.netloc, server.ascii_host) == (url.netloc.decode(), url.raw_host.decode())
        assert server.path == url.raw_path.decode().rstrip("/")

    def test_a_dump_does_not_load_httpx(self) -> None:
        """Neither a client of Pleo nor one of this machine loads httpx, which takes longer than a request."""
        program = (
            "import sys, pleo_extract; pleo_extract.Client(api_key='key'); "
            "pleo_extract.Client('http://127.0.0.1:8080', api_key='key'); print('httpx' in sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert done.stdout == "False\n"

    def test_f13_untrusted_certificate(self) -> None:
        """F13: an untrusted certificate gives 78 with a hint on --ca-file, before any request."""
        with listen(lambda stream, _: stream.sendall(http(PAGE)), tls="loopback.pem") as server:
            with client_of(url=server.url) as client:
                error, run = fail(client)
            assert type(error) is ConfigurationError
            assert "--ca-file" in str(error)
            assert (server.connections, run.requests, server.received) == (1, 1, [])

    def test_f13_ca_file(self) -> None:
        """F13: the authority's file makes the server trusted; the environment's files change nothing."""
        with (
            listen(lambda stream, _: stream.sendall(http(PAGE)), tls="loopback.pem") as server,
            client_of(url=server.url, ca_file=TLS / "loopback.pem") as client,
        ):
            page, _ = fetch(client)
        assert page.info.total == 7

    def test_f49_the_environment_vouches_for_nobody(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """F49: SSL_CERT_FILE and similar variables are ignored."""
        monkeypatch.setenv("SSL_CERT_FILE", str(TLS / "loopback.pem"))
        monkeypatch.setenv("SSL_CERT_DIR", str(TLS))
        with (
            listen(lambda stream, _: stream.sendall(http(PAGE)), tls="loopback.pem") as server,
            client_of(url=server.url) as client,
        ):
            error, _ = fail(client)
        assert type(error) is ConfigurationError

    @pytest.mark.parametrize(
        ("pem", "host", "words"),
        [("loopback.pem", "localhost", "[Hh]ostname"), ("expired.pem", "127.0.0.1", "expired")],
    )
    def test_f13_wrong_name_and_expired(self, pem: str, host: str, words: str) -> None:
        """F13: a certificate for another name, or an expired one, gives 78 and the reason."""
        with listen(lambda stream, _: stream.sendall(http(PAGE)), tls=pem) as server:
            url = server.url.replace("127.0.0.1", host)
            with client_of(url=url, ca_file=TLS / pem) as client:
                error, run = fail(client)
            assert type(error) is ConfigurationError
            assert re.search(words, str(error))
            assert (run.requests, server.received) == (1, [])

    def test_ca_file_that_cannot_be_used(self, tmp_path: Path) -> None:
        """A CA file that is missing, empty, invalid or a folder gives 78 and is named."""
        (tmp_path / "junk.pem").write_text("-----BEGIN CERTIFICATE-----\nno\n-----END CERTIFICATE-----\n")
        (tmp_path / "empty.pem").touch()
        for path in (tmp_path / "missing.pem", tmp_path / "junk.pem", tmp_path / "empty.pem", tmp_path):
            with pytest.raises(ConfigurationError, match=re.escape(str(path))):
                Client("production", api_key=CANARY, ca_file=path)

    def test_plain_answer_to_tls(self) -> None:
        """A server that does not speak TLS on an https port gives 75."""
        with listen(lambda stream, _: stream.sendall(http(PAGE)), scheme="https") as server:
            with client_of(url=server.url, patience=Patience(attempts=2, connect_seconds=0.2)) as client:
                error, _ = fail(client)
            assert type(error) is TryLater
            assert b"".join(server.received).find(CANARY.encode()) == -1

    def test_f49_proxies_of_the_environment(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """F49: proxies and .netrc of the environment are ignored."""
        netrc = tmp_path / ".netrc"
        netrc.write_text("machine 127.0.0.1 login someone password else\n")
        netrc.chmod(0o600)
        monkeypatch.setenv("NETRC", str(netrc))
        monkeypatch.setenv("HOME", str(tmp_path))
        with listen(lambda stream, _: stream.sendall(http(b"{}"))) as proxy:
            for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
                monkeypatch.setenv(name, proxy.url)
                monkeypatch.setenv(name.lower(), proxy.url)
            monkeypatch.delenv("NO_PROXY", raising=False)
            monkeypatch.delenv("no_proxy", raising=False)
            with (
                listen(lambda stream, _: stream.sendall(http(PAGE))) as server,
                client_of(url=server.url) as client,
            ):
                fetch(client)
            assert proxy.connections == 0
        assert base64.b64encode(f"{CANARY}:".encode()) in server.received[0]

    def test_proxy_that_was_named(self) -> None:
        """A proxy that the user names is used."""
        with (
            listen(lambda stream, _: stream.sendall(http(PAGE))) as proxy,
            client_of(url="http://127.0.0.1:9", proxy=proxy.url) as client,
        ):
            page, _ = fetch(client)
        assert page.info.total == 7
        assert proxy.received[0].startswith(f"GET http://127.0.0.1:9{PATH}?limit=5 ".encode())

    @pytest.mark.parametrize(
        "proxy", ["no url", "ftp://proxy.example", "socks5://proxy.example", "http://p:x"]
    )
    def test_proxy_that_cannot_be_used(self, proxy: str) -> None:
        """A proxy with an invalid URL or an unsupported scheme gives 78."""
        with pytest.raises(ConfigurationError, match="proxy"):
            Client("production", api_key=CANARY, proxy=proxy)

    def test_proxy_that_refuses(self) -> None:
        """A proxy that refuses to connect gives 78 without a retry: the setting is wrong."""
        refusal = http(b"", status="407 Proxy Authentication Required")
        with (
            listen(lambda stream, _: stream.sendall(refusal)) as proxy,
            client_of(url="https://127.0.0.1:9", proxy=proxy.url) as client,
        ):
            error, run = fail(client)
        assert type(error) is ConfigurationError
        assert run.requests == 1
        assert proxy.received[0].startswith(b"CONNECT 127.0.0.1:9 ")
        assert b"Authorization" not in proxy.received[0]


class Tokens:
    """A source of tokens: t1, then t2, and so on."""

    def __init__(self) -> None:
        self.given = 0

    def __call__(self) -> str:
        """Return the next token."""
        self.given += 1
        return f"t{self.given}"


class TestCredentials:
    """Credentials, and how they are renewed."""

    @pytest.mark.parametrize(
        ("name", "scheme"),
        [("PLEO_API_KEY", "Basic"), ("PLEO_ACCESS_TOKEN", "Bearer"), ("PLEO_TOKEN_COMMAND", "Bearer")],
    )
    def test_from_the_environment(self, monkeypatch: pytest.MonkeyPatch, name: str, scheme: str) -> None:
        """Each of the three variables gives a credential, which is sent in its own way."""
        command = f"{sys.executable} -c \"print('{CANARY}')\""
        monkeypatch.setenv(name, command if "COMMAND" in name else CANARY)
        app = Script(says())
        fetch(Client(NOWHERE, transport=app))
        sent = base64.b64encode(f"{CANARY}:".encode()).decode() if scheme == "Basic" else CANARY
        assert app.requests[0].headers["authorization"] == f"{scheme} {sent}"

    def test_url_and_company_from_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """PLEO_BASE_URL and PLEO_COMPANY_ID are defaults; an argument overrides them, an empty value is ignored."""
        monkeypatch.setenv("PLEO_API_KEY", CANARY)
        monkeypatch.setenv("PLEO_BASE_URL", "staging")
        monkeypatch.setenv("PLEO_COMPANY_ID", COMPANY.upper())
        client = Client()
        assert (str(client.server), client.company_id) == (SERVERS["staging"], COMPANY)
        client = Client("production", company_id=COMPANY.replace("5", "6"))
        assert (str(client.server), client.company_id) == (SERVERS["production"], COMPANY.replace("5", "6"))
        monkeypatch.setenv("PLEO_BASE_URL", "")
        monkeypatch.setenv("PLEO_COMPANY_ID", "")
        client = Client()
        assert (str(client.server), client.company_id) == (SERVERS["production"], None)
        monkeypatch.setenv("PLEO_COMPANY_ID", "acme")
        with pytest.raises(UsageError, match="company_id"):
            Client()

    def test_what_is_given_wins_over_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A given credential overrides the environment, even one with two credentials."""
        monkeypatch.setenv("PLEO_API_KEY", "other")
        monkeypatch.setenv("PLEO_ACCESS_TOKEN", "other")
        app = Script(says())
        fetch(client_of(app, access_token=CANARY))
        assert app.requests[0].headers["authorization"] == f"Bearer {CANARY}"

    def test_none_or_two(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """No credential, or more than one, gives 77 and says what to set or unset; an empty variable does not count."""
        monkeypatch.setenv("PLEO_API_KEY", "")
        with pytest.raises(
            CredentialsError, match="set one of PLEO_API_KEY, PLEO_ACCESS_TOKEN, PLEO_TOKEN_COMMAND"
        ):
            Client()
        with pytest.raises(CredentialsError, match="give one of them"):
            Client(api_key=CANARY, access_token=CANARY)
        names = ("PLEO_API_KEY", "PLEO_ACCESS_TOKEN", "PLEO_TOKEN_COMMAND")
        for two in itertools.combinations(names, 2):
            with pytest.MonkeyPatch.context() as patch:
                for name in two:
                    patch.setenv(name, CANARY)
                with pytest.raises(CredentialsError, match=" and ".join(two)) as caught:
                    Client()
                assert CANARY not in str(caught.value)

    @pytest.mark.parametrize(
        "text", ["", " ", "a b", "a\n", "\na", "a\r\nX-Evil: 1", "ä", "a\0", "\x7f", 7, b"a", ["a"]]
    )
    def test_what_is_no_credential(self, text: Any) -> None:
        """Blanks, line breaks, non-ASCII and other types give 77 before anything is sent."""
        for name in ("api_key", "access_token"):
            with pytest.raises(
                CredentialsError, match=r"is empty, or no text|space or a line break|holds characters"
            ):
                Client(NOWHERE, **{name: text})

    @pytest.mark.parametrize("mark", ['"', "'", "`"])
    def test_a_key_in_quotes(self, mark: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """A key in quotes gives 77 before anything is sent: `docker run --env-file` keeps them."""
        for text in (f"{mark}{CANARY}{mark}", f"{CANARY}{mark}"):
            monkeypatch.setenv("PLEO_API_KEY", text)
            with pytest.raises(CredentialsError, match="PLEO_API_KEY begins or ends with a quot") as caught:
                Client(NOWHERE)
            assert CANARY not in str(caught.value)

    def test_a_key_with_a_password(self) -> None:
        """A key with a colon gives 77: Basic would split it into user and password."""
        with pytest.raises(CredentialsError, match="colon"):
            Client(NOWHERE, api_key="plp_x:")

    def test_f14_wrong_at_the_start(self) -> None:
        """F14: a refused credential that cannot be renewed gives 77 after one request."""
        for sandbox, options in (
            (sandbox_of(), {"api_key": "plp_other"}),
            (sandbox_of(), {"access_token": "other"}),
        ):
            error, _ = fail(client_of(sandbox, **options))
            assert type(error) is CredentialsError
            assert f"Check the {next(iter(options))} that was given" in str(error)
            assert len(sandbox.requests) == 1

    def test_f14_renewed_on_the_way(self) -> None:
        """F14: an expired token is renewed, and the same page is requested again."""
        sandbox = Sandbox(World(jobs=40), rules=Rules(token_uses=3))
        tokens = [TOKEN]

        def supply() -> str:
            if sandbox.requests:
                tokens.append(sandbox.renew(tokens[-1]))
            return tokens[-1]

        run = client_of(sandbox, access_token=supply).start_session()
        for offset in range(10):
            run.fetch(Query(limit=1, offset=offset), parse_page)
        assert len(tokens) == 4
        assert [asked.parameters["offset"][0] for asked in sandbox.requests if asked.status == 200] == list(
            "0123456789"
        )
        assert run.requests == 13

    def test_f14_renewed_once_for_all_threads(self) -> None:
        """F14: eight threads whose token is refused at the same time renew it once."""
        together, tokens = threading.Barrier(8), Tokens()

        def app(request: RequestLike) -> Response:
            if request.headers["authorization"] == "Bearer t1":
                together.wait(GRACE)
                return says(401)(request)
            return says()(request)

        client = client_of(app, access_token=tokens)
        results = in_threads(8, lambda: fetch(client))
        assert [result for result in results if isinstance(result, Exception)] == []
        assert tokens.given == 2

    def test_f14_asked_for_once_by_all_threads(self) -> None:
        """F14: the first token is requested once, however many threads need it."""
        tokens = Tokens()
        client = client_of(says(), access_token=tokens)
        in_threads(8, lambda: fetch(client))
        assert tokens.given == 1

    def test_f14_second_refusal(self) -> None:
        """F14: a renewed token that is also refused gives 77: a request renews once."""
        app, tokens = Script(says(401)), Tokens()
        error, _ = fail(client_of(app, access_token=tokens))
        assert type(error) is CredentialsError
        assert (tokens.given, len(app.requests)) == (2, 2)

    def test_f14_renewed_while_another_waited(self) -> None:
        """F14: a refusal counts for the token that the request was sent with, not for a newer one."""
        clock, tokens, dead = Clock(), Tokens(), {"Bearer t1"}

        def app(request: RequestLike) -> Response:
            return says(401 if request.headers["authorization"] in dead else 200)(request)

        client = client_of(app, access_token=tokens, clock=clock, rate=1)

        def another(_: float) -> None:
            clock.on_wait = lambda _: None
            fetch(client)  # t1 is refused and renewed to t2 …
            dead.add("Bearer t2")  # … which is invalid when the first request continues

        client._channel.window.reserve(clock.now)  # the only request of this minute: the next one waits
        clock.on_wait = another
        fetch(client)
        assert tokens.given == 3

    def test_token_command(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """PLEO_TOKEN_COMMAND is split like a shell command, runs without a shell, and runs again after a 401."""
        script, count, evil = tmp_path / "give token.py", tmp_path / "count", tmp_path / "evil"
        script.write_text(
            "import pathlib, sys\n"
            "count = pathlib.Path(sys.argv[1])\n"
            "count.write_text((count.read_text() if count.exists() else '') + 'x')\n"
            "print('t', len(count.read_text()), sep='')\n"
        )
        monkeypatch.setenv(
            "PLEO_TOKEN_COMMAND", f"{sys.executable} '{script}' {count} '; touch {evil}' $(touch {evil})"
        )
        app = Script(says(), says(401), says())
        run = Client(NOWHERE, transport=app, clock=Clock()).start_session()
        run.fetch(Query(), parse_page)
        run.fetch(Query(), parse_page)
        sent = [request.headers["authorization"] for request in app.requests]
        assert sent == ["Bearer t1", "Bearer t1", "Bearer t2"]
        assert not evil.exists()

    def test_token_command_that_leaves_a_process_behind(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """The token counts when the command has ended, although a process of its own still holds its output open."""
        monkeypatch.setenv(
            "PLEO_TOKEN_COMMAND", f"sh -c 'sleep 300 & echo $! > {tmp_path / 'pid'}; echo tok'"
        )
        app = Script(says())
        try:
            Client(NOWHERE, transport=app, clock=Clock()).start_session().fetch(Query(), parse_page)
        finally:
            os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
        assert [request.headers["authorization"] for request in app.requests] == ["Bearer tok"]

    def test_a_deadline_holds_for_a_token_command(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A command that hangs ends with the run's deadline."""
        monkeypatch.setattr("pleo_extract.client.credential.COMMAND_SECONDS", 30)
        monkeypatch.setenv("PLEO_TOKEN_COMMAND", "sleep 300")
        run = Client(NOWHERE, transport=Script(), clock=Clock()).start_session(deadline=0.5)
        with pytest.raises(
            CredentialsError, match=r"PLEO_TOKEN_COMMAND could not be run: it took longer"
        ) as caught:
            run.fetch(Query(), parse_page)
        assert "30 s" not in str(caught.value)

    def test_f36_a_stop_ends_a_token_command(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """F36: a run that is stopped does not wait for a command that hangs."""
        pid = tmp_path / "pid"
        monkeypatch.setenv("PLEO_TOKEN_COMMAND", f"sh -c 'echo $$ > {pid}; exec sleep 300'")
        run = Client(NOWHERE, transport=Script(), clock=Clock()).start_session()

        def stop() -> None:
            while not (pid.exists() and pid.read_text()):
                time.sleep(0.01)
            run.stop.set()

        threading.Thread(target=stop, daemon=True).start()
        with pytest.raises(Stopped):
            run.fetch(Query(), parse_page)
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid.read_text()), 0)

    @pytest.mark.parametrize(
        ("command", "words"),
        [
            ("{python} -c 'print(\"{canary}\"); raise SystemExit(3)'", "ended with 3, and said nothing"),
            (
                '{python} -c \'import sys; print("{canary}"); sys.exit("vault: no\\n{canary} is sealed, see log")\'',
                "ended with 1: *** is sealed, see log",
            ),
            (
                "{python} -c 'import sys; sys.exit(\"no: token={canary}, key: {canary}\")'",
                "ended with 1: no: token=*** key: ***",
            ),
            ("{python} -c 'import sys; sys.stdout.buffer.write(b\"{canary}\\xff\")'", "could not be run"),
            ("{python} -c 'print(\"{canary} {canary}\")'", "has a space or a line break in it"),
            ("{python} -c pass", "PLEO_TOKEN_COMMAND: the token is empty"),
            ("{python} -c 'while True: print(\"{canary}\" * 1000)'", "could not be run"),
            ("/nonexistent/command {canary}", "there is no such program"),
            ("'unbalanced {canary}", "could not be run"),
            (" ", "could not be run"),
        ],
    )
    def test_token_command_that_fails(
        self, monkeypatch: pytest.MonkeyPatch, command: str, words: str
    ) -> None:
        """A token command that fails or prints no token gives 77 and shows neither itself nor its output."""
        monkeypatch.setenv(
            "PLEO_TOKEN_COMMAND", command.replace("{python}", sys.executable).replace("{canary}", CANARY)
        )
        error, _ = fail(Client(NOWHERE, transport=Script(says()), clock=Clock()))
        assert type(error) is CredentialsError
        assert words in str(error)
        assert leaks(error) == []


def found(text: str) -> list[str]:
    """Return the forms of the canary in a text, those with NULs between the characters included."""
    packed = re.sub(r"\0|\\x00|\\u0000", "", text)
    return [spelling for spelling in SPELLINGS if spelling in text or spelling in packed]


def leaks(error: BaseException) -> list[str]:
    """Return the canary's traces in an error: message, arguments, causes, and the locals of every frame."""
    shown = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    seen, stack = (
        [shown, repr(error), str(error.args), str(vars(error))],
        [error.__cause__, error.__context__],
    )
    while stack:
        if (one := stack.pop()) is not None:
            seen += [repr(one), str(one.args), str(vars(one))]
            seen += traceback.TracebackException.from_exception(one, capture_locals=True).format()
            stack += [one.__cause__, one.__context__]
    return found("\n".join(seen))


def careless(library: Any, kind: Callable[[str], Exception], *, late: bool) -> httpx.BaseTransport:
    """Return a transport that fails, before or after the head, with the request's headers in the locals of its frames."""

    class Late(library.SyncByteStream):  # type: ignore[misc]
        def __init__(self, headers: object) -> None:
            self.headers = headers

        def __iter__(self) -> Iterator[bytes]:
            headers = self.headers
            yield b"{"
            raise kind(f"on purpose, {type(headers)}")

    class Careless(library.BaseTransport):  # type: ignore[misc]
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            headers = list(request.headers.raw)
            if late:
                return library.Response(200, stream=Late(headers))  # type: ignore[no-any-return]
            raise kind("on purpose") from ValueError("a cause")

    return Careless()


def errors_of(library: Any) -> list[type[Exception]]:
    """Return every exception class of httpx or httpx2."""
    return sorted(
        (
            value
            for value in vars(library).values()
            if isinstance(value, type) and issubclass(value, Exception)
        ),
        key=lambda kind: kind.__name__,
    )


def make_error(library: Any, kind: type[Exception]) -> Callable[[str], Exception]:
    """Return a function that makes an error of this class from a message."""
    if issubclass(kind, library.HTTPStatusError):
        request = library.Request("GET", NOWHERE)
        return lambda text: kind(text, request=request, response=library.Response(500))  # type: ignore[call-arg]
    if issubclass(kind, library.StreamError) and kind is not library.StreamError:
        return lambda _: kind()
    return kind


LIBRARIES = [httpx, httpx2]
KINDS = [(library, kind) for library in LIBRARIES for kind in errors_of(library)]


class TestTranslation:
    """Errors of httpx and httpx2 never leave the client."""

    @pytest.mark.parametrize("late", [False, True], ids=["before the head", "in the body"])
    @pytest.mark.parametrize(
        ("library", "kind"), KINDS, ids=[f"{lib.__name__}.{kind.__name__}" for lib, kind in KINDS]
    )
    def test_none_is_forgotten(self, library: Any, kind: type[Exception], late: bool) -> None:  # noqa: FBT001 - a case
        """Every error becomes one of ours, wherever it is raised, without frames of other libraries."""
        transport = careless(library, make_error(library, kind), late=late)
        client = client_of(transport, patience=Patience(attempts=4))
        error, run = fail(client)
        if issubclass(kind, library.DecodingError):
            assert type(error) is PageError
        elif issubclass(kind, library.UnsupportedProtocol | library.ProxyError):
            assert type(error) is ConfigurationError
            assert run.requests == 1
        else:
            assert type(error) is TryLater
            assert run.requests == 4
        assert leaks(error) == []
        if issubclass(kind, library.TimeoutException):
            assert run.faults["timeout"] == 4

    @pytest.mark.parametrize("library", LIBRARIES)
    def test_roots(self, library: Any) -> None:
        """The client catches the root classes of all errors; a new root fails this test."""
        roots = tuple(getattr(library, root) for root in ROOTS)
        assert {kind for kind in errors_of(library) if not issubclass(kind, roots)} == set()

    @pytest.mark.parametrize("library", LIBRARIES)
    def test_a_class_of_the_user_counts_as_the_one_above(self, library: Any) -> None:
        """An error of a class that a user has derived counts as the library's own."""
        own = type("OwnError", (library.ReadTimeout,), {})
        _, run = fail(client_of(careless(library, own, late=False), patience=Patience(attempts=2)))
        assert run.faults == {"timeout": 2}

    @pytest.mark.parametrize("library", LIBRARIES)
    def test_a_transport_of_the_user(self, library: Any) -> None:
        """A transport that the user passes carries the requests, and is not closed with the client."""
        sandbox = sandbox_of(gzip=True)
        with serve(sandbox) as served, library.HTTPTransport() as transport:
            for _ in range(2):
                with client_of(transport, url=served.url) as client:
                    page, _ = fetch(client, Query(limit=5, sorting_keys=["createdAt"], sorting_order=["ASC"]))
                    assert page.info.rows == 5
        assert len(sandbox.requests) == 2

    @pytest.mark.parametrize("transport", [7, "http://127.0.0.1:1", object()], ids=type)
    def test_what_is_no_transport(self, transport: Any) -> None:
        """Anything else is refused when the client is created."""
        with pytest.raises(UsageError, match="transport is a"):
            client_of(transport)

    def test_what_read_raises_is_not_ours(self) -> None:
        """An error raised by the reader of the body passes unchanged."""

        def read(_: bytes) -> None:
            raise KeyError("theirs")

        with pytest.raises(KeyError, match="theirs"):
            client_of(says()).start_session().fetch(Query(), read)


def echo(status: int, form: Callable[[str], str]) -> App:
    """Return a server that sends the request back, in its body and its headers."""

    def app(request: RequestLike) -> Response:
        sent = form(request.headers["authorization"])
        body = f'{{"message": "who is {sent}?", "seen": "{quote(CANARY, safe="")} {CANARY}"}}'.encode()
        return Response(status, {"content-type": "text/html", "location": "/"}, body)

    return app


class TestSecrets:
    """F48: the canary appears nowhere."""

    @pytest.mark.parametrize("show", [repr, str, format, ascii, "{!s:>40}".format, "%s".__mod__])
    def test_f48_a_secret_does_not_show_itself(self, show: Callable[[object], str]) -> None:
        """F48: a secret that is printed, formatted or logged shows three stars."""
        assert found(show(Secret(CANARY))) == []
        assert "***" in show(Secret(CANARY))

    @pytest.mark.parametrize("carry", [pickle.dumps, copy.copy, copy.deepcopy])
    def test_f48_a_secret_is_not_carried_off(self, carry: Callable[[object], object]) -> None:
        """F48: a secret cannot be pickled or copied, alone or inside another object."""
        with pytest.raises(TypeError) as caught:
            carry(Secret(CANARY))
        assert found(str(caught.value)) == []
        client = Client(NOWHERE, api_key=CANARY)
        for holder in (client, client._channel.credential):
            with pytest.raises(TypeError):
                pickle.dumps(holder)

    def test_f48_reveal(self) -> None:
        """F48: only `reveal` returns the secret."""
        assert Secret(CANARY).reveal() == CANARY

    @pytest.mark.parametrize("options", [{"api_key": CANARY}, {"access_token": CANARY}], ids=["key", "token"])
    def test_f48_a_client_does_not_show_it(self, options: dict[str, str]) -> None:
        """F48: neither the client nor its parts show the credential, before or after use."""
        client = Client(NOWHERE, transport=says(), clock=Clock(), **options)  # type: ignore[arg-type]
        _, run = fetch(client)
        line = client._channel
        for part in (client, run, line, line.credential, vars(client), vars(run), vars(line.credential)):
            assert found(repr(part)) == []

    def test_f48_arguments_that_cannot_be_used(self) -> None:
        """F48: if a client cannot be created, no frame of ours holds its arguments."""
        bad: list[dict[str, Any]] = [
            {"base_url": "http://pleo.example"},
            {"rate": 0},
            {"in_flight": 0},
            {"company_id": "acme"},
            {"ca_file": "/nonexistent/ca.pem"},
        ]
        for options in bad:
            try:
                Client(**{"api_key": CANARY, **options})
            except PleoExtractError as exc:
                error: PleoExtractError = exc
            error.__traceback__ = (
                error.__traceback__ and error.__traceback__.tb_next
            )  # the frame of the test holds the canary
            assert leaks(error) == [], options

    @pytest.mark.parametrize(
        "options",
        [
            {"api_key": CANARY + "\n"},
            {"access_token": CANARY + " "},
            {"api_key": CANARY, "access_token": CANARY},
            {"api_key": CANARY + ":"},
        ],
        ids=str,
    )
    def test_f48_credentials_that_cannot_be_used(self, options: dict[str, str]) -> None:
        """F48: refusing a credential with a trailing blank does not show it."""
        try:
            Client(NOWHERE, **options)  # type: ignore[arg-type]
        except CredentialsError as exc:
            error = exc
        error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
        assert leaks(error) == []

    @pytest.mark.parametrize(
        "fault",
        [
            "401",
            "403",
            "400",
            "422",
            "500",
            "429",
            "204",
            "redirect",
            "html",
            "badjson",
            "reset",
            "reset_mid",
            "cut",
            "silence",
            "bomb.1",
        ],
    )
    @pytest.mark.parametrize("wire", ["in process", "httpx", "curl"])
    def test_f48_failures(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fault: str, wire: str
    ) -> None:
        """F48: after any failure the canary is in no message, cause, frame or log record."""
        caplog.set_level(logging.DEBUG)
        monkeypatch.setattr(wire_module, "LARGEST_PAGE", 100_000)
        is_networked = wire != "in process"
        monkeypatch.setenv("PLEO_TRANSPORT", wire if is_networked else "")
        sandbox, patience = sandbox_of(f"*:{fault}"), Patience(attempts=3, read_seconds=0.5)
        with ExitStack() as stack:
            url = stack.enter_context(serve(sandbox)).url if is_networked else NOWHERE
            app = None if is_networked else sandbox
            error, _ = fail(stack.enter_context(client_of(app, url=url, patience=patience)))
        assert leaks(error) == []
        assert found(caplog.text) == []
        assert sandbox.requests

    @pytest.mark.parametrize(
        "form",
        [str, lambda sent: sent.split()[1], lambda sent: quote(sent, safe="")],
        ids=["header", "value", "quoted"],
    )
    @pytest.mark.parametrize("status", [200, 302, 400, 401, 403, 404, 418, 500])
    @pytest.mark.parametrize("name", ["api_key", "access_token"])
    def test_f48_servers_that_repeat_it(self, status: int, form: Callable[[str], str], name: str) -> None:
        """F48: a server that sends the credential back, plain, in base64 or URL-encoded, does not make us show it."""
        client = client_of(echo(status, form), patience=Patience(attempts=3), **{name: CANARY})
        error, _ = fail(client)
        assert leaks(error) == []
        if status not in (200, 302):
            assert "***" in str(error)

    @pytest.mark.parametrize(
        "encode",
        [
            lambda sent: sent.encode("utf-16"),
            lambda sent: sent.encode("utf-16-le"),
            lambda sent: sent.encode("utf-16-be"),
            lambda sent: sent.encode("utf-32"),
            lambda sent: sent.replace("/", r"\/").encode("utf-16-le"),
            lambda sent: quote(sent, safe="").encode("utf-16-be"),
            lambda sent: "\0".join(sent).encode(),
            lambda sent: r"\u0000".join(sent).encode(),
            lambda sent: r"\u0000".join(sent).encode("utf-16-le"),
            lambda sent: repr("\0".join(sent).encode()).encode(),
        ],
        ids=[
            "utf-16",
            "le",
            "be",
            "utf-32",
            "le, JSON",
            "be, URL",
            "NULs",
            "escaped NULs",
            "le, escaped NULs",
            "as Python writes them",
        ],
    )
    @pytest.mark.parametrize("status", [200, 400, 401, 404, 418, 500])
    @pytest.mark.parametrize("name", ["api_key", "access_token"])
    def test_f48_encodings_with_nuls(self, status: int, encode: Callable[[str], bytes], name: str) -> None:
        """F48: a server that repeats the credential in UTF-16 or UTF-32, or with NULs between, makes us show no part of it."""
        sent = CANARY if name == "access_token" else base64.b64encode(f"{CANARY}:".encode()).decode()
        app = Script(says(status, encode(f'{{"message": "no key {CANARY}, {sent}"}}')))
        error, _ = fail(client_of(app, patience=Patience(attempts=3), **{name: CANARY}))
        assert leaks(error) == []
        if status in (400, 418):
            assert "***" in str(error)

    def test_f48_pages_with_nuls_keep_them(self) -> None:
        """NULs in the data of a page that does not repeat the credential stay what they are."""
        mask = Mask(CANARY)
        for data in (rb'{"failureReason": "a\u0000b \/"}', b"\0a\0b", CANARY[:4].encode("utf-16-le")):
            assert mask.clean(data) is data

    def test_f48_long_tokens_are_masked_before_they_are_clipped(self) -> None:
        """F48: a long token is masked before the message is clipped."""
        token = "eyJ" + "abcdefghij" * 200
        for status in (200, 401, 500):
            app = Script(says(status, b'{"message": "bad token ' + token.encode() + b'"}'))
            error, _ = fail(client_of(app, access_token=token, patience=Patience(attempts=3)))
            assert "abcdefghij" not in str(error)

    @pytest.mark.parametrize(
        "source", ["api_key_env", "api_key_file", "access_token_env", "access_token_file"]
    )
    @each_transport
    def test_f48_accounts(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str) -> None:
        """F48, F55: an account's credential is read when the account opens, is sent, and stays in no frame."""
        (tmp_path / "secret").write_text(f"{CANARY}\n")
        (tmp_path / "secret").chmod(0o600)
        monkeypatch.setenv("SECRET", CANARY)
        with listen(lambda stream, _: stream.sendall(http(PAGE))) as server:
            (tmp_path / "accounts.toml").write_text(
                f'base_url = "{server.url}"\n[[account]]\ncompany_id = "{COMPANY}"\n'
                f'{source} = "{"secret" if source.endswith("file") else "SECRET"}"\n'
            )
            (account,) = read_accounts(tmp_path / "accounts.toml")
            with account.open() as client:
                fetch(client)
            with pytest.raises(ContractError) as caught, account.open():
                raise ContractError("on purpose")
        assert found(server.received[0].decode()) != []
        assert leaks(caught.value) == []
        assert found(repr(account)) == []
        monkeypatch.setenv("SECRET", f"{CANARY} x")
        (tmp_path / "secret").write_text(f"{CANARY} x")
        with (
            pytest.raises(CredentialsError, match=r"(SECRET|secret): the credential has a space") as refused,
            account.open(),
        ):
            pass
        assert leaks(refused.value) == []
        monkeypatch.setenv("SECRET", "")
        (tmp_path / "secret").chmod(0o644)
        with (
            pytest.raises(CredentialsError if source.endswith("env") else ConfigurationError),
            account.open(),
        ):
            pass

    @each_transport
    def test_f48_never_in_the_url(self) -> None:
        """F48: the credential is in one header and nowhere else in a request."""
        with (
            listen(lambda stream, _: stream.sendall(http(PAGE))) as server,
            client_of(url=server.url) as client,
        ):
            fetch(client)
        lines = server.received[0].decode().split("\r\n")
        assert [line.split(":")[0] for line in lines if found(line)] == ["Authorization"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"in_flight": 0}, "in_flight"),
        ({"in_flight": True}, "in_flight"),
        ({"in_flight": 1.5}, "in_flight"),
        ({"rate": 0}, "rate"),
    ],
)
def test_settings_are_checked(options: dict[str, Any], words: str) -> None:
    """Invalid settings are refused when the client is created."""
    with pytest.raises(UsageError, match=words):
        Client(NOWHERE, api_key=API_KEY, **options)


@each_transport
def test_a_client_is_a_context() -> None:
    """Leaving the block closes the connections."""
    after: list[bytes] = []

    def answer(stream: socket.socket, _: int) -> None:
        stream.sendall(http(PAGE).replace(b"Connection: close\r\n", b""))
        after.append(stream.recv(1))

    with listen(answer) as server, client_of(url=server.url) as client:
        fetch(client)
        assert after == []
    assert after == [b""]


def test_what_a_client_shows() -> None:
    """The repr of a client shows server and company, nothing else."""
    shown = repr(Client(NOWHERE, api_key=CANARY, company_id=COMPANY))
    assert shown == f"Client('{NOWHERE}', company_id='{COMPANY}')"
