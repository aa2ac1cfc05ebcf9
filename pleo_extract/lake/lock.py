"""One writer at a time: flock on `_lock`, which says who holds it. It is freed with its holder, however that ends."""

from __future__ import annotations

import os
import socket
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import filelock
import msgspec

from pleo_extract.errors import LakeLocked, StorageError, escape
from pleo_extract.lake import disk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pleo_extract.lake.layout import Layout

__all__ = ["hold_lock"]


class _Holder(msgspec.Struct):
    pid: int
    host: str
    since: datetime


@contextmanager
def hold_lock(layout: Layout) -> Iterator[None]:
    """Hold the lake for writing.

    Raises:
        LakeLocked: another run holds it; the message names its pid, host and since when.
    """
    disk.make_folder(layout.root)
    lock = filelock.FileLock(layout.lock, timeout=0, mode=0o600, fallback_to_soft=False)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise LakeLocked(
            f"{layout.root} is held by another run{_describe(layout)}; wait for it, or stop it"
        ) from None
    except OSError as exc:
        raise StorageError(f"cannot lock {layout.lock}: {exc.strerror or exc}") from exc
    try:
        _sign(layout)
        yield
    finally:
        lock.release()


def _sign(layout: Layout) -> None:
    holder = _Holder(pid=os.getpid(), host=socket.gethostname(), since=datetime.now(UTC))
    try:
        layout.lock.write_bytes(msgspec.json.encode(holder))
    except OSError as exc:
        raise StorageError(f"cannot write {layout.lock}: {exc.strerror}") from exc


def _describe(layout: Layout) -> str:
    try:
        holder = msgspec.json.decode(layout.lock.read_bytes(), type=_Holder)
    except (OSError, msgspec.DecodeError):
        return ""
    return f" (pid {holder.pid} on {escape(holder.host)}, since {holder.since:%Y-%m-%d %H:%M:%S} UTC)"
