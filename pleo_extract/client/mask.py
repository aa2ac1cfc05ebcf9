r"""Removing the credential from what a server sends, before anybody reads it.

A server, or a proxy in front of it, may repeat the credential in a header, an error page, a row or a cursor. Masking it
wherever a message is made does not work: there are many such places, and most of them were missed. So every answer
passes through `Mask` once, where it comes off the wire, headers and body alike; so does the text of every network error,
which may quote the answer. Therefore no message, record, receipt, manifest or rejected row can hold the credential,
whoever makes it.

These forms of the secret are found:

- *Characters*: each one as it is, or escaped as JSON, Python, URLs or HTML can escape it (``\/``, ``\u002f``, ``\x2F``,
  ``%2f``, ``&#47;``, ``&#x2F;``, ``&sol;``), alone or mixed, escaped up to three times over, and with the NULs that UTF-16
  and UTF-32 put between characters.
- *Base64*, standard or for URLs, of text that holds the secret, whatever stands before and after it, also with line
  breaks, and with characters escaped as above.

Other encodings are not: hexadecimal digits, base64 of base64 or of UTF-16, compressed or encrypted data.

Only the bytes that spell the secret are replaced, with the escapes that they share with their neighbours. All others stay,
and valid JSON stays valid. The one exception: where the secret is found, the NULs of UTF-16 go, which no valid JSON has.
"""

from __future__ import annotations

import base64
import re
from functools import cache
from html.entities import html5
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    Spans = Iterator[tuple[int, int]]

__all__ = ["Mask"]

STARS: Final = b"***"
SHORTEST: Final = 8
"""The fewest characters of a credential that is masked in pages, and inside words elsewhere.

A shorter one may be a word of the data, or a part of a word: the key ``x`` turned "expired" into "e***pired".
"""
SHORTEST_BASE64: Final = 6
"""The fewest characters of base64 that are looked for, for the same reason."""

_BACKSLASHES: Final = rb"\\{1,8}"
r"""The backslashes of one escape. Escaping twice doubles them. A bound keeps the search linear in a body of backslashes."""
_NUL: Final = _BACKSLASHES + rb"(?:u00|x)00|%(?:25){0,3}00|&(?:amp;){0,3}#0;"
_BREAK: Final = (
    rb"[\r\n]|" + _BACKSLASHES + rb"[rn]|%(?:25){0,3}0[AaDd]|&(?:amp;){0,3}#(?:1[03]|[xX]0?[AaDd]);"
)
_BETWEEN: Final = b"(?:" + _NUL + b"){0,4}"
_BETWEEN_BASE64: Final = b"(?:" + _NUL + b"|" + _BREAK + b"|[ \\t]){0,6}"
_ESCAPES: Final = (
    (b"\\", (rb"\u0000", rb"\x00"), (re.compile(rb"\\u00[3-7]"), re.compile(rb"\\x[3-7]"))),
    (b"%", (b"%00",), (re.compile(b"%(?:25|[3-7])"),)),
    (b"&", (b"&#0;",), (re.compile(b"&(?:amp;|#[xX014-9])"),)),
)
"""Of each kind of escape the first byte, an escaped NUL, and the start of an escaped letter or digit.

Few pages have one of the last, as nothing requires it. To search for single bytes first costs next to nothing.
"""
_FOR_URLS: Final = str.maketrans("+/", "-_")
_HALF_ESCAPE: Final = re.compile(rb"\\u[0-9A-Fa-f]{0,3}\Z")
_BACKSLASH: Final = ord("\\")
_ALPHABET: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/_-")


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
    searches = [_search_written(secret), *map(_search_base64, sorted(set(_list_encoded(secret))))]

    def substitute(data: bytes) -> bytes:
        # UTF-16 and UTF-32 write each byte of ASCII, also those of an escape, beside one or three NULs.
        packed = bare = data.replace(b"\0", b"")
        is_escaped = False
        for first, nuls, words in _ESCAPES:
            if first in packed:
                for nul in nuls:
                    bare = bare.replace(nul, b"")
                is_escaped = is_escaped or any(word.search(bare) for word in words)
        spans = sorted(span for search in searches for span in search(packed, bare, is_escaped))
        return _replace(packed, spans) if spans else data

    return substitute


def _replace(data: bytes, spans: Iterable[tuple[int, int]]) -> bytes:
    """Return the bytes with stars for each of these places, which may overlap."""
    pieces, done = [], 0
    for start, end in spans:
        if start >= done:
            pieces += [data[done:start], STARS]
        done = max(done, end)
    return b"".join([*pieces, data[done:]])


