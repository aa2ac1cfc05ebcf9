"""Cursors of the sandbox: a row's position in an order, with a checksum, in base32 (contract: `^[A-Z2-7=~]+$`).

A cursor holds the sort key of a row, not an offset. It therefore stays a correct position when rows are inserted
or deleted before it.
"""

import json
from base64 import b32decode, b32encode
from functools import lru_cache
from zlib import crc32

from pleo_extract.sandbox.view import Key, Sort, restore_key

__all__ = ["BadCursor", "decode_cursor", "encode_cursor", "make_inclusive"]


class BadCursor(ValueError):
    """Raised for a text that is not a cursor of this list and sort."""


@lru_cache(maxsize=256)
def _tag(sort: Sort) -> int:
    return crc32(repr(sort).encode())


def encode_cursor(sort: Sort, key: Key) -> str:
    """Return the cursor of the row with this key."""
    return _encode([0, _tag(sort), *key])


def make_inclusive(cursor: str, nonce: int) -> str:
    """Return a different cursor of the same row, `after` which the row itself comes first.

    `nonce` (not 0) makes each such cursor unique, so that it does not count as a repeated one.
    """
    return _encode([nonce, *_decode(cursor)[1:]])


def decode_cursor(cursor: str, sort: Sort) -> tuple[Key, bool]:
    """Return the key of a cursor, and whether the page starts with the row itself.

    Raises:
        BadCursor: this server did not issue the cursor, or issued it for another sort.
    """
    nonce, tag, *values = _decode(cursor)
    if tag != _tag(sort):
        raise BadCursor("the cursor belongs to another sorting")
    return restore_key(sort, values), bool(nonce)


def _encode(parts: list[object]) -> str:
    text = json.dumps(parts, separators=(",", ":")).encode()
    return b32encode(crc32(text).to_bytes(4, "big") + text).decode()


def _decode(cursor: str) -> list[object]:
    try:
        raw = b32decode(cursor)
        if crc32(raw[4:]).to_bytes(4, "big") != raw[:4]:
            raise BadCursor("the cursor is unknown")
        parts: list[object] = json.loads(raw[4:])
    except ValueError as error:
        raise BadCursor("the cursor is unknown") from error
    return parts
