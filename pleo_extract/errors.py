"""The tree of errors: one class and one exit code for each cause, so that a scheduler can tell them apart.

    PleoExtractError
     ├─ UsageError             2   an argument that cannot be used (also a ValueError)
     ├─ CheckFailed            3   `pleo-extract check` found a breach of a limit
     ├─ DataError             65   rows or a lake that cannot be used
     │   ├─ RejectedRows           rows that do not fit the contract, each with path and reason
     │   └─ LakeError              a lake that is damaged, or not there
     │       └─ NoLake                 no Delta table at the address
     ├─ LakeLocked            69   another run holds the lake
     │   └─ LakeConflict           another writer committed to a Delta table first
     ├─ StorageError          74   disk full, no permission, read-only
     ├─ TryLater              75   the network or the server failed, or a limit was reached: try again later
     │   ├─ DeadlineExceeded       the time limit of the run was reached
     │   ├─ RequestsExceeded       the request limit of the run was reached
     │   └─ Stopped                the run was asked to stop
     ├─ ContractError         76   the server broke its contract
     │   ├─ PageError              an answer that is not a page
     │   │   ├─ PageTooLarge       more bytes than are read
     │   │   └─ EchoMismatch       an answer to another request than the one sent
     │   ├─ WalkError              pages that do not make a list: a loop, a lost cursor, a foreign row
     │   │   └─ CursorRefused      a cursor that the server gave out and then refused
     │   ├─ RequestRefused         a request that keeps the contract, answered with 400 or 422
     │   └─ IncompleteWalk         fewer jobs than the server's `total`
     ├─ CredentialsError      77   missing, wrong, expired or not allowed
     └─ ConfigurationError    78   a URL, file or setting that cannot be used

The codes follow sysexits.h. A message says what happened, then what to do, then where. It never holds a credential.
"""

from __future__ import annotations

import math
import os
import unicodedata
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "CheckFailed",
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
    "PageTooLarge",
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
    """The root of all errors of this library.

    Attributes:
        code: the exit code of the command line.
        advice: what to do, for errors whose message does not say it.
        receipt: the receipt of the dump that failed, as plain data; None for any other error.
        page: the page of the list that was asked for, from 1; None if no page was.
    """

    code: ClassVar[int] = 1
    advice: str = ""
    receipt: Mapping[str, Any] | None = None
    page: int | None = None

    def tell(self) -> str:
        """Return the message in one line, with run, account and page if they are known, and what to do."""
        receipt = self.receipt or {}
        where = [f"{name} {receipt[name]}" for name in ("run", "account") if receipt.get(name)]
        if self.page is not None and f"page {self.page}" not in str(self):
            where.append(f"page {self.page}")
        advice = f". {self.advice}" if self.advice and "again" not in str(self) else ""
        return escape(": ".join([", ".join(where), str(self)] if where else [str(self)]), 2000) + advice


class UsageError(PleoExtractError, ValueError):
    """An argument that cannot be used. Nothing was sent and nothing was written."""

    code = 2


class CheckFailed(PleoExtractError):
    """The lake can be read, and what it says breaks a limit that the caller set."""

    code = 3


class DataError(PleoExtractError):
    """Rows or a lake that cannot be used."""

    code = 65


class RejectedRows(DataError):
    """Rows that do not fit the contract.

    Attributes:
        reasons: one line a row: page, path, what is wrong.
    """

    def __init__(
        self, reasons: Sequence[str], fate: str = "A dump sets such rows aside and keeps the rest"
    ) -> None:
        self.reasons = tuple(reasons)
        first, *others = self.reasons
        more = f"; and {len(others)} more" if others else ""
        super().__init__(
            f"{amount(len(self.reasons), 'row does', 'rows do')} not fit the contract: {first}{more}. {fate}"
        )

    def __reduce__(self) -> tuple[type[RejectedRows], tuple[tuple[str, ...]], dict[str, Any]]:
        # By default, pickle would pass the message for `reasons`.
        return type(self), (self.reasons,), vars(self)


class LakeError(DataError):
    """A lake that cannot be read: a file is missing, damaged, or written by a newer version."""


class NoLake(LakeError):
    """There is no Delta table at this address."""


class LakeLocked(PleoExtractError):
    """Another run holds the lake."""

    code = 69


class LakeConflict(LakeLocked):
    """Another writer committed to the Delta table first."""


class StorageError(PleoExtractError):
    """The disk is full or read-only, a permission is missing, or too many files are open."""

    code = 74


class TryLater(PleoExtractError):
    """The network or the server gave no proper answer within the retries and time allowed; try again later."""

    code = 75


