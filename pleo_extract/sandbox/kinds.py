"""The kinds of faults: what a server, or the network before it, may do to an answer.

What is said of each is read from the table of the functions that do it.

{table}
"""

import json
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from email.utils import format_datetime
from functools import lru_cache
from http import HTTPStatus
from typing import Any, NamedTuple

from pleo_extract.sandbox.badrows import BAD_ROWS, HOSTILE
from pleo_extract.sandbox.cursor import respell_cursor
from pleo_extract.sandbox.exchange import Response

__all__ = ["KINDS", "STATUS", "FaultKind", "Strike", "status"]

STATUS = re.compile("[2-5][0-9][0-9]")
JSON = "application/json;charset=UTF-8"
MIB = 1 << 20
Page = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Strike:
    """What a fault may know: the request's number, the honest answer, what was asked now, cursors asked before.

    `now` is the server's clock (UTC), `elsewhere` another server's base URL.
    """

    number: int
    answer: Response
    parameters: Mapping[str, list[str]]
    earlier: Sequence[str]
    now: datetime
    elsewhere: str

    @property
    def after(self) -> str | None:
        """The cursor that was asked with."""
        return next(iter(self.parameters.get("after", ())), None)

    def says(self, body: bytes, **changes: Any) -> Response:
        """The answer with another body."""
        return replace(self.answer, body=body, **changes)

    def bears(
        self, headers: Mapping[str, str], body: bytes | None = None, status: int | None = None
    ) -> Response:
        """The answer with more headers, and perhaps another body and status."""
        return replace(
            self.answer,
            headers={**self.answer.headers, **headers},
            body=self.answer.body if body is None else body,
            status=status or self.answer.status,
        )


class FaultKind(NamedTuple):
    """A kind of fault: what it does, in words, its variants (`N`: any number)."""

    strike: Callable[[Strike, str], Response]
    words: str
    variants: tuple[str, ...]


KINDS: dict[str, FaultKind] = {}


def kind(*variants: str) -> Callable[[Callable[[Strike, str], Response]], Callable[[Strike, str], Response]]:
    """Enter a function into the table under its own name; its docstring is what the table says."""

    def enter(function: Callable[[Strike, str], Response]) -> Callable[[Strike, str], Response]:
        KINDS[function.__name__] = FaultKind(function, (function.__doc__ or "").splitlines()[0], variants)
        return function

    return enter


def page_kind(*variants: str) -> Callable[[Callable[[Page, Strike, str], None]], None]:
    """Enter a function that spoils a page in place; where the answer is no page, it stays."""

    def enter(function: Callable[[Page, Strike, str], None]) -> None:
        def spoil(blow: Strike, variant: str) -> Response:
            if blow.answer.status != HTTPStatus.OK:
                return blow.answer
            page = json.loads(blow.answer.body)
            function(page, blow, variant)
            # NaN and lone surrogates must come out as a careless server would write them.
            return blow.says(json.dumps(page).encode())

        KINDS[function.__name__] = FaultKind(spoil, (function.__doc__ or "").splitlines()[0], variants)

    return enter


def status(blow: Strike, code: int, retry_after: str = "") -> Response:
    """An error answer as Pleo's are seen: `{"type": ..., "message": ...}`; Retry-After in seconds if given."""
    phrase = HTTPStatus(code).phrase if code in set(HTTPStatus) else "Unknown"
    error = {"type": phrase.lower().replace(" ", "_"), "message": f"{phrase} (on purpose)"}
    headers = {"Content-Type": JSON} | ({"Retry-After": retry_after} if retry_after else {})
    return blow.bears(headers, b"" if code in (204, 304) else json.dumps(error).encode(), code)


def _retry_after(name: str, words: str, value: Callable[[Strike, str], str | None]) -> None:
    def refuse(blow: Strike, variant: str) -> Response:
        answer, header = status(blow, 429), value(blow, variant)
        return (
            answer if header is None else replace(answer, headers={**answer.headers, "Retry-After": header})
        )

    KINDS[name] = FaultKind(refuse, f"429, Retry-After {words}", ("N",) if "N" in words else ())


def _date(blow: Strike, seconds: int) -> str:
    return format_datetime(blow.now.replace(microsecond=0) + timedelta(seconds=seconds), usegmt=True)


