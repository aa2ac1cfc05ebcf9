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
    from collections.abc import Callable, Iterator, Sequence

    import polars as pl

    from pleo_extract.client import Run
    from pleo_extract.contract import Query
    from pleo_extract.decode import Rejected

__all__ = ["Part", "RowCount", "ask", "narrow", "read_list", "read_walk", "totals_of"]

BATCH_PAGES: Final = 20
BATCH_BYTES: Final = 16 * 2**20
"""A batch is full with the page that reaches either."""
FEW_PAGES: Final = 8
"""A list or a segment that is shorter is not worth cutting."""

PATIENCE: Final = 2.0
"""Seconds to wait for other threads to hand over what they have read when one has failed."""


@dataclass(frozen=True, slots=True)
class Part:
    """Some pages of a walk: the rows as a typed frame, the rows that do not fit, and where the walk stands after them."""

    frame: pl.DataFrame
    rejected: list[Rejected]
    segment: int
    mark: Mark


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
    marks: Sequence[Mark] = (),
    on_page: Callable[[Walk], None] | None = None,
) -> tuple[list[Walk], Iterator[Part]]:
    """A full walk over an ascending list, in as many segments as are worth it, or resumed where `marks` say.

    Returns:
        The walks, which tell what they have seen (more may join them while the parts are read), and the parts.
    """
    walks = _resume_walks(query, marks) or [Walk(query)]
    return walks, _read_walks(run, walks, segments, on_page)


def _resume_walks(query: Query, marks: Sequence[Mark]) -> list[Walk]:
    """Each walk goes on to where the next one began; the last one to the end of the list."""
    ordered = sorted(marks, key=lambda mark: mark.first or ("", ""))
    walks = [Walk(query, mark=mark) for mark in ordered]
    for walk, following in pairwise(walks):
        walk.until = following.first
    return walks


def _read_walks(
    run: Run, walks: list[Walk], segments: int, on_page: Callable[[Walk], None] | None
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
        drivers = [_Driver(run, walk, n, on_page=on_page) for n, walk in enumerate(walks)]
    if len(drivers) == 1:
        yield from _read_alone(drivers[0])
        return
    try:
        yield from _read_together(run, drivers)
    except CursorRefused:
        walks[:] = [Walk(walks[0].query, restarts=0)]  # from the start, once; what was read is merged by id
        yield from _read_alone(_Driver(run, walks[0], on_page=on_page))


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
        if self.on_page is not None:
            self.on_page(self.walk)

    def is_full(self) -> bool:
        """Whether a part is due."""
        return len(self.held) >= BATCH_PAGES or self._size >= BATCH_BYTES

    def take(self) -> Part:
        """The rows held, as a part."""
        frame, rejected = build_frame(self.held)
        self.held, self._size = [], 0
        return Part(frame, rejected, self.segment, self.walk.mark())


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
    """Each driver in a thread of its own; parts come through a queue that lets none run far ahead of the reader.

    When one fails, or the reader is interrupted, all stop, hand over what they hold, and the failure is raised.
    """
    parts: queue.Queue[Part | BaseException | None] = queue.Queue(maxsize=len(drivers))
    for driver in drivers:
        threading.Thread(target=_work, args=(driver, parts), daemon=True).start()
    failure: BaseException | None = None
    working = len(drivers)
    until = math.inf
    while working:
        try:
            got = parts.get(timeout=None if failure is None else max(0.0, until - time.monotonic()))
        except queue.Empty:
            break
        except (KeyboardInterrupt, SystemExit) as exc:
            got = exc
        if isinstance(got, Part):
            yield got
        elif got is None:
            working -= 1
        elif failure is None or isinstance(failure, Stopped):
            failure, until = got, time.monotonic() + PATIENCE
            run.stop.set()
    if failure is not None:
        if not working:
            run.stop.clear()
        raise failure


def _work(driver: _Driver, parts: queue.Queue[Part | BaseException | None]) -> None:
    try:
        for part in _read_alone(driver):
            parts.put(part)
    except BaseException as exc:  # noqa: BLE001 - carried to the thread that reads, and raised there
        parts.put(exc)
    finally:
        parts.put(None)
