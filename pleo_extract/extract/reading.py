"""Walks driven to their end: `paging` says what to ask, `client` asks, `decode` makes frames of the answers.

A long list in proven order is cut: k segments start at k offsets, found by one probe each, and each follows its own
cursor to the first job of the next. So k requests are in flight, no page is fetched twice, and jobs that appear
meanwhile cannot shift anything. Where offsets, `total` or order are missing there is one walk.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from pleo_extract.decode import Page, build_frame, parse_page
from pleo_extract.errors import CursorRefused, PleoExtractError, RequestRefused, Stopped
from pleo_extract.paging import Mark, Walk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import polars as pl

    from pleo_extract.client import Run
    from pleo_extract.contract import Query
    from pleo_extract.decode import Rejected

__all__ = ["Part", "RowCount", "ask", "narrow", "read_list", "read_walk", "totals_of"]

BATCH_PAGES: Final = 20
"""So many pages at most are asked for and not yet staged: what a kill costs."""
BATCH_BYTES: Final = 16 * 2**20
"""A batch is full with the page that reaches this, whatever its pages."""
FEW_PAGES: Final = 8
"""A list or a segment that is shorter is not worth cutting."""

PATIENCE: Final = 2.0
"""Seconds to wait for other threads to hand over what they have read when one has failed."""


@dataclass(frozen=True, slots=True)
class Part:
    """Some pages of a list: the rows as a typed frame, the rows that do not fit, where its segments stand after them."""

    frame: pl.DataFrame
    rejected: list[Rejected]
    marks: dict[int, Mark]


def ask(run: Run, query: Query, number: int = 1) -> Page:
    """One page."""
    return run.fetch(query, partial(parse_page, number=number))


def narrow(query: Query, *, company_id: str | None = None, statuses: tuple[str, ...] = ()) -> Query:
    """The same query for one company, for some statuses."""
    return replace(query, company_id=company_id, statuses=statuses)


def totals_of(walks: Sequence[Walk]) -> tuple[int | None, int | None]:
    """`total` as told first, and on the page that ended the list."""
    return walks[0].first_total, next((walk.last_total for walk in walks if walk.ended == "end"), None)


class RowCount:
    """Adds up the rows of all walks of a run, for a progress bar."""

    def __init__(self, run: Run, update: Callable[[int, int | None, float], None]) -> None:
        self._run = run
        self._update = update
        self._rows: dict[int, int] = {}

    def count(self, walk: Walk) -> None:
        """Told of every page."""
        self._rows[id(walk)] = walk.rows
        self._update(sum(self._rows.values()), walk.last_total, self._run.waited)


def read_walk(run: Run, walk: Walk, on_page: Callable[[Walk], None] | None = None) -> Iterator[Part]:
    """The walk's rows, in parts of up to 20 pages. What was read before an error is given out before it is raised."""
    return _read_alone(_Driver(run, walk, on_page=on_page))


def read_list(
    run: Run,
    query: Query,
    *,
    segments: int = 1,
    marks: Mapping[int, Mark] | None = None,
    on_page: Callable[[Walk], None] | None = None,
) -> tuple[list[Walk], Iterator[Part]]:
    """A full walk over an ascending list, in as many segments as are worth it, or resumed where `marks` say.

    Returns:
        The walks, which tell what they have seen (more may join them while the parts are read), and the parts.
    """
    resumed = _resume_walks(query, marks or {})
    walks = list(resumed.values())
    return walks, _read_walks(run, walks, tuple(resumed), segments, on_page)


def _resume_walks(query: Query, marks: Mapping[int, Mark]) -> dict[int, Walk]:
    """By segment. Each walk goes on to where the next one began; the last one to the end of the list."""
    ordered = sorted(marks.items(), key=lambda item: item[1].first or ("", ""))
    walks = {segment: Walk(query, mark=mark) for segment, mark in ordered}
    if 0 not in walks:  # nothing of the first was kept
        walks = {0: Walk(query), **walks}
    for walk, following in pairwise(walks.values()):
        walk.until = following.first
    return walks


