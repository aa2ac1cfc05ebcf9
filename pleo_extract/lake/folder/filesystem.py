"""What a lake needs of the file system that it lies on, tried once, when the lake is made."""

from __future__ import annotations

import errno
import secrets
from typing import TYPE_CHECKING, Final

from pleo_extract.errors import ConfigurationError, StorageError
from pleo_extract.lake import disk

if TYPE_CHECKING:
    from pleo_extract.lake.layout import Layout

__all__ = ["require_abilities"]

_DISK: Final = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EIO,
    errno.EROFS,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.EACCES,
}
"""What a disk says that could hold a lake, only not now, or not for us."""


def require_abilities(layout: Layout) -> None:
    """Try what a lake needs of its file system, before the first list is read and not after.

    Hard links are not among it: where they are not possible, files are copied.

    Raises:
        ConfigurationError: it cannot do that. StorageError: the disk refuses.
    """
    what = "a file"
    trial = layout.staging / f"build-{secrets.token_hex(4)}"
    try:
        disk.make_folder(layout.staging, private=True)
        disk.make_folder(trial)
        try:
            disk.write_file(trial / "file", b"")
            what = "a name such as created_month=2026-11"
            disk.make_folder(trial / "created_month=2026-11")
            what = "one file put in place of another"
            disk.replace_file(trial / "file", b"0")
            is_kept = disk.read_file(trial / "file") == b"0"
        finally:
            disk.remove_tree(trial)
    except StorageError as exc:
        cause = exc.__cause__
        if not isinstance(cause, OSError) or cause.errno in _DISK:
            raise
        raise _refusal(layout, f"{what} ({cause.strerror})") from exc
    if not is_kept:
        raise _refusal(layout, f"{what}: it is something else afterwards")


def _refusal(layout: Layout, what: str) -> ConfigurationError:
    return ConfigurationError(
        f"{layout.root} lies on a file system that cannot do what a lake needs: {what}. Name a folder elsewhere"
    )
