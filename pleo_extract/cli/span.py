"""Spans of time as people type them."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any, ClassVar

import click

__all__ = ["Span"]


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
