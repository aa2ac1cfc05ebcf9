"""Bytes to rows: one table of cases, used in both directions, then property tests."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pleo_extract.contract import COLUMNS, POLARS_SCHEMA, instant_key
from pleo_extract.core.decode import Page, Rejected, build_frame, parse_page
from pleo_extract.errors import PageError

if TYPE_CHECKING:
    import polars as pl

ID = "0b9d8a4e-1c2d-4e3f-8a9b-0c1d2e3f4a5b"
COMPANY = "5e6a4a5a-3b0c-4e8e-9a51-0d7d3c2b1a90"
USER = "77777777-aaaa-4bbb-8ccc-dddddddddddd"
JOB: Final[dict[str, Any]] = {
    "companyId": COMPANY,
    "completedAt": "2026-10-31T08:05:00Z",
    "createdAt": "2026-10-31T08:00:00Z",
    "createdBy": USER,
    "expiredAt": None,
    "expiresIn": 3600,
    "failureReason": None,
    "id": ID,
    "isInteractive": True,
    "lastUpdatedAt": "2026-10-31T08:05:00Z",
    "numberOfItems": 12,
    "startedAt": "2026-10-31T08:00:30Z",
    "status": "completed",
    "vendorBasedBookkeeping": False,
}
ROW: Final[dict[str, Any]] = {
    "id": ID,
    "company_id": COMPANY,
    "status": "completed",
    "created_at": datetime(2026, 10, 31, 8, 0, tzinfo=UTC),
    "started_at": datetime(2026, 10, 31, 8, 0, 30, tzinfo=UTC),
    "completed_at": datetime(2026, 10, 31, 8, 5, tzinfo=UTC),
    "expired_at": None,
    "last_updated_at": datetime(2026, 10, 31, 8, 5, tzinfo=UTC),
    "expires_in": 3600,
    "created_by": USER,
    "is_interactive": True,
    "number_of_items": 12,
    "vendor_based_bookkeeping": False,
    "failure_reason_type": None,
    "failure_reason": None,
    "extra": None,
}
GONE: Final = object()
"""A marker for an absent field."""


def job(**changes: Any) -> dict[str, Any]:
    """Return a job as the API sends it, with other fields."""
    return {name: value for name, value in {**JOB, **changes}.items() if value is not GONE}


def page_of(*rows: Any, **pagination: Any) -> bytes:
    """Return a page as the API sends it, of rows as values or as JSON bytes."""
    info = {
        "currentRequestPagination": {"parameters": {}},
        "hasNextPage": False,
        "hasPreviousPage": False,
        **pagination,
    }
    spelled = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    said = {name: value for name, value in info.items() if value is not GONE}
    return b'{"data":[%b],"pagination":%b}' % (b",".join(spelled), json.dumps(said).encode())


def read(*rows: Any) -> tuple[pl.DataFrame, list[Rejected]]:
    """Return the frame of one page, and the rejected rows."""
    return build_frame([parse_page(page_of(*rows))])


def at(*moment: int, **more: int) -> datetime:
    """Return an instant in UTC."""
    return datetime(*moment, tzinfo=UTC, **more)  # type: ignore[misc,arg-type]


FITS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("as documented", {}, {}),
    ("F26 unknown status", {"status": "canceled"}, {"status": "canceled"}),
    ("F26 unknown reason", {"failureReasonType": "sunspots"}, {"failure_reason_type": "sunspots"}),
    ("F26 reason null", {"failureReasonType": None}, {}),
    ("nullable absent", {"completedAt": GONE, "createdBy": GONE}, {"completed_at": None, "created_by": None}),
    (
        "nullable null",
        {"startedAt": None, "lastUpdatedAt": None},
        {"started_at": None, "last_updated_at": None},
    ),
    ("int32 at its edge", {"expiresIn": 2**31 - 1}, {"expires_in": 2**31 - 1}),
    ("int32 at its other edge", {"expiresIn": -(2**31)}, {"expires_in": -(2**31)}),
    ("int64 at its edge", {"numberOfItems": 2**63 - 1}, {"number_of_items": 2**63 - 1}),
    ("zero items", {"numberOfItems": 0}, {"number_of_items": 0}),
    (
        "F29 nanoseconds are cut, not rounded",
        {"createdAt": "2026-10-31T08:00:00.999999999Z"},
        {"created_at": at(2026, 10, 31, 8, 0, 0, 999999)},
    ),
    (
        "F29 before 1970 they are cut to the same side",
        {"createdAt": "1969-12-31T23:59:59.9999999Z"},
        {"created_at": at(1969, 12, 31, 23, 59, 59, 999999)},
    ),
    (
        "F29 more digits than nanoseconds",
        {"createdAt": "2026-10-31T08:00:00.12345678901234567890Z"},
        {"created_at": at(2026, 10, 31, 8, 0, 0, 123456)},
    ),
    (
        "F29 one digit",
        {"createdAt": "2026-10-31T08:00:00.5Z"},
        {"created_at": at(2026, 10, 31, 8, 0, 0, 500000)},
    ),
    ("F29 offset", {"createdAt": "2026-10-31T10:00:00+02:00"}, {"created_at": at(2026, 10, 31, 8)}),
    ("F29 offset west", {"createdAt": "2026-10-31T04:30:00-03:30"}, {"created_at": at(2026, 10, 31, 8)}),
    (
        "F29 offset over midnight",
        {"createdAt": "2026-01-01T00:30:00+23:59"},
        {"created_at": at(2025, 12, 31, 0, 31)},
    ),
    (
        "F29 unknown local offset",
        {"createdAt": "2026-10-31T08:00:00-00:00"},
        {"created_at": at(2026, 10, 31, 8)},
    ),
    ("F29 lower case", {"createdAt": "2026-10-31t08:00:00z"}, {"created_at": at(2026, 10, 31, 8)}),
    ("F29 year 1", {"createdAt": "0001-01-01T00:00:00Z"}, {"created_at": at(1, 1, 1)}),
    (
        "F29 year 9999",
        {"createdAt": "9999-12-31T23:59:59.999999999Z"},
        {"created_at": at(9999, 12, 31, 23, 59, 59, 999999)},
    ),
    ("F29 leap second", {"createdAt": "2026-06-30T23:59:60Z"}, {"created_at": at(2026, 7, 1)}),
    ("F29 leap day", {"createdAt": "2024-02-29T12:00:00Z"}, {"created_at": at(2024, 2, 29, 12)}),
    (
        "F31 hostile text",
        {"failureReason": "a\0b\r\n\x1b[31m\u202e\u2028👩\u200d👧 </script> ' \" \\"},
        {"failure_reason": "a\0b\r\n\x1b[31m\u202e\u2028👩\u200d👧 </script> ' \" \\"},
    ),
    ("F31 a megabyte", {"failureReason": "x" * 2**20}, {"failure_reason": "x" * 2**20}),
    ("empty text", {"failureReason": ""}, {"failure_reason": ""}),
    ("F33 UUID in capitals", {"id": ID.upper()}, {"id": ID}),
    ("F33 every UUID", {"companyId": COMPANY.upper(), "createdBy": USER.upper()}, {}),
    ("F30 extra field", {"attempt": 2}, {"extra": '{"attempt":2}'}),
    (
        "F30 extra fields, nested, in the order of their names",
        {"z": {"b": [1, {"a": None}], "a": 'Köb "A/S"'}, "a": 1.50, "failureReasonType": "x"},
        {
            "extra": '{"a":1.5,"z":{"b":[1,{"a":null}],"a":"K\\u00f6b \\"A/S\\""}}',
            "failure_reason_type": "x",
        },
    ),
    (
        "F30 an extra field of the name of a column",
        {"extra": 1, "company_id": 2},
        {"extra": '{"company_id":2,"extra":1}'},
    ),
]
"""The name, the fields that the API sends instead, and the values that the row has instead."""

TEXT = "not an instant with an offset"
MISFITS: list[tuple[str, dict[str, Any], str, str]] = [
    ("required absent", {"numberOfItems": GONE}, "numberOfItems", "missing required field"),
    ("id absent", {"id": GONE}, "id", "missing required field"),
    ("required null", {"status": None}, "status", "Expected `str`, got `null`"),
    ("createdAt null", {"createdAt": None}, "createdAt", "Expected `str`, got `null`"),
    ("F28 int32 overflow", {"expiresIn": 2**31}, "expiresIn", "Expected `int` <= 2147483647"),
    ("F28 int32 underflow", {"expiresIn": -(2**31) - 1}, "expiresIn", "Expected `int` >= -2147483648"),
    (
        "F28 int64 overflow",
        {"numberOfItems": 2**63},
        "numberOfItems",
        "Expected `int` <= 9223372036854775807",
    ),
    ("F28 far beyond", {"numberOfItems": 10**30}, "numberOfItems", "Expected `int` <= 9223372036854775807"),
    ("F28 1.5", {"numberOfItems": 1.5}, "numberOfItems", "Expected `int`, got `float`"),
    ("F28 7.0", {"numberOfItems": 7.0}, "numberOfItems", "Expected `int`, got `float`"),
    ("F28 a number in a text", {"numberOfItems": "7"}, "numberOfItems", "Expected `int`, got `str`"),
    ("F28 true", {"numberOfItems": True}, "numberOfItems", "Expected `int`, got `bool`"),
    ("F28 a text that is a number", {"status": 17}, "status", "Expected `str`, got `int`"),
    ("F28 1 for true", {"isInteractive": 1}, "isInteractive", "Expected `bool`, got `int`"),
    ("F28 true in a text", {"isInteractive": "true"}, "isInteractive", "Expected `bool`, got `str`"),
    ("a list for a text", {"failureReason": ["a"]}, "failureReason", "got `array`"),
    ("F29 no offset", {"createdAt": "2026-10-31T08:00:00"}, "createdAt", TEXT),
    ("F29 no offset, with a fraction", {"createdAt": "2026-10-31T08:00:00.5"}, "createdAt", TEXT),
    ("F29 a blank for T", {"createdAt": "2026-10-31 08:00:00Z"}, "createdAt", TEXT),
    ("F29 leading blank", {"createdAt": " 2026-10-31T08:00:00Z"}, "createdAt", TEXT),
    ("F29 trailing line break", {"createdAt": "2026-10-31T08:00:00Z\n"}, "createdAt", TEXT),
    ("F29 one digit", {"createdAt": "2026-1-2T08:00:00Z"}, "createdAt", TEXT),
    ("F29 week date", {"createdAt": "2026-W01-1T08:00:00Z"}, "createdAt", TEXT),
    ("F29 day of the year", {"createdAt": "2026-123T08:00:00Z"}, "createdAt", TEXT),
    ("F29 24:00", {"createdAt": "2026-10-31T24:00:00Z"}, "createdAt", TEXT),
    ("F29 :61", {"createdAt": "2026-10-31T08:00:61Z"}, "createdAt", TEXT),
    ("F29 no such day", {"createdAt": "2026-02-30T08:00:00Z"}, "createdAt", TEXT),
    ("F29 no such leap day", {"createdAt": "1900-02-29T08:00:00Z"}, "createdAt", TEXT),
    ("F29 month 13", {"createdAt": "2026-13-01T08:00:00Z"}, "createdAt", TEXT),
    ("F29 year 0", {"createdAt": "0000-01-01T00:00:00Z"}, "createdAt", TEXT),
    ("F29 year 10000", {"createdAt": "10000-01-01T00:00:00Z"}, "createdAt", TEXT),
    ("F29 before year 1 by its offset", {"createdAt": "0001-01-01T00:00:00+00:01"}, "createdAt", TEXT),
    ("F29 beyond year 9999 by its offset", {"createdAt": "9999-12-31T23:59:59-00:01"}, "createdAt", TEXT),
    ("F29 beyond year 9999 by a leap second", {"createdAt": "9999-12-31T23:59:60Z"}, "createdAt", TEXT),
    ("F29 offset of a day", {"createdAt": "2026-10-31T08:00:00+24:00"}, "createdAt", TEXT),
    ("F29 offset without colon", {"createdAt": "2026-10-31T08:00:00+0200"}, "createdAt", TEXT),
    ("F29 offset minutes", {"createdAt": "2026-10-31T08:00:00+01:60"}, "createdAt", TEXT),
    ("F29 named zone", {"createdAt": "2026-10-31T08:00:00 UTC"}, "createdAt", TEXT),
    ("F29 the contract's picture", {"createdAt": "YYYY-MM-DDTHH:mi:ssZ"}, "createdAt", TEXT),
    ("F29 other digits", {"createdAt": "２026-10-31T08:00:00Z"}, "createdAt", TEXT),  # noqa: RUF001 - the case
    ("F29 two instants", {"createdAt": "2026-10-31T08:00:00Z2026-10-31T08:00:00Z"}, "createdAt", TEXT),
    ("F29 empty", {"createdAt": ""}, "createdAt", TEXT),
    ("F29 an optional instant", {"expiredAt": "soon"}, "expiredAt", TEXT),
    ("F29 seconds since 1970", {"createdAt": 1_790_000_000}, "createdAt", "Expected `str`, got `int`"),
    ("F33 braces", {"id": "{" + ID + "}"}, "id", "not a UUID"),
    ("F33 urn", {"id": "urn:uuid:" + ID}, "id", "not a UUID"),
    ("F33 no hyphens", {"id": ID.replace("-", "")}, "id", "not a UUID"),
    ("F33 trailing line break", {"id": ID + "\n"}, "id", "not a UUID"),
    ("F33 another letter", {"id": "g" + ID[1:]}, "id", "not a UUID"),
    ("F33 a path", {"companyId": "../../etc/passwd"}, "companyId", "not a UUID"),
    ("F33 an optional UUID", {"createdBy": ""}, "createdBy", "not a UUID"),
]
"""The name, the fields that the API sends instead, the field in the message, and words of the reason."""


class TestRows:
    """Each case alone and among valid rows: a neighbour must not change how a row is read."""

    @pytest.mark.parametrize(("sent", "read_as"), [case[1:] for case in FITS], ids=[case[0] for case in FITS])
    def test_fits(self, sent: dict[str, Any], read_as: dict[str, Any]) -> None:
        """A valid value gives exactly this row, alone and among others."""
        wanted = {**ROW, **read_as}
        for rows, place in (([job(**sent)], 0), ([job(), job(**sent), job()], 1)):
            frame, rejected = read(*rows)
            assert rejected == []
            assert frame.schema == POLARS_SCHEMA
            assert frame.row(place, named=True) == wanted
            others = [row for n, row in enumerate(frame.iter_rows(named=True)) if n != place]
            assert all(row == ROW for row in others)

    @pytest.mark.parametrize(
        ("sent", "field", "reason"), [case[1:] for case in MISFITS], ids=[case[0] for case in MISFITS]
    )
    def test_f27_does_not_fit(self, sent: dict[str, Any], field: str, reason: str) -> None:
        """F27: an invalid row is rejected with page, path, reason and JSON; the others stay in order."""
        first, bad, last = job(numberOfItems=1), job(**sent), job(numberOfItems=3)
        page = parse_page(page_of(first, bad, last), number=7)
        frame, rejected = build_frame([page])
        assert frame["number_of_items"].to_list() == [1, 3]
        assert frame.schema == POLARS_SCHEMA
        assert [(row.page, row.path) for row in rejected] == [(7, f"$.data[1].{field}")]
        assert reason in rejected[0].reason
        assert json.loads(rejected[0].raw) == bad
        assert page.info.rows == 3
        assert str(rejected[0]) == f"page 7, $.data[1].{field}: {rejected[0].reason}"
        assert str(rejected[0]).isprintable()

    @pytest.mark.parametrize(("sent", "field"), [case[1:3] for case in MISFITS], ids=[c[0] for c in MISFITS])
    def test_f27_does_not_fit_alone(self, sent: dict[str, Any], field: str) -> None:
        """F27: a page with only an invalid row has no rows; unknown fields change nothing."""
        frame, rejected = read(job(**sent))
        assert frame.height == 0
        assert frame.schema == POLARS_SCHEMA
        again, rejected_again = read(job(**sent, novelty={"a": [1]}))
        assert again.height == 0
        assert (
            [row.path for row in rejected] == [row.path for row in rejected_again] == [f"$.data[0].{field}"]
        )

    @pytest.mark.parametrize("row", [b"null", b"[]", b"7", b'"job"', b"true"])
    def test_what_is_no_object_is_no_row(self, row: bytes) -> None:
        """An entry of `data` that is not an object is rejected as a whole."""
        frame, rejected = read(job(), row)
        assert frame.height == 1
        assert [(r.path, r.raw) for r in rejected] == [("$.data[1]", row)]

    def test_first_bad_field_is_named_once(self) -> None:
        """A row with several invalid fields is rejected once."""
        _, rejected = read(job(id="x", createdAt="y", createdBy="z"))
        assert [row.path for row in rejected] == ["$.data[0].id"]

    def test_bad_rows_of_both_kinds_on_several_pages(self) -> None:
        """Rows that fail at parsing or at typing are reported with their own page, place and JSON."""
        one = page_of(
            job(numberOfItems=1), job(status=None), job(numberOfItems=2), job(id="bad"), job(numberOfItems=3)
        )
        two = page_of(job(createdAt="bad"), job(numberOfItems=4))
        pages = [parse_page(one, number=1), parse_page(two, number=2)]
        frame, rejected = build_frame(pages)
        assert frame["number_of_items"].to_list() == [1, 2, 3, 4]
        reported = {(row.page, row.path): json.loads(row.raw) for row in rejected}
        assert reported == {
            (1, "$.data[1].status"): job(status=None),
            (1, "$.data[3].id"): job(id="bad"),
            (2, "$.data[0].createdAt"): job(createdAt="bad"),
        }

    def test_f32_same_id_in_two_companies(self) -> None:
        """F32: one id in two companies is two rows."""
        other = COMPANY.replace("5", "6")
        frame, rejected = read(job(), job(companyId=other))
        assert rejected == []
        assert frame.select("company_id", "id").rows() == [(COMPANY, ID), (other, ID)]

    def test_of_a_repeated_key_the_last_counts(self) -> None:
        """Of a repeated field the last one counts, known or unknown."""
        row = json.dumps(job()).encode()[:-1] + b',"status":"failed","x":1,"x":2}'
        frame, _ = read(row)
        assert frame.select("status", "extra").row(0) == ("failed", '{"x":2}')

    def test_extra_has_no_blanks_and_is_null_where_there_is_none(self) -> None:
        """`extra` has no whitespace of the server, and is null without unknown fields."""
        spaced = json.dumps(job(x={"a": [1, 2]}), indent=4).encode()
        frame, _ = read(job(), spaced, job())
        assert frame["extra"].to_list() == [None, '{"x":{"a":[1,2]}}', None]

    def test_numbers_in_extra_stay_as_they_are_written(self) -> None:
        """Numbers in unknown fields keep all digits."""
        row = json.dumps(job()).encode()[:-1] + b',"n":[1.10,1e400,123456789012345678901234567890,-0]}'
        frame, _ = read(row)
        assert frame["extra"].item() == '{"n":[1.10,1e400,123456789012345678901234567890,-0]}'

    @pytest.mark.parametrize("pages", [[], [page_of()], [page_of(), page_of()]], ids=["none", "one", "two"])
    def test_no_rows(self, pages: list[bytes]) -> None:
        """Without rows a frame has all columns with their types."""
        frame, rejected = build_frame([parse_page(body) for body in pages])
        assert frame.schema == POLARS_SCHEMA
        assert frame.columns == list(COLUMNS)
        assert (frame.height, rejected) == (0, [])

    def test_all_null_columns_keep_their_types(self) -> None:
        """A column with only nulls keeps its type."""
        frame, _ = read(job(startedAt=None, completedAt=None, lastUpdatedAt=None, createdBy=None))
        assert frame.schema == POLARS_SCHEMA

    def test_pages_follow_each_other(self) -> None:
        """Rows keep the order of their pages, even if only some pages have unknown fields."""
        bodies = [
            page_of(job(numberOfItems=1)),
            page_of(job(numberOfItems=2, x=1)),
            page_of(job(numberOfItems=3)),
        ]
        frame, _ = build_frame([parse_page(body) for body in bodies])
        assert frame.select("number_of_items", "extra").rows() == [(1, None), (2, '{"x":1}'), (3, None)]


class TestPages:
    """Bodies that are not a page, and the pagination of a page."""

    @pytest.mark.parametrize(
        ("body", "why"),
        [
            (b"", "truncated"),
            (b"<!doctype html><title>Maintenance</title>", "malformed"),
            (b'{"type": "error", "message": "no"}', "missing required field `data`"),
            (b'{"data":[]}', "missing required field `pagination`"),
            (b'{"pagination":{"hasNextPage":false}}', "missing required field `data`"),
            (page_of(job(), hasNextPage=GONE), "missing required field `hasNextPage`"),
            (page_of(job(), hasNextPage=None), "hasNextPage"),
            (page_of(job(), hasNextPage="false"), "hasNextPage"),
            (page_of(job(), hasPreviousPage=0), "hasPreviousPage"),
            (page_of(job(), endCursor=7), "endCursor"),
            (page_of(job(), total="7"), "total"),
            (page_of(job(), total=1.5), "total"),
            (page_of(job(), total=2**63), "total"),
            (page_of(job(), currentRequestPagination={"limit": "5"}), "limit"),
            (page_of(job()).replace(b'"data":[', b'"data":{"a":').replace(b"],", b"},", 1), "data"),
            (b'{"data":null,"pagination":{"hasNextPage":false}}', "data"),
            (b"[]", "Expected `object`, got `array`"),
            (b"null", "Expected `object`, got `null`"),
            (b"\xef\xbb\xbf" + page_of(job()), "malformed"),
            (page_of(job()).replace(b"12", b"NaN"), "malformed"),
            (page_of(job()).replace(b"12", b"-Infinity"), "malformed"),
            (page_of(job()).replace(b"12", b"012"), "malformed"),
            (page_of(job()).replace(b"completed", b"half \\ud83d pair"), ""),
            (page_of(job()).replace(b"completed", b"tab\there"), "malformed"),
            (page_of(job()).replace(b"completed", b"\xff"), "utf-8"),
            (page_of(job()).replace(b"completed", b"\xed\xa0\x80"), "utf-8"),
            (page_of(job()) + b"{}", "trailing"),
            (page_of(job())[:-1] + b",}", ""),
            (b"[" * 100_000 + b"]" * 100_000, ""),
            (b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"," + page_of(job())[1:], "recursion"),
            (
                page_of(json.dumps(job()).encode()[:-1] + b',"x":' + b"[" * 9_999 + b"]" * 9_999 + b"}"),
                "recursion",
            ),
        ],
    )
    def test_f10_what_is_no_page(self, body: bytes, why: str) -> None:
        """F9, F10: a body that is not a page raises PageError with page, reason, length and beginning, in one line."""
        with pytest.raises(PageError) as caught:
            parse_page(body, number=3)
        message = str(caught.value)
        assert re.match(r"page 3 is not a page of export jobs \(.+\): \d+ bytes, starting '", message)
        assert why in message
        assert message.isprintable()
        assert len(message) < 400

    @pytest.mark.parametrize(
        "spoil",
        [
            lambda row: row.replace(b"completed", b"\xff"),
            lambda row: row.replace(b"completed", b"half \\ud83d pair"),
            lambda row: row.replace(b"12", b"NaN"),
        ],
        ids=["bad UTF-8", "lone surrogate", "NaN"],
    )
    @pytest.mark.parametrize(
        "neighbour", [job(), job(x=1), job(id=7)], ids=["fits", "has extra", "is rejected"]
    )
    def test_f10_bytes_that_are_no_json_text_spoil_the_page(
        self, spoil: Any, neighbour: dict[str, Any]
    ) -> None:
        """F10: bytes that are not JSON anywhere invalidate the whole page."""
        bad = spoil(json.dumps(job()).encode())
        extra = spoil(json.dumps(job(status="failed", x={"completed": 12})).encode())
        for rows in ([neighbour, bad], [bad, neighbour], [neighbour, extra], [extra, neighbour]):
            with pytest.raises(PageError):
                parse_page(page_of(*rows))

    def test_a_page_of_text_shows_its_start_escaped(self) -> None:
        """F9: the message shows the first 80 characters, escaped, in one line."""
        with pytest.raises(
            PageError, match=re.escape("213 bytes, starting '<p>\\x1b[2J\\r\\n" + "x" * 71 + "…'")
        ):
            parse_page(b"<p>\x1b[2J\r\n" + b"x" * 200 + b"</p>")

    def test_f6_every_truncation_is_an_error(self) -> None:
        """F6: a valid body cut after any byte is not a page, never a shorter one."""
        body = page_of(job(), job(x={"a": 1}), job(numberOfItems="x"), endCursor="ABC", total=3)
        parse_page(body)
        for end in range(len(body)):
            with pytest.raises(PageError):
                parse_page(body[:end])

    def test_what_a_page_says_of_itself(self) -> None:
        """PageInfo has what a walk needs: flags, cursors, total, echo, keys, companies and statuses."""
        other = COMPANY.upper().replace("5", "6")
        info = parse_page(
            page_of(
                job(createdAt="2026-10-31T10:00:00.500+02:00", id=ID.upper()),
                job(status="failed", companyId=other),
                hasNextPage=True,
                hasPreviousPage=True,
                startCursor="AB",
                endCursor="CD",
                total=7,
                currentRequestPagination={
                    "after": "X",
                    "limit": 2,
                    "parameters": {"limit": ["2"]},
                    "sortingKeys": ["createdAt", "id"],
                    "sortingOrder": ["ASC", "DESC_NULLS_LAST"],
                },
            )
        ).info
        assert info.rows == 2
        assert (info.has_next, info.has_previous) == (True, True)
        assert (info.start_cursor, info.end_cursor, info.total, info.limit) == ("AB", "CD", 7, 2)
        assert info.sorting_keys == ("createdAt", "id")
        assert info.sorting_order == ("ASC", "DESC_NULLS_LAST")
        assert info.keys == (("2026-10-31T08:00:00.5", ID), ("2026-10-31T08:00:00", ID))
        assert info.companies == {COMPANY, other}
        assert info.statuses == {"completed", "failed"}

    def test_f59_keys_have_every_digit(self) -> None:
        """F59: keys keep all digits of an instant in any zone and format, and sort like the instants."""
        texts = [
            "2026-10-31T08:00:00Z",
            "2026-10-31T08:00:00.1Z",
            "2026-10-31T10:00:00.100000001+02:00",
            "2026-10-31t08:00:00.1000010z",
            "2026-10-31T08:00:00.10000100000000000001Z",
            "2026-10-31T07:59:60.2Z",
            "2026-10-31T08:00:59Z",
        ]
        texts.sort(key=lambda text: text.startswith("2026-10-31T07"))  # the leap second comes last
        page = parse_page(page_of(*(job(createdAt=text, id=ID) for text in texts)))
        created = [key[0] for key in page.info.keys]
        assert created == [
            "2026-10-31T08:00:00",
            "2026-10-31T08:00:00.1",
            "2026-10-31T08:00:00.100000001",
            "2026-10-31T08:00:00.100001",
            "2026-10-31T08:00:00.10000100000000000001",
            "2026-10-31T08:00:59",
            "2026-10-31T08:00:00.2",
        ]
        assert created[:6] == sorted(created[:6])
        assert build_frame([page])[0].height == len(texts)

    @pytest.mark.parametrize(
        ("echo", "place"),
        [
            ({"after": "A"}, ("A", None, None)),
            ({"before": "B", "offset": 7}, (None, "B", 7)),
            ({"parameters": {"after": ["A"], "offset": ["7"]}}, ("A", None, 7)),
            ({"after": "A", "parameters": {"after": ["B"]}}, ("A", None, None)),
            ({"after": 7, "before": None, "offset": "x", "parameters": []}, (None, None, None)),
            ({"parameters": {"after": ["A", "B"], "before": [1], "offset": ["-1"]}}, (None, None, None)),
            ({}, (None, None, None)),
        ],
        ids=str,
    )
    def test_f66_echoed_place(self, echo: dict[str, Any], place: tuple[Any, Any, Any]) -> None:
        """F66: the echoed place comes from the echo's fields or its parameters; wrong types are ignored."""
        info = parse_page(page_of(job(), currentRequestPagination=echo)).info
        assert (info.after, info.before, info.offset) == place

    def test_what_a_page_does_not_say(self) -> None:
        """Absent and null fields are None, not false, zero or empty."""
        for body in (
            page_of(hasPreviousPage=GONE, currentRequestPagination=GONE),
            page_of(
                hasPreviousPage=None,
                endCursor=None,
                startCursor=None,
                total=None,
                currentRequestPagination=None,
            ),
        ):
            info = parse_page(body).info
            assert info.has_previous is None
            assert (info.start_cursor, info.end_cursor, info.total) == (None, None, None)
            assert (info.limit, info.sorting_keys, info.sorting_order) == (None, None, None)

    @pytest.mark.parametrize("total", [-1, 0, 2**63 - 1])
    def test_f20_totals_are_told_as_they_are(self, total: int) -> None:
        """F20: a strange total is passed on unchanged."""
        assert parse_page(page_of(total=total)).info.total == total

    @pytest.mark.parametrize(
        "bad",
        [
            {"id": "nope"},
            {"id": ID[:-1]},
            {"createdAt": "2026-02-30T00:00:00Z"},
            {"createdAt": "soon"},
            {"status": None},
        ],
        ids=str,
    )
    def test_rows_without_a_usable_key_have_none(self, bad: dict[str, Any]) -> None:
        """A row without a valid UUID or instant has no key, whatever its neighbours."""
        later = job(createdAt="2026-10-31T09:00:00Z")
        for neighbour in (later, {**later, "createdAt": "2026-10-31T09:00:00.0Z"}):
            info = parse_page(page_of(job(**bad), neighbour)).info
            assert info.keys == (("2026-10-31T09:00:00", ID),)
            assert info.rows == 2

    def test_two_texts_that_only_together_look_right(self) -> None:
        """Two halves of an instant in adjacent rows are two invalid rows."""
        page = parse_page(
            page_of(job(createdAt="2026-10-31T08:00:00Z2026"), job(createdAt="-10-31T08:00:00Z"))
        )
        assert page.info.keys == ()
        frame, rejected = build_frame([page])
        assert (frame.height, len(rejected)) == (0, 2)


