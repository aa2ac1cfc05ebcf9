import gzip
import http.client
import json
import re
import socket
import threading
import time
from base64 import b64encode
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from itertools import pairwise
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pleo_extract.sandbox import (
    API_KEY,
    KINDS,
    PATH,
    TOKEN,
    Request,
    Response,
    Rules,
    Sandbox,
    World,
    parse_faults,
    serve,
)
from pleo_extract.sandbox import kinds as kinds_module
from pleo_extract.sandbox.view import ORDERS, SORTABLE

NOW = datetime(2026, 11, 1, tzinfo=UTC)
BASIC = {"authorization": "Basic " + b64encode(f"{API_KEY}:".encode()).decode()}
FIRST = ("fa493798-5f35-4857-a2ad-a1f90b291221", "2025-11-12T17:07:55Z")
SNAKE = {
    name: re.sub("[A-Z]", lambda capital: "_" + capital[0].lower(), name)
    for name in (*World(jobs=1).visible()[0], "failureReasonType")
}
Row = dict[str, Any]


def ask(sandbox: Sandbox, headers: dict[str, str] | None = None, **parameters: Any) -> Response:
    """Send one request with these parameters; None is left out."""
    asked = {name: value for name, value in parameters.items() if value is not None}
    return sandbox(Request("GET", PATH, urlencode(asked, doseq=True), BASIC if headers is None else headers))


def page(sandbox: Sandbox, **parameters: Any) -> dict[str, Any]:
    """Return the decoded page of a request that must succeed."""
    answer = ask(sandbox, **parameters)
    assert answer.status == 200, answer.body
    decoded: dict[str, Any] = json.loads(answer.body)
    return decoded


def walk(sandbox: Sandbox, **parameters: Any) -> list[Row]:
    """Return all rows of a walk by cursor."""
    return [row for rows in walk_pages(sandbox, **parameters) for row in rows]


def walk_pages(sandbox: Sandbox, **parameters: Any) -> Iterator[list[Row]]:
    """Yield the pages of a walk by cursor."""
    cursor = None
    for _ in range(2_000):
        answer = page(sandbox, after=cursor, **parameters)
        yield answer["data"]
        if not answer["pagination"]["hasNextPage"]:
            return
        cursor = answer["pagination"]["endCursor"]
    raise AssertionError("the walk does not end")


def by_creation(order: str = "ASC") -> dict[str, Any]:
    """Return the parameters of the order that a full walk uses."""
    return {"sorting_keys": ["createdAt", "id"], "sorting_order": [order, order]}


def keys(rows: list[Row]) -> list[tuple[str, str]]:
    """Return company and id of each row."""
    return [(row["companyId"], row["id"]) for row in rows]


def instant(text: str) -> datetime:
    """Parse a timestamp of the contract."""
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)


@pytest.fixture(scope="module")
def still() -> World:
    """Return a world that no test changes."""
    return World(jobs=2_000)


