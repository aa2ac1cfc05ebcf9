"""What each transport that uses the network promises beside the faults of the wire: proxies, TLS, stops, its choice.

The tests of the faults themselves are in test_client_wire.py, test_client.py and test_faults_network.py, and run over each
transport too: they use the fixture `each_transport`.
"""

from __future__ import annotations

import select
import signal
import socket
import ssl
import struct
import sys
import threading
import time
from base64 import b64encode
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pycurl
import pytest
from canary import CANARY
from test_client import GRACE, PAGE, TLS, client_of, fail, fetch, http, leaks, listen

from pleo_extract import Client
from pleo_extract.contract import Query
from pleo_extract.core.decode import parse_page
from pleo_extract.core.pace import Patience
from pleo_extract.errors import ConfigurationError, DeadlineExceeded, TryLater
from pleo_extract.sandbox import API_KEY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

each_transport = pytest.mark.usefixtures("each_transport")

LONG = 5.0
"""Seconds after which a request of 0.3 s counts as endless, even on a busy machine."""


def kind_of(client: Client) -> str:
    """Return the class of a client's transport."""
    return type(client._channel.transport).__name__


def tunnel(stream: socket.socket, target: str) -> None:
    """Answer a CONNECT, then carry bytes in both directions until one side ends.

    One thread does both: reading and writing one TLS connection in two threads breaks it now and then.
    """
    host, _, port = target.removeprefix("https://").partition(":")
    with socket.create_connection((host, int(port)), timeout=GRACE) as other:
        stream.sendall(b"HTTP/1.1 200 Connection established\r\nVia: proxy\r\n\r\n")
        while ready := select.select((stream, other), (), (), GRACE)[0]:
            for one in ready:
                data = one.recv(65536)
                while data and isinstance(one, ssl.SSLSocket) and (more := one.pending()):
                    data += one.recv(more)
                if not data:
                    return
                (other if one is stream else stream).sendall(data)


def serve_pages(stream: socket.socket, _: int) -> None:
    """Answer each request on this connection."""
    while True:
        stream.sendall(http(PAGE).replace(b"Connection: close\r\n", b""))
        if not stream.recv(65536):
            break


