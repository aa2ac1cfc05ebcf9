"""The default transport: httpcore, the connection pool of httpx.

httpx wraps this pool in objects of its own, which cost a third of the CPU time of a request and half of the time to
import it, and hide the network backend that a deadline needs. So the pool is used as it is: its network backend, its
list of connections and the stream of an answer are public.

A `_Stream` does two things beyond its socket. It keeps to the limit of the request that this thread has sent, at every
read. And it never hands out a byte beyond an answer: a read ends with the first blank line, and in a body whose length is
known with its last byte. Both are where an answer can end, so what follows it stays in the stream. The pool asks each idle
connection whether it has something to read, and drops it if so. `client/wire.py` reads the body of an answer from it.
"""

from __future__ import annotations

import math
import re
import ssl
import threading
import time
from concurrent.futures import Future, wait
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import unquote

import certifi
import httpcore

from pleo_extract.client.transport import KEPT_SECONDS, join_headers, translated
from pleo_extract.signals import TICK

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from urllib.parse import SplitResult

    from pleo_extract.client.server import Server
    from pleo_extract.client.transport import Limit, Request

__all__ = ["HttpcoreTransport"]

BLANK_LINE: Final = re.compile(rb"\n\r?\n")
"""The end of a head, of a chunked body, and of its trailers."""
FOREIGN: Final = (
    httpcore.TimeoutException,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.ProxyError,
    httpcore.UnsupportedProtocol,
    httpcore.ConnectionNotAvailable,
)
"""All errors of httpcore; they have no common root."""


class _Current(threading.local):
    limit: Limit


_current: Final = _Current()
"""The limit of the request that this thread has sent: a pool hands no more than timeouts down to its streams."""


class HttpcoreTransport:
    """A transport over connections of httpcore.

    Args:
        server: the base URL.
        in_flight: the most connections.
        ca_file: certificates to trust instead of the usual ones.
        proxy: the proxy to use.

    Raises:
        OSError: the CA file cannot be used.
        RuntimeError: the proxy is a SOCKS proxy, and the package for those is not installed.
    """

    is_networked = True

    def __init__(
        self, server: Server, in_flight: int, ca_file: str | None, proxy: SplitResult | None
    ) -> None:
        self._server = server
        secure = "https" in (server.scheme, proxy.scheme if proxy else "")
        # Loading the certificates takes 20 ms, which a server on this machine need not wait for.
        tls = ssl.create_default_context(cafile=ca_file or certifi.where()) if secure or ca_file else None
        self._pool = _open_pool(in_flight, tls, proxy)

    def send(self, request: Request) -> _Reply:
        """Send a request; return when the head of the answer is complete."""
        limit = _current.limit = request.limit
        timeouts = {"connect": limit.connect, "read": limit.read, "write": limit.read, "pool": limit.left()}
        server = self._server
        headers = [(b"Host", server.netloc.encode())]
        headers += [(name.encode(), value.encode()) for name, value in request.headers.items()]
        url = httpcore.URL(
            scheme=server.scheme, host=server.ascii_host, port=server.port, target=request.target
        )
        asked = httpcore.Request("GET", url, headers=headers, extensions={"timeout": timeouts})
        return _Reply(translated(lambda: self._pool.handle_request(asked), FOREIGN))

    def drop_idle(self) -> None:
        """Close all connections that carry no request now."""
        for connection in self._pool.connections:
            if connection.is_idle():
                connection.close()

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()


class _Reply:
    def __init__(self, answer: httpcore.Response) -> None:
        self.status = answer.status
        self.headers: Mapping[str, str] = join_headers(answer.headers)
        self._answer = answer
        length = self.headers.get("content-length", "")
        if length.isdecimal() and "transfer-encoding" not in self.headers:
            answer.extensions["network_stream"].expect(int(length))

    def receive(self) -> Iterator[bytes]:
        pieces = iter(cast("Iterable[bytes]", self._answer.stream))
        while piece := translated(lambda: next(pieces, b""), FOREIGN):
            yield piece

    def close(self) -> None:
        self._answer.close()


