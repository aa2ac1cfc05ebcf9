"""Every call of the disk that a lake makes: durable where it must be, and failing as StorageError with its path.

Theory of operation. A process can be killed between any two calls, and a power loss also undoes what was not synced: the
bytes of a file until the file is synced, and a name in a folder (of a new file, a rename, a removal) until the folder is
synced. No order is kept between the two. No Parquet writer syncs by itself. So each kind of change has its own order:

- A file is replaced in four steps (`replace_file`): write the bytes to a temporary file beside it, sync that file, rename
  it, sync the folder. The rename comes after the bytes are on the disk, so the name leads to the old file or to the new
  one, never to half of one. Between the second and the third step runs the caller's `check`: a process that was paused
  and has lost the lock meanwhile must not put anything in place.
- A new file that nobody looks for yet (`write_file`) is synced under its own name. Its caller syncs the folder once, after
  the last of many files, and only then writes what names them.
- A line is added to a journal by one write and one sync (`append_line`). A power loss can leave half a line at the end: its
  reader stops there.
- A removal is not synced. If it is undone, the next run removes the same file again.

What a kill or a power loss leaves behind is a temporary file, named so that `is_temporary` knows it; the next run that
takes the lock removes it. tests/torture/power.py simulates a disk that keeps only what was synced, for a loss of power
after each call.

Whoever may write to a lake's folder can put anything there. So a file is opened without following a link and without
blocking, and must be a plain file: a link can lead anywhere, and opening a pipe can block for ever. A temporary file has a
name that nobody can guess, so that nobody can put a link there in advance.

Windows is another matter: it replaces and removes no file that is read-only or that a program has open. So files are not
made read-only there, and what a reader has open is tried again for `PATIENCE` seconds.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import secrets
import shutil
import stat
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from pleo_extract.errors import LakeError, StorageError
from pleo_extract.system import IS_WINDOWS, sync
from pleo_extract.temporary import temporary_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import polars as pl

__all__ = [
    "ScratchFile",
    "append_line",
    "has_folder",
    "hash_file",
    "is_plain",
    "is_same",
    "is_temporary",
    "link_file",
    "list_folder",
    "make_folder",
    "name_lake_in_errors",
    "open_lock",
    "open_output",
    "protect_file",
    "read_file",
    "remove_file",
    "remove_tree",
    "rename",
    "replace_file",
    "size_of",
    "sync_file",
    "sync_folder",
    "touch_file",
    "write_beside",
    "write_file",
    "write_output",
]


_NOT_PLAIN: Final = (
    "{} is a link, a folder or a pipe where a lake keeps a plain file; remove it, then run repair"
)
_CANNOT_SYNC_FOLDERS: Final = {
    errno.EINVAL,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
    errno.ENOSYS,
    errno.EACCES,
    errno.EPERM,
}
"""How SMB and many FUSE file systems say that they cannot sync a folder: no reason to have no lake there.