class TestWorld:
    """The world: its draw, its clock and its edits."""

    def test_same_seed_same_world(self) -> None:
        """Equal arguments give equal jobs; another seed gives others."""
        assert World(jobs=200).visible() == World(jobs=200).visible()
        assert World(jobs=200).visible() != World(jobs=200, seed=8).visible()

    def test_known_world(self) -> None:
        """The draw is the same on every platform and in every version: this is the first job of seed 7."""
        first = World(jobs=50).visible()[0]
        assert (first["id"], first["createdAt"]) == FIRST

    @given(jobs=st.integers(0, 400), days=st.integers(1, 400), companies=st.integers(1, 9))
    @settings(max_examples=25)
    def test_exact_count(self, jobs: int, days: int, companies: int) -> None:
        """A world lists exactly `jobs` jobs, all created within `days` before now."""
        rows = World(jobs=jobs, days=days, companies=companies).visible()
        assert len(rows) == len(set(keys(rows))) == jobs
        assert all(NOW - timedelta(days=days) <= instant(row["createdAt"]) <= NOW for row in rows)

    def test_future_does_not_depend_on_steps(self) -> None:
        """Five days in one step or in many give the same list."""
        one, many = World(jobs=900, days=30), World(jobs=900, days=30)
        one.advance(5 * 86_400)
        for _ in range(50):
            many.advance(8_640)
        assert one.visible() == many.visible()
        assert len(one.visible()) > 900

    def test_one_job_at_a_time_oldest_first(self, still: World) -> None:
        """A company runs one job at a time, oldest first; expired and stuck jobs do not count."""
        runs = defaultdict(list)
        for row in still.visible():
            if row["completedAt"]:
                runs[row["companyId"]].append((row["startedAt"], row["completedAt"]))
        for company_runs in runs.values():
            assert all(end <= start for (_, end), (start, _) in pairwise(company_runs))

    def test_lives_make_sense(self, still: World) -> None:
        """The fields of a job agree with its status: an end, a reason for a failure, an hour before an expiry."""
        for row in still.visible():
            ended = row["status"] not in ("pending", "in_progress")
            assert (row["completedAt"] is not None) == row["status"].startswith("completed")
            assert ("failureReasonType" in row) == (row["status"] == "failed")
            assert (row["expiredAt"] is not None) == (row.get("failureReasonType") == "job_expired")
            assert row["createdAt"] <= (row["startedAt"] or row["createdAt"])
            if ended:
                assert row["lastUpdatedAt"] == (
                    row["completedAt"] or row["expiredAt"] or row["lastUpdatedAt"]
                )
            if row["expiredAt"]:
                assert instant(row["expiredAt"]) - instant(row["createdAt"]) >= timedelta(hours=1)

    def test_lifelike(self) -> None:
        """The world has every status and reason, ties, stuck jobs, an outage and a weekly rhythm."""
        world = World()
        rows = world.visible()
        assert {row["status"] for row in rows} == {
            "pending", "in_progress", "failed", "completed", "completed_with_errors",
        }  # fmt: skip
        assert len({row.get("failureReasonType") for row in rows}) == 16
        assert max(Counter((row["companyId"], row["createdAt"]) for row in rows).values()) > 1
        across = defaultdict(set)
        for row in rows:
            across[row["createdAt"]].add(row["companyId"])
        assert max(map(len, across.values())) > 1
        old = (NOW - timedelta(days=7)).isoformat()
        assert {row["status"] for row in rows if not row["completedAt"] and row["createdAt"] < old} >= {
            "pending", "in_progress",
        }  # fmt: skip
        assert any(row["createdBy"] is None for row in rows)

        def failing(chosen: list[Row]) -> float:
            return [row["status"] for row in chosen].count("failed") / len(chosen)

        begin, end = world.outage
        assert failing([row for row in rows if begin <= instant(row["createdAt"]) < end]) > 0.3
        assert failing([row for row in rows if instant(row["createdAt"]) < begin]) < 0.1
        weekend = [row for row in rows if instant(row["createdAt"]).weekday() >= 5]
        assert len(weekend) < len(rows) / 10

    def test_record_keeps_the_contract(self, still: World) -> None:
        """Each record has the fields and types of ExportJobV3, and no others."""
        required: dict[str, type] = {
            "companyId": str, "createdAt": str, "expiresIn": int, "id": str, "isInteractive": bool,
            "numberOfItems": int, "status": str, "vendorBasedBookkeeping": bool,
        }  # fmt: skip
        nullable = {"completedAt", "createdBy", "expiredAt", "failureReason", "lastUpdatedAt", "startedAt"}
        for row in still.visible():
            assert all(type(row[name]) is kind for name, kind in required.items())
            assert set(row) - {"failureReasonType"} == set(required) | nullable

    def test_jobs_move_on_with_the_clock(self) -> None:
        """A new job becomes pending, in progress and terminal; its id, company and creation never change."""
        world = World(jobs=500, days=5, now=NOW + timedelta(hours=36))
        before = set(keys(world.visible()))
        seen: dict[tuple[str, str], list[Row]] = defaultdict(list)
        for _ in range(400):
            world.advance(30)
            for row in world.visible()[-40:]:
                if (row["companyId"], row["id"]) not in before:
                    seen[row["companyId"], row["id"]].append(row)
        lives = {tuple(dict.fromkeys(row["status"] for row in rows)) for rows in seen.values()}
        assert ("pending", "in_progress", "completed") in lives
        assert all(len({row["createdAt"] for row in rows}) == 1 for rows in seen.values())

    def test_truth_of_any_instant(self) -> None:
        """The list at an instant is the same, whether it is computed before or after that instant."""
        world = World(jobs=500, days=5)
        later = NOW + timedelta(hours=10)
        reported = world.truth(later)
        world.advance(10 * 3600)
        assert world.visible() == reported
        world.advance(3600)
        assert world.truth(later) == reported
        assert world.visible() != reported

    def test_interventions(self) -> None:
        """A test can remove, change and insert jobs; each edit has a time and does not change the past."""
        world = World(jobs=50)
        gone, changed = world.visible()[10], world.visible()[20]
        world.remove(gone["id"])
        after_removal = world.now
        world.change(changed["id"], numberOfItems=4711)
        new = world.insert(NOW - timedelta(days=30), status="failed", failureReasonType="job_expired")
        rows = {row["id"]: row for row in world.visible()}
        assert gone["id"] not in rows
        assert rows[changed["id"]] == {**changed, "numberOfItems": 4711}
        assert rows[new["id"]]["status"] == "failed"
        assert changed in world.truth(after_removal)
        assert len(world.truth(NOW)) == 50
        assert [act.kind for act in world.edits] == ["remove", "change", "insert"]
        assert world.job(gone["id"]) == gone

    def test_same_id_in_two_companies(self) -> None:
        """Two companies may use the same id; one company may not use it twice."""
        world = World(jobs=50, companies=2)
        row = world.visible()[0]
        (other,) = set(world.companies) - {row["companyId"]}
        world.insert(NOW - timedelta(days=1), id=row["id"], company=other)
        assert len(walk(Sandbox(world), sorting_keys="id", sorting_order="ASC", limit=1)) == 51
        with pytest.raises(ValueError, match="already"):
            world.insert(NOW, id=row["id"], company=other)


