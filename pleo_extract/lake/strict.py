"""The one reader of JSON that comes back from disk. Whatever a run has written may be something else by now.

A bit flips, another program writes, somebody tries what happens. `decode` gives a value of the asked type or raises
`Malformed`, whatever the bytes are; the checks below say what a type cannot: instants that can be calculated with,
dates that are real, names that can be shown. What is done about it is the caller's: an error, or mended.
"""

from __future__ import annotations

import math
import re
import unicodedata
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from pleo_extract.core.order import ORDERS
from pleo_extract.core.state import AccountKey
from pleo_extract.core.verdict import VERDICTS
from pleo_extract.errors import escape
from pleo_extract.zones import has_zone

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pleo_extract.contract import Key
    from pleo_extract.core.state import SyncState
    from pleo_extract.core.walk import Checkpoint

__all__ = [
    "HASH",
    "Malformed",
    "check_accounts",
    "check_count",
    "check_mark",
    "check_name",
    "check_receipt",
    "decode",
    "encode",
    "read_instant",
]

_T = TypeVar("_T")

_EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST: Final = datetime(9000, 1, 1, tzinfo=UTC)
"""Far enough from the last year of the calendar that a span can be added to it."""
_JOB: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
HASH: Final = re.compile(r"[0-9a-f]{32}")
"""What is known of a job or a person that was forgotten."""
_MOST: Final = 2**53
"""More of anything than there is; up to here JSON's numbers are exact everywhere."""
_FIGURES: Final = (
    "code",
    "lake_rows",
    "rejected",
    "requests",
    "retries",
    "rows",
    "seconds",
    "snapshot",
    "waited",
)
"""What others calculate with in a receipt."""


class Malformed(ValueError):
    """Bytes that are not what they should be; the message says in which way, and can be shown."""


def decode(data: bytes | str, kind: type[_T]) -> _T:
    """Return the value of this type that the bytes spell.

    Raises:
        Malformed: they spell none: not JSON, not UTF-8, nested too deep, another type, a number that fits nowhere.
    """
    try:
        return msgspec.json.decode(data, type=kind, dec_hook=_make)
    except (msgspec.MsgspecError, ValueError, RecursionError, OverflowError) as exc:
        raise Malformed(escape(str(exc), 200) or type(exc).__name__) from exc


def _make(kind: type[Any], value: Any) -> AccountKey:
    """Make the one type of ours that msgspec does not know."""
    if kind is AccountKey and isinstance(value, str):
        return AccountKey(value)
    raise NotImplementedError(kind)


def encode(value: msgspec.Struct) -> bytes:
    """Return the bytes of a value that people may read as well."""
    return msgspec.json.format(msgspec.json.encode(value), indent=1)


def read_instant(value: datetime, name: str) -> datetime:
    """Return an instant in UTC.

    Raises:
        Malformed: it has no zone, or lies where no run was.
    """
    if not has_zone(value):
        raise Malformed(f"{name} has no time zone")
    if not _EARLIEST <= value <= _LATEST:
        raise Malformed(f"{name} is in the year {value.year}")
    return value.astimezone(UTC)


def check_name(text: str, name: str) -> None:
    """Refuse a text that would write more than its name into a terminal, a log or a path.

    Raises:
        Malformed: a control character or half of a surrogate pair in it.
    """
    if not text.isprintable() and any(unicodedata.category(mark) in ("Cc", "Cs") for mark in text):
        raise Malformed(f"{name} has a control character: {escape(text)!r}")


def check_count(value: int, name: str) -> None:
    """Refuse a number that counts nothing.

    Raises:
        Malformed: it is negative, or beyond what can be counted.
    """
    if not 0 <= value <= _MOST:
        raise Malformed(f"{name} is {value}")


def check_accounts(accounts: Mapping[AccountKey, SyncState]) -> None:
    """Refuse a state that the next run could not go on from.

    Raises:
        Malformed: an unknown verdict or order, a date that is none, a name that is none.
    """
    for key, account in accounts.items():
        check_name(key, "the name of an account")
        where = f"account {escape(key)}"
        check_name(account.name, where)
        if account.verdict not in VERDICTS:
            raise Malformed(f"the verdict of {where} is {escape(account.verdict)!r}")
        if account.order not in ORDERS:
            raise Malformed(f"the order of {where} is {escape(account.order)!r}")
        _check_key(account.watermark, where)
        check_count(account.full_jobs, f"full_jobs of {where}")
        check_count(account.refused_offset or 0, f"refused_offset of {where}")
        for name in _instants_of(type(account)):
            if (instant := getattr(account, name)) is not None:
                read_instant(instant, f"{name} of {where}")
        _check_jobs(account.vanished, where)
        check_count(account.forgotten_people, f"forgotten_people of {where}")
        if not all(map(HASH.fullmatch, account.forgotten)):
            raise Malformed(f"{where} has forgotten what is no hash")
        for readings in account.unknown.values():
            for line in readings.lines:
                _check_key(line, where)
            for count in readings.rows.values():
                check_count(count, f"readings of {where}")


def check_mark(mark: Checkpoint) -> None:
    """Refuse a place in a list at which no walk can have stood.

    Raises:
        Malformed: a key that is no instant, a negative count.
    """
    for key in (mark.first, mark.furthest, mark.newest):
        _check_key(key, "a mark")
    for count in (mark.pages, mark.rows, mark.distinct, mark.unkeyed, mark.offset, mark.rows_in_order):
        check_count(count, "a count of a mark")
    for total in mark.totals:
        check_count(total or 0, "a total of a mark")


def check_receipt(receipt: Mapping[str, Any]) -> None:
    """Refuse a receipt whose figures are none; what it does not have is not missed.

    Raises:
        Malformed: a figure that is no number, or an unknown verdict.
    """
    for name in _FIGURES:
        value = receipt.get(name, 0)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise Malformed(f"{name} of the receipt is {escape(str(value))!r}")
    if receipt.get("verdict", VERDICTS[0]) not in VERDICTS:
        raise Malformed(f"the verdict of the receipt is {escape(str(receipt['verdict']))!r}")


def _check_key(key: Key | None, where: str) -> None:
    """A key is compared as text and read as an instant without a zone."""
    if key is None:
        return
    try:
        is_naive = not has_zone(datetime.fromisoformat(key[0]))
    except ValueError:
        is_naive = False
    if not is_naive:
        raise Malformed(f"a key of {where} is no instant: {escape(key[0])!r}")
    check_name(key[1], where)


def _check_jobs(jobs: Iterable[tuple[str, str]], where: str) -> None:
    for job in jobs:
        if not all(map(_JOB.fullmatch, job)):
            raise Malformed(f"{where} names {escape('/'.join(job))!r}, which is no job")


_KNOWN: dict[type, tuple[str, ...]] = {}


def _instants_of(kind: type[msgspec.Struct]) -> tuple[str, ...]:
    """The fields that hold instants, whichever a later version adds; looked up once, since there may be 10,000 accounts."""
    if kind not in _KNOWN:
        _KNOWN[kind] = tuple(
            each.name for each in msgspec.structs.fields(kind) if "datetime" in str(each.type)
        )
    return _KNOWN[kind]
