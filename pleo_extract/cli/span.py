"""Spans of time and parts of a whole, as people type them."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any, ClassVar

import click

__all__ = ["Shard", "Span"]


class Span(click.ParamType[timedelta]):
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


class Shard(click.ParamType[tuple[int, int]]):
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
            self.fail(f"{value!r} is no part; write 1/4 to 4/4", param, ctx)
        return int(found[1]), int(found[2])
