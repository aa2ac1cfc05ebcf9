"""Every storage call there is, each made durable where it must be, each failing as StorageError with its path.

The rest of the room calls these and nothing else that writes, so that a test can stop the process before and
after every one of them. No Parquet writer syncs by itself: these do.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pleo_extract.errors import LakeError, PleoExtractError, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "Scratch",
    "append_line",
    "link_file",
    "make_folder",
    "make_link",
    "read_file",
    "remove_file",
    "remove_tree",
    "rename",
    "replace_file",
    "size_of",
    "sum_of",
    "swap_link",
    "sync_file",
    "sync_folder",
    "write_file",
]


@contextmanager
def _translated(verb: str, path: Path, size: int | None = None) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        bytes_ = f" ({size} bytes)" if size is not None else ""
        reason = exc.strerror or type(exc).__name__
        raise StorageError(
            f"cannot {verb} {path}{bytes_}: {reason}. Nothing was published; see to the disk and run again"
        ) from exc


def make_folder(path: Path, *, private: bool = False) -> None:
    """Make the folder and those above it, durably; `private` ones are open to their owner only."""
    missing = [each for each in (path, *path.parents) if not each.exists()]
    with _translated("make", path):
        path.mkdir(parents=True, exist_ok=True, mode=0o700 if private else 0o755)
    for each in missing:
        sync_folder(each.parent)


def write_file(path: Path, data: bytes | memoryview, *, private: bool = False) -> None:
    """A new file, written and synced; one that is there already, or a link in its place, is an error."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    with _translated("write", path, memoryview(data).nbytes):
        handle = os.open(path, flags, 0o600 if private else 0o644)
        try:
            _write_all(handle, data)
            os.fsync(handle)
        except OSError:
            path.unlink(missing_ok=True)
            raise
        finally:
            os.close(handle)


class Scratch:
    """A file without a name, gone at the end; in this machine's temporary folder, for a lake that may only be read."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or Path(tempfile.gettempdir())
        self._size = 0

    def __enter__(self) -> Self:
        with _translated("make a file in", self._folder):
            self._file = tempfile.TemporaryFile(dir=self._folder)
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, data: bytes) -> tuple[int, int]:
        """Write this; returns where it is, for `read`."""
        place = self._size, len(data)
        with _translated("write to", self._folder, len(data)):
            _write_all(self._file.fileno(), data)
        self._size += len(data)
        return place

    def read(self, start: int, size: int) -> bytes:
        """What was added there."""
        with _translated("read from", self._folder):
            return os.pread(self._file.fileno(), size, start)


def _write_all(handle: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


def append_line(path: Path, line: bytes) -> None:
    """One more line of a private file, synced; the file is made where there is none."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    is_new = not path.exists()
    with _translated("write", path, len(line)):
        handle = os.open(path, flags, 0o600)
        try:
            _write_all(handle, line + b"\n")
            os.fsync(handle)
        finally:
            os.close(handle)
    if is_new:
        sync_folder(path.parent)


def replace_file(path: Path, data: bytes, *, check: Callable[[], None] | None = None) -> None:
    """A private file in place of the one of that name, whole or not at all.

    `check` is called when all is prepared; what it raises leaves things as they were.
    """
    beside = path.with_name(f".{path.name}.new")
    remove_file(beside)
    write_file(beside, data, private=True)
    with _removed_if_unused(beside):
        if check is not None:
            check()
        rename(beside, path)
    sync_folder(path.parent)


def link_file(source: Path, target: Path) -> None:
    """The same file under a second name; a copy where links are not possible."""
    with _translated("link", target):
        try:
            target.hardlink_to(source)
        except OSError:
            _copy(source, target)


def _copy(source: Path, target: Path) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        with source.open("rb") as old, os.fdopen(os.open(target, flags, 0o644), "wb") as new:
            shutil.copyfileobj(old, new, 2**20)
            new.flush()
            os.fsync(new.fileno())
    except OSError:
        target.unlink(missing_ok=True)
        raise


def rename(source: Path, target: Path) -> None:
    """Rename; the caller syncs the folders."""
    with _translated("rename", target):
        source.replace(target)


def swap_link(link: Path, target: str, *, check: Callable[[], None] | None = None) -> None:
    """Point `link` to `target` (relative), in one step, synced; `check` as for `replace_file`."""
    beside = link.with_name(f".{link.name}.new")
    remove_file(beside)
    make_link(beside, target)
    with _removed_if_unused(beside):
        if check is not None:
            check()
        rename(beside, link)
    sync_folder(link.parent)


def make_link(link: Path, target: str) -> None:
    """A new link to `target` (relative)."""
    with _translated("make", link):
        link.symlink_to(target)


@contextmanager
def _removed_if_unused(beside: Path) -> Iterator[None]:
    try:
        yield
    except PleoExtractError:
        with suppress(StorageError):
            remove_file(beside)
        raise


def sync_file(path: Path) -> None:
    """Make a file durable that another library has written."""
    with _translated("sync", path):
        _sync(path)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    with _translated("sync", path):
        _sync(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _translated_reading(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as exc:
        raise LakeError(f"{path} is missing from the lake. Run verify to see what else is") from exc
    except OSError as exc:
        raise StorageError(f"cannot read {path}: {exc.strerror or type(exc).__name__}") from exc


def read_file(path: Path) -> bytes:
    """All bytes of a file.

    Raises:
        LakeError: it is not there. StorageError: it cannot be read.
    """
    with _translated_reading(path):
        return path.read_bytes()


def sum_of(path: Path) -> str:
    """The sha256 of a file, read a little at a time; raises as `read_file` does."""
    with _translated_reading(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def size_of(path: Path) -> int:
    """Bytes of a file; raises as `read_file` does."""
    with _translated_reading(path):
        return path.stat().st_size


def remove_file(path: Path) -> None:
    """Remove a file or link, if it is there."""
    with _translated("remove", path):
        path.unlink(missing_ok=True)


def remove_tree(path: Path) -> None:
    """Remove a folder and what is in it, if it is there; links in it are removed, never followed."""
    with _translated("remove", path):
        if path.is_symlink():
            path.unlink()
        elif path.exists():
            shutil.rmtree(path)