class TestOracle:
    """The oracle that checks collected rows."""

    def test_perfect_walk(self, still: World) -> None:
        """A correct walk has no discrepancies, as records of the API or as our rows, as a list or a mapping."""
        sandbox = Sandbox(still)
        rows = walk(sandbox, limit=100)
        assert sandbox.truth(rows, still.now) == []
        assert sandbox.truth({(row["companyId"], row["id"]): row for row in rows}, still.now) == []
        ours = [{SNAKE[name]: value for name, value in row.items()} for row in rows]
        for row in ours:
            row["created_at"] = instant(row["created_at"])
        assert sandbox.truth(ours, still.now) == []

    @pytest.mark.parametrize(
        ("kind", "spoil"),
        [
            ("missing", lambda rows: rows[1:]),
            ("double", lambda rows: [*rows, rows[0]]),
            ("foreign", lambda rows: [*rows, {**rows[0], "id": "0e0e0e0e-0000-4000-8000-000000000000"}]),
            ("version", lambda rows: [{**rows[0], "numberOfItems": -1}, *rows[1:]]),
            ("version", lambda rows: [{**rows[0], "createdAt": "2020-01-01T00:00:00Z"}, *rows[1:]]),
        ],
    )
    def test_each_flaw_is_named(self, still: World, kind: str, spoil: Any) -> None:
        """One error in the rows gives one discrepancy of its kind."""
        sandbox = Sandbox(still)
        (found,) = sandbox.truth(spoil(walk(sandbox, limit=100)), still.now)
        assert found.kind == kind

    def test_what_happens_meanwhile(self) -> None:
        """A job deleted or inserted during the walk may be missing or present; after or before it, it may not."""
        world = World(jobs=50)
        sandbox, since = Sandbox(world), world.now
        rows = world.visible()
        world.remove(rows[0]["id"])
        new = world.insert(NOW - timedelta(days=2))
        for found in (rows, rows[1:], [*rows, new]):
            assert sandbox.truth(found, since) == []
        assert [wrong.kind for wrong in sandbox.truth(rows, world.now)] == ["foreign", "missing"]

    def test_versions_of_the_walk_only(self) -> None:
        """Both versions of a job that changed during the walk are correct; the old one is wrong in a later walk."""
        world = World(jobs=50)
        sandbox, since = Sandbox(world), world.now
        old = world.visible()
        world.change(old[5]["id"], status="failed")
        assert sandbox.truth(old, since) == []
        assert sandbox.truth(world.visible(), since) == []
        assert [wrong.kind for wrong in sandbox.truth(old, world.now)] == ["version"]

    def test_filtered_walk(self, still: World) -> None:
        """The oracle compares a filtered walk only with the jobs of its companies and statuses."""
        sandbox, company = Sandbox(still), still.companies[1]
        rows = walk(sandbox, company_id=company, statuses=["failed", "pending"])
        chosen = {"companies": frozenset({company}), "statuses": frozenset({"failed", "pending"})}
        assert rows
        assert sandbox.truth(rows, still.now, **chosen) == []
        assert [wrong.kind for wrong in sandbox.truth(rows[1:], still.now, **chosen)] == ["missing"]
        other = next(
            row for row in still.visible() if row["companyId"] == company and row["status"] == "completed"
        )
        assert [wrong.kind for wrong in sandbox.truth([*rows, other], still.now, **chosen)] == ["foreign"]


class TestPaging:
    """Cursors, offsets and orders."""

    @given(
        limit=st.integers(1, 60),
        pace=st.integers(0, 100),
        sort=st.lists(
            st.tuples(st.sampled_from(["createdAt", "id", "companyId"]), st.sampled_from(sorted(ORDERS))),
            max_size=3,
        ),
        meddle=st.lists(
            st.tuples(st.integers(0, 20), st.sampled_from(["remove", "insert", "change"])), max_size=5
        ),
    )
    @settings(max_examples=40)
    def test_each_job_once_while_the_world_moves(
        self, limit: int, pace: int, sort: list[tuple[str, str]], meddle: list[tuple[int, str]]
    ) -> None:
        """A walk by cursor returns each job once with any page size, constant order, clock speed and edits."""
        world = World(jobs=240, days=4, seed=3)
        # The list must not grow faster than the walk reads it.
        sandbox, since, rows = Sandbox(world, rules=Rules(tick=pace * limit)), world.now, []
        order = {"sorting_keys": [key for key, _ in sort], "sorting_order": [order for _, order in sort]}
        for number, found in enumerate(walk_pages(sandbox, limit=limit, **order)):
            rows += found
            for _, act in (pair for pair in meddle if pair[0] == number):
                victim = world.visible()[(number * 37) % 200]
                if act == "insert":
                    world.insert(since - timedelta(hours=number))
                elif act == "remove":
                    world.remove(victim["id"])
                else:
                    world.change(victim["id"], numberOfItems=number)
        assert sandbox.truth(rows, since) == []
        assert len(rows) >= 235

    @given(
        limit=st.integers(1, 100),
        sort=st.lists(
            st.tuples(st.sampled_from(sorted(SORTABLE)), st.sampled_from(sorted(ORDERS))), max_size=3
        ),
        statuses=st.sets(st.sampled_from(["failed", "completed", "pending"])),
    )
    @settings(max_examples=40)
    def test_three_ways_agree(
        self, still: World, limit: int, sort: list[tuple[str, str]], statuses: set[str]
    ) -> None:
        """`after`, `before` and `offset` give the same rows in the same order."""
        sandbox = Sandbox(still, rules=Rules(max_limit=3_000))
        asked = {
            "sorting_keys": [key for key, _ in sort],
            "sorting_order": [order for _, order in sort],
            "statuses": sorted(statuses),
            "company_id": still.companies[2],
        }
        whole = page(sandbox, limit=3_000, **asked)
        assert [row for rows in walk_pages(sandbox, limit=limit, **asked) for row in rows] == whole["data"]
        assert page(sandbox, limit=limit, offset=7, **asked)["data"] == whole["data"][7 : 7 + limit]
        back, cursor = whole["data"][-1:], whole["pagination"].get("endCursor")
        while cursor:
            answer = page(sandbox, limit=limit, before=cursor, **asked)
            back = answer["data"] + back
            cursor = answer["pagination"]["hasPreviousPage"] and answer["pagination"]["startCursor"]
        assert back == whole["data"]

    @pytest.mark.parametrize(("order", "nulls"), [
        ("ASC", "last"), ("DESC", "first"), ("ASC_NULLS_FIRST", "first"), ("ASC_NULLS_LAST", "last"),
        ("DESC_NULLS_FIRST", "first"), ("DESC_NULLS_LAST", "last"),
    ])  # fmt: skip
    def test_nulls(self, still: World, order: str, nulls: str) -> None:
        """Values are ascending or descending, and nulls are where the order puts them."""
        rows = walk(Sandbox(still), sorting_keys="expiredAt", sorting_order=order, limit=100)
        values = [row["expiredAt"] for row in rows if row["expiredAt"]]
        assert len(values) > 2
        assert values == sorted(values, reverse=order.startswith("DESC"))
        assert (rows[0]["expiredAt"] is None) == (nulls == "first")
        assert (rows[-1]["expiredAt"] is None) == (nulls == "last")

    def test_order_by_creation(self, still: World) -> None:
        """Ties in createdAt are broken by id, and the descending order is the exact reverse."""
        rows = walk(Sandbox(still), limit=100, **by_creation())
        assert rows == sorted(rows, key=lambda row: (row["createdAt"], row["id"]))
        assert walk(Sandbox(still), limit=100, **by_creation("DESC")) == rows[::-1]

    def test_default_order_is_not_creation(self, still: World) -> None:
        """Without sorting the list is ordered by id or as the rule says, so nobody can rely on creation."""
        rows = walk(Sandbox(still), limit=100)
        assert [row["id"] for row in rows] == sorted(row["id"] for row in rows)
        rule = Rules(order=(("createdAt", "DESC"),))
        assert walk(Sandbox(still, rules=rule), limit=100)[0]["createdAt"] == still.visible()[-1]["createdAt"]

    def test_page_info(self, still: World) -> None:
        """First, middle, last and empty page report their neighbours and the exact total."""
        sandbox = Sandbox(still)
        for offset, rows, before, after in [
            (0, 100, False, True),
            (1_000, 100, True, True),
            (1_950, 50, True, False),
        ]:
            answer = page(sandbox, limit=100, offset=offset)
            info = answer["pagination"]
            assert (len(answer["data"]), info["hasPreviousPage"], info["hasNextPage"]) == (
                rows,
                before,
                after,
            )
            assert info["total"] == 2_000
        beyond = page(sandbox, offset=2**63 - 1)
        assert beyond["data"] == []
        assert not {"startCursor", "endCursor"} & set(beyond["pagination"])
        assert page(sandbox, limit=0)["data"] == []
        assert page(Sandbox(World(jobs=0)))["pagination"]["hasNextPage"] is False

    def test_rows_as_of_now(self) -> None:
        """Every page shows each job as it is at that instant."""
        world = World(jobs=300, days=3, now=NOW + timedelta(hours=34))
        sandbox = Sandbox(world, rules=Rules(max_limit=1_000, order=(("createdAt", "ASC"), ("id", "ASC"))))
        for step in range(150):
            world.advance(60)
            if step % 10 == 0:
                world.change(world.visible()[step]["id"], numberOfItems=1_000 + step)
            shown = page(sandbox, limit=1_000)["data"]
            assert shown == sorted(world.visible(), key=lambda row: (row["createdAt"], row["id"]))
        latest = page(sandbox, limit=1_000, sorting_keys="lastUpdatedAt", sorting_order="DESC_NULLS_LAST")[
            "data"
        ]
        assert latest[0]["lastUpdatedAt"] == max(row["lastUpdatedAt"] or "" for row in shown)

    def test_cursors_match_the_contract(self, still: World) -> None:
        """Cursors match the contract's pattern in every sort."""
        for name in SORTABLE:
            info = page(Sandbox(still), sorting_keys=name, sorting_order="DESC")["pagination"]
            for cursor in (info["startCursor"], info["endCursor"]):
                assert set(cursor) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567=~")


