"""What to ask next: a walk over the list, as a generator that yields queries and receives PageInfo.

    walk = Walk(Query(sorting_keys=("createdAt", "id"), sorting_order=("ASC", "ASC"), limit=100))
    steps = walk.steps()
    query = next(steps)
    while True: query = steps.send(info_of(query))     # or steps.throw(RequestRefused(...)) for a 400

The caller does all sending and waiting. When the generator ends, the walk is over; its attributes say what was
seen and what that proves. A server that breaks the contract raises WalkError, which names page and field.

Order is believed only as far as it is proven, by the echo and by every row: see `order`. `strict` (createdAt, then id,
each row after the one before), `created` (createdAt never runs back; ties in unknown order) or `none`. A walk that is
not in proven order still goes to its end.

Rules of this room: no clock, no randomness, no I/O.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from pleo_extract.contract import Key, PageInfo, PageOrder, Query, is_cursor
from pleo_extract.core.order import Order, Proof
from pleo_extract.errors import CursorRefused, RequestRefused, WalkError, escape

if TYPE_CHECKING:
    from collections.abc import Generator
__all__ = [
    "BY_CREATION",
    "NEWEST_FIRST",
    "PAGE_SIZE",
    "Checkpoint",
    "Walk",
    "Way",
]
PAGE_SIZE: Final = 100
"""Rows asked for; the largest page that clients of a sibling endpoint have seen."""
MAX_PAGES: Final = 1_000_000
EMPTY_PAGES: Final = 10
"""Empty pages in a row after which a walk ends in an error."""
ANCHOR_TRIES: Final = 3
"""How often to look for the place reached, without a new job, before starting over."""
LONGEST_CURSOR: Final = 8_192
"""Characters; a longer one fits no URL that servers take."""
Way = Literal["after", "before", "offset"]
_BY: Final = ("createdAt", "id")
BY_CREATION: Final = Query(limit=PAGE_SIZE, sorting_keys=_BY, sorting_order=(PageOrder.ASC, PageOrder.ASC))
"""The full walk: new jobs land at its end."""
NEWEST_FIRST: Final = replace(BY_CREATION, sorting_order=(PageOrder.DESC, PageOrder.DESC))
"""The walk that can stop early."""


class Walk:
    """One walk over the list, and what it has seen.

    Attributes:
        pages, rows: read so far; `rows` counts every row received.
        order: what is proven so far, ``strict``, ``created`` or ``none``.
        distinct: different jobs read, known while the order is strict; None otherwise.
        unkeyed: rows without a usable key; they count as read.
        first_total, last_total: `total` as first and last told, None when absent.
        understood: the sorting keys, orders and limit that the server echoed on the first page.
        ended: ``end`` (hasNextPage was false) or ``until`` (the key that ends the walk was passed); None while under way.
        until: the key that ends the walk, in walking direction; it may be set while the walk is under way.
        first, edge, newest: the first key read, the one furthest along the walk, the one created last.
        restarts, anchors: how often a refused cursor sent the walk back to its start, or to an offset near its edge.
        stray: the page received last lies beyond a gap, and is no part of the walk: its rows will come again.
    """

    def __init__(
        self,
        query: Query,
        *,
        until: Key | None = None,
        way: Way = "after",
        max_pages: int = MAX_PAGES,
        restarts: int = 1,
        mark: Checkpoint | None = None,
    ) -> None:
        """Prepare a walk.

        Args:
            query: the first query; its sorting is what order is proven against.
            until: a key in walking direction; the walk may end with the page that reaches it, if order is proven.
            way: which of the contract's ways of paging to follow.
            max_pages: a cap; a list that is longer ends in an error.
            restarts: how often a refused cursor may send the walk back to its start.
            mark: where an earlier walk of the same query stood; this one goes on from there.
        """
        self.query = query
        self.way = way
        self.pages = 0
        self.rows = 0
        self.unkeyed = 0
        self.first_total: int | None = None
        self.last_total: int | None = None
        self.understood: tuple[tuple[str, ...] | None, tuple[str, ...] | None, int | None] = (
            None,
            None,
            None,
        )
        self.ended: Literal["end", "until"] | None = None
        self.edge: Key | None = None
        self.restarts = 0
        self.anchors = 0
        self.stray = False
        self._proof = Proof(query)
        self._new = 0
        self._prior: Key | None = None
        self.until = until
        self.first: Key | None = None
        self.newest: Key | None = None
        self._cursor: str | None = None
        self._has_gone_on = False
        self._max_pages = max_pages
        self._restarts_left = restarts
        self._anchoring = 0
        self._base = query.offset or 0
        self._largest = 0
        self._reread: Key | None = None
        self._stuck_at: tuple[Key | None, int] = (None, 0)
        self._empty = 0
        self._same: tuple[tuple[Key, ...], int] = ((), 0)
        self._seen: set[str] = set()
        if mark is not None:
            self._resume(mark)

    @property
    def order(self) -> Order:
        """The order that is proven so far; a list that ended before there were rows enough is proven by its end."""
        return self._proof.hope if self._proof.is_enough or self.ended == "end" else "none"

    @property
    def hope(self) -> Order:
        """The order that nothing has contradicted so far, whether or not there were rows enough to prove it."""
        return self._proof.hope

    @property
    def distinct(self) -> int | None:
        """Different jobs read so far, where the order proves it."""
        return self._new if self.order == "strict" else None

    def steps(self) -> Generator[Query, PageInfo, None]:
        """The walk itself.

        Raises:
            WalkError: a loop, a missing or malformed cursor, a foreign row, empty pages without end, too many pages.
            RequestRefused: a query without a cursor was refused and there is no simpler one.
        """
        query = self.query
        if self._has_gone_on:  # resumed
            if self.is_over:
                return
            query = self._go_on()
        while True:
            try:
                info = yield query
            except RequestRefused as refusal:
                query = self._mend(query, refusal)
                continue
            self.pages += 1
            self.rows += info.rows
            self._guard(query, info)
            self._proof.weigh(self.query, info, self._prior)
            self.stray = self._anchoring > 0 and not self._overlaps(query, info)
            if self.stray:
                query = self._anchor()
                continue
            if self._anchoring:
                self._learn_place(query, info)
            self._take(info)
            if self._is_over(info):
                return
            query = self._next(query, info)

    def _take(self, info: PageInfo) -> None:
        if self.understood == (None, None, None):
            self.understood = (info.sorting_keys, info.sorting_order, info.limit)
        if info.total is not None and info.total >= 0:
            self.first_total = info.total if self.first_total is None else self.first_total
            self.last_total = info.total
        if not self._is_read_again(info):
            self.unkeyed += info.rows - len(info.keys)
            self._reread = None
        self._anchoring = 0
        self._largest = max(self._largest, info.rows)
        if info.keys:
            self._new += self._count_new(info.keys)
            self.first = info.keys[0] if self.first is None else self.first
            self._prior = info.keys[-1]
            ends = (info.keys[0], info.keys[-1]) if self._proof.hope == "strict" else info.keys
            self.newest = max(ends) if self.newest is None else max(self.newest, *ends)
            furthest = min if self.query.descending else max
            known = ends if self.edge is None else (self.edge, *ends)
            self.edge = furthest(known, key=self._proof.place)

    def _guard(self, query: Query, info: PageInfo) -> None:
        foreign = (
            {name.lower() for name in info.companies} - {query.company_id} if query.company_id else set()
        )
        if foreign:
            raise WalkError(
                f"page {self.pages} holds a row of company {escape(min(foreign))!r} although company_id "
                f"{query.company_id} was asked for: data[].companyId. Nothing of this walk is used"
            )
        if self.pages > self._max_pages:
            raise WalkError(f"page {self.pages}: the list goes on beyond the cap of {self._max_pages} pages")
        self._empty = 0 if info.rows else self._empty + 1
        if self._empty >= EMPTY_PAGES and self._has_more(info):
            raise WalkError(
                f"page {self.pages} is the {self._empty}th empty page in a row and hasNextPage is still true"
            )
        again = self._same[1] + 1 if info.keys and info.keys == self._same[0] else 0
        self._same = (info.keys, again)
        if self.way == "offset" and again >= EMPTY_PAGES:
            raise WalkError(
                f"page {self.pages} has the same jobs as the {again} pages before it: offset is ignored"
            )

    def _count_new(self, keys: tuple[Key, ...]) -> int:
        """How many lie beyond the edge, and before the key that ends the walk: that one is another's to count."""
        place = self._proof.place
        edge = None if self.edge is None else place(self.edge)
        until = None if self.until is None else place(self.until)
        if edge is None and (until is None or self.query.descending):
            return len(keys)
        if self._proof.hope == "strict" and not self.query.descending:
            start = 0 if edge is None else bisect_right(keys, edge, key=place)
            return max(0, (len(keys) if until is None else bisect_left(keys, until, key=place)) - start)
        if self.query.descending:
            return sum(place(key) < edge for key in keys if edge is not None)
        return sum(
            (edge is None or place(key) > edge) and (until is None or place(key) < until) for key in keys
        )

    def _has_more(self, info: PageInfo) -> bool:
        if self.way != "before":
            return info.has_next
        if info.has_previous is None:
            raise WalkError(f"page {self.pages}: hasPreviousPage is absent; a walk backwards cannot go on")
        return info.has_previous

    def _is_over(self, info: PageInfo) -> bool:
        self._has_gone_on = True
        self._cursor = info.start_cursor if self.way == "before" else info.end_cursor
        self.ended = None if self._has_more(info) else "end"
        return self.is_over

    @property
    def is_over(self) -> bool:
        """Whether the list or the part of it that is wanted has been read."""
        if self.ended is None and self._reaches_until():
            self.ended = "until"
        return self.ended is not None

    def _reaches_until(self) -> bool:
        if self.until is None or self.order == "none" or self.edge is None:
            return False
        last, until = self.edge, self.until
        if self.order == "created":  # ties stand in unknown order: read on to the first job strictly beyond
            return last[0] < until[0] if self.query.descending else last[0] > until[0]
        if self.query.descending:
            return last != until and self._proof.is_sure(last, until, at_most=True)
        return self._proof.is_sure(last, until, at_most=False)

    def _next(self, query: Query, info: PageInfo) -> Query:
        if self.way == "offset":
            return query.at(offset=(query.offset or 0) + info.rows)
        name, cursor = (
            ("startCursor", info.start_cursor) if self.way == "before" else ("endCursor", info.end_cursor)
        )
        flag = "hasPreviousPage" if self.way == "before" else "hasNextPage"
        if not is_cursor(cursor) or len(str(cursor)) > LONGEST_CURSOR:
            shown = "absent" if cursor is None else f"'{escape(cursor)}'"
            raise WalkError(
                f"page {self.pages}: {flag} is true but {name} is {shown}, not a cursor (^[A-Z2-7=~]+$); the walk cannot go on"
            )
        if cursor in self._seen:
            raise WalkError(f"loop at page {self.pages}: {name} {escape(str(cursor))!r} was given before")
        self._seen.add(str(cursor))
        return query.at(before=cursor) if self.way == "before" else query.at(after=cursor)

    def _mend(self, query: Query, refusal: RequestRefused) -> Query:
        """The next query after a 400: a simpler sorting at first, a way back for a lost cursor later."""
        if (query.after is not None or query.before is not None) and query != self.query:
            return self._return(refusal)
        if self._anchoring:  # the server takes no offsets
            return self._restart(refusal)
        if self.pages or not query.sorting_keys or query.after is not None or query.before is not None:
            raise refusal
        keys, orders = query.sorting_keys[:-1], query.sorting_order[:-1]
        self.query = replace(query, sorting_keys=keys, sorting_order=orders)
        self._proof.lower(self.query)
        return self.query

    def _return(self, refusal: RequestRefused) -> Query:
        """Where to go on when the cursor is gone: near the edge where order is proven, else at the start."""
        whole = not self.query.statuses and self.way == "after" and self.query.after is None
        edge, tries = self._stuck_at
        self._stuck_at = (self.edge, tries + 1 if edge == self.edge else 1)
        if self.order == "strict" and whole and self.edge is not None and self._stuck_at[1] <= ANCHOR_TRIES:
            self.anchors += 1
            return self._anchor()
        return self._restart(refusal)

    def _anchor(self) -> Query:
        """An offset half a page before the edge, then further back: an odd number of halves, so that other cursors come."""
        self._anchoring += 1
        self._prior = None
        self._seen.clear()
        self._reread = self.edge
        if self._anchoring > ANCHOR_TRIES or self.order != "strict":
            return self._restart(RequestRefused("no page near the place reached overlaps what was read"))
        back = max(1, self._largest // 2) * 5 ** (self._anchoring - 1)
        return self.query.at(offset=max(0, self._base + self._new + self.unkeyed - back))

    def _overlaps(self, query: Query, info: PageInfo) -> bool:
        """Whether this page leaves no gap to what was read: in strict order, its first row is none beyond the edge."""
        if self.order != "strict":
            return False
        if query.offset == 0:
            return True
        if not info.keys or self.edge is None:
            return False
        first = info.keys[0]
        return self._proof.is_sure(first, self.edge, at_most=not self.query.descending)

    def _learn_place(self, query: Query, info: PageInfo) -> None:
        """Where the edge is by now, should this page by offset reach beyond it: the next way back starts from there."""
        new = self._count_new(info.keys)
        if new:
            self._base = (query.offset or 0) + len(info.keys) - new - self._new - self.unkeyed

    def _is_read_again(self, info: PageInfo) -> bool:
        """Whether a walk that went back is not yet where it was: what has no key there was counted before."""
        if self._reread is None or not info.keys:
            return self._reread is not None
        return self._proof.is_sure(info.keys[0], self._reread, at_most=not self.query.descending)

    def _restart(self, refusal: RequestRefused) -> Query:
        if self._restarts_left <= 0:
            again = ", again after starting over" if self.restarts else ""
            raise CursorRefused(
                f"page {self.pages + 1}: the server no longer takes the cursor it gave{again}: {refusal}"
            ) from refusal
        self._restarts_left -= 1
        self.restarts += 1
        self.unkeyed = 0
        self._anchoring = 0
        self._prior = self._reread = None
        self._seen.clear()
        return self.query

    def mark(self) -> Checkpoint:
        """Where this walk stands after its last page, as plain data."""
        return Checkpoint(
            first=self.first,
            edge=self.edge,
            newest=self.newest,
            cursor=self._cursor,
            at_end=self.ended == "end",
            order=self.order,
            hope=self._proof.hope,
            told=self._proof.told,
            in_order=self._proof.rows,
            pages=self.pages,
            rows=self.rows,
            new=self._new,
            unkeyed=self.unkeyed,
            totals=(self.first_total, self.last_total),
            sorting=len(self.query.sorting_keys),
            base=self._base,
        )

    def _go_on(self) -> Query:
        if is_cursor(self._cursor):
            return self.query.at(after=self._cursor)
        self._prior = None  # the cursor was lost or no cursor at all: from the start, what was read is known
        return self.query

    def _resume(self, mark: Checkpoint) -> None:
        if mark.sorting is not None:  # what the server refused then it would refuse now, with the cursor
            keys, orders = self.query.sorting_keys, self.query.sorting_order
            self.query = replace(
                self.query, sorting_keys=keys[: mark.sorting], sorting_order=orders[: mark.sorting]
            )
        self._base = mark.base
        self.first, self.edge, self.newest = mark.first, mark.edge, mark.newest
        self._prior = mark.edge
        self._cursor, self._has_gone_on = mark.cursor, True
        self.ended = "end" if mark.at_end else None
        self._proof.hope = mark.hope or mark.order
        self._proof.told, self._proof.rows = mark.told, mark.in_order
        self.pages, self.rows, self._new, self.unkeyed = mark.pages, mark.rows, mark.new, mark.unkeyed
        self.first_total, self.last_total = mark.totals


class Checkpoint(msgspec.Struct, frozen=True):
    """Where a walk stood: enough to go on from there after a restart of the program."""

    first: Key | None
    edge: Key | None
    newest: Key | None
    cursor: str | None
    at_end: bool
    order: Order
    pages: int
    rows: int
    new: int
    unkeyed: int
    totals: tuple[int | None, int | None]
    sorting: int | None = None
    """How many of the query's sorting keys the server took."""
    base: int = 0
    """The offset at which the walk began."""
    hope: Order | None = None
    """The order that nothing has contradicted, proven or not. told: whether the server has said how it sorts.
    in_order: rows that kept the order."""
    told: bool = True
    in_order: int = 0
