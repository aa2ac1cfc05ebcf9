"""The list read: one walk, or a long list in segments.

A long list in proven order is cut: k segments start at k offsets, found by one probe each, and each follows its own
cursor to the first job of the next, or where ids are in no proven order, to the first job created later. So k requests
are in flight, no page is fetched twice, and jobs that appear meanwhile cannot shift anything. Where the server takes no
offset as deep as that, the part that it can reach is cut instead, and the last segment goes on by cursor to the end.
Where offsets, `total` or order are missing there is one walk.
"""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from pleo_extract.core.walk import Checkpoint, Walk
from pleo_extract.errors import CursorRefused, PleoExtractError, RequestRefused
from pleo_extract.fetch.driver import BATCH_PAGES, Driver, drive
from pleo_extract.fetch.workers import drive_together

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    from pleo_extract.client import Session
    from pleo_extract.contract import Query
    from pleo_extract.fetch.driver import Batch

__all__ = ["RowCount", "narrow", "read_list", "read_walk", "totals_of"]

QUICK_SECONDS: Final = 0.01
"""A server that answers a page within these is read by one thread: more would only cost."""
WORTH_SECONDS: Final = 0.003
"""What a page costs us, and something more: a slower server is read by as many threads as keep us busy meanwhile."""
USUAL_WINDOW: Final = 10_000
"""Rows that search engines let offsets reach, unless told otherwise; tried where deeper offsets are refused."""
FEW_PAGES: Final = 8
"""A list or a segment that is shorter is not worth cutting."""


def narrow(query: Query, *, company_id: str | None = None, statuses: tuple[str, ...] = ()) -> Query:
    """The same query for one company, for some statuses."""
    return replace(query, company_id=company_id, statuses=statuses)


def totals_of(walks: Sequence[Walk]) -> tuple[int | None, int | None]:
    """`total` as told first, and on the page that ended the list."""
    return walks[0].checkpoint.totals[0], next(
        (walk.checkpoint.totals[1] for walk in walks if walk.ended == "end"), None
    )


class RowCount:
    """Adds up the rows of all walks of a run, for a progress bar."""

    def __init__(self, session: Session, update: Callable[[int, int | None, float], None]) -> None:
        self._session = session
        self._update = update
        self._rows: dict[int, int] = {}

    def count(self, walk: Walk) -> None:
        """Told of every page."""
        self._rows[id(walk)] = walk.checkpoint.rows
        self._update(sum(self._rows.values()), walk.checkpoint.totals[1], self._session.waited)


def read_walk(
    session: Session, walk: Walk, on_page: Callable[[Walk], None] | None = None, *, pages: int = BATCH_PAGES
) -> Generator[Batch, None, None]:
    """The walk's rows, in parts of up to so many pages. What was read before an error is given out before it is raised."""
    return drive(Driver(session, walk, on_page=on_page), pages)


def read_list(
    session: Session,
    query: Query,
    *,
    segments: int = 1,
    marks: Mapping[int, Checkpoint] | None = None,
    on_page: Callable[[Walk], None] | None = None,
) -> tuple[list[Walk], Generator[Batch, None, None]]:
    """A full walk over an ascending list, in as many segments as are worth it, or resumed where `marks` say.

    Returns:
        The walks, which tell what they have seen (more may join them while the parts are read), and the parts.
    """
    resumed = _resume_walks(query, marks or {})
    walks = list(resumed.values())
    return walks, _read_walks(session, walks, tuple(resumed), segments, on_page)


def _resume_walks(query: Query, marks: Mapping[int, Checkpoint]) -> dict[int, Walk]:
    """By segment. Each walk goes on to where the next one began; the last one to the end of the list."""
    ordered = sorted(marks.items(), key=lambda item: item[1].first or ("", ""))
    walks = {segment: Walk(query, checkpoint=mark) for segment, mark in ordered}
    if 0 not in walks:  # nothing of the first was kept
        walks = {0: Walk(query), **walks}
    for walk, following in pairwise(walks.values()):
        walk.until = following.checkpoint.first
    return walks


