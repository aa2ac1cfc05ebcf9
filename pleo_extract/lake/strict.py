"""Decode and check the JSON that runs have written, in one place: bytes that come back from disk cannot be trusted.

A bit may flip, another program may write to the file, somebody may tamper with it. Whatever the bytes are, `decode` returns
a value of the requested type or raises `Malformed`. The checks below cover what a type cannot express: that an instant is in
a usable range, that a key can be compared, that a name is safe to print. The caller decides between an error and a repair.
"""

from __future__ import annotations

import math
import re
import unicodedata
from datetime import UTC, datetime
from functools import cache
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from pleo_extract.core.order import ORDERS
from pleo_extract.core.pages import LARGEST
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
    "MONTH",
    "SHA256",
    "Malformed",
    "check_accounts",
    "check_checkpoint",
    "check_count",
    "check_instant",
    "check_name",
    "check_receipt",
    "decode",
    "encode",
]

_T = TypeVar("_T")
_DECODERS: Final[dict[type[Any], msgspec.json.Decoder[Any]]] = {}
_BUILDING: Final = Lock()

_EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST: Final = datetime(9000, 1, 1, tzinfo=UTC)
"""Early enough that adding a time span does not pass the year 9999, where the calendar ends."""
MONTH: Final = re.compile(r"[0-9]{4}-(?:0[1-9]|1[0-2])")
SHA256: Final = re.compile(r"[0-9a-f]{64}")
_JOB: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
HASH: Final = re.compile(r"[0-9a-f]{32}")
"""The salted hash of a forgotten job or person, see `forgotten`."""
_MOST: Final = 2**53
"""The largest count; every JSON parser reads whole numbers up to here exactly."""
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
"""Numbers of a receipt that other code calculates with."""


class Malformed(ValueError):
    """The error for bytes that no run writes; its message says why and is safe to print."""


def decode(data: bytes | str, kind: type[_T]) -> _T:
    """Return the value of this type that the bytes encode.

    Raises:
        Malformed: not JSON, not UTF-8, nested too deeply, another type, or a number that is too large.
    """
    try:
        return _make_decoder(kind).decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError, OverflowError) as exc:
        raise Malformed(escape(str(exc), 200) or type(exc).__name__) from exc


def _make_decoder(kind: type[_T]) -> msgspec.json.Decoder[_T]:
    """Return the decoder of a type, built by one thread at a time.

    msgspec 0.22 analyses a type when its first decoder is built. If two threads do so at once, one may use what the
    other has only half built: the interpreter crashed when many accounts resumed staged pages at once.
    """
    with _BUILDING:
        if kind not in _DECODERS:
            _DECODERS[kind] = msgspec.json.Decoder(kind, dec_hook=_make)
        decoder: msgspec.json.Decoder[_T] = _DECODERS[kind]
        return decoder


def _make(kind: type[Any], value: Any) -> AccountKey:
    """Make an AccountKey, the one type that msgspec does not know."""
    if kind is AccountKey and isinstance(value, str):
        return AccountKey(value)
    raise NotImplementedError(kind)


def encode(value: msgspec.Struct) -> bytes:
    """Encode a value as JSON, indented so that people can read it too."""
    return msgspec.json.format(msgspec.json.encode(value), indent=1)


def check_instant(value: datetime, name: str) -> datetime:
    """Return an instant in UTC.

    Args:
        value: the instant.
        name: what it is, for the message.

    Raises:
        Malformed: it has no time zone, or is outside the years 1970 to 9000.
    """
    if not has_zone(value):
        raise Malformed(f"{name} has no time zone")
    if not _EARLIEST <= value <= _LATEST:
        raise Malformed(f"{name} is in the year {value.year}")
    return value.astimezone(UTC)


def check_name(text: str, name: str) -> None:
    """Refuse a text that could do harm when a terminal, a log or a path shows it.

    Raises:
        Malformed: it has a control character or half of a surrogate pair.
    """
    if not text.isprintable() and any(unicodedata.category(char) in ("Cc", "Cs") for char in text):
        raise Malformed(f"{name} has a control character: {escape(text)!r}")


def check_count(value: int, name: str) -> None:
    """Refuse a number that cannot be a count.

    Raises:
        Malformed: it is negative, or above 2**53.
    """
    if not 0 <= value <= _MOST:
        raise Malformed(f"{name} is {value}")


def check_accounts(accounts: Mapping[AccountKey, SyncState]) -> None:
    """Refuse sync states that the next run could not start from.

    Raises:
        Malformed: an unknown verdict or order, or an invalid key, count, instant, job, hash or name.
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
        for name in _list_instants(type(account)):
            if (instant := getattr(account, name)) is not None:
                check_instant(instant, f"{name} of {where}")
        _check_jobs(account.vanished, where)
        check_count(account.forgotten_people, f"forgotten_people of {where}")
        if not all(map(HASH.fullmatch, account.forgotten)):
            raise Malformed(f"{where} has an invalid hash of a forgotten job")
        for readings in account.unknown.values():
            for line in readings.lines:
                _check_key(line, where)
            for count in readings.rows.values():
                check_count(count, f"readings of {where}")


def check_checkpoint(point: Checkpoint) -> None:
    """Refuse a checkpoint that no walk writes.

    Raises:
        Malformed: an invalid key, a negative count, or a limit that is never asked for.
    """
    for key in (point.first, point.furthest, point.newest):
        _check_key(key, "a checkpoint")
    for count in (point.pages, point.rows, point.distinct, point.unkeyed, point.offset, point.rows_in_order):
        check_count(count, "a count of a checkpoint")
    if point.limit is not None and not 1 <= point.limit <= LARGEST:
        raise Malformed(f"the limit of a checkpoint is {point.limit}")
    for total in point.totals:
        check_count(total or 0, "a total of a checkpoint")


def check_receipt(receipt: Mapping[str, Any]) -> None:
    """Refuse a receipt with values that cannot be right; values may be absent.

    Raises:
        Malformed: one of `_FIGURES` is not a number, or the verdict is unknown.
    """
    for name in _FIGURES:
        value = receipt.get(name, 0)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise Malformed(f"{name} of the receipt is {escape(str(value))!r}")
    if receipt.get("verdict", VERDICTS[0]) not in VERDICTS:
        raise Malformed(f"the verdict of the receipt is {escape(str(receipt['verdict']))!r}")


def _check_key(key: Key | None, where: str) -> None:
    """Refuse a key whose instant has a time zone or cannot be read. Keys are compared as text, so none may have a zone."""
    if key is None:
        return
    try:
        is_naive = not has_zone(datetime.fromisoformat(key[0]))
    except ValueError:
        is_naive = False
    if not is_naive:
        raise Malformed(f"a key of {where} is not an instant: {escape(key[0])!r}")
    check_name(key[1], where)


def _check_jobs(jobs: Iterable[tuple[str, str]], where: str) -> None:
    for job in jobs:
        if not all(map(_JOB.fullmatch, job)):
            raise Malformed(f"{where} names {escape('/'.join(job))!r}, which is not a job")


@cache
def _list_instants(kind: type[msgspec.Struct]) -> tuple[str, ...]:
    """Return the names of the fields that hold instants; cached, since a lake can have 10,000 accounts."""
    return tuple(each.name for each in msgspec.structs.fields(kind) if "datetime" in str(each.type))
