"""The kinds of faults: what a server, or the network in front of it, may do to a response.

Each function below is one kind, and its docstring is the kind's line in this table and in `sandbox --help`.

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
from pleo_extract.sandbox.cursor import make_inclusive
from pleo_extract.sandbox.exchange import Response

__all__ = ["KINDS", "STATUS", "FaultContext", "FaultKind", "status"]

STATUS = re.compile("[2-5][0-9][0-9]")
JSON = "application/json;charset=UTF-8"
MIB = 1 << 20
Page = dict[str, Any]


@dataclass(frozen=True, slots=True)
class FaultContext:
    """What a fault may know about the request and the server.

    Attributes:
        number: the number of the request, from 1.
        answer: the response without the fault.
        parameters: the query parameters of the request.
        earlier_cursors: the `after` cursors of earlier requests, oldest first.
        now: the server's clock, UTC.
        elsewhere: the base URL of another server, for redirects.
    """

    number: int
    answer: Response
    parameters: Mapping[str, list[str]]
    earlier_cursors: Sequence[str]
    now: datetime
    elsewhere: str

    @property
    def after(self) -> str | None:
        """The `after` cursor of the request, or None."""
        return next(iter(self.parameters.get("after", ())), None)

    def with_body(self, body: bytes, **changes: Any) -> Response:
        """Return the response with another body."""
        return replace(self.answer, body=body, **changes)

    def with_headers(
        self, headers: Mapping[str, str], body: bytes | None = None, status: int | None = None
    ) -> Response:
        """Return the response with more headers and, if given, another body and status."""
        return replace(
            self.answer,
            headers={**self.answer.headers, **headers},
            body=self.answer.body if body is None else body,
            status=status or self.answer.status,
        )


ResponseFault = Callable[[FaultContext, str], Response]
PageFault = Callable[[Page, FaultContext, str], None]


class FaultKind(NamedTuple):
    """A kind of fault: its function, its description and its variants (`N`: any number)."""

    apply: ResponseFault
    words: str
    variants: tuple[str, ...]


KINDS: dict[str, FaultKind] = {}


def fault_kind(*variants: str) -> Callable[[ResponseFault], ResponseFault]:
    """Register a function in `KINDS` under its own name; its docstring becomes the description."""

    def register(function: ResponseFault) -> ResponseFault:
        KINDS[function.__name__] = FaultKind(function, (function.__doc__ or "").splitlines()[0], variants)
        return function

    return register


def page_fault(*variants: str) -> Callable[[PageFault], None]:
    """Register a function that changes a page in place; a response that is not a page stays unchanged."""

    def register(function: PageFault) -> None:
        def apply(context: FaultContext, variant: str) -> Response:
            if context.answer.status != HTTPStatus.OK:
                return context.answer
            page = json.loads(context.answer.body)
            function(page, context, variant)
            # json.dumps writes NaN and lone surrogates, as a careless server does.
            return context.with_body(json.dumps(page).encode())

        KINDS[function.__name__] = FaultKind(apply, (function.__doc__ or "").splitlines()[0], variants)

    return register


def status(context: FaultContext, code: int, retry_after: str = "") -> Response:
    """Return an error in the form that Pleo uses, `{"type": ..., "message": ...}`, with Retry-After if given."""
    phrase = HTTPStatus(code).phrase if code in set(HTTPStatus) else "Unknown"
    error = {"type": phrase.lower().replace(" ", "_"), "message": f"{phrase} (on purpose)"}
    headers = {"Content-Type": JSON} | ({"Retry-After": retry_after} if retry_after else {})
    return context.with_headers(headers, b"" if code in (204, 304) else json.dumps(error).encode(), code)


def _add_retry_after(name: str, words: str, value: Callable[[FaultContext, str], str | None]) -> None:
    def refuse(context: FaultContext, variant: str) -> Response:
        answer, header = status(context, 429), value(context, variant)
        return (
            answer if header is None else replace(answer, headers={**answer.headers, "Retry-After": header})
        )

    KINDS[name] = FaultKind(refuse, f"Answer 429; Retry-After is {words}", ("N",) if "N" in words else ())


def _retry_date(context: FaultContext, seconds: int) -> str:
    return format_datetime(context.now.replace(microsecond=0) + timedelta(seconds=seconds), usegmt=True)


_add_retry_after(
    "429date",
    "a date N seconds (2) after the answer's own Date",
    lambda context, n: _retry_date(context, int(n or 2)),
)
_add_retry_after("429past", "a date an hour ago", lambda context, _: _retry_date(context, -3600))
_add_retry_after("429none", "missing", lambda *_: None)
_add_retry_after("429empty", "empty", lambda *_: "")
_add_retry_after("429junk", "`soon`", lambda *_: "soon")
_add_retry_after("429negative", "-5", lambda *_: "-5")
_add_retry_after("429nan", "`nan`", lambda *_: "nan")
_add_retry_after("429huge", "1000000000", lambda *_: "1000000000")


@fault_kind()
def reset(context: FaultContext, _: str) -> Response:
    """Reset the connection before the head."""
    return replace(context.answer, wire="reset")


@fault_kind()
def reset_mid(context: FaultContext, _: str) -> Response:
    """Reset the connection in the middle of the body."""
    return context.with_body(context.answer.body, wire="reset_mid")


@fault_kind("N", "tail", "short", "close", "chunked")
def cut(context: FaultContext, variant: str) -> Response:
    """End the body after half of it, after N bytes or before its last byte, or frame it without a length."""
    body = context.answer.body
    kept = int(variant) if variant.isdigit() else len(body) - 1 if variant == "tail" else len(body) // 2
    wires = {"short": "whole", "close": "cut_close", "chunked": "cut_chunked"}
    return context.with_body(body[:kept], wire=wires.get(variant, "cut"))


@fault_kind("N")
def drip(context: FaultContext, variant: str) -> Response:
    """Send the body byte by byte, one each N milliseconds (1000)."""
    return replace(context.answer, wire="drip", delay=int(variant or 1000) / 1000)


@fault_kind("N")
def slow(context: FaultContext, variant: str) -> Response:
    """Answer N milliseconds (1000) late."""
    return replace(context.answer, delay=context.answer.delay + int(variant or 1000) / 1000)


@fault_kind()
def silence(context: FaultContext, _: str) -> Response:
    """Accept the request and never answer."""
    return replace(context.answer, wire="silence")


@fault_kind()
def html(context: FaultContext, _: str) -> Response:
    """Answer 200 with a page of HTML."""
    return context.with_headers(
        {"Content-Type": "text/html"}, b"<!doctype html><title>Maintenance</title><p>Soon back.", 200
    )


@fault_kind()
def empty(context: FaultContext, _: str) -> Response:
    """Answer 200 without a body."""
    return replace(context.answer, status=200, body=b"")


@fault_kind()
def error200(context: FaultContext, _: str) -> Response:
    """Answer 200 with the JSON body of an error."""
    return replace(status(context, 500), status=200)


@fault_kind()
def wrongtype(context: FaultContext, _: str) -> Response:
    """Send the right page as text/plain."""
    return context.with_headers({"Content-Type": "text/plain"})


@fault_kind()
def badjson(context: FaultContext, _: str) -> Response:
    """Send JSON with one comma too many."""
    return context.with_body(context.answer.body[:-1] + b",}")


@fault_kind()
def badutf8(context: FaultContext, _: str) -> Response:
    """Put a byte that is not UTF-8 into a text."""
    return context.with_body(context.answer.body.replace(b'{"', b'{"\xff', 1))


@fault_kind()
def bom(context: FaultContext, _: str) -> Response:
    """Put a byte order mark before the page."""
    return context.with_body(b"\xef\xbb\xbf" + context.answer.body)


@fault_kind()
def deep(context: FaultContext, _: str) -> Response:
    """Put a list nested 100,000 levels deep before the page's own members."""
    return context.with_body(b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"," + context.answer.body[1:])


