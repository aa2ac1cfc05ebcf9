"""What to ask next: guards, proof of order, recovery from a lost cursor, and lists that change during a walk."""

from __future__ import annotations

from base64 import b32encode, b64encode
from bisect import bisect_left, bisect_right, insort
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

import msgspec
import pytest
from cases import mostly_slow
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pleo_extract.contract import PATH, PageInfo, Query, is_cursor
from pleo_extract.core.decode import parse_page
from pleo_extract.core.order import PROOF
from pleo_extract.core.pages import SAFE
from pleo_extract.core.verdict import Verdict, decide_verdict
from pleo_extract.core.walk import BY_CREATION, MAX_PAGES, NEWEST_FIRST, Checkpoint, Walk
from pleo_extract.errors import CursorRefused, RequestRefused, WalkError
from pleo_extract.sandbox import API_KEY, Request, Rules, Sandbox, World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from pleo_extract.contract import Key

    Answer = Callable[[Query], PageInfo]

COMPANY = "5e6a4a5a-3b0c-4e8e-9a51-0d7d3c2b1a90"
BASIC = {"authorization": "Basic " + b64encode(f"{API_KEY}:".encode()).decode()}
REFUSED: Final = RequestRefused("the server answered 400 (the cursor is gone)")


@dataclass
class Trip:
    """The queries of a walk, its pages, and which pages were stray."""

    asked: list[Query] = field(default_factory=list)
    got: list[PageInfo] = field(default_factory=list)
    stray: list[bool] = field(default_factory=list)

    @property
    def keys(self) -> list[Key]:
        """Return all keys of the pages that belong to the walk, in order."""
        return [
            key for info, stray in zip(self.got, self.stray, strict=True) if not stray for key in info.keys
        ]


def drive(walk: Walk, answer: Answer, *, most: int = 5_000, pages: int | None = None) -> Trip:
    """Drive a walk to its end, or for some pages, in at most `most` steps."""
    trip, steps = Trip(), walk.steps()
    try:
        query = next(steps)
        for _ in range(most):
            trip.asked.append(query)
            try:
                info = answer(query)
            except RequestRefused as refusal:
                query = steps.throw(refusal)
                continue
            trip.got.append(info)
            before = walk.checkpoint
            try:
                query = steps.send(info)
            finally:
                trip.stray.append(_is_stray(before, walk.checkpoint))
            if pages is not None and len(trip.got) == pages:
                return trip
    except StopIteration:
        return trip
    raise AssertionError("the walk does not end")


def _is_stray(before: Checkpoint, after: Checkpoint) -> bool:
    """Return whether the walk did not use a page, except to count it and to check the order.

    A walk that starts over after the page forgets which of the jobs read last have the same created_at.
    """
    counted = {
        name: getattr(after, name)
        for name in ("pages", "rows", "order", "candidate", "has_echo", "rows_in_order", "repeated", "ties")
    }
    return msgspec.structs.replace(before, **counted) == after


def ask(sandbox: Sandbox) -> Answer:
    """Return a function that asks the sandbox for a walk, decodes pages, and raises a 400 as the client does."""

    def answer(query: Query) -> PageInfo:
        got = sandbox(Request("GET", PATH, urlencode(query.params()), BASIC))
        if got.status == 400:
            raise RequestRefused(f"the server answered 400 ({got.body.decode()})", params=query.params())
        assert got.status == 200, got.body
        return parse_page(got.body).info

    return answer


def sandbox_of(faults: str = "", *, jobs: int = 250, **rules: Any) -> Sandbox:
    """Return a sandbox with these rules."""
    return Sandbox(World(jobs=jobs), rules=Rules(**rules), faults=faults)


def keys_of(sandbox: Sandbox) -> list[Key]:
    """Return the keys of all listed jobs, oldest first."""
    return sorted((row["createdAt"][:-1], row["id"]) for row in sandbox.world.visible())


def key(n: int) -> Key:
    """Return the n-th key; keys are an hour apart."""
    return (
        f"2026-{1 + n // 600:02d}-{1 + n // 24 % 25:02d}T{n % 24:02d}:00:00",
        f"{n:08d}-0000-4000-8000-000000000000",
    )


def page(*numbers: int, cursor: str | None = "NEXT", **more: Any) -> PageInfo:
    """Return a page of the n-th keys with an echo of BY_CREATION; without a cursor it is the last."""
    said: dict[str, Any] = {
        "rows": len(numbers),
        "keys": tuple(map(key, numbers)),
        "has_next": cursor is not None,
        "end_cursor": cursor,
        "sorting_keys": ("createdAt", "id"),
        "sorting_order": ("ASC", "ASC"),
        "limit": 100,
    }
    return PageInfo(**{**said, **more})


def replay(*answers: PageInfo | RequestRefused) -> Answer:
    """Return a function that gives one response after another."""
    left = iter(answers)

    def answer(_: Query) -> PageInfo:
        got = next(left)
        if isinstance(got, RequestRefused):
            raise got
        return got

    return answer


