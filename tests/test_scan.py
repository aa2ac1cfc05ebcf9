"""The live API as a LazyFrame: right for every predicate, and without needless requests."""

from __future__ import annotations

import operator
from datetime import UTC, datetime, timedelta
from functools import cache, reduce
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from pleo_extract import POLARS_SCHEMA, Client, load_export_jobs, scan_export_jobs
from pleo_extract.contract import STATUSES
from pleo_extract.errors import ContractError
from pleo_extract.fetch.scan import Pushed, understand
from pleo_extract.sandbox import API_KEY, Rules, Sandbox, World

if TYPE_CHECKING:
    from collections.abc import Callable

FAILED = pl.col("status") == "failed"
NOW = datetime(2026, 11, 1, tzinfo=UTC)


@cache
def world() -> World:
    """Return a world that stands still."""
    return World(jobs=1_000)


def scan(**rules: Any) -> tuple[pl.LazyFrame, Sandbox]:
    """Return a scan of the world, and its sandbox, which counts requests."""
    sandbox = Sandbox(world(), rules=Rules(**rules))
    client = Client("http://127.0.0.1:1", api_key=API_KEY, transport=sandbox, rate=1_000_000)
    return scan_export_jobs(client=client), sandbox


@cache
def everything() -> pl.DataFrame:
    """Return all jobs."""
    with Client("http://127.0.0.1:1", api_key=API_KEY, transport=Sandbox(world()), rate=1_000_000) as client:
        return load_export_jobs(client=client)


def test_all_of_it() -> None:
    """A scan without a filter equals `load_export_jobs`, and sends nothing before `collect`."""
    lazy, sandbox = scan()
    assert lazy.collect_schema() == POLARS_SCHEMA
    assert sandbox.requests == []
    assert_frame_equal(lazy.collect(), everything())
    assert len(sandbox.requests) == 10


@pytest.mark.parametrize(("rows", "requests"), [(0, 0), (1, 1), (10, 1), (100, 1), (250, 3)])
def test_head_stops_paging(rows: int, requests: int) -> None:
    """`head(n)` asks for n rows and only the pages that hold them."""
    lazy, sandbox = scan()
    assert_frame_equal(lazy.head(rows).collect(), everything().head(rows))
    assert len(sandbox.requests) == requests
    if 0 < rows < 100:
        assert sandbox.requests[0].parameters["limit"] == [str(rows)]


def test_head_before_a_filter_counts_rows_before_it() -> None:
    """`head(n).filter(p)` filters the first n rows."""
    lazy, _ = scan()
    assert_frame_equal(lazy.head(50).filter(FAILED).collect(), everything().head(50).filter(FAILED))
    assert_frame_equal(lazy.filter(FAILED).head(5).collect(), everything().filter(FAILED).head(5))


COMPANY = "companies[0]"
PUSHED: list[tuple[str, Callable[[str], pl.Expr], dict[str, list[str]]]] = [
    ("status", lambda _: FAILED, {"statuses": ["failed"]}),
    ("either way round", lambda _: pl.lit("failed") == pl.col("status"), {"statuses": ["failed"]}),
    ("is_in", lambda _: pl.col("status").is_in(["failed", "pending"]), {"statuses": ["failed", "pending"]}),
    ("or", lambda _: FAILED | (pl.col("status") == "pending"), {"statuses": ["failed", "pending"]}),
    ("company", lambda c: pl.col("company_id") == c, {"company_id": ["COMPANY"]}),
    (
        "both, and more",
        lambda c: FAILED & (pl.col("company_id") == c) & pl.col("is_interactive"),
        {"statuses": ["failed"], "company_id": ["COMPANY"]},
    ),
    (
        "two tests of one column",
        lambda _: FAILED & pl.col("status").is_in(["failed", "pending"]),
        {"statuses": ["failed"]},
    ),
]


@pytest.mark.parametrize(("name", "predicate", "asked"), PUSHED, ids=[each[0] for each in PUSHED])
def test_what_travels_to_the_server(
    name: str, predicate: Callable[[str], pl.Expr], asked: dict[str, list[str]]
) -> None:
    """Filters on one company and known statuses reach the server, and the rows are right."""
    lazy, sandbox = scan()
    company = world().companies[0]
    expression = predicate(company)
    assert_frame_equal(lazy.filter(expression).collect(), everything().filter(expression))
    parameters = sandbox.requests[0].parameters
    reported = {key: sorted(parameters[key]) for key in ("statuses", "company_id") if key in parameters}
    assert reported == {key: [company] if value == ["COMPANY"] else value for key, value in asked.items()}


