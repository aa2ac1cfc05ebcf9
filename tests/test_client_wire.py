"""Tests of the wire over raw sockets: responses without end, bytes after a response, unrequested responses."""

from __future__ import annotations

import fcntl
import gzip
import itertools
import socket
import termios
import threading
import time
import zlib
from array import array
from typing import TYPE_CHECKING, Any

import pytest
from canary import CANARY
from test_client import PAGE, TLS, client_of, fail, http, listen

from pleo_extract.client import wire
from pleo_extract.contract import Query
from pleo_extract.core.decode import parse_page
from pleo_extract.core.pace import Patience
from pleo_extract.errors import DeadlineExceeded, PageError, PageTooLarge, PleoExtractError, Stopped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pleo_extract.client import Session

pytestmark = pytest.mark.usefixtures("each_transport")

STRAY = PAGE.replace(b'"total":7', b'"total":666')
QUICK = Patience(request_seconds=0.3, read_seconds=5.0, attempts=1)
LONG = 5.0
"""Seconds after which a request of 0.3 s counts as endless, even on a busy machine."""


def framed(body: bytes, framing: str) -> bytes:
    """Return an answer on a connection that stays open."""
    return http(body, framing=framing).replace(b"Connection: close\r\n", b"")


def read_heads(stream: socket.socket) -> Iterator[None]:
    """Yield once for each request on this connection, the first of which was read already."""
    yield
    head = b""
    while data := stream.recv(65536):
        head += data
        while b"\r\n\r\n" in head:
            head = head.partition(b"\r\n\r\n")[2]
            yield


def await_arrival(stream: socket.socket) -> None:
    """Return once the other side's machine has received everything that was sent."""
    waiting = array("i", [1])
    while waiting[0]:
        fcntl.ioctl(stream, termios.TIOCOUTQ, waiting)
        time.sleep(0.001)


def total(run: Session) -> int | None:
    """Fetch a page and return its total, which identifies the pages of these tests."""
    return run.fetch(Query(limit=5), parse_page).info.total


class TestNobodyAsked:
    """F66: unrequested responses on a kept connection."""

    @pytest.mark.parametrize("tls", [None, "loopback.pem"], ids=["http", "https"])
    @pytest.mark.parametrize("times", [1, 10_000])
    @pytest.mark.parametrize("framing", ["length", "chunked"])
    def test_f66_in_the_same_segment(self, framing: str, times: int, tls: str | None) -> None:
        """F66: a second response directly after the first closes the connection; the next request gets its own."""

        def answer(stream: socket.socket, _: int) -> None:
            for _head in read_heads(stream):
                stream.sendall(framed(PAGE, framing) + framed(STRAY, framing) * times)

        with (
            listen(answer, tls=tls) as server,
            client_of(url=server.url, ca_file=TLS / "loopback.pem") as client,
        ):
            run = client.start_session()
            assert [total(run) for _ in range(3)] == [7, 7, 7]
            assert server.connections == 3
            assert run.retries == 0

    @pytest.mark.parametrize("stray", [framed(STRAY, "length"), b"HTTP/1.1 100 Continue\r\n\r\n", b"\r\n"])
    def test_f66_in_a_later_segment(self, stray: bytes) -> None:
        """F66: bytes that arrive on an idle connection close it before its next use."""
        go_on, sent = threading.Event(), threading.Event()

        def answer(stream: socket.socket, number: int) -> None:
            stream.sendall(framed(PAGE, "length"))
            if number == 1:
                go_on.wait(LONG)
                stream.sendall(stray)
                await_arrival(stream)
                sent.set()
            for _head in itertools.islice(read_heads(stream), 1, None):
                stream.sendall(framed(PAGE, "length"))

        with listen(answer) as server, client_of(url=server.url) as client:
            run = client.start_session()
            assert total(run) == 7
            go_on.set()
            assert sent.wait(LONG)
            assert total(run) == 7
            assert server.connections == 2
            assert run.retries == 0

    def test_f66_nothing_left_over_keeps_the_connection(self) -> None:
        """F66: a response without surplus bytes keeps its connection, compressed or not."""
        packed = framed(gzip.compress(PAGE), "length").replace(b"\r\n", b"\r\nContent-Encoding: gzip\r\n", 1)

        def answer(stream: socket.socket, _: int) -> None:
            for n, _head in enumerate(read_heads(stream)):
                stream.sendall([framed(PAGE, "length"), framed(PAGE, "chunked"), packed][n % 3])

        with listen(answer) as server, client_of(url=server.url) as client:
            run = client.start_session()
            assert [total(run) for _ in range(6)] == [7] * 6
            assert server.connections == 1


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
PACKED = HEAD + b"Content-Encoding: gzip\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """Return one chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


