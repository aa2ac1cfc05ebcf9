"""What to ask next: a walk over the list, as a generator that yields queries and receives what each page says.

    walk = Walk(Query(sorting_keys=("createdAt", "id"), sorting_order=("ASC", "ASC"), limit=100))
    steps = walk.steps()
    query = next(steps)
    while True: query = steps.send(page_info)          # or steps.throw(RequestRefused(...)) for a 400

The caller sends the requests and does the waiting. The walk is over when the generator ends.

Theory of operation. A walk follows `endCursor` from page to page until `hasNextPage` is false, or until it has passed
the key `until`. All that it remembers between two pages is its `Checkpoint`, a frozen value that a journal can store:
the next run resumes from there. Three things can go wrong on the way:

- The first request is answered with 400: this server does not sort by what was asked. The walk drops the last sorting
  key and asks again. It does so on the first page only, since two pages in two orders do not make a list.
- A cursor is answered with 400: cursors expire, and on some servers a cursor dies with the row that it points to. If
  the order is proven to be strict, the walk looks for an *anchor*: a page, asked for by offset, whose first row is not
  beyond the furthest row read so far. Such a page leaves no gap, and the walk follows its cursor. It starts half a page
  back, then 2.5 and 12.5 pages back, because rows that were deleted meanwhile move the list forward. If no anchor is
  found, or without proven order, the walk restarts from its first query; rows that it reads twice are merged by id.
- The server breaks the contract: it repeats a cursor, or gives none, or sends rows of another company, or empty pages
  without end. `_Guard` raises a WalkError that names page and field. Nothing is repaired by guessing.

The order of the list is believed only as far as it is proven, see `core.order`. A walk whose order is not proven
never stops early: it goes to the end of the list.

Rules of this room: no clock, no randomness, no I/O.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import replace
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from pleo_extract.contract import Key, PageInfo, PageOrder, Query, is_cursor
from pleo_extract.core.order import SORTING, Order, Proof
from pleo_extract.core.pages import MOST, SAFE
from pleo_extract.errors import CursorRefused, RequestRefused, WalkError, escape

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

__all__ = [
    "BY_CREATION",
    "MAX_PAGES",
    "NEWEST_FIRST",
    "Checkpoint",
    "Walk",
]
MAX_PAGES: Final = 1_000_000
"""Pages after which a walk ends in an error: a server that invents new cursors would be read for ever (F17)."""
EMPTY_PAGES: Final = 10
"""Empty pages in a row after which a walk ends in an error."""
ANCHOR_TRIES: Final = 3
"""How often to look for an anchor without meeting a new job, before the walk restarts."""
MOST_TIES: Final = 1_000
"""Jobs of one created_at that a checkpoint keeps, so that a resumed walk still notices most of those that come twice."""
LONGEST_CURSOR: Final = 8_192
"""Characters; a longer cursor does not fit into a URL that servers accept."""
BY_CREATION: Final = Query(limit=MOST, sorting_keys=SORTING, sorting_order=(PageOrder.ASC, PageOrder.ASC))
"""The query of a full sync: jobs that are created meanwhile land at its end."""
NEWEST_FIRST: Final = replace(BY_CREATION, limit=SAFE, sorting_order=(PageOrder.DESC, PageOrder.DESC))
"""The query of a walk that can stop early, so that it asks for small pages."""


class Checkpoint(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    rename={
        "furthest": "edge",
        "distinct": "new",
        "sorting_keys": "sorting",
        "offset": "base",
        "candidate": "hope",
        "has_echo": "told",
        "rows_in_order": "in_order",
    },
):
    """Where a walk stands after a page: enough to resume it after a restart of the program.

    Staging journals store it, under the field names of the first release.

    Attributes:
        first: the first key read.
        furthest: the key furthest along the walk.
        newest: the key of the job that was created last; once a page shows a job dated in the future, the time of that page
            with an empty id: jobs that are created later may be dated before that job.
        cursor: the `endCursor` of the last page, not yet checked.
        at_end: whether the last page said that no page follows.
        order: the order that is proven so far.
        pages: pages received.
        rows: rows received, repeated ones included.
        distinct: different jobs read; right only while the order is strict.
        unkeyed: rows without a usable key; they count as read.
        totals: the first and the last `total`, None when absent.
        moves: by how much `total` rose and fell from page to page.
        repeated: rows that came twice since the walk last began at the start, in a list sorted by created_at alone.
        ties: the ids of the jobs read last that have the same created_at.
        sorting_keys: how many of the query's sorting keys the server took; None for all.
        offset: the offset at which the walk began.
        candidate: the order that nothing has contradicted so far, proven or not; None in journals of older versions.
        has_echo: whether the server has said how it sorts.
        limit: the rows that the page was asked for, with which its cursor goes; None for no limit.
        rows_in_order: rows that kept the candidate order.
    """

    first: Key | None
    furthest: Key | None
    newest: Key | None
    cursor: str | None
    at_end: bool
    order: Order
    pages: int
    rows: int
    distinct: int
    unkeyed: int
    totals: tuple[int | None, int | None]
    sorting_keys: int | None = None
    offset: int = 0
    candidate: Order | None = None
    has_echo: bool = True  # journals of older versions do not say; what they call proven is proven
    limit: int | None = SAFE  # the versions that did not store it never asked for more or less
    rows_in_order: int = 0
    moves: tuple[int, int] = (0, 0)
    repeated: int = 0
    ties: tuple[str, ...] = ()


_START: Final = Checkpoint(
    first=None,
    furthest=None,
    newest=None,
    cursor=None,
    at_end=False,
    order="none",
    pages=0,
    rows=0,
    distinct=0,
    unkeyed=0,
    totals=(None, None),
)


class Walk:
    """One walk over the list.

    Attributes:
        query: the first query, with the sorting that the server takes.
        until: the key that ends the walk, in walking direction. It may be set while the walk is under way.
        checkpoint: what the walk has seen so far, and where it stands.
        understood: the sorting keys, orders and limit that the server echoed first.
        latest: the time of the page that comes next, with an empty id; jobs of a later date count as dated in the future.
        restarts: how often a refused cursor sent the walk back to its start.
        anchors: how often a refused cursor sent the walk to an offset near the place it had reached.
    """

    def __init__(
        self,
        query: Query,
        *,
        until: Key | None = None,
        restarts: int = 1,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        """Prepare a walk.

        Args:
            query: the first query; the order of the list is proven against its sorting.
            until: the walk may end with the page that reaches this key, if the order is proven.
            restarts: how often a refused cursor may send the walk back to its start.
            checkpoint: where an earlier walk of the same query stood; this one resumes there.
        """
        self.query = query
        self.until = until
        self.latest: Key | None = None
        self._ties: set[Key] = set()
        self._tied_at = ""
        self.understood: tuple[tuple[str, ...] | None, tuple[str, ...] | None, int | None] = (
            None,
            None,
            None,
        )
        self.restarts = 0
        self.anchors = 0
        self.checkpoint = checkpoint or msgspec.structs.replace(_START, offset=query.offset or 0)
        self._most_restarts = restarts
        self._proof = Proof(query)
        if checkpoint is not None:
            # Under the full sorting, a server that had refused it would refuse the cursor too, on every resumption.
            if checkpoint.sorting_keys is not None:
                self._sort_by(checkpoint.sorting_keys)
            self._proof.resume(
                checkpoint.candidate or checkpoint.order,
                rows=checkpoint.rows_in_order,
                has_echo=checkpoint.has_echo,
                last=checkpoint.furthest,
            )
            if checkpoint.furthest is not None:
                self._tied_at = checkpoint.furthest[0]
                self._ties = {(self._tied_at, each) for each in checkpoint.ties}
        self._note()

    @property
    def order(self) -> Order:
        """The order that is proven so far; the end of the list proves it, however few the rows."""
        return self._proof.candidate if self._proof.is_enough or self.checkpoint.at_end else "none"

    @property
    def distinct(self) -> int | None:
        """Different jobs read so far, None where the order does not prove their number."""
        return self.checkpoint.distinct if self.order == "strict" else None

    @property
    def ended(self) -> Literal["end", "until"] | None:
        """``end`` once `hasNextPage` was false, ``until`` once that key was reached; None while under way."""
        if self.checkpoint.at_end:
            return "end"
        return "until" if self._reaches_until() else None

    def note_limit(self, limit: int | None) -> None:
        """Note the limit of a page without a cursor: the cursors that follow it go with this limit."""
        self.checkpoint = msgspec.structs.replace(self.checkpoint, limit=limit)

    def steps(self) -> Generator[Query, PageInfo, None]:
        """Yield the query of each page, and receive what the page says.

        Raises:
            WalkError: pages that do not make a list, see `_Guard`.
            CursorRefused: the server refuses its own cursors, and no restart is left.
            RequestRefused: a query without a cursor was refused and there is no simpler one.
        """
        guard = _Guard(self.query.company_id)
        largest = tries = 0
        stuck_at: Key | None = None  # the furthest key at the last refusal of a cursor
        reread_to: Key | None = None  # after an anchor, rows up to this key are read a second time
        query = self._first_query()
        while query is not None:
            try:
                info = yield from self._fetch(query, guard)
            except RequestRefused as refusal:
                if query.after is None or query == self.query:
                    query = self._simplify(refusal)
                    continue
                guard.forget_cursors()
                tries = tries + 1 if self.checkpoint.furthest == stuck_at else 1
                stuck_at = reread_to = self.checkpoint.furthest
                try:
                    query, info = yield from self._find_anchor(refusal, guard, largest=largest, tries=tries)
                except RequestRefused as no_anchor:
                    self._restart(no_anchor)
                    query, reread_to = self.query, None
                    continue
            if reread_to is not None and self._is_past(info, reread_to):
                reread_to = None
            largest = max(largest, info.rows)
            self._take(info, is_reread=reread_to is not None)
            number = self.checkpoint.pages
            query = None if self.ended else query.at(after=guard.check_cursor(number, info))

    def _first_query(self) -> Query | None:
        """Return the query to begin or to resume with; None if the walk is over."""
        if not self.checkpoint.pages:
            return self.query
        if self.ended:
            return None
        if is_cursor(self.checkpoint.cursor):
            return self.query.at(after=self.checkpoint.cursor)
        self._begin_again()
        return self.query

    def _fetch(self, query: Query, guard: _Guard) -> Generator[Query, PageInfo, PageInfo]:
        """Yield a query, and return the page that answers it, counted and checked."""
        info = yield query
        self._proof.check_page(self.query, info)
        self._note(pages=self.checkpoint.pages + 1, rows=self.checkpoint.rows + info.rows)
        guard.check_page(self.checkpoint.pages, info)
        return info

    def _take(self, info: PageInfo, *, is_reread: bool) -> None:
        """Note what a page adds to the walk; rows without a key are not counted again while the walk re-reads."""
        at, keys = self.checkpoint, info.keys
        if self.understood == (None, None, None):
            self.understood = (info.sorting_keys, info.sorting_order, info.limit)
        (first_total, last_total), (risen, fallen) = at.totals, at.moves
        if info.total is not None and info.total >= 0:
            change = 0 if last_total is None else info.total - last_total
            risen, fallen = risen + max(0, change), fallen + max(0, -change)
            first_total, last_total = info.total if first_total is None else first_total, info.total
        # In strict order the first and the last key bound all others, and comparing each key would cost.
        ends = (keys[0], keys[-1]) if keys and self._proof.candidate == "strict" else keys
        furthest = () if at.furthest is None else (at.furthest,)
        pick = min if self.query.descending else max
        repeated = at.repeated + (0 if is_reread else self._count_repeated(keys))
        self._note(
            first=keys[0] if keys and at.first is None else at.first,
            furthest=pick((*furthest, *ends), key=self._proof.sort_key, default=None),
            newest=self._find_newest(ends),
            cursor=info.end_cursor,
            at_end=not info.has_next,
            distinct=at.distinct + self._count_new(keys),
            unkeyed=at.unkeyed + (0 if is_reread else info.rows - len(keys)),
            totals=(first_total, last_total),
            moves=(risen, fallen),
            repeated=repeated,
            ties=tuple(islice((key[1] for key in self._ties), MOST_TIES)),
        )

    def _find_newest(self, keys: Sequence[Key]) -> Key | None:
        """Return `newest` after a page whose newest key is among these."""
        before = self.checkpoint.newest
        if before is not None and not before[1]:
            return before
        newest = max(keys if before is None else (before, *keys), default=None)
        return newest if newest is None or self.latest is None else min(newest, self.latest)

    def _note(self, **changes: Any) -> None:
        """Replace the checkpoint by one with these changes, and with what is proven of the order by now."""
        proof = self._proof
        self.checkpoint = msgspec.structs.replace(
            self.checkpoint,
            **changes,
            sorting_keys=len(self.query.sorting_keys),
            candidate=proof.candidate,
            has_echo=proof.has_echo,
            rows_in_order=proof.rows,
        )
        self.checkpoint = msgspec.structs.replace(self.checkpoint, order=self.order)

    def _count_repeated(self, keys: Sequence[Key]) -> int:
        """Count the keys that were met before among those of the same created_at.

        A server that sorts by created_at alone may list ties in another order at each request. If its cursors are positions,
        a job that comes twice has taken the place of one that never comes.
        """
        is_strict, repeated = self._proof.candidate == "strict", 0
        # In strict order nothing comes twice, and only the ties at the end can have others on the next page.
        for key in takewhile(lambda key: key[0] == keys[-1][0], reversed(keys)) if is_strict else keys:
            if key[0] != self._tied_at:
                self._ties.clear()
            self._tied_at = key[0]
            repeated += not is_strict and key in self._ties
            self._ties.add(key)
        return repeated

    def _count_new(self, keys: tuple[Key, ...]) -> int:
        """Count the keys beyond the furthest one and before `until`, which belongs to the next segment."""
        sort_key = self._proof.sort_key
        until = None if self.until is None else sort_key(self.until)
        furthest = None if self.checkpoint.furthest is None else sort_key(self.checkpoint.furthest)
        if furthest is None and (until is None or self.query.descending):
            return len(keys)
        if self.query.descending:  # `until` is not the start of another segment here
            return sum(sort_key(key) < furthest for key in keys if furthest is not None)
        if self._proof.candidate == "strict":
            start = 0 if furthest is None else bisect_right(keys, furthest, key=sort_key)
            return max(0, (len(keys) if until is None else bisect_left(keys, until, key=sort_key)) - start)
        places = map(sort_key, keys)
        return sum((furthest is None or at > furthest) and (until is None or at < until) for at in places)

    def _reaches_until(self) -> bool:
        furthest, until = self.checkpoint.furthest, self.until
        if until is None or furthest is None or self.order == "none":
            return False
        if self.order == "created":  # ties are in unknown order: read on to the first job strictly beyond
            return furthest[0] < until[0] if self.query.descending else furthest[0] > until[0]
        if self.query.descending:
            return furthest != until and self._proof.is_certain(furthest, until, at_most=True)
        return self._proof.is_certain(furthest, until, at_most=False)

    def _simplify(self, refusal: RequestRefused) -> Query:
        """Return the query with one sorting key less, if nothing was read yet; else raise the refusal."""
        if self.checkpoint.pages or not self.query.sorting_keys or self.query.after is not None:
            raise refusal
        self._sort_by(len(self.query.sorting_keys) - 1)
        self._proof.lower(self.query)
        self._note()
        return self.query

    def _sort_by(self, count: int) -> None:
        keys, orders = self.query.sorting_keys[:count], self.query.sorting_order[:count]
        self.query = replace(self.query, sorting_keys=keys, sorting_order=orders)

    def _find_anchor(
        self, refusal: RequestRefused, guard: _Guard, *, largest: int, tries: int
    ) -> Generator[Query, PageInfo, tuple[Query, PageInfo]]:
        """Ask by offset for a page that leaves no gap to what was read; return its query and the page.

        The distances are odd numbers of half pages, so that the page ends with another row than the pages before, and
        brings another cursor than the one refused.

        Raises:
            RequestRefused: offsets do not help here: the order is not proven, the list is filtered or begins at a cursor, or
                the server takes no offset or shows no such page.
        """
        is_whole = not self.query.statuses and self.query.after is None
        if tries > ANCHOR_TRIES or not is_whole or self.order != "strict" or self.checkpoint.furthest is None:
            raise refusal
        self.anchors += 1
        for attempt in range(ANCHOR_TRIES):
            self._proof.break_off()
            at, back = self.checkpoint, max(1, largest // 2) * 5**attempt
            query = self.query.at(offset=max(0, at.offset + at.distinct + at.unkeyed - back))
            info = yield from self._fetch(query, guard)
            if self._proof.candidate != "strict":
                break
            if query.offset == 0 or (info.keys and not self._is_past(info, self.checkpoint.furthest)):
                self._note(offset=self._find_offset(query, info))
                return query, info
        raise RequestRefused("no page near the place reached overlaps what was read")

    def _find_offset(self, query: Query, info: PageInfo) -> int:
        """Return the offset at which the walk began, by what this page shows: jobs deleted meanwhile have moved it."""
        at, new = self.checkpoint, self._count_new(info.keys)
        return (query.offset or 0) + len(info.keys) - new - at.distinct - at.unkeyed if new else at.offset

    def _is_past(self, info: PageInfo, key: Key) -> bool:
        """Return whether a page may begin beyond this key; of one without keys nothing is known."""
        at_most = not self.query.descending
        return bool(info.keys) and not self._proof.is_certain(info.keys[0], key, at_most=at_most)

    def _begin_again(self) -> None:
        """Prepare for the first row, which does not follow the last one; what was read stays known."""
        self._proof.break_off()
        self._ties.clear()
        self._note(unkeyed=0, repeated=0, ties=())

    def _restart(self, refusal: RequestRefused) -> None:
        """Begin again with the first query; what was read stays known.

        Raises:
            CursorRefused: no restart is left.
        """
        if self.restarts >= self._most_restarts:
            again = ", again after starting over" if self.restarts else ""
            raise CursorRefused(
                f"page {self.checkpoint.pages + 1}: the server no longer takes the cursor it gave{again}: {refusal}"
            ) from refusal
        self.restarts += 1
        self._begin_again()


class _Guard:
    """Raises a WalkError where pages do not make a list."""

    def __init__(self, company_id: str | None) -> None:
        self._company_id = company_id
        self._cursors: set[str] = set()
        self._empty = 0

    def check_page(self, number: int, info: PageInfo) -> None:
        """Refuse rows of another company, pages beyond the cap, and empty pages without end."""
        foreign = (
            {name.lower() for name in info.companies} - {self._company_id} if self._company_id else set()
        )
        if foreign:
            raise WalkError(
                f"page {number} holds a row of company {escape(min(foreign))!r} although company_id "
                f"{self._company_id} was asked for: data[].companyId. Nothing of this walk is used"
            )
        if number > MAX_PAGES:
            raise WalkError(f"page {number}: the list does not end within {MAX_PAGES:,} pages")
        self._empty = 0 if info.rows else self._empty + 1
        if self._empty >= EMPTY_PAGES and info.has_next:
            raise WalkError(
                f"page {number} is the {self._empty}th empty page in a row and hasNextPage is still true"
            )

    def check_cursor(self, number: int, info: PageInfo) -> str:
        """Return the cursor of the next page; refuse one that is missing, malformed, or was given before."""
        cursor = info.end_cursor
        if cursor is None or not is_cursor(cursor) or len(cursor) > LONGEST_CURSOR:
            shown = "absent" if cursor is None else f"'{escape(cursor)}'"
            raise WalkError(
                f"page {number}: hasNextPage is true but endCursor is {shown}, not a cursor (^[A-Z2-7=~]+$); "
                "there is no way to the next page"
            )
        if cursor in self._cursors:
            raise WalkError(f"loop at page {number}: endCursor {escape(cursor)!r} was given before")
        self._cursors.add(cursor)
        return cursor

    def forget_cursors(self) -> None:
        """Let cursors come again, as they rightly do where the walk goes back."""
        self._cursors.clear()
