"""One writer at a time: flock on `_lock`, which says who holds it. It is freed with its holder, however that ends.

On a disk without flock, or with a lock file that somebody replaced, a run can lose the lake and not notice. So each
run signs the lock, asks before it publishes whether the signature is still its own, and takes away what another may
have prepared: whoever was paused and wakes up late finds that out, or has nothing left to put in place.
"""

from __future__ import annotations

import os
import socket
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import filelock
import msgspec

from pleo_extract.errors import LakeError, LakeLocked, StorageError, escape
from pleo_extract.lake import disk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pleo_extract.lake.layout import Layout

__all__ = ["hold_lock"]


PATIENCE: Final = 1.0
"""Seconds that a run which holds the lake has to say who it is, before another that is turned away leaves it out."""


class _Holder(msgspec.Struct):
    pid: int
    host: str
    since: datetime


@contextmanager
def hold_lock(layout: Layout) -> Iterator[Callable[[], None]]:
    """Hold the lake for writing; gives a function that raises LakeLocked when the lake is no longer held.

    Raises:
        LakeLocked: another run holds it; the message names its pid, host and since when.
        LakeError: a link stands where the lake keeps a folder of its own. StorageError: there can be no lock.
        UsageError, ConfigurationError: a folder that cannot be meant, see `Layout.require_room`.
    """
    layout.require_room()
    disk.make_folder(layout.root.resolve())
    lock = filelock.FileLock(layout.lock, timeout=0, mode=0o600, fallback_to_soft=False)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise LakeLocked(
            f"{layout.root} is held by another run{_describe(layout, patience=PATIENCE)}; wait for it, or stop it"
        ) from None
    except OSError as exc:
        raise StorageError(f"cannot lock {layout.lock}: {exc.strerror or exc}") from exc
    try:
        _refuse_links(layout)
        signature = _sign(layout)
        try:
            _remove_prepared(layout)
            yield lambda: _check(layout, signature)
        finally:
            _unsign(layout, signature)
    finally:
        lock.release()


def _refuse_links(layout: Layout) -> None:
    """Nothing is written or removed through a link: it may lead anywhere."""
    for folder in layout.own_folders():
        if folder.is_symlink():
            raise LakeError(f"{folder} is a link; a lake keeps its folders itself. Put a folder in its place")


def _sign(layout: Layout) -> bytes:
    holder = _Holder(pid=os.getpid(), host=socket.gethostname(), since=datetime.now(UTC))
    signature = msgspec.json.encode(holder)
    try:
        handle = os.open(layout.lock, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            os.write(handle, signature)
        finally:
            os.close(handle)
    except OSError as exc:
        raise StorageError(f"cannot write {layout.lock}: {exc.strerror}") from exc
    return signature


def _unsign(layout: Layout, signature: bytes) -> None:
    """Take the name away, if it is still ours: the next run is not to be taken for this one while it signs."""
    with suppress(OSError):  # the lake may be gone, or the disk; the lock itself is freed all the same
        if _is_ours(layout, signature):
            os.close(os.open(layout.lock, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW))


def _remove_prepared(layout: Layout) -> None:
    """What a run that was killed, or has lost the lake, was about to rename into place."""
    disk.remove_file(layout.root / f".{layout.current.name}.new")
    for path in sorted(layout.meta.glob(".*.new")):
        disk.remove_file(path)
    for path in sorted(layout.root.glob(".catalogue-*")):
        disk.remove_tree(path)


def _is_ours(layout: Layout, signature: bytes) -> bool:
    """Whether this process holds the lake; not so in a child that it was forked into."""
    try:
        held = layout.lock.read_bytes() == signature
    except OSError:
        return False
    return held and msgspec.json.decode(signature, type=_Holder).pid == os.getpid()


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
            holder = msgspec.json.decode(layout.lock.read_bytes(), type=_Holder)
        except (OSError, msgspec.DecodeError):
            if time.monotonic() >= end:
                return ""
            time.sleep(0.01)
        else:
            return f" (pid {holder.pid} on {escape(holder.host)}, since {holder.since:%Y-%m-%d %H:%M:%S} UTC)"
