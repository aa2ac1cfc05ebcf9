"""The bytes of one answer: how long they may take, how many they may be, and what may follow them.

A server decides how an answer arrives, so no phase of it is trusted to end. `limit_time` sets a time and an event for
the thread that asks; every read of the network looks at both, whatever the bytes are for: answers 1xx without end, a
head that drips, chunks, trailers. `read_body` counts bytes as they come and as they unpack. `drop_surplus` closes a
connection on which more came than was asked for, since the next request would take that for its answer.
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
from pleo_extract.errors import PageError, Stopped, escape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

__all__ = ["LARGEST_ERROR", "LARGEST_PAGE", "DeadlineNetwork", "drop_surplus", "limit_time", "read_body"]

LARGEST_PAGE: Final = 128 * 2**20
"""Bytes of one page, as received and as decoded: 100 rows with a megabyte of text each fit."""
LARGEST_ERROR: Final = 64 * 2**10
"""Bytes of any other answer; what is beyond is not read."""
STEEPEST: Final = 1_000
"""Decoded bytes for each byte received. Text packs to a tenth; only a bomb comes near the 1,032 that gzip can do."""
UNSUSPICIOUS: Final = 2**20
"""Decoded bytes below which the ratio says nothing."""
SLICE: Final = 2**20
"""Bytes that are unpacked at once."""
TICK: Final = 0.25
"""Seconds after which a thread that waits for bytes looks whether its run was stopped."""
GZIP: Final = 16 + zlib.MAX_WBITS
MEMBER: Final = b"\x1f\x8b"
"""How each member of a gzip begins."""
LAST_CALL: Final = 1.5
"""Seconds that an answer under way may take to its end once its run was stopped, so that it is kept and not asked for
again; less than who reads waits for it."""


class _Limit(threading.local):
    until = math.inf
    stop: threading.Event | None = None
    stopped_at: float | None = None


_limit: Final = _Limit()


@contextmanager
def limit_time(seconds: float, stop: threading.Event | None = None) -> Iterator[None]:
    """End what this thread sends and reads within after so many seconds, or soon after `stop` is set."""
    before = _limit.until, _limit.stop, _limit.stopped_at
    _limit.until, _limit.stop, _limit.stopped_at = time.monotonic() + seconds, stop, None
    try:
        yield
    finally:
        _limit.until, _limit.stop, _limit.stopped_at = before


class DeadlineNetwork:
    """A network, or a stream of it, that keeps to the limit of the thread that uses it, however its bytes come.

    A timeout of the socket alone would not do: it begins again with each read, and a server that always has a few
    bytes more never runs into it.
    """

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def connect_tcp(self, *args: Any, timeout: float | None = None, **more: Any) -> DeadlineNetwork:
        """Connect, or raise once the time is up or the run was stopped."""
        # Looking up a name heeds no timeout and no signal, and each address of a host has the whole timeout to itself.
        # So a thread of its own does both, and is left behind when it comes too late.
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
            connected.add_done_callback(_hang_up)
            raise
        return DeadlineNetwork(connected.result())

    def start_tls(self, *args: Any, timeout: float | None = None, **more: Any) -> DeadlineNetwork:
        """Shake hands over TLS; where that is under way it ends with its timeout, not with the run."""
        left = _left(timeout, httpcore.ConnectTimeout)
        return DeadlineNetwork(self._inner.start_tls(*args, timeout=left, **more))

    def read(self, size: int, timeout: float | None = None) -> bytes:
        """Return what comes next, or raise once the time is up or the run was stopped."""
        end = math.inf if timeout is None else time.monotonic() + timeout
        while True:
            left = _left(end - time.monotonic(), httpcore.ReadTimeout)
            # Nothing came within the tick: the wait goes on, unless the run was stopped or the time is up.
            with suppress(httpcore.ReadTimeout):
                data: bytes = self._inner.read(size, timeout=min(left, TICK))
                return data

    def write(self, data: bytes, timeout: float | None = None) -> None:
        """Send these bytes."""
        self._inner.write(data, timeout=_left(timeout, httpcore.WriteTimeout))


def _hang_up(connected: Future[Any]) -> None:
    """Close a connection that came too late."""
    if connected.exception() is None:
        connected.result().close()


def _left(timeout: float | None, late: type[Exception]) -> float:
    """Return the seconds that are left of this timeout and of the thread's limit; raise `late` where none are."""
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
    """Return the body, unpacked as the headers say; of anything but a page no more than is worth showing.

    Raises:
        PageError: more than `LARGEST_PAGE` bytes, or a bomb. Again: it cannot be unpacked.
        httpx.ReadTimeout: it took longer than allowed.
    """
    is_page = response.status_code == httpx.codes.OK
    encoding = headers.get("content-encoding", "").strip().lower()
    if encoding not in ("", "identity", "gzip"):  # others, or several, unpack a bomb within one chunk
        if not is_page:
            return b""
        raise Retryable(
            "bad body", PageError(f"the body is packed as {escape(encoding)}, which nobody asked for")
        )
    body = _Body(LARGEST_PAGE if is_page else LARGEST_ERROR, packed=encoding == "gzip")
    try:
        for chunk in cast("Iterable[bytes]", response.stream):
            body.add(chunk)
            if is_late():
                raise httpx.ReadTimeout("the answer came too slowly")
            if body.is_over():
                break
    except zlib.error:
        body.broken = True
    if is_page:
        body.check()
    return bytes(body.data)


