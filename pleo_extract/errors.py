"""The tree of errors. One cause, one class, one exit code, so that a scheduler can tell them apart.

    PleoExtractError
     ├─ UsageError             2   an argument that cannot be used (also a ValueError)
     ├─ DataError             65   rows or a lake that are not as they must be
     │   ├─ RejectedRows           rows that do not fit the contract, each with path and reason
     │   └─ LakeError              a lake that is not as it was written
     │       └─ NoLake                 no Delta table where one was to be read
     ├─ LakeLocked            69   another run holds the lake
     │   └─ LakeConflict           another writer committed to a Delta table first
     ├─ StorageError          74   disk full, no permission, read-only
     ├─ TryLater              75   the network, the server or the time did not suffice: come back later
     │   ├─ DeadlineExceeded       the time given for this run is used up
     │   ├─ RequestsExceeded       the requests given for this run are used up
     │   └─ Stopped                the run was told to stop
     ├─ ContractError         76   the server broke its contract
     │   ├─ PageError              a page that is no page
     │   │   └─ EchoMismatch       an answer to another request than the one sent
     │   ├─ WalkError              pages that do not make a list: a loop, a lost cursor, a foreign row
     │   │   └─ CursorRefused      a cursor the server gave and no longer takes
     │   ├─ RequestRefused         a request that is right by the contract, answered with 400 or 422
     │   └─ IncompleteWalk         fewer jobs than the server says there are
     ├─ CredentialsError      77   missing, wrong, expired or not allowed
     └─ ConfigurationError    78   a URL, file or setting that cannot be used

The codes follow sysexits.h. A message says what happened, where, and what to do; never a credential.
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "ConfigurationError",
    "ContractError",
    "CredentialsError",
    "CursorRefused",
    "DataError",
    "DeadlineExceeded",
    "EchoMismatch",
    "IncompleteWalk",
    "LakeConflict",
    "LakeError",
    "LakeLocked",
    "NoLake",
    "PageError",
    "PleoExtractError",
    "RejectedRows",
    "RequestRefused",
    "RequestsExceeded",
    "Stopped",
    "StorageError",
    "TryLater",
    "UsageError",
    "WalkError",
    "amount",
    "check_path",
    "escape",
    "span",
    "worst_code",
]


class PleoExtractError(Exception):
    """Root of all errors of this library; `code` is the exit code of the command line.

    `receipt` is what a dump can say about the run that ended so, as plain data; `page` the page of the list that was
    asked for, from 1. None where there is no such thing.
    """

    code: ClassVar[int] = 1
    advice: ClassVar[str] = ""
    receipt: Mapping[str, Any] | None = None
    page: int | None = None

    def tell(self) -> str:
        """The message in one line: which run, account and page, where these are known; what happened; what to do."""
        said = self.receipt or {}
        where = [f"{name} {said[name]}" for name in ("run", "account") if said.get(name)]
        if self.page is not None and f"page {self.page}" not in str(self):
            where.append(f"page {self.page}")
        advice = f". {self.advice}" if self.advice and "again" not in str(self) else ""
        return escape(": ".join([", ".join(where), str(self)] if where else [str(self)]), 2000) + advice


class UsageError(PleoExtractError, ValueError):
    """An argument that cannot be used. Nothing was sent, nothing was written."""

    code = 2


class DataError(PleoExtractError):
    """Rows or a lake that are not as they must be."""

    code = 65


class RejectedRows(DataError):
    """Rows that do not fit the contract. `reasons` holds one line a row: page, path, what is wrong."""

    def __init__(
        self, reasons: Sequence[str], fate: str = "A dump sets such rows aside and keeps the rest"
    ) -> None:
        self.reasons = tuple(reasons)
        more = f"; and {len(self.reasons) - 1} more" if len(self.reasons) > 1 else ""
        super().__init__(
            f"{len(self.reasons)} row(s) do not fit the contract: {self.reasons[0]}{more}. {fate}"
        )

    def __reduce__(self) -> tuple[type[RejectedRows], tuple[tuple[str, ...]], dict[str, Any]]:
        return type(self), (self.reasons,), vars(self)  # by default it would be made anew from its message


class LakeError(DataError):
    """A lake that is not as it was written: a file is missing, changed, or from a newer version."""


class NoLake(LakeError):
    """There is no Delta table at this address."""


class LakeLocked(PleoExtractError):
    """Another run holds the lake."""

    code = 69


class LakeConflict(LakeLocked):
    """Another writer has committed to a Delta table first."""


class StorageError(PleoExtractError):
    """The disk refused: full, no permission, read-only, too many open files."""

    code = 74


class TryLater(PleoExtractError):
    """The network or the server did not answer properly for as long as was allowed; later it may."""

    code = 75


class DeadlineExceeded(TryLater):
    """The time given for this run is used up, or the wait that is due would outlast it."""


class RequestsExceeded(TryLater):
    """The requests given for this run are used up; what was fetched is kept for the next."""


class Stopped(TryLater):
    """The run was told to stop."""


class ContractError(PleoExtractError):
    """The server broke its contract; trying again by itself will hardly help."""

    code = 76
    advice = "Run again; if it stays, report it with this message"


class PageError(ContractError):
    """An answer that is no page: not JSON, no `data`, no `pagination`, too large."""


class EchoMismatch(PageError):
    """An answer that says it is for another place of the list than was asked for: one that nobody asked for."""


class WalkError(ContractError):
    """Pages that do not make a list: a loop, a cursor missing or malformed, a foreign company's row."""


