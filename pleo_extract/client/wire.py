"""The bytes of one answer: how long they may take, how many there may be, and what may follow them.

What this file promises, and how each promise is kept:

- *Every phase of a request ends.* A server decides how its answer arrives, and a timeout of the socket begins again with
  each read: a head that drips one byte a second, 1xx answers, empty gzip blocks or trailers without end never reach it.
  So `limit_time` sets an instant and a stop event for this thread, and `DeadlineNetwork` checks both at every read.
- *A page takes bounded memory.* `read_body` counts bytes as they arrive and as they unpack, and unpacks slice by slice:
  one chunk of a gzip bomb is 64 MiB.
- *No answer is taken for another one.* `drop_surplus` closes a connection that holds bytes after a complete answer, since
  the next request on it would read them as its own answer.
"""

from __future__ import annotations

import math
import threading
import time
import zlib
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, cast

import httpcore
import httpx

from pleo_extract.client.answer import Retryable
from pleo_extract.errors import PageError, PageTooLarge, Stopped, escape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

__all__ = ["LARGEST_ERROR", "LARGEST_PAGE", "DeadlineNetwork", "drop_surplus", "limit_time", "read_body"]

LARGEST_PAGE: Final = 128 * 2**20
"""The most bytes of one page, received and decompressed: 100 rows with a megabyte of text each fit."""
LARGEST_ERROR: Final = 64 * 2**10
"""The most bytes of any other answer; the rest is not read."""
STEEPEST: Final = 1_000
"""The most decompressed bytes for each received byte. Text shrinks to a tenth; only a bomb comes near gzip's limit of 1,032."""
UNSUSPICIOUS: Final = 2**20
"""Up to this many decompressed bytes the ratio proves nothing."""
SLICE: Final = 2**20
"""The most bytes to decompress in one step."""
TICK: Final = 0.25
"""Seconds after which a thread that waits for bytes checks whether its session was stopped."""
GZIP: Final = 16 + zlib.MAX_WBITS
MEMBER: Final = b"\x1f\x8b"
"""The first bytes of each member of a gzip file (RFC 1952)."""
LAST_CALL: Final = 1.5
"""Seconds that an answer may still take after its session was stopped, so that the next run need not ask for it again.

Without this, a busy machine lost the pages of all threads. It is shorter than `workers.PATIENCE`, which waits for it."""


class _Limit(threading.local):
    """The limit of this thread: an instant, a stop event, and when this thread first saw the event set."""

    until = math.inf
    stop: threading.Event | None = None
    stopped_at: float | None = None


_limit: Final = _Limit()


@contextmanager
def limit_time(seconds: float, stop: threading.Event | None = None) -> Iterator[None]:
    """End what this thread sends and reads in the `with` block after this many seconds, or soon after `stop` is set."""
    before = _limit.until, _limit.stop, _limit.stopped_at
    _limit.until, _limit.stop, _limit.stopped_at = time.monotonic() + seconds, stop, None
    try:
        yield
    finally:
        _limit.until, _limit.stop, _limit.stopped_at = before


class DeadlineNetwork:
    """A network of httpcore, or a stream of it, that keeps to the limit of the thread that uses it."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def connect_tcp(self, *args: Any, timeout: float | None = None, **more: Any) -> DeadlineNetwork:
        """Connect, or raise when the time is up or the session was stopped."""
        # The C library looks up a name without a timeout and deaf to signals, and httpcore gives each address of a host
        # the whole timeout. So a thread of its own does both, and is left behind if it comes too late.
        left = _left(timeout, httpcore.ConnectTimeout)
        connected: Future[Any] = Future()

        def connect() -> None:
            try:
                connected.set_result(self._inner.connect_tcp(*args, timeout=left, **more))
            except BaseException as exc:  # noqa: BLE001 - carried to the thread that waits, and raised there
                connected.set_exception(exc)

        threading.Thread(target=connect, name="connect", daemon=True).start()
        end = time.monotonic() + left
        try:
            while not connected.done():
                wait([connected], min(TICK, _left(end - time.monotonic(), httpcore.ConnectTimeout)))
        except BaseException:
            connected.add_done_callback(_close_late)
            raise
        return DeadlineNetwork(connected.result())

    def start_tls(self, *args: Any, timeout: float | None = None, **more: Any) -> DeadlineNetwork:
        """Do the TLS handshake. It ends with its timeout; a stop does not interrupt it."""
        left = _left(timeout, httpcore.ConnectTimeout)
        return DeadlineNetwork(self._inner.start_tls(*args, timeout=left, **more))

    def read(self, size: int, timeout: float | None = None) -> bytes:
        """Return the next bytes, or raise when the time is up or the session was stopped."""
        end = math.inf if timeout is None else time.monotonic() + timeout
        while True:
            left = _left(end - time.monotonic(), httpcore.ReadTimeout)
            # If nothing comes within the tick, `_left` decides whether to wait longer.
            with suppress(httpcore.ReadTimeout):
                data: bytes = self._inner.read(size, timeout=min(left, TICK))
                return data

    def write(self, data: bytes, timeout: float | None = None) -> None:
        """Send these bytes."""
        self._inner.write(data, timeout=_left(timeout, httpcore.WriteTimeout))


def _close_late(connected: Future[Any]) -> None:
    """Close a connection that was established too late."""
    if connected.exception() is None:
        connected.result().close()


def _left(timeout: float | None, late: type[Exception]) -> float:
    """Return the seconds left of this timeout and of the thread's limit; raise `late` if there are none."""
    now = time.monotonic()
    if _limit.stop is not None and _limit.stop.is_set():
        _limit.stopped_at = now if _limit.stopped_at is None else _limit.stopped_at
        if now >= _limit.stopped_at + LAST_CALL:
            raise Stopped("this run was stopped")
    left = min(math.inf if timeout is None else timeout, _limit.until - now)
    if left <= 0:
        raise late("the answer came too slowly")
    return left