def _read_walks(
    session: Session,
    walks: list[Walk],
    numbers: Sequence[int],
    segments: int,
    on_page: Callable[[Walk], None] | None,
) -> Generator[Batch, None, None]:
    if len(walks) == 1 and segments > 1:
        opening = Driver(session, walks[0], on_page=on_page)
        try:
            goes_on = opening.step()
            while goes_on and not opening.held:  # the first sorting was refused: a simpler one is asked for
                goes_on = opening.step()
            drivers = [opening]
            if goes_on:
                started = time.monotonic()
                goes_on = opening.step()
                took = time.monotonic() - started
                worth = 1 if took < QUICK_SECONDS else int(took / WORTH_SECONDS)
                drivers += _cut(opening, min(segments, worth)) if goes_on else []
        except (PleoExtractError, KeyboardInterrupt, SystemExit):
            if opening.held:
                yield opening.take()
            raise
        walks[1:] = [driver.walk for driver in drivers[1:]]
    else:
        drivers = [Driver(session, walk, n, on_page=on_page) for n, walk in zip(numbers, walks, strict=True)]
    if len(drivers) == 1:
        yield from drive(drivers[0])
        return
    try:
        yield from drive_together(session, drivers)
    except CursorRefused:
        walks[:] = [Walk(walks[0].query, restarts=0)]  # from the start, once; what was read is merged by id
        yield from drive(Driver(session, walks[0], on_page=on_page))


def _cut(opening: Driver, segments: int) -> list[Driver]:
    """Return drivers of further segments, each with its first page read; none where the list does not allow it.

    A probe that does not land strictly beyond the segment before it is dropped: the server ignores offsets, or the
    list is shorter than it said.
    """
    walk = opening.walk
    size, total = len(opening.held[0].info.keys), walk.checkpoint.totals[1]
    if walk.order == "none" or total is None or walk.query.statuses or not size:
        return []
    offsets = _offsets(total, size, segments)
    found = _probe(opening, offsets)
    if offsets and not found:
        found = _probe(opening, _offsets(min(offsets[0], USUAL_WINDOW - size), size, segments))
    useful: list[Driver] = []
    for driver in found:
        before, first = (useful or [opening])[-1].walk, driver.walk.checkpoint.first
        furthest = before.checkpoint.furthest
        if driver.walk.order == "none" or first is None or furthest is None:
            continue
        if first[0] > furthest[0]:  # within one instant, ids in an unknown order could hide a gap
            before.until = first
            useful.append(driver)
    return useful


def _offsets(total: int, size: int, segments: int) -> list[int]:
    """Where segments after the first begin: each with the last row of the page that ends the one before.

    So the one before ends with that page, and needs no other to know that it has reached the next.
    """
    pages = -(-total // size)
    count = min(segments, pages // FEW_PAGES)
    offsets = [0]
    for n in range(count - 1):
        whole = pages // count + (n < pages % count)
        offsets.append(offsets[-1] + whole * size - 1)
    return offsets[1:]


def _probe(opening: Driver, offsets: Sequence[int]) -> list[Driver]:
    """Return drivers of the segments at these offsets, all asked for at once, without those that the server refuses."""
    query = opening.walk.query
    drivers = [
        Driver(opening.session, Walk(replace(query, offset=offset), restarts=0), n, on_page=opening.on_page)
        for n, offset in enumerate(offsets, start=1)
    ]
    failures: list[BaseException] = []

    def probe(driver: Driver) -> None:
        try:
            driver.step()
        except RequestRefused:
            return
        except BaseException as exc:  # noqa: BLE001 - carried to the thread that waits, and raised there
            failures.append(exc)

    threads = [threading.Thread(target=probe, args=[driver], daemon=True) for driver in drivers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return [driver for driver in drivers if driver.walk.checkpoint.first is not None]
