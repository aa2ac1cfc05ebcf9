"""Every storage call there is, each made durable where it must be, each failing as StorageError with its path.

The rest of the room calls these and nothing else that writes, so that a test can stop the process before and
after every one of them. No Parquet writer syncs by itself: these do.

Whoever may write to a lake's folder may put anything there. So a file is opened without following a link and without
waiting, and must be a plain file: a link may lead anywhere, and opening a pipe may block for ever. A file is written
beside its place under a name that nobody can guess, and renamed.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import stat
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from pleo_extract.errors import LakeError, PleoExtractError, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "ScratchFile",
    "append_line",
    "fix_file",
    "is_plain",
    "is_prepared",
    "is_same",
    "link_file",
    "list_folder",
    "make_folder",
    "name_lake",
    "open_own",
    "put_file",
    "read_file",
    "remove_file",
    "remove_tree",
    "rename",
    "replace_file",
    "size_of",
    "sum_of",
    "sync_file",
    "sync_folder",
    "write_file",
]


_NOT_PLAIN: Final = (
    "{} is a link, a folder or a pipe, where a lake keeps a plain file; remove it, then run repair"
)
_UNABLE: Final = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EACCES, errno.EPERM}
"""How a file system says that it cannot sync a folder: SMB, many FUSE ones. It then keeps names in an order of its own."""


@contextmanager
def name_lake(lake: str | Path) -> Iterator[None]:
    """Add the lake to a disk error that names only a path outside it, such as the folder above or the temporary one."""
    try:
        yield
    except StorageError as exc:
        if str(lake) not in str(exc):
            exc.args = (f"{lake}: {exc}",)
        raise


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
    """Make the folder and those above it, durably, as open as the umask says; `private` ones to their owner only."""
    missing = [each for each in (path, *path.parents) if not each.exists()]
    with _translated("make", path):
        path.mkdir(parents=True, exist_ok=True, mode=0o700 if private else 0o777)
    with name_lake(path):
        for each in missing:
            sync_folder(each.parent)


def write_file(path: Path, data: bytes | memoryview, *, private: bool = False, fixed: bool = False) -> None:
    """A new file, written and synced; one that is there already, or a link in its place, is an error.

    It is as open as the umask says; a `private` one to its owner only. Nobody is to write to a `fixed` one again.
    """
    _write_new(path, data, 0o600 if private else 0o444 if fixed else 0o666)


def _write_new(path: Path, data: bytes | memoryview, mode: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    with _translated("write", path, memoryview(data).nbytes):
        handle = os.open(path, flags, mode)
        try:
            _write_all(handle, data)
            os.fsync(handle)
        except OSError:
            path.unlink(missing_ok=True)
            raise
        finally:
            os.close(handle)


class ScratchFile:
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
    is_new = not path.exists()
    with _translated("write", path, len(line)):
        handle = _open_plain(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            if os.fstat(handle).st_nlink > 1:  # what it is called elsewhere is not ours to write to
                raise OSError(errno.EMLINK, "it has a second name")
            _write_all(handle, line + b"\n")
            os.fsync(handle)
        finally:
            os.close(handle)
    if is_new:
        sync_folder(path.parent)


def replace_file(
    path: Path, data: bytes, *, private: bool = False, check: Callable[[], None] | None = None
) -> None:
    """A file in place of the one of that name, whole or not at all; `private` as for `write_file`.

    `check` is called when all is prepared; what it raises leaves things as they were.
    """
    beside = _beside(path)
    write_file(beside, data, private=private)
    with _removed_if_unused(beside):
        if check is not None:
            check()
        rename(beside, path)
    sync_folder(path.parent)


def put_file(path: Path, data: bytes) -> None:
    """Write a file that a user has named, outside a lake: whole or not at all, with the rights that the umask leaves.

    A link of that name is replaced, not followed; a pipe or a device is written to, since nothing can take its place.
    """
    with _translated_output(path):
        if path.exists() and not path.is_file():
            with path.open("wb") as device:
                device.write(data)
            return
        beside = _beside(path)
        try:
            _write_new(beside, data, 0o666)
            beside.replace(path)
        except BaseException:
            with suppress(OSError):
                beside.unlink(missing_ok=True)
            raise


@contextmanager
def _translated_output(path: Path) -> Iterator[None]:
    try:
        yield
    except StorageError as exc:  # of the file beside it, whose name says nothing to anybody
        reason = getattr(exc.__cause__, "strerror", None) or exc
        raise StorageError(f"cannot write {path}: {reason}") from exc
    except OSError as exc:
        raise StorageError(f"cannot write {path}: {exc.strerror or type(exc).__name__}") from exc


def _beside(path: Path) -> Path:
    """A name that nobody can have put anything at; a name that fills its folder's limit is cut."""
    name = path.name.encode()[:200].decode(errors="ignore")
    return path.with_name(f".{name}.{secrets.token_hex(8)}.new")