class TestRequests:
    """Refusals, authentication and the echo."""

    @pytest.mark.parametrize(
        "query",
        [
            "company_id=7", "company_id=", "statuses=open", "statuses=failed,completed", "limit=-1", "limit=ten",
            "limit=2147483648", "limit=1.5", "limit=", "limit=1&limit=2", "offset=-1", "offset=9223372036854775808",
            "after=abc", "after=", "before=A-B", "after=MFRGG", "after=A1", "offset=0&after=AA", "offset=0&before=AA",
            "after=AA&before=AA", "sorting_keys=id", "sorting_order=ASC", "sorting_keys=id&sorting_order=UP",
            "sorting_keys=nonsense&sorting_order=ASC", "sorting_keys=id&sorting_order=ASC&sorting_order=ASC",
        ],
    )  # fmt: skip
    def test_bad_parameters(self, still: World, query: str) -> None:
        """A parameter outside the contract gives 400 with a type and a message."""
        answer = Sandbox(still)(Request("GET", PATH, query, BASIC))
        assert answer.status == 400
        assert set(json.loads(answer.body)) == {"type", "message"}

    @pytest.mark.parametrize(
        ("header", "status"),
        [
            (None, 401), ("", 401), ("Basic", 401), ("Basic !", 401), ("Bearer", 401), ("Bearer nobody", 401),
            (f"Bearer {TOKEN}", 200), (f"bearer {TOKEN}", 200), (f"Bearer {API_KEY}", 401),
            (BASIC["authorization"], 200), ("Basic " + b64encode(API_KEY.encode()).decode(), 401),
            ("Basic " + b64encode(f"{API_KEY}:x".encode()).decode(), 401),
            ("Basic " + b64encode(f":{API_KEY}".encode()).decode(), 401),
            ("Basic " + b64encode(b"\xff:").decode(), 401), ("Digest x", 401),
        ],
    )  # fmt: skip
    def test_authentication(self, still: World, header: str | None, status: int) -> None:
        """A bearer token, or an API key with an EMPTY password, is accepted; anything else is 401."""
        answer = ask(Sandbox(still), headers={} if header is None else {"authorization": header})
        assert answer.status == status

    def test_companies_of_a_credential(self, still: World) -> None:
        """A company's key sees only that company; an organisation's key sees every company it asks for."""
        own, other = still.companies[:2]
        sandbox = Sandbox(still, tokens={"own": own, "all": None}, rules=Rules(company_required=True))
        bearer = {"authorization": "Bearer own"}
        for asked in (None, own, own.upper()):
            rows = json.loads(ask(sandbox, bearer, company_id=asked).body)["data"]
            assert {row["companyId"] for row in rows} == {own}
        assert ask(sandbox, bearer, company_id=other).status == 403
        organisation = {"authorization": "Bearer all"}
        assert ask(sandbox, organisation).status == 400
        assert ask(sandbox, organisation, company_id=other).status == 200
        assert ask(sandbox, organisation, company_id=still.visible()[0]["id"]).status == 403

    def test_elsewhere_and_otherwise(self, still: World) -> None:
        """Other paths give 404 and other methods 405, in JSON."""
        sandbox = Sandbox(still)
        assert sandbox(Request("GET", "/v3/export-items", "", BASIC)).status == 404
        answer = sandbox(Request("POST", PATH, "", BASIC))
        assert (answer.status, answer.headers["Allow"]) == (405, "GET")
        assert json.loads(answer.body)["type"] == "method_not_allowed"

    def test_echo(self, still: World) -> None:
        """The response echoes the capped limit, the sort, and every parameter as sent."""
        asked = {
            "limit": 1_000,
            "offset": 5,
            "mistyped": "x",
            "statuses": ["failed", "completed"],
            **by_creation(),
        }
        echo = page(Sandbox(still), **asked)["pagination"]["currentRequestPagination"]
        assert echo == {
            "limit": 100,
            "offset": 5,
            "sortingKeys": ["createdAt", "id"],
            "sortingOrder": ["ASC", "ASC"],
            "parameters": {
                "limit": ["1000"],
                "offset": ["5"],
                "mistyped": ["x"],
                "statuses": ["failed", "completed"],
                "sorting_keys": ["createdAt", "id"],
                "sorting_order": ["ASC", "ASC"],
            },
        }
        bare = page(Sandbox(still, rules=Rules(echo="bare")), limit=3)["pagination"][
            "currentRequestPagination"
        ]
        assert bare == {"parameters": {"limit": ["3"]}}

    def test_log(self, still: World) -> None:
        """The log has number, parameters, status and fault of each request."""
        sandbox = Sandbox(still, faults="2:503")
        ask(sandbox, limit=5)
        ask(sandbox)
        assert [(line.number, line.parameters, line.status, line.fault) for line in sandbox.requests] == [
            (1, {"limit": ["5"]}, 200, ""), (2, {}, 503, "503"),
        ]  # fmt: skip