class _Body:
    """A body while it arrives."""

    def __init__(self, most: int, *, packed: bool) -> None:
        self.data = bytearray()
        self.broken = False
        self._most = most
        self._received = 0
        self._unpacked = 0
        self._gzip = zlib.decompressobj(GZIP) if packed else None

    def add(self, chunk: bytes) -> None:
        """Take what came next; never more than one byte beyond the limit."""
        self._received += len(chunk)
        if self._gzip is None:
            self.data += chunk
            return
        # Slice by slice: a chunk of a bomb unpacks to 64 MiB, and several threads may get one at once.
        slice_ = b" "
        while slice_ and not self.is_over():
            slice_ = self._gzip.decompress(chunk, min(SLICE, self._most + 1 - len(self.data)))
            chunk = self._gzip.unconsumed_tail
            self._unpacked = self._received - len(chunk)
            self.data += slice_
            if self._gzip.unused_data[:2] == MEMBER:  # a gzip may be several, one behind the other (RFC 1952)
                chunk, slice_ = self._gzip.unused_data, b" "
                self._gzip = zlib.decompressobj(GZIP)

    def is_over(self) -> bool:
        """Return whether there is nothing more to read: it is too much, or bytes follow the end of the gzip."""
        is_followed = self._gzip is not None and not MEMBER.startswith(self._gzip.unused_data)
        return self._is_too_much() or self._is_bomb() or is_followed

    def _is_too_much(self) -> bool:
        return max(len(self.data), self._received) > self._most

    def _is_bomb(self) -> bool:
        return self._gzip is not None and len(self.data) > max(UNSUSPICIOUS, STEEPEST * self._unpacked)

    def check(self) -> None:
        """Raise if this can be no page."""
        if self._is_bomb():
            raise PageError(
                f"a page that unpacks to more than {STEEPEST} times its size; it was not read further"
            )
        if self._is_too_much():
            raise PageError(f"a page of more than {self._most} bytes after decoding; it was not read further")
        if self.broken or (self._gzip is not None and self._received and not self._gzip.eof):
            raise Retryable("bad body", PageError("the body cannot be decompressed"))


def drop_surplus(response: httpx.Response) -> None:
    """Close the connection of an answer that was read to its end, if more bytes have come on it.

    Nobody asked for them: the next request on this connection would take them for its answer. What comes later is
    httpcore's to notice, which drops an idle connection that has something to read.
    """
    # httpx and httpcore show neither the connection nor what its parser holds; a test fails if these names go.
    stream: Any = response.stream
    for name in ("_httpcore_stream", "_stream", "_connection", "_h11_state"):
        stream = getattr(stream, name, None)
    if stream is not None and stream.trailing_data[0]:
        response.extensions["network_stream"].close()
