"""Cursors: an opaque, checked position in an order, spelled in base32 (contract: `^[A-Z2-7=~]+$`).

A cursor holds the key of a row and a tag of the sort, so it stays a right position whatever appears or goes.
"""

import json
from base64 import b32decode, b32encode
from functools import lru_cache
from zlib import crc32

from pleo_extract.sandbox.view import Key, Sort, restore_key

__all__ = ["BadCursor", "read_cursor", "respell_cursor", "write_cursor"]


class BadCursor(ValueError):
    """A text that is no cursor of this list and sort."""


@lru_cache(maxsize=256)
def _tag(sort: Sort) -> int:
    return crc32(repr(sort).encode())


def write_cursor(sort: Sort, key: Key) -> str:
    """The cursor of a row."""
    return _spell([0, _tag(sort), *key])


def respell_cursor(cursor: str, nonce: int) -> str:
    """Another spelling of a row's cursor, `after` which that very row comes first."""
    return _spell([nonce, *_read(cursor)[1:]])


def read_cursor(cursor: str, sort: Sort) -> tuple[Key, bool]:
    """The key a cursor stands for, and whether the row itself is to be included in what follows.

    Raises:
        BadCursor: never written here, or for another sort.
    """
    nonce, tag, *values = _read(cursor)
    if tag != _tag(sort):
        raise BadCursor("the cursor belongs to another sorting")
    return restore_key(sort, values), bool(nonce)


def _spell(parts: list[object]) -> str:
    text = json.dumps(parts, separators=(",", ":")).encode()
    return b32encode(crc32(text).to_bytes(4, "big") + text).decode()


def _read(cursor: str) -> list[object]:
    try:
        raw = b32decode(cursor)
        if crc32(raw[4:]).to_bytes(4, "big") != raw[:4]:
            raise BadCursor("the cursor is unknown")
        parts: list[object] = json.loads(raw[4:])
    except ValueError as error:
        raise BadCursor("the cursor is unknown") from error
    return parts
