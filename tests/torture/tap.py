"""A tap between Python and the system: it logs every call that changes a folder, or makes one of them fail.

`Tap` replaces functions of `os`, which pathlib and shutil also call. From its log `power.py` computes what a power
loss could leave.
"""

from __future__ import annotations

import errno
import functools
import os
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Operation", "Tap"]

Operation = tuple[str, str, Any]
"""The operation, its path and its argument: ``open`` (flags), ``write`` (bytes), ``sync``, ``mkdir``, ``rmdir``,
``unlink``, ``replace`` (target), ``link`` (second name), ``symlink`` (target), ``truncate`` (size), ``duckdb`` (bytes of
a database that DuckDB wrote and synced)."""


class Tap:
    """Logs the calls below the folder that holds `lake`, or makes one of them fail.

    Attributes:
        fail: the number of the call that fails, counted from 1, and its errno.
        count: the number of calls so far.
    """

    def __init__(self, lake: Path, fail: tuple[int, int] | None = None) -> None:
        self.base = lake.resolve().parent
        self.fail = fail
        self.log: list[Operation] = []
        self.count = 0
        for name in (
            "open",
            "write",
            "fsync",
            "mkdir",
            "rmdir",
            "unlink",
            "replace",
            "rename",
            "link",
            "symlink",
        ):
            setattr(os, name, self._wrap(name, getattr(os, name)))

    def save(self, file: Path) -> None:
        """Write the log to a file."""
        file.write_bytes(pickle.dumps(self.log))

    def _wrap(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **more: Any) -> Any:
            operation = self._describe(name, args, more)
            if operation is None:
                return function(*args, **more)
            self.count += 1
            if self.fail is not None and self.count == self.fail[0]:
                raise OSError(self.fail[1], os.strerror(self.fail[1]), operation[1])
            if name in {"replace", "rename"} and operation[1].endswith(".duckdb"):
                # DuckDB does not call `os`, but it syncs its files before it closes them: strace shows fdatasync.
                self.log.append(("duckdb", operation[1], Path(operation[1]).read_bytes()))
            result = function(*args, **more)
            if operation[0] == "write":
                operation = ("write", operation[1], bytes(args[1][:result]))
            self.log.append(operation)
            return result

        return call

    def _describe(self, name: str, args: tuple[Any, ...], more: dict[str, Any]) -> Operation | None:
        """Return the operation if it changes something below the base, else None."""
        if name in {"write", "fsync"}:
            path = _path_of(args[0])
            return ("sync" if name == "fsync" else name, path, None) if self._is_ours(path) else None
        path = _resolve(args[0], more.get("dir_fd", more.get("src_dir_fd")))
        if name == "open":
            flags = args[1]
            writes = flags & (os.O_WRONLY | os.O_RDWR)
            return ("open", path, flags) if writes and self._is_ours(path) else None
        if name in {"replace", "rename", "link"}:
            other = _resolve(args[1], more.get("dst_dir_fd"))
            return ("replace" if name == "rename" else name, path, other) if self._is_ours(other) else None
        if name == "symlink":
            other = _resolve(args[1], more.get("dir_fd"))
            return ("symlink", other, os.fspath(args[0])) if self._is_ours(other) else None
        return (name, path, None) if self._is_ours(path) else None

    def _is_ours(self, path: str) -> bool:
        return f"{path}/".startswith(f"{self.base}/")


def _path_of(handle: int) -> str:
    try:
        return str(Path(f"/proc/self/fd/{handle}").readlink()).removesuffix(" (deleted)")
    except OSError as exc:
        if exc.errno in {errno.ENOENT, errno.EMFILE}:
            return ""
        raise


def _resolve(path: Any, folder: int | None) -> str:
    """Return the path with its folder resolved and its last part unchanged."""
    text = os.fspath(path)
    if not isinstance(text, str):
        return ""
    where = Path(_path_of(folder)) / text if folder is not None else Path(text).absolute()
    return str(where.parent.resolve() / where.name)
