"""The fast transport: libcurl through pycurl, with the extra ``fast``. A request costs less than half of httpcore's.

Theory of operation. A `_Line` is one connection: an easy handle, which holds the options, and a multi handle, which drives
it. `perform` does what can be done without waiting, `select` waits for the socket, and between the two this file looks at
the limit, every `TICK` at the latest. libcurl could do the waiting itself, but then a stop, or Ctrl-C in a notebook, would
find it deaf.

libcurl hands over head and body through callbacks. All are methods of C (`list.append`, `BytesIO.write`), so no Python
code runs inside libcurl: pycurl prints an exception of a callback and forgets it, KeyboardInterrupt too.

Names are looked up here, in a thread that can be left behind, since the C library looks them up without a timeout.

libcurl closes a connection on which bytes follow an answer of known length. After a last chunk it throws them away and says
so in its log only, which is why this file listens to that. What arrives later, `is_silent` finds. libcurl refuses heads and
trailers of more than 300 kB, 1xx answers included.
"""

from __future__ import annotations

import io
import ipaddress
import os
import select
import socket
import ssl
import threading
import time
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

import certifi
import pycurl

from pleo_extract.client.transport import KEPT_SECONDS, Failure, join_headers
from pleo_extract.signals import TICK

if TYPE_CHECKING:
    from collections.abc import Iterator
    from urllib.parse import SplitResult

    from pleo_extract.client.server import Server
    from pleo_extract.client.transport import Limit, Request

__all__ = ["CurlTransport", "find_problem"]

OLDEST: Final = 0x081700
"""The oldest libcurl that is used, 8.23: the one that the tests of the transports have seen."""
RECEIVED: Final = 256 * 2**10
"""The bytes that libcurl receives at a time."""
BRIEF: Final = 0.01
"""Seconds to sleep where there is no socket to wait for."""
LEFTOVERS: Final = b"Leftovers after chunking"
"""How libcurl logs that bytes follow a last chunk."""
SUPPRESS_CONNECT_HEADERS: Final = 265
"""An option that pycurl has no name for: the head of a proxy's answer to CONNECT is not handed out."""
NAMES: Final = {
    pycurl.E_COULDNT_RESOLVE_HOST: "ConnectError",
    pycurl.E_COULDNT_RESOLVE_PROXY: "ConnectError",
    pycurl.E_COULDNT_CONNECT: "ConnectError",
    pycurl.E_SSL_CONNECT_ERROR: "ConnectError",
    pycurl.E_SEND_ERROR: "WriteError",
}
"""httpx's names for the errors of libcurl; any other is a RemoteProtocolError."""


def find_problem() -> str:
    """Return why libcurl cannot be used; "" if it can."""
    _, version, number, _, _, tls, *_ = pycurl.version_info()
    if number < OLDEST or not tls.startswith("OpenSSL"):
        return f"pycurl is built with libcurl {version} and {tls}; it needs libcurl 8.23 and OpenSSL"
    return ""


class CurlTransport:
    """A transport over connections of libcurl.

    Args:
        server: the base URL.
        ca_file: certificates to trust instead of the usual ones.
        proxy: the proxy to use, over HTTP or HTTPS.

    Raises:
        OSError: the CA file cannot be used.
    """

    is_networked = True

    def __init__(self, server: Server, ca_file: str | None, proxy: SplitResult | None) -> None:
        if ca_file is not None:  # libcurl would read it with the first request
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(ca_file)
        self._server = server
        self._ca_file = ca_file or certifi.where()
        self._proxy = proxy
        self._idle: list[_Line] = []

    def send(self, request: Request) -> _Reply:
        """Send a request; return when the head of the answer is complete."""
        line = self._take_idle() or self._open_line(request.limit)
        try:
            status, headers = line.start(f"{self._origin}{request.target}", request)
        except BaseException:
            line.close()
            raise
        return _Reply(line, self._idle, request.limit, status, headers)

    def drop_idle(self) -> None:
        """Close all connections that carry no request now."""
        while self._idle:
            self._idle.pop().close()

    close = drop_idle

    @property
    def _origin(self) -> str:
        return f"{self._server.scheme}://{self._server.netloc}"

    def _take_idle(self) -> _Line | None:
        """Return a connection that is open and silent."""
        while True:
            try:
                line = self._idle.pop()
            except IndexError:  # no look before the leap: another thread may take the last one
                return None
            if line.is_silent():
                return line
            line.close()

    def _open_line(self, limit: Limit) -> _Line:
        server, proxy = self._server, self._proxy
        if proxy is None:
            host, port = server.ascii_host, server.port or (443 if server.scheme == "https" else 80)
        else:
            host, port = proxy.hostname or "", proxy.port or (443 if proxy.scheme == "https" else 80)
        return _Line(self._ca_file, proxy, _look_up(host, port, limit))


