"""Reading a whole list: one walk, or a long list in several segments at the same time.

Theory of operation. A cursor leads from page to page, so one walk has one request in flight: at 300 ms a page, that is 200
of the 500 requests a minute that Pleo allows. But the API also takes offsets. So a long list is cut: an offset gives the
first page of a segment, found by one *probe*; from there each segment follows its own cursor, to the first job of the next
segment. Offsets decide where a segment begins, never which rows are read: jobs that appear or vanish meanwhile shift
offsets, not cursors. The rows go to the caller in batches: `sync/full.py` stages them.

What cutting needs, and what happens where it is missing:

- *A proven order.* The end of a segment is recognised by its key. Where ties of `created_at` are in an unknown order, a
  segment reads on to the first job that was created strictly later. Without any order there is one walk.
- *`total`.* It says where to cut. Without it there is one walk.
- *Deep offsets.* Search engines refuse them. Then the part of the list that offsets do reach is cut, and the last segment
  follows its cursor to the end.
- *A server that is slow enough.* A server that answers in a few milliseconds is read by one thread: eight threads took
  turns for the interpreter and gained nothing. The second page of the list measures this.
"""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from pleo_extract.core.walk import Checkpoint, Walk
from pleo_extract.errors import CursorRefused, PleoExtractError, RequestRefused, span
from pleo_extract.fetch.driver import BATCH_ROWS, Driver, drive
from pleo_extract.fetch.workers import drive_together
from pleo_extract.signals import TICK

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    from pleo_extract.client import Session
    from pleo_extract.contract import Key, Query
    from pleo_extract.fetch.driver import Batch

__all__ = [
    "RowCount",
    "meets_arrivals",
    "moves_of",
    "narrow",
    "read_list",
    "read_walk",
    "repeated_of",
    "totals_of",
]

QUICK_SECONDS: Final = 0.01
"""A server that answers a page within this time is read by one thread: more threads would only cost."""
WORTH_SECONDS: Final = 0.0015
"""About what a page costs us in CPU. A slower server is read by as many threads as keep us busy meanwhile."""
USUAL_WINDOW: Final = 10_000
"""Rows that search engines let offsets reach by default; tried where deeper offsets are refused."""
FEW_PAGES: Final = 8
"""The fewest pages of a segment. So a list of fewer than twice as many is not cut."""


def narrow(query: Query, *, company_id: str | None = None, statuses: tuple[str, ...] = ()) -> Query:
    """Return the same query for one company and for some statuses."""
    return replace(query, company_id=company_id, statuses=statuses)


def totals_of(walks: Sequence[Walk]) -> tuple[int | None, int | None]:
    """Return the first `total` of the list, and the one on the page that ended it."""
    first = walks[0].checkpoint.totals[0]
    return first, next((walk.checkpoint.totals[1] for walk in walks if walk.ended == "end"), None)


def moves_of(walks: Sequence[Walk]) -> tuple[int, int]:
    """Return by how much `total` rose and fell from page to page, each as counted by the walk that saw most of it."""
    risen, fallen = zip(*(walk.checkpoint.moves for walk in walks), strict=True)
    return max(risen), max(fallen)


def meets_arrivals(walks: Sequence[Walk]) -> bool:
    """Return whether the walks read the jobs that are created meanwhile: they stand at the end of an ascending list."""
    return all(walk.order != "none" and not walk.query.descending for walk in walks)


def newest_of(walks: Sequence[Walk]) -> Key | None:
    """Return the newest key of the list; if a job is dated in the future, the time of the first page that showed it."""
    keys = [key for walk in walks if (key := walk.checkpoint.newest) is not None]
    return min((key for key in keys if not key[1]), default=max(keys, default=None))


def repeated_of(walks: Sequence[Walk]) -> int:
    """Return how many rows came twice in a list that is sorted by created_at alone."""
    return sum(walk.checkpoint.repeated for walk in walks if walk.order == "created")


def is_moving(walks: Sequence[Walk], distinct: int) -> bool:
    """Return whether rows of a list without order came twice; `distinct` are the different jobs that the walks met."""
    rows = sum(walk.checkpoint.rows for walk in walks)
    return rows > distinct and any(walk.order == "none" for walk in walks)


class RowCount:
    """The rows of all walks of a run, added up for a progress bar.

    A walk that reads newest first ends somewhere in the list. The rows that it will read are not known, so there is no
    total, unless the whole list was read before.

    Args:
        session: tells how long requests wait.
        update: called with the rows so far, their expected number if known, and a note: the page size, and the waiting.
    """

    def __init__(self, session: Session, update: Callable[[int, int | None, str], None]) -> None:
        self._session = session
        self._update = update
        self._rows: dict[int, int] = {}
        self._total: int | None = None
        self._is_whole = False
        self._pages = ""
        session.on_wait = self._announce

    def count(self, walk: Walk) -> None:
        """Update the bar after a page of this walk."""
        before = self._rows.get(id(walk), 0)
        self._rows[id(walk)] = walk.checkpoint.rows
        if not walk.query.descending:
            self._total = walk.checkpoint.totals[1]
            self._is_whole = not walk.query.statuses
        elif not self._is_whole:
            self._total = None
        self._pages = f"{walk.checkpoint.rows - before:,} a page"
        waited = self._session.waited
        self._show(f"{self._pages}, waited {waited:.0f} s" if waited >= 1 else self._pages)

    def _announce(self, seconds: float) -> None:
        self._show(", ".join(filter(None, (f"waiting {span(seconds)}", self._pages))))

    def _show(self, note: str) -> None:
        self._update(sum(self._rows.values()), self._total, note)