class TestWays:
    """The list is read from page to page by cursor, from wherever a walk begins. `fetch_page` covers the other two ways."""

    @pytest.mark.parametrize("limit", [1, 7, 100, 250, 1000])
    @pytest.mark.parametrize("query", [BY_CREATION, NEWEST_FIRST], ids=["oldest first", "newest first"])
    def test_after(self, query: Query, limit: int) -> None:
        """Following endCursor reads each job once, in order, in pages of the server's limit."""
        sandbox = sandbox_of(max_limit=limit)
        walk = Walk(query)
        trip = drive(walk, ask(sandbox))
        assert trip.keys == sorted(keys_of(sandbox), reverse=query.descending)
        assert (walk.checkpoint.pages, walk.checkpoint.rows, walk.distinct) == (
            -(-250 // min(query.limit or 0, limit)),
            250,
            250,
        )
        assert (walk.order, walk.ended) == ("strict", "end")
        assert walk.checkpoint.totals == (250, 250)
        assert (walk.checkpoint.first, walk.checkpoint.furthest) == (trip.keys[0], trip.keys[-1])
        assert walk.checkpoint.newest == max(trip.keys)
        assert walk.understood == (query.sorting_keys, query.sorting_order, min(query.limit or 0, limit))

    def test_empty_list(self) -> None:
        """A list without jobs is one page and complete."""
        walk = Walk(BY_CREATION)
        assert drive(walk, ask(sandbox_of(jobs=0))).keys == []
        assert (walk.checkpoint.pages, walk.distinct, walk.order, walk.ended) == (1, 0, "strict", "end")

    def test_from_a_cursor_or_an_offset(self) -> None:
        """A walk can begin at any cursor or offset, and reads to the end."""
        sandbox = sandbox_of()
        first = ask(sandbox)(BY_CREATION)
        assert (
            drive(Walk(BY_CREATION.at(after=first.end_cursor)), ask(sandbox)).keys == keys_of(sandbox)[100:]
        )
        assert drive(Walk(BY_CREATION.at(offset=130)), ask(sandbox)).keys == keys_of(sandbox)[130:]

    def test_what_is_asked_stays(self) -> None:
        """Every page has the same company, statuses, limit and sorting, and one position."""
        world = World(jobs=2_000)
        query = replace(BY_CREATION, company_id=world.companies[0], statuses=("completed",), limit=150)
        trip = drive(Walk(query), ask(Sandbox(world, rules=Rules(max_limit=50))))
        assert len(trip.asked) > 5
        assert {replace(asked, after=None) for asked in trip.asked} == {query}


class TestGuards:
    """A broken list is an error with page and field, never a silent end."""

    @pytest.mark.parametrize(
        ("answers", "where"),
        [
            ([page(1, cursor="A"), page(2, cursor="A")], "page 2: endCursor 'A'"),
            ([page(1, cursor="A"), page(2, cursor="B"), page(3, cursor="A")], "page 3: endCursor 'A'"),
            ([page(n, cursor=name) for n, name in enumerate("ABCDEFGC")], "page 8: endCursor 'C'"),
        ],
        ids=["A to A", "A to B to A", "back to C"],
    )
    def test_f17_loops(self, answers: list[PageInfo], where: str) -> None:
        """F17: a repeated cursor is a loop, however long, even with new rows."""
        with pytest.raises(WalkError, match=f"loop at {where} was given before"):
            drive(Walk(BY_CREATION), replay(*answers))

    @pytest.mark.parametrize("fault", ["3-:repeatcursor", "4-:loop2"])
    def test_f17_loops_of_a_server(self, fault: str) -> None:
        """F17: a walk leaves a server's loop within one page."""
        sandbox = sandbox_of(fault, jobs=2_000)
        walk = Walk(BY_CREATION)
        with pytest.raises(WalkError, match="loop at page"):
            drive(walk, ask(sandbox))
        assert walk.checkpoint.pages <= 6
        assert walk.ended is None

    @pytest.mark.parametrize(
        ("cursor", "shown"),
        [
            (None, "absent"),
            ("", "''"),
            ("abc", "'abc'"),
            ("A B", "'A B'"),
            ("A\n", "'A\\n'"),
            ("A1", "'A1'"),
            ("https://evil.example/?after=A", "'https://evil.example/?after=A'"),
            ("A" * 8_193, "A…'"),
        ],
    )
    def test_f18_no_usable_cursor(self, cursor: str | None, shown: str) -> None:
        """F18: a next page without a cursor is an error, never a request for page 1."""
        asked: list[Query] = []

        def answer(query: Query) -> PageInfo:
            asked.append(query)
            return page(1, has_next=True, cursor=cursor)

        with pytest.raises(WalkError, match="page 1: hasNextPage is true but endCursor is ") as caught:
            drive(Walk(BY_CREATION), answer)
        assert shown in str(caught.value)
        assert str(caught.value).isprintable()
        assert len(asked) == 1

    @pytest.mark.parametrize("fault", ["2:nocursor", "2:nocursor.null", "2:nocursor.blank", "2:badcursor"])
    def test_f18_of_a_server(self, fault: str) -> None:
        """F18: the same holds for a server's second page."""
        with pytest.raises(WalkError, match="page 2: hasNextPage is true but endCursor is"):
            drive(Walk(BY_CREATION), ask(sandbox_of(fault)))

    def test_f18_the_last_page_needs_no_cursor(self) -> None:
        """F18: the last page needs no valid cursor."""
        for last in (True, False):
            assert drive(Walk(BY_CREATION), ask(sandbox_of(last_cursor=last))).keys
        assert drive(Walk(BY_CREATION), replay(page(1, has_next=False, cursor="not a cursor"))).keys == [
            key(1)
        ]

    def test_long_cursors(self) -> None:
        """A cursor as long as a URL may be is valid."""
        trip = drive(Walk(BY_CREATION), replay(page(1, cursor="A" * 8_192), page(2, cursor=None)))
        assert trip.asked[1].after == "A" * 8_192

    def test_f19_empty_pages(self) -> None:
        """F19: nine empty pages in a row are skipped, a tenth is an error; a page with rows starts the count again."""
        empty = [page(cursor=f"A{'B' * n}") for n in range(30)]
        more, last = page(1, cursor="ROWS"), page(2, cursor=None)
        trip = drive(Walk(BY_CREATION), replay(*empty[:9], more, *empty[9:18], last))
        assert trip.keys == [key(1), key(2)]
        with pytest.raises(WalkError, match="page 11 is the 10th empty page in a row"):
            drive(Walk(BY_CREATION), replay(more, *empty[:10]))
        assert drive(Walk(BY_CREATION), replay(*empty[:9], page(cursor=None))).keys == []

    def test_f19_of_a_server(self) -> None:
        """F19: rows that a server withholds behind empty pages are read."""
        sandbox = sandbox_of("2-6:emptypage")
        walk = Walk(BY_CREATION)
        assert drive(walk, ask(sandbox)).keys == keys_of(sandbox)
        assert walk.distinct == 250
        with pytest.raises(WalkError, match="empty page in a row"):
            drive(Walk(BY_CREATION), ask(sandbox_of("2-:emptypage")))

    def test_f24_foreign_company(self) -> None:
        """F24: a row of a foreign company ends the walk and is named."""
        query = replace(BY_CREATION, company_id=COMPANY)
        other = COMPANY.replace("5", "6")
        with pytest.raises(WalkError, match=f"page 2 holds a row of company '{other}'") as caught:
            drive(
                Walk(query),
                replay(
                    page(1, companies=frozenset({COMPANY})),
                    page(2, companies=frozenset({COMPANY, other.upper()})),
                ),
            )
        assert COMPANY in str(caught.value)

    def test_f24_the_same_company_in_capitals(self) -> None:
        """F24: the company in capitals is not foreign; without company_id every company is accepted."""
        query = replace(BY_CREATION, company_id=COMPANY)
        drive(Walk(query), replay(page(1, cursor=None, companies=frozenset({COMPANY, COMPANY.upper()}))))
        drive(Walk(BY_CREATION), replay(page(1, cursor=None, companies=frozenset({COMPANY, "anything"}))))

    def test_f24_of_a_server(self) -> None:
        """F24: a server that ignores company_id or adds a foreign row is detected; capitals are not."""
        for rules, faults, fits in (
            ({"filter_company": False}, "", False),
            ({}, "2:foreign", False),
            ({"upper_uuid": True}, "", True),
        ):
            sandbox = sandbox_of(faults, jobs=1_000, **rules)
            walk = Walk(replace(BY_CREATION, company_id=sandbox.world.companies[0]))
            if fits:
                drive(walk, ask(sandbox))
            else:
                with pytest.raises(WalkError, match="company"):
                    drive(walk, ask(sandbox))

    def test_f17_page_cap(self) -> None:
        """F17: a list that does not end, with new cursors for ever, is left at the cap; one that ends there is complete."""
        near = msgspec.structs.replace(Walk(BY_CREATION).checkpoint, cursor="A", pages=MAX_PAGES - 1)
        whole = Walk(BY_CREATION, checkpoint=near)
        drive(whole, replay(page(1, cursor=None)))
        assert (whole.checkpoint.pages, whole.ended) == (MAX_PAGES, "end")
        endless = Walk(BY_CREATION, checkpoint=near)
        with pytest.raises(WalkError, match=r"page 1000001: .* 1,000,000 pages"):
            drive(endless, replay(page(1, cursor="B"), page(2, cursor="C")))
        assert endless.ended is None


class TestNegotiation:
    """Ask, then see what the server understood."""

    @pytest.mark.parametrize(
        ("rules", "order", "refusals"),
        [
            ({}, "strict", 0),
            ({"sorting": ("createdAt",)}, "created", 1),
            ({"sorting": ()}, "none", 2),
            ({"sorting": ("id",)}, "none", 2),
            ({"sorting": ("createdAt",), "unsortable": "ignore"}, "created", 0),
            ({"sorting": (), "unsortable": "ignore"}, "none", 0),
            ({"sorting": ("id",), "unsortable": "ignore"}, "none", 0),
            ({"sorting": (), "unsortable": "lie"}, "none", 0),
            ({"echo": "bare"}, "strict", 0),
        ],
        ids=str,
    )
    @pytest.mark.parametrize("query", [BY_CREATION, NEWEST_FIRST], ids=["oldest first", "newest first"])
    def test_what_servers_make_of_sorting(
        self, query: Query, rules: dict[str, Any], order: str, refusals: int
    ) -> None:
        """Whatever the server does with sorting, the walk ends and claims only proven order."""
        sandbox = sandbox_of(**rules)
        walk = Walk(query)
        trip = drive(walk, ask(sandbox))
        assert sorted(trip.keys) == keys_of(sandbox)
        assert walk.order == order
        assert len(trip.asked) - len(trip.got) == refusals
        assert walk.distinct == (250 if order == "strict" else None)
        assert walk.understood[2] == (None if "echo" in rules else 100)

    def test_f24_an_echo_alone_proves_nothing(self) -> None:
        """F24: an echo of a sorting proves nothing: the rows decide."""
        sandbox = sandbox_of(sorting=("id",), unsortable="lie")
        walk = Walk(BY_CREATION)
        trip = drive(walk, ask(sandbox))
        assert trip.got[0].sorting_keys == ("createdAt", "id")
        assert walk.order == "none"

    @pytest.mark.parametrize(("rows", "order"), [(PROOF - 1, "none"), (PROOF, "strict")])
    def test_f59_few_rows_prove_nothing(self, rows: int, order: str) -> None:
        """F59: an order without an echo is proven by enough rows, or by the whole list."""
        silent: dict[str, Any] = {"sorting_keys": None, "sorting_order": None}
        first = page(*range(rows), cursor="A", **silent)
        walk = Walk(BY_CREATION)
        drive(walk, replay(first), pages=1)
        assert (walk.order, walk.distinct) == (order, rows if order == "strict" else None)
        drive(walk, replay(replace(first, has_next=False)))
        short = Walk(BY_CREATION)
        drive(short, replay(replace(first, has_next=False)))
        assert (short.order, short.distinct) == ("strict", rows)

    @pytest.mark.parametrize("query", [BY_CREATION, NEWEST_FIRST], ids=["oldest first", "newest first"])
    def test_f59_no_early_stop_on_a_few_rows(self, query: Query) -> None:
        """F59: a few small sorted pages without an echo do not end the walk early."""
        sandbox = sandbox_of(jobs=40, max_limit=1, echo="bare", sorting=(), unsortable="ignore")
        walk = Walk(query, until=("2026", "") if not query.descending else ("9", ""))
        assert len(drive(walk, ask(sandbox)).keys) == 40
        assert walk.ended == "end"

    @pytest.mark.parametrize("ids", ["bytes", "signed", "neither"])
    @pytest.mark.parametrize("descending", [False, True])
    def test_f59_orders_of_ids(self, ids: str, descending: bool) -> None:  # noqa: FBT001 - a case
        """F59: ids in byte order or Java's signed order are strict; otherwise only createdAt is proven."""
        names = {
            "bytes": ["1", "7", "8", "f"],
            "signed": ["8", "f", "1", "7"],
            "neither": ["1", "8", "7", "f"],
        }[ids]
        tail = "0000000-0000-4000-{}000-000000000000"
        keys = [(key(1)[0], name + tail.format(low)) for name in names for low in "89"]
        keys = [*keys, *map(key, range(2, 12))]
        orders = ("DESC", "DESC") if descending else ("ASC", "ASC")
        ordered = tuple(reversed(keys) if descending else keys)
        walk = Walk(NEWEST_FIRST if descending else BY_CREATION)
        pages = [
            page(rows=3, keys=ordered[n : n + 3], cursor="A" * (n + 1), sorting_order=orders)
            for n in range(0, len(ordered), 3)
        ]
        drive(walk, replay(*pages[:-1], replace(pages[-1], has_next=False)))
        assert walk.order == ("created" if ids == "neither" else "strict")
        assert walk.distinct == (None if ids == "neither" else 18)
        assert walk.checkpoint.furthest == ordered[-1] or ids == "neither"

    def test_f59_two_id_orders_at_once_are_none(self) -> None:
        """F59: ties that follow two id orders in turn follow neither."""
        tied = [
            (key(n)[0], name * 8 + "-0000-4000-8000-000000000000")
            for n, name in ((1, "1"), (1, "9"), (2, "9"), (2, "1"))
        ]
        walk = Walk(BY_CREATION)
        drive(walk, replay(page(rows=4, keys=tuple(tied), cursor=None)))
        assert walk.order == "created"

    @pytest.mark.parametrize(
        ("echo", "order"),
        [
            ((("createdAt", "id"), ("ASC", "ASC")), "strict"),
            ((("createdAt", "id"), ("ASC", "DESC")), "created"),
            ((("createdAt",), ("ASC",)), "created"),
            ((("createdAt", "companyId"), ("ASC", "ASC")), "created"),
            ((("createdAt", "id"), ("DESC", "ASC")), "none"),
            ((("createdAt",), ()), "none"),
            ((("id", "createdAt"), ("ASC", "ASC")), "none"),
            (((), ()), "none"),
            ((None, None), "strict"),
            ((("createdAt", "id"), None), "strict"),
            ((None, ("ASC", "ASC")), "strict"),
            ((None, ("DESC", "DESC")), "none"),
            ((None, ("ASC",)), "created"),
            ((("createdAt",), None), "created"),
            ((("id",), None), "none"),
            ((("createdAt", "id"), ("asc", "ASC_NULLS_LAST")), "strict"),
        ],
        ids=str,
    )
    def test_echo(self, echo: tuple[Any, Any], order: str) -> None:
        """An echo that contradicts the request counts on any page; a missing one proves nothing."""
        good = page(1, 2, cursor="A")
        odd = page(3, 4, cursor=None, sorting_keys=echo[0], sorting_order=echo[1])
        walk = Walk(BY_CREATION)
        drive(walk, replay(good, odd))
        assert walk.order == order

    @pytest.mark.parametrize(
        ("numbers", "order"),
        [
            ([[1, 2], [3, 4]], "strict"),
            ([[1, 2], [2, 3]], "created"),
            ([[1, 1], [2]], "created"),
            ([[1, 2], [1, 3]], "none"),
            ([[2, 1]], "none"),
            ([[1], [], [0]], "none"),
        ],
        ids=str,
    )
    @pytest.mark.parametrize("descending", [False, True])
    def test_rows(self, numbers: list[list[int]], order: str, descending: bool) -> None:  # noqa: FBT001 - a case
        """Rows must keep the order within pages, across pages and across empty pages, without repeats."""
        orders = ("DESC", "DESC") if descending else ("ASC", "ASC")
        pages = [
            page(*[9 - n if descending else n for n in rows], cursor="A" * (place + 1), sorting_order=orders)
            for place, rows in enumerate(numbers)
        ]
        walk = Walk(NEWEST_FIRST if descending else BY_CREATION)
        drive(walk, replay(*pages, page(cursor=None, sorting_order=orders)))
        assert walk.order == order

    def test_ties_in_unknown_order(self) -> None:
        """Ties with unordered ids leave createdAt proven."""
        tied = [(key(1)[0], key(n)[1]) for n in (5, 3, 4)]
        walk = Walk(BY_CREATION)
        drive(walk, replay(page(cursor=None, rows=3, keys=tuple(tied))))
        assert walk.order == "created"

    def test_order_once_lost_is_not_regained(self) -> None:
        """One page out of order disproves the order for good."""
        walk = Walk(BY_CREATION)
        drive(walk, replay(page(2, 1, cursor="A"), page(3, 4, cursor="B"), page(5, cursor=None)))
        assert walk.order == "none"

    def test_one_sorting_key(self) -> None:
        """A walk by createdAt alone may prove createdAt; one without sorting proves nothing."""
        sandbox = sandbox_of()
        one = Walk(Query(limit=100, sorting_keys=["createdAt"], sorting_order=["DESC"]))
        drive(one, ask(sandbox))
        none = Walk(Query(limit=100))
        drive(none, ask(sandbox))
        assert (one.order, none.order) == ("created", "none")

    def test_a_request_that_is_refused_for_another_reason(self) -> None:
        """A 400 for another reason stays a 400 after the simpler sortings were tried."""
        sandbox = sandbox_of(company_required=True)
        with pytest.raises(RequestRefused, match="company_id must be sent"):
            drive(Walk(BY_CREATION), ask(sandbox))
        assert len(sandbox.requests) == 3

    def test_sorting_is_negotiated_at_the_start_only(self) -> None:
        """Once pages were read, the walk does not answer a 400 with another sorting, which would mix two lists."""
        walk = Walk(replace(BY_CREATION, statuses=("failed",)))
        with pytest.raises(RequestRefused) as caught:
            drive(walk, replay(page(1, 2), REFUSED, REFUSED))
        assert caught.value is REFUSED
        assert (walk.restarts, len(walk.query.sorting_keys)) == (1, 2)

    def test_a_cursor_of_the_caller(self) -> None:
        """A cursor that the caller brought and the server refuses is reported to the caller without a second request."""
        with pytest.raises(RequestRefused):
            drive(Walk(BY_CREATION.at(after="A")), replay(REFUSED))


class TestUntil:
    """Where a walk may stop early, and where not."""

    @pytest.mark.parametrize("limit", [1, 7, 100])
    @pytest.mark.parametrize("place", mostly_slow([0, 100, 249, 1, 99, 125, 248], quick=3))
    @pytest.mark.parametrize("query", [BY_CREATION, NEWEST_FIRST], ids=["oldest first", "newest first"])
    @pytest.mark.parametrize("sorting", [("createdAt", "id"), ("createdAt",)], ids=["strict", "created"])
    def test_stops_soon_after(self, query: Query, place: int, limit: int, sorting: tuple[str, ...]) -> None:
        """All jobs up to and including the key are read, and at most a page more."""
        sandbox = sandbox_of(max_limit=limit, sorting=sorting)
        ordered = sorted(keys_of(sandbox), reverse=query.descending)
        walk = Walk(query, until=ordered[place])
        trip = drive(walk, ask(sandbox))
        assert set(ordered[: place + 1]) <= set(trip.keys)
        assert walk.ended == ("until" if len(trip.keys) < 250 else walk.ended)
        assert len(trip.keys) <= place + 1 + 2 * min(limit, 100)

    @pytest.mark.parametrize("query", [BY_CREATION, NEWEST_FIRST], ids=["oldest first", "newest first"])
    @pytest.mark.parametrize("sorting", [("createdAt", "id"), ("createdAt",)], ids=["strict", "created"])
    def test_an_instant_takes_all_its_ties(self, query: Query, sorting: tuple[str, ...]) -> None:
        """With an instant as the key, all jobs of that instant are read, however pages split them."""
        sandbox = sandbox_of(jobs=50, max_limit=3, sorting=sorting)
        moment = sandbox.world.now.replace(hour=0, year=2026, month=10, day=1)
        for _ in range(20):
            sandbox.world.insert(moment)
        instant = moment.strftime("%Y-%m-%dT%H:%M:%S")
        walk = Walk(query, until=(instant, ""))
        trip = drive(walk, ask(sandbox))
        wanted = {k for k in keys_of(sandbox) if (k[0] >= instant if query.descending else k[0] < instant)}
        assert wanted <= set(trip.keys)
        assert len(trip.keys) < 70
        assert walk.ended == "until"

    @pytest.mark.parametrize(
        "rules",
        [
            {"sorting": ()},
            {"sorting": (), "unsortable": "lie"},
            {"sorting": (), "unsortable": "ignore", "echo": "bare"},
        ],
        ids=str,
    )
    def test_never_stops_without_proven_order(self, rules: dict[str, Any]) -> None:
        """F24: without proven order the walk reads to the end."""
        sandbox = sandbox_of(**rules)
        walk = Walk(NEWEST_FIRST, until=keys_of(sandbox)[-2])
        assert len(drive(walk, ask(sandbox)).keys) == 250
        assert walk.ended == "end"

    def test_order_that_breaks_on_the_way(self) -> None:
        """A page out of order removes the stop: the walk reads to the end."""
        orders: dict[str, Any] = {"sorting_order": ("DESC", "DESC")}
        walk = Walk(NEWEST_FIRST, until=key(5))
        trip = drive(
            walk,
            replay(page(9, 8, **orders), page(3, 7, cursor="B", **orders), page(1, cursor=None, **orders)),
        )
        assert len(trip.keys) == 5
        assert walk.ended == "end"

    @pytest.mark.parametrize("descending", [False, True])
    def test_ties_in_unknown_order_are_read_on(self, descending: bool) -> None:  # noqa: FBT001 - a case
        """If only createdAt is proven, the walk stops strictly after the key's instant."""
        order = "DESC" if descending else "ASC"
        echo: dict[str, Any] = {"sorting_keys": ("createdAt",), "sorting_order": (order,)}
        tied = [(key(5)[0], key(n)[1]) for n in ((1, 4, 2) if descending else (7, 4, 6))]
        pages = [page(cursor="A" * (n + 1), rows=1, keys=(k,), **echo) for n, k in enumerate(tied)]
        beyond = page(3 if descending else 8, cursor="B", **echo)
        walk = Walk(NEWEST_FIRST if descending else BY_CREATION, until=tied[0])
        assert drive(walk, replay(*pages, beyond)).keys == [*tied, *beyond.keys]
        assert (walk.order, walk.ended) == ("created", "until")

    def test_rows_without_keys_do_not_stop_it(self) -> None:
        """Pages without usable keys do not stop the walk."""
        walk = Walk(BY_CREATION, until=key(5))
        drive(walk, replay(page(1, 2), page(cursor="B", rows=3), page(cursor="C"), page(6, cursor="D")))
        assert (walk.ended, walk.checkpoint.unkeyed, walk.checkpoint.pages) == ("until", 3, 4)


class TestLostCursors:
    """The recovery when the server refuses its own cursor."""

    @pytest.mark.parametrize("limit", [1, 3, 7, 20, 100])
    @pytest.mark.parametrize("number", [2, 3, 5])
    @pytest.mark.parametrize("query", [BY_CREATION, NEWEST_FIRST], ids=["oldest first", "newest first"])
    def test_f16_lost_once(self, query: Query, number: int, limit: int) -> None:
        """F16: in proven order the walk continues from an overlapping offset and counts nothing twice."""
        sandbox = sandbox_of(f"{number}:lostcursor", jobs=max(60, 6 * limit), max_limit=limit)
        walk = Walk(query)
        trip = drive(walk, ask(sandbox))
        assert sorted(set(trip.keys)) == keys_of(sandbox)
        assert walk.distinct == len(keys_of(sandbox))
        assert (walk.order, walk.anchors, walk.restarts) == ("strict", 1, 0)
        assert len(trip.keys) - len(set(trip.keys)) <= max(1, limit // 2)

    @pytest.mark.parametrize("limit", [2, 3, 20, 100])
    def test_f16_every_cursor_lost(self, limit: int) -> None:
        """F16: a server that refuses all of its cursors is read by overlapping offsets."""
        sandbox = sandbox_of("*:lostcursor", max_limit=limit)
        walk = Walk(BY_CREATION)
        trip = drive(walk, ask(sandbox))
        assert sorted(set(trip.keys)) == keys_of(sandbox)
        assert walk.distinct == 250
        assert walk.restarts == 0

    @pytest.mark.parametrize(
        ("rules", "anchors"),
        [
            ({"max_limit": 1}, 3),
            ({"offsets": "refuse"}, 2),
            ({"sorting": ()}, 0),
            ({"sorting": ("createdAt",)}, 0),
        ],
        ids=str,
    )
    def test_f16_no_way_forward(self, rules: dict[str, Any], anchors: int) -> None:
        """F16: without usable cursors and offsets the walk starts over once, then gives 76."""
        walk = Walk(BY_CREATION)
        with pytest.raises(CursorRefused, match="again after starting over"):
            drive(walk, ask(sandbox_of("*:lostcursor", **rules)))
        assert (walk.restarts, walk.anchors) == (1, anchors)

    def test_f16_looks_three_times(self) -> None:
        """F16: a position is looked for further back three times; then the walk starts over."""
        start, beyond = BY_CREATION.at(offset=500), page(8, 9, cursor="Z")
        walk = Walk(start)
        full = page(*range(10), cursor=None)
        answers: list[PageInfo | RequestRefused] = [
            page(1, 2, cursor="A"),
            page(3, 4, cursor="B"),
            REFUSED,
            beyond,
            beyond,
            beyond,
            full,
        ]
        trip = drive(walk, replay(*answers))
        assert [asked.offset for asked in trip.asked[3:]] == [503, 499, 479, 500]
        assert trip.stray == [False, False, True, True, True, False]
        assert (walk.anchors, walk.restarts, walk.order) == (1, 1, "strict")

    @pytest.mark.parametrize(
        "rules",
        [{"sorting": ()}, {"sorting": ("createdAt",)}, {"offsets": "refuse"}],
        ids=str,
    )
    def test_f16_starts_over_once(self, rules: dict[str, Any]) -> None:
        """F16: without proven order or offsets the walk starts over once; the second time gives 76."""
        sandbox = sandbox_of("5:lostcursor", jobs=450, **rules)
        walk = Walk(BY_CREATION)
        trip = drive(walk, ask(sandbox))
        assert sorted(set(trip.keys)) == keys_of(sandbox)
        assert walk.restarts == 1
        assert walk.distinct in (None, 450)
        with pytest.raises(CursorRefused):
            drive(Walk(BY_CREATION), ask(sandbox_of("5:lostcursor,9:lostcursor", jobs=450, **rules)))

    def test_f16_filtered_lists_start_over(self) -> None:
        """F16: a filtered list is not entered by offset; it starts over up to five times if allowed."""
        query = replace(BY_CREATION, statuses=("completed",), limit=50)
        for times, fits in ((5, True), (6, False)):
            sandbox = sandbox_of(",".join(f"{2 + 2 * n}:lostcursor" for n in range(times)))
            walk = Walk(query, restarts=5)
            if fits:
                trip = drive(walk, ask(sandbox))
                assert not any(asked.offset for asked in trip.asked)
            else:
                with pytest.raises(CursorRefused):
                    drive(walk, ask(sandbox))
            assert (walk.anchors, walk.restarts) == (0, 5)

    @pytest.mark.parametrize("query", [BY_CREATION, NEWEST_FIRST], ids=["oldest first", "newest first"])
    def test_rows_that_vanish_under_their_cursor(self, query: Query) -> None:
        """Every job that stays is read, even if the last row of each page is deleted with its cursor."""
        sandbox = sandbox_of(jobs=120, max_limit=10, cursors="row")
        answer, gone = ask(sandbox), set[str]()

        def answer_and_delete(asked: Query) -> PageInfo:
            info = answer(asked)
            if info.has_next and info.keys:
                sandbox.world.remove(info.keys[-1][1])
                gone.add(info.keys[-1][1])
            return info

        walk = Walk(query)
        trip = drive(walk, answer_and_delete)
        assert {k for k in keys_of(sandbox) if k[1] not in gone} <= set(trip.keys)
        assert walk.anchors >= 3
        assert walk.restarts == 0

    @pytest.mark.parametrize("deleted", [5, 60, 140])
    def test_an_offset_beyond_the_edge_is_no_way_on(self, deleted: int) -> None:
        """A page by offset that leaves a gap is stray, and the walk looks further back."""
        sandbox = sandbox_of(jobs=400, max_limit=20, cursors="row")
        answer = ask(sandbox)
        ordered = keys_of(sandbox)

        def answer_and_delete(asked: Query) -> PageInfo:
            info = answer(asked)
            if len(sandbox.requests) == 10:
                for _, name in ordered[199 : 199 - deleted : -1]:
                    sandbox.world.remove(name)
            return info

        walk = Walk(BY_CREATION)
        trip = drive(walk, answer_and_delete)
        assert set(keys_of(sandbox)) <= set(trip.keys)
        assert any(trip.stray) is (deleted > 10)
        edge = ("", "")
        # Pages that belong to the walk leave no gap.
        for info, stray in zip(trip.got, trip.stray, strict=True):
            if not stray and info.keys:
                between = [k for k in keys_of(sandbox) if edge < k < info.keys[0]]
                assert between == []
                edge = max(edge, info.keys[-1])

    def test_offsets_that_are_ignored(self) -> None:
        """If offsets are ignored, the walk continues from the start of the list."""
        sandbox = sandbox_of("4:lostcursor", jobs=450, offsets="ignore")
        walk = Walk(BY_CREATION)
        trip = drive(walk, ask(sandbox))
        assert sorted(set(trip.keys)) == keys_of(sandbox)
        assert walk.distinct == 450

    def test_an_offset_into_another_order_is_no_way_on(self) -> None:
        """A page by offset out of order proves no overlap: the walk starts over."""
        walk = Walk(BY_CREATION)
        odd = page(1, 9, cursor="Z", sorting_keys=(), sorting_order=())
        trip = drive(
            walk,
            replay(
                page(1, 2, cursor="A"), page(3, 4, cursor="B"), REFUSED, odd, page(*range(8), cursor=None)
            ),
        )
        assert trip.stray == [False, False, True, False]
        assert trip.asked[-1] == BY_CREATION
        assert (walk.restarts, walk.order) == (1, "none")

    def test_rows_without_keys_are_counted_once(self) -> None:
        """Rejected rows that a rewound walk re-reads count once; after starting over they count again."""
        odd = [page(n, cursor=name, rows=2) for n, name in ((1, "A"), (2, "B"), (3, "C"), (4, "D"))]
        last = page(5, cursor=None, rows=2)
        walk = Walk(BY_CREATION)
        drive(walk, replay(*odd, REFUSED, odd[2], page(4, cursor="E", rows=2), last))
        assert (walk.distinct, walk.checkpoint.unkeyed, walk.anchors) == (5, 5, 1)
        walk = Walk(replace(BY_CREATION, statuses=("failed",)))
        drive(walk, replay(*odd, REFUSED, *odd, last))
        assert (walk.distinct, walk.checkpoint.unkeyed, walk.restarts) == (5, 5, 1)
        walk = Walk(BY_CREATION)
        drive(
            walk,
            replay(
                *odd,
                REFUSED,
                odd[3],
                replace(last, has_next=True, end_cursor="G"),
                page(cursor="F", rows=4),
                page(cursor=None, rows=1),
            ),
        )
        assert (walk.distinct, walk.checkpoint.unkeyed) == (5, 10)

    def test_segments_go_back_within_themselves(self) -> None:
        """A walk that began at an offset rewinds relative to it."""
        sandbox = sandbox_of("3:lostcursor", jobs=600)
        walk = Walk(BY_CREATION.at(offset=300))
        trip = drive(walk, ask(sandbox))
        assert sorted(set(trip.keys)) == keys_of(sandbox)[300:]
        assert [asked.offset for asked in trip.asked if asked.offset] == [300, 450]
        assert walk.distinct == 300

    def test_a_walk_from_a_cursor_is_not_sent_before_it(self) -> None:
        """A walk from the caller's cursor starts over there, not at the list's start."""
        sandbox = sandbox_of("4:lostcursor", jobs=600)
        start = ask(sandbox)(BY_CREATION).end_cursor
        walk = Walk(BY_CREATION.at(after=start))
        trip = drive(walk, ask(sandbox))
        assert sorted(set(trip.keys)) == keys_of(sandbox)[100:]
        assert (walk.anchors, walk.restarts) == (0, 1)

    def test_loops_are_loops_after_a_way_back_too(self) -> None:
        """After a rewind cursors may repeat once, and later loops are still found."""
        walk = Walk(BY_CREATION)
        answers: list[PageInfo | RequestRefused] = [
            page(1, 2, cursor="A"),
            page(3, 4, cursor="B"),
            REFUSED,
            page(4, 5, cursor="B"),
            page(6, cursor="B"),
        ]
        with pytest.raises(WalkError, match="loop at page 4: endCursor 'B'"):
            drive(walk, replay(*answers))


class TestMarks:
    """Checkpoints of a walk."""

    @pytest.mark.parametrize(
        "rules",
        [
            {},
            {"sorting": ("createdAt",)},
            {"sorting": ()},
            {"sorting": (), "unsortable": "ignore"},
            {"echo": "bare"},
        ],
        ids=str,
    )
    @pytest.mark.parametrize("pages", [1, 2, 5])
    def test_goes_on_where_it_stood(self, rules: dict[str, Any], pages: int) -> None:
        """A walk resumes from its checkpoint with the next page, the accepted sorting and its counts."""
        sandbox = sandbox_of(max_limit=40, **rules)
        first = Walk(BY_CREATION)
        before = drive(first, ask(sandbox), pages=pages)
        second = Walk(BY_CREATION, checkpoint=first.checkpoint)
        after = drive(second, ask(sandbox))
        assert sorted([*before.keys, *after.keys]) == keys_of(sandbox)
        assert (second.checkpoint.rows, second.checkpoint.pages) == (250, 7)
        assert second.order == first.order
        assert second.distinct == (250 if second.order == "strict" else None)
        assert len(after.asked) == 7 - pages

    def test_nothing_left(self) -> None:
        """The checkpoint of a finished walk asks for nothing."""
        sandbox = sandbox_of()
        walk = Walk(BY_CREATION)
        drive(walk, ask(sandbox))
        again = Walk(BY_CREATION, checkpoint=walk.checkpoint)
        assert drive(again, ask(sandbox)).asked == []
        assert (again.ended, again.distinct) == ("end", 250)

    def test_what_was_known_is_known(self) -> None:
        """A resumed walk keeps totals, first and newest key, and the order across the pause."""
        first = Walk(BY_CREATION)
        drive(first, replay(page(1, 2, cursor="A", total=9), page(3, cursor="B", total=8)), pages=2)
        second = Walk(BY_CREATION, checkpoint=first.checkpoint)
        drive(second, replay(page(4, cursor=None, total=7)))
        assert second.checkpoint.totals == (9, 7)
        assert (second.checkpoint.first, second.checkpoint.newest, second.checkpoint.furthest) == (
            key(1),
            key(4),
            key(4),
        )
        assert second.understood == (("createdAt", "id"), ("ASC", "ASC"), 100)
        broken = Walk(BY_CREATION, checkpoint=first.checkpoint)
        drive(broken, replay(page(3, 4, cursor=None)))
        assert (broken.order, broken.distinct) == ("created", None)

    def test_journals_of_older_versions_are_read(self) -> None:
        """A journal spells the fields of a checkpoint as the first release did, which had only these."""
        walk = Walk(BY_CREATION)
        drive(walk, replay(page(1, 2, cursor="A", total=9)), pages=1)
        spelled: dict[str, Any] = msgspec.to_builtins(walk.checkpoint)
        old = {
            name: spelled.pop(name)
            for name in (
                "first",
                "edge",
                "newest",
                "cursor",
                "at_end",
                "order",
                "pages",
                "rows",
                "new",
                "unkeyed",
                "totals",
            )
        }
        assert spelled == {
            "sorting": 2,
            "base": 0,
            "moves": (0, 0),
            "repeated": 0,
            "ties": (key(2)[1],),
            "hope": "strict",
            "told": True,
            "in_order": 2,
            "limit": SAFE,
        }
        again = Walk(BY_CREATION, checkpoint=msgspec.convert(old, Checkpoint))
        drive(again, replay(page(3, cursor=None, total=9)))
        assert (again.order, again.distinct, again.checkpoint.first) == ("strict", 3, key(1))

    def test_without_a_cursor(self) -> None:
        """A checkpoint without a usable cursor restarts the walk, which counts nothing twice."""
        sandbox = sandbox_of(max_limit=40)
        first = Walk(BY_CREATION)
        drive(first, ask(sandbox), pages=3)
        for stored in (
            Walk(BY_CREATION).checkpoint,
            msgspec.structs.replace(first.checkpoint, cursor=None),
            msgspec.structs.replace(first.checkpoint, cursor="?"),
        ):
            second = Walk(BY_CREATION, checkpoint=stored)
            trip = drive(second, ask(sandbox))
            assert trip.asked[0] == BY_CREATION
            assert sorted(trip.keys) == keys_of(sandbox)
            assert (second.order, second.distinct) == ("strict", 250)

    def test_the_cursor_is_gone_meanwhile(self) -> None:
        """If the checkpoint's cursor is refused, the walk continues near its position."""
        sandbox = sandbox_of(jobs=600, max_limit=40)
        first = Walk(BY_CREATION.at(offset=200))
        before = drive(first, ask(sandbox), pages=4)
        sandbox.faults = sandbox_of("5:lostcursor").faults
        second = Walk(BY_CREATION, checkpoint=first.checkpoint)
        after = drive(second, ask(sandbox))
        assert sorted({*before.keys, *after.keys}) == keys_of(sandbox)[200:]
        assert second.distinct == 400
        assert after.asked[1].offset in range(340, 360)


class Shelf:
    """A small list that changes: a server as one function of the query."""

    def __init__(self, jobs: Iterable[int], *, cap: int, dies: bool) -> None:
        self.jobs = sorted(map(key, jobs))
        self.always = set(self.jobs)
        self.cap = cap
        self.dies = dies
        self.names: dict[str, Key] = {}

    def __call__(self, query: Query) -> PageInfo:
        """Return a page."""
        rows = sorted(self.jobs, reverse=query.descending)
        start = query.offset or 0
        if query.after is not None:
            at = self.names[query.after]
            if self.dies and at not in self.jobs:
                raise REFUSED
            ranks = self.jobs
            start = len(ranks) - bisect_left(ranks, at) if query.descending else bisect_right(ranks, at)
        keys = tuple(rows[start : start + self.cap])
        more = start + len(keys) < len(rows)
        return PageInfo(
            rows=len(keys),
            keys=keys,
            has_next=more,
            end_cursor=self.name(keys[-1]) if keys else None,
            total=len(rows),
            sorting_keys=tuple(query.sorting_keys),
            sorting_order=tuple(map(str, query.sorting_order)),
        )

    def name(self, at: Key) -> str:
        """Return the cursor of a row."""
        cursor = b32encode(at[1][:8].encode()).decode()
        self.names[cursor] = at
        return cursor

    def change(self, number: int) -> None:
        """Add or remove the n-th job."""
        if key(number) in self.jobs:
            self.jobs.remove(key(number))
            self.always.discard(key(number))
        else:
            insort(self.jobs, key(number))


CURSORS = st.sampled_from(["A", "B", "C", "AA", "", "a", "not a cursor", None])
PAGES = st.one_of(
    st.none(),
    st.builds(
        lambda keys, extra, has_next, has_previous, end, start, total, echo: PageInfo(
            rows=len(keys) + extra,
            keys=tuple(map(key, keys)),
            has_next=has_next,
            has_previous=has_previous,
            end_cursor=end,
            start_cursor=start,
            total=total,
            sorting_keys=echo and ("createdAt", "id"),
            sorting_order=echo and ("ASC", "ASC"),
        ),
        st.lists(st.integers(0, 40), max_size=3),
        st.integers(0, 2),
        st.sampled_from([True, True, True, False]),
        st.sampled_from([True, True, None, False]),
        CURSORS,
        CURSORS,
        st.none() | st.integers(-5, 50),
        st.sampled_from([True, None]),
    ),
)


class TestAnyServer:
    """Servers that Hypothesis invents."""

    @given(
        st.dictionaries(st.sampled_from(["", "A", "B", "C", "AA"]), st.lists(PAGES, min_size=1, max_size=4)),
        st.lists(PAGES, min_size=1, max_size=6),
        st.integers(0, 3),
        st.none() | st.integers(0, 40),
        st.booleans(),
    )
    def test_a_walk_always_ends(
        self,
        graph: dict[str, list[PageInfo | None]],
        otherwise: list[PageInfo | None],
        restarts: int,
        until: int | None,
        filtered: bool,  # noqa: FBT001 - drawn
    ) -> None:
        """Any pages, cursors and refusals end within bounds, and every query is valid."""
        turns: dict[str, int] = {}

        def answer(query: Query) -> PageInfo:
            place = query.after or ""
            row = graph.get(place, otherwise) if query.offset is None else otherwise
            turns[place] = turns.get(place, -1) + 1
            info = row[turns[place] % len(row)]
            if info is None:
                raise REFUSED
            return info

        query = replace(BY_CREATION, statuses=("failed",)) if filtered else BY_CREATION
        walk = Walk(query, restarts=restarts, until=None if until is None else key(until))
        trip = Trip()

        def note(asked: Query) -> PageInfo:
            trip.asked.append(asked)
            return answer(asked)

        error: Exception | None = None
        try:
            drive(walk, note, most=1_000)
        except (WalkError, RequestRefused) as exc:
            error = exc
        assert (walk.ended in ("end", "until")) is (error is None)
        assert error is None or str(error).isprintable()
        for asked in trip.asked:
            assert asked.after is None or is_cursor(asked.after)
            assert asked.before is None
            assert asked.offset is None or asked.offset >= 0

    @given(
        jobs=st.sets(st.integers(0, 120), max_size=60),
        cap=st.integers(1, 12),
        descending=st.booleans(),
        dies=st.booleans(),
        lost=st.sets(st.integers(2, 40), max_size=6),
        changes=st.dictionaries(st.integers(1, 30), st.lists(st.integers(0, 120), max_size=6), max_size=8),
        until=st.none() | st.integers(0, 120),
    )
    @example(
        jobs=set(range(40)),
        cap=4,
        descending=False,
        dies=True,
        lost={5},
        changes={4: [15, 14, 13, 12, 11, 10, 9]},
        until=None,
    )
    @settings(max_examples=300)
    def test_what_stays_is_read(  # noqa: PLR0917 - drawn
        self,
        jobs: set[int],
        cap: int,
        descending: bool,  # noqa: FBT001 - drawn
        dies: bool,  # noqa: FBT001 - drawn
        lost: set[int],
        changes: dict[int, list[int]],
        until: int | None,
    ) -> None:
        """While jobs come and go and cursors are refused, every job that stays is read, or the walk gives 76.

        A job counts as new by its position alone: the pages that belong to the walk leave no gap.

        """
        shelf, requests = Shelf(jobs, cap=cap, dies=dies), 0

        def answer(query: Query) -> PageInfo:
            nonlocal requests
            requests += 1
            for number in changes.get(requests, []):
                shelf.change(number)
            if requests in lost and query.after is not None:
                raise REFUSED
            return shelf(query)

        line = None if until is None else key(until)
        walk = Walk(NEWEST_FIRST if descending else BY_CREATION, until=line)
        try:
            trip = drive(walk, answer)
        except CursorRefused:
            return
        wanted = shelf.always & set(map(key, jobs))
        if walk.ended == "until":
            assert line is not None
            wanted = {k for k in wanted if (k >= line if descending else k <= line)}
        assert wanted <= set(trip.keys)
        new, edge = set[Any](), None
        for info, stray in zip(trip.got, trip.stray, strict=True):
            for k in () if stray else info.keys:
                if edge is None or (k < edge if descending else k > edge):
                    new.add(k)
                    edge = k
        assert walk.order == "strict"
        assert wanted <= new
        assert walk.checkpoint.furthest == edge

    @given(
        st.sets(st.integers(0, 500), max_size=80), st.integers(1, 20), st.sets(st.integers(2, 60), max_size=5)
    )
    def test_distinct_counts_jobs(self, jobs: set[int], cap: int, lost: set[int]) -> None:
        """On a constant list `distinct` equals the number of jobs, however often a cursor was lost."""
        shelf, requests = Shelf(jobs, cap=cap, dies=False), 0

        def answer(query: Query) -> PageInfo:
            nonlocal requests
            requests += 1
            if requests in lost and query.after is not None:
                raise REFUSED
            return shelf(query)

        walk = Walk(BY_CREATION, restarts=9)
        drive(walk, answer)
        assert walk.distinct == len(jobs)
        assert walk.checkpoint.totals == (len(jobs), len(jobs))


class TestTotals:
    """The meaning of the totals."""

    @pytest.mark.parametrize(
        ("reported", "taken"),
        [
            ([5, 6, 7], (5, 7)),
            ([None, 6, None], (6, 6)),
            ([None, None, None], (None, None)),
            ([-1, -1, -1], (None, None)),
            ([5, -1, 4], (5, 4)),
            ([0, 0, 0], (0, 0)),
        ],
    )
    def test_f20_first_and_last(
        self, reported: Sequence[int | None], taken: tuple[int | None, int | None]
    ) -> None:
        """F20: the first and the last total are kept; missing and negative ones are ignored."""
        walk = Walk(BY_CREATION)
        pages = [page(n, cursor="A" * (n + 1), total=total) for n, total in enumerate(reported)]
        drive(walk, replay(*pages[:-1], replace(pages[-1], has_next=False)))
        assert walk.checkpoint.totals == taken

    @pytest.mark.parametrize(
        ("distinct", "totals", "previous", "name", "again"),
        [
            (10, (10, 10), None, "complete", False),
            (10, (None, None), None, "complete", False),
            (0, (0, 0), None, "complete", False),
            (10, (10, None), None, "complete", False),
            (10, (None, 10), None, "complete", False),
            (11, (10, 12), None, "complete_with_drift", False),
            (11, (12, 10), None, "complete_with_drift", True),
            (11, (12, 10), 11, "complete_with_drift", False),
            (12, (12, 10), None, "complete_with_drift", False),
            (10, (10, 12), None, "complete_with_drift", False),
            (13, (10, 12), None, "complete_with_drift", False),
            (11, (10, 10), None, "complete_with_drift", False),
            (9, (10, 12), None, "incomplete", True),
            (9, (12, 10), None, "incomplete", True),
            (9, (10, None), None, "incomplete", True),
            (9, (10, 10), 9, "complete_with_drift", False),
            (9, (10, 10), 8, "incomplete", False),
            (9, (10, 10), 10, "incomplete", False),
            (10, (10, 10), 9, "complete", False),
        ],
    )
    def test_f20_f21_judge(
        self,
        distinct: int,
        totals: tuple[int | None, int | None],
        previous: int | None,
        name: Any,
        again: bool,  # noqa: FBT001 - a case
    ) -> None:
        """F20, F21: fewer jobs than the totals, or a total that fell, ask for one more pass.

        If the second pass has the same jobs, `total` is untrusted.

        """
        verdict = decide_verdict(distinct, totals, previous=previous)
        assert (verdict.name, verdict.again) == (name, again)
        assert bool(verdict.why) is (verdict != Verdict("complete"))
        assert ("total_untrusted" in verdict.why) is (
            previous == distinct < min(filter(None, totals), default=0)
        )

    @pytest.mark.parametrize(
        ("distinct", "moves", "meets_arrivals", "again"),
        [
            (11, (2, 0), True, True),
            (11, (2, 0), False, False),
            (12, (2, 0), True, False),
            (12, (3, 1), True, True),
            (13, (3, 1), True, False),
        ],
    )
    def test_f23_a_walk_that_meets_arrivals_has_the_last_total(
        self,
        distinct: int,
        moves: tuple[int, int],
        meets_arrivals: bool,  # noqa: FBT001 - a case
        again: bool,  # noqa: FBT001 - a case
    ) -> None:
        """In ascending order fewer jobs than a total that only grew ask for one more pass."""
        verdict = decide_verdict(distinct, (10, 12), moves=moves, meets_arrivals=meets_arrivals)
        assert (verdict.name, verdict.again) == ("complete_with_drift", again)

    @given(
        st.integers(0, 20),
        st.none() | st.integers(0, 20),
        st.none() | st.integers(0, 20),
        st.none() | st.integers(0, 20),
    )
    def test_a_second_pass_is_the_last(
        self, distinct: int, first: int | None, last: int | None, previous: int | None
    ) -> None:
        """Only the first pass is followed by another, and an incomplete walk is never complete."""
        verdict = decide_verdict(distinct, (first, last), previous=previous)
        known = [total for total in (first, last) if total is not None]
        assert not (verdict.again and previous is not None)
        if known and distinct < min(known) and distinct != previous:
            assert verdict.name == "incomplete"
        else:
            assert verdict.name != "incomplete"


def test_the_standard_walks() -> None:
    """Both walks sort by createdAt, then id: ascending to read all, descending and from a small page on to stop early."""
    assert BY_CREATION.params() == [
        ("limit", "1000"),
        ("sorting_keys", "createdAt"),
        ("sorting_keys", "id"),
        ("sorting_order", "ASC"),
        ("sorting_order", "ASC"),
    ]
    assert [value for name, value in NEWEST_FIRST.params() if name == "sorting_order"] == ["DESC", "DESC"]
    assert NEWEST_FIRST.limit == SAFE
    assert all(early < late for early, late in pairwise(map(key, range(500))))