def _read_walks(
    run: Run,
    walks: list[Walk],
    numbers: Sequence[int],
    segments: int,
    on_page: Callable[[Walk], None] | None,
) -> Iterator[Part]:
    if len(walks) == 1 and segments > 1:
        opening = _Driver(run, walks[0], on_page=on_page)
        try:
            goes_on = opening.step()
            while goes_on and not opening.held:  # the first sorting was refused: a simpler one is asked for
                goes_on = opening.step()
            drivers = [opening, *_cut(opening, segments)] if goes_on else [opening]
        except PleoExtractError:
            if opening.held:
                yield opening.take()
            raise
        walks[1:] = [driver.walk for driver in drivers[1:]]
    else:
        drivers = [_Driver(run, walk, n, on_page=on_page) for n, walk in zip(numbers, walks, strict=True)]
    if len(drivers) == 1:
        yield from _read_alone(drivers[0])
        return
    try:
        yield from _read_together(run, drivers)
    except CursorRefused:
        walks[:] = [Walk(walks[0].query, restarts=0)]  # from the start, once; what was read is merged by id
        yield from _read_alone(_Driver(run, walks[0], on_page=on_page))


@dataclass(frozen=True, slots=True)
class _Pages:
    """Pages of one segment, and where it stands after them. `number` counts what the segment has handed over."""

    segment: int
    number: int
    held: list[Page]
    size: int
    mark: Mark


class _Driver:
    """One walk under way: steps through it, and holds the pages read since the last part was taken."""

    def __init__(
        self, run: Run, walk: Walk, segment: int = 0, *, on_page: Callable[[Walk], None] | None = None
    ) -> None:
        self.run = run
        self.walk = walk
        self.segment = segment
        self.on_page = on_page
        self.held: list[Page] = []
        self._size = 0
        self._mark = walk.mark()
        self._handed = 0
        self._steps = walk.steps()
        self._query: Query | None = None

    def step(self) -> bool:
        """One page more; False when the walk is over."""
        try:
            if self._query is None:
                self._query = next(self._steps)
            try:
                page = ask(self.run, self._query, self.walk.pages + 1)
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
        self._mark = self.walk.mark()  # and no other: an interrupted step must not count as read
        if self.on_page is not None:
            self.on_page(self.walk)

    def is_full(self) -> bool:
        """Whether a part is due."""
        return len(self.held) >= BATCH_PAGES or self._size >= BATCH_BYTES

    def take(self) -> Part:
        """The rows held, as a part."""
        pages = self.hand_over()
        frame, rejected = build_frame(pages.held)
        return Part(frame, rejected, {self.segment: pages.mark})

    def hand_over(self) -> _Pages:
        """The pages held, and where the walk stands after them."""
        pages = _Pages(self.segment, self._handed, self.held, self._size, self._mark)
        self.held, self._size, self._handed = [], 0, self._handed + 1
        return pages


def _cut(opening: _Driver, segments: int) -> list[_Driver]:
    """Drivers of further segments, each with its first page read; none where the list does not allow it.

    A probe that does not land strictly beyond the segment before it is dropped: the server ignores offsets, or the
    list is shorter than it said.
    """
    walk = opening.walk
    size, total = len(opening.held[0].info.keys), walk.last_total
    if walk.order != "strict" or total is None or walk.query.statuses or not size:
        return []
    offsets = _offsets(total, size, segments)
    drivers = [
        _Driver(opening.run, Walk(replace(walk.query, offset=offset), restarts=0), n, on_page=opening.on_page)
        for n, offset in enumerate(offsets, start=1)
    ]
    _probe(drivers)
    useful: list[_Driver] = []
    for driver in drivers:
        before, first = (useful or [opening])[-1].walk, driver.walk.first
        if (
            driver.walk.order == "strict"
            and first is not None
            and before.edge is not None
            and first > before.edge
        ):
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


def _probe(drivers: Sequence[_Driver]) -> None:
    """The first page of each, all at once; one whose offset is refused reads nothing."""
    failures: list[BaseException] = []

    def probe(driver: _Driver) -> None:
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