class DeadlineExceeded(TryLater):
    """The time limit of the run was reached, or the next wait would exceed it.

    Attributes:
        is_unreachable: whether there was no connection to the server, so that more time would hardly help.
    """

    is_unreachable: bool = False


class RequestsExceeded(TryLater):
    """The request limit of the run was reached; fetched pages are kept for the next run."""


class Stopped(TryLater):
    """The run was asked to stop."""


class ContractError(PleoExtractError):
    """The server broke its contract; the same request will hardly do better, so it is not retried further."""

    code = 76
    advice = "Run again; if it fails again, report it with this message"


class PageError(ContractError):
    """An answer that is not a page: not JSON, without `data` or `pagination`, or too large."""


class PageTooLarge(PageError):
    """A page with more bytes than are read. Fewer rows may fit."""


class EchoMismatch(PageError):
    """An answer that says it is for another place of the list than the one asked for."""


class WalkError(ContractError):
    """Pages that do not make a list: a loop, a missing or malformed cursor, a row of another company."""


class CursorRefused(WalkError):
    """A cursor that the server gave out and then answered with 400, 404, 410 or 422."""


class RequestRefused(ContractError):
    """A request that keeps the contract, answered with 400, 413 or 422; with a cursor also with 404 or 410.

    Also a request for an offset that fails again and again while other requests are answered: search engines answer
    deep offsets with a 5xx or not at all.

    Attributes:
        params: the pairs of the query string that was refused.
    """

    def __init__(self, message: str, *, params: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(message)
        self.params = tuple(params)
        if "limit" in dict(params):
            self.advice = (
                "If the server takes smaller pages only, name their rows with --page-size. " + self.advice
            )


class IncompleteWalk(ContractError):
    """The list ended twice with fewer jobs than the server's `total`."""


class CredentialsError(PleoExtractError):
    """No credential, or one that is wrong, expired, or not allowed to see this company."""

    code = 77


class ConfigurationError(PleoExtractError):
    """A URL, a certificate, a file or a setting that cannot be used."""

    code = 78


_UNSEEN = ("Cc", "Cf", "Zl", "Zp")
"""Unicode categories of what a reader does not see."""
_JOINERS = {ord("\u200c"): "", ord("\u200d"): ""}
_WORST_FIRST = (78, 77, 76, 65, 75)


def worst_code(codes: Sequence[int]) -> int:
    """Return the exit code for several companies: the first of 78, 77, 76, 65, 75 that occurs, else the highest.

    No codes at all give 0.
    """
    return next((code for code in _WORST_FIRST if code in codes), max(codes, default=0))


def escape(text: str, limit: int = 80) -> str:
    """Return untrusted text in a form that is safe to show: clipped, and without control characters and line breaks."""
    clipped = text[:limit]
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in clipped)
    return shown + ("…" if len(text) > limit else "")


def is_shown_whole(text: str) -> bool:
    """Return whether a name shows all that it is: it has no line break, mark of direction or other control character.

    With a mark of direction, a name could pass for another one. What joins letters in Persian, Hindi and others is no
    such mark.
    """
    return all(unicodedata.category(sign) not in _UNSEEN for sign in text.translate(_JOINERS))


def check_path(path: str | os.PathLike[str], what: str) -> None:
    """Refuse a path that cannot be written into a record, or that a shell was to expand, before anything is sent.

    The file system may well open such a path, so the run would fail at its end only, or fill a folder named ``~``.

    Raises:
        ConfigurationError: the path is not UTF-8, is bytes, holds a NUL, or begins with ``~/``.
        UsageError: it is no path at all.
    """
    try:
        text = os.fspath(path)
    except TypeError:
        raise UsageError(f"{what} is a path, not a {type(path).__name__}") from None
    try:
        is_text = isinstance(text, str) and bool(text.encode()) and "\0" not in text
    except UnicodeEncodeError:  # os.fsdecode turns bytes that are not UTF-8 into lone surrogates
        is_text = False
    if not is_text:
        raise ConfigurationError(
            f"{what} is not valid UTF-8: {escape(str(text), 200)!r}; rename it, or use a symbolic link"
        )
    if text.replace("\\", "/").partition("/")[0] == "~":
        raise ConfigurationError(
            f"{what} is {escape(text, 200)!r}: a shell turns ~ into the home folder, but not in quotes, in a file or after "
            "a =. Write the whole path"
        )


def amount(number: float, noun: str, plural: str = "") -> str:
    """Return a number with its noun: 1 request, 2,000 requests."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def span(seconds: float) -> str:
    """Return a time to wait in whole seconds, at least 1: 1 s, 90 s."""
    return f"{max(1, math.ceil(seconds))} s"