@fault_kind()
def dupkey(context: FaultContext, _: str) -> Response:
    """Send `data` twice, the second time empty."""
    return context.with_body(context.answer.body[:-1] + b',"data":[]}')


@fault_kind("N")
def bomb(context: FaultContext, variant: str) -> Response:
    """Send the right page and N MiB (256) of blanks, compressed by gzip to a thousandth."""
    return context.with_headers({"Content-Encoding": "gzip"}, _bomb(context.answer.body, int(variant or 256)))


@lru_cache(maxsize=4)
def _bomb(body: bytes, size: int) -> bytes:
    blanks = b" " * MIB
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    head = packer.compress(body) + packer.flush(zlib.Z_FULL_FLUSH)
    # After a full flush the compressor refers to nothing before it, so one compressed block can be repeated.
    block = packer.compress(blanks) + packer.flush(zlib.Z_FULL_FLUSH)
    check = zlib.crc32(body)
    for _ in range(size):
        check = zlib.crc32(blanks, check)
    length = (len(body) + size * MIB) & 0xFFFFFFFF
    trailer = check.to_bytes(4, "little") + length.to_bytes(4, "little")
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + head + block * size + packer.flush() + trailer


@fault_kind("same")
def redirect(context: FaultContext, variant: str) -> Response:
    """Redirect with 302 to another server (`Rules.elsewhere`), or endlessly to this one (`same`)."""
    path = "/v3/export-jobs"
    return context.with_headers(
        {"Location": path if variant == "same" else context.elsewhere + path}, b"", 302
    )


