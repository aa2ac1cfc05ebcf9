"""What Linux, macOS and Windows do differently: locks between processes, and making bytes durable.

The usual library for locks opens the file itself and truncates it, and so the file of a backup that shares it by a hard
link.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from importlib import import_module
from typing import Any, Final

__all__ = ["IS_WINDOWS", "lock", "sync", "unlock"]


def _find_module(name: str) -> Any:
    """Return a module of the standard library, or None if this system does not have it."""
    try:
        return import_module(name)
    except ImportError:
        return None


_posix: Any = _find_module("fcntl")
_windows: Any = None if _posix else import_module("msvcrt")
_FULL_SYNC = getattr(_posix, "F_FULLFSYNC", None)
"""On macOS, fsync leaves the bytes in the cache of the drive; this does not."""
IS_WINDOWS: Final = _windows is not None
"""Windows neither replaces nor removes a file that is read-only or that a program has open."""
_PLACE: Final = 2**40
"""The byte that is locked on Windows, beyond any content: there, what is locked cannot be read by others."""
_TICK: Final = 0.01


def lock(handle: int, *, wait: bool = True) -> None:
    """Lock an open file for this process; closing it frees the lock.

    Raises:
        BlockingIOError: another process holds it, and `wait` is false.
        OSError: the file system has no locks.
    """
    if _windows is None:
        _posix.flock(handle, _posix.LOCK_EX | (0 if wait else _posix.LOCK_NB))
        return
    while True:
        try:
            _change_on_windows(handle, _windows.LK_NBLCK)
        except PermissionError as exc:
            if not wait:
                raise BlockingIOError(exc.errno, "another process holds the lock") from exc
            time.sleep(_TICK)
        else:
            return


def unlock(handle: int) -> None:
    """Free the lock of a file that stays open."""
    if _windows is None:
        _posix.flock(handle, _posix.LOCK_UN)
    else:
        _change_on_windows(handle, _windows.LK_UNLCK)


def sync(handle: int) -> None:
    """Make the bytes of an open file durable, as far as the system can."""
    if _FULL_SYNC is not None:
        with suppress(OSError):  # not every drive takes it
            _posix.fcntl(handle, _FULL_SYNC)
            return
    os.fsync(handle)


def _change_on_windows(handle: int, mode: int) -> None:
    """Lock or unlock the place in this file, and go back to its start."""
    os.lseek(handle, _PLACE, os.SEEK_SET)
    try:
        _windows.locking(handle, mode, 1)
    finally:
        os.lseek(handle, 0, os.SEEK_SET)
