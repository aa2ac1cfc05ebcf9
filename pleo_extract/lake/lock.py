"""One writer at a time: flock on `_lake/lock`, which says who holds it. It is freed with its holder, however that ends.

On a disk without flock, or with a lock file that somebody replaced, a run can lose the lake and not notice. So each
run signs the lock, asks before it publishes whether the signature is still its own, and takes away what another may
have prepared: whoever was paused and wakes up late finds that out, or has nothing left to put in place.
"""

from __future__ import annotations

import fcntl
import os
import socket
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import msgspec

from pleo_extract.errors import LakeError, LakeLocked, PleoExtractError, StorageError, escape
from pleo_extract.lake import disk, strict
from pleo_extract.lake.layout import MONTH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pleo_extract.lake.layout import Layout

__all__ = ["hold_lock", "refuse_unheld"]


PATIENCE: Final = 1.0
"""Seconds that a run which holds the lake has to say who it is, before another that is turned away leaves it out."""
TRIES: Final = 10
"""How often a lock that was replaced meanwhile is tried again."""


class _Holder(msgspec.Struct):
    pid: int
    host: str
    since: datetime


def refuse_unheld() -> None:
    """What a table that nobody holds has in place of a check."""
    raise AssertionError("a table is held by whoever commits to it")


@contextmanager
def hold_lock(layout: Layout) -> Iterator[Callable[[], None]]:
    """Hold the lake for writing; gives a function that raises LakeLocked when the lake is no longer held.

    Raises:
        LakeLocked: another run holds it; the message names its pid, host and since when.
        LakeError: a link stands where the lake keeps a folder or a file of its own. StorageError: there can be no lock.
        UsageError, ConfigurationError: a folder that cannot be meant, see `Layout.require_room`.
    """
    layout.require_room()
    with disk.name_lake(layout.root):
        disk.make_folder(layout.root.resolve())
        _refuse_links(layout)
        disk.make_folder(layout.own)
        handle = _acquire(layout)
        try:
            with _hold_old(layout):
                signature = _sign(layout, handle)
                try:
                    _remove_prepared(layout)
                    yield lambda: _check(layout, signature)
                finally:
                    _unsign(layout, handle, signature)
        finally:
            os.close(handle)


@contextmanager
def _hold_old(layout: Layout) -> Iterator[None]:
    """Keep runs of older versions out of a lake of format 1, which they lock by another file."""
    if not layout.old.lock.exists():
        yield
        return
    handle = disk.open_own(layout.old.lock)
    try:
        _flock(layout, handle)
        yield
    finally:
        os.close(handle)


def _acquire(layout: Layout) -> int:
    """Lock the lake's file; it is freed when the handle is closed, at the latest when the process ends.

    Somebody may have replaced the file between its opening and its locking: then the next one is tried. One that has
    a second name, as a backup made of hard links gives it, is not written to: the lake gets a file of its own.
    """
    for _ in range(TRIES):
        handle = disk.open_own(layout.lock)
        try:
            _flock(layout, handle)
            if _is_in_place(layout, handle):
                if os.fstat(handle).st_nlink == 1:
                    return handle
                disk.replace_file(layout.lock, b"")
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)
    raise StorageError(f"cannot lock {layout.lock}: somebody replaces it again and again")


def _flock(layout: Layout, handle: int) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise LakeLocked(
            f"{layout.root} is held by another run{_describe(layout, patience=PATIENCE)}; wait for it, or stop it"
        ) from None
    except OSError as exc:
        raise StorageError(f"cannot lock {layout.lock}: {exc.strerror or exc}") from exc


def _is_in_place(layout: Layout, handle: int) -> bool:
    """Whether the file that was opened is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(handle), layout.lock.lstat())
    except OSError:
        return False


def _refuse_links(layout: Layout) -> None:
    """Nothing is written or removed through a link: it may lead anywhere."""
    for folder in layout.own_folders():
        if folder.is_symlink():
            raise LakeError(f"{folder} is a link; a lake keeps its folders itself. Put a folder in its place")


def _sign(layout: Layout, handle: int) -> bytes:
    holder = _Holder(pid=os.getpid(), host=socket.gethostname(), since=datetime.now(UTC))
    signature = msgspec.json.encode(holder)
    try:
        os.ftruncate(handle, 0)
        os.write(handle, signature)
    except OSError as exc:
        raise StorageError(f"cannot write {layout.lock}: {exc.strerror}") from exc
    return signature


def _unsign(layout: Layout, handle: int, signature: bytes) -> None:
    """Take the name away and free the lock, if it is still ours: the next run is not to be taken for this one while it signs.

    A child that was forked from the holder frees nothing: it shares the lock.
    """
    with suppress(OSError):  # the lake may be gone, or the disk; the lock itself is freed all the same
        if _is_ours(layout, signature):
            os.ftruncate(handle, 0)
            fcntl.flock(handle, fcntl.LOCK_UN)


def _remove_prepared(layout: Layout) -> None:
    """What a run that was killed, or has lost the lake, was about to rename into place."""
    months = [
        path for path in disk.list_folder(layout.root) if MONTH.fullmatch(path.name) and not path.is_symlink()
    ]
    for folder in (layout.own, layout.snapshots, layout.objects, layout.rejected, *months):
        for path in disk.list_folder(folder):
            if disk.is_prepared(path):
                disk.remove_file(path)
    for path in disk.list_folder(layout.root):
        if path.match(".catalogue-*"):
            disk.remove_tree(path)


def _is_ours(layout: Layout, signature: bytes) -> bool:
    """Whether this process holds the lake; not so in a child that it was forked into."""
    try:
        held = disk.read_file(layout.lock) == signature
    except PleoExtractError:
        return False
    return held and strict.decode(signature, _Holder).pid == os.getpid()


def _check(layout: Layout, signature: bytes) -> None:
    if not _is_ours(layout, signature):
        raise LakeLocked(
            f"{layout.root} was taken over by another run{_describe(layout)} while this one held its lock; "
            "this one publishes nothing"
        )


def _describe(layout: Layout, *, patience: float = 0.0) -> str:
    """Who holds the lake, as far as it has said so within so many seconds: it takes the lock first, and then signs."""
    end = time.monotonic() + patience
    while True:
        try:
            holder = strict.decode(disk.read_file(layout.lock), _Holder)
            since = strict.read_instant(holder.since, "since")
        except (PleoExtractError, strict.Malformed):
            if time.monotonic() >= end:
                return ""
            time.sleep(0.01)
        else:
            return f" (pid {holder.pid} on {escape(holder.host)}, since {since:%Y-%m-%d %H:%M:%S} UTC)"
