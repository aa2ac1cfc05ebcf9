"""Instants, spans of time and parts of a whole, as people type them."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any, ClassVar

import click

from pleo_extract.zones import assume_utc

__all__ = ["DurationParam", "InstantParam", "ShardParam"]


class InstantParam(click.ParamType[datetime]):
    """A day or an instant: 2026-11-01, 2026-11-01T08:00:00Z; UTC unless it says otherwise."""

    name = "instant"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:  # noqa: ARG002 - click's signature
        """What stands for it in the help."""
        return "WHEN"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """The instant, in UTC."""
        if isinstance(value, datetime):
            return value
        try:
            return assume_utc(datetime.fromisoformat(str(value)))
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is no instant; write 2026-11-01 or 2026-11-01T08:00:00Z", param, ctx)


class DurationParam(click.ParamType[timedelta]):
    """A span of time: 90s, 30m, 24h, 7d."""

    name = "span"
    _units: ClassVar = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:  # noqa: ARG002 - click's signature
        """What stands for it in the help."""
        return "SPAN"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """The span as a timedelta."""
        if isinstance(value, timedelta):
            return value
        found = re.fullmatch(r"(\d{1,6})([smhd])", str(value))
        if found is None:
            self.fail(f"{value!r} is no span of time; write 90s, 30m, 24h or 7d", param, ctx)
        return timedelta(**{self._units[found[2]]: int(found[1])})


class ShardParam(click.ParamType[tuple[int, int]]):
    """One part of so many: 1/4."""

    name = "shard"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:  # noqa: ARG002 - click's signature
        """What stands for it in the help."""
        return "I/N"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """The part, from 1, and how many there are."""
        if isinstance(value, tuple):
            return value
        found = re.fullmatch(r"(\d{1,4})/(\d{1,4})", str(value))
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            parts = int(found[2]) if found and int(found[2]) else 4
            self.fail(f"{value!r} is no part; write 1/{parts} to {parts}/{parts}", param, ctx)
        return int(found[1]), int(found[2])
