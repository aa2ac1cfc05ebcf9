"""The contract as declarations: the query, the fields of a job, and their agreement with the API's document."""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import FrozenInstanceError, fields
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qs, parse_qsl, urlencode

import duckdb
import httpx
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pleo_extract.contract import (
    COLUMNS,
    DUCKDB_SCHEMA,
    EXTRA,
    FIELDS,
    KEY,
    PATH,
    POLARS_SCHEMA,
    SERVERS,
    STATUSES,
    TERMINAL,
    PageInfo,
    PageOrder,
    Query,
    canonical_uuid,
    is_cursor,
    uuid_problem,
)
from pleo_extract.errors import UsageError
from pleo_extract.sandbox import API_KEY, Request, Sandbox, World

if TYPE_CHECKING:
    import uuid

COMPANY = "5e6a4a5a-3b0c-4e8e-9a51-0d7d3c2b1a90"
BASIC = {"authorization": "Basic " + b64encode(f"{API_KEY}:".encode()).decode()}


class Said(NamedTuple):
    """What the document says of a field of ExportJobV3, and its column."""

    type: str
    required: bool
    column: str


DOCUMENT = {
    "companyId": Said("uuid", required=True, column="company_id"),
    "completedAt": Said("date-time", required=False, column="completed_at"),
    "createdAt": Said("date-time", required=True, column="created_at"),
    "createdBy": Said("uuid", required=False, column="created_by"),
    "expiredAt": Said("date-time", required=False, column="expired_at"),
    "expiresIn": Said("int32", required=True, column="expires_in"),
    "failureReason": Said("string", required=False, column="failure_reason"),
    "failureReasonType": Said("string", required=False, column="failure_reason_type"),
    "id": Said("uuid", required=True, column="id"),
    "isInteractive": Said("boolean", required=True, column="is_interactive"),
    "lastUpdatedAt": Said("date-time", required=False, column="last_updated_at"),
    "numberOfItems": Said("integer", required=True, column="number_of_items"),
    "startedAt": Said("date-time", required=False, column="started_at"),
    "status": Said("string", required=True, column="status"),
    "vendorBasedBookkeeping": Said("boolean", required=True, column="vendor_based_bookkeeping"),
}
"""Copied by hand from `components.schemas.ExportJobV3`, Export API 32.4.0, and from there only."""

KINDS = {
    "uuid": ("uuid", pl.String(), "VARCHAR", pa.large_string()),
    "string": ("text", pl.String(), "VARCHAR", pa.large_string()),
    "date-time": ("instant", pl.Datetime("us", "UTC"), "TIMESTAMP WITH TIME ZONE", pa.timestamp("us", "UTC")),
    "int32": ("int32", pl.Int32(), "INTEGER", pa.int32()),
    "integer": ("int64", pl.Int64(), "BIGINT", pa.int64()),
    "boolean": ("bool", pl.Boolean(), "BOOLEAN", pa.bool_()),
}


