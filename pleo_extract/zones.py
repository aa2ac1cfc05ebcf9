"""The time zone database, which slim containers do not have: missed before anything is asked or opened."""

from __future__ import annotations

from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pleo_extract.errors import ConfigurationError

__all__ = ["check_zones"]


def check_zones() -> None:
    """Make sure that polars can name UTC: it asks Python's zoneinfo for it whenever an instant leaves a frame.

    Raises:
        ConfigurationError: there is no database; found out later, a whole list would have been read for nothing.
    """
    try:
        ZoneInfo("UTC")
    except ZoneInfoNotFoundError:
        raise ConfigurationError(
            "this machine has no time zone database, which instants in UTC need: pip install tzdata"
        ) from None