def instants() -> st.SearchStrategy[tuple[str, datetime]]:
    """Draw an instant in a format of RFC 3339, and its value."""
    moments = st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29)).map(lambda t: t.replace(tzinfo=UTC))  # noqa: DTZ001

    def spell(moment: datetime, minutes: int | None, more: str, marks: str) -> tuple[str, datetime]:
        local = moment if minutes is None else moment.astimezone(timezone(timedelta(minutes=minutes)))
        text = local.replace(tzinfo=None).isoformat("T")
        if more:
            text = f"{text}{'' if '.' in text else '.000000'}{more}"
        zone = local.isoformat()[-6:] if minutes is not None else "Z"
        return (text + zone).translate(str.maketrans("TZ", marks)), moment

    return st.builds(
        spell,
        moments,
        st.none() | st.integers(-1439, 1439),
        st.text("0123456789", max_size=9),
        st.sampled_from(["TZ", "tz", "Tz"]),
    )


def uuids() -> st.SearchStrategy[tuple[str, str]]:
    """Draw a UUID in any case, and its value."""
    return st.tuples(st.uuids(), st.booleans()).map(
        lambda drawn: (str(drawn[0]).upper() if drawn[1] else str(drawn[0]), str(drawn[0]))
    )


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@st.composite
def jobs(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    """Draw a job as the API may send it, and its row."""
    (created, created_at), (id_, canonical_id), (company, company_id) = (
        draw(instants()),
        draw(uuids()),
        draw(uuids()),
    )
    sent: dict[str, Any] = {"createdAt": created, "id": id_, "companyId": company}
    row: dict[str, Any] = {"created_at": created_at, "id": canonical_id, "company_id": company_id}
    plain = {
        "status": ("status", TEXTS),
        "expiresIn": ("expires_in", st.integers(-(2**31), 2**31 - 1)),
        "numberOfItems": ("number_of_items", st.integers(-(2**63), 2**63 - 1)),
        "isInteractive": ("is_interactive", st.booleans()),
        "vendorBasedBookkeeping": ("vendor_based_bookkeeping", st.booleans()),
    }
    for name, (column, values) in plain.items():
        sent[name] = row[column] = draw(values)
    optional: dict[str, tuple[str, st.SearchStrategy[tuple[Any, Any]]]] = {
        "startedAt": ("started_at", instants()),
        "completedAt": ("completed_at", instants()),
        "expiredAt": ("expired_at", instants()),
        "lastUpdatedAt": ("last_updated_at", instants()),
        "createdBy": ("created_by", uuids()),
        "failureReasonType": ("failure_reason_type", TEXTS.map(lambda text: (text, text))),
        "failureReason": ("failure_reason", TEXTS.map(lambda text: (text, text))),
    }
    for name, (column, pairs) in optional.items():
        said, row[column] = draw(st.one_of(st.just((GONE, None)), st.just((None, None)), pairs))
        if said is not GONE:
            sent[name] = said
    unknown = draw(
        st.dictionaries(
            TEXTS.filter(lambda name: name not in {*JOB, "failureReasonType"}), VALUES, max_size=2
        )
    )
    row["extra"] = unknown or None
    order = draw(st.permutations(sorted({**sent, **unknown})))
    return {name: {**sent, **unknown}[name] for name in order}, row


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
JSONISH: st.SearchStrategy[Any] = st.recursive(
    st.sampled_from(
        [None, True, 0, 1.5, -1, 2**70, "", "ABC", "x", ID, "2026-10-31T08:00:00Z", "pending", [], {}, [[]]]
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "data",
                    "pagination",
                    "hasNextPage",
                    "endCursor",
                    "total",
                    "currentRequestPagination",
                    "limit",
                    *JOB,
                    "x",
                ]
            ),
            inner,
            max_size=8,
        )
    ),
    max_leaves=20,
)