def read_body(response: httpx.Response, headers: Mapping[str, str], is_late: Callable[[], bool]) -> bytes:
    """Return the body, decompressed; of anything but a page, only as much as a message may quote.

    Args:
        response: the answer, whose body was not read yet.
        headers: its headers.
        is_late: returns whether the request is out of time.

    Raises:
        PageTooLarge: a page has more than `LARGEST_PAGE` bytes.
        PageError: a page is a bomb.
        Retryable: a page cannot be decompressed.
        httpx.ReadTimeout: the request is out of time.
    """
    is_page = response.status_code == httpx.codes.OK
    encoding = headers.get("content-encoding", "").strip().lower()
    # Any other encoding, or several, would unpack a bomb within one chunk.
    if encoding not in ("", "identity", "gzip"):
        if not is_page:
            return b""
        raise Retryable(
            "bad body", PageError(f"the body is compressed as {escape(encoding)}, which nobody asked for")
        )
    body = _Body(LARGEST_PAGE if is_page else LARGEST_ERROR, packed=encoding == "gzip")
    try:
        for chunk in cast("Iterable[bytes]", response.stream):
            body.add(chunk)
            if is_late():
                raise httpx.ReadTimeout("the answer came too slowly")
            if body.is_done():
                break
    except zlib.error:
        body.is_broken = True
    if is_page:
        body.check()
    return bytes(body.data)


class _Body:
    """A body that is arriving.

    Args:
        most: the most bytes to keep.
        packed: whether it is compressed with gzip.
    """

    def __init__(self, most: int, *, packed: bool) -> None:
        self.data = bytearray()
        self.is_broken = False
        self._most = most
        self._received = 0
        self._unpacked = 0
        self._gzip = zlib.decompressobj(GZIP) if packed else None

    def add(self, chunk: bytes) -> None:
        """Add the next bytes, decompressed; keep at most one byte more than the limit."""
        self._received += len(chunk)
        if self._gzip is None:
            self.data += chunk
            return
        # Slice by slice: one chunk of a bomb unpacks to 64 MiB, and eight threads may get one at the same time.
        part = b" "
        while part and not self.is_done():
            part = self._gzip.decompress(chunk, min(SLICE, self._most + 1 - len(self.data)))
            chunk = self._gzip.unconsumed_tail
            self._unpacked = self._received - len(chunk)
            self.data += part
            if self._gzip.unused_data[:2] == MEMBER:  # a gzip may have several members (RFC 1952)
                chunk, part = self._gzip.unused_data, b" "
                self._gzip = zlib.decompressobj(GZIP)

    def is_done(self) -> bool:
        """Return whether to read no further: the body is too large, or other bytes follow the end of the gzip."""
        is_followed = self._gzip is not None and not MEMBER.startswith(self._gzip.unused_data)
        return self._is_too_much() or self._is_bomb() or is_followed

    def _is_too_much(self) -> bool:
        return max(len(self.data), self._received) > self._most

    def _is_bomb(self) -> bool:
        return self._gzip is not None and len(self.data) > max(UNSUSPICIOUS, STEEPEST * self._unpacked)

    def check(self) -> None:
        """Raise if this cannot be a page.

        Raises:
            PageTooLarge: it is too large.
            PageError: it is a bomb.
            Retryable: it is damaged or cut short.
        """
        if self._is_bomb():
            raise PageError(f"a page unpacks to more than {STEEPEST} times its size; the rest was not read")
        if self._is_too_much():
            raise PageTooLarge(
                f"a page has more than {self._most} bytes after decoding; the rest was not read"
            )
        if self.is_broken or (self._gzip is not None and self._received and not self._gzip.eof):
            raise Retryable("bad body", PageError("the body cannot be decompressed"))


def drop_surplus(response: httpx.Response) -> None:
    """Close the connection of a complete answer if more bytes have arrived on it.

    The next request on this connection would take them for its answer. Bytes that arrive later are noticed by httpcore,
    which drops an idle connection that has something to read.
    """
    # httpx and httpcore offer no way to the connection and its parser; a test fails if these attributes go.
    stream: Any = response.stream
    for name in ("_httpcore_stream", "_stream", "_connection", "_h11_state"):
        stream = getattr(stream, name, None)
    if stream is not None and stream.trailing_data[0]:
        response.extensions["network_stream"].close()