@fault_kind("404", "410", "422")
def lostcursor(context: FaultContext, variant: str) -> Response:
    """Answer 400, or this status, to a request with a cursor, as if it had expired; let others pass."""
    is_cursor = {"after", "before"} & set(context.parameters)
    return status(context, int(variant or 400)) if is_cursor else context.answer


@page_fault()
def nodata(page: Page, _: FaultContext, __: str) -> None:
    """Leave out `data`."""
    del page["data"]


@page_fault()
def nopagination(page: Page, _: FaultContext, __: str) -> None:
    """Leave out `pagination`."""
    del page["pagination"]


@page_fault("null", "blank")
def nocursor(page: Page, _: FaultContext, variant: str) -> None:
    """Set `hasNextPage` to true and leave out `endCursor`, or make it null or empty."""
    info = page["pagination"]
    info.pop("endCursor", None)
    info["hasNextPage"] = True
    if variant:
        info["endCursor"] = None if variant == "null" else ""


@page_fault()
def badcursor(page: Page, _: FaultContext, __: str) -> None:
    """Send an `endCursor` that does not match the contract's pattern."""
    page["pagination"] |= {"hasNextPage": True, "endCursor": "not a cursor/&?limit=1"}


@page_fault()
def repeatcursor(page: Page, context: FaultContext, _: str) -> None:
    """Return the request's own cursor as `endCursor`: a loop of one page. The first page passes."""
    if context.after is not None:
        page["pagination"] |= {"hasNextPage": True, "endCursor": context.after}


@page_fault()
def loop2(page: Page, context: FaultContext, _: str) -> None:
    """Return the previous request's cursor as `endCursor`: a loop of two pages. The first two pages pass."""
    before = next((cursor for cursor in reversed(context.earlier_cursors) if cursor != context.after), None)
    if before is not None:
        page["pagination"] |= {"hasNextPage": True, "endCursor": before}


@page_fault()
def emptypage(page: Page, context: FaultContext, _: str) -> None:
    """Send no rows, but `hasNextPage` and a new cursor, after which the withheld rows follow."""
    info = page["pagination"]
    if "startCursor" in info:
        page["data"] = []
        info |= {"hasNextPage": True, "endCursor": make_inclusive(info["startCursor"], context.number)}


@page_fault()
def endsearly(page: Page, _: FaultContext, __: str) -> None:
    """Set `hasNextPage` to false too early."""
    page["pagination"]["hasNextPage"] = False


@page_fault()
def emptied(page: Page, _: FaultContext, __: str) -> None:
    """Send an empty list, as if all jobs had disappeared."""
    page["data"] = []
    page["pagination"] |= {"hasNextPage": False, "hasPreviousPage": False, "total": 0}
    page["pagination"].pop("endCursor", None)
    page["pagination"].pop("startCursor", None)


@page_fault()
def foreign(page: Page, _: FaultContext, __: str) -> None:
    """Send a row of a company that was not requested."""
    _middle_row(page)["companyId"] = "f0e1907e-0000-4000-8000-000000000000"


@page_fault()
def nan(page: Page, _: FaultContext, __: str) -> None:
    """Send a number that is NaN, which JSON does not allow."""
    _middle_row(page)["numberOfItems"] = float("nan")


@page_fault()
def surrogate(page: Page, _: FaultContext, __: str) -> None:
    """Send a text with half a surrogate pair."""
    _middle_row(page)["failureReason"] = "half \ud83d pair"


@page_fault(*BAD_ROWS)
def badrow(page: Page, _: FaultContext, variant: str) -> None:
    """Send a row that breaks the contract, by default one without `numberOfItems`."""
    rows = page["data"]
    if rows:
        rows[len(rows) // 2] = BAD_ROWS[variant or "missing"](rows[len(rows) // 2])


@page_fault(*HOSTILE)
def hostile(page: Page, _: FaultContext, variant: str) -> None:
    """Send a row whose `failureReason` attacks whoever shows or stores it, by default with all texts but `big`."""
    _middle_row(page)["failureReason"] = (
        HOSTILE[variant] if variant else " ".join(list(HOSTILE.values())[:-1])
    )


def _middle_row(page: Page) -> dict[str, Any]:
    """Return the row to change; on an empty page, a row that is discarded."""
    row: dict[str, Any] = page["data"][len(page["data"]) // 2] if page["data"] else {}
    return row


def _describe_kinds() -> str:
    lines = ["`NNN`: that status with a JSON error; variant: Retry-After in seconds"]
    for name, entry in KINDS.items():
        names = ", ".join(f"`{name}.{variant}`" for variant in entry.variants)
        lines.append(f"`{name}`: {entry.words}" + (f" ({names})" if names else ""))
    return "\n".join(f"- {line}" for line in lines)


__doc__ = (__doc__ or "").format(table=_describe_kinds())
