"""For how long a run waited, as a clock on the wall sees it."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Waits"]


class Waits:
    """Seconds in which at least one request waited: waits of several threads at once count once.

    Args:
        monotonic: the clock that they are measured by.
        within: those of a dump of several accounts; what waits here waits there.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic, within: Waits | None = None) -> None:
        self._monotonic = monotonic
        self._within = within
        self._lock = threading.Lock()
        self._waiting = 0
        self._since = 0.0
        self._over = 0.0

    def seconds(self) -> float:
        """Until now, a wait that is not over included."""
        with self._lock:
            return self._over + (self._monotonic() - self._since if self._waiting else 0.0)

    @contextmanager
    def count(self) -> Iterator[None]:
        """Count the time that is spent within."""
        with self._within.count() if self._within is not None else nullcontext():
            with self._lock:
                if not self._waiting:
                    self._since = self._monotonic()
                self._waiting += 1
            try:
                yield
            finally:
                with self._lock:
                    self._waiting -= 1
                    if not self._waiting:
                        self._over += self._monotonic() - self._since
