"""The canary: the one credential of the tests, and a pytest plugin that fails every test that leaks it.

After each test, no form of the canary may appear in the output (read by the test or not), a log record, an expected
or unexpected error, a warning, or in a file or file name under tmp_path and the cache folder. Exempt are key files:
their name begins with key, token or secret, and their content begins with the canary. conftest registers the
plugin.
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
"""Some of its characters are written differently in base64 and in a URL, so that no form is missed."""


def _encode_canary() -> tuple[str, ...]:
    encoded = [base64.b64encode(text.encode()).decode() for text in (CANARY, f"{CANARY}:", f":{CANARY}")]
    return (CANARY, quote(CANARY, safe=""), *(text.rstrip("=")[:-2] for text in encoded))


SPELLINGS: Final = _encode_canary()
"""The forms of the secret: plain, in a URL, and in base64 alone, as a user name and as a password."""
_NULS: Final = ("\0", "\0" * 3, r"\x00", r"\x00" * 3, r"\u0000", r"\u0000" * 3)
"""What UTF-16 and UTF-32 put between two characters, as it is, as Python and as JSON write it."""
_FORMS: Final = (*SPELLINGS, *(nuls.join(spelling) for nuls in _NULS for spelling in SPELLINGS))
_FORMS_IN_BYTES: Final = tuple(form.encode() for form in _FORMS)
_SHORTEST: Final = min(map(len, _FORMS))  # longer than most names of files, of which there are many


def found(text: str | bytes) -> bool:
    """Return whether the text contains the canary in any form, also with NULs between its characters."""
    if len(text) < _SHORTEST:
        return False
    if isinstance(text, bytes):
        return any(form in text for form in _FORMS_IN_BYTES)
    return any(form in text for form in _FORMS)


class _Watch:
    """The places where one test leaked the canary."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.folders: list[Path] = []

    def look(self, where: str, text: object) -> None:
        """Note the place if the text contains the canary."""
        if found(text if isinstance(text, str | bytes) else str(text)):
            self.seen.append(where)

    def search(self) -> None:
        """Search the files and names below the folders of this test; check the target of a link, but do not follow it."""
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
    """Search this folder, too, when the test ends."""
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
        captured = read(self)
        _watch.look("stdout, as the test read it", captured.out)
        _watch.look("stderr, as the test read it", captured.err)
        return captured

    return readouterr


def _watch_warnings(warn: Callable[..., None]) -> Callable[..., None]:
    def watched(message: Any, category: Any = None, stacklevel: int = 1, *args: Any, **more: Any) -> None:
        _watch.look("a warning", message)
        warn(message, category, stacklevel + 1, *args, **more)

    return watched


def pytest_configure() -> None:
    """Check records, errors, warnings and output when they are made, before any code can swallow them."""
    logging.setLogRecordFactory(_watch_records(logging.getLogRecordFactory()))
    _stack.enter_context(_replaced(pytest.RaisesExc, "__exit__", _watch_errors))
    _stack.enter_context(_replaced(pytest.CaptureFixture, "readouterr", _watch_output))
    _stack.enter_context(_replaced(warnings, "warn", _watch_warnings))


def pytest_unconfigure() -> None:
    """Restore what `pytest_configure` replaced."""
    logging.setLogRecordFactory(logging.LogRecord)
    _stack.close()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Forget what the previous test leaked."""
    _watch.seen.clear()
    _watch.folders.clear()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Check captured output and errors, after teardown also the files; fail the test if the canary was seen."""
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
