"""Check that a file system can hold a lake. Done once, when the lake is made."""

from __future__ import annotations

import errno
import secrets
from typing import TYPE_CHECKING, Final

from pleo_extract.errors import ConfigurationError, StorageError
from pleo_extract.lake import disk

if TYPE_CHECKING:
    from pleo_extract.lake.layout import Layout

__all__ = ["require_abilities"]

_INCONCLUSIVE: Final = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EIO,
    errno.EROFS,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.EACCES,
}
"""Errors that say nothing about what the file system can do: it is full, broken, busy, or closed to this user."""


def require_abilities(layout: Layout) -> None:
    """Raise where the file system cannot hold a lake; called before the first list is read, not after hours of reading.

    Hard links are not tried: where they are impossible, files are copied.

    Raises:
        ConfigurationError: the file system lacks something that a lake needs.
        StorageError: the disk is full, broken or not writable.
    """
    what = "a file"
    probe = layout.staging / f"build-{secrets.token_hex(4)}"
    try:
        disk.make_folder(layout.staging, private=True)
        disk.make_folder(probe)
        try:
            disk.write_file(probe / "file", b"")
            what = "a name such as created_month=2026-11"
            disk.make_folder(probe / "created_month=2026-11")
            what = "one file put in place of another"
            disk.replace_file(probe / "file", b"0")
            is_kept = disk.read_file(probe / "file") == b"0"
        finally:
            disk.remove_tree(probe)
    except StorageError as exc:
        cause = exc.__cause__
        if not isinstance(cause, OSError) or cause.errno in _INCONCLUSIVE:
            raise
        raise _unsupported(layout, f"{what} ({cause.strerror})") from exc
    if not is_kept:
        raise _unsupported(layout, f"{what}: the old content is still there")


def _unsupported(layout: Layout, what: str) -> ConfigurationError:
    return ConfigurationError(
        f"the file system of {layout.root} cannot do what a lake needs: {what}. Choose a folder on another file system"
    )