def _read_alone(driver: _Driver) -> Iterator[Part]:
    try:
        while driver.step():
            if driver.is_full():
                yield driver.take()
    except (PleoExtractError, KeyboardInterrupt, SystemExit):
        if driver.held:
            yield driver.take()
        raise
    yield driver.take()


def _read_together(run: Run, drivers: Sequence[_Driver]) -> Iterator[Part]:
    """Each driver in a thread of its own; their pages come through a queue and are made parts of here.

    No more than a batch of pages (two a driver, if that is more) are under way or wait to be staged at any time.
    """
    most = max(BATCH_PAGES, 2 * len(drivers))
    room = threading.Semaphore(most - len(drivers))
    batch = _Batch()
    try:
        for pages in _gather(run, drivers, room):
            batch.add(pages)
            if batch.pages >= most // 2 or batch.size >= BATCH_BYTES:
                yield batch.take()
                room.release(batch.pages)
                batch = _Batch()
    except (PleoExtractError, KeyboardInterrupt, SystemExit):
        if batch.pages:
            yield batch.take()
        raise
    if batch.pages:
        yield batch.take()


def _gather(run: Run, drivers: Sequence[_Driver], room: threading.Semaphore) -> Iterator[_Pages]:
    """What the drivers read. When one fails, or the reader is interrupted, all stop, hand over, and the failure is raised."""
    read: queue.SimpleQueue[_Pages | BaseException | None] = queue.SimpleQueue()
    for driver in drivers:
        threading.Thread(target=_work, args=(driver, read, room), daemon=True).start()
    failure: BaseException | None = None
    working = len(drivers)
    until = math.inf
    numbers = dict.fromkeys((driver.segment for driver in drivers), 0)
    try:
        while working and not isinstance(got := _get(read, until), queue.Empty):
            if isinstance(got, _Pages):
                if got.number == numbers[got.segment]:  # else one before it was lost to an interrupt
                    numbers[got.segment] += 1
                    yield got
            elif got is None:
                working -= 1
            elif failure is None or isinstance(failure, Stopped):
                failure, until = got, time.monotonic() + PATIENCE
                _stop(run, room, drivers)
    finally:
        if working:
            _stop(run, room, drivers)
    if failure is not None:
        if not working:
            run.stop.clear()
        raise failure


def _get(
    read: queue.SimpleQueue[_Pages | BaseException | None], until: float
) -> _Pages | BaseException | None:
    """What comes next; queue.Empty when nothing has come by then."""
    try:
        return read.get(timeout=None if until == math.inf else max(0.0, until - time.monotonic()))
    except (KeyboardInterrupt, SystemExit, queue.Empty) as exc:
        return exc


def _stop(run: Run, room: threading.Semaphore, drivers: Sequence[_Driver]) -> None:
    run.stop.set()
    room.release(len(drivers))  # who waits for room is to see it


class _Batch:
    """Pages of several segments on their way to become one part."""

    def __init__(self) -> None:
        self.pages = 0
        self.size = 0
        self._held: list[Page] = []
        self._marks: dict[int, Mark] = {}

    def add(self, pages: _Pages) -> None:
        """Further pages of a segment."""
        self._held += pages.held
        self._marks[pages.segment] = pages.mark
        self.pages += len(pages.held)
        self.size += pages.size

    def take(self) -> Part:
        """All of them, as a part."""
        return Part(*build_frame(self._held), self._marks)


def _work(
    driver: _Driver, pages: queue.SimpleQueue[_Pages | BaseException | None], room: threading.Semaphore
) -> None:
    try:
        if driver.held:
            pages.put(driver.hand_over())
            room.acquire()
        while driver.step():
            if driver.held:
                pages.put(driver.hand_over())
                room.acquire()
    except BaseException as exc:  # noqa: BLE001 - carried to the thread that reads, and raised there
        pages.put(exc)
    finally:
        if driver.held:
            pages.put(driver.hand_over())
        else:
            room.release()
        pages.put(None)
