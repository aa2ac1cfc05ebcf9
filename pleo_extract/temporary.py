"""Temporary folders, and removing those that killed processes left behind."""

from __future__ import annotations

import functools
import os
import shutil
import stat
import tempfile
import time
from contextlib import suppress
from typing import Final

__all__ = ["make_temporary_folder", "temporary_folder"]

PREFIX: Final = ".pleo-extract-"
SUFFIX: Final = ".tmp"
"""A name that no user gives to a folder of data: what has it, and is old, is removed."""
ABANDONED_SECONDS: Final = 7 * 86_400
"""The age at which a folder belongs to no running process. A connection can use one for days, and survives its loss."""


def temporary_folder() -> tempfile.TemporaryDirectory[str]:
    """Return a new temporary folder as a context, at whose end it is removed.

    Raises:
        OSError: there is no room for it, or no folder for temporary files.
    """
    _remove_abandoned()
    return tempfile.TemporaryDirectory(SUFFIX, PREFIX)


def make_temporary_folder() -> str:
    """Return the path of a new temporary folder, which the caller removes; the errors are those of `temporary_folder`."""
    _remove_abandoned()
    return tempfile.mkdtemp(SUFFIX, PREFIX)


@functools.cache
def _remove_abandoned() -> None:
    """Remove what processes of this user left behind that were killed, once a process."""
    # Some machines let nobody list the folder; then they stay.
    with suppress(OSError), os.scandir(tempfile.gettempdir()) as entries:
        for entry in entries:
            if entry.name.startswith(PREFIX) and entry.name.endswith(SUFFIX) and _is_abandoned(entry):
                shutil.rmtree(entry.path, ignore_errors=True)


def _is_abandoned(entry: os.DirEntry[str]) -> bool:
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError:  # its process has removed it
        return False
    is_ours = not hasattr(os, "getuid") or status.st_uid == os.getuid()
    return is_ours and stat.S_ISDIR(status.st_mode) and status.st_mtime < time.time() - ABANDONED_SECONDS