def _search_written(secret: str) -> Callable[[bytes, bytes, bool], Spans]:
    """Return a search for the secret, each character as it is or escaped; a short one's letters only as they are."""

    def write() -> bytes:
        if len(secret) >= SHORTEST:
            return _BETWEEN.join(map(_spell, secret))
        letters = [letter.encode() if letter.isalnum() else _spell(letter) for letter in secret]
        return rb"(?<![A-Za-z0-9])" + _BETWEEN.join(letters) + rb"(?![A-Za-z0-9])"

    return _build_search(secret, [_find_core(secret)], write)


def _search_base64(form: str) -> Callable[[bytes, bytes, bool], Spans]:
    """Return a search for these base64 characters and those around them, which were encoded together with them."""
    core = _find_core(form)[:32]
    # It may be broken into lines, which are longer than both halves together: one of them is whole.
    halves = (core[: len(core) // 2], core[len(core) // 2 :])
    return _build_search(
        form,
        halves,
        lambda: _BETWEEN_BASE64.join(map(_spell, form)) + rb"[A-Za-z0-9+/_=-]*",
        before=_ALPHABET,
    )


def _build_search(
    text: str, hints: Sequence[bytes], write: Callable[[], bytes], *, before: frozenset[int] = frozenset()
) -> Callable[[bytes, bytes, bool], Spans]:
    """Return a search for a text.

    Args:
        text: what is searched.
        hints: parts of it without other characters than letters and digits. One of them is enough to suspect a match.
        write: returns the pattern. It is called when there is something to search: few servers repeat a credential, and the
            pattern of a long one is large.
        before: the bytes before a match that belong to it.

    Returns:
        a function of the data without NULs, of the data without escaped NULs too, and whether that has escaped letters or
        digits; it returns the places to replace.
    """
    # Most pages lack some letter of the text. Finding that out takes a microsecond, and searching 40 kB for a hint 10.
    # Capital letters are the rarest.
    letters = sorted(
        {letter for letter in text if letter.isalnum()}, key=lambda letter: (not letter.isupper(), letter)
    )
    codes = "".join(letters).encode()
    pattern = cache(lambda: re.compile(write()))

    def search(packed: bytes, bare: bytes, is_escaped: bool) -> Spans:  # noqa: FBT001
        if not is_escaped and not (
            all(code in bare for code in codes) and any(hint in bare for hint in hints)
        ):
            return
        done = 0
        for match in pattern().finditer(packed):
            start, end = max(match.start(), done), match.end()
            while start > done and packed[start - 1] in before:
                start -= 1
            # Half of an escape would make a page invalid: `\`, `\u00e` and, at the end, the `\` before a `"`.
            if half := _HALF_ESCAPE.search(packed, max(start - 5, done), start):
                start = half.start()
            while start > done and packed[start - 1] == _BACKSLASH:
                start -= 1
            text = packed[start:end]
            end += (len(text) - len(text.rstrip(b"\\"))) % 2
            done = min(end, len(packed))
            yield start, done

    return search


def _find_core(text: str) -> bytes:
    """Return the longest run of letters and digits, which no escape has to change; nothing if there is none."""
    return max(re.findall(r"[A-Za-z0-9]+", text), key=len, default="").encode()


@cache
def _spell(letter: str) -> bytes:
    """Return a pattern of all ways to write an ASCII character."""
    code = ord(letter)
    names = sorted({name.rstrip(";").encode() for name, text in html5.items() if text == letter})
    entity = b"|".join([b"#0{0,6}%d" % code, b"#[xX]0{0,6}(?i:%x)" % code, *names])
    ways = [
        re.escape(letter.encode()) if letter.isalnum() else rb"\\{0,8}" + re.escape(letter.encode()),
        _BACKSLASHES + b"(?:u00|x)(?i:%02x)" % code,
        b"%%(?:25){0,3}(?i:%02x)" % code,
        b"&(?:amp;){0,3}(?:" + entity + b");?",
    ]
    return b"(?:" + b"|".join(ways) + b")"


def _list_encoded(secret: str) -> Iterator[str]:
    """Yield the base64 characters that the secret alone determines, for each place in a group of three bytes.

    Base64 writes three bytes as four characters of six bits. Those at the edges depend on the neighbours too, and are
    left out; the rest is the same whatever stands before and behind the secret.
    """
    for place in range(3):
        form = base64.b64encode(b"\0" * place + secret.encode()).decode()
        inner = form[-(-8 * place // 6) : 8 * (place + len(secret)) // 6]
        if len(inner) >= SHORTEST_BASE64:
            yield inner
            yield inner.translate(_FOR_URLS)