class TestFields:
    """FIELDS, and what is computed from it."""

    def test_fields_are_the_documents(self) -> None:
        """FIELDS has each field of the document once, with its kind and whether it is required."""
        assert {field.name: (field.kind, field.required, field.column) for field in FIELDS} == {
            name: (KINDS[said.type][0], said.required, said.column) for name, said in DOCUMENT.items()
        }
        assert len(FIELDS) == len(DOCUMENT)

    def test_columns_are_the_designs(self) -> None:
        """The columns have the order of every file and frame."""
        assert COLUMNS == (
            "id",
            "company_id",
            "status",
            "created_at",
            "started_at",
            "completed_at",
            "expired_at",
            "last_updated_at",
            "expires_in",
            "created_by",
            "is_interactive",
            "number_of_items",
            "vendor_based_bookkeeping",
            "failure_reason_type",
            "failure_reason",
            "extra",
        )

    def test_polars_schema(self) -> None:
        """The Polars schema has each column in order, with the type of the document's type."""
        wanted = {said.column: KINDS[said.type][1] for said in DOCUMENT.values()} | {"extra": pl.String()}
        assert list(POLARS_SCHEMA) == list(COLUMNS)
        assert dict(POLARS_SCHEMA) == wanted

    def test_arrow_schema_follows(self) -> None:
        """Arrow has the same columns and types."""
        wanted = {said.column: KINDS[said.type][3] for said in DOCUMENT.values()} | {
            "extra": pa.large_string()
        }
        schema = pl.DataFrame(schema=POLARS_SCHEMA).to_arrow(compat_level=pl.CompatLevel.oldest()).schema
        assert {field.name: field.type for field in schema} == wanted

    def test_duckdb_schema_is_what_duckdb_makes_of_it(self) -> None:
        """DUCKDB_SCHEMA equals DuckDB's own reading of POLARS_SCHEMA, and makes a table."""
        frame = pl.DataFrame(schema=POLARS_SCHEMA).to_arrow()
        with duckdb.connect() as connection:
            relation = connection.from_arrow(frame)
            assert dict(zip(relation.columns, map(str, relation.types), strict=True)) == DUCKDB_SCHEMA
            columns = ", ".join(f"{name} {kind}" for name, kind in DUCKDB_SCHEMA.items())
            connection.execute(f"CREATE TABLE jobs ({columns})")
        assert list(DUCKDB_SCHEMA) == list(COLUMNS)

    def test_names_and_notes(self) -> None:
        """Columns are the field names in snake_case, each once, and each field has a note."""
        for field in FIELDS:
            assert field.column == re.sub("[A-Z]", lambda capital: "_" + capital[0].lower(), field.name)
        assert len(set(COLUMNS)) == len(COLUMNS)
        assert all(field.note for field in (*FIELDS, EXTRA))
        assert set(KEY) == {"company_id", "id"}

    def test_the_sandbox_speaks_these_fields(self) -> None:
        """The sandbox, which has its own copy of the contract, knows the same names."""
        rows = World(jobs=200).visible()
        assert set().union(*rows) == set(DOCUMENT)

    def test_the_rest_of_the_document(self) -> None:
        """Path, servers, statuses, orders and the echo's fields are those of the document."""
        assert PATH == "/v3/export-jobs"
        assert SERVERS == {
            "production": "https://external.pleo.io",
            "staging": "https://external.staging.pleo.io",
        }
        assert STATUSES == ("pending", "in_progress", "failed", "completed", "completed_with_errors")
        assert set(TERMINAL) == {"failed", "completed", "completed_with_errors"}
        assert list(PageOrder) == [
            "ASC",
            "ASC_NULLS_FIRST",
            "ASC_NULLS_LAST",
            "DESC",
            "DESC_NULLS_FIRST",
            "DESC_NULLS_LAST",
        ]


FITS: list[dict[str, Any]] = [
    {},
    {"company_id": COMPANY},
    {"company_id": COMPANY.upper()},
    {"statuses": []},
    {"statuses": None},
    {"statuses": list(STATUSES)},
    {"before": "A"},
    {"after": "AZ27=~"},
    {"offset": 0},
    {"offset": 2**63 - 1},
    {"limit": 0},
    {"limit": 2**31 - 1},
    {"after": "A", "limit": 1},
    {"sorting_keys": ["createdAt", "id"], "sorting_order": ["ASC", PageOrder.DESC_NULLS_LAST]},
    {"sorting_keys": ("whatever the server takes",), "sorting_order": ("ASC",)},
]
MISFITS: list[tuple[dict[str, Any], str]] = [
    ({"company_id": "not-a-uuid"}, "company_id"),
    ({"company_id": ""}, "company_id"),
    ({"company_id": f"{{{COMPANY}}}"}, "company_id"),
    ({"company_id": f"urn:uuid:{COMPANY}"}, "company_id"),
    ({"company_id": COMPANY.replace("-", "")}, "company_id"),
    ({"company_id": COMPANY + "\n"}, "company_id"),
    ({"company_id": "../" + COMPANY[3:]}, "company_id"),
    ({"company_id": 7}, "company_id"),
    ({"statuses": ["canceled"]}, "canceled"),
    ({"statuses": ["FAILED"]}, "FAILED"),
    ({"statuses": "failed"}, "statuses"),
    ({"statuses": [None]}, "statuses"),
    ({"statuses": 3}, "statuses"),
    ({"before": ""}, "before"),
    ({"before": "abc"}, "before"),
    ({"before": "A\n"}, "before"),
    ({"after": "A1"}, "after"),
    ({"after": "A B"}, "after"),
    ({"after": "Ä"}, "after"),
    ({"after": 7}, "after"),
    ({"after": b"A"}, "after"),
    ({"before": "A", "after": "A"}, "before and after exclude"),
    ({"before": "A", "offset": 0}, "before and offset exclude"),
    ({"after": "A", "offset": 0}, "after and offset exclude"),
    ({"before": "A", "after": "B", "offset": 3}, "before and after and offset exclude"),
    ({"offset": -1}, "offset"),
    ({"offset": 2**63}, "offset"),
    ({"offset": 1.0}, "offset"),
    ({"offset": "1"}, "offset"),
    ({"offset": True}, "offset"),
    ({"offset": False}, "offset"),
    ({"limit": -1}, "limit"),
    ({"limit": 2**31}, "limit"),
    ({"limit": 1.5}, "limit"),
    ({"limit": "100"}, "limit"),
    ({"limit": True}, "limit"),
    ({"sorting_keys": ["createdAt"]}, "sorting_keys has 1 entries and sorting_order 0"),
    ({"sorting_order": ["ASC"]}, "sorting_keys has 0 entries and sorting_order 1"),
    ({"sorting_keys": ["a", "b"], "sorting_order": ["ASC"]}, "sorting_keys has 2 entries"),
    ({"sorting_keys": "id", "sorting_order": ["ASC", "ASC"]}, "sorting_keys"),
    ({"sorting_keys": [""], "sorting_order": ["ASC"]}, "sorting key"),
    ({"sorting_keys": ["\ud800"], "sorting_order": ["ASC"]}, "sorting key"),
    ({"sorting_keys": ["id\n"], "sorting_order": ["ASC"]}, "sorting key"),
    ({"sorting_keys": {"id"}, "sorting_order": ["ASC"]}, "sorting_keys"),
    ({"sorting_keys": ["id"], "sorting_order": {"ASC"}}, "sorting_order"),
    ({"sorting_keys": ["id"], "sorting_order": ["asc"]}, "asc"),
    ({"sorting_keys": ["id"], "sorting_order": ["RANDOM"]}, "RANDOM"),
    ({"sorting_keys": ["id"], "sorting_order": [None]}, "sorting_order"),
]