def read_walk(
    session: Session, walk: Walk, on_page: Callable[[Walk], None] | None = None, *, rows: int = BATCH_ROWS
) -> Generator[Batch, None, None]:
    """Yield the rows of a walk in batches of at least `rows` rows. Before an error, yield what was read."""
    return drive(Driver(session, walk, on_page=on_page), rows)


def read_list(
    session: Session,
    query: Query,
    *,
    segments: int = 1,
    checkpoints: Mapping[int, Checkpoint] | None = None,
    on_page: Callable[[Walk], None] | None = None,
) -> tuple[list[Walk], Generator[Batch, None, None]]:
    """Read a whole ascending list in up to `segments` segments, or resume at these checkpoints.

    Returns:
        The walks, which say what they have seen, and the batches. The list of walks may grow while batches are read.
    """
    resumed = _resume_walks(query, checkpoints or {})
    walks = list(resumed.values())
    return walks, _read_walks(session, walks, tuple(resumed), segments, on_page)


def _resume_walks(query: Query, checkpoints: Mapping[int, Checkpoint]) -> dict[int, Walk]:
    """Return the walks by segment. Each ends where the next one began, the last one at the end of the list."""
    ordered = sorted(checkpoints.items(), key=lambda item: item[1].first or ("", ""))
    walks = {segment: Walk(query, checkpoint=checkpoint) for segment, checkpoint in ordered}
    if 0 not in walks:  # the run that was cut short staged nothing of the first segment
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
    drivers = [Driver(session, walk, n, on_page=on_page) for n, walk in zip(numbers, walks, strict=True)]
    if len(drivers) == 1 and segments > 1:
        opening = drivers[0]
        try:
            drivers += _open_segments(opening, segments)
        except (PleoExtractError, KeyboardInterrupt, SystemExit):
            if opening.pages:
                yield opening.take_batch()
            raise
        walks[1:] = [driver.walk for driver in drivers[1:]]
    if len(drivers) == 1:
        yield from drive(drivers[0])
        return
    try:
        yield from drive_together(session, drivers)
    except CursorRefused:
        # A segment that lost its cursor cannot start over: its offset may show other jobs now. So the list is read
        # once more from its start in one walk; rows that come twice are merged by their key.
        walks[:] = [Walk(walks[0].query, restarts=0)]
        yield from drive(Driver(session, walks[0], on_page=on_page))


def _open_segments(opening: Driver, segments: int) -> list[Driver]:
    """Read the first two pages of a list; return drivers of further segments if that is worth it."""
    goes_on = opening.step()
    while goes_on and not opening.pages:  # the server refused the sorting: the walk asks for a simpler one
        goes_on = opening.step()
    if not goes_on:
        return []
    started = time.monotonic()
    goes_on = opening.step()  # the second page: the first one also paid for the connection
    seconds = time.monotonic() - started
    worth = 1 if seconds < QUICK_SECONDS else int(seconds / WORTH_SECONDS)
    return _cut(opening, min(segments, worth)) if goes_on else []


def _cut(opening: Driver, segments: int) -> list[Driver]:
    """Return drivers of further segments, each with its first page read; none if the list cannot be cut.

    A probe that does not land strictly beyond the segment before it is dropped: the server ignores offsets, or the list
    is shorter than it said.
    """
    walk = opening.walk
    size, total = len(opening.pages[0].info.keys), walk.checkpoint.totals[1]
    if walk.order == "none" or total is None or walk.query.statuses or not size:
        return []
    offsets = _choose_offsets(total, size, segments)
    found = _probe(opening, offsets)
    if offsets and not found:
        found = _probe(opening, _choose_offsets(min(offsets[0], USUAL_WINDOW - size), size, segments))
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


def _choose_offsets(total: int, size: int, segments: int) -> list[int]:
    """Return where the segments after the first begin: with the last row of the page that ends the one before.

    So the segment before sees the first row of the next one on its own last page, and needs no further page to know that
    it has arrived.
    """
    pages = -(-total // size)
    count = min(segments, pages // FEW_PAGES)
    offsets = [0]
    for n in range(count - 1):
        whole = pages // count + (n < pages % count)
        offsets.append(offsets[-1] + whole * size - 1)
    return offsets[1:]


def _probe(opening: Driver, offsets: Sequence[int]) -> list[Driver]:
    """Read a page at each of these offsets in parallel; return a driver for each offset that the server takes."""
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
        while thread.is_alive():
            thread.join(TICK)
    if failures:
        raise failures[0]
    return [driver for driver in drivers if driver.walk.checkpoint.first is not None]
