"""The one door to the API: real sockets where the promise is about them, a simulated clock wherever there is waiting."""

from __future__ import annotations

import base64
import copy
import gzip
import itertools
import json
import logging
import pickle
import re
import socket
import ssl
import sys
import threading
import traceback
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx
import pytest
from canary import CANARY, SPELLINGS
from hypothesis import given, settings
from hypothesis import strategies as st

from pleo_extract import Client
from pleo_extract.client import Secret, read_accounts, resolve_server
from pleo_extract.client import wire as wire_module
from pleo_extract.client.answer import FOREIGN
from pleo_extract.client.session import RealClock
from pleo_extract.contract import PATH, SERVERS, Query
from pleo_extract.core.decode import Page, parse_page
from pleo_extract.core.pace import Patience
from pleo_extract.errors import (
    ConfigurationError,
    ContractError,
    CredentialsError,
    DeadlineExceeded,
    PageError,
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
"""Seconds after which a test that hangs fails; none takes a hundredth of that."""


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the machine reaches a test."""
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
    """Time that passes only by waiting, at once."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.on_wait: Callable[[float], None] = lambda _: None
        self._lock = threading.Lock()

    def monotonic(self) -> float:
        """Seconds."""
        return self.now

    def wait(self, seconds: float, stop: threading.Event) -> None:
        """Let the time pass."""
        with self._lock:
            self.now += seconds
        self.on_wait(seconds)


class HeldClock:
    """Time that stands still until it is moved: waiters wait for it, really."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waiting = 0
        self._changed = threading.Condition()

    def monotonic(self) -> float:
        """Seconds."""
        return self.now

    def wait(self, seconds: float, stop: threading.Event) -> None:
        """Wait until the clock has been moved so far."""
        with self._changed:
            due = self.now + seconds
            self.waiting += 1
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: self.now >= due, GRACE), "nobody moved the clock"
            self.waiting -= 1

    def await_waiters(self, count: int) -> None:
        """Return once so many are waiting."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.waiting == count, GRACE), f"{self.waiting} wait"

    def move(self, seconds: float) -> None:
        """Let time pass."""
        with self._changed:
            self.now += seconds
            self._changed.notify_all()


@dataclass
class Listener:
    """A raw server: what it has received, by connection."""

    url: str
    received: list[bytes] = field(default_factory=list, repr=False)
    connections: int = 0


@contextmanager
def listen(
    answer: Callable[[socket.socket, int], None], *, tls: str | None = None, scheme: str | None = None
) -> Iterator[Listener]:
    """A server that reads the head of one request a connection, then lets `answer` do what it likes to the socket."""
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
    """An HTTP answer as bytes: framed by its length, in chunks, or by the connection's end."""
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
    """A server in process that always gives the same answer."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _: Response(status, {"content-type": "application/json", **named}, body)


class Script:
    """A server in process that gives one answer after the other, the last one for ever, and keeps the requests."""

    def __init__(self, *answers: App) -> None:
        self.answers = answers
        self.requests: list[RequestLike] = []

    def __call__(self, request: RequestLike) -> Response:
        """The next answer."""
        self.requests.append(request)
        return self.answers[min(len(self.requests), len(self.answers)) - 1](request)


def client_of(app: App | None = None, url: str = NOWHERE, **options: Any) -> Client:
    """A client with the canary as its key, and a clock that no test waits for."""
    if "access_token" not in options:
        options.setdefault("api_key", CANARY)
    return Client(url, transport=app, **{"clock": Clock(), "rate": 10_000, **options})


def sandbox_of(faults: str = "", *, jobs: int = 40, **rules: Any) -> Sandbox:
    """A sandbox that takes the canary."""
    return Sandbox(World(jobs=jobs), rules=Rules(**rules), faults=faults, api_keys={CANARY: None})


def fetch(
    client: Client, query: Query | None = None, *, deadline: float | None = None
) -> tuple[Page, Session]:
    """One page, and the run that fetched it."""
    run = client.start_session(deadline=deadline)
    return run.fetch(query or Query(limit=5), parse_page), run


def fail(client: Client, *, deadline: float | None = None) -> tuple[PleoExtractError, Session]:
    """The error that a fetch ends in, and its run."""
    run = client.start_session(deadline=deadline)
    with pytest.raises(PleoExtractError) as caught:
        run.fetch(Query(limit=5), parse_page)
    return caught.value, run


def in_threads(count: int, work: Callable[[], Any]) -> list[Any]:
    """What so many threads bring or raise."""
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


class TestRequest:
    """What is sent."""

    def test_what_a_request_says(self) -> None:
        """A GET of the path with the query's pairs and the key as Basic user name; gzip and JSON are asked for."""
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
        """An access token is sent as Bearer."""
        app = Script(says())
        fetch(client_of(app, access_token=CANARY))
        assert app.requests[0].headers["authorization"] == f"Bearer {CANARY}"

    @pytest.mark.parametrize("base", [f"{NOWHERE}/", f"{NOWHERE}/api", f"{NOWHERE}/api/"])
    def test_base_url_may_have_a_path(self, base: str) -> None:
        """What stands before the path stays before it, with one slash between."""
        app = Script(says())
        fetch(client_of(app, url=base))
        assert app.requests[0].path == httpx.URL(base).path.rstrip("/") + PATH

    def test_every_page_of_a_real_server(self) -> None:
        """Over a real socket, compressed or not, the page is the one that the same server gives in process."""
        sandbox = sandbox_of(gzip=True)
        direct, _ = fetch(client_of(sandbox))
        with serve(sandbox) as served, client_of(url=served.url) as client:
            page, run = fetch(client)
        assert page.columns == direct.columns
        assert (run.requests, run.retries, run.waited, dict(run.faults)) == (1, 0, 0, {})

    def test_a_query_too_long_for_a_url(self) -> None:
        """A query that no URL can hold is refused before anything is sent."""
        app = Script(says())
        with pytest.raises(UsageError, match="longer than a URL"):
            fetch(client_of(app), Query(sorting_keys=["k" * 70_000], sorting_order=["ASC"]))
        assert app.requests == []


TRANSIENT = [408, 425, 429, 500, 501, 502, 503, 504, 507, 520, 599]
MEANS: list[tuple[int, type[PleoExtractError], str]] = [
    *[(status, RequestRefused, f"answered {status}") for status in (400, 422)],
    (401, CredentialsError, "answered 401"),
    (403, CredentialsError, f"no access to export jobs of {COMPANY}"),
    (404, CredentialsError, f"no access to export jobs of {COMPANY}"),
    *[
        (status, ContractError, f"answered {status}")
        for status in (402, 405, 406, 409, 410, 413, 414, 431, 451)
    ],
    *[(status, ContractError, "a redirect") for status in (300, 301, 302, 303, 304, 307, 308)],
]


class TestStatus:
    """What a status code means."""

    @pytest.mark.parametrize("status", TRANSIENT)
    def test_f4_what_may_pass_is_tried_again(self, status: int) -> None:
        """F4: a status that may pass is asked again; the page that comes then is the result."""
        app = Script(says(status), says(status), says())
        _, run = fetch(client_of(app))
        assert len(app.requests) == run.requests == 3
        assert run.retries == run.faults[str(status)] == 2

    @pytest.mark.parametrize("status", TRANSIENT)
    def test_f4_for_ever(self, status: int) -> None:
        """F4: for ever, it ends after the tries that patience allows, in 75, and the message says which answer."""
        app = Script(says(status, b'{"type":"busy","message":"come back"}'))
        error, run = fail(client_of(app, patience=Patience(attempts=4)))
        assert type(error) is TryLater
        assert f"answered {status}" in str(error)
        assert "come back" in str(error)
        assert "after 4 tries" in str(error)
        assert len(app.requests) == run.requests == 4

    def test_long_trouble_is_said_at_growing_intervals(self, caplog: pytest.LogCaptureFixture) -> None:
        """An outage is a line once it lasts five seconds, then after 10, 20, 40 … seconds: never a flood, never silence."""
        clock = Clock()
        client = client_of(Script(says(503)), clock=clock, patience=Patience(attempts=200))
        told: list[float] = []

        def note(_: logging.LogRecord) -> bool:
            told.append(clock.now)
            return True

        caplog.handler.addFilter(note)
        with caplog.at_level("WARNING", "pleo_extract"):
            fail(client, deadline=3_600)
        caplog.handler.removeFilter(note)
        assert clock.now > 2_000
        assert 5 <= len(caplog.records) <= 10
        assert all("answered 503" in record.getMessage() for record in caplog.records)
        assert re.search(r"\(\d+ times so far\); asking again in \d+ s$", caplog.records[-1].getMessage())
        for number, (one, other) in enumerate(itertools.pairwise(told)):
            assert other - one >= 10 * 2**number

    def test_a_long_wait_is_said_at_once_and_a_short_one_is_not(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A server that asks for half a minute is a line before the wait; a fault that passes by itself is none."""
        with caplog.at_level("WARNING", "pleo_extract"):
            fetch(client_of(Script(says(503), says(503), says())))
            assert caplog.records == []
            fetch(client_of(Script(says(503, retry_after="30"), says())))
        (record,) = caplog.records
        assert re.search(r"answered 503 .*; asking again in 3\d s$", record.getMessage())

    @pytest.mark.parametrize(("status", "kind", "words"), MEANS)
    def test_what_will_not_pass(self, status: int, kind: type[PleoExtractError], words: str) -> None:
        """What will not pass is said at once, as the error it is, without a second request."""
        app = Script(says(status, b'{"type":"no","message":"on purpose"}'))
        run = client_of(app).start_session()
        with pytest.raises(PleoExtractError) as caught:
            run.fetch(Query(company_id=COMPANY, limit=5), parse_page)
        assert type(caught.value) is kind
        assert words in str(caught.value)
        assert len(app.requests) == 1

    def test_refused_request_says_what_was_asked(self) -> None:
        """A 400 carries the parameters and what the server said of them."""
        query = Query(limit=5, sorting_keys=["colour"], sorting_order=["ASC"])
        with pytest.raises(RequestRefused, match="sorting_keys must be of") as caught:
            fetch(client_of(sandbox_of()), query)
        assert list(caught.value.params) == query.params()

    @pytest.mark.parametrize("status", [201, 202, 203, 204, 205, 206, 226])
    def test_f9_success_without_a_page(self, status: int) -> None:
        """F9: any other success is no page: three tries, then 76."""
        app = Script(says(status, b""))
        error, _ = fail(client_of(app))
        assert type(error) is PageError
        assert f"answered {status} without a page" in str(error)
        assert len(app.requests) == 3

    def test_every_status_ends(self) -> None:
        """Whatever the number, there is a page or an error of ours."""
        for status in [*range(100, 600), 600, 700, 999]:
            client = client_of(says(status), patience=Patience(attempts=2))
            if status == 200:
                fetch(client)
            else:
                fail(client)

    def test_what_the_server_said_is_shown_on_one_line(self) -> None:
        """F54: an error's body is shown escaped and clipped."""
        error, _ = fail(client_of(says(422, b"\x1b[2J\r\nlevel=error forged\xff" + b"x" * 10_000)))
        assert str(error).isprintable()
        assert len(str(error)) < 400


class TestWaiting:
    """429, Retry-After, backoff, budget, deadline: on a simulated clock."""

    def test_f1_429_pauses_all_threads(self) -> None:
        """F1: after a 429 with Retry-After no thread sends anything until its end, whichever thread was told."""
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
        """F1: it waits as long as was asked, a little jitter more, 120 s at most at once; then it asks again."""
        clock = Clock()
        _, run = fetch(client_of(Script(says(429, retry_after=seconds), says()), clock=clock))
        assert least <= clock.now - 1000 <= most
        assert least <= run.waited <= most
        assert run.faults == {"429": 1}

    def test_f1_deadline_shorter_than_the_wait(self) -> None:
        """F1: where the wait would outlast the deadline it ends at once, in 75, and says when to come back."""
        clock, app = Clock(), Script(says(429, retry_after="30"))
        error, run = fail(client_of(app, clock=clock), deadline=10)
        assert type(error) is DeadlineExceeded
        assert error.code == 75
        assert re.search(r"Come back in 3[01] s", str(error))
        assert clock.now == 1000
        assert run.requests == 1

    def test_f1_a_pause_ends_other_runs_that_cannot_outlast_it(self) -> None:
        """A run whose deadline falls into a pause that another run was asked for ends at once, and says when to return."""
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
        """F2: a date counts from the answer's own Date; the server's clock is nowhere near ours."""
        clock = Clock()
        fetch(client_of(sandbox_of("1:429date.40"), clock=clock))
        assert 40 <= clock.now - 1000 <= 41

    @pytest.mark.parametrize(
        "fault", ["429none", "429empty", "429junk", "429negative", "429nan", "429past", "429", "503", "reset"]
    )
    def test_f3_without_a_usable_wait(self, fault: str) -> None:
        """F3: without a usable Retry-After it backs off by itself: between nothing and the first second."""
        clock = Clock()
        _, run = fetch(client_of(sandbox_of(f"1:{fault}"), clock=clock))
        assert 0 <= clock.now - 1000 <= 1
        assert run.retries == 1

    def test_f3_huge(self) -> None:
        """F3: a wait beyond any deadline is not waited for."""
        error, run = fail(client_of(sandbox_of("1:429huge")), deadline=3600)
        assert "Come back in 100000000" in str(error)
        assert run.requests == 1

    def test_f4_backoff_stays_within_its_bounds(self) -> None:
        """Each wait of a long burst lies between nothing and the doubled one before, a minute at most."""
        clock, waits = Clock(), list[float]()
        clock.on_wait = waits.append
        fail(client_of(says(503), clock=clock))
        assert len(waits) == 7
        for attempt, wait in enumerate(waits):
            assert 0 <= wait <= min(60, 2**attempt)

    def test_f4_one_budget_for_a_run(self) -> None:
        """F4: a run's retries come from one budget: 100 without any success, then each failure is the last."""
        run = client_of(Script(says(503))).start_session()
        for _ in range(40):
            with pytest.raises(TryLater):
                run.fetch(Query(), parse_page)
        assert run.requests == 100 + 40
        with pytest.raises(TryLater, match="this run's retries are used up"):
            run.fetch(Query(), parse_page)

    def test_f4_successes_earn_retries(self) -> None:
        """One token a success: five pages pay one retry more."""
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
        """F4: for ever, with a deadline: it ends within it, without waiting for a moment that lies beyond."""
        for deadline in (0.5, 3, 20, 45):
            clock = Clock()
            error, _ = fail(client_of(says(503), clock=clock), deadline=deadline)
            assert error.code == 75
            assert clock.now - 1000 <= deadline

    def test_pace_through_the_client(self) -> None:
        """1,200 requests at 500 a minute: a server that counts them never has to refuse one."""
        clock, sandbox = Clock(), sandbox_of(rate=500)
        sandbox.timer = clock.monotonic
        run = client_of(sandbox, clock=clock, rate=500).start_session()
        for _ in range(1_200):
            run.fetch(Query(limit=1), parse_page)
        assert run.faults == {}
        assert 120 <= clock.now - 1000 <= 121
        assert run.waited == pytest.approx(clock.now - 1000)

    def test_deadline_counts_the_pace(self) -> None:
        """A run that the pace alone would take beyond its deadline ends instead of waiting."""
        clock = Clock()
        run = client_of(says(), clock=clock, rate=2).start_session(deadline=30)
        run.fetch(Query(), parse_page)
        run.fetch(Query(), parse_page)
        with pytest.raises(DeadlineExceeded, match="the pace allows"):
            run.fetch(Query(), parse_page)
        assert clock.now == 1000
        assert run.requests == 2

    def test_in_flight(self) -> None:
        """No more requests are under way at once than allowed, and that many are."""
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
        """A run that was given so many requests sends no more, retries included, and ends in 75."""
        app = Script(says(), says(503), says())
        run = client_of(app).start_session(max_requests=3)
        run.fetch(Query(), parse_page)
        run.fetch(Query(), parse_page)
        with pytest.raises(RequestsExceeded, match="this run may send 3 requests, and has"):
            run.fetch(Query(), parse_page)
        assert len(app.requests) == run.requests == 3

    def test_stop_ends_all_waits(self) -> None:
        """Once a run is told to stop, waits end, nothing more is sent, and it says so."""
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
        """The machine's own clock waits as long as it is told, and not at all once it is told to stop."""
        clock, stop = RealClock(), threading.Event()
        started = clock.monotonic()
        clock.wait(0.01, stop)
        waited = clock.monotonic() - started
        assert waited >= 0.009
        stop.set()
        clock.wait(GRACE, stop)
        assert clock.monotonic() - started < GRACE

    def test_counts(self) -> None:
        """A run counts what it sent, what it sent again and why, and what it waited; from all threads."""
        client = client_of(sandbox_of(",".join(f"{n}:503" for n in range(1, 16, 2)), jobs=5))
        run = client.start_session()
        in_threads(8, lambda: run.fetch(Query(limit=1), parse_page))
        assert run.faults == {"503": 8}
        assert (run.requests, run.retries) == (16, 8)
        assert run.waited > 0


class TestWire:
    """What the network does to an answer, over real sockets."""

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
        """F5 to F8: reset, cut, dripped or withheld, an answer is asked for again, and the page is whole."""
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
        """In process a fault of the wire is the same failure as over a socket."""
        sandbox = sandbox_of(f"1:{fault.replace('cut_', 'cut.')}")
        page, run = fetch(client_of(sandbox))
        assert page.info.rows == 5
        assert run.retries == 1

    @pytest.mark.parametrize("framing", ["length", "chunked", "close"])
    def test_f6_cut_at_every_byte(self, framing: str) -> None:
        """F6: an answer cut after any of its bytes, however framed, is asked for again; never is a part the page."""
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
        """F7: bytes that come one by one without end do not hang a request, wherever in the answer they do."""
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
        """F8: silence does not outlast a run's deadline, however patient the reads are: 75."""
        with serve(sandbox_of("*:silence")) as served:
            client = Client(
                served.url, api_key=CANARY, patience=Patience(request_seconds=60, read_seconds=60)
            )
            with client:
                error, _ = fail(client, deadline=0.2)
        assert type(error) is DeadlineExceeded

    def test_f8_timeouts_cost_double(self) -> None:
        """A timeout costs twice what another failure costs: 50 of them use up a run's budget."""
        run = client_of(sandbox_of("*:silence")).start_session()
        for _ in range(30):
            with pytest.raises(TryLater):
                run.fetch(Query(), parse_page)
        assert run.retries == 50

    def test_f13_refused_and_unknown(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """F13: nobody listens, or the name is unknown: tried again, then 75, and the message names the host."""
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
        """F13: once a run, after the first refused connection, with for how long it is tried: the deadline, or all tries."""
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
            assert said[0].endswith(f"Connection refused); it is tried again for {longest} s at most")
            assert caplog.records[0].levelname == "WARNING"

    def test_connections_are_kept(self) -> None:
        """Pages come over one connection as long as nothing happens to it."""
        peers: set[object] = set()
        sandbox = sandbox_of()

        with serve(sandbox) as served, client_of(url=served.url) as client:
            run = client.start_session()
            for _ in range(5):
                run.fetch(Query(), parse_page)
                pool = client._channel.transport._pool  # type: ignore[attr-defined]
                peers |= {id(connection) for connection in pool.connections}
        assert len(peers) == 1


class TestBodies:
    """Bodies that are no page, and bodies that are too much."""

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
        """F9, F10: the same kind of bad body three times running is 76; twice, and it goes on."""
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
        """F9: the message shows type, length and the first characters, escaped."""
        error, _ = fail(client_of(sandbox_of("*:html")))
        assert "49 bytes, starting '<!doctype html><title>Maintenance</title><p>Soon back.'"[-30:] in str(
            error
        )
        assert "sent as text/html" in str(error)
        error, _ = fail(client_of(lambda _: Response(200, {}, b"\x1b[2J")))
        assert "4 bytes, starting '\\x1b[2J', sent as no content type" in str(error)

    def test_not_running(self) -> None:
        """Bad bodies with another failure between them are not three times running: the tries of a request decide."""
        sandbox = sandbox_of("1:html,2:503,3:html,4:503,5:html")
        page, run = fetch(client_of(sandbox))
        assert page.info.rows == 5
        assert run.faults == {"bad body": 3, "503": 2}

    def test_f9_another_content_type(self, caplog: pytest.LogCaptureFixture) -> None:
        """F9: a page under another content type is a page; the first of a run is warned of."""
        run = client_of(sandbox_of("*:wrongtype")).start_session()
        for _ in range(3):
            assert run.fetch(Query(limit=5), parse_page).info.rows == 5
        assert run.retries == 0
        warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
        assert warnings == ["a page came as 'text/plain', not as JSON; its rows are taken"]

    def test_f11_gzip_bomb(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """F11: more than 128 MiB after decoding is not read on, and not asked for again: 76."""
        assert wire_module.LARGEST_PAGE == 128 * 2**20
        monkeypatch.setattr(wire_module, "LARGEST_PAGE", 2**20)
        sandbox = sandbox_of("*:bomb.3")
        with serve(sandbox) as served, client_of(url=served.url) as client:
            error, run = fail(client)
        assert type(error) is PageError
        assert "more than 1048576 bytes after decoding" in str(error)
        assert run.requests == 1

    def test_f11_large_pages_pass(self) -> None:
        """A hundred rows with a megabyte of text each are a page."""
        body = PAGE.replace(b"[]", b'[{"status":"' + b"x" * 100 * 2**20 + b'"}]')
        page, _ = fetch(client_of(says(body=body)))
        assert page.info.rows == 1

    @pytest.mark.parametrize("encoding", ["gzip, gzip", "deflate", "br", "zstd", "x-new", "GZIP, identity"])
    def test_f11_only_what_was_asked_for_is_unpacked(self, encoding: str) -> None:
        """F11: a packing that nobody asked for, or one within another, is not unpacked at all; three times: 76."""
        packed = gzip.compress(gzip.compress(PAGE)) if encoding == "gzip, gzip" else PAGE
        app = Script(says(body=packed, content_encoding=encoding))
        error, _ = fail(client_of(app))
        assert type(error) is PageError
        assert "which nobody asked for" in str(error)
        assert len(app.requests) == 3

    def test_packed_errors_keep_their_meaning(self) -> None:
        """A 401 is a 401 however its body is packed, or if it cannot be unpacked."""
        for encoding in ("zstd", "gzip, gzip"):
            error, _ = fail(client_of(says(401, b"\x28\xb5", content_encoding=encoding)))
            assert type(error) is CredentialsError

    def test_bad_gzip(self) -> None:
        """A body that cannot be unpacked is a bad body."""
        app = Script(says(body=b"no gzip at all", content_encoding="gzip"))
        error, _ = fail(client_of(app))
        assert type(error) is PageError
        assert "cannot be decompressed" in str(error)
        assert len(app.requests) == 3

    def test_endless_error(self) -> None:
        """The body of an error is read as far as it is needed, be it endless."""

        def answer(stream: socket.socket, _: int) -> None:
            stream.sendall(b"HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n")
            while True:
                stream.sendall(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")

        with listen(answer) as server, client_of(url=server.url, patience=Patience(attempts=1)) as client:
            error, _ = fail(client)
        assert type(error) is TryLater
        assert "answered 503" in str(error)


class TestRedirects:
    """Nothing that a server names is ever asked."""

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    @pytest.mark.parametrize("where", ["{}/v3/export-jobs", "//{host}/v3/export-jobs", "{}/", "{}"])
    def test_f12_other_host(self, status: int, where: str) -> None:
        """F12, F49: a redirect ends in 76 that names its host; the host receives nothing, nor is it asked again."""
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
        """F12: nor is a redirect to the same host followed; a loop cannot come of it."""
        sandbox = sandbox_of("*:redirect.same")
        error, _ = fail(client_of(sandbox))
        assert "redirect to the same host" in str(error)
        assert len(sandbox.requests) == 1

    def test_f49_links_in_a_page(self) -> None:
        """F49: links in bodies and headers are text; a cursor that looks like one is no cursor."""
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
    @settings(deadline=None)
    def test_f12_any_location(self, location: str) -> None:
        """F12: whatever the Location, it is 76, on one printable line."""
        error, _ = fail(client_of(says(302, b"", location=location.replace("\n", "").replace("\r", ""))))
        assert type(error) is ContractError
        assert str(error).isprintable()


class TestServer:
    """Which servers may be spoken to, and who may speak for them."""

    @pytest.mark.parametrize("name", ["production", "staging"])
    def test_by_name(self, name: str) -> None:
        """The contract's two servers go by their names; production is the default."""
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
        """F49: https anywhere, http on this machine only."""
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
            ("external.pleo.io", "https:// is missing"),
            ("external.pleo.io:443/v3", "https:// is missing"),
            ("127.0.0.1:18080", "http:// or https:// is missing"),
            ("localhost:18080", "http:// or https:// is missing"),
            ("localhost", "http:// or https:// is missing"),
            ("[::1]:18080", "http:// or https:// is missing"),
            ("user:secret@external.pleo.io", "neither"),
            ("prod", "neither"),
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
        """F48, F49: anything else is 78 before anything is sent, in one line that repeats no secret."""
        with pytest.raises(ConfigurationError, match=words) as caught:
            Client(url, api_key=CANARY)
        assert "secret" not in str(caught.value).replace("user or password; set", "")
        assert str(caught.value).isprintable()

    def test_a_key_in_the_place_of_the_url(self) -> None:
        """F48: a key given where the URL belongs is not repeated."""
        with pytest.raises(ConfigurationError) as caught:
            Client(CANARY, api_key=CANARY)
        assert CANARY not in str(caught.value)

    @given(st.text(max_size=40) | st.from_regex(r"https?://[\w.:@/?#\[\]%-]{0,30}"))
    @settings(deadline=None)
    def test_any_text_is_a_server_or_refused(self, text: str) -> None:
        """Whatever the text, there is a server, or ConfigurationError."""
        try:
            url = resolve_server(text)
        except ConfigurationError:
            return
        assert url.scheme == "https" or url.host in ("localhost", "::1") or url.host.startswith("127.")
        assert not url.userinfo

    def test_f13_untrusted_certificate(self) -> None:
        """F13: a certificate that nobody vouches for is 78 at once, with a hint on --ca-file; no request is sent."""
        with listen(lambda stream, _: stream.sendall(http(PAGE)), tls="loopback.pem") as server:
            with client_of(url=server.url) as client:
                error, run = fail(client)
            assert type(error) is ConfigurationError
            assert "--ca-file" in str(error)
            assert (server.connections, run.requests, server.received) == (1, 1, [])

    def test_f13_ca_file(self) -> None:
        """With the authority's file the same server is trusted; the environment's files change nothing."""
        with (
            listen(lambda stream, _: stream.sendall(http(PAGE)), tls="loopback.pem") as server,
            client_of(url=server.url, ca_file=TLS / "loopback.pem") as client,
        ):
            page, _ = fetch(client)
        assert page.info.total == 7

    def test_f49_the_environment_vouches_for_nobody(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """F49: SSL_CERT_FILE and its like are not asked whom to trust."""
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
        """F13: a certificate for another name, or one that has expired: 78, and the message says which."""
        with listen(lambda stream, _: stream.sendall(http(PAGE)), tls=pem) as server:
            url = server.url.replace("127.0.0.1", host)
            with client_of(url=url, ca_file=TLS / pem) as client:
                error, run = fail(client)
            assert type(error) is ConfigurationError
            assert re.search(words, str(error))
            assert (run.requests, server.received) == (1, [])

    def test_ca_file_that_cannot_be_used(self, tmp_path: Path) -> None:
        """A CA file that is missing, empty, junk or a folder is 78, and named."""
        (tmp_path / "junk.pem").write_text("-----BEGIN CERTIFICATE-----\nno\n-----END CERTIFICATE-----\n")
        (tmp_path / "empty.pem").touch()
        for path in (tmp_path / "missing.pem", tmp_path / "junk.pem", tmp_path / "empty.pem", tmp_path):
            with pytest.raises(ConfigurationError, match=re.escape(str(path))):
                Client("production", api_key=CANARY, ca_file=path)

    def test_plain_answer_to_tls(self) -> None:
        """A server that does not speak TLS on an https port is no crash: 75."""
        with listen(lambda stream, _: stream.sendall(http(PAGE)), scheme="https") as server:
            with client_of(url=server.url, patience=Patience(attempts=2, connect_seconds=0.2)) as client:
                error, _ = fail(client)
            assert type(error) is TryLater
            assert b"".join(server.received).find(CANARY.encode()) == -1

    def test_f49_proxies_of_the_environment(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """F49: proxies and .netrc of the environment are not used: what they point to receives nothing."""
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
        """A proxy that the user names is gone through."""
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
        """A proxy that is no URL, or of a kind that is not installed, is 78."""
        with pytest.raises(ConfigurationError, match="proxy"):
            Client("production", api_key=CANARY, proxy=proxy)

    def test_proxy_that_refuses(self) -> None:
        """A proxy that refuses to connect is 78 and no retry: what is wrong is the setting."""
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
    """Gives t1, then t2, and so on."""

    def __init__(self) -> None:
        self.given = 0

    def __call__(self) -> str:
        """The next token."""
        self.given += 1
        return f"t{self.given}"


class TestCredentials:
    """Who we are, and who we become."""

    @pytest.mark.parametrize(
        ("name", "scheme"),
        [("PLEO_API_KEY", "Basic"), ("PLEO_ACCESS_TOKEN", "Bearer"), ("PLEO_TOKEN_COMMAND", "Bearer")],
    )
    def test_from_the_environment(self, monkeypatch: pytest.MonkeyPatch, name: str, scheme: str) -> None:
        """Each of the three variables gives a credential, sent in its own way."""
        command = f"{sys.executable} -c \"print('{CANARY}')\""
        monkeypatch.setenv(name, command if "COMMAND" in name else CANARY)
        app = Script(says())
        fetch(Client(NOWHERE, transport=app))
        sent = base64.b64encode(f"{CANARY}:".encode()).decode() if scheme == "Basic" else CANARY
        assert app.requests[0].headers["authorization"] == f"{scheme} {sent}"

    def test_url_and_company_from_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """PLEO_BASE_URL and PLEO_COMPANY_ID are what is not said; what is said wins; empty is not said."""
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
        """A credential that is given makes the environment's not count, two of them included."""
        monkeypatch.setenv("PLEO_API_KEY", "other")
        monkeypatch.setenv("PLEO_ACCESS_TOKEN", "other")
        app = Script(says())
        fetch(client_of(app, access_token=CANARY))
        assert app.requests[0].headers["authorization"] == f"Bearer {CANARY}"

    def test_none_or_two(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """No credential, or more than one, is 77 and says what to set or unset; an empty variable is none."""
        monkeypatch.setenv("PLEO_API_KEY", "")
        with pytest.raises(CredentialsError, match="set PLEO_API_KEY"):
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
        """Blanks, line breaks, other alphabets, other types: 77 before anything is sent, for keys and for tokens."""
        for name in ("api_key", "access_token"):
            with pytest.raises(
                CredentialsError, match=r"is empty, or no text|space or a line break|holds characters"
            ):
                Client(NOWHERE, **{name: text})

    def test_a_key_with_a_password(self) -> None:
        """A key with a colon would be split into user and password: 77."""
        with pytest.raises(CredentialsError, match="colon"):
            Client(NOWHERE, api_key="plp_x:")

    def test_f14_wrong_at_the_start(self) -> None:
        """F14: a key or token that is refused and cannot be renewed is 77 after one request."""
        for sandbox, options in (
            (sandbox_of(), {"api_key": "plp_other"}),
            (sandbox_of(), {"access_token": "other"}),
        ):
            error, _ = fail(client_of(sandbox, **options))
            assert type(error) is CredentialsError
            assert f"Check the {next(iter(options))} that was given" in str(error)
            assert len(sandbox.requests) == 1

    def test_f14_renewed_on_the_way(self) -> None:
        """F14: a token that expires is renewed, and the same page is asked for again."""
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
        """The first token is asked for once, however many threads need it."""
        tokens = Tokens()
        client = client_of(says(), access_token=tokens)
        in_threads(8, lambda: fetch(client))
        assert tokens.given == 1

    def test_f14_second_refusal(self) -> None:
        """F14: a renewed token that is refused too is 77: renewed once a request, not for ever."""
        app, tokens = Script(says(401)), Tokens()
        error, _ = fail(client_of(app, access_token=tokens))
        assert type(error) is CredentialsError
        assert (tokens.given, len(app.requests)) == (2, 2)

    def test_f14_renewed_while_another_waited(self) -> None:
        """A request that waited while another renewed the token is judged by the token it was sent with."""
        clock, tokens, dead = Clock(), Tokens(), {"Bearer t1"}

        def app(request: RequestLike) -> Response:
            return says(401 if request.headers["authorization"] in dead else 200)(request)

        client = client_of(app, access_token=tokens, clock=clock, rate=1)

        def another(_: float) -> None:
            clock.on_wait = lambda _: None
            fetch(client)  # is refused with t1, renews it, and leaves t2 …
            dead.add("Bearer t2")  # … which is dead when the first one's turn comes

        client._channel.window.reserve(clock.now)  # the minute's only place is taken: the next request waits
        clock.on_wait = another
        fetch(client)
        assert tokens.given == 3

    def test_token_command(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """PLEO_TOKEN_COMMAND is split as a shell splits and run without one; after a 401 it is run again."""
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
            ("/nonexistent/command {canary}", "there is no such program"),
            ("'unbalanced {canary}", "could not be run"),
            (" ", "could not be run"),
        ],
    )
    def test_token_command_that_fails(
        self, monkeypatch: pytest.MonkeyPatch, command: str, words: str
    ) -> None:
        """A command that cannot be run, fails or gives no token is 77; neither it nor what it wrote is shown."""
        monkeypatch.setenv(
            "PLEO_TOKEN_COMMAND", command.replace("{python}", sys.executable).replace("{canary}", CANARY)
        )
        error, _ = fail(Client(NOWHERE, transport=Script(says()), clock=Clock()))
        assert type(error) is CredentialsError
        assert words in str(error)
        assert leaks(error) == []


def found(text: str) -> list[str]:
    """The spellings of the canary in a text."""
    return [spelling for spelling in SPELLINGS if spelling in text]


def leaks(error: BaseException) -> list[str]:
    """The canary in all that can be seen of an error: message, arguments, causes, and the locals of every frame."""
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


class Careless(httpx.BaseTransport):
    """A transport that fails with the request's headers in the locals of its frames."""

    def __init__(self, kind: Callable[[str], Exception], *, late: bool = False) -> None:
        self.kind = kind
        self.late = late

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Fail, before or after the head."""
        headers = list(request.headers.raw)
        if self.late:
            return httpx.Response(200, stream=Late(self.kind, headers))
        raise self.kind("on purpose") from ValueError("a cause")


class Late(httpx.SyncByteStream):
    """A body that fails."""

    def __init__(self, kind: Callable[[str], Exception], headers: object) -> None:
        self.kind = kind
        self.headers = headers

    def __iter__(self) -> Iterator[bytes]:
        headers = self.headers
        yield b"{"
        raise self.kind(f"on purpose, {type(headers)}")


def httpx_errors() -> list[type[Exception]]:
    """Every class of exception that httpx has."""
    return sorted(
        (value for value in vars(httpx).values() if isinstance(value, type) and issubclass(value, Exception)),
        key=lambda kind: kind.__name__,
    )


def make_error(kind: type[Exception]) -> Callable[[str], Exception]:
    """A way to make an error of this class from a message alone."""
    if issubclass(kind, httpx.HTTPStatusError):
        request = httpx.Request("GET", NOWHERE)
        return lambda text: kind(text, request=request, response=httpx.Response(500))
    if issubclass(kind, httpx.StreamError) and kind is not httpx.StreamError:
        return lambda _: kind()  # type: ignore[call-arg]
    return kind


class TestTranslation:
    """No error of httpx leaves this room."""

    @pytest.mark.parametrize("late", [False, True], ids=["before the head", "in the body"])
    @pytest.mark.parametrize("kind", httpx_errors(), ids=lambda kind: kind.__name__)
    def test_none_is_forgotten(self, kind: type[Exception], late: bool) -> None:  # noqa: FBT001 - a case
        """Every error that httpx can raise becomes one of ours, wherever it comes from, and carries no frame of others."""
        client = client_of(Careless(make_error(kind), late=late), patience=Patience(attempts=4))  # type: ignore[arg-type]
        error, run = fail(client)
        if issubclass(kind, httpx.DecodingError):
            assert type(error) is PageError
        elif issubclass(kind, httpx.UnsupportedProtocol | httpx.ProxyError):
            assert type(error) is ConfigurationError
            assert run.requests == 1
        else:
            assert type(error) is TryLater
            assert run.requests == 4
        assert leaks(error) == []
        if issubclass(kind, httpx.TimeoutException):
            assert run.faults["timeout"] == 4

    def test_roots(self) -> None:
        """What is caught are the roots of all that httpx has today; a new root would make this fail."""
        assert {kind for kind in httpx_errors() if not issubclass(kind, FOREIGN)} == set()

    def test_what_read_raises_is_not_ours(self) -> None:
        """An error of who reads the body is theirs, untouched."""

        def read(_: bytes) -> None:
            raise KeyError("theirs")

        with pytest.raises(KeyError, match="theirs"):
            client_of(says()).start_session().fetch(Query(), read)


def echo(status: int, form: Callable[[str], str]) -> App:
    """A server that sends back what it was sent, in its body and its headers."""

    def app(request: RequestLike) -> Response:
        sent = form(request.headers["authorization"])
        body = f'{{"message": "who is {sent}?", "seen": "{quote(CANARY, safe="")} {CANARY}"}}'.encode()
        return Response(status, {"content-type": "text/html", "location": "/"}, body)

    return app


class TestSecrets:
    """F48: the canary is nowhere."""

    @pytest.mark.parametrize("show", [repr, str, format, ascii, "{!s:>40}".format, "%s".__mod__])
    def test_f48_a_secret_does_not_show_itself(self, show: Callable[[object], str]) -> None:
        """F48: printed, formatted, logged: three stars."""
        assert found(show(Secret(CANARY))) == []
        assert "***" in show(Secret(CANARY))

    @pytest.mark.parametrize("carry", [pickle.dumps, copy.copy, copy.deepcopy])
    def test_f48_a_secret_is_not_carried_off(self, carry: Callable[[object], object]) -> None:
        """F48: nor is it pickled or copied, alone or with who holds it."""
        with pytest.raises(TypeError) as caught:
            carry(Secret(CANARY))
        assert found(str(caught.value)) == []
        client = Client(NOWHERE, api_key=CANARY)
        for holder in (client, client._channel.credential):
            with pytest.raises(TypeError):
                pickle.dumps(holder)

    def test_f48_reveal(self) -> None:
        """It is revealed to who asks for it by name."""
        assert Secret(CANARY).reveal() == CANARY

    @pytest.mark.parametrize("options", [{"api_key": CANARY}, {"access_token": CANARY}], ids=["key", "token"])
    def test_f48_a_client_does_not_show_it(self, options: dict[str, str]) -> None:
        """F48: neither the client nor what it is made of shows the credential, after it was used either."""
        client = Client(NOWHERE, transport=says(), clock=Clock(), **options)  # type: ignore[arg-type]
        _, run = fetch(client)
        line = client._channel
        for part in (client, run, line, line.credential, vars(client), vars(run), vars(line.credential)):
            assert found(repr(part)) == []

    def test_f48_arguments_that_cannot_be_used(self) -> None:
        """F48: where a client cannot be made, no frame of ours holds what it was given."""
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
            error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next  # this frame knows it
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
        """F48: a credential with a blank at its end is refused, and not shown by the refusal."""
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
    @pytest.mark.parametrize("wire", ["in process", "socket"])
    def test_f48_failures(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fault: str, wire: str
    ) -> None:
        """F48: whatever fails, the canary is in no message, no cause, no local of any frame, no log record."""
        caplog.set_level(logging.DEBUG)
        monkeypatch.setattr(wire_module, "LARGEST_PAGE", 100_000)
        sandbox, patience = sandbox_of(f"*:{fault}"), Patience(attempts=3, read_seconds=0.5)
        with ExitStack() as stack:
            url = stack.enter_context(serve(sandbox)).url if wire == "socket" else NOWHERE
            app = None if wire == "socket" else sandbox
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
        """F48: a server that sends the credential back, as it is, in base64 or URL-encoded, does not make us show it."""
        client = client_of(echo(status, form), patience=Patience(attempts=3), **{name: CANARY})
        error, _ = fail(client)
        assert leaks(error) == []
        if status not in (200, 302):
            assert "***" in str(error)

    def test_f48_long_tokens_are_masked_before_they_are_clipped(self) -> None:
        """F48: no part of a long token stays where the message is clipped."""
        token = "eyJ" + "abcdefghij" * 200
        for status in (200, 401, 500):
            app = Script(says(status, b'{"message": "bad token ' + token.encode() + b'"}'))
            error, _ = fail(client_of(app, access_token=token, patience=Patience(attempts=3)))
            assert "abcdefghij" not in str(error)

    @pytest.mark.parametrize(
        "source", ["api_key_env", "api_key_file", "access_token_env", "access_token_file"]
    )
    def test_f48_accounts(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str) -> None:
        """F48, F55: an account's credential is read from its place when it is opened, sent, and in no frame after it."""
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

    def test_f48_never_in_the_url(self) -> None:
        """F48: the credential is in one header and nowhere else of what is sent."""
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
    """What cannot be used is refused when the client is made."""
    with pytest.raises(UsageError, match=words):
        Client(NOWHERE, api_key=API_KEY, **options)


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
    """Server and company, nothing else."""
    shown = repr(Client(NOWHERE, api_key=CANARY, company_id=COMPANY))
    assert shown == f"Client('{NOWHERE}', company_id='{COMPANY}')"
