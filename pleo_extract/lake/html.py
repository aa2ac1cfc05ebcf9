"""Labelled values as an HTML table: how a notebook shows a receipt and a status."""

from __future__ import annotations

from html import escape as escape_html
from typing import TYPE_CHECKING

from pleo_extract.errors import escape

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["LONGEST", "format_html"]

LONGEST = 2_000
"""Most characters of a value."""


def format_html(title: str, values: Iterable[tuple[str, str]]) -> str:
    """Return a table with a caption and one row a value. Whatever the values hold, they are shown as text."""
    rows = "".join(
        f'<tr><th style="text-align:left">{_show(name)}</th><td style="text-align:left">{_show(value)}</td></tr>'
        for name, value in values
    )
    return f"<table><caption>{_show(title)}</caption>{rows}</table>"


def _show(text: str) -> str:
    return escape_html(escape(text, LONGEST))