_retry_after(
    "429date", "a date N seconds (2) after the answer's own Date", lambda blow, n: _date(blow, int(n or 2))
)
_retry_after("429past", "a date an hour ago", lambda blow, _: _date(blow, -3600))
_retry_after("429none", "missing", lambda *_: None)
_retry_after("429empty", "empty", lambda *_: "")
_retry_after("429junk", "`soon`", lambda *_: "soon")
_retry_after("429negative", "-5", lambda *_: "-5")
_retry_after("429nan", "`nan`", lambda *_: "nan")
_retry_after("429huge", "1000000000", lambda *_: "1000000000")


@kind()
def reset(blow: Strike, _: str) -> Response:
    """The connection is reset before the head."""
    return replace(blow.answer, wire="reset")


@kind()
def reset_mid(blow: Strike, _: str) -> Response:
    """The connection is reset in the middle of the body."""
    return blow.says(blow.answer.body, wire="reset_mid")


@kind("N", "tail", "short", "close", "chunked")
def cut(blow: Strike, variant: str) -> Response:
    """The body ends after half, after N bytes or before its last one, or with another framing than a length."""
    body = blow.answer.body
    kept = int(variant) if variant.isdigit() else len(body) - 1 if variant == "tail" else len(body) // 2
    wires = {"short": "whole", "close": "cut_close", "chunked": "cut_chunked"}
    return blow.says(body[:kept], wire=wires.get(variant, "cut"))


@kind("N")
def drip(blow: Strike, variant: str) -> Response:
    """The body comes byte by byte, N milliseconds (1000) apart."""
    return replace(blow.answer, wire="drip", delay=int(variant or 1000) / 1000)


@kind("N")
def slow(blow: Strike, variant: str) -> Response:
    """The answer comes N milliseconds (1000) late."""
    return replace(blow.answer, delay=blow.answer.delay + int(variant or 1000) / 1000)


@kind()
def silence(blow: Strike, _: str) -> Response:
    """The request is taken and never answered."""
    return replace(blow.answer, wire="silence")


@kind()
def html(blow: Strike, _: str) -> Response:
    """200 with a page of HTML."""
    return blow.bears(
        {"Content-Type": "text/html"}, b"<!doctype html><title>Maintenance</title><p>Soon back.", 200
    )


@kind()
def empty(blow: Strike, _: str) -> Response:
    """200 with no body."""
    return replace(blow.answer, status=200, body=b"")


@kind()
def error200(blow: Strike, _: str) -> Response:
    """200 with the JSON body of an error."""
    return replace(status(blow, 500), status=200)


@kind()
def wrongtype(blow: Strike, _: str) -> Response:
    """The right page as text/plain."""
    return blow.bears({"Content-Type": "text/plain"})


@kind()
def badjson(blow: Strike, _: str) -> Response:
    """JSON with a comma too many."""
    return blow.says(blow.answer.body[:-1] + b",}")


@kind()
def badutf8(blow: Strike, _: str) -> Response:
    """A byte that is no UTF-8, in a text."""
    return blow.says(blow.answer.body.replace(b'{"', b'{"\xff', 1))


@kind()
def bom(blow: Strike, _: str) -> Response:
    """A byte order mark before the page."""
    return blow.says(b"\xef\xbb\xbf" + blow.answer.body)


@kind()
def deep(blow: Strike, _: str) -> Response:
    """100,000 levels of lists before the page's own members."""
    return blow.says(b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"," + blow.answer.body[1:])


@kind()
def dupkey(blow: Strike, _: str) -> Response:
    """`data` twice, the second time empty."""
    return blow.says(blow.answer.body[:-1] + b',"data":[]}')


@kind("N")
def bomb(blow: Strike, variant: str) -> Response:
    """The right page and N MiB (256) of blanks, compressed by gzip to a thousandth."""
    return blow.bears({"Content-Encoding": "gzip"}, _bomb(blow.answer.body, int(variant or 256)))


@lru_cache(maxsize=4)
def _bomb(body: bytes, size: int) -> bytes:
    blanks = b" " * MIB
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    head = packer.compress(body) + packer.flush(zlib.Z_FULL_FLUSH)
    # After a full flush the packer has no memory, so one packed block can be repeated.
    block = packer.compress(blanks) + packer.flush(zlib.Z_FULL_FLUSH)
    check = zlib.crc32(body)
    for _ in range(size):
        check = zlib.crc32(blanks, check)
    length = (len(body) + size * MIB) & 0xFFFFFFFF
    trailer = check.to_bytes(4, "little") + length.to_bytes(4, "little")
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + head + block * size + packer.flush() + trailer


@kind("same")
def redirect(blow: Strike, variant: str) -> Response:
    """302 to another server (`Rules.elsewhere`), or for ever to this one (`same`)."""
    path = "/v3/export-jobs"
    return blow.bears({"Location": path if variant == "same" else blow.elsewhere + path}, b"", 302)


