"""One window for all processes of this machine that share a credential, so that together they keep the pace.

A small file in the user's cache, named after a hash of server and credential, holds when the last requests were
due; each process reads and writes it under a lock. It survives a crash and restart, where a window in memory would
let twice the rate through. Instants are those of the machine's monotonic clock, which all its processes share.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
from contextlib import contextmanager
from struct import pack, unpack
from typing import TYPE_CHECKING, Final

from pleo_extract.cache import cache_path
from pleo_extract.core.pace import RATE_LIMIT, RateWindow
from pleo_extract.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["SharedRateWindow", "open_window"]

FAR: Final = 300.0
"""Seconds ahead that no window can lie: what is further is from before the machine was started anew."""

_log = logging.getLogger(__name__)


class SharedRateWindow:
    """A `RateWindow` kept in a file. POSIX only."""

    def __init__(self, path: Path, rate: int) -> None:
        RateWindow(rate)  # checks it
        self.rate = rate
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def reserve(self, now: float) -> float:
        """Take the next free place; returns the seconds to wait for it."""
        with self._open(now) as window:
            return window.reserve(now)

    def foresee(self, now: float, requests: int, gap: float = 0.0) -> float:
        """Seconds until so many requests would be done; see `RateWindow`."""
        with self._open(now) as window:
            ahead = window
        return ahead.foresee(now, requests, gap)

    def is_paused(self, now: float) -> bool:
        """Whether a pause was asked for, by any process, that is not over yet."""
        with self._open(now) as window:
            return window.is_paused(now)

    def pause(self, now: float, seconds: float, *, slower: bool = False) -> None:
        """Send nothing for `seconds` from now, whoever asks; see `RateWindow`."""
        with self._open(now) as window:
            window.pause(now, seconds, slower=slower)

    def close(self) -> None:
        """Close the file; closed once is enough."""
        with self._lock:
            handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)

    @contextmanager
    def _open(self, now: float) -> Iterator[RateWindow]:
        with self._lock:
            if self._handle < 0:
                raise UsageError("this client is closed; open another")
            fcntl.flock(self._handle, fcntl.LOCK_EX)
            try:
                window = RateWindow(self.rate, self._read(now))
                yield window
                values = window.state()
                data = pack(f"<{len(values)}d", *values)
                os.pwrite(self._handle, data, 0)
                os.ftruncate(self._handle, len(data))
            finally:
                fcntl.flock(self._handle, fcntl.LOCK_UN)

    def _read(self, now: float) -> list[float]:
        data = os.pread(self._handle, 8 * (RATE_LIMIT + 1), 0)
        values = unpack(f"<{len(data) // 8}d", data[: len(data) // 8 * 8])
        return [value for value in values if value < now + FAR]


def open_window(rate: int, server: str, credential: str | None) -> RateWindow | SharedRateWindow:
    """The window that requests keep to: shared where the credential is known and the rate one that Pleo could allow."""
    if credential is None or not isinstance(rate, int) or not 1 <= rate <= RATE_LIMIT:
        del credential  # a traceback may show the locals of this frame
        return RateWindow(rate)
    try:
        return SharedRateWindow(cache_path(f"{server} {credential}"), rate)
    except (OSError, RuntimeError) as exc:  # RuntimeError: no HOME, and a user unknown to the machine
        _log.warning("the pace is not shared with other processes: %s", type(exc).__name__)
        return RateWindow(rate)