class TestRules:
    """The rules for what the contract leaves open."""

    @pytest.mark.parametrize("cap", [1, 20, 100, 1_000])
    def test_page_size(self, cap: int) -> None:
        """No page has more rows than the maximum, not even by default."""
        sandbox = Sandbox(World(jobs=1_100), rules=Rules(max_limit=cap))
        assert len(page(sandbox, limit=2_000)["data"]) == cap
        assert len(page(sandbox)["data"]) == min(20, cap)

    def test_totals(self, still: World) -> None:
        """`total` is exact, absent or wrong, as the rule says, and counts the filtered rows."""

        def total(rule: Any, **asked: Any) -> Any:
            return page(Sandbox(still, rules=Rules(total=rule)), **asked)["pagination"].get("total")

        assert total(rule=True) == 2_000
        assert total(rule=False) is None
        assert total("big") > 2_000 > total("small") >= 0
        assert total("negative") < 0
        failed = sum(row["status"] == "failed" for row in still.visible())
        assert total(rule=True, statuses="failed") == failed
        sandbox = Sandbox(still, rules=Rules(total="shrinking"))
        totals = [page(sandbox)["pagination"]["total"] for _ in range(3)]
        assert totals == sorted(set(totals), reverse=True)

    def test_sorting_refused_ignored_or_lied_about(self, still: World) -> None:
        """A server without sorting refuses it, ignores it without an echo, or echoes it falsely."""

        def first(**rules: Any) -> tuple[list[str] | None, bool]:
            answer = page(Sandbox(still, rules=Rules(**rules)), limit=100, **by_creation())
            ids = [row["id"] for row in answer["data"]]
            return answer["pagination"]["currentRequestPagination"].get("sortingKeys"), ids == sorted(ids)

        assert ask(Sandbox(still, rules=Rules(sorting=())), **by_creation()).status == 400
        assert first(sorting=(), unsortable="ignore") == (None, True)
        assert first(sorting=(), unsortable="lie") == (["createdAt", "id"], True)
        assert first(sorting=("createdAt",), unsortable="ignore") == (["createdAt"], False)
        assert first() == (["createdAt", "id"], False)

    def test_parameters_ignored(self, still: World) -> None:
        """Rules refuse or ignore offsets, and ignore statuses and company_id."""
        first = page(Sandbox(still))["data"]
        assert ask(Sandbox(still, rules=Rules(offsets="refuse")), offset=3).status == 400
        assert page(Sandbox(still, rules=Rules(offsets="ignore")), offset=3)["data"] == first
        assert page(Sandbox(still, rules=Rules(filter_statuses=False)), statuses="pending")["data"] == first
        company = still.companies[-1]
        assert page(Sandbox(still, rules=Rules(filter_company=False)), company_id=company)["data"] == first

    @pytest.mark.parametrize(("cursors", "status"), [("position", 200), ("row", 400)])
    def test_cursor_of_a_row_that_left_the_list(self, cursors: Any, status: int) -> None:
        """A cursor stays valid when its row leaves a filtered list, or is refused, as the rule says."""
        world = World(jobs=300)
        sandbox = Sandbox(world, rules=Rules(cursors=cursors))
        answer = page(sandbox, statuses="failed", limit=2)
        world.change(answer["data"][-1]["id"], status="completed")
        after = answer["pagination"]["endCursor"]
        assert ask(sandbox, statuses="failed", limit=2, after=after).status == status

    def test_cursor_of_another_sort_is_unknown(self, still: World) -> None:
        """A cursor is valid only for its own sort."""
        cursor = page(Sandbox(still))["pagination"]["endCursor"]
        assert ask(Sandbox(still), after=cursor).status == 200
        assert ask(Sandbox(still), after=cursor, **by_creation()).status == 400

    @pytest.mark.parametrize(
        ("rules", "shows"),
        [
            ({"fraction": 9}, '"createdAt":"20..-..-..T..:..:..[.]\\d{9}Z"'),
            ({"zone": 330}, '"createdAt":"[^"]{19}[+]05:30"'),
            ({"zone": -60, "fraction": 3}, '"createdAt":"[^"]{19}[.]\\d{3}-01:00"'),
            ({"extra": True}, '"exportTarget":{"system"'),
            ({"unknown_status": True}, '"status":"canceled"'),
            ({"null_reason": True}, '"failureReasonType":null'),
            ({"upper_uuid": True}, '"id":"[0-9A-F-]{36}"'),
            ({"countdown": True}, '"expiresIn":0'),
        ],
    )  # fmt: skip
    def test_spelling_of_rows(self, still: World, rules: dict[str, Any], shows: str) -> None:
        """Rows can have every format that the contract allows, and the oracle accepts them."""
        spelled = Sandbox(still, rules=Rules(**rules))
        bodies = b"".join(
            ask(spelled, limit=100, offset=offset).body for offset in range(0, 2_000, 100)
        ).decode()
        plain = b"".join(
            ask(Sandbox(still), limit=100, offset=offset).body for offset in range(0, 2_000, 100)
        )
        assert re.search(shows, bodies)
        assert not re.search(shows, plain.decode())
        assert spelled.truth(walk(spelled, limit=100), still.now) == []

    def test_token_expires(self, still: World) -> None:
        """A token expires after a number of requests; renewing it makes the old one invalid."""
        sandbox = Sandbox(still, rules=Rules(token_uses=2))
        old = {"authorization": f"Bearer {TOKEN}"}
        assert [ask(sandbox, old).status for _ in range(3)] == [200, 200, 401]
        fresh = sandbox.renew()
        assert [ask(sandbox, {"authorization": f"Bearer {fresh}"}).status for _ in range(3)] == [
            200,
            200,
            401,
        ]
        assert ask(sandbox, old).status == 401
        with pytest.raises(KeyError):
            sandbox.renew()

    def test_rate(self, still: World) -> None:
        """Beyond the rate a credential gets 429 until Retry-After has passed."""
        sandbox, clock = Sandbox(still, rules=Rules(rate=3)), [0.0]
        sandbox.timer = lambda: clock[0]
        statuses = []
        for clock[0] in (0, 10, 20, 30):
            statuses.append(ask(sandbox).status)
        assert statuses == [200, 200, 200, 429]
        wait = int(ask(sandbox).headers["Retry-After"])
        assert ask(sandbox, {"authorization": f"Bearer {TOKEN}"}).status == 200
        clock[0] += wait
        assert ask(sandbox).status == 200

    def test_clock(self) -> None:
        """The world's clock advances by `tick` per request and by `speed` with real time; Date shows it."""
        world = World(jobs=10)
        ask(Sandbox(world, rules=Rules(tick=90)))
        assert world.now == NOW + timedelta(seconds=90)
        sandbox, clock = Sandbox(world, rules=Rules(speed=60)), [5.0]
        sandbox.timer = lambda: clock[0]
        ask(sandbox)
        clock[0] = 7.0
        answer = ask(sandbox)
        assert world.now == NOW + timedelta(seconds=90 + 120)
        assert parsedate_to_datetime(answer.headers["Date"]) == world.now

    def test_compression(self, still: World) -> None:
        """With the rule `gzip`, pages are compressed for clients that accept it."""
        sandbox = Sandbox(still, rules=Rules(gzip=True))
        packed = ask(sandbox, {**BASIC, "accept-encoding": "gzip, br"})
        assert packed.headers["Content-Encoding"] == "gzip"
        assert json.loads(gzip.decompress(packed.body))["data"] == page(sandbox)["data"]


