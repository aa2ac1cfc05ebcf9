"""Let one writer at a time into a lake: a lock on `_lake/lock`, a file that says who holds it.

The lock is freed when its process ends, even by a kill. But on a disk without locks, or with a lock file that somebody has
replaced, a run can lose the lake without notice. So each run signs the lock file, and looks at the signature before it
publishes. It also removes the temporary files of others first: a paused run that wakes up late finds that the lake is
another's, or has nothing left to rename into place.

The file stays when the lock is freed: to remove it would let two runs lock two files of one name.
"""

from __future__ import annotations

import os
import socket
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import msgspec

from pleo_extract.errors import (
    LakeError,
    LakeLocked,
    PleoExtractError,
    StorageError,
    escape,
)
from pleo_extract.lake import disk, strict
from pleo_extract.lake.layout import MONTH
from pleo_extract.system import IS_WINDOWS, lock, unlock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pleo_extract.lake.layout import Layout

__all__ = ["Holder", "find_holder", "format_holder", "hold_lock", "refuse_unheld"]


PATIENCE: Final = 1.0
"""How long a run that is refused waits for the holder to sign, in seconds: a run takes the lock first and then signs."""
TRIES: Final = 10
"""How often to try again if somebody replaces the lock file meanwhile."""


class Holder(msgspec.Struct, frozen=True):
    """The run that holds a lake, as it has signed the lock file.

    Attributes:
        pid: its process.
        host: the machine of that process.
        since: since when it holds the lake (UTC).
    """

    pid: int
    host: str
    since: datetime


def refuse_unheld() -> None:
    """Raise AssertionError: the check of a table that nobody holds."""
    raise AssertionError("a table is held by whoever commits to it")


@contextmanager
def hold_lock(layout: Layout) -> Iterator[Callable[[], None]]:
    """Hold the lake for writing; give a function that raises LakeLocked once the lake is no longer held.

    Raises:
        LakeLocked: another run holds it; the message names its pid, its host and since when.
        LakeError: there is a link where the lake keeps a folder or a file of its own.
        StorageError: the disk refuses a lock.
        UsageError: the folder is probably a mistake, see `Layout.refuse_mistaken_folder`.
        ConfigurationError: the same.
    """
    layout.refuse_mistaken_folder()
    with disk.name_lake_in_errors(layout.root):
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
    """Keep runs of older versions out of a lake of format 1: they lock another file."""
    if not layout.old.lock.exists():
        yield
        return
    handle = disk.open_lock(layout.old.lock)
    try:
        _flock(layout, handle)
        yield
    finally:
        os.close(handle)


def _acquire(layout: Layout) -> int:
    """Lock the lake's file and return its handle; to close it frees the lock.

    Somebody can replace the file after it was opened and before it is locked: then try the next one. A file with a second
    name, as a backup made of hard links gives it, is replaced: to sign it would change the backup.
    """
    for _ in range(TRIES):
        handle = disk.open_lock(layout.lock)
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
    raise StorageError(f"cannot lock {layout.lock}: another program keeps replacing it")


def _flock(layout: Layout, handle: int) -> None:
    try:
        lock(handle, wait=False)
    except BlockingIOError:
        raise LakeLocked(
            f"{layout.root} is held by another run{_describe_holder(layout, patience=PATIENCE)}; wait for it, or stop it"
        ) from None
    except OSError as exc:
        raise StorageError(f"cannot lock {layout.lock}: {exc.strerror or exc}") from exc


def _is_in_place(layout: Layout, handle: int) -> bool:
    """Return whether the file that was opened is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(handle), layout.lock.lstat())
    except OSError:
        return False


def _refuse_links(layout: Layout) -> None:
    """Raise LakeError if one of the lake's folders is a link: nothing is written or removed through a link."""
    for folder in layout.own_folders():
        if folder.is_symlink():
            raise LakeError(f"{folder} is a link; a lake needs a real folder there. Put one in its place")


def _sign(layout: Layout, handle: int) -> bytes:
    holder = Holder(pid=os.getpid(), host=socket.gethostname(), since=datetime.now(UTC))
    signature = msgspec.json.encode(holder)
    try:
        os.ftruncate(handle, 0)
        os.write(handle, signature)
    except OSError as exc:
        raise StorageError(f"cannot write {layout.lock}: {exc.strerror}") from exc
    return signature


def _unsign(layout: Layout, handle: int, signature: bytes) -> None:
    """Remove the signature and free the lock, if it is still ours.

    Without that, who is refused before the next run has signed would read our name. A child that was forked from the holder
    shares the lock, so it must not free it.
    """
    with suppress(OSError):  # the lake or the disk can be gone; the lock is freed with its handle anyway
        if _is_ours(layout, signature):
            os.ftruncate(handle, 0)
            unlock(handle)


def _remove_prepared(layout: Layout) -> None:
    """Remove the temporary files of runs that were killed, or have lost the lake and could still rename them into place."""
    months = [
        path for path in disk.list_folder(layout.root) if MONTH.fullmatch(path.name) and not path.is_symlink()
    ]
    for folder in (layout.own, layout.snapshots, layout.objects, layout.rejected, *months):
        for path in disk.list_folder(folder):
            if disk.is_temporary(path):
                disk.remove_file(path)
    for path in disk.list_folder(layout.root):
        if path.match(".catalogue-*"):
            disk.remove_tree(path)


def _is_ours(layout: Layout, signature: bytes) -> bool:
    """Return whether this process holds the lake; a child that was forked from the holder does not."""
    try:
        held = disk.read_file(layout.lock) == signature
    except PleoExtractError:
        return False
    return held and strict.decode(signature, Holder).pid == os.getpid()


def _check(layout: Layout, signature: bytes) -> None:
    if not _is_ours(layout, signature):
        raise LakeLocked(
            f"another run{_describe_holder(layout)} has taken over {layout.root} while this one held its lock; "
            "this one publishes nothing"
        )


def _describe_holder(layout: Layout, *, patience: float = 0.0) -> str:
    """Return who holds the lake; an empty text if the holder has not signed within `patience` seconds."""
    end = time.monotonic() + patience
    while True:
        if (holder := _read_holder(layout)) is not None:
            return f" ({format_holder(holder)})"
        if time.monotonic() >= end:
            return ""
        time.sleep(0.01)


def format_holder(holder: Holder) -> str:
    """Return who holds the lake, in words."""
    return f"pid {holder.pid} on {escape(holder.host)}, since {holder.since:%Y-%m-%d %H:%M:%S} UTC"


def find_holder(layout: Layout) -> Holder | None:
    """Return the run that is at work on the lake, or None. The lock is not touched: that could refuse a run that starts.

    A run that was killed leaves its signature behind, so on this machine its process must exist. Windows cannot be asked:
    there, `os.kill` ends the process.
    """
    holder = _read_holder(layout)
    if holder is None or holder.host != socket.gethostname() or IS_WINDOWS:
        return holder
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return None
    except OSError:  # the process of another user
        pass
    return holder


def _read_holder(layout: Layout) -> Holder | None:
    try:
        holder = strict.decode(disk.read_file(layout.lock), Holder)
        if holder.pid <= 0:
            return None
        return msgspec.structs.replace(holder, since=strict.check_instant(holder.since, "since"))
    except (PleoExtractError, strict.Malformed):
        return None
