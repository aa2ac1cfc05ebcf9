"""The gate that each request passes: who may send now. All runs of a client share it, as do accounts of one credential."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from pleo_extract.core.pace import InFlight

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pleo_extract.core.pace import Flight

__all__ = ["Gate"]

TICK: Final = 0.25
"""Seconds after which a thread that waits at the gate looks whether its run goes on."""


class Gate:
    """An `InFlight` with its lock, and the threads that wait for a place."""

    def __init__(self, most: int) -> None:
        self._in_flight = InFlight(most)
        self._changed = threading.Condition()
        self._inside = 0

    @contextmanager
    def pass_through(self, check: Callable[[], None]) -> Iterator[None]:
        """Wait for a place, and hold it within. `check` raises when the wait has to end."""
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
        """Return whether more are inside than may be: the number was halved since they came in."""
        with self._changed:
            return self._inside > self._in_flight.limit

    @contextmanager
    def fly(self) -> Iterator[Flight]:
        """Count a request as under way within."""
        with self._changed:
            flight = self._in_flight.begin()
        try:
            yield flight
        finally:
            with self._changed:
                self._in_flight.end(flight)

    def succeed(self, now: float) -> None:
        """Note a page; see `InFlight`."""
        with self._changed:
            self._in_flight.succeed(now)
            self._changed.notify()

    def refuse(self, flight: Flight) -> bool:
        """Note a 429; see `InFlight`."""
        with self._changed:
            return self._in_flight.refuse(flight)

    def is_served(self, now: float) -> bool:
        """Return whether any request succeeded in the last minute."""
        with self._changed:
            return self._in_flight.is_served(now)
