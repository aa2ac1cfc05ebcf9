"""A raw socket server that sends good pages and, from a chosen request on, hostile bytes."""

from __future__ import annotations

import functools
import gzip
import json
import socket
import struct
import threading
import time
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

    from habits import Server

__all__ = ["HARMS", "HostileServer"]

LONG = 600.0
"""Seconds after which an endless attack stops; every run ends long before that."""

Harm = "Callable[[bytes, random.Random], Iterator[bytes]]"
"""An attack: yields the bytes to send instead of a good response, whose body it gets."""


def _head(body: bytes, *more: bytes, status: bytes = b"200 OK", length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return b"\r\n".join(
        [
            b"HTTP/1.1 " + status,
            b"Content-Type: application/json",
            b"Content-Length: %d" % size,
            *more,
            b"",
            body,
        ]
    )


def _for_ever(piece: bytes, pause: float = 0.0) -> Iterator[bytes]:
    until = time.monotonic() + LONG
    while time.monotonic() < until:
        yield piece
        time.sleep(pause)


def flipped_bits(body: bytes, rng: random.Random) -> Iterator[bytes]:
    """Flip a few bits of the head or the body."""
    answer = bytearray(_head(body))
    for _ in range(rng.choice((1, 1, 8))):
        answer[rng.randrange(len(answer))] ^= 1 << rng.randrange(8)
    yield bytes(answer)


def swapped_values(body: bytes, rng: random.Random) -> Iterator[bytes]:
    """Replace one to three values of a good page by unexpected ones."""
    page = json.loads(body)
    odd: list[Any] = [
        None,
        -1,
        10**30,
        1e400,
        "",
        "\x00\x1b[31m\u202e",
        "9999-12-31T23:59:59.999999999Z",
        "0001-01-01T00:00:00+14:00",
        [],
        {},
        [[[[]]]],
        True,
        "../../x",
        "A" * 70_000,
        "\ud800",
    ]
    places: list[tuple[Any, Any]] = [(page, key) for key in page]
    places += [(page["pagination"], key) for key in page["pagination"]]
    places += [
        (page["pagination"]["currentRequestPagination"], key)
        for key in ("parameters", "limit", "sortingKeys")
    ]
    for row in page["data"][:2]:
        places += [(row, key) for key in row]
    for _ in range(rng.choice((1, 1, 3))):
        where, key = rng.choice(places)
        where[key] = rng.choice(odd)
    yield _head(json.dumps(page).encode("utf-8", "surrogatepass"))


def cut_anywhere(body: bytes, rng: random.Random) -> Iterator[bytes]:
    """End the connection at a random byte."""
    answer = _head(body)
    yield answer[: rng.randrange(len(answer))]


def endless_1xx(body: bytes, rng: random.Random) -> Iterator[bytes]:
    """Send endless interim responses."""
    yield from _for_ever(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", rng.choice((0.0, 0.05)))


def endless_head(body: bytes, rng: random.Random) -> Iterator[bytes]:
    """Send endless header lines."""
    yield b"HTTP/1.1 200 OK\r\n"
    yield from _for_ever(b"X-More: " + b"a" * 200 + b"\r\n", rng.choice((0.0, 0.05)))


def endless_gzip(body: bytes, rng: random.Random) -> Iterator[bytes]:
    """Send a compressed body with endless empty blocks."""
    yield b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n"
    packer = zlib.compressobj(wbits=31)
    yield packer.compress(body[:10]) + packer.flush(zlib.Z_SYNC_FLUSH)
    yield from _for_ever(b"\x00\x00\x00\xff\xff" * 2000, rng.choice((0.0, 0.05)))


def bytes_after_gzip(body: bytes, rng: random.Random) -> Iterator[bytes]:
    """Send a complete compressed body, followed by endless bytes."""
    yield b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n" + gzip.compress(body)
    yield from _for_ever(b"x" * 10_000, rng.choice((0.0, 0.05)))


def bomb(body: bytes, rng: random.Random) -> Iterator[bytes]:
    """Send a small body that decompresses to 256 MiB."""
    yield _head(_pack_blanks(), b"Content-Encoding: gzip")


@functools.cache
def _pack_blanks() -> bytes:
    return gzip.compress(b" " * 2**28, 9)


def endless_trailers(body: bytes, rng: random.Random) -> Iterator[bytes]:
    """Send a chunked page with endless trailers."""
    yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: application/json\r\n\r\n"
    yield b"%x\r\n" % len(body) + body + b"\r\n0\r\n"
    yield from _for_ever(b"X-Trailer: a\r\n", rng.choice((0.0, 0.05)))


def endless_chunks(body: bytes, rng: random.Random) -> Iterator[bytes]:
    """Send a chunked page without end, with an extension on each chunk."""
    yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: application/json\r\n\r\n"
    yield from _for_ever(b"1;plp=" + b"e" * 100 + b"\r\n \r\n", rng.choice((0.0, 0.05)))


def drip(body: bytes, rng: random.Random) -> Iterator[bytes]:
    """Send one byte every 0.3 seconds."""
    for byte in _head(body):
        yield bytes([byte])
        time.sleep(0.3)


def silence(body: bytes, rng: random.Random) -> Iterator[bytes]:
    """Send nothing."""
    yield from _for_ever(b"", 0.5)


def many_keys(body: bytes, rng: random.Random) -> Iterator[bytes]:
    """Send a row with up to a million unknown fields."""
    page = json.loads(body)
    if page["data"]:
        page["data"][0] |= {f"k{number}": number for number in range(rng.choice((50_000, 1_000_000)))}
    yield _head(json.dumps(page).encode())


def large_echo(body: bytes, rng: random.Random) -> Iterator[bytes]:
    """Send a small compressed page whose echo holds eight million values."""
    page = json.loads(body)
    values = ["createdAt" if (name := rng.choice(("parameters", "sortingKeys"))) == "sortingKeys" else {}]
    page["pagination"]["currentRequestPagination"] = {
        name: values if name == "sortingKeys" else {"x": values}
    }
    one = json.dumps(values[0]).encode()
    many = b"[" + (one + b",") * 8_000_000 + one + b"]"
    yield _head(
        gzip.compress(json.dumps(page).encode().replace(b"[" + one + b"]", many)), b"Content-Encoding: gzip"
    )


def deep(body: bytes, rng: random.Random) -> Iterator[bytes]:
    """Send a list nested 100,000 levels deep."""
    yield _head(b'{"data": ' + b"[" * 100_000 + b"]" * 100_000 + b"}")


def stray_page(body: bytes, rng: random.Random) -> Iterator[bytes]:
    """Send a second, unrequested response in the same segment."""
    page = json.loads(body)
    for row in page["data"]:
        row["numberOfItems"] = 666_666
    yield _head(body) + _head(json.dumps(page).encode())


def odd_status(body: bytes, rng: random.Random) -> Iterator[bytes]:
    """Send a status outside the contract, with a malformed header."""
    status = rng.choice(
        (b"204 No", b"206 Part", b"299 Odd", b"302 Go", b"418 Tea", b"422 No", b"599 X", b"999 ?")
    )
    location = rng.choice(
        (b"Location: //elsewhere", b"Location: \xff", b"Retry-After: " + b"9" * 5000, b"X:")
    )
    yield _head(body, location, status=status)


def noise(body: bytes, rng: random.Random) -> Iterator[bytes]:
    """Send random bytes, with or without a head."""
    data = rng.randbytes(rng.choice((0, 1, 100, 100_000)))
    yield data if rng.random() < 0.5 else _head(data)


HARMS: dict[str, Any] = {
    each.__name__: each
    for each in (
        flipped_bits,
        swapped_values,
        cut_anywhere,
        endless_1xx,
        endless_head,
        endless_gzip,
        bytes_after_gzip,
        bomb,
        endless_trailers,
        endless_chunks,
        drip,
        silence,
        many_keys,
        large_echo,
        deep,
        stray_page,
        odd_status,
        noise,
    )
}


class HostileServer:
    """A server of the pages of `inner` that attacks from request `begin` on, each time with probability `often`."""

    def __init__(self, inner: Server, harm: str, rng: random.Random, *, begin: int, often: float) -> None:
        self._inner, self._harm, self._rng = inner, HARMS[harm], rng
        self._begin, self._often = begin, often
        self._requests = 0
        self._lock = threading.Lock()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self._open: set[socket.socket] = set()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop the server and reset its connections, whatever it is sending."""
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for each in list(self._open):
            with suppress(OSError):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                each.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                self._open.add(connection)
                threading.Thread(target=self._serve, args=[connection], daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection, connection.makefile("rb") as stream:
            while head := stream.readline():
                while stream.readline().strip():
                    pass
                with self._lock:
                    self._requests += 1
                    harmful = self._requests >= self._begin and self._rng.random() < self._often
                target = head.split(b" ")[1].decode()
                answer = self._inner.handle_request(httpx.Request("GET", f"http://x{target}"))
                body = answer.read()
                if not harmful:
                    connection.sendall(_head(body, status=b"%d X" % answer.status_code))
                    continue
                for piece in self._harm(body, self._rng):
                    connection.sendall(piece)
                if self._harm not in (stray_page, many_keys, deep, swapped_values):
                    return
        self._open.discard(connection)
