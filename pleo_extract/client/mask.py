"""What a server sends back of the credential is taken out here, before anybody reads it.

Every answer passes through `Mask` once, its headers and its body alike, and so does each error of the network, whose
text may quote the answer. So no message, record, receipt, manifest or rejected row that is made of an answer can hold
the credential, whoever makes it: as it is, in base64 (the form that is sent), URL-encoded, or escaped as JSON or HTML.
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
"""Characters of a credential that is looked for in pages; a shorter one may be a word of the data."""

_TAIL: Final = rb"[A-Za-z0-9+/_=-]*"
"""What was encoded with it."""


class Mask:
    """One secret, and how to take it out. It holds the secret where neither repr nor vars show it."""

    __slots__ = ("_sub", "is_long")
    _sub: Callable[[bytes], bytes]

    def __init__(self, secret: str) -> None:
        self.is_long = len(secret) >= SHORTEST
        """Whether it may be looked for in data."""
        self._sub = _compile(secret)
        del secret  # a traceback may show the locals of this frame

    def clean(self, data: bytes) -> bytes:
        """Return the bytes with three stars for each spelling of the secret; the very same bytes where there is none."""
        return self._sub(data)

    def clean_text(self, text: str) -> str:
        """Return the text with three stars for each spelling of the secret."""
        return self.clean(text.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogatepass")


def _compile(secret: str) -> Callable[[bytes], bytes]:
    spellings = sorted(set(_spell(secret)), key=len, reverse=True)  # no part of a longer one stays behind
    encoded = sorted(set(_encode(secret)), key=len, reverse=True)
    parts = [*map(_match, spellings), *(re.escape(each) + _TAIL for each in encoded)]
    pattern = re.compile(b"|".join(parts))
    # A search for all of them at once is slow, and pages are many: each spelling holds one of these.
    core = max(re.findall(r"[A-Za-z0-9]+", secret) or [secret], key=len).encode()
    hints = (core, *encoded)
    characters = sorted(set(b"".join((*spellings, *encoded))) - set(b'"\\'))

    def sub(data: bytes) -> bytes:
        plain = _unescape(data, characters)
        if not any(hint in plain for hint in hints):
            return data
        cleaned = pattern.sub(STARS, plain)
        return data if cleaned == plain else cleaned

    return sub


def _match(spelling: bytes) -> bytes:
    """Return a pattern for it, with the digits of a URL's escapes large or small."""
    return re.sub(rb"%[0-9A-F]{2}", rb"(?i:\g<0>)", re.escape(spelling))


def _unescape(data: bytes, characters: Sequence[int]) -> bytes:
    """Return the text without JSON's escapes of these characters; a pass for each is quicker than any pattern."""
    if b"\\u00" in data:
        for code in characters:
            for escaped in {b"\\u%04x" % code, b"\\u%04X" % code}:
                data = data.replace(escaped, b"%c" % code)
    return data.replace(b"\\/", b"/")


def _spell(secret: str) -> Iterator[bytes]:
    in_urls = (quote(secret), quote(secret, safe=""), quote_plus(secret))
    for text in (secret, *in_urls, json.dumps(secret)[1:-1], html.escape(secret), repr(secret)[1:-1]):
        yield text.encode()


def _encode(secret: str) -> Iterator[bytes]:
    """Yield the part of its base64 that is the same whatever follows it: alone, as a user's name, as a password."""
    for text in (secret.encode(), b":" + secret.encode()):
        whole = text[: len(text) // 3 * 3]
        if len(whole) > 3:
            yield base64.b64encode(whole)
            yield base64.urlsafe_b64encode(whole)
