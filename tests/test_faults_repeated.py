"""F69: a server repeats the credential in any part of a response. It is shown and stored nowhere.

Each test dumps over a socket with the most verbose command line, and the canary plugin checks what was printed, logged
and written. The stars in its place prove that the server did repeat it.

"""

from __future__ import annotations

import base64
import json
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import pytest
from canary import CANARY, found
from polars.testing import assert_frame_equal
from test_client import PAGE, client_of, fail, http, listen
from trial import edit_pages

from pleo_extract import load_export_jobs
from pleo_extract.client.mask import Mask
from pleo_extract.core.pace import Patience
from pleo_extract.errors import ContractError, PageError, PleoExtractError, TryLater
from pleo_extract.sandbox import Rules, Sandbox, World, serve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    import polars as pl
    from conftest import Said

    from pleo_extract.sandbox import RequestLike, Response

BASIC: Final = base64.b64encode(f"{CANARY}:".encode()).decode()
FORMS: Final = {
    "key": CANARY,
    "header": f"Basic {BASIC}",
    "password": base64.b64encode(f":{CANARY}".encode()).decode(),
    "quoted": quote(CANARY, safe=""),
    "lower quoted": quote(CANARY, safe="").replace("%2F", "%2f").replace("%2B", "%2b"),
}


def in_header(
    name: str, said: str, status: int = 200
) -> Callable[[Sandbox], Callable[[RequestLike], Response]]:
    """Repeat the credential in a header, of a page or of an error without a body."""

    def make(sandbox: Sandbox) -> Callable[[RequestLike], Response]:
        def answer(request: RequestLike) -> Response:
            given = sandbox(request)
            body = given.body if status == 200 else b""
            return type(given)(status, {**given.headers, name: said}, body)

        return answer

    return make


def in_page(edit: Callable[[dict[str, Any], str], object], said: str) -> Callable[[Sandbox], Any]:
    """Put the credential into pages."""
    return lambda sandbox: edit_pages(sandbox, lambda page, _: edit(page, said))


def in_row(name: str) -> Callable[[dict[str, Any], str], object]:
    """Put the credential into this field of the first row of each page."""
    return lambda page, said: page["data"] and page["data"][0].update({name: said})


HEADERS: Final = {
    "type": ("Content-Type", 200, "text/{}"),
    "encoding": ("Content-Encoding", 200, "{}"),
    "location": ("Location", 302, "//{}/"),
    "location without host": ("Location", 308, "{}"),
    "wait": ("Retry-After", 503, "{}"),
    "another": ("X-Request-Id", 200, "{}"),
}
PLACES: Final[dict[str, Callable[[dict[str, Any], str], object]]] = {
    "id": in_row("id"),
    "company": in_row("companyId"),
    "date": in_row("createdAt"),
    "status": in_row("status"),
    "reason": in_row("failureReason"),
    "unknown field": in_row("another"),
    "name of a field": lambda page, said: page["data"] and page["data"][0].update({said: 1}),
    "items": lambda page, said: page["data"] and page["data"][0].update(items=[{"status": said}]),
    "cursor": lambda page, said: page["pagination"].update(endCursor=said, hasNextPage=True),
    "total": lambda page, said: page["pagination"].update(total=said),
    "sorting": lambda page, said: page["pagination"].update(
        currentRequestPagination={"sortingKeys": [said], "sortingOrder": [said]}
    ),
    "no page": lambda page, said: page.update(data=said),
}


def crossed(places: Iterable[str], first: str) -> list[tuple[str, str]]:
    """Return all forms of the credential in one place, and the two most likely ones in each other place."""
    return [
        (place, form) for place in places for form in FORMS if place == first or form in ("key", "header")
    ]


UNSEEN: Final = {"total"}
"""The places whose content is never shown or stored."""