def queries() -> st.SearchStrategy[Query]:
    """Draw any query that the contract allows."""
    cursors = st.text("ABCXYZ234567=~", min_size=1, max_size=20)
    positions = st.one_of(
        st.just({}),
        st.builds(lambda cursor: {"after": cursor}, cursors),
        st.builds(lambda cursor: {"before": cursor}, cursors),
        st.builds(lambda offset: {"offset": offset}, st.integers(0, 2**63 - 1)),
    )
    pairs = st.lists(
        st.tuples(
            st.sampled_from(["createdAt", "id", "companyId", "status", "startedAt"]),
            st.sampled_from(list(PageOrder)),
        ),
        max_size=3,
    )
    return st.builds(
        lambda company, statuses, position, limit, sort: Query(
            company_id=company,
            statuses=statuses,
            limit=limit,
            sorting_keys=[key for key, _ in sort],
            sorting_order=[order for _, order in sort],
            **position,
        ),
        st.none() | st.uuids().map(str),
        st.lists(st.sampled_from(STATUSES), max_size=4),
        positions,
        st.none() | st.integers(0, 2**31 - 1),
        pairs,
    )


class TestQuery:
    """The parameters of one request, checked before anything is sent."""

    @pytest.mark.parametrize("given_", FITS, ids=str)
    def test_what_fits_is_taken(self, given_: dict[str, Any]) -> None:
        """Everything that the contract allows makes a query, the limits of the ranges included."""
        Query(**given_)

    @pytest.mark.parametrize(("given_", "named"), MISFITS, ids=str)
    def test_what_does_not_fit_is_refused(self, given_: dict[str, Any], named: str) -> None:
        """Anything else raises UsageError with the parameter's name; a bool is not a number."""
        with pytest.raises(UsageError, match=re.escape(named)):
            Query(**given_)

    def test_made_canonical(self) -> None:
        """The company becomes lower case, lists become tuples, and a set of statuses gets a fixed order."""
        query = Query(company_id=COMPANY.upper(), statuses={"pending", "completed", "failed"})  # type: ignore[arg-type]
        assert query.company_id == COMPANY
        assert query.statuses == ("completed", "failed", "pending")
        assert hash(Query(statuses=["failed"])) == hash(Query(statuses=("failed",)))

    def test_frozen(self) -> None:
        """A query cannot change after its check."""
        query = Query(limit=3)
        with pytest.raises(FrozenInstanceError):
            query.limit = -1  # type: ignore[misc]

    def test_params(self) -> None:
        """Lists are repeated pairs, an order is its bare name, and absent parameters are not sent."""
        query = Query(
            company_id=COMPANY,
            statuses=["failed", "completed"],
            after="AB=~",
            limit=5,
            sorting_keys=["createdAt", "id"],
            sorting_order=[PageOrder.DESC, "ASC_NULLS_LAST"],
        )
        assert query.params() == [
            ("company_id", COMPANY),
            ("statuses", "failed"),
            ("statuses", "completed"),
            ("after", "AB=~"),
            ("limit", "5"),
            ("sorting_keys", "createdAt"),
            ("sorting_keys", "id"),
            ("sorting_order", "DESC"),
            ("sorting_order", "ASC_NULLS_LAST"),
        ]
        assert Query().params() == []
        assert Query(offset=0).params() == [("offset", "0")]

    @given(queries())
    def test_params_round_trip(self, query: Query) -> None:
        """A query string parses back to the same query."""
        sent = str(httpx.URL("http://127.0.0.1/").copy_with(params=query.params()).query, "ascii")
        assert parse_qsl(sent) == query.params()
        assert sorted(parse_qsl(urlencode(query.params()))) == sorted(query.params())
        back = parse_qs(sent)
        whole = {name: int(back[name][0]) for name in ("offset", "limit") if name in back}
        text = {name: back[name][0] for name in ("company_id", "before", "after") if name in back}
        lists = {name: back.get(name, []) for name in ("statuses", "sorting_keys", "sorting_order")}
        assert Query(**whole, **text, **lists) == query  # type: ignore[arg-type]

    @given(queries())
    def test_what_is_valid_is_never_refused_for_its_form(self, query: Query) -> None:
        """A server that keeps the contract accepts every query, except unknown cursors and companies."""
        sent = str(httpx.URL("http://127.0.0.1/").copy_with(params=query.params()).query, "ascii")
        answer = SANDBOX(Request("GET", PATH, sent, BASIC))
        if query.company_id is not None:
            assert answer.status == 403
        elif query.after is not None or query.before is not None:
            assert answer.status == 400
            assert b"cursor is unknown" in answer.body
        else:
            assert answer.status == 200

    def test_at(self) -> None:
        """`at` changes only the position of a query, and checks the result."""
        query = Query(company_id=COMPANY, statuses=["failed"], after="A", limit=3)
        assert query.at(before="B") == Query(company_id=COMPANY, statuses=["failed"], before="B", limit=3)
        assert query.at(offset=3) == Query(company_id=COMPANY, statuses=["failed"], offset=3, limit=3)
        assert query.at() == Query(company_id=COMPANY, statuses=["failed"], limit=3)
        with pytest.raises(UsageError):
            query.at(after="no cursor")

    @pytest.mark.parametrize("order", list(PageOrder))
    def test_descending(self, order: PageOrder) -> None:
        """The first key decides the direction; without sorting a query is not descending."""
        assert Query(sorting_keys=["id"], sorting_order=[order]).descending is order.startswith("DESC")
        assert Query().descending is False


