"""Data files of a table on this machine. A file never changes under its name, so a copy is good for ever.

What reads a lake reads local Parquet: DuckDB needs no extension and keeps its pushdown, a refresh asks the store for a
file once, and memory stays bounded; the price is disk, about 39 bytes a job.
"""

from __future__ import annotations

import hashlib
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from pleo_extract.errors import LakeError
from pleo_extract.lake import disk
from pleo_extract.lake.folder.verify import has_columns

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from pleo_extract.lake.delta.version import Version
    from pleo_extract.lake.layout import FileEntry

__all__ = ["check_file", "check_sum", "keep_copy", "path_of", "place_files", "remove_stale"]

THREADS: Final = 8
"""Files that are copied at once."""
STALE: Final = 24 * 3600.0
"""Seconds after which a copy goes that no reading has wanted since."""


def path_of(table: Version, entry: FileEntry) -> Path:
    """Where a data file is, or will be, on this machine."""
    address = table.address
    return (address.local if address.local is not None else address.home / "files") / entry.path


def place_files(table: Version, entries: Sequence[FileEntry]) -> tuple[Path, ...]:
    """The paths of these data files, those copied first that are not here yet.

    Raises:
        LakeError: one is missing or not as it was written.
    """
    paths = tuple(path_of(table, entry) for entry in entries)
    if table.address.local is not None:
        for path, entry in zip(paths, entries, strict=True):
            if disk.size_of(path) != entry.bytes:
                raise LakeError(f"{entry.path} of {table.address.uri} is not as it was written; run verify")
        return paths
    missing = [(p, e) for p, e in zip(paths, entries, strict=True) if not _is_here(p, e)]
    if missing:
        with ThreadPoolExecutor(min(THREADS, len(missing))) as pool:
            for _ in pool.map(lambda pair: _copy(table, *pair), missing):
                pass
    _mark_used(paths)
    return paths


def keep_copy(table: Version, entry: FileEntry, data: bytes) -> None:
    """A file that was just written to the store, so that it need not be read from there."""
    if table.address.local is None:
        _write(path_of(table, entry), data)


def check_sum(entry: FileEntry, data: bytes, where: str) -> None:
    """Whether these are the bytes that were written.

    Raises:
        LakeError: they are not; a file of another program's has no sum to go by.
    """
    if entry.sha256 and hashlib.sha256(data).hexdigest() != entry.sha256:
        raise LakeError(f"{entry.path} of {where} changed since it was written (sha256 differs)")


def check_file(table: Version, entry: FileEntry) -> list[str]:
    """One line if this file is not as it was written; asked of the store, not of a copy."""
    try:
        data = table.read(entry.path, entry.bytes)
        check_sum(entry, data, table.address.uri)
    except LakeError as exc:
        return [str(exc)]
    if not has_columns(data):
        return [f"{entry.path}: columns or types are not those of this version"]
    keep_copy(table, entry, data)
    return []


def remove_stale(table: Version, wanted: Iterable[FileEntry]) -> None:
    """Remove copies that nobody has wanted for a day; one that is read at this moment can still be read."""
    folder = table.address.home / "files"
    if table.address.local is not None or not folder.is_dir():
        return
    keep = {path_of(table, entry) for entry in wanted}
    for path in folder.glob("*/*"):
        with suppress(OSError):  # another process may be faster
            if path not in keep and time.time() - path.stat().st_mtime > STALE:
                path.unlink()


def _is_here(path: Path, entry: FileEntry) -> bool:
    return path.is_file() and path.stat().st_size == entry.bytes


def _copy(table: Version, path: Path, entry: FileEntry) -> None:
    data = table.read(entry.path, entry.bytes)
    check_sum(entry, data, table.address.uri)
    _write(path, data)


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all; not synced, since it can be had again."""
    disk.make_folder(path.parent, private=True)
    disk.replace_file(path, data, private=True, durable=False)


def _mark_used(paths: Iterable[Path]) -> None:
    for path in paths:
        with suppress(OSError):
            path.touch()
