"""One walk driven: `paging` says what to ask, `client` asks, `decode` makes frames of the answers."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec
import polars as pl

from pleo_extract.contract import STATUSES
from pleo_extract.core.decode import Page, Rejected, build_frame, parse_page
from pleo_extract.core.walk import Checkpoint
from pleo_extract.errors import EchoMismatch, PleoExtractError, RequestRefused, escape

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from pleo_extract.client import Session
    from pleo_extract.contract import Query
    from pleo_extract.core.walk import Walk

__all__ = ["BATCH_BYTES", "BATCH_PAGES", "Batch", "Driver", "Pages", "ask", "ask_offset", "drive"]

BATCH_PAGES: Final = 20
"""So many pages at most are asked for and not yet staged: what a kill costs."""
BATCH_BYTES: Final = 16 * 2**20
"""A batch is full with the page that reaches this, whatever its pages."""


OFFSET_TRIES: Final = 3
"""Times that a 5xx or silence is taken from a request for an offset: search engines refuse deep ones so."""


class Batch(msgspec.Struct, frozen=True):
    """Some pages of a list: the rows as a typed frame, the rows that do not fit, where its segments stand after them."""

    frame: pl.DataFrame
    rejected: list[Rejected]
    marks: dict[int, Checkpoint]


def ask(session: Session, query: Query, number: int = 1, *, tries: int | None = None) -> Page:
    """Return one page; an error says which. `tries`: see `Session.fetch`."""
    echoed: list[str] = []
    try:
        page = session.fetch(query, partial(_read, session, query, number, echoed), tries=tries)
    except PleoExtractError as exc:
        exc.page = number
        raise
    if unknown := page.info.statuses.difference(STATUSES, session.known):
        session.known.update(unknown)
        session.warn_once(
            "status", f"page {number}: status {escape(min(unknown))!r} is unknown, and kept as it is"
        )
    return page


def ask_offset(session: Session, query: Query, number: int = 1) -> Page:
    """Return the page at the query's offset, and remember whether the server goes that deep.

    No rows mean that it does not, unless the list is not known to be longer, and never that the list ends there.

    Raises:
        RequestRefused: it does not: the offset was refused, or answered with a 5xx or not at all, time after time.
    """
    assert query.offset is not None
    try:
        page = ask(session, query, number, tries=OFFSET_TRIES)
    except RequestRefused:
        session.habits.note_offset(query.offset, works=False)
        raise
    if page.info.rows or query.offset < session.habits.longest:
        session.habits.note_offset(query.offset, works=page.info.rows > 0)
    return page


def _read(session: Session, query: Query, number: int, echoed: list[str], body: bytes) -> Page:
    """Parse a page, and refuse one that says that it is for another place; `echoed` is what earlier tries said.

    If a fresh connection brings no echo that fits either, it is how this server echoes: then it proves nothing for this run.
    """
    page = parse_page(body, number=number)
    misfit = session.habits.find_misfit(query, page.info)
    if misfit and echoed:
        session.habits.echoes = False
    elif misfit:
        echoed.append(misfit)
        raise EchoMismatch(
            f"page {number} says it is for another place than was asked for ({escape(misfit, 200)})"
        )
    if not query.statuses:
        session.habits.longest = max(session.habits.longest, page.info.total or 0)
    return page


class Pages(msgspec.Struct, frozen=True):
    """Pages of one segment, and where it stands after them. `number` counts what the segment has handed over."""

    segment: int
    number: int
    held: list[Page]
    size: int
    mark: Checkpoint


class Driver:
    """One walk under way: steps through it, and holds the pages read since the last part was taken."""

    def __init__(
        self, session: Session, walk: Walk, segment: int = 0, *, on_page: Callable[[Walk], None] | None = None
    ) -> None:
        self.session = session
        self.walk = walk
        self.segment = segment
        self.on_page = on_page
        self.held: list[Page] = []
        self._size = 0
        self._mark = walk.checkpoint
        self._handed = 0
        self._steps = walk.steps()
        self._query: Query | None = None

    def step(self) -> bool:
        """One page more; False when the walk is over."""
        try:
            if self._query is None:
                self._query = next(self._steps)
            find = ask_offset if self._query.offset else ask
            try:
                page = find(self.session, self._query, self.walk.checkpoint.pages + 1)
            except RequestRefused as refusal:
                self._query = self._steps.throw(refusal)
                return True
        except StopIteration:
            return False
        try:
            self._query = self._steps.send(page.info)
        except StopIteration:
            self._hold(page)
            return False
        self._hold(page)
        return True

    def _hold(self, page: Page) -> None:
        self.held.append(page)
        self._size += len(page.body)
        self._mark = self.walk.checkpoint  # and no other: an interrupted step must not count as read
        if self.on_page is not None:
            self.on_page(self.walk)

    def is_full(self, pages: int = BATCH_PAGES) -> bool:
        """Whether a part is due."""
        return len(self.held) >= pages or self._size >= BATCH_BYTES

    def take(self) -> Batch:
        """The rows held, as a part."""
        pages = self.hand_over()
        frame, rejected = build_frame(pages.held)
        return Batch(frame, rejected, {self.segment: pages.mark})

    def hand_over(self) -> Pages:
        """The pages held, and where the walk stands after them."""
        pages = Pages(self.segment, self._handed, self.held, self._size, self._mark)
        self.held, self._size, self._handed = [], 0, self._handed + 1
        return pages


def drive(driver: Driver, pages: int = BATCH_PAGES) -> Generator[Batch, None, None]:
    """A walk's rows, in parts of up to so many pages. What was read before an error is given out before it is raised."""
    try:
        while driver.step():
            if driver.is_full(pages):
                yield driver.take()
    except (PleoExtractError, KeyboardInterrupt, SystemExit):
        if driver.held:
            yield driver.take()
        raise
    yield driver.take()
