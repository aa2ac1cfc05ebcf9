"""The types of options whose values are instants, snapshots, spans of time, shares or shards."""

from __future__ import annotations

import math
import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import click

from pleo_extract.zones import assume_utc

__all__ = [
    "CountParam",
    "DurationParam",
    "InstantParam",
    "SecondsParam",
    "ShardParam",
    "ShareParam",
    "SnapshotParam",
]

T = TypeVar("T")
if TYPE_CHECKING:
    from click import ParamType as _ParamType
else:

    class _ParamType(click.ParamType, Generic[T]):
        """A click.ParamType that takes a parameter, as it does itself since click 8.4."""


class _Param(_ParamType[T]):
    """A type whose values the help shows as one word.

    Attributes:
        metavar: that word.
    """

    metavar: ClassVar[str]

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:  # noqa: ARG002 - click's signature
        """Return the word that stands for the value in the help."""
        return self.metavar


class CountParam(click.IntRange):
    """A whole number. Click itself calls a text that is none "not a valid integer range"."""

    name = "whole number"


class InstantParam(_Param[datetime]):
    """A day or an instant, in UTC unless it has a zone: 2026-11-01 or 2026-11-01T08:00:00Z.

    With `is_local`, one without a zone stays without: the command has another option that names the zone.
    """

    name = "instant"
    metavar = "WHEN"

    def __init__(self, *, is_local: bool = False) -> None:
        self.is_local = is_local

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return the instant."""
        if isinstance(value, datetime):
            return value
        try:
            found = datetime.fromisoformat(str(value))
            return found if self.is_local else assume_utc(found)
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is not an instant; write 2026-11-01 or 2026-11-01T08:00:00Z", param, ctx)


class SnapshotParam(_Param[datetime | int]):
    """A snapshot, named by its number or by an instant at which it was current."""

    name = "snapshot"
    metavar = "WHEN"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime | int:
        """Return the number, or the instant in UTC."""
        if isinstance(value, datetime | int):
            return value
        try:
            return int(value) if str(value).isdigit() else assume_utc(datetime.fromisoformat(str(value)))
        except (ValueError, OverflowError):
            self.fail(
                f"{value!r} is not a snapshot; write its number, or an instant such as 2026-11-01T08:00:00Z",
                param,
                ctx,
            )


class DurationParam(_Param[timedelta]):
    """A span of time: 90s, 30m, 24h or 7d."""

    name = "span"
    metavar = "SPAN"
    units: ClassVar = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Return the span."""
        if isinstance(value, timedelta):
            return value
        found = re.fullmatch(r"(\d{1,6})([smhd])", str(value))
        if found is None:
            self.fail(f"{value!r} is not a span of time; write 90s, 30m, 24h or 7d", param, ctx)
        return timedelta(**{self.units[found[2]]: int(found[1])})


class SecondsParam(_Param[float]):
    """A span of time in seconds, as a number or with a unit: 900, 0.5 or 15m."""

    name = "seconds"
    metavar = "SECONDS"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the seconds."""
        if isinstance(value, float):
            return value
        if str(value)[-1:] in DurationParam.units:
            seconds = DurationParam().convert(value, param, ctx).total_seconds()
        else:
            try:
                seconds = float(value)
            except ValueError:
                seconds = 0.0
        if not (0 < seconds < math.inf):
            self.fail(f"{value!r} is not a time above 0; write seconds, such as 900, or 15m", param, ctx)
        return seconds


class ShareParam(_Param[float]):
    """A share: 10% or 0.1. A number of 1 or more needs its percent sign: 5 could mean either."""

    name = "share"
    metavar = "SHARE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the share, from 0 to 1 (excluded)."""
        if isinstance(value, float):
            return value
        text = str(value)
        try:
            share = float(text[:-1]) / 100 if text.endswith("%") else float(text)
        except ValueError:
            share = math.nan
        if not 0 <= share < 1:
            self.fail(
                f"{value!r} is not a share below 100%; write 10%, or 0.1 (in a crontab, where % ends a command)",
                param,
                ctx,
            )
        return share


class ShardParam(_Param[tuple[int, int]]):
    """A shard of the companies: 1/4 is the first of four."""

    name = "shard"
    metavar = "I/N"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """Return the number of the shard, from 1, and the number of shards."""
        if isinstance(value, tuple):
            return value
        found = re.fullmatch(r"(\d{1,4})/(\d{1,4})", str(value))
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            parts = int(found[2]) if found and int(found[2]) else 4
            self.fail(f"{value!r} is not a shard; write 1/{parts} to {parts}/{parts}", param, ctx)
        return int(found[1]), int(found[2])
