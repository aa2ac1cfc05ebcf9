"""Limit how many requests are under way at the same time: every request passes the gate.

All sessions of a client share one gate, and so do all accounts of an accounts file that use the same credential, because
a server limits concurrency per credential. `pace.InFlight` decides the number; this module adds the lock and makes
threads wait.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pleo_extract.core.pace import InFlight
from pleo_extract.signals import TICK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pleo_extract.core.pace import Flight

__all__ = ["Gate"]


class Gate:
    """An `InFlight` that threads share, and at which they wait for a place.

    Args:
        most: how many requests may be under way at the same time, at most.
    """

    def __init__(self, most: int) -> None:
        self._in_flight = InFlight(most)
        self._changed = threading.Condition()
        self._inside = 0

    @contextmanager
    def pass_through(self, check: Callable[[], None]) -> Iterator[None]:
        """Wait for a place, and hold it during the `with` block. `check` raises when the wait must end."""
        with self._changed:
            while self._inside >= self._in_flight.limit:
                check()
                self._changed.wait(TICK)
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify()

    def is_crowded(self) -> bool:
        """Return whether more threads hold a place than the limit allows: it was halved after they took theirs."""
        with self._changed:
            return self._inside > self._in_flight.limit

    @contextmanager
    def fly(self) -> Iterator[Flight]:
        """Count a request as under way during the `with` block."""
        with self._changed:
            flight = self._in_flight.begin()
        try:
            yield flight
        finally:
            with self._changed:
                self._in_flight.end(flight)

    def succeed(self, now: float) -> None:
        """Record a success; see `InFlight`."""
        with self._changed:
            self._in_flight.succeed(now)
            self._changed.notify()

    def refuse(self, flight: Flight) -> bool:
        """Record a 429; return True if it was about concurrency, False if about the rate. See `InFlight`."""
        with self._changed:
            return self._in_flight.refuse(flight)

    def is_served(self, now: float) -> bool:
        """Return whether any request succeeded in the last minute."""
        with self._changed:
            return self._in_flight.is_served(now)