class CursorRefused(WalkError):
    """A cursor that the server gave out and then answered with 400."""


class RequestRefused(ContractError):
    """A request that keeps the contract, answered with 400 or 422. `params` is what was asked.

    Also an offset that is answered with a 5xx or not at all, time after time, where other requests are answered.
    """

    def __init__(self, message: str, *, params: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(message)
        self.params = tuple(params)


class IncompleteWalk(ContractError):
    """The list ended with fewer jobs than the server says there are, twice."""


class CredentialsError(PleoExtractError):
    """No credential, or one that is wrong, expired, or not allowed to see this company."""

    code = 77


class ConfigurationError(PleoExtractError):
    """A URL, a certificate, a file or a setting that cannot be used."""

    code = 78


_WORST_FIRST = (78, 77, 76, 65, 75)


def worst_code(codes: Sequence[int]) -> int:
    """Exit code for several companies: 78, 77, 76, 65, 75, the first that occurs; else the highest; 0 for none."""
    return next((code for code in _WORST_FIRST if code in codes), max(codes, default=0))


def escape(text: str, limit: int = 80) -> str:
    """Text of a server as it may be shown: control characters, line breaks and odd spaces escaped, clipped."""
    clipped = text[:limit]
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in clipped)
    return shown + ("…" if len(text) > limit else "")


def check_path(path: str | os.PathLike[str], what: str) -> None:
    """Refuse a path that can be opened, perhaps, but not be written into a record: at the door, before anything is sent.

    Raises:
        ConfigurationError: it is not UTF-8, is bytes, or holds a NUL.
    """
    text = os.fspath(path)
    try:
        is_text = isinstance(text, str) and bool(text.encode()) and "\0" not in text
    except UnicodeEncodeError:  # the bytes that are not UTF-8 stand in it as halves of surrogate pairs
        is_text = False
    if not is_text:
        raise ConfigurationError(
            f"{what} is {escape(str(text), 200)!r}, and that is no text in UTF-8; give it another name, or a link of one"
        )


def amount(number: float, noun: str, plural: str = "") -> str:
    """A number with its noun: 1 request, 2,000 requests."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def span(seconds: float) -> str:
    """A time to wait, in whole seconds and never none: 1 s, 90 s."""
    return f"{max(1, math.ceil(seconds))} s"