@pytest.fixture
def talk(
    pleo: Callable[..., Said], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[[Callable[[Sandbox], Any]], str]:
    """Dump twice, the second time incrementally; return everything that was printed and stored."""

    def run(make: Callable[[Sandbox], Any]) -> str:
        lake = tmp_path / "lake"
        sandbox = Sandbox(World(jobs=60), rules=Rules(max_limit=10), api_keys={CANARY: None})
        monkeypatch.setenv("PLEO_API_KEY", CANARY)
        with serve(make(sandbox)) as running:
            said = [
                pleo(
                    *("dump", lake, "--base-url", running.url, "--rate", 100_000, "--deadline", 1),
                    *("--log-level", "debug", "--log-format", form, "--metrics", tmp_path / "metrics"),
                )
                for form in ("text", "json")
            ]
        said += [pleo("status", lake), pleo("status", lake, "--json")]
        kept = [path.read_bytes().decode("latin-1") for path in tmp_path.rglob("*") if path.is_file()]
        text = "\n".join([*(each.out + each.err for each in said), *kept])
        assert "Traceback" not in text
        assert not found(text)
        return text

    return run


class TestCommandLine:
    """From a response to stderr, records, receipts, manifests and rejected rows."""

    @pytest.mark.slow
    @pytest.mark.parametrize(("place", "form"), crossed(HEADERS, "type"))
    def test_f69_headers(self, place: str, form: str, talk: Callable[..., str]) -> None:
        """A repeated credential in a header that a message shows is masked."""
        name, status, template = HEADERS[place]
        text = talk(in_header(name, template.format(FORMS[form]), status))
        if place in ("type", "encoding"):
            assert "***" in text

    @pytest.mark.slow
    @pytest.mark.parametrize(("place", "form"), crossed(PLACES, "id"))
    def test_f69_pages(self, place: str, form: str, talk: Callable[..., str]) -> None:
        """A repeated credential in a row, cursor, total or echo is masked, in valid and invalid pages."""
        text = talk(in_page(PLACES[place], FORMS[form]))
        assert "the server repeats the credential in its pages" in text
        assert ("***" in text) is (place not in UNSEEN)

    @pytest.mark.parametrize("place", ["id", "cursor"])
    def test_f69_escaped(self, place: str, talk: Callable[..., str]) -> None:
        r"""A credential with JSON escapes, `\/` or `\u` and a number, is masked."""
        marks = {"\\/": CANARY.replace("/", "\\/"), "\\u": "".join(f"\\u{ord(c):04X}" for c in CANARY)}
        for spelled in marks.values():

            def make(sandbox: Sandbox, spelled: str = spelled) -> Callable[[RequestLike], Response]:
                marked = edit_pages(sandbox, lambda page, _: PLACES[place](page, "HERE"))

                def answer(request: RequestLike) -> Response:
                    given = marked(request)
                    return type(given)(
                        given.status, given.headers, given.body.replace(b"HERE", spelled.encode())
                    )

                return answer

            assert "***" in talk(make)


@pytest.mark.parametrize("key", ["plainKey12345678", CANARY])
@pytest.mark.parametrize("written", ["C:\\\\/dir", "\\\\u006e \\\\u0041+", "a\\u0000b", "text \\\\u0061 \\/"])
def test_f69_the_other_rows_of_a_page_stay_as_they_are(key: str, written: str) -> None:
    """A page in which one row repeats the credential gives the same rows as one without it, but for three stars."""
    sandbox = Sandbox(World(jobs=60), api_keys={key: None})

    def load(said: str) -> pl.DataFrame:
        def edit(page: dict[str, Any], _: int) -> None:
            for row, text in zip(page["data"], [said, "OTHER"], strict=False):
                row.update(status="failed", failureReason=text, failureReasonType="TYPE")

        edited = edit_pages(sandbox, edit)

        def answer(request: RequestLike) -> Response:
            given = edited(request)
            body = given.body.replace(b"OTHER", written.encode()).replace(b"TYPE", f"t {written}".encode())
            return type(given)(given.status, given.headers, body)

        with client_of(answer, api_key=key) as client:
            return load_export_jobs(client=client)

    repeated, plain = load(f"no access for {key}!"), load("no access for ***!")
    assert_frame_equal(repeated, plain)
    assert f"t {json.loads(f'{chr(34)}{written}{chr(34)}')}" in set(plain["failure_reason_type"])


class TestClient:
    """Bytes that are not a response, and the attributes of errors."""

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize(
        ("before", "after"),
        [
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"\r\n"),
            (b"HTTP/1.1 200 OK\r\n", b" no header\r\n\r\n"),
            (b"HTTP/1.1 200 ", b"\0\r\n\r\n"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: ", b"\r\n\r\n"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: ", b"\r\n\r\n"),
            (b"", b"\r\n\r\n"),
        ],
        ids=["chunk", "header", "status line", "length", "transfer", "no HTTP"],
    )
    def test_f69_protocol(self, before: bytes, after: bytes, form: str) -> None:
        """The quotation in an error of the HTTP parser is masked."""
        answer = before + FORMS[form].encode() + after
        with listen(lambda stream, _: stream.sendall(answer)) as server, client_of(url=server.url) as client:
            error, _ = fail(client)
        seen: BaseException | None = error
        while seen is not None:
            assert not found(f"{seen} {seen.args} {vars(seen)}")
            seen = seen.__cause__ or seen.__context__
        assert isinstance(error, TryLater | ContractError)

    def test_f69_a_cursor(self) -> None:
        """No error of a walk holds a cursor that repeats the credential, not even as an attribute."""
        sandbox = Sandbox(World(jobs=60), rules=Rules(max_limit=10), api_keys={CANARY: None})
        edited = edit_pages(sandbox, lambda page, _: PLACES["cursor"](page, CANARY))
        with client_of(edited) as client, pytest.raises(PleoExtractError) as caught:
            load_export_jobs(client=client)
        seen: BaseException | None = caught.value
        while seen is not None:
            assert not found(f"{seen} {vars(seen)}")
            seen = seen.__cause__ or seen.__context__

    def test_f69_a_token_that_was_renewed(self) -> None:
        """A token is still masked after it was renewed."""
        given = iter([CANARY, "second-token-0123456789"])
        answers = iter(
            [
                http(b"", status="401 Unauthorized"),
                *[http(CANARY.encode())] * 3,
            ]
        )
        with ExitStack() as stack:
            server = stack.enter_context(listen(lambda stream, _: stream.sendall(next(answers))))
            client = stack.enter_context(
                client_of(url=server.url, access_token=lambda: next(given), patience=Patience(attempts=3))
            )
            error, _ = fail(client)
        assert type(error) is PageError
        assert "***" in str(error)
        assert not found(str(error))

    def test_f69_data_that_does_not_repeat_it_stays(self) -> None:
        """A page without the credential keeps its bytes, escapes included, even if the key is a common word."""
        page = PAGE + b' "\\u0070lp \\/ Basic cGxw"'
        assert Mask(CANARY).clean(page) is page
        assert Mask(CANARY).is_long
        assert not Mask("failed").is_long

    def test_f69_a_short_key_leaves_words_whole(self) -> None:
        """A key of a few letters is masked where it stands alone, and damages no word that contains its letters."""
        said = b"key x was revoked or has expired: 'x', x:y, %78"
        assert Mask("x").clean(said) == b"key *** was revoked or has expired: '***', ***:y, %78"
        assert Mask(CANARY).clean(f"a{CANARY}b".encode()) == b"a***b"
