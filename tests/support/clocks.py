"""What the clocks of a time zone show, by zoneinfo: the periods of the answers, computed independently."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from datetime import datetime
    from zoneinfo import ZoneInfo


def in_zones(third: str = "America/New_York") -> pytest.MarkDecorator:
    """Run a test in four time zones: one in the quick tests, the others with the slow ones.

    Args:
        third: a zone with changes of its own; Lord Howe's are of half an hour.
    """
    others = ("UTC", third, "Asia/Kathmandu")
    return pytest.mark.parametrize(
        "zone", ["Europe/Copenhagen", *(pytest.param(name, marks=pytest.mark.slow) for name in others)]
    )


def begin(instant: datetime, grain: str, zone: ZoneInfo) -> datetime:
    """Return the start of the period that contains an instant, as the clock of the zone shows it."""
    clock = instant.astimezone(zone).replace(tzinfo=None, minute=0, second=0, microsecond=0)
    if grain == "hour":
        return clock
    day = clock.replace(hour=0)
    if grain == "week":
        return day - timedelta(days=day.weekday())
    if grain == "day":
        return day
    months = {"month": 1, "quarter": 3, "year": 12}[grain]
    return day.replace(day=1, month=(day.month - 1) // months * months + 1)
