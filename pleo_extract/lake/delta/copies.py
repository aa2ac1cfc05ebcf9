"""Copies of a table's data files on this machine. A file never changes under its name, so a copy never goes stale.

Readers of a lake read local Parquet only: DuckDB needs no extension and keeps its pushdown, a file is read from the store
once, and memory stays bounded. The price is disk, about 39 bytes a job.
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

__all__ = ["check_file", "check_sum", "keep_copy", "path_of", "place_files", "remove_copies", "remove_stale"]

THREADS: Final = 8
"""How many files are copied in parallel."""
STALE: Final = 24 * 3600.0
"""Seconds after its last use when a copy that the current version does not need is removed."""


def path_of(table: Version, entry: FileEntry) -> Path:
    """Return the path of a data file on this machine, whether or not it is there yet."""
    address = table.address
    return (address.local if address.local is not None else address.home / "files") / entry.path


def place_files(table: Version, entries: Sequence[FileEntry]) -> tuple[Path, ...]:
    """Return the local paths of data files, after copying those that are not on this machine yet.

    Raises:
        LakeError: a file is missing or was changed since it was written.
    """
    paths = tuple(path_of(table, entry) for entry in entries)
    if table.address.local is not None:
        for path, entry in zip(paths, entries, strict=True):
            if disk.size_of(path) != entry.bytes:
                raise LakeError(
                    f"{entry.path} of {table.address.uri} was changed since it was written; run verify"
                )
        return paths
    missing = [(p, e) for p, e in zip(paths, entries, strict=True) if not _has_copy(p, e)]
    if missing:
        with ThreadPoolExecutor(min(THREADS, len(missing))) as pool:
            for _ in pool.map(lambda pair: _copy_file(table, *pair), missing):
                pass
    for path in paths:
        with suppress(OSError):
            path.touch()  # the time of its last use, see STALE
    return paths


def keep_copy(table: Version, entry: FileEntry, data: bytes) -> None:
    """Keep a copy of a file that was just written to the store, so that it need not be read from there."""
    if table.address.local is None:
        _write_copy(path_of(table, entry), data)


def check_sum(entry: FileEntry, data: bytes, where: str) -> None:
    """Raise unless these bytes have the sha256 of the entry; a file of another program has none to compare with.

    Raises:
        LakeError: the file was changed since it was written.
    """
    if entry.sha256 and hashlib.sha256(data).hexdigest() != entry.sha256:
        raise LakeError(f"{entry.path} of {where} changed since it was written (sha256 differs)")


def check_file(table: Version, entry: FileEntry) -> list[str]:
    """Return one line if a file in the store, not its copy, is missing or was changed since it was written."""
    try:
        data = table.read(entry.path, entry.bytes)
        check_sum(entry, data, table.address.uri)
    except LakeError as exc:
        return [str(exc)]
    if not has_columns(data, others=True):
        return [f"{entry.path}: columns or types are not those of this version"]
    keep_copy(table, entry, data)
    return []


def remove_copies(table: Version, wanted: Iterable[FileEntry]) -> None:
    """Remove this machine's copies of all files but `wanted`; a program that has one open can read it to its end.

    Raises:
        StorageError: a copy cannot be removed.
    """
    for path in _list_unwanted(table, wanted):
        disk.remove_file(path)


def remove_stale(table: Version, wanted: Iterable[FileEntry]) -> None:
    """Remove the same copies as `remove_copies`, as far as possible, if nobody used them for a day."""
    for path in _list_unwanted(table, wanted):
        with suppress(OSError):  # another process may remove it first
            if time.time() - path.stat().st_mtime > STALE:
                path.unlink()


def _list_unwanted(table: Version, wanted: Iterable[FileEntry]) -> list[Path]:
    if table.address.local is not None:
        return []
    keep = {path_of(table, entry) for entry in wanted}
    return [path for path in (table.address.home / "files").glob("*/*") if path not in keep]


def _has_copy(path: Path, entry: FileEntry) -> bool:
    return path.is_file() and path.stat().st_size == entry.bytes


def _copy_file(table: Version, path: Path, entry: FileEntry) -> None:
    data = table.read(entry.path, entry.bytes)
    check_sum(entry, data, table.address.uri)
    _write_copy(path, data)


def _write_copy(path: Path, data: bytes) -> None:
    """Write a copy; it is not synced, since the store has it."""
    disk.make_folder(path.parent, private=True)
    disk.replace_file(path, data, private=True, durable=False)
