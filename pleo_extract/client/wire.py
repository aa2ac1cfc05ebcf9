"""The body of one answer: how many bytes it may have, and how they are unpacked.

*A page takes bounded memory.* `read_body` counts bytes as they arrive and as they unpack, and unpacks slice by slice: one
chunk of a gzip bomb is 64 MiB. It is the only place where a body is read, whatever transport brings it. `client/session.py` asks for it.
"""

from __future__ import annotations

import zlib
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from pleo_extract.client.answer import Retryable
from pleo_extract.client.transport import Failure
from pleo_extract.errors import PageError, PageTooLarge, escape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from pleo_extract.client.transport import Reply

__all__ = ["LARGEST_ERROR", "LARGEST_PAGE", "read_body"]

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
PART: Final = 2**16
"""The most bytes to decompress before a look at the clock. An empty gzip member has 20, and each costs a copy of the rest."""
GZIP: Final = 16 + zlib.MAX_WBITS
MEMBER: Final = b"\x1f\x8b"
"""The first bytes of each member of a gzip file (RFC 1952)."""


def read_body(reply: Reply, headers: Mapping[str, str], is_late: Callable[[], bool]) -> bytes:
    """Return the body, decompressed; of anything but a page, only as much as a message may quote.

    Args:
        reply: the answer, whose body was not read yet.
        headers: its headers, without the credential.
        is_late: returns whether the request is out of time.

    Raises:
        PageTooLarge: a page has more than `LARGEST_PAGE` bytes.
        PageError: a page is a bomb.
        Retryable: a page cannot be decompressed.
        Failure: the body does not arrive, or the request is out of time.
    """
    is_page = reply.status == HTTPStatus.OK
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
        for piece in _cut(reply.receive()):
            body.add(piece)
            if is_late():
                raise Failure("ReadTimeout", "the answer came too slowly")
            if body.is_done():
                break
    except zlib.error:
        body.is_broken = True
    if is_page:
        body.check()
    return bytes(body.data)


def _cut(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the pieces in parts of at most `PART` bytes."""
    for piece in pieces:
        for start in range(0, len(piece), PART):
            yield piece[start : start + PART]


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