def is_prepared(path: Path) -> bool:
    """Whether this is what a run that was killed was about to rename into place."""
    return path.name.startswith(".") and path.name.endswith(".new")


def link_file(source: Path, target: Path, *, check: Callable[[], None] | None = None) -> None:
    """The same file under a second name, in place of what has that name, synced; a copy where links are not possible.

    A copy is told for one by its size and time, see `is_same`. `check` as for `replace_file`.
    """
    beside = _beside(target)
    with _translated("link", target):
        try:
            beside.hardlink_to(source)
        except OSError:
            _copy(source, beside)
    with _removed_if_unused(beside):
        if check is not None:
            check()
        rename(beside, target)
    sync_folder(target.parent)


def _copy(source: Path, target: Path) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        with (
            os.fdopen(_open_plain(source), "rb") as old,
            os.fdopen(os.open(target, flags, 0o444), "wb") as new,
        ):
            shutil.copyfileobj(old, new, 2**20)
            new.flush()
            there = os.fstat(old.fileno())
            os.utime(new.fileno(), ns=(there.st_atime_ns, there.st_mtime_ns))
            os.fsync(new.fileno())
    except OSError:
        target.unlink(missing_ok=True)
        raise


def fix_file(path: Path) -> None:
    """Take away the right to write to a file, as far as it is ours to take."""
    with _translated("protect", path), suppress(PermissionError):
        path.chmod(path.lstat().st_mode & 0o444)


def is_plain(path: Path) -> bool:
    """Whether this is a plain file, and no link to one."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def is_same(path: Path, other: Path) -> bool:
    """Whether these are two names of one plain file, or one is a copy of the other as far as size and time tell."""
    try:
        one, two = path.lstat(), other.lstat()
    except OSError:
        return False
    if not stat.S_ISREG(one.st_mode) or not stat.S_ISREG(two.st_mode):
        return False
    return os.path.samestat(one, two) or (one.st_size, one.st_mtime_ns) == (two.st_size, two.st_mtime_ns)


def rename(source: Path, target: Path) -> None:
    """Rename; the caller syncs the folders."""
    with _translated("rename", target):
        source.replace(target)


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
    """Make the names in a folder durable, as far as its file system can."""
    with _translated("sync", path):
        try:
            _sync(path)
        except OSError as exc:
            if exc.errno not in _UNABLE:
                raise


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
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise LakeError(f"{path} is missing from the lake. Run verify to see what else is") from exc
    except OSError as exc:
        if exc.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise LakeError(_NOT_PLAIN.format(path)) from exc
        raise StorageError(f"cannot read {path}: {exc.strerror or type(exc).__name__}") from exc


def _open_plain(path: Path, flags: int = os.O_RDONLY, mode: int = 0o600) -> int:
    """Open a plain file; a link is ELOOP, everything else that is none is EISDIR, and nothing blocks."""
    handle = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, mode)
    if stat.S_ISREG(os.fstat(handle).st_mode):
        return handle
    os.close(handle)
    raise IsADirectoryError(errno.EISDIR, "it is no plain file", str(path))


def read_file(path: Path) -> bytes:
    """All bytes of a file.

    Raises:
        LakeError: it is not there, or no plain file. StorageError: it cannot be read.
    """
    with _translated_reading(path), os.fdopen(_open_plain(path), "rb") as file:
        return file.read()


def sum_of(path: Path) -> str:
    """The sha256 of a file, read a little at a time; raises as `read_file` does."""
    with _translated_reading(path), os.fdopen(_open_plain(path), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def size_of(path: Path) -> int:
    """Bytes of a file; raises as `read_file` does."""
    with _translated_reading(path):
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, "it is no plain file", str(path))
        return found.st_size


def open_own(path: Path) -> int:
    """Open a file to read and write, made where there is none; its bytes stay.

    Raises:
        LakeError: it is no plain file. StorageError: it cannot be opened.
    """
    with _translated("open", path):
        try:
            return _open_plain(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as exc:
            if exc.errno in (errno.ELOOP, errno.EISDIR):
                raise LakeError(_NOT_PLAIN.format(path)) from exc
            raise


def list_folder(path: Path) -> list[Path]:
    """What lies in a folder, by name; nothing where there is no folder."""
    with _translated("read", path):
        return sorted(path.iterdir()) if path.is_dir() else []


def remove_file(path: Path) -> None:
    """Remove a file or link, if it is there."""
    with _translated("remove", path):
        path.unlink(missing_ok=True)


def remove_tree(path: Path) -> None:
    """Remove what is there, a folder with all that is in it; links are removed, never followed."""
    with _translated("remove", path):
        try:
            is_folder = stat.S_ISDIR(path.lstat().st_mode)
        except FileNotFoundError:
            return
        if is_folder:
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
