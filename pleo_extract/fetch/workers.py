"""Driving several walks in parallel: a thread reads each one, and the caller gets their rows in batches.

Theory of operation. Each driver has a worker thread. A worker reads one page, puts it into a queue as a `PageGroup`, and
waits for *room* before it reads the next. The caller's thread takes groups from the queue, and builds and yields a batch
whenever they fill one, or half of the room is taken. Decoding stays in the caller's thread: the workers wait for the
network most of the time, and more threads that decode would only take turns for the interpreter.

*Room.* The pages that are read and not yet staged are counted, and so are their bytes. The caller gives back the room of a
batch after its consumer has staged it, and not when it takes a page from the queue. So at most `BATCH_PAGES` pages (two for
each driver, if that is more) are lost by a kill, and at most about `ROOM_BYTES` are in memory: a page that is under way
counts as much as the largest one so far. A worker asks for room after it has handed over a page, since its next page needs
it.

*Failure.* The first failure counts, whether a worker's or the caller's. It stops the session, so that the other workers
end soon with `Stopped`, which is not a failure of its own. Every worker hands over what it holds before it ends. The
caller waits at most `PATIENCE` seconds for that, because a worker may hang in a call that nothing interrupts. Then the
pages are yielded, and after them the failure is raised: the next run resumes from what was staged.

*Signals.* A signal raises KeyboardInterrupt or SystemExit between any two instructions of the main thread, also between
taking a page from the queue and remembering it. So signals are held for the whole time (`hold_signals`): the first one
only sets the session's stop event, the second one ends the process immediately. A consumer may still throw one of the two
into the generator, as `sync.task` does after an interrupt while it stages: that is a failure like any other.

`fetch/segments.py` starts the walks.

*Gaps.* A checkpoint says that all pages before it were staged. If an exception tears a group out of the sequence, the
later groups of its segment are dropped, which `PageGroup.number` makes visible. The next run reads them again.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from typing import TYPE_CHECKING, Final

from pleo_extract.errors import PleoExtractError, Stopped
from pleo_extract.fetch.driver import (
    BATCH_PAGES,
    Batch,
    Driver,
    PageGroup,
    build_batch,
    is_full,
)
from pleo_extract.signals import TICK, hold_signals

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from pleo_extract.client import Session
    from pleo_extract.core.decode import Page

__all__ = ["PATIENCE", "drive_together"]

PATIENCE: Final = 2.0
"""Seconds to wait, after a failure, for other threads to hand over what they have read."""
ROOM_BYTES: Final = 256 * 2**20
"""The most bytes of pages that are read and not yet staged."""


def drive_together(session: Session, drivers: Sequence[Driver]) -> Generator[Batch, None, None]:
    """Yield the rows of all these walks in batches. Before an error, yield what was read."""
    with hold_signals(session.stop):
        yield from _drive_together(session, drivers)


def _drive_together(session: Session, drivers: Sequence[Driver]) -> Generator[Batch, None, None]:
    most = max(BATCH_PAGES, 2 * len(drivers))
    crew = _Crew(session, drivers, most)
    groups: list[PageGroup] = []
    try:
        for group in crew.gather():
            groups.append(group)
            pages = [page for each in groups for page in each.pages]
            if len(pages) >= most // 2 or is_full(pages):
                try:
                    batch = build_batch(groups)
                except (KeyboardInterrupt, SystemExit) as exc:  # the groups stay for the last batch
                    crew.fail(exc)
                    continue
                groups = []
                try:
                    yield batch
                except (KeyboardInterrupt, SystemExit) as exc:
                    crew.fail(exc)
                crew.room.free(pages)
    except (PleoExtractError, KeyboardInterrupt, SystemExit):
        if groups:
            yield build_batch(groups)
        raise
    if groups:
        yield build_batch(groups)


class _Crew:
    """The workers of several drivers, and the first failure of a worker or of the caller."""

    def __init__(self, session: Session, drivers: Sequence[Driver], pages: int) -> None:
        self.room = _Room(pages, [driver.pages for driver in drivers])
        self._session = session
        self._drivers = drivers
        self._queue: queue.SimpleQueue[PageGroup | BaseException | None] = queue.SimpleQueue()
        self._failure: BaseException | None = None
        self._until = math.inf

    def gather(self) -> Generator[PageGroup, None, None]:
        """Yield what the drivers read, each segment in order; raise the first failure when all have stopped."""
        for driver in self._drivers:
            threading.Thread(target=_work, args=(driver, self._queue, self.room), daemon=True).start()
        working = len(self._drivers)
        expected = dict.fromkeys((driver.segment for driver in self._drivers), 0)
        try:
            while working and not isinstance(message := self._receive(), queue.Empty):
                if isinstance(message, PageGroup) and message.number == expected[message.segment]:
                    expected[message.segment] += 1
                    yield message
                elif message is None:
                    working -= 1
                elif isinstance(message, BaseException):
                    self.fail(message)
        finally:
            if working:
                self._stop()
        if self._failure is not None:
            # A session whose workers have all ended may be used again, for example to read the list in one walk.
            if not working:
                self._session.stop.clear()
            raise self._failure

    def fail(self, failure: BaseException) -> None:
        """Stop all workers. The first failure counts, unless it only says that the session was stopped."""
        if self._failure is None or isinstance(self._failure, Stopped):
            self._failure, self._until = failure, time.monotonic() + PATIENCE
            self._stop()

    def _receive(self) -> PageGroup | BaseException | None:
        """Return the next message of a worker; queue.Empty if none came in time after a failure."""
        while True:
            left = max(0.0, min(TICK, self._until - time.monotonic()))
            try:
                return self._queue.get(timeout=left)
            except queue.Empty as exc:
                if time.monotonic() >= self._until:
                    return exc
            except (KeyboardInterrupt, SystemExit) as exc:
                return exc
            # A signal has stopped the session, and perhaps no worker will ever answer.
            if self._session.stop.is_set() and self._failure is None:
                return Stopped("this run was stopped")

    def _stop(self) -> None:
        self._session.stop.set()
        self.room.open()


class _Room:
    """Counts the pages that are read and not yet staged, and their bytes.

    Args:
        pages: the most pages.
        held: the pages that each worker starts with. A worker without any has room for its first one.
    """

    def __init__(self, pages: int, held: Sequence[Sequence[Page]]) -> None:
        self._changed = threading.Condition()
        self._pages = pages - sum(max(1, len(each)) for each in held)
        sizes = [len(page.body) for each in held for page in each]
        self._bytes, self._largest = sum(sizes), max(sizes, default=0)
        self._under_way = sum(not each for each in held)
        self._is_open = False

    def take(self) -> None:
        """Wait until there is room for one more page."""
        with self._changed:
            self._changed.wait_for(self._has_room)
            self._pages -= 1
            self._under_way += 1

    def fill(self, pages: Sequence[Page]) -> None:
        """Note that the page under way has come."""
        sizes = [len(page.body) for page in pages]
        with self._changed:
            self._under_way -= 1
            self._bytes += sum(sizes)
            self._largest = max(self._largest, *sizes)
            self._changed.notify_all()  # one under way fewer: this may be the room that another waits for

    def give_back(self) -> None:
        """Note that no page is under way: the worker has read its last one."""
        with self._changed:
            self._under_way -= 1
            self._pages += 1
            self._changed.notify_all()

    def free(self, pages: Sequence[Page]) -> None:
        """Note that these pages are staged."""
        with self._changed:
            self._bytes -= sum(len(page.body) for page in pages)
            self._pages += len(pages)
            self._changed.notify_all()

    def open(self) -> None:
        """Let all workers go on, so that they notice that the session was stopped."""
        with self._changed:
            self._is_open = True
            self._changed.notify_all()

    def _has_room(self) -> bool:
        """Return whether a worker may read a page. One may always do so, however large the pages are."""
        fits = self._bytes + self._largest * (self._under_way + 1) <= ROOM_BYTES
        return self._is_open or (self._pages > 0 and (fits or not (self._bytes or self._under_way)))


def _work(driver: Driver, messages: queue.SimpleQueue[PageGroup | BaseException | None], room: _Room) -> None:
    """Read a walk page by page: put each page, then an error if there is one, then None into the queue."""
    try:
        if driver.pages:  # the page of the probe that found this segment
            messages.put(driver.hand_over())
            room.take()
        while driver.step():
            if driver.pages:
                room.fill(driver.pages)
                messages.put(driver.hand_over())
                room.take()
    except BaseException as exc:  # noqa: BLE001 - carried to the caller's thread, and raised there
        messages.put(exc)
    finally:
        if driver.pages:
            room.fill(driver.pages)
            messages.put(driver.hand_over())
        else:
            room.give_back()
        messages.put(None)