class _Reply:
    def __init__(
        self, line: _Line, idle: list[_Line], limit: Limit, status: int, headers: dict[str, str]
    ) -> None:
        self.status = status
        self.headers = headers
        self._line = line
        self._idle = idle
        self._limit = limit

    def receive(self) -> Iterator[bytes]:
        return self._line.receive(self._limit)

    def close(self) -> None:
        if self._line.is_over:
            self._idle.append(self._line)
        else:
            self._line.close()


def _look_up(host: str, port: int, limit: Limit) -> list[str]:
    """Return the addresses of a host in libcurl's form; nothing if the host is an address."""
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        pass
    else:
        return []
    found: Future[Any] = Future()

    def look_up() -> None:
        try:
            found.set_result(socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM))
        except BaseException as exc:  # noqa: BLE001 - carried to the thread that waits, and raised there
            found.set_exception(exc)

    threading.Thread(target=look_up, name="look up", daemon=True).start()
    end = time.monotonic() + limit.connect
    while not found.done():
        wait([found], min(TICK, limit.left(end - time.monotonic(), "ConnectTimeout")))
    failed = found.exception()
    if failed is not None:
        raise Failure("ConnectError", str(failed))
    addresses = dict.fromkeys(str(address[0]) for *_, address in found.result())
    joined = ",".join(f"[{address}]" if ":" in address else address for address in addresses)
    return [f"{host}:{port}:{joined}"]


def _refuse(*_: object) -> int:
    """Open no socket."""
    return pycurl.SOCKET_BAD


