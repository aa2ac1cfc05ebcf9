"""Numbers, times and texts as the page shows them. Every text that comes from the data is escaped here."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING

from pleo_extract.errors import escape

if TYPE_CHECKING:
    from datetime import datetime

__all__ = [
    "attribute",
    "count",
    "date_range",
    "day",
    "duration",
    "interval",
    "moment",
    "percent",
    "plural",
    "unended",
    "untrusted",
]

NOTHING = "\N{EN DASH}"
SPACE = "\N{NO-BREAK SPACE}"
_LONG = re.compile(r"[^\s_]{10}(?=[^\s_]{6})|_(?=\S)")
"""Where a long word may break: never before its last letters."""

_UNITS = (("days", 86_400.0, 172_800.0), ("h", 3_600.0, 3_600.0), ("min", 60.0, 60.0), ("s", 1.0, 0.0))


def untrusted(value: object, limit: int = 200) -> str:
    """Return a text from the data as HTML: escaped, cut to `limit` characters, its direction isolated from the page.

    Control characters and those that change the direction of text appear as escapes. Long words may break, preferably
    after an underscore.
    """
    # The output of `escape` contains no NUL, so NUL can mark the places where a word may break.
    pieces = _LONG.sub("\\g<0>\0", escape(str(value), limit))
    return f"<bdi>{html.escape(pieces).replace(chr(0), '<wbr>')}</bdi>"


def attribute(value: object, limit: int = 200) -> str:
    """Return a text from the data for an attribute or a `<title>`, neither of which can contain elements."""
    return html.escape(escape(str(value), limit))


def count(number: float | None) -> str:
    """Format a whole number: 12,345."""
    return NOTHING if number is None else f"{number:,.0f}"


def plural(number: int, noun: str, nouns: str = "") -> str:
    """Format a number of things: 1 job, 2 jobs."""
    return f"{count(number)} {noun if number == 1 else nouns or noun + 's'}"


def unended(number: int) -> str:
    """Return a number of jobs that have not ended, in words."""
    return f"{count(number)} that {'has' if number == 1 else 'have'} not ended"


def percent(share: float | None, digits: int = 1) -> str:
    """Format a share, from 0 to 1: 7.9 %."""
    return NOTHING if share is None else f"{100 * share:.{digits}f}{SPACE}%"


def interval(low: float | None, high: float | None, digits: int = 1) -> str:
    """Format an interval of shares: 2.6 to 7.5 %."""
    if low is None or high is None:
        return NOTHING
    return f"{100 * low:.{digits}f} to {percent(high, digits)}".replace(" ", SPACE)


def duration(seconds: float | None) -> str:
    """Format seconds in the unit that people would use: 42 s, 4.2 min, 1.3 h, 2.4 days."""
    if seconds is None:
        return NOTHING
    unit, size, _ = next((each for each in _UNITS if abs(seconds) >= each[2]), _UNITS[-1])
    return f"{seconds / size:,.1f}".removesuffix(".0") + f"{SPACE}{unit}"


def day(instant: datetime) -> str:
    """Format a date: 30 September 2026."""
    return f"{instant.day}{SPACE}{instant:%B %Y}"


def moment(instant: datetime | None) -> str:
    """Format an instant in its own time zone, to the minute: 30 Sep 2026, 15:00 UTC."""
    return "never" if instant is None else f"{instant.day}{SPACE}{instant:%b %Y, %H:%M}{SPACE}{instant:%Z}"


def date_range(first: datetime, last: datetime) -> str:
    """Format a range of dates: 1 October 2025 to 30 September 2026."""
    return day(first) if first.date() == last.date() else f"{day(first)} to {day(last)}"