They write names in an order of their own, so a power loss there can cost the last snapshot."""
_SAFE: Final = sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_BINARY"))
"""Flags for every file: a system has only some of them."""
_READ_ONLY: Final = 0o666 if IS_WINDOWS else 0o444
PATIENCE: Final = 5.0
"""How long a file is tried to be replaced or removed that a reader has open, in seconds. On Windows only."""
_TICK: Final = 0.05
_FULL: Final = "Free space on the disk and run again"
_FORBIDDEN: Final = "Give this user the right to write there, or name another place"
_OCCUPIED: Final = "A file is in the place of a folder: check the path, or in a lake run pleo-extract repair"
_EXHAUSTED: Final = "Close files, or raise the limit of open files, and run again"
_ADVICE: Final = {
    errno.ENOSPC: _FULL,
    getattr(errno, "EDQUOT", errno.ENOSPC): _FULL,  # not on Windows
    errno.EROFS: "That disk is mounted read-only: mount it for writing, or name another place",
    errno.EACCES: _FORBIDDEN,
    errno.EPERM: _FORBIDDEN,
    errno.ENOTDIR: _OCCUPIED,
    errno.EEXIST: _OCCUPIED,
    errno.EMFILE: _EXHAUSTED,
    errno.ENFILE: _EXHAUSTED,
    errno.ENAMETOOLONG: "Name a shorter path",
    errno.ENOENT: "Another program may have removed it: run again",
}
"""What to do about an error of the system, by its number."""
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _SAFE


@contextmanager
def name_lake_in_errors(lake: str | Path) -> Iterator[None]:
    """Add the lake to a disk error that names only a path outside it, such as the folder above or the temporary folder."""
    try:
        yield
    except StorageError as exc:
        if str(lake) not in str(exc):
            exc.args = (f"{lake}: {exc}",)
        raise


@contextmanager
def _translate_errors(verb: str, path: Path, size: int | None = None) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        amount = f" ({size} bytes)" if size is not None else ""
        reason = exc.strerror or type(exc).__name__
        advice = _ADVICE.get(exc.errno or 0, "Repair the disk and run again")
        is_read = verb.startswith("read")
        if is_read and advice == _FORBIDDEN:
            advice = "Give this user the right to read there"
        kept = "" if is_read else "; what was published stays"
        raise StorageError(f"cannot {verb} {path}{amount}: {reason}. {advice}{kept}") from exc


def make_folder(path: Path, *, private: bool = False) -> None:
    """Make a folder and the missing ones above it, and sync each into its parent.

    The folder follows the umask; a `private` one is for its owner only.
    """
    missing = [each for each in (path, *path.parents) if not each.exists()]
    with _translate_errors("make", path):
        path.mkdir(parents=True, exist_ok=True, mode=0o700 if private else 0o777)
    with name_lake_in_errors(path):
        for each in missing:
            sync_folder(each.parent)


def write_file(
    path: Path,
    data: bytes | memoryview,
    *,
    private: bool = False,
    read_only: bool = False,
    durable: bool = True,
) -> None:
    """Write a new file and sync it; the caller syncs the folder.

    Args:
        path: the file; it is an error if anything is there, a link included.
        data: its bytes.
        private: makes it readable by its owner only; else it follows the umask.
        read_only: makes it read-only for everybody, its owner too.
        durable: False for a file that is worth less than a sync, since it can be had again.
    """
    with _translate_errors("write", path, memoryview(data).nbytes):
        handle = os.open(path, _NEW, 0o600 if private else _READ_ONLY if read_only else 0o666)
        try:
            _write_all(handle, data)
            if durable:
                sync(handle)
        except OSError:
            path.unlink(missing_ok=True)
            raise
        finally:
            os.close(handle)


class ScratchFile:
    """A file of frames without a name, which goes with its process.

    It lies in the folder given, or in this machine's temporary folder for a lake that may only be read. Frames are read
    by their offset: a file that polars maps counts as memory of this process, up to 2.4 GB for a month of 2.8 million
    rows.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or Path(tempfile.gettempdir())
        self._size = 0

    def __enter__(self) -> Self:
        with _translate_errors("make a file in", self._folder):
            self._file = tempfile.TemporaryFile(dir=self._folder, buffering=0)
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, frame: pl.DataFrame) -> tuple[int, int]:
        """Write a frame; return its place, for `read`."""
        buffer = io.BytesIO()
        frame.write_ipc_stream(buffer, compression="uncompressed")
        data = buffer.getvalue()
        place = self._size, len(data)
        with _translate_errors("write to", self._folder, len(data)):
            self._file.seek(self._size)
            _write_all(self._file.fileno(), data)
        self._size += len(data)
        return place

    def read(self, start: int, size: int) -> pl.DataFrame:
        """Return the frame at this place."""
        import polars as pl  # noqa: PLC0415 - the command line imports this file where it needs no frames

        with _translate_errors("read from", self._folder):
            self._file.seek(start)
            data = self._file.read(size)
        return pl.read_ipc_stream(io.BytesIO(data))


