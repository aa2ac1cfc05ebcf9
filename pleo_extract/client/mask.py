"""Removing the credential from what a server sends, before anybody reads it.

A server, or a proxy in front of it, may repeat the credential in a header, an error page, a row or a cursor. Masking it
wherever a message is made does not work: there are many such places, and most of them were missed. So every answer
passes through `Mask` once, where it comes off the wire, headers and body alike; so does the text of every network error,
which may quote the answer. Therefore no message, record, receipt, manifest or rejected row can hold the credential,
whoever makes it: neither as it is, nor in base64 (the form in which Basic authentication sends it), nor URL-encoded, nor
escaped as JSON or HTML does it, nor with the NULs that UTF-16 and UTF-32 put between its characters.
"""

from __future__ import annotations

import base64
import html
import json
import re
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, quote_plus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["Mask"]

STARS: Final = b"***"
SHORTEST: Final = 8
"""The fewest characters of a credential that is masked in pages, and inside words elsewhere.

A shorter one may be a word of the data, or a part of a word: the key ``x`` turned "expired" into "e***pired".
"""

_NUL: Final = b"\0"
_WRITTEN_NULS: Final = (rb"\u0000", rb"\x00")
"""A NUL as JSON and Python write it."""
_TAIL: Final = rb"[A-Za-z0-9+/_=-]*"
"""The base64 characters after a match: in them stands what was encoded together with the credential."""


class Mask:
    """One secret, and the way to remove it from bytes.

    The secret lives in a closure only: `repr` and `vars` show an object's attributes, and tracebacks print both.
    """

    __slots__ = ("_substitute", "is_long")
    _substitute: Callable[[bytes], bytes]

    def __init__(self, secret: str) -> None:
        self.is_long = len(secret) >= SHORTEST
        """Whether the secret is long enough to be masked in data."""
        self._substitute = _compile(secret)
        del secret  # a traceback may show the locals of this frame

    def clean(self, data: bytes) -> bytes:
        """Return the bytes with three stars for every form of the secret; the same object if the secret does not occur."""
        return self._substitute(data)

    def clean_text(self, text: str) -> str:
        """Return the text with three stars for every form of the secret."""
        return self.clean(text.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogatepass")


def _compile(secret: str) -> Callable[[bytes], bytes]:
    # Longest first, so that a form that contains a shorter one is removed as a whole and leaves no part behind.
    written = sorted(set(_list_written(secret)), key=len, reverse=True)
    encoded = sorted(set(_list_encoded(secret)), key=len, reverse=True)
    may_be_part = len(secret) < SHORTEST
    before, after = (rb"(?<![A-Za-z0-9])", rb"(?![A-Za-z0-9])") if may_be_part else (b"", b"")
    parts = [before + _build_pattern(form) + after for form in written]
    parts += [re.escape(form) + _TAIL for form in encoded]
    pattern = re.compile(b"|".join(parts))
    # A pattern with all forms is slow, and there are many pages. So plain searches come first: every written form holds
    # the longest alphanumeric run of the secret, which no escaping changes.
    core = max(re.findall(r"[A-Za-z0-9]+", secret) or [secret], key=len).encode()
    hints = [(hint, _rarest_first(hint)) for hint in (core, *encoded)]
    characters = sorted(set(b"".join((*written, *encoded))) - set(b'"\\'))

    def substitute(data: bytes) -> bytes:
        plain = _unescape(data, characters)
        # No JSON in UTF-8 has a NUL, and few pages have a backslash: searching for one byte costs next to nothing.
        if _NUL in data or (b"\\" in data and any(nul in data for nul in _WRITTEN_NULS)):
            packed = _unescape(_drop_nuls(data), characters)
            plain = packed if _may_hold(packed, hints) else plain
        if not _may_hold(plain, hints):
            return data
        cleaned = pattern.sub(STARS, plain)
        return data if cleaned == plain else cleaned

    return substitute


def _rarest_first(hint: bytes) -> list[int]:
    """Return the bytes of a hint, capital letters first: these are the rarest in pages."""
    return sorted(set(hint), key=lambda byte: (not chr(byte).isupper(), byte))


def _may_hold(data: bytes, hints: Sequence[tuple[bytes, Sequence[int]]]) -> bool:
    """Return whether the bytes hold a hint.

    Most pages lack some byte of it. Finding that out takes a microsecond, and searching 40 kB for the hint itself 16.
    """
    return any(all(byte in data for byte in letters) and hint in data for hint, letters in hints)


def _drop_nuls(data: bytes) -> bytes:
    """Return the bytes without NULs, however they are written.

    UTF-16 and UTF-32 write an ASCII character as its byte and one or three NULs. Without these, the secret stands in the
    bytes as it is.
    """
    for nul in (_NUL, *_WRITTEN_NULS):
        data = data.replace(nul, b"")
    return data


def _build_pattern(form: bytes) -> bytes:
    """Return a pattern that matches this form, whatever the case of the digits in its URL escapes (%2F, %2f)."""
    return re.sub(rb"%[0-9A-F]{2}", rb"(?i:\g<0>)", re.escape(form))


def _unescape(data: bytes, characters: Sequence[int]) -> bytes:
    r"""Return the bytes with JSON's escapes of these characters undone.

    JSON may write any character as ``\u0041``, so that the secret has more forms than can be listed. One `replace` for
    each character is faster than any pattern.
    """
    if b"\\" not in data:  # as a rule; the search for one byte costs next to nothing
        return data
    if b"\\u00" in data:
        for code in characters:
            for escaped in {b"\\u%04x" % code, b"\\u%04X" % code}:
                data = data.replace(escaped, b"%c" % code)
    return data.replace(b"\\/", b"/")


def _list_written(secret: str) -> Iterator[bytes]:
    """Yield the secret as it is and as URLs, JSON, HTML and Python's `repr` write it."""
    in_urls = (quote(secret), quote(secret, safe=""), quote_plus(secret))
    for text in (secret, *in_urls, json.dumps(secret)[1:-1], html.escape(secret), repr(secret)[1:-1]):
        yield text.encode()


def _list_encoded(secret: str) -> Iterator[bytes]:
    """Yield the start of the secret's base64: alone or as a user name, and as a password.

    Base64 turns three bytes into four characters, so only whole groups of three are the same whatever follows.
    """
    for text in (secret.encode(), b":" + secret.encode()):
        whole = text[: len(text) // 3 * 3]
        if len(whole) > 3:
            yield base64.b64encode(whole)
            yield base64.urlsafe_b64encode(whole)