class TestAnything:
    """Any input."""

    @given(st.lists(jobs(), max_size=4), st.booleans())
    @settings(max_examples=60)
    def test_jobs_round_trip(self, drawn: list[tuple[dict[str, Any], dict[str, Any]]], ascii_: bool) -> None:  # noqa: FBT001 - drawn
        """Every valid job, in any format and field order, gives the intended row."""
        rows = [json.dumps(sent, ensure_ascii=ascii_).encode() for sent, _ in drawn]
        page = parse_page(page_of(*rows))
        frame, rejected = build_frame([page])
        assert rejected == []
        assert frame.schema == POLARS_SCHEMA
        got = frame.to_dicts()
        for row in got:
            row["extra"] = None if row["extra"] is None else json.loads(row["extra"])
        assert got == [row for _, row in drawn]
        keys = [
            (created[:26].rstrip("0").rstrip(".") if "." in created else created, name)
            for created, name in page.info.keys
        ]
        assert keys == [(instant_key(row["created_at"]), row["id"]) for _, row in drawn]

    @given(JSONISH.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=60))
    @example(b'{"data":[],"pagination":{"hasNextPage":true}}')
    @example(b'{"data":[{}],"pagination":{"hasNextPage":true}}')
    def test_f10_only_two_outcomes(self, body: bytes) -> None:
        """F10: any bytes give a page or a PageError, and every row of a page is kept or rejected."""
        check_outcome(body)

    @given(
        st.lists(st.one_of(jobs().map(lambda pair: pair[0]), JSONISH), max_size=4),
        JSONISH,
        st.integers(0, 2**20),
        st.binary(max_size=3),
    )
    def test_f10_only_two_outcomes_near_a_page(
        self, rows: list[Any], total: Any, place: int, splice: bytes
    ) -> None:
        """F10: the same holds for almost valid pages: odd rows, odd totals, overwritten bytes."""
        body = page_of(*rows, total=total)
        check_outcome(body)
        place %= len(body) + 1
        check_outcome(body[:place] + splice + body[place + len(splice) :])

    @given(st.lists(st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31)), min_size=2, max_size=6))  # noqa: DTZ001
    def test_instant_keys_sort_as_instants(self, moments: list[datetime]) -> None:
        """Keys sort like their instants, and equal keys are equal instants."""
        aware = sorted(moment.replace(tzinfo=UTC) for moment in moments)
        for early, late in pairwise(aware):
            assert (instant_key(early) < instant_key(late)) is (early < late)
            assert (instant_key(early) == instant_key(late)) is (early == late)