class TestFaults:
    """Fault scripts and the kinds of faults."""

    def test_script(self) -> None:
        """An entry of a script names one request, a range, an open range or a probability, with variants."""
        parsed = parse_faults("12:503, 30-32:429.7,5-:reset,*:badrow.float,reset=0.01,2-3:cut=0.5,")
        assert [(f.kind, f.variant, f.first, f.last, f.probability) for f in parsed] == [
            ("503", "", 12, 12, 1.0),
            ("429", "7", 30, 32, 1.0),
            ("reset", "", 5, None, 1.0),
            ("badrow", "float", 1, None, 1.0),
            ("reset", "", 1, None, 0.01),
            ("cut", "", 2, 3, 0.5),
        ]
        assert parse_faults("") == ()

    @pytest.mark.parametrize(
        ("text", "wrong"),
        [
            ("503", "503"),
            ("reset", "reset"),
            ("1-2", "1-2"),
            ("1:", "1:"),
            ("x:503", "x:503"),
            ("1:nonsense", "nonsense"),
            ("1:999", "999"),
            ("1:badrow.nonsense", "badrow"),
            ("1:reset.7", "reset"),
            ("1:503.x", "503"),
        ],
    )
    def test_unreadable_script(self, text: str, wrong: str) -> None:
        """A script that cannot be parsed is refused with a message that names the wrong part."""
        with pytest.raises(ValueError, match="^'" + re.escape(wrong) + "'"):
            parse_faults(f"3:500,{text}")

    def test_only_the_named_requests(self, still: World) -> None:
        """Only the requests that the script names get a fault."""
        sandbox = Sandbox(still, faults="2:503,4-5:500,7-:429")
        assert [ask(sandbox).status for _ in range(9)] == [200, 503, 200, 500, 500, 200, 429, 429, 429]

    def test_probability_is_reproducible(self, still: World) -> None:
        """A probability gives about that share of faults, and the same requests in every run."""
        runs = []
        for _ in range(2):
            sandbox = Sandbox(still, faults="503=0.3")
            runs.append([ask(sandbox, limit=1).status for _ in range(300)])
        assert runs[0] == runs[1]
        assert 50 < runs[0].count(503) < 130

    @pytest.mark.parametrize(
        "text",
        [f"{name}.{v}" if v else name for name, k in KINDS.items() for v in ("", *k.variants) if v != "N"],
    )
    def test_every_kind_does_something(self, still: World, text: str) -> None:
        """Each kind and variant changes the response, and is documented."""
        sandbox = Sandbox(still, faults=f"3:{text}")
        first = page(sandbox, statuses="failed", limit=5)["pagination"]["endCursor"]
        second = page(sandbox, statuses="failed", limit=5, after=first)["pagination"]["endCursor"]
        response = ask(sandbox, statuses="failed", limit=5, after=second)
        assert response != ask(sandbox, statuses="failed", limit=5, after=second)
        assert f"- `{text.split('.', maxsplit=1)[0]}`: " in (kinds_module.__doc__ or "")

    @pytest.mark.parametrize("text", ["429", "401", "500", "204"])
    def test_statuses(self, still: World, text: str) -> None:
        """Every status is a fault; errors have a JSON body, 204 has none."""
        answer = ask(Sandbox(still, faults=f"1:{text}"))
        assert answer.status == int(text)
        assert answer.body == b"" if text == "204" else set(json.loads(answer.body)) == {"type", "message"}

    def test_retry_after(self, still: World) -> None:
        """Every form of Retry-After works; dates count from the response's own Date."""

        def header(kind: str) -> str | None:
            answer = ask(Sandbox(still, faults=f"1:{kind}"))
            assert answer.status == 429
            value = answer.headers.get("Retry-After")
            if kind in ("429date.9", "429past") and value is not None:
                wait = parsedate_to_datetime(value) - parsedate_to_datetime(answer.headers["Date"])
                return str(wait.total_seconds())
            return value

        said = [
            "429.30",
            "429date.9",
            "429past",
            "429none",
            "429",
            "429empty",
            "429junk",
            "429nan",
            "429huge",
        ]
        assert [header(kind) for kind in said] == [
            "30", "9.0", "-3600.0", None, None, "", "soon", "nan", "1000000000",
        ]  # fmt: skip

    def test_loops(self, still: World) -> None:
        """`repeatcursor` repeats one page; `loop2` alternates between two."""
        for kind, period in (("repeatcursor", 1), ("loop2", 2)):
            walker = walk_pages(Sandbox(still, faults=f"4-:{kind}"), limit=10)
            pages = [keys(next(walker)) for _ in range(12)]
            assert all(pages[n] == pages[n + period] for n in range(4, 9)), kind
            assert pages[8] != pages[9] or period == 1

    def test_loop_of_two_in_spite_of_a_retry(self, still: World) -> None:
        """`loop2` leads back to the previous page even if a retry requests a page twice."""
        sandbox = Sandbox(still, faults="4:loop2")
        first = page(sandbox)["pagination"]["endCursor"]
        second = page(sandbox, after=first)["pagination"]["endCursor"]
        page(sandbox, after=second)
        assert page(sandbox, after=second)["pagination"]["endCursor"] == first

    def test_nothing_is_lost_by_empty_pages(self, still: World) -> None:
        """Rows withheld by an empty page follow later, under new cursors."""
        sandbox = Sandbox(still, faults="1-3:emptypage,9-10:emptypage")
        pages = list(walk_pages(sandbox, limit=100))
        assert [len(rows) for rows in pages[:4]] == [0, 0, 0, 100]
        assert sandbox.truth([row for rows in pages for row in rows], still.now) == []

    def test_early_end_loses_rows_and_the_oracle_sees_it(self, still: World) -> None:
        """The oracle names each job that is missing from a list that ends too early."""
        sandbox = Sandbox(still, faults="3:endsearly")
        missing = sandbox.truth(walk(sandbox, limit=100), still.now)
        assert {wrong.kind for wrong in missing} == {"missing"}
        assert len(missing) == 1_700

    def test_bomb(self, still: World) -> None:
        """A bomb is small on the wire, large in memory, and valid gzip of the right page."""
        answer = ask(Sandbox(still, faults="1:bomb.8"))
        assert len(answer.body) < 64_000
        unpacked = gzip.decompress(answer.body)
        assert len(unpacked) > 8 << 20
        assert len(json.loads(unpacked)["data"]) == 20

    @pytest.mark.parametrize(("kind", "wire", "length"), [
        ("cut", "cut", None), ("cut.17", "cut", 17), ("cut.tail", "cut", -1), ("cut.short", "whole", None),
        ("cut.close", "cut_close", None), ("cut.chunked", "cut_chunked", None), ("reset", "reset", 0),
        ("reset_mid", "reset_mid", 0), ("drip.250", "drip", 0), ("silence", "silence", 0),
    ])  # fmt: skip
    def test_wires(self, still: World, kind: str, wire: str, length: int | None) -> None:
        """In process, `wire` names the network fault, and the body of a cut is cut."""
        honest = len(ask(Sandbox(still)).body)
        answer = ask(Sandbox(still, faults=f"1:{kind}"))
        assert answer.wire == wire
        assert len(answer.body) == (honest // 2 if length is None else length + honest * (length <= 0))
        assert answer.delay == (0.25 if wire == "drip" else 0)

    def test_empty_lists_bear_every_fault(self) -> None:
        """Every fault works on an empty list and leaves errors unchanged."""
        world = World(jobs=0)
        for kind in KINDS:
            assert ask(Sandbox(world, faults=f"1:{kind}")).status
            assert ask(Sandbox(world, faults=f"1:{kind}"), limit=-1).status

    def test_redirect(self, still: World) -> None:
        """A redirect points to the server that the rules name."""
        sandbox = Sandbox(
            still, rules=Rules(elsewhere="http://127.0.0.1:9"), faults="1:redirect,2:redirect.same"
        )
        assert ask(sandbox).headers["Location"] == f"http://127.0.0.1:9{PATH}"
        assert ask(sandbox).headers["Location"] == PATH


def fetch(url: str, *, timeout: float = 5) -> tuple[int, bytes]:
    """Send one request on a new connection."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=timeout)
    try:
        connection.request("GET", PATH, headers=BASIC)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


class TestServer:
    """The sandbox over a real socket."""

    def test_same_answers_as_in_process(self, still: World) -> None:
        """The socket delivers the same bytes and headers as a call in process, many on one connection."""
        sandbox = Sandbox(still)
        with serve(sandbox) as served:
            connection = http.client.HTTPConnection(urlsplit(served.url).netloc, timeout=5)
            sockets = set()
            for offset in range(0, 2_000, 400):
                connection.request("GET", f"{PATH}?limit=100&offset={offset}", headers=BASIC)
                sockets.add(connection.sock)
                answer = connection.getresponse()
                assert answer.headers["Content-Type"] == "application/json;charset=UTF-8"
                assert answer.read() == ask(Sandbox(still), limit=100, offset=offset).body
            assert len(sockets) == 1
            connection.request("POST", PATH, body=b"{}", headers=BASIC)
            refused = connection.getresponse()
            assert (refused.status, refused.headers["Allow"]) == (405, "GET")
            connection.close()
        assert sandbox.requests[0].request.headers["host"] == urlsplit(served.url).netloc

    @pytest.mark.parametrize("method", ["TRACE", "QUERY", "HEAD", "PROPFIND", "get"])
    def test_refuses_every_method_in_the_same_way(self, still: World, method: str) -> None:
        """Methods that the standard library does not know also get 405, and a HEAD gets no body."""
        with serve(Sandbox(still)) as served:
            connection = http.client.HTTPConnection(urlsplit(served.url).netloc, timeout=5)
            for _ in range(2):  # the connection stays usable
                connection.request(method, PATH, headers=BASIC)
                refused = connection.getresponse()
                assert (refused.status, refused.headers["Allow"]) == (405, "GET")
                assert bool(refused.read()) == (method != "HEAD")
            connection.close()

    @pytest.mark.parametrize(
        ("kind", "error"),
        [
            ("reset", ConnectionResetError), ("reset_mid", (ConnectionResetError, http.client.IncompleteRead)),
            ("cut", http.client.IncompleteRead), ("cut.tail", http.client.IncompleteRead),
            ("cut.chunked", http.client.IncompleteRead), ("silence", TimeoutError), ("drip", TimeoutError),
        ],
    )  # fmt: skip
    def test_broken_wires(self, still: World, kind: str, error: Any) -> None:
        """A network fault is real on the socket, and the next request succeeds."""
        with serve(Sandbox(still, faults=f"1:{kind}")) as served:
            with pytest.raises(error):
                fetch(served.url, timeout=0.3)
            assert fetch(served.url)[0] == 200

    def test_reset_is_a_reset(self, still: World) -> None:
        """A reset sends RST, not FIN."""
        with serve(Sandbox(still, faults="1:reset")) as served:
            address = urlsplit(served.url)
            with socket.create_connection((address.hostname, address.port), timeout=5) as raw:
                raw.sendall(f"GET {PATH} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                with pytest.raises(ConnectionResetError):
                    raw.recv(1)

    @pytest.mark.parametrize("kind", ["cut.close", "cut.short", "204", "slow.1", "drip.0"])
    def test_odd_but_orderly_wires(self, still: World, kind: str) -> None:
        """A body without a length, a short, an empty, a late and a slow one arrive as intended."""
        with serve(Sandbox(still, faults=f"1:{kind}")) as served:
            _, body = fetch(served.url)
        assert body == ask(Sandbox(still, faults=f"1:{kind}")).body

    def test_many_clients(self, still: World) -> None:
        """Many threads are served in parallel, and every request is logged once."""
        sandbox = Sandbox(still)
        with serve(sandbox) as served:
            threads = [threading.Thread(target=fetch, args=(served.url,)) for _ in range(16)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert [asked.number for asked in sandbox.requests] == list(range(1, 17))
        assert {asked.status for asked in sandbox.requests} == {200}

    def test_ends_cleanly(self, still: World) -> None:
        """The end of the block closes idle and hanging connections, ends all threads, and frees the port."""
        before = threading.active_count()
        sandbox = Sandbox(still, faults="1:silence")
        with serve(sandbox) as served:
            address = urlsplit(served.url)
            place = (address.hostname, address.port)
            hanging, idle = (socket.create_connection(place, timeout=5) for _ in range(2))
            for number, connection in enumerate((hanging, idle), 1):
                connection.sendall(f"GET {PATH} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                while len(sandbox.requests) < number:
                    time.sleep(0.001)
            assert idle.recv(100).startswith(b"HTTP/1.1 401 Unauthorized")
        assert threading.active_count() == before
        assert hanging.recv(1) == b""
        while idle.recv(4096):
            pass  # the rest of the response, then the end
        hanging.close()
        idle.close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(place, timeout=5)