class _Line:
    """One connection, and never a second one: libcurl would send a request again by itself, which no limit would count.

    Attributes:
        is_over: whether the answer has arrived whole, and the next request may be sent.
    """

    def __init__(self, ca_file: str, proxy: SplitResult | None, addresses: list[str]) -> None:
        self.is_over = True
        self._silent_until = 0.0
        self._socket = -1
        self._is_followed = False
        self._said: list[bytes] = []
        self._head: list[bytes] = []
        self._body = io.BytesIO()
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_MAXCONNECTS, 1)
        self._easy = easy = pycurl.Curl()
        for option, value in (
            (pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS),
            (pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1),
            (pycurl.PATH_AS_IS, 1),
            (pycurl.NOSIGNAL, 1),
            (pycurl.TCP_NODELAY, 1),
            (pycurl.BUFFERSIZE, RECEIVED),
            (pycurl.HEADERFUNCTION, self._head.append),
            (pycurl.WRITEFUNCTION, self._body.write),
            (SUPPRESS_CONNECT_HEADERS, 1),
            (pycurl.DEBUGFUNCTION, self._said.insert),
            (pycurl.VERBOSE, 1),
            (pycurl.RESOLVE, addresses),
            (pycurl.CAINFO, os.fsencode(ca_file)),
            # Empty texts switch off what libcurl takes from the environment.
            (pycurl.PROXY, ""),
            (pycurl.NOPROXY, ""),
        ):
            easy.setopt(option, value)
        # The folders of certificates that were compiled in would be trusted beside the file.
        easy.unsetopt(pycurl.CAPATH)
        easy.unsetopt(pycurl.PROXY_CAPATH)
        if proxy is not None:
            self._set_proxy(proxy, ca_file)

    def _set_proxy(self, proxy: SplitResult, ca_file: str) -> None:
        easy = self._easy
        host = proxy.netloc.rpartition("@")[2]
        easy.setopt(pycurl.PROXY, f"{proxy.scheme}://{host}")
        easy.setopt(pycurl.PROXYPORT, proxy.port or (443 if proxy.scheme == "https" else 80))
        easy.setopt(pycurl.PROXY_CAINFO, os.fsencode(ca_file))
        easy.setopt(pycurl.PROXYAUTH, pycurl.HTTPAUTH_BASIC)
        if proxy.username or proxy.password:
            easy.setopt(pycurl.PROXYUSERNAME, unquote(proxy.username or "").encode())
            easy.setopt(pycurl.PROXYPASSWORD, unquote(proxy.password or "").encode())

    def start(self, url: str, request: Request) -> tuple[int, dict[str, str]]:
        """Send a request; return status and headers of the answer when they are complete."""
        easy = self._easy
        easy.setopt(pycurl.URL, url)
        easy.setopt(pycurl.HTTPHEADER, [f"{name}: {value}" for name, value in request.headers.items()])
        easy.setopt(pycurl.CONNECTTIMEOUT_MS, int(request.limit.connect * 1000))
        self._head.clear()
        self._multi.add_handle(easy)
        self.is_over = False
        self._silent_until = time.monotonic() + request.limit.read
        status, fields = 0, None  # no fields: a status line comes next
        while True:
            self._perform()
            if self._head:
                self._silent_until = time.monotonic() + request.limit.read
            for line in self._head:
                if fields is None:
                    status, fields = int(line.split(None, 2)[1]), list[tuple[bytes, bytes]]()
                elif line.strip():
                    name, _, value = line.partition(b":")
                    fields.append((name.strip(), value.strip()))
                elif status < 200:
                    fields = None
                else:
                    return status, join_headers(fields)
            self._head.clear()
            if self.is_over:
                raise Failure("RemoteProtocolError", "the answer has no head")
            self._wait(request.limit)

    def receive(self, limit: Limit) -> Iterator[bytes]:
        """Return the body in pieces."""
        while True:
            self._head.clear()  # trailers
            if piece := self._body.getvalue():
                self._body.seek(0)
                self._body.truncate()
                self._silent_until = time.monotonic() + limit.read
                yield piece
            elif self.is_over:
                return
            else:
                self._wait(limit)
                self._perform()

    def is_silent(self) -> bool:
        """Return whether the connection is open and nothing has arrived on it since the answer."""
        if self._is_followed or self._socket < 0 or time.monotonic() > self._silent_until:
            return False
        # libcurl looks only if the last request was more than a second ago.
        waiting = select.poll()
        waiting.register(self._socket, select.POLLIN)
        return not waiting.poll(0)

    def close(self) -> None:
        """Close the connection."""
        self._multi.close()
        self._easy.close()

    def _perform(self) -> None:
        """Do what can be done without waiting. Raise Failure if the request has failed."""
        self._multi.perform()
        self._is_followed |= any(said.startswith(LEFTOVERS) for said in self._said)
        self._said.clear()  # the headers are among it
        _, done, failed = self._multi.info_read()
        if done:
            self._socket = self._easy.getinfo(pycurl.ACTIVESOCKET)
            self._silent_until = time.monotonic() + KEPT_SECONDS
            self._easy.setopt(pycurl.OPENSOCKETFUNCTION, _refuse)
            self._multi.remove_handle(self._easy)
            self.is_over = True
        for _, code, text in failed:
            raise Failure(*self._describe(code, text))

    def _wait(self, limit: Limit) -> None:
        """Wait until something can be done, for a tick at most."""
        seconds = limit.left(self._silent_until - time.monotonic(), self._name_timeout())
        asked = self._multi.timeout()
        if asked >= 0:
            seconds = min(seconds, asked / 1000)
        if self._multi.select(min(seconds, TICK)) < 0:  # no socket that `select` can wait for
            time.sleep(min(seconds, BRIEF))

    def _name_timeout(self) -> str:
        return "ReadTimeout" if self._easy.getinfo(pycurl.PRETRANSFER_TIME) else "ConnectTimeout"

    def _describe(self, code: int, text: str) -> tuple[str, str]:
        """Return the name and the text of a failure."""
        easy = self._easy
        if self._socket >= 0 and code == pycurl.E_COULDNT_CONNECT:
            return "ReadError", "the server closed the connection before it answered"
        if easy.getinfo(pycurl.HTTP_CONNECTCODE) >= 300:
            return "ProxyError", f"the proxy answered {easy.getinfo(pycurl.HTTP_CONNECTCODE)}"
        if code == pycurl.E_PEER_FAILED_VERIFICATION:
            is_for_another = "subject name" in text
            return "CertificateError", f"Hostname mismatch: {text}" if is_for_another else text
        if code == pycurl.E_OPERATION_TIMEDOUT:  # the only time that libcurl itself was given
            return "ConnectTimeout", text
        errno = easy.getinfo(pycurl.OS_ERRNO)
        if errno:
            text = f"[Errno {errno}] {os.strerror(errno)}"
        if code == pycurl.E_RECV_ERROR and errno:
            return "ReadError", text
        return NAMES.get(code, "RemoteProtocolError"), text
