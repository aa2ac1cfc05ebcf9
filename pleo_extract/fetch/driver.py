"""Driving one walk: `core.walk` says what to ask, `client` asks, `core.decode` makes frames of the answers."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec
import polars as pl

from pleo_extract.contract import STATUSES, instant_key
from pleo_extract.core.decode import Page, Rejected, build_frame, parse_page
from pleo_extract.core.state import OVERLAP
from pleo_extract.core.walk import Checkpoint
from pleo_extract.errors import EchoMismatch, PageTooLarge, PleoExtractError, RequestRefused, escape

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from pleo_extract.client import Session
    from pleo_extract.contract import Query
    from pleo_extract.core.walk import Walk

__all__ = [
    "BATCH_BYTES",
    "BATCH_PAGES",
    "BATCH_ROWS",
    "Batch",
    "Driver",
    "PageGroup",
    "ask",
    "ask_exactly",
    "ask_offset",
    "build_batch",
    "drive",
    "is_full",
]

BATCH_ROWS: Final = 2_000
"""A batch is full with the page that reaches this number of rows."""
BATCH_BYTES: Final = 16 * 2**20
"""A batch is full with the page that reaches this size, however few its rows are."""
BATCH_PAGES: Final = 20
"""A batch is full with this many pages, however small they are: about what a kill costs."""
RESUMED_TRIES: Final = 3
"""How often the first request of a resumed walk may fail likewise: perhaps it failed in the run before, and always will."""
SKEW: Final = OVERLAP / 2
"""By how much the clocks that date jobs and answers may differ before a job counts as dated in the future."""
_LAST: Final = datetime.max.replace(tzinfo=UTC) - SKEW
OFFSET_TRIES: Final = 3
"""How often a request for an offset may fail with a 5xx or a timeout: search engines refuse deep offsets that way."""


class Batch(msgspec.Struct, frozen=True):
    """Some pages of a list, ready to be staged.

    Attributes:
        frame: the rows, typed.
        rejected: the rows that do not fit the contract.
        checkpoints: where the walk of each segment stands after these pages, by segment number.
    """

    frame: pl.DataFrame
    rejected: list[Rejected]
    checkpoints: dict[int, Checkpoint]


class PageGroup(msgspec.Struct, frozen=True):
    """Consecutive pages of one segment.

    Attributes:
        segment: the number of the segment.
        number: counts the groups of this segment, from 0.
        pages: in the order in which they were read.
        checkpoint: where the walk stands after them.
    """

    segment: int
    number: int
    pages: list[Page]
    checkpoint: Checkpoint


def build_batch(groups: Sequence[PageGroup]) -> Batch:
    """Return the rows of these groups as one batch; of the groups of one segment, the last gives the checkpoint."""
    frame, rejected = build_frame([page for group in groups for page in group.pages])
    return Batch(frame, rejected, {group.segment: group.checkpoint for group in groups})


def is_full(pages: Sequence[Page], rows: int = BATCH_ROWS) -> bool:
    """Return whether these pages are enough for a batch."""
    return (
        len(pages) >= BATCH_PAGES
        or sum(page.info.rows for page in pages) >= rows
        or sum(len(page.body) for page in pages) >= BATCH_BYTES
    )


def ask(
    session: Session, query: Query, number: int = 1, *, tries: int | None = None
) -> tuple[Page, int | None]:
    """Return the page that answers this query, which has no cursor, as large as the server gives it; see `core.pages`.

    Args:
        session: what sends the request.
        query: what to ask; its `limit` is what the caller would like.
        number: the number of the page, which an error names.
        tries: see `Session.fetch`.

    Returns:
        The page, and the limit that it answers.

    Raises:
        PleoExtractError: as `Session.fetch`.
    """
    sizes = session.pages
    limit, refusal = sizes.clip(query.limit), None
    while True:
        try:
            page, limit = _ask_lighter(session, replace(query, limit=limit), number, tries)
        except PageTooLarge:
            if (smaller := sizes.after_flood(limit)) is None:
                raise
            limit = smaller
            sizes.lower(limit)
            session.log.warn_once("large", f"a page is too large to hold; asking for {limit} rows at a time")
        except RequestRefused as exc:
            if refusal is not None:
                raise refusal from exc
            smaller = sizes.after_refusal(limit)
            if smaller is None:
                raise
            limit, refusal = smaller, exc
        else:
            break
    if refusal is not None and limit is not None:
        sizes.refuse(limit)
    sizes.note_page(limit, page.info.rows, has_next=page.info.has_next)
    return page, limit


def _ask_lighter(session: Session, query: Query, number: int, tries: int | None) -> tuple[Page, int | None]:
    """Return the page that answers this query, or a smaller one if the server fails at it; and the limit it answers."""
    sizes, smaller = session.pages, session.pages.after_failure(query.limit)
    limits = [query.limit]

    def lighten() -> Query | None:
        if smaller is None:
            return None
        limits.append(smaller)
        return replace(query, limit=smaller)

    page = ask_exactly(session, query, number, tries=tries, lighten=lighten)
    if len(limits) > 1 and smaller is not None:
        sizes.lower(smaller)
    return page, limits[-1]


def ask_exactly(
    session: Session,
    query: Query,
    number: int = 1,
    *,
    tries: int | None = None,
    lighten: Callable[[], Query | None] | None = None,
) -> Page:
    """Return the page that answers this query, with the limit that it has.

    Args:
        session: what sends the request.
        query: what to ask.
        number: the number of the page, which an error names.
        tries: see `Session.fetch`.
        lighten: see `Session.fetch`.

    Raises:
        PleoExtractError: as `Session.fetch`.
    """
    misfits: list[str] = []
    parse = partial(_parse, session, query, number, misfits)
    try:
        page = session.fetch(query, parse, tries=tries, lighten=lighten)
    except PleoExtractError as exc:
        exc.page = number
        raise
    log = session.log
    if unknown := page.info.statuses.difference(STATUSES, log.known_statuses):
        log.known_statuses.update(unknown)
        log.warn_once(
            "status", f"page {number}: status {escape(min(unknown))!r} is unknown, and kept as it is"
        )
    return page


def ask_offset(session: Session, query: Query, number: int = 1) -> tuple[Page, int | None]:
    """Return the page at the query's offset and the limit that it answers; learn whether the server takes such offsets.

    A page without rows means that it does not, if the list is known to be longer. It never means that the list ends.

    Raises:
        RequestRefused: the server refuses the offset, or fails for it time after time.
        PleoExtractError: as `Session.fetch`.
    """
    assert query.offset is not None
    try:
        page, limit = ask(session, query, number, tries=OFFSET_TRIES)
    except RequestRefused:
        session.habits.note_offset(query.offset, works=False)
        raise
    if page.info.rows or query.offset < session.habits.longest:
        session.habits.note_offset(query.offset, works=page.info.rows > 0)
    return page, limit


def _parse(session: Session, query: Query, number: int, misfits: list[str], body: bytes) -> Page:
    """Parse a page; raise EchoMismatch if it says that it answers another query.

    `misfits` collects what earlier tries of this request echoed. If a fresh connection brings an echo that does not fit
    either, this is how the server echoes, and its echo proves nothing in this run.
    """
    page = parse_page(body, number=number)
    misfit = session.habits.find_misfit(query, page.info)
    if misfit and misfits:
        session.habits.echoes = False
    elif misfit:
        misfits.append(misfit)
        raise EchoMismatch(f"page {number} answers another request than was sent ({escape(misfit, 200)})")
    if not query.statuses:
        session.habits.longest = max(session.habits.longest, page.info.total or 0)
    return page


class Driver:
    """One walk under way. It holds the pages that were read and not yet handed over.

    Args:
        session: what sends the requests.
        walk: says what to ask.
        segment: the number of the walk among those that read one list.
        on_page: called with the walk after each page.

    Attributes:
        pages: the pages that it holds.
    """

    def __init__(
        self, session: Session, walk: Walk, segment: int = 0, *, on_page: Callable[[Walk], None] | None = None
    ) -> None:
        self.session = session
        self.walk = walk
        self.segment = segment
        self.on_page = on_page
        self.pages: list[Page] = []
        self._groups = 0
        # The checkpoint is taken with the page and not when pages are handed over: a step that a signal interrupts
        # may have moved the walk on, but its page was not read.
        self._checkpoint = walk.checkpoint
        self._steps = walk.steps()
        self._query: Query | None = None
        self._is_resumed = walk.checkpoint.pages > 0  # until the first page has come

    def step(self) -> bool:
        """Read the next page; return False when the walk is over."""
        try:
            if self._query is None:
                self._query = next(self._steps)
            try:
                page = self._ask(self._query)
            except RequestRefused as refusal:
                self._query = self._steps.throw(refusal)
                return True
        except StopIteration:
            return False
        self.walk.latest = (instant_key(min(self.session.served_at, _LAST) + SKEW), "")
        try:
            self._query = self._steps.send(page.info)
            goes_on = True
        except StopIteration:
            goes_on = False
        self.pages.append(page)
        self._checkpoint = self.walk.checkpoint
        if self.on_page is not None:
            self.on_page(self.walk)
        return goes_on

    def _ask(self, query: Query) -> Page:
        """Return the next page. A cursor goes with the limit that it was given for; see `core.pages`.

        A cursor under which the server floods us, or under which it still fails when a later run resumes, counts as
        refused: the walk then looks for its place with smaller pages.
        """
        number, sizes = self.walk.checkpoint.pages + 1, self.session.pages
        if query.after is None:
            fetch = ask_offset if query.offset else ask
            page, limit = fetch(self.session, query, number)
            self.walk.note_limit(limit)
        else:
            limit = self.walk.checkpoint.limit
            smaller = sizes.after_failure(limit) if self._is_resumed else None
            tries = None if smaller is None else RESUMED_TRIES
            try:
                asked = query if query.limit == limit else replace(query, limit=limit)
                page = ask_exactly(self.session, asked, number, tries=tries)
            except PageTooLarge as exc:
                if (half := sizes.after_flood(limit)) is None:
                    raise
                sizes.lower(half)
                raise RequestRefused(str(exc)) from exc
            except RequestRefused:
                if smaller is not None:
                    sizes.lower(smaller)
                raise
            sizes.note_page(limit, page.info.rows, has_next=page.info.has_next)
        self._is_resumed = False
        return page

    def hand_over(self) -> PageGroup:
        """Return the pages that it holds, and hold them no longer."""
        group = PageGroup(self.segment, self._groups, self.pages, self._checkpoint)
        self.pages, self._groups = [], self._groups + 1
        return group

    def take_batch(self) -> Batch:
        """Return the pages that it holds as a batch, and hold them no longer."""
        return build_batch([self.hand_over()])


def drive(driver: Driver, rows: int = BATCH_ROWS) -> Generator[Batch, None, None]:
    """Yield the rows of a walk in batches of at least `rows` rows. Before an error, yield what was read."""
    try:
        while driver.step():
            if is_full(driver.pages, rows):
                yield driver.take_batch()
    except (PleoExtractError, KeyboardInterrupt, SystemExit):
        if driver.pages:
            yield driver.take_batch()
        raise
    yield driver.take_batch()
