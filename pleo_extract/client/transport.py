"""The protocol below the session: what carries one request to the server and its answer back.

    with open_transport(...) as transport:
        reply = transport.send(Request(target, headers, limit))     # returns when the head is complete
        body = read_body(reply, ...)                                # pulls the body, bounded in time and size
        reply.close()

A transport knows one server and nothing of retries, pace or pages. There are four: `via_httpcore` (httpx's connection
pool, the default), `via_curl` (libcurl, used where the extra ``fast`` is installed), `via_httpx` (a transport that the user
passes in) and `via_app` (an application in this process, such as the sandbox). The tests of the network run over the first
two (`each_transport` in tests/conftest.py). What each must do:

- *Send exactly this request* to the one server, or through the one proxy, that it was opened with. No redirect, no
  cookie, no `.netrc`, and nothing from the environment.
- *Keep the limit in every phase*: look-up, connection, TLS, head with any number of 1xx answers, body and trailers. A
  timeout of the socket does not do that, since it begins again with each byte. So `Limit` is checked every `signals.TICK`.
- *Hand out the body as it arrives*, not decompressed, so that its reader can bound it.
- *Take no answer for another one*: a connection that holds bytes after a complete answer carries no further request.
- *Fail with `Failure` only*, in httpx's words for what happened, without the request and its credential. A `Failure` is
  raised outside the `except` block of the library's error, which would otherwise travel along as its context.
"""

from __future__ import annotations

import math
import ssl
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol, TypeVar, runtime_checkable

from pleo_extract.errors import Stopped

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable, Iterator, Mapping

__all__ = [
    "KEPT_SECONDS",
    "Failure",
    "Limit",
    "Reply",
    "Request",
    "Transport",
    "join_headers",
    "translated",
]

T = TypeVar("T")

SHORTEST: Final = 0.05
"""The shortest timeout in seconds: a socket takes 0 for "do not block" and refuses less, which would be no timeout error."""
KEPT_SECONDS: Final = 30
"""The longest that an idle connection is kept."""
LAST_CALL: Final = 1.5
"""Seconds that an answer may still take after its session was stopped, so that the next run need not ask for it again.

Without this, a busy machine lost the pages of all threads. It is shorter than `workers.PATIENCE`, which waits for it."""


class Failure(Exception):
    """A transport got no complete answer.

    Attributes:
        name: what happened, as httpx calls it, such as ``ReadError`` or ``ConnectTimeout``; ``CertificateError`` if the
            server's certificate is not trusted.
        text: the details, which may quote the server.
    """

    def __init__(self, name: str, text: str) -> None:
        super().__init__(name)
        self.name = name
        self.text = text


def translated(call: Callable[[], T], foreign: tuple[type[Exception], ...]) -> T:
    """Return what the function returns; raise Failure in place of an error of these, the roots of a library's errors."""
    try:
        return call()
    except foreign as exc:
        failure = _describe(exc, foreign[0].__module__.partition(".")[0])
    raise failure


def _describe(exc: BaseException, library: str) -> Failure:
    """Return an error of httpx, httpcore or the like as a Failure; `library` is the name of the module that defines it."""
    cause: BaseException | None = exc
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return Failure("CertificateError", cause.verify_message)
        cause = cause.__cause__ or cause.__context__
    # A class that a user has derived from one of the library's counts as that one.
    names = (kind.__name__ for kind in type(exc).__mro__ if kind.__module__.partition(".")[0] == library)
    name, text = next(names), str(exc)
    if name == "ProxyError" and text[:3].isdigit():
        text = f"the proxy answered {text[:3]}"  # its reason phrase may repeat the proxy's password
    return Failure(name, text)


class Limit:
    """How long one request may take.

    Args:
        seconds: as a whole, from now on.
        stop: set when the session is stopped; then the request ends after `LAST_CALL`.
        connect: to connect.
        read: in silence.
    """

    def __init__(self, seconds: float, stop: threading.Event, *, connect: float, read: float) -> None:
        seconds = max(SHORTEST, seconds)
        self.connect = max(SHORTEST, min(connect, seconds))
        self.read = max(SHORTEST, min(read, seconds))
        self._until = time.monotonic() + seconds
        self._stop = stop
        self._stopped_at: float | None = None

    def left(self, timeout: float | None = None, late: str = "ReadTimeout") -> float:
        """Return the seconds left, of this timeout too.

        Raises:
            Stopped: the session was stopped, and the last call is over.
            Failure: there are none; it is named `late`.
        """
        now = time.monotonic()
        if self._stop.is_set():
            self._stopped_at = now if self._stopped_at is None else self._stopped_at
            if now >= self._stopped_at + LAST_CALL:
                raise Stopped("this run was stopped")
        left = min(math.inf if timeout is None else timeout, self._until - now)
        if left <= 0:
            raise Failure(late, "the answer came too slowly")
        return left


@dataclass(frozen=True, slots=True)
class Request:
    """A GET request.

    Attributes:
        target: the path with its query, encoded.
        headers: by name; the credential is among them.
        limit: how long it may take.
    """

    target: str
    headers: dict[str, str] = field(repr=False)
    limit: Limit


class Reply(Protocol):
    """An answer whose head is complete."""

    @property
    def status(self) -> int:
        """Return the HTTP status."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Return the headers; their names are in lower case."""
        ...

    def receive(self) -> Iterator[bytes]:
        """Return the body in pieces as they arrive, not decompressed. Raise Failure if it does not arrive whole."""
        ...

    def close(self) -> None:
        """End the answer. Its connection carries another request only if the whole body was read."""


@runtime_checkable
class Transport(Protocol):
    """What carries requests to one server. Threads share it.

    Attributes:
        is_networked: whether other processes may reach the same server, so that they share its rate limit.
    """

    is_networked: bool

    def send(self, request: Request) -> Reply:
        """Send a request; return when the head of the answer is complete.

        Raises:
            Failure: it does not arrive.
            Stopped: the session was stopped.
        """
        ...

    def drop_idle(self) -> None:
        """Close all connections that carry no request now: one of them may hold an answer that nobody asked for."""

    def close(self) -> None:
        """Close all connections."""


def join_headers(pairs: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return headers as text by their name in lower case; the values of a repeated name are joined by commas."""
    joined: dict[str, str] = {}
    for raw_name, raw_value in pairs:
        name = raw_name.decode("latin-1").lower()
        try:
            value = raw_value.decode()
        except UnicodeDecodeError:
            value = raw_value.decode("latin-1")
        joined[name] = f"{joined[name]}, {value}" if name in joined else value
    return joined