def _open_pool(
    in_flight: int, tls: ssl.SSLContext | None, proxy: SplitResult | None
) -> httpcore.ConnectionPool:
    limits: dict[str, Any] = {"max_connections": in_flight, "max_keepalive_connections": in_flight}
    if proxy is None:
        return httpcore.ConnectionPool(
            tls, keepalive_expiry=KEPT_SECONDS, network_backend=_Network(), **limits
        )
    url = httpcore.URL(scheme=proxy.scheme, host=proxy.hostname or "", port=proxy.port, target="/")
    auth = (unquote(proxy.username or "").encode(), unquote(proxy.password or "").encode())
    more: dict[str, Any] = {"proxy_ssl_context": tls} if proxy.scheme == "https" else {}
    kind = httpcore.HTTPProxy if proxy.scheme in ("http", "https") else httpcore.SOCKSProxy
    return kind(
        url,
        auth if any(auth) else None,
        ssl_context=tls,
        keepalive_expiry=KEPT_SECONDS,
        network_backend=_Network(),
        **limits,
        **more,
    )


class _Network(httpcore.SyncBackend):
    """The network of a pool, whose connections are `_Stream`s."""

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> _Stream:
        """Connect, or raise when the time is up or the session was stopped."""
        # The C library looks up a name without a timeout and deaf to signals, and httpcore gives each address of a host
        # the whole timeout. So a thread of its own does both, and is left behind if it comes too late.
        limit = _current.limit
        left = limit.left(timeout, "ConnectTimeout")
        connected: Future[httpcore.NetworkStream] = Future()

        def connect() -> None:
            try:
                connected.set_result(
                    super(_Network, self).connect_tcp(host, port, left, local_address, socket_options)
                )
            except BaseException as exc:  # noqa: BLE001 - carried to the thread that waits, and raised there
                connected.set_exception(exc)

        threading.Thread(target=connect, name="connect", daemon=True).start()
        end = time.monotonic() + left
        try:
            while not connected.done():
                wait([connected], min(TICK, limit.left(end - time.monotonic(), "ConnectTimeout")))
        except BaseException:
            connected.add_done_callback(_close_late)
            raise
        return _Stream(connected.result())


def _close_late(connected: Future[httpcore.NetworkStream]) -> None:
    """Close a connection that was established too late."""
    if connected.exception() is None:
        connected.result().close()


class _Stream(httpcore.NetworkStream):
    """A connection that keeps to the limit of the request of its thread, and reads no further than its answer.

    Attributes:
        _held: bytes that have arrived and that nobody was given.
        _tail: the last bytes that were given, in which a blank line may have begun; None if no answer is expected here.
        _rest: how many bytes of a body are still to come; None where a blank line ends what is read.
    """

    def __init__(self, inner: httpcore.NetworkStream) -> None:
        self._inner = inner
        self._held = b""
        self._tail: bytes | None = None
        self._rest: int | None = None

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> _Stream:
        """Do the TLS handshake. It ends with its timeout; a stop does not interrupt it."""
        left = _current.limit.left(timeout, "ConnectTimeout")
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, left))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send these bytes."""
        if buffer.startswith(
            b"GET "
        ):  # not what is said to a SOCKS proxy, whose answer may hold what looks like blank lines
            self._tail, self._rest = b"", None
        self._inner.write(buffer, timeout=_current.limit.left(timeout, "WriteTimeout"))

    def expect(self, length: int) -> None:
        """Give out this many bytes more, the body of the present answer."""
        self._rest = length

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Return the next bytes of the answer, or raise when the time is up or the session was stopped."""
        data = self._held or self._receive(max_bytes, timeout)
        end = self._find_end(data)
        self._held = data[end:]
        return data[:end]

    def _find_end(self, data: bytes) -> int:
        """Return how many of these bytes to give out."""
        if self._rest is not None:
            end = min(len(data), self._rest)
            self._rest -= end
            return end
        if self._tail is None:
            return len(data)
        found = BLANK_LINE.search(self._tail + data)
        end = len(data) if found is None else found.end() - len(self._tail)
        self._tail = b"" if found else (self._tail + data)[-2:]
        return end

    def _receive(self, size: int, timeout: float | None) -> bytes:
        end = math.inf if timeout is None else time.monotonic() + timeout
        while True:
            left = _current.limit.left(end - time.monotonic())
            # If nothing comes within the tick, the limit decides whether to wait longer.
            with suppress(httpcore.ReadTimeout):
                return self._inner.read(size, timeout=min(left, TICK))

    def close(self) -> None:
        """Close the connection."""
        self._inner.close()

    def get_extra_info(self, info: str) -> Any:
        """Return a fact about the connection; for ``is_readable`` also whether bytes are held."""
        return (info == "is_readable" and bool(self._held)) or self._inner.get_extra_info(info)