def test_a_bound_of_created_at_ends_the_walk() -> None:
    """A lower bound of created_at ends a newest-first walk."""
    since = everything()["created_at"][-150]
    for expression in (pl.col("created_at") >= since, pl.lit(since) < pl.col("created_at")):
        lazy, sandbox = scan()
        assert_frame_equal(lazy.filter(expression).collect(), everything().filter(expression))
        assert len(sandbox.requests) == 2


def test_what_cannot_be_sends_nothing() -> None:
    """Contradictory filters send no request."""
    first, second = world().companies[:2]
    for expression in (
        FAILED & (pl.col("status") == "pending"),
        (pl.col("company_id") == first) & (pl.col("company_id") == second),
    ):
        lazy, sandbox = scan()
        assert lazy.filter(expression).collect().is_empty()
        assert sandbox.requests == []


def test_what_is_not_understood_is_applied_here() -> None:
    """Filters that the server cannot apply are applied locally to all rows."""
    company = world().companies[0]
    for expression in (
        pl.col("status") == "canceled",
        pl.col("status").is_in(["failed", "canceled"]),
        ~FAILED,
        pl.col("status") != "failed",
        pl.col("status").str.starts_with("fail"),
        pl.col("company_id") == company.upper(),
        pl.col("company_id").is_in(list(world().companies[:2])),
        FAILED | pl.col("is_interactive"),
        pl.col("status") == pl.col("failure_reason_type"),
        pl.col("created_at") < NOW - timedelta(days=100),
    ):
        assert understand(expression) == Pushed(), str(expression)
        lazy, sandbox = scan()
        assert_frame_equal(lazy.filter(expression).collect(), everything().filter(expression))
        assert len(sandbox.requests) == 10


def test_columns_are_projected() -> None:
    """Only the columns that a query needs are kept."""
    lazy, _ = scan()
    query = lazy.filter(FAILED).select("id", pl.col("number_of_items") * 2)
    expected = everything().filter(FAILED).select("id", pl.col("number_of_items") * 2)
    assert_frame_equal(query.collect(), expected)
    assert "pleo export jobs" in query.explain()


def test_errors_keep_their_class() -> None:
    """Server errors keep their class through Polars."""
    sandbox = Sandbox(world(), faults="1-:redirect")
    with (
        Client("http://127.0.0.1:1", api_key=API_KEY, transport=sandbox) as client,
        pytest.raises(ContractError),
    ):
        scan_export_jobs(client=client).collect()


def test_a_server_that_ignores_filters_changes_nothing() -> None:
    """The predicate is also applied locally, so a server that ignores it does not matter."""
    lazy, _ = scan(filter_statuses=False)
    assert_frame_equal(lazy.filter(FAILED).collect(), everything().filter(FAILED))


def leaves() -> st.SearchStrategy[pl.Expr]:
    """Draw a predicate on one column."""
    instants = st.integers(0, 400).map(lambda days: NOW - timedelta(days=days))
    companies = st.sampled_from(world().companies)
    statuses = st.sampled_from([*STATUSES, "canceled"])
    return st.one_of(
        statuses.map(lambda value: pl.col("status") == value),
        statuses.map(lambda value: pl.col("status") != value),
        st.lists(statuses, max_size=3).map(lambda values: pl.col("status").is_in(values)),
        companies.map(lambda value: pl.col("company_id") == value),
        st.lists(companies, max_size=2).map(lambda values: pl.col("company_id").is_in(values)),
        instants.map(lambda value: pl.col("created_at") >= value),
        instants.map(lambda value: pl.col("created_at") < value),
        instants.map(lambda value: pl.lit(value) <= pl.col("created_at")),
        st.just(pl.col("is_interactive")),
        st.just(pl.col("failure_reason").is_null()),
    )


def predicates() -> st.SearchStrategy[pl.Expr]:
    """Draw predicates joined by and, or, not."""
    return st.recursive(
        leaves(),
        lambda inner: st.one_of(
            st.lists(inner, min_size=2, max_size=3).map(lambda each: reduce(operator.and_, each)),
            st.lists(inner, min_size=2, max_size=2).map(lambda each: reduce(operator.or_, each)),
            inner.map(operator.inv),
        ),
        max_leaves=5,
    )


@settings(max_examples=60)
@given(predicate=predicates(), head=st.none() | st.integers(0, 300), head_first=st.booleans())
def test_any_query_is_right(predicate: pl.Expr, head: int | None, *, head_first: bool) -> None:
    """Any predicate with a `head` before or after it gives the rows of the full frame."""
    lazy, sandbox = scan()
    whole = everything()
    if head is None:
        query, expected = lazy.filter(predicate), whole.filter(predicate)
    elif head_first:
        query, expected = lazy.head(head).filter(predicate), whole.head(head).filter(predicate)
    else:
        query, expected = lazy.filter(predicate).head(head), whole.filter(predicate).head(head)
    assert_frame_equal(query.collect(), expected)
    assert len(sandbox.requests) <= 10