START = zlib.compressobj(wbits=wire.GZIP).compress(b"")
EMPTY = zlib.compressobj(wbits=-15).flush(zlib.Z_FULL_FLUSH) * 400
ENDLESS: dict[str, tuple[bytes, bytes]] = {
    "1xx": (b"", b"HTTP/1.1 102 Processing\r\n\r\n" * 50),
    "1xx with headers": (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"),
    "status line": (b"", b"HTTP/1.1 200 "),
    "headers": (HEAD, b"X-More: and more\r\n"),
    "empty gzip blocks": (PACKED + b"\r\n" + START, EMPTY),
    "empty gzip blocks in chunks": (PACKED + CHUNKED + chunk(START), chunk(EMPTY)),
    "empty gzip members": (PACKED + b"\r\n" + gzip.compress(b""), gzip.compress(b"") * 100),
    "chunks of a byte": (HEAD + CHUNKED, chunk(b" ")),
    "blanks": (HEAD + b"\r\n", b" " * 4096),
    "chunk header": (HEAD + CHUNKED, b"0000000000"),
    "chunk extension": (HEAD + CHUNKED + b"5;", b"name=value;"),
    "trailers": (HEAD + CHUNKED + chunk(PAGE) + b"0\r\n", b"X-More: and more\r\n"),
    "errors": (HEAD.replace(b"200 OK", b"503 Busy") + b"Content-Encoding: gzip\r\n\r\n" + START, EMPTY),
}


def flood(start: bytes, more: bytes) -> Callable[[socket.socket, int], None]:
    """Return a server that never stops."""

    def answer(stream: socket.socket, _: int) -> None:
        stream.sendall(start)
        while True:
            stream.sendall(more)

    return answer


def drip(start: bytes, more: bytes) -> Callable[[socket.socket, int], None]:
    """Return a server that sends slowly and never stops."""

    def answer(stream: socket.socket, _: int) -> None:
        stream.sendall(start)
        while True:
            stream.sendall(more[:64])
            time.sleep(0.02)

    return answer


class TestWithoutEnd:
    """F65: one limit of time and bytes for every phase of a response."""

    @pytest.mark.parametrize("pace", [flood, drip])
    @pytest.mark.parametrize("phase", ENDLESS)
    def test_f65_every_phase_ends(
        self, phase: str, pace: Callable[[bytes, bytes], Callable[[socket.socket, int], None]]
    ) -> None:
        """F65: a request ends in its time, whichever phase is endless and however fast its bytes come."""
        with listen(pace(*ENDLESS[phase])) as server, client_of(url=server.url, patience=QUICK) as client:
            started = time.monotonic()
            error, _ = fail(client)
            assert time.monotonic() - started < LONG
        assert error.code in (75, 76)

    def test_f65_the_deadline_of_the_run_holds_too(self) -> None:
        """F65: a run of half a second does not wait a minute for an endless response."""
        with listen(flood(*ENDLESS["1xx"])) as server, client_of(url=server.url) as client:
            started = time.monotonic()
            error, _ = fail(client, deadline=0.3)
            assert time.monotonic() - started < LONG
        assert type(error) is DeadlineExceeded

    def test_f65_looking_up_a_name_ends(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """F65: a silent name server delays a request no longer than its timeout; a late connection is closed."""
        answered, looked_up = threading.Event(), threading.Event()
        real = socket.getaddrinfo

        def look_up(*args: Any, **more: Any) -> Any:
            answered.wait(LONG)
            try:
                return real(*args, **more)
            finally:
                looked_up.set()

        with (
            listen(lambda *_: None) as server,
            client_of(url=server.url.replace("127.0.0.1", "localhost")) as client,
        ):
            monkeypatch.setattr(socket, "getaddrinfo", look_up)
            started = time.monotonic()
            error, _ = fail(client, deadline=0.3)
            assert time.monotonic() - started < LONG
            assert type(error) is DeadlineExceeded
            answered.set()
            assert looked_up.wait(LONG)
        assert server.received == []

    @pytest.mark.parametrize("framing", ["chunked", "close"])
    def test_f65_what_follows_the_gzip_is_not_read(self, framing: str) -> None:
        """F65: a page ends with its gzip; endless bytes after it are neither kept nor awaited."""
        packed, more = gzip.compress(PAGE), b"x" * 4096
        start = PACKED + (CHUNKED + chunk(packed) if framing == "chunked" else b"\r\n" + packed)
        answer = flood(start, chunk(more) if framing == "chunked" else more)
        with listen(answer) as server, client_of(url=server.url) as client:
            run = client.start_session()
            assert [total(run), total(run)] == [7, 7]
            assert server.connections == 2

    @pytest.mark.parametrize("size", [1, 7, 10**6])
    def test_f6_a_gzip_of_several_members(self, size: int) -> None:
        """F6: a gzip body may have several members, and the page is all of them, however it is split."""
        packed = b"".join(gzip.compress(PAGE[at : at + 50]) for at in range(0, len(PAGE), 50))
        body = b"".join(chunk(packed[at : at + size]) for at in range(0, len(packed), size))
        answer = PACKED + CHUNKED + body + b"0\r\n\r\n"
        with listen(lambda stream, _: stream.sendall(answer)) as server, client_of(url=server.url) as client:
            assert total(client.start_session()) == 7

    def test_f65_raw_bytes_are_capped(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """F65: the limit on raw bytes also counts empty blocks that decompress to nothing."""
        monkeypatch.setattr(wire, "LARGEST_PAGE", 2**18)
        with listen(flood(*ENDLESS["empty gzip blocks"])) as server, client_of(url=server.url) as client:
            error, run = fail(client)
        assert type(error) is PageTooLarge
        assert "more than 262144 bytes" in str(error)
        assert run.requests == 1

    def test_f11_a_bomb_is_known_by_its_ratio(self) -> None:
        """F11: a body that grows more than 1,000 times is not a page, and is not decompressed to the end."""
        packed = http(gzip.compress(bytes(32 * 2**20)), Content_Encoding="gzip")
        with listen(lambda stream, _: stream.sendall(packed)) as server, client_of(url=server.url) as client:
            error, _ = fail(client)
        assert type(error) is PageError
        assert "more than 1000 times its size" in str(error)

    @pytest.mark.parametrize("cut", [1, 8, 20])
    def test_f6_gzip_that_ends_early_is_no_page(self, cut: int) -> None:
        """F6: an incomplete gzip body is requested again, even if its part decompresses."""
        packed = http(gzip.compress(PAGE)[:-cut], Content_Encoding="gzip")
        with listen(lambda stream, _: stream.sendall(packed)) as server, client_of(url=server.url) as client:
            error, run = fail(client)
        assert type(error) is PageError
        assert "cannot be decompressed" in str(error)
        assert run.requests == 3


class TestStop:
    """F36: a stopped run takes responses that arrive at once, and waits for no others."""

    def test_f36_answers_under_way_are_taken(self) -> None:
        """F36: a response that is arriving when the run stops is read to its end."""
        asked, stopped = threading.Event(), threading.Event()
        answer = framed(PAGE, "length")
        head, _, body = answer.partition(b"\r\n\r\n")

        def serve(stream: socket.socket, _: int) -> None:
            asked.set()
            stopped.wait(LONG)
            for piece in (head, b"\r\n\r\n", body[:9], body[9:]):
                stream.sendall(piece)
                time.sleep(0.05)  # each is a read of its own

        with listen(serve) as server, client_of(url=server.url) as client:
            run, totals = client.start_session(), list[int | None]()
            thread = threading.Thread(target=lambda: totals.append(total(run)))
            thread.start()
            assert asked.wait(LONG)
            run.stop.set()
            stopped.set()
            thread.join(LONG)
            assert totals == [7]
            with pytest.raises(Stopped):
                total(run)
        assert run.requests == 1

    @pytest.mark.parametrize("answer", [lambda *_: time.sleep(LONG), drip(HEAD, b"X-More: and more\r\n")])
    def test_f36_answers_under_way_are_left(self, answer: Callable[[socket.socket, int], None]) -> None:
        """F36: a silent or dripping response does not delay a stopped run by more than seconds."""
        asked, caught = threading.Event(), list[PleoExtractError]()

        def serve(stream: socket.socket, number: int) -> None:
            asked.set()
            answer(stream, number)

        with listen(serve) as server, client_of(url=server.url) as client:
            run = client.start_session()

            def work() -> None:
                with pytest.raises(Stopped) as stopped:
                    total(run)
                caught.append(stopped.value)

            thread = threading.Thread(target=work)
            thread.start()
            assert asked.wait(LONG)
            started = time.monotonic()
            run.stop.set()
            thread.join(LONG)
            assert time.monotonic() - started < LONG
            client.close()
        (error,) = caught
        trace = error.__traceback__
        while trace is not None:
            assert CANARY not in str(trace.tb_frame.f_locals)
            trace = trace.tb_next