def check_outcome(body: bytes) -> Page | None:
    """Check that the body is a page with every row accounted for, or a PageError."""
    try:
        page = parse_page(body)
    except PageError:
        return None
    frame, rejected = build_frame([page])
    assert frame.schema == POLARS_SCHEMA
    assert frame.height + len(rejected) == page.info.rows
    assert len(page.info.keys) <= page.info.rows
    assert all(re.match(r"\$\.data\[\d+\]", row.path) and row.reason for row in rejected)
    return page


class TestOutsized:
    """F65: pages that would take long to parse are recognised by their size."""

    def test_f65_a_row_of_endless_fields_is_set_aside(self) -> None:
        """F65: a row with too many unknown fields is rejected, and the others are read."""
        wide = {f"field{n}": n for n in range(150_000)}
        page = parse_page(page_of(job(), job(**wide), job()))
        assert page.height == 2
        assert [row.path for row in page.rejected] == ["$.data[1]"]
        assert page.rejected[0].reason == "a row of more than 100000 fields"

    def test_f65_many_unknown_fields_are_kept(self) -> None:
        """F65: a thousand unknown fields are kept."""
        page = parse_page(page_of(job(**{f"field{n}": n for n in range(1_000)})))
        assert page.extras is not None
        assert len(json.loads(page.extras[0] or "")) == 1_000

    @pytest.mark.parametrize("row", [b"{}", b"1", b'{"id":7}'])
    def test_f65_a_page_of_misfits_is_no_page(self, row: bytes) -> None:
        """F65: a page with ten thousand invalid rows is not a page."""
        with pytest.raises(PageError, match="more than 10000 rows do not fit"):
            parse_page(page_of(*[row] * 20_000))

    def test_f65_a_page_of_numbers_is_not_taken_apart(self) -> None:
        """F65: millions of values that are not rows are counted before they become objects."""
        with pytest.raises(PageError, match="more than 2000000 values"):
            parse_page(page_of(b"1," * 2_500_000 + b"1"))

    @pytest.mark.parametrize("name", ["parameters", "sortingKeys", "sortingOrder", "after"])
    def test_f65_an_echo_without_end_is_no_echo(self, name: str) -> None:
        """F65: an echo of millions of values makes no objects, and the page is read as one without an echo."""
        value: object = ["createdAt"] * 100_000 if name.startswith("sorting") else {"x": [{}] * 100_000}
        page = parse_page(page_of(job(), currentRequestPagination={name: value, "limit": 100}))
        assert (page.height, page.info.limit, page.info.sorting_keys, page.info.after) == (
            1,
            None,
            None,
            None,
        )
        small = parse_page(page_of(job(), currentRequestPagination={"limit": 100}))
        assert small.info.limit == 100
        assert parse_page(page_of(job(), currentRequestPagination=None)).info.limit is None

    def test_f65_many_rows_of_a_page_that_do_not_fit(self) -> None:
        """F65: thousands of invalid ids are each rejected with their own bytes."""
        rows = [job(id=f"no-{n}") for n in range(5_000)]
        frame, rejected = build_frame([parse_page(page_of(*rows))])
        assert frame.height == 0
        assert [json.loads(row.raw)["id"] for row in rejected] == [row["id"] for row in rows]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"id":', b'"unknown\xff":1,"id":'),
        (b'"id":', b'"unknown":"\xc0\xaf","id":'),
        (b'"id":', b'"unknown":{"deep":["\xed\xa0\x80"]},"id":'),
        (b'"data":', b'"\x80":0,"data":'),
        (b'"hasNextPage":', b'"more":"\xf5\x80\x80\x80","hasNextPage":'),
        (b'"parameters":', b'"\xe2\x28\xa1":1,"parameters":'),
    ],
)
def test_f10_bytes_that_are_no_utf8_are_seen_where_nobody_looks(old: bytes, new: bytes) -> None:
    """F10: bad UTF-8 invalidates a page, even in skipped keys and values."""
    body = page_of(job())
    assert parse_page(body).height == 1
    with pytest.raises(PageError, match="utf-8"):
        parse_page(body.replace(old, new, 1))
