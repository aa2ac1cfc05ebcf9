"""The mask removes every spelling of the credential that it names, and changes nothing else."""

from __future__ import annotations

import base64
import html
import json
import string
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote

import pytest
from cases import mostly_slow
from hypothesis import assume, given
from hypothesis import strategies as st

from pleo_extract.client.mask import Mask

if TYPE_CHECKING:
    from collections.abc import Callable

KEY: Final = 'it"s/a+key\\of=9<x>&z'
"""A key with every character that some format escapes."""
PLAIN: Final = "plainKey12345678"
EDGES: Final = string.ascii_letters + string.digits + "-_.~+/="
SECRETS: Final = st.tuples(
    st.sampled_from(EDGES),
    st.text(string.ascii_letters + string.digits + string.punctuation, min_size=8, max_size=30),
    st.sampled_from(EDGES),
).map("".join)
TEXTS: Final = st.lists(
    st.sampled_from([*"ab é\n\t\"'/", "\\", "C:\\dir", "\\u0061", "100%", "a&b", "\0", "🙂"]), max_size=6
).map("".join)


def escape_json(text: str) -> str:
    """Return the text as it stands between the quotation marks of JSON."""
    return json.dumps(text)[1:-1]


SPELLINGS: Final[dict[str, Callable[[str], str]]] = {
    "JSON": escape_json,
    "JSON, slashes": lambda letter: "\\/" if letter == "/" else escape_json(letter),
    "JSON, lower": lambda letter: f"\\u{ord(letter):04x}",
    "JSON, upper": lambda letter: f"\\u{ord(letter):04X}",
    "JSON in JSON": lambda letter: escape_json(f"\\u{ord(letter):04x}"),
    "Python": lambda letter: f"\\\\x{ord(letter):02x}",
    "URL": lambda letter: f"%{ord(letter):02X}",
    "URL, lower": lambda letter: f"%{ord(letter):02x}",
    "URL in URL": lambda letter: f"%25{ord(letter):02X}",
    "URL, some": lambda letter: escape_json(quote(letter, safe="!'()*~")),
    "HTML": lambda letter: escape_json(html.escape(letter)),
    "HTML, decimal": lambda letter: f"&#{ord(letter)};",
    "HTML, hexadecimal": lambda letter: f"&#x{ord(letter):X};",
    "HTML, padded": lambda letter: f"&#x00{ord(letter):x};",
    "HTML in HTML": lambda letter: f"&amp;#{ord(letter)};",
    "HTML, names": lambda letter: {"/": "&sol;", "+": "&plus;", "=": "&equals;"}.get(
        letter, escape_json(letter)
    ),
    "NULs": lambda letter: escape_json(letter) + "\\u0000",
}
"""How each character may be written inside a JSON text."""
COATS: Final[dict[str, Callable[[str], str]]] = {
    "plain": lambda text: text,
    "for URLs": lambda text: text.replace("+", "-").replace("/", "_"),
    "quoted": lambda text: quote(text, safe=""),
    "slashes": lambda text: text.replace("/", "\\/"),
    "HTML": lambda text: text.replace("+", "&#43;").replace("/", "&#x2F;").replace("=", "&#61;"),
    "lines": lambda text: "\\r\\n".join(text[place : place + 64] for place in range(0, len(text), 64)),
    "every character": lambda text: "".join(f"%{ord(letter):02X}" for letter in text),
}
"""How base64 may be written inside a JSON text."""


def mask_page(secret: str, text: str, others: str) -> tuple[str, str]:
    """Return what is left of a JSON text with the secret, and of the others in the page."""
    page = f'{{"text": "{text}", "others": {json.dumps(others)}, "end": "{escape_json(others)}"}}'
    cleaned = json.loads(Mask(secret).clean(page.encode()))
    assert cleaned["others"] == cleaned["end"] == others
    return cleaned["text"], others


@pytest.mark.parametrize("spelling", mostly_slow(SPELLINGS, quick=4))
@given(secret=SECRETS, before=TEXTS, after=TEXTS)
def test_f69_spellings(spelling: str, secret: str, before: str, after: str) -> None:
    """Each spelling of each secret goes as a whole; what stands around it, and the rest of the page, stays.

    Only backslashes before it go too: nobody can tell whether they belong to it.
    """
    spelled = "".join(map(SPELLINGS[spelling], secret))
    text, _ = mask_page(secret, escape_json(before) + spelled + escape_json(after), "C:\\/dir \\u006e \0 é")
    assert text.startswith(before.rstrip("\\") + "***")
    assert text.endswith(after)
    assert secret not in text