def _write_all(handle: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


def append_line(path: Path, line: bytes) -> None:
    """Append a line to a private file and sync it; make the file if it is missing."""
    is_new = not path.exists()
    with _translate_errors("write", path, len(line)):
        handle = _open_plain(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            # A backup made of hard links shares the file with us: writing here would change the backup.
            if os.fstat(handle).st_nlink > 1:
                raise OSError(errno.EMLINK, "it has a second name")
            _write_all(handle, line + b"\n")
            sync(handle)
        finally:
            os.close(handle)
    if is_new:
        sync_folder(path.parent)


@contextmanager
def write_beside(path: Path, *, check: Callable[[], None] | None = None) -> Iterator[Path]:
    """Give a temporary path beside `path` to write to, and rename it to `path` when the block ends.

    The caller syncs. If the block or `check`, which runs before the rename, raises, then the temporary file is removed and
    `path` stays as it was.
    """
    name = path.name.encode()[:200].decode(errors="ignore")  # file systems allow 255 bytes
    beside = path.with_name(f".{name}.{secrets.token_hex(8)}.new")
    try:
        yield beside
        if check is not None:
            check()
        rename(beside, path)
    except BaseException:
        with suppress(StorageError):
            remove_file(beside)
        raise


def is_temporary(path: Path) -> bool:
    """Return whether this is a file of `write_beside`, left by a run that was killed before the rename."""
    return path.name.startswith(".") and path.name.endswith(".new")


def replace_file(
    path: Path,
    data: bytes,
    *,
    private: bool = False,
    durable: bool = True,
    check: Callable[[], None] | None = None,
) -> None:
    """Write a file in place of the one of that name, whole or not at all, and sync it.

    Args:
        path: the file.
        data: its bytes.
        private: as for `write_file`.
        durable: as for `write_file`.
        check: runs when everything is ready for the rename; if it raises, the old file stays.
    """
    with write_beside(path, check=check) as beside:
        write_file(beside, data, private=private, durable=durable)
    if durable:
        sync_folder(path.parent)


@contextmanager
def open_output(path: Path) -> Iterator[Path]:
    """Give a path to write the file at that a user has named, outside a lake; put it in place when the block ends.

    The file appears whole or not at all. A link of that name is replaced, not followed. A pipe or a device cannot be
    replaced, so the bytes are written to it.

    Raises:
        StorageError: the file cannot be written.
    """
    if not path.parent.is_dir():
        what = "is a file" if path.parent.is_file() else "does not exist"
        raise StorageError(f"cannot write {path}: the folder {path.parent} {what}")
    try:
        if path.exists() and not path.is_file():
            with temporary_folder() as folder, path.open("wb") as device:
                yield Path(folder, "output")
                with Path(folder, "output").open("rb") as written:
                    shutil.copyfileobj(written, device)
            return
        with write_beside(path) as beside:
            yield beside
    except StorageError as exc:  # it names the temporary file, which tells the user nothing
        reason = getattr(exc.__cause__, "strerror", None) or exc
        raise StorageError(f"cannot write {path}: {reason}") from exc
    except OSError as exc:
        raise StorageError(f"cannot write {path}: {exc.strerror or type(exc).__name__}") from exc


def write_output(path: Path, data: bytes) -> None:
    """Write a file that a user has named, see `open_output`; it follows the umask."""
    with open_output(path) as place:
        write_file(place, data)


def link_file(source: Path, target: Path, *, check: Callable[[], None] | None = None) -> None:
    """Give a file a second name, in place of what has that name, and sync the folder.

    Where hard links are not possible the file is copied, with its time: `is_same` knows a copy by size and time. `check` is
    that of `replace_file`.
    """
    with write_beside(target, check=check) as beside, _translate_errors("link", target):
        try:
            beside.hardlink_to(source)
        except OSError:
            _copy(source, beside)
    sync_folder(target.parent)


def _copy(source: Path, target: Path) -> None:
    with (
        os.fdopen(_open_plain(source), "rb") as old,
        os.fdopen(os.open(target, _NEW, _READ_ONLY), "wb") as new,
    ):
        shutil.copyfileobj(old, new, 2**20)
        new.flush()
        found = os.fstat(old.fileno())
        os.utime(new.fileno(), ns=(found.st_atime_ns, found.st_mtime_ns))
        sync(new.fileno())


def touch_file(path: Path) -> None:
    """Give a file the current time; one that belongs to another user keeps its own."""
    with _translate_errors("touch", path), suppress(PermissionError):
        os.utime(path)


def protect_file(path: Path) -> None:
    """Make a file read-only; one that belongs to another user stays as it is."""
    if IS_WINDOWS:
        return
    with _translate_errors("protect", path), suppress(PermissionError):
        path.chmod(path.lstat().st_mode & 0o444)


def is_plain(path: Path) -> bool:
    """Return whether this is a plain file, and no link to one."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def is_same(path: Path, other: Path) -> bool:
    """Return whether these are two names of one plain file, or copies of one, as far as size and time tell."""
    try:
        one, two = path.lstat(), other.lstat()
    except OSError:
        return False
    if not stat.S_ISREG(one.st_mode) or not stat.S_ISREG(two.st_mode):
        return False
    return os.path.samestat(one, two) or (one.st_size, one.st_mtime_ns) == (two.st_size, two.st_mtime_ns)


def rename(source: Path, target: Path) -> None:
    """Rename a file or folder; the caller syncs the folders."""
    with _translate_errors("rename", target):
        _insist(lambda: source.replace(target))


def _insist(change: Callable[[], object]) -> None:
    """Change a file, again and again on Windows while a reader has it open."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            change()
        except PermissionError:
            if not IS_WINDOWS or time.monotonic() >= end:
                raise
            time.sleep(_TICK)
        else:
            return


def sync_file(path: Path) -> None:
    """Make a file durable that another library has written."""
    with _translate_errors("sync", path):
        _sync_path(path, os.O_RDWR if IS_WINDOWS else os.O_RDONLY)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable, as far as its file system can."""
    with _translate_errors("sync", path):
        try:
            _sync_path(path, os.O_RDONLY)
        except OSError as exc:
            if exc.errno not in _CANNOT_SYNC_FOLDERS:
                raise


def _sync_path(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        sync(handle)
    finally:
        os.close(handle)


@contextmanager
def _translate_read_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise LakeError(f"{path} is missing from the lake. Run verify to see what else is missing") from exc
    except OSError as exc:
        if exc.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise LakeError(_NOT_PLAIN.format(path)) from exc
        raise StorageError(f"cannot read {path}: {exc.strerror or type(exc).__name__}") from exc


def _open_plain(path: Path, flags: int = os.O_RDONLY, mode: int = 0o600) -> int:
    """Open a plain file without blocking.

    Raises:
        OSError: ELOOP for a link, EISDIR for anything else that is not a plain file.
    """
    handle = os.open(path, flags | _SAFE | getattr(os, "O_NONBLOCK", 0), mode)
    if stat.S_ISREG(os.fstat(handle).st_mode):
        return handle
    os.close(handle)
    raise IsADirectoryError(errno.EISDIR, "not a plain file", str(path))


def read_file(path: Path) -> bytes:
    """Return all bytes of a file.

    Raises:
        LakeError: the file is missing, or not a plain file.
        StorageError: it cannot be read.
    """
    with _translate_read_errors(path), os.fdopen(_open_plain(path), "rb") as file:
        return file.read()


def hash_file(path: Path) -> str:
    """Return the sha256 of a file, in hex; raise as `read_file` does."""
    with _translate_read_errors(path), os.fdopen(_open_plain(path), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def size_of(path: Path) -> int:
    """Return the size of a file in bytes; raise as `read_file` does."""
    with _translate_read_errors(path):
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, "not a plain file", str(path))
        return found.st_size


def open_lock(path: Path) -> int:
    """Open a file to read and write, and make it if it is missing; its bytes stay. Return the handle.

    Raises:
        LakeError: it is not a plain file.
        StorageError: it cannot be opened.
    """
    with _translate_errors("open", path):
        try:
            return _open_plain(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as exc:
            if exc.errno in (errno.ELOOP, errno.EISDIR):
                raise LakeError(_NOT_PLAIN.format(path)) from exc
            raise


def list_folder(path: Path) -> list[Path]:
    """Return what lies in a folder, sorted by name; an empty list if there is no folder."""
    with _translate_errors("read", path):
        return sorted(path.iterdir()) if path.is_dir() else []


def has_folder(path: Path, *names: str) -> bool:
    """Return whether one of these folders lies in a folder; False if there is no such folder.

    Raises:
        StorageError: this user may not look into it; `Path.is_dir` raises or returns False, by the version of Python.
    """
    with _translate_errors("read", path):
        for name in names:
            with suppress(FileNotFoundError, NotADirectoryError):
                if stat.S_ISDIR((path / name).stat().st_mode):
                    return True
    return False


def remove_file(path: Path) -> None:
    """Remove a file or link, if it is there."""
    with _translate_errors("remove", path):
        _insist(lambda: path.unlink(missing_ok=True))


def remove_tree(path: Path) -> None:
    """Remove a file or a folder with all that is in it, if it is there; links are removed, never followed."""
    with _translate_errors("remove", path):
        try:
            is_folder = stat.S_ISDIR(path.lstat().st_mode)
        except FileNotFoundError:
            return
        if is_folder:
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