@each_transport
class TestProxies:
    """Proxies that the user names."""

    @pytest.mark.parametrize("tls", [None, "loopback.pem"], ids=["http", "https"])
    def test_f49_a_tunnel(self, tls: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
        """F48, F49: through a proxy, TLS reaches to the server: the proxy gets its own password and nothing of the requests."""
        monkeypatch.setenv("NO_PROXY", "*")  # what the environment excepts does not matter
        with (
            listen(serve_pages, tls="loopback.pem") as server,
            listen(lambda stream, _: tunnel(stream, server.url), tls=tls) as proxy,
        ):
            named = proxy.url.replace("://", "://someone:p%40ss@")
            with client_of(url=server.url, ca_file=TLS / "loopback.pem", proxy=named) as client:
                for _ in range(3):
                    assert fetch(client)[0].info.total == 7
            assert (proxy.connections, server.connections) == (1, 1)
        (head,) = proxy.received
        assert head.startswith(b"CONNECT " + server.url.removeprefix("https://").encode())
        assert b64encode(b"someone:p@ss") in head
        assert b"\r\nAuthorization" not in head
        assert CANARY.encode() not in head
        assert b"Proxy-Authorization" not in server.received[0]
        assert b64encode(f"{CANARY}:".encode()) in server.received[0]

    def test_f49_a_proxy_for_plain_http_is_asked_for_everything(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """F49: NO_PROXY of the environment makes no exception from a proxy that was named."""
        monkeypatch.setenv("NO_PROXY", "*")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        with (
            listen(lambda stream, _: stream.sendall(http(PAGE))) as proxy,
            client_of(url="http://127.0.0.1:9", proxy=proxy.url) as client,
        ):
            assert fetch(client)[0].info.total == 7

    def test_f13_a_proxy_that_is_not_trusted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """F13: the certificate of a proxy is checked, too, and the environment's files vouch for nobody."""
        monkeypatch.setenv("SSL_CERT_FILE", str(TLS / "loopback.pem"))
        with (
            listen(lambda stream, _: tunnel(stream, "https://127.0.0.1:9"), tls="loopback.pem") as proxy,
            client_of(url="https://127.0.0.1:9", proxy=proxy.url) as client,
        ):
            error, run = fail(client)
        assert type(error) is ConfigurationError
        assert (proxy.received, run.requests) == ([], 1)

    def test_f71_names_of_any_script(self, tmp_path: Path) -> None:
        """F71: the CA file may have any name, and the password of a proxy any character."""
        ca_file = tmp_path / "vertrauenswürdig 信.pem"
        ca_file.write_bytes((TLS / "loopback.pem").read_bytes())
        with (
            listen(serve_pages, tls="loopback.pem") as server,
            listen(lambda stream, _: tunnel(stream, server.url)) as proxy,
            client_of(
                url=server.url,
                ca_file=ca_file,
                proxy=proxy.url.replace("://", "://j%C3%BCrgen:%C3%A9t%C3%A9@"),
            ) as client,
        ):
            assert fetch(client)[0].info.total == 7
        assert b64encode("jürgen:été".encode()) in proxy.received[0]

    def test_f13_a_proxy_that_is_not_there(self) -> None:
        """F13: a proxy that refuses the connection is tried again, then 75."""
        with socket.create_server(("127.0.0.1", 0)) as closed:
            proxy = f"http://127.0.0.1:{closed.getsockname()[1]}"
        with client_of(url="https://127.0.0.1:9", proxy=proxy, patience=Patience(attempts=2)) as client:
            error, run = fail(client)
        assert type(error) is TryLater
        assert run.requests == 2
        assert leaks(error) == []


@contextmanager
def full() -> Iterator[str]:
    """Yield the address of a server whose queue is full, so that nobody can connect."""
    with socket.socket() as listening, ExitStack() as stack:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(8):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)  # noqa: FBT003 - the name of no parameter
            waiting.connect_ex(listening.getsockname())
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@each_transport
class TestLimits:
    """F65: the time of a request holds before its answer begins, and in the main thread."""

    @pytest.mark.parametrize("scheme", ["http", "https"])
    def test_f65_connecting_ends(self, scheme: str) -> None:
        """F65: a server that accepts no connection delays a request no longer than its time."""
        with full() as address, client_of(url=f"{scheme}://{address}") as client:
            started = time.monotonic()
            error, _ = fail(client, deadline=0.3)
            assert time.monotonic() - started < LONG
        assert type(error) is DeadlineExceeded

    def test_f65_a_handshake_ends(self) -> None:
        """F65: a server that is silent when TLS begins delays a request no longer than its time."""
        with socket.create_server(("127.0.0.1", 0)) as silent:
            url = f"https://127.0.0.1:{silent.getsockname()[1]}"
            with client_of(url=url) as client:
                started = time.monotonic()
                error, _ = fail(client, deadline=0.3)
                assert time.monotonic() - started < LONG
        assert type(error) is DeadlineExceeded

    def test_f65_connecting_has_a_time_of_its_own(self) -> None:
        """F65: a connection that is not made within its time counts as a server that cannot be reached."""
        with full() as address:
            patience = Patience(connect_seconds=0.2, attempts=2)
            with client_of(url=f"http://{address}", patience=patience) as client:
                error, run = fail(client)
        assert type(error) is TryLater
        assert run.faults == {"timeout": 2}
        assert "ConnectTimeout" in str(error)

    @pytest.mark.parametrize("silent", ["head", "body"])
    def test_f36_ctrl_c(self, silent: str) -> None:
        """F36: Ctrl-C ends a request that waits in the main thread, as KeyboardInterrupt."""
        asked, over = threading.Event(), threading.Event()

        def answer(stream: socket.socket, _: int) -> None:
            stream.sendall(http(PAGE)[:-5] if silent == "body" else b"")
            asked.set()
            over.wait(LONG)

        def interrupt() -> None:
            asked.wait(LONG)
            time.sleep(0.1)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

        with listen(answer) as server, client_of(url=server.url) as client:
            thread = threading.Thread(target=interrupt)
            thread.start()
            started = time.monotonic()
            with pytest.raises(KeyboardInterrupt):
                fetch(client)
            assert time.monotonic() - started < LONG
            over.set()
            thread.join()


@each_transport
class TestAnswers:
    """Answers that are unusual and valid."""

    @pytest.mark.parametrize("size", [10**6, 1])
    @pytest.mark.parametrize(
        "answer",
        [
            b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 3 + http(PAGE),
            b"HTTP/1.1 100 Continue\r\n\r\n" + http(PAGE, framing="chunked"),
            http(PAGE, framing="chunked")[:-2] + b"X-Checksum: none\r\nX-More: \xfc\r\n\r\n",
            http(PAGE).replace(b"\r\n", b"\n"),
            http(PAGE, framing="close"),
            http(b"\r\n\r\n" + PAGE + b"\n\n\r\n\r\n"),
            http(b"\r\n\r\n" + PAGE + b"\r\n\r\n", framing="chunked"),
            http(PAGE, X_Text="\xfc", X_Empty="", HTTP_2="none", HTTP="1"),
        ],
        ids=[
            "1xx",
            "1xx, chunks",
            "trailers",
            "bare line feeds",
            "no length",
            "blank lines",
            "blank lines, chunks",
            "header",
        ],
    )
    def test_f6_is_a_page(self, answer: bytes, size: int) -> None:
        """F6: an answer is a page however its head and body are written, and however they are split."""

        def send(stream: socket.socket, _: int) -> None:
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for at in range(0, len(answer), size):
                stream.sendall(answer[at : at + size])

        with listen(send) as server, client_of(url=server.url) as client:
            page, run = fetch(client)
        assert page.info.total == 7
        assert run.retries == 0


@each_transport
@pytest.mark.parametrize("end", ["close", "reset"])
def test_f5_each_request_is_counted(end: str) -> None:
    """F5: a request on a kept connection that breaks before the answer is sent again by the session only, which counts it."""
    heads: list[bytes] = []

    def answer(stream: socket.socket, number: int) -> None:
        stream.sendall(http(PAGE).replace(b"Connection: close\r\n", b""))
        if (head := stream.recv(65536)) and number == 1:
            heads.append(head)
            if end == "reset":
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with listen(answer) as server, client_of(url=server.url) as client:
        run = client.start_session()
        for _ in range(2):
            assert run.fetch(Query(limit=5), parse_page).info.total == 7
    assert len(server.received) + len(heads) == run.requests == 3
    assert run.retries == 1


class TestChoice:
    """Which transport a client uses."""

    @pytest.mark.parametrize(
        ("wanted", "kind"), [("", "CurlTransport"), ("curl", "CurlTransport"), ("httpx", "HttpcoreTransport")]
    )
    def test_by_variable(self, monkeypatch: pytest.MonkeyPatch, wanted: str, kind: str) -> None:
        """PLEO_TRANSPORT chooses; without it, the fast transport is used where it is installed."""
        monkeypatch.setenv("PLEO_TRANSPORT", wanted)
        with Client(api_key=API_KEY) as client:
            assert kind_of(client) == kind

    def test_an_unknown_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Any other name gives 78, and both names."""
        monkeypatch.setenv("PLEO_TRANSPORT", "requests")
        with pytest.raises(
            ConfigurationError, match=r"PLEO_TRANSPORT is 'requests'; it can be httpx or curl"
        ):
            Client(api_key=API_KEY)

    def test_not_installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without the extra, httpx is used; asked for by name, the fast transport gives 78 and says what to install."""
        monkeypatch.setitem(sys.modules, "pycurl", None)
        monkeypatch.delitem(sys.modules, "pleo_extract.client.via_curl", raising=False)
        with Client(api_key=API_KEY) as client:
            assert kind_of(client) == "HttpcoreTransport"
        monkeypatch.setenv("PLEO_TRANSPORT", "curl")
        with pytest.raises(ConfigurationError, match=r"pip install 'pleo-extract\[fast\]'"):
            Client(api_key=API_KEY)

    @pytest.mark.parametrize(
        ("version", "number", "tls"),
        [("7.88.1", 0x075801, "OpenSSL/3.0"), ("8.23.0", 0x081700, "GnuTLS/3.8")],
    )
    def test_another_libcurl(
        self, monkeypatch: pytest.MonkeyPatch, version: str, number: int, tls: str
    ) -> None:
        """A libcurl that these tests have not seen is not used: too old, or with another TLS library."""
        monkeypatch.setattr(pycurl, "version_info", lambda: (11, version, number, "Linux", 0, tls, 0, "", ()))
        with Client(api_key=API_KEY) as client:
            assert kind_of(client) == "HttpcoreTransport"
        monkeypatch.setenv("PLEO_TRANSPORT", "curl")
        with pytest.raises(ConfigurationError, match=r"it needs libcurl 8\.23 and OpenSSL"):
            Client(api_key=API_KEY)

    def test_socks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A SOCKS proxy needs a package of httpx, whatever else is installed."""
        monkeypatch.setenv("PLEO_TRANSPORT", "curl")
        with pytest.raises(ConfigurationError, match=r"SOCKS proxy needs one more package: pip install"):
            Client(api_key=API_KEY, proxy="socks5://127.0.0.1:9")