SANDBOX = Sandbox(World(jobs=30))


class TestSmallFacts:
    """Cursors, UUIDs and PageInfo."""

    @given(st.text(max_size=12) | st.text("ABYZ27=~01a\n", max_size=6))
    def test_is_cursor(self, text: str) -> None:
        """A cursor is one or more of A-Z, 2-7, = and ~, without a trailing line break."""
        letters = set("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567=~")
        assert is_cursor(text) is (bool(text) and set(text) <= letters)

    @pytest.mark.parametrize("value", [None, 7, b"A", ["A"]])
    def test_only_text_is_a_cursor(self, value: object) -> None:
        """A value that is not a text is not a cursor."""
        assert is_cursor(value) is False

    @given(st.uuids(), st.booleans())
    def test_uuid_becomes_lower_case(self, value: uuid.UUID, upper: bool) -> None:  # noqa: FBT001 - drawn
        """A UUID in upper case is the same UUID, in lower case."""
        text = str(value).upper() if upper else str(value)
        assert canonical_uuid(text) == str(value)
        assert uuid_problem(text) is None

    @pytest.mark.parametrize(
        "text",
        ["", "x" * 36, COMPANY[:-1], COMPANY + "0", f" {COMPANY}", COMPANY.replace("5", "\uff15"), None, 7],
    )
    def test_f33_what_is_no_uuid(self, text: object) -> None:
        """F33: braces, prefixes and other digits are refused, with a clipped quotation."""
        assert uuid_problem(text)
        with pytest.raises(UsageError, match="job_id is missing" if text is None else "job_id is not a UUID"):
            canonical_uuid(text, what="job_id")

    def test_uuid_problem_does_not_repeat_the_unprintable(self) -> None:
        """The quotation of a bad UUID is escaped and clipped."""
        problem = uuid_problem("\x1b[2J" + "x" * 1_000_000)
        assert problem is not None
        assert problem.isprintable()
        assert len(problem) < 120

    def test_page_info_is_plain_and_frozen(self) -> None:
        """PageInfo has only hashable values, so that nothing can change it."""
        info = PageInfo(rows=0, has_next=False)
        assert hash(info) == hash(PageInfo(rows=0, has_next=False))
        for field in fields(info):
            with pytest.raises(FrozenInstanceError):
                setattr(info, field.name, 1)
