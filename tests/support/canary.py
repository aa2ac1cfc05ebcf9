"""The canary: the one credential of the tests, looked for after each of them in all that it left behind.

A pytest plugin; conftest takes it in. After each test no spelling of the canary may be in what was printed (read by
the test or not), in a log record, in an error that it expected or failed with, in a warning, or in a file or the
name of one under tmp_path and the cache folder. A key file is one whose name says so and that begins with the key.
"""

from __future__ import annotations

import base64
import logging
import os
import warnings
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

__all__ = ["CANARY", "SPELLINGS", "found", "search_later"]

CANARY: Final = "plp_CANARY/4f1e+7b=09c2d"
"""Its characters differ in base64 and in a URL."""


def _spell() -> tuple[str, ...]:
    encoded = [base64.b64encode(text.encode()).decode() for text in (CANARY, f"{CANARY}:", f":{CANARY}")]
    return (CANARY, quote(CANARY, safe=""), *(text.rstrip("=")[:-2] for text in encoded))


SPELLINGS: Final = _spell()
"""How a secret might show: as it is, in a URL, in base64 alone, as a user's name and as a password."""
_BYTES: Final = tuple(spelling.encode() for spelling in SPELLINGS)


def found(text: str | bytes) -> bool:
    """Whether any spelling of the canary is in it."""
    if isinstance(text, bytes):
        return any(spelling in text for spelling in _BYTES)
    return any(spelling in text for spelling in SPELLINGS)


class _Watch:
    """Where the canary was seen during one test."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.folders: list[Path] = []

    def look(self, where: str, text: object) -> None:
        """Take note if the canary is in the text."""
        if found(text if isinstance(text, str | bytes) else str(text)):
            self.seen.append(where)

    def search(self) -> None:
        """The files below the folders of this test and their names; a link is looked at and not followed."""
        for folder in self.folders:
            for parent, folders, names in os.walk(folder):
                for name in (*folders, *names):
                    self._search(Path(parent, name))

    def _search(self, path: Path) -> None:
        self.look(f"the name of {path}", path.name)
        if path.is_symlink():
            self.look(f"where {path} leads", str(path.readlink()))
        elif path.is_file() and os.access(path, os.R_OK):
            data = path.read_bytes()
            is_key = path.name.startswith(("key", "token", "secret")) and data.startswith(CANARY.encode())
            if not is_key:
                self.look(str(path), data)


_watch = _Watch()
_stack = ExitStack()


def search_later(folder: Path) -> None:
    """Look for the canary in this folder, too, when the test is over."""
    _watch.folders.append(folder)


@contextmanager
def _replaced(owner: Any, name: str, wrap: Callable[[Any], Any]) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, wrap(before))
    try:
        yield
    finally:
        setattr(owner, name, before)


def _watch_records(make: Callable[..., logging.LogRecord]) -> Callable[..., logging.LogRecord]:
    def record(*args: Any, **more: Any) -> logging.LogRecord:
        made = make(*args, **more)
        _watch.look(f"a record of {made.name}", f"{made.getMessage()} {made.exc_info}")
        return made

    return record


def _watch_errors(leave: Callable[..., bool]) -> Callable[..., bool]:
    def leave_watched(self: object, kind: object, error: BaseException | None, *args: object) -> bool:
        seen = error
        while seen is not None:
            _watch.look(f"the text of a {type(seen).__name__}", f"{seen} {seen.args}")
            seen = seen.__cause__ or seen.__context__
        return leave(self, kind, error, *args)

    return leave_watched


def _watch_output(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def readouterr(self: Any) -> Any:
        said = read(self)
        _watch.look("stdout, as the test read it", said.out)
        _watch.look("stderr, as the test read it", said.err)
        return said

    return readouterr


def _watch_warnings(warn: Callable[..., None]) -> Callable[..., None]:
    def watched(message: Any, category: Any = None, stacklevel: int = 1, *args: Any, **more: Any) -> None:
        _watch.look("a warning", message)
        warn(message, category, stacklevel + 1, *args, **more)

    return watched


def pytest_configure() -> None:
    """Look at records, errors, warnings and output as they are made, whoever swallows them afterwards."""
    logging.setLogRecordFactory(_watch_records(logging.getLogRecordFactory()))
    _stack.enter_context(_replaced(pytest.RaisesExc, "__exit__", _watch_errors))
    _stack.enter_context(_replaced(pytest.CaptureFixture, "readouterr", _watch_output))
    _stack.enter_context(_replaced(warnings, "warn", _watch_warnings))


def pytest_unconfigure() -> None:
    """As it was."""
    logging.setLogRecordFactory(logging.LogRecord)
    _stack.close()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Begin anew."""
    _watch.seen.clear()
    _watch.folders.clear()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Look at what was captured and how it failed; when the test is over at its files, and let it fail."""
    report = yield
    for title, text in report.sections:
        _watch.look(title, text)
    if call.excinfo is not None:
        _watch.look(f"the failure in {call.when}", call.excinfo.value)
    if call.when == "teardown":
        folder = getattr(item, "funcargs", {}).get("tmp_path")
        if folder is not None:
            _watch.folders.append(folder)
        _watch.search()
        if _watch.seen:
            report.outcome = "failed"
            report.longrepr = f"the canary was seen in: {'; '.join(dict.fromkeys(_watch.seen))}"
    return report
