"""Time zones: every instant is brought to UTC here, and a machine without a time zone database is noticed early."""

from __future__ import annotations

import difflib
from datetime import UTC
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from pleo_extract.errors import ConfigurationError, UsageError, escape

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["assume_utc", "check_zones", "describe_unknown_zone", "find_zone", "has_zone", "to_utc"]


def check_zones() -> None:
    """Raise an error if this machine has no time zone database, as in slim containers.

    Polars asks Python's zoneinfo for UTC whenever an instant leaves a frame. Without this check, a run would read the
    whole list before it fails.

    Raises:
        ConfigurationError: there is no database.
    """
    try:
        ZoneInfo("UTC")
    except ZoneInfoNotFoundError:
        raise ConfigurationError(
            "this machine has no time zone database, which instants in UTC need: pip install tzdata"
        ) from None


def find_zone(name: str) -> ZoneInfo:
    """Return the time zone of this name.

    Raises:
        UsageError: there is none.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # ValueError, OSError: the name is a path
        raise UsageError(describe_unknown_zone(name)) from None


def describe_unknown_zone(name: str) -> str:
    """Say that there is no such time zone, and name the one of that place, as Europe/Berlin for Berlin."""
    places = {zone.rpartition("/")[2].lower(): zone for zone in sorted(available_timezones())}
    near = difflib.get_close_matches(name.rpartition("/")[2].lower(), places, n=1, cutoff=0.8)
    meant = places[near[0]] if near else "Europe/Copenhagen, or UTC"
    return f"{escape(name)!r} is no time zone; write a name such as {meant}"


def has_zone(instant: datetime) -> bool:
    """Return whether an instant says which time zone it is in."""
    return instant.tzinfo is not None


def to_utc(instant: datetime, name: str) -> datetime:
    """Return an instant in UTC; `name` is the parameter that the error message names.

    Raises:
        UsageError: it has no time zone, or lies outside the years 1 to 9999 in UTC.
    """
    if not has_zone(instant):
        raise UsageError(f"{name} has no time zone; give it one, for example datetime.now(UTC)")
    try:
        return instant.astimezone(UTC)
    except OverflowError:
        raise UsageError(f"{name} is not in the years 1 to 9999 in UTC: {instant}") from None


def assume_utc(instant: datetime) -> datetime:
    """Return an instant in UTC; one without a time zone is taken as UTC."""
    return instant.astimezone(UTC) if has_zone(instant) else instant.replace(tzinfo=UTC)