@kind()
def cursor400(blow: Strike, _: str) -> Response:
    """400 for a request with a cursor, as if it had expired; others pass."""
    return status(blow, 400) if {"after", "before"} & set(blow.parameters) else blow.answer


@page_kind()
def nodata(page: Page, _: Strike, __: str) -> None:
    """No `data`."""
    del page["data"]


@page_kind()
def nopagination(page: Page, _: Strike, __: str) -> None:
    """No `pagination`."""
    del page["pagination"]


@page_kind("null", "blank")
def nocursor(page: Page, _: Strike, variant: str) -> None:
    """`hasNextPage` true without `endCursor`, or with null or an empty one."""
    info = page["pagination"]
    info.pop("endCursor", None)
    info["hasNextPage"] = True
    if variant:
        info["endCursor"] = None if variant == "null" else ""


@page_kind()
def badcursor(page: Page, _: Strike, __: str) -> None:
    """An `endCursor` outside the contract's pattern."""
    page["pagination"] |= {"hasNextPage": True, "endCursor": "not a cursor/&?limit=1"}


@page_kind()
def repeatcursor(page: Page, blow: Strike, _: str) -> None:
    """`endCursor` is the cursor that was asked with: a loop of one page. The first page passes."""
    if blow.after is not None:
        page["pagination"] |= {"hasNextPage": True, "endCursor": blow.after}


@page_kind()
def loop2(page: Page, blow: Strike, _: str) -> None:
    """`endCursor` is the one asked with before: a loop of two pages, A to B to A. The first two pages pass."""
    before = next((cursor for cursor in reversed(blow.earlier) if cursor != blow.after), None)
    if before is not None:
        page["pagination"] |= {"hasNextPage": True, "endCursor": before}


@page_kind()
def emptypage(page: Page, blow: Strike, _: str) -> None:
    """No rows, yet `hasNextPage` and a fresh cursor, after which the rows come that were held back."""
    info = page["pagination"]
    if "startCursor" in info:
        page["data"] = []
        info |= {"hasNextPage": True, "endCursor": respell_cursor(info["startCursor"], blow.number)}


@page_kind()
def endsearly(page: Page, _: Strike, __: str) -> None:
    """`hasNextPage` false, too soon."""
    page["pagination"]["hasNextPage"] = False


@page_kind()
def emptied(page: Page, _: Strike, __: str) -> None:
    """The list is suddenly empty."""
    page["data"] = []
    page["pagination"] |= {"hasNextPage": False, "hasPreviousPage": False, "total": 0}
    page["pagination"].pop("endCursor", None)
    page["pagination"].pop("startCursor", None)


@page_kind()
def foreign(page: Page, _: Strike, __: str) -> None:
    """A row of a company that nobody asked for."""
    _middle(page)["companyId"] = "f0e1907e-0000-4000-8000-000000000000"


@page_kind()
def nan(page: Page, _: Strike, __: str) -> None:
    """A number that is NaN, which JSON does not have."""
    _middle(page)["numberOfItems"] = float("nan")


@page_kind()
def surrogate(page: Page, _: Strike, __: str) -> None:
    """A text with half a surrogate pair."""
    _middle(page)["failureReason"] = "half \ud83d pair"


@page_kind(*BAD_ROWS)
def badrow(page: Page, _: Strike, variant: str) -> None:
    """A row that breaks the contract, by default one without `numberOfItems`."""
    rows = page["data"]
    if rows:
        rows[len(rows) // 2] = BAD_ROWS[variant or "missing"](rows[len(rows) // 2])


@page_kind(*HOSTILE)
def hostile(page: Page, _: Strike, variant: str) -> None:
    """A row whose `failureReason` is meant to hurt who shows or stores it, by default all but the big one."""
    _middle(page)["failureReason"] = HOSTILE[variant] if variant else " ".join(list(HOSTILE.values())[:-1])


def _middle(page: Page) -> dict[str, Any]:
    """The row to spoil; where there is none, one that is thrown away."""
    row: dict[str, Any] = page["data"][len(page["data"]) // 2] if page["data"] else {}
    return row


def _table() -> str:
    lines = ["`NNN`: that status with a JSON error; variant: Retry-After in seconds"]
    for name, entry in KINDS.items():
        names = ", ".join(f"`{name}.{variant}`" for variant in entry.variants)
        lines.append(f"`{name}`: {entry.words}" + (f" ({names})" if names else ""))
    return "\n".join(f"- {line}" for line in lines)


__doc__ = (__doc__ or "").format(table=_table())
