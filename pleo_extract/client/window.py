"""The rate window that all processes of one user share when they use the same credential.

Two schedulers with one key that each keep 500 requests a minute send 1,000 together. So the instants of the last
requests are kept in a small file in the user's cache, named after a hash of server and credential; each process reads and
writes it under a lock. The file survives a crash: a window in memory would let twice the rate through after a restart.
Instants are those of the machine's monotonic clock, which all its processes share.
"""

from __future__ import annotations

import logging
import os
import threading
from contextlib import contextmanager
from struct import pack, unpack
from typing import TYPE_CHECKING, Final

from pleo_extract.cache import cache_path
from pleo_extract.core.pace import RATE_LIMIT, RateWindow
from pleo_extract.errors import UsageError
from pleo_extract.system import lock, unlock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["SharedRateWindow", "open_window"]

FAR: Final = 300.0
"""Seconds. An instant further ahead than this was written before a reboot, which resets the clock."""

_PLAIN: Final = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
"""Flags that not every system has."""

_log = logging.getLogger(__name__)


class SharedRateWindow:
    """A `RateWindow` that is kept in a file, so that processes share it.

    Args:
        path: the file; it is created if need be.
        rate: requests in any 60 seconds.
    """

    def __init__(self, path: Path, rate: int) -> None:
        RateWindow(rate)  # raises UsageError if the rate cannot be used
        self.rate = rate
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | _PLAIN, 0o600)

    def reserve(self, now: float) -> float:
        """Reserve the next free place; return the seconds to wait for it."""
        with self._open(now) as window:
            return window.reserve(now)

    def foresee(self, now: float, requests: int, gap: float = 0.0) -> float:
        """Return the seconds until this many requests would be done; see `RateWindow.foresee`."""
        with self._open(now) as window:
            copy = window  # used after the lock is released: a long forecast must not block other processes
        return copy.foresee(now, requests, gap)

    def is_paused(self, now: float) -> bool:
        """Return whether a pause that any process has begun still lasts."""
        with self._open(now) as window:
            return window.is_paused(now)

    def pause(self, now: float, seconds: float, *, slower: bool = False) -> None:
        """Let no process send for this many seconds from now; see `RateWindow.pause`."""
        with self._open(now) as window:
            window.pause(now, seconds, slower=slower)

    def close(self) -> None:
        """Close the file. Closing twice is safe.

        The handle is dropped first: a second `close` of the same number would close the file of somebody else.
        """
        with self._lock:
            handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)

    @contextmanager
    def _open(self, now: float) -> Iterator[RateWindow]:
        with self._lock:
            if self._handle < 0:
                raise UsageError("this client is closed; open another")
            lock(self._handle)
            try:
                window = RateWindow(self.rate, self._read_state(now))
                yield window
                values = window.state()
                data = pack(f"<{len(values)}d", *values)
                os.lseek(self._handle, 0, os.SEEK_SET)
                os.write(self._handle, data)
                os.ftruncate(self._handle, len(data))
            finally:
                unlock(self._handle)

    def _read_state(self, now: float) -> list[float]:
        os.lseek(self._handle, 0, os.SEEK_SET)
        data = os.read(self._handle, 8 * (RATE_LIMIT + 1))
        values = unpack(f"<{len(data) // 8}d", data[: len(data) // 8 * 8])
        return [value for value in values if value < now + FAR]


def open_window(rate: int, server: str, credential: str | None) -> RateWindow | SharedRateWindow:
    """Return the rate window for this credential, shared between processes where that is possible.

    It is not shared for a credential that is renewed (None), because its hash changes with each token; nor at a rate
    above Pleo's limit, which only a sandbox accepts; nor where the cache cannot be written.
    """
    if credential is None or not isinstance(rate, int) or not 1 <= rate <= RATE_LIMIT:
        del credential  # a traceback may show the locals of this frame
        return RateWindow(rate)
    try:
        return SharedRateWindow(cache_path(f"{server} {credential}"), rate)
    except (OSError, RuntimeError) as exc:
        # Slim containers run as a user without a home folder: no reason to refuse a dump.
        _log.warning(
            "the pace is not shared with other processes, because the cache folder cannot be used (%s); set XDG_CACHE_HOME",
            (isinstance(exc, OSError) and exc.strerror) or "there is no home folder",
        )
        return RateWindow(rate)
