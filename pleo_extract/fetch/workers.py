"""Several walks driven at once, each in a thread of its own, their pages gathered into parts here."""

from __future__ import annotations

import math
import queue
import threading
import time
from typing import TYPE_CHECKING, Final

from pleo_extract.core.decode import build_frame
from pleo_extract.errors import PleoExtractError, Stopped
from pleo_extract.fetch.driver import BATCH_BYTES, BATCH_PAGES, Batch, Driver, Pages
from pleo_extract.signals import hold_signals

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from pleo_extract.client import Session
    from pleo_extract.core.decode import Page
    from pleo_extract.core.walk import Checkpoint

__all__ = ["PATIENCE", "drive_together"]

PATIENCE: Final = 2.0
"""Seconds to wait for other threads to hand over what they have read when one has failed."""
GLANCE: Final = 0.25
"""Seconds after which whoever waits for pages looks whether the run was stopped."""


def drive_together(session: Session, drivers: Sequence[Driver]) -> Generator[Batch, None, None]:
    """The rows of all these walks, in parts. What was read before an error is given out before it is raised.

    No more than a batch of pages (two a driver, if that is more) are under way or wait to be staged at any time.
    """
    # A signal may come at any moment, between any two instructions, and pages on their way would be lost with it. So it
    # is held until the threads have stopped, and all that they have read was given out.
    with hold_signals(session.stop):
        yield from _drive_together(session, drivers)


def _drive_together(session: Session, drivers: Sequence[Driver]) -> Generator[Batch, None, None]:
    most = max(BATCH_PAGES, 2 * len(drivers))
    crew = _Crew(session, drivers, room=most - sum(max(1, len(driver.held)) for driver in drivers))
    gathered = crew.gather()
    batch = _Batch()
    try:
        for pages in gathered:
            batch.add(pages)
            if batch.pages >= most // 2 or batch.size >= BATCH_BYTES:
                try:
                    part = batch.take()
                except (KeyboardInterrupt, SystemExit) as exc:  # the pages stay in the batch
                    crew.fail(exc)
                    continue
                taken, batch = batch.pages, _Batch()
                try:
                    yield part
                except (KeyboardInterrupt, SystemExit) as exc:
                    crew.fail(exc)
                crew.make_room(taken)
    except (PleoExtractError, KeyboardInterrupt, SystemExit):
        if batch.pages:
            yield batch.take()
        raise
    if batch.pages:
        yield batch.take()


class _Crew:
    """Drivers at work, and the first failure among them or of the one who reads."""

    def __init__(self, session: Session, drivers: Sequence[Driver], *, room: int) -> None:
        self._session = session
        self._drivers = drivers
        self._room = threading.Semaphore(room)
        self._read: queue.SimpleQueue[Pages | BaseException | None] = queue.SimpleQueue()
        self._failure: BaseException | None = None
        self._until = math.inf

    def gather(self) -> Generator[Pages, None, None]:
        """What the drivers read. When one fails, all stop, hand over what they have, and the failure is raised."""
        for driver in self._drivers:
            threading.Thread(target=_work, args=(driver, self._read, self._room), daemon=True).start()
        working = len(self._drivers)
        numbers = dict.fromkeys((driver.segment for driver in self._drivers), 0)
        try:
            while working and not isinstance(got := self._get(), queue.Empty):
                if isinstance(got, Pages) and got.number == numbers[got.segment]:
                    numbers[got.segment] += 1
                    yield got
                elif got is None:
                    working -= 1
                elif isinstance(got, BaseException):
                    self.fail(got)
        finally:
            if working:
                self._stop()
        if self._failure is not None:
            if not working:
                self._session.stop.clear()
            raise self._failure

    def fail(self, failure: BaseException) -> None:
        """All stop; the first failure counts, unless it only says that another stopped it."""
        if self._failure is None or isinstance(self._failure, Stopped):
            self._failure, self._until = failure, time.monotonic() + PATIENCE
            self._stop()

    def make_room(self, pages: int) -> None:
        """So many pages more may be read."""
        self._room.release(pages)

    def _get(self) -> Pages | BaseException | None:
        """Return what comes next; queue.Empty when nothing has come in time after a failure."""
        while True:
            left = max(0.0, min(GLANCE, self._until - time.monotonic()))
            try:
                return self._read.get(timeout=left)
            except queue.Empty as exc:
                if time.monotonic() >= self._until:
                    return exc
            except (KeyboardInterrupt, SystemExit) as exc:
                return exc
            if (
                self._session.stop.is_set() and self._failure is None
            ):  # by a signal, while no thread may ever answer
                return Stopped("this run was stopped")

    def _stop(self) -> None:
        self._session.stop.set()
        self._room.release(len(self._drivers))  # who waits for room is to see it


class _Batch:
    """Pages of several segments on their way to become one part."""

    def __init__(self) -> None:
        self.pages = 0
        self.size = 0
        self._held: list[Page] = []
        self._marks: dict[int, Checkpoint] = {}

    def add(self, pages: Pages) -> None:
        """Further pages of a segment."""
        self._held += pages.held
        self._marks[pages.segment] = pages.mark
        self.pages += len(pages.held)
        self.size += pages.size

    def take(self) -> Batch:
        """All of them, as a part."""
        return Batch(*build_frame(self._held), self._marks)


def _work(
    driver: Driver, pages: queue.SimpleQueue[Pages | BaseException | None], room: threading.Semaphore
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