@given(secret=SECRETS, data=st.data())
def test_f69_mixed_spellings(secret: str, data: st.DataObject) -> None:
    """Each character may be spelled in another way."""
    ways = data.draw(st.lists(st.sampled_from(sorted(SPELLINGS)), min_size=len(secret), max_size=len(secret)))
    spelled = "".join(SPELLINGS[way](letter) for way, letter in zip(ways, secret, strict=True))
    text, _ = mask_page(secret, f"key {spelled} end", "\\u0061")
    assert text.rstrip("\0").startswith("key ***")
    assert text.endswith(" end")


@pytest.mark.parametrize("coat", mostly_slow(COATS, quick=3))
@given(secret=SECRETS, before=st.text("xyz ", max_size=80), after=st.text("xyz ", max_size=80))
def test_f69_base64(coat: str, secret: str, before: str, after: str) -> None:
    """Base64 of a text with the secret goes, wherever the secret stands in it; a few bits of its edges may stay."""
    assume(not set(secret) & set("xyz"))
    encoded = base64.b64encode((before + secret + after).encode()).decode()
    text, _ = mask_page(secret, f"Basic {COATS[coat](encoded)} end", "C:\\/dir")
    assert "***" in text
    left = html.unescape(unquote(text)).replace("-", "+").replace("_", "/").replace("\r\n", "")
    for place in range(3):
        inner = base64.b64encode(b"x" * place + secret[1:-1].encode()).decode().rstrip("=")
        assert inner[4:-1] not in left


@pytest.mark.parametrize("lines", ["\n", "\r\n ", "\\n", "%0D%0A"])
def test_f69_base64_of_a_long_token(lines: str) -> None:
    """A token of many lines of base64 leaves none of them."""
    token = "eyJ" + "aB3/dEf+".join(map(str, range(100)))
    encoded = base64.b64encode(f"token={token}".encode()).decode()
    said = lines.join(encoded[place : place + 76] for place in range(0, len(encoded), 76))
    assert Mask(token).clean(said.encode()) == b"***"


@pytest.mark.parametrize(
    ("secret", "text", "left"),
    [
        pytest.param("9abcdefg", "\\u00e9abcdefg", "***", id="half a character before"),
        pytest.param("nEY-12345", "a\\nEY-12345", "a***", id="half a line break before"),
        pytest.param("abcdefg\\", 'abcdefg\\\\\\" b', "*** b", id="half a quotation mark behind"),
        pytest.param("abcdefg\\", "abcdefg\\\\", "***", id="a backslash at the end"),
        pytest.param("abcdefgh", "\\\\abcdefgh\\\\", "***\\", id="backslashes around"),
        pytest.param("abcdefgh", "abcdefghabcdefgh abcdefgh", "****** ***", id="repeated"),
    ],
)
def test_f69_half_of_an_escape_goes_as_a_whole(secret: str, text: str, left: str) -> None:
    """JSON stays valid where the secret begins or ends within an escape."""
    assert mask_page(secret, text, "a")[0] == left


@pytest.mark.parametrize("secret", [PLAIN, KEY, "$%&'()*+,-./:;", "eyJ" + "aB3dEf" * 100])
@pytest.mark.parametrize(
    "filler", mostly_slow(["\\", "aGVs\\n", "%25", "&amp;", "&#", "A", "\\u0000", "\0"], quick=2)
)
def test_f69_large_bodies(secret: str, filler: str) -> None:
    """A megabyte of what escapes are made of, before and after the secret, is searched to its end."""
    body = (filler * (2**20 // len(filler))).encode()
    cleaned = Mask(secret).clean(body + b" " + secret.encode() + b" " + body)
    assert cleaned.count(b"***") == 1
    assert secret.encode() not in cleaned


@given(text=TEXTS)
def test_f69_pages_without_it_keep_their_bytes(text: str) -> None:
    """A page without the secret is the same object afterwards."""
    page = json.dumps({"text": text}).encode()
    assert Mask(PLAIN).clean(page) is page
