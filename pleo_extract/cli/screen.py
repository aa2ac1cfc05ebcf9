"""A table cut to the width of a terminal, so that its lines stay lines."""

from __future__ import annotations

import re
import shutil
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["fit", "fit_terminal"]

_MIDNIGHT = re.compile(r"(\d{4}-\d\d-\d\d) 00:00:00")
_UUID = re.compile(r"([0-9a-f]{8})(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
GAP = "  "


def fit_terminal(text: str) -> str:
    """The table as it is where nobody looks on, or where it fits; else cut to the terminal's width."""
    return fit(text, shutil.get_terminal_size().columns) if sys.stdout.isatty() else text


def fit(text: str, width: int) -> str:
    """A table of `warehouse.table` in at most `width` characters a line.

    One after the other, until it fits: instants that are all midnight become dates; UUIDs their first 8 digits,
    where these tell them apart; and the columns that remain go into a second table below, and so on, each of which
    repeats the first columns, since these say what a row is about.
    """
    *lines, foot = text.split("\n")
    if max(map(len, lines)) <= width:
        return text
    spans = [found.span() for found in re.finditer("-+", lines[1])]
    columns = [[line[start:end].ljust(end - start) for line in lines] for start, end in spans]
    for pattern, mark in ((_MIDNIGHT, ""), (_UUID, "…")):
        if _width(columns) > width:
            columns = [_shorten(column, pattern, mark) for column in columns]
    return "\n\n".join(_draw(block, width) for block in _fold(columns, width)) + f"\n{foot}"


def _fold(columns: list[list[str]], width: int) -> Iterator[list[list[str]]]:
    """The columns in blocks that fit, the first columns, up to two fifths of the width, in each."""
    kept = max(number for number in range(len(columns)) if _width(columns[:number]) <= width * 2 // 5)
    keys, rest = columns[:kept], columns[kept:]
    while rest:
        taken = max(1, *(n for n in range(len(rest) + 1) if _width([*keys, *rest[:n]]) <= width))
        yield [*keys, *rest[:taken]]
        rest = rest[taken:]


def _draw(block: list[list[str]], width: int) -> str:
    return "\n".join(GAP.join(cells).rstrip()[:width] for cells in zip(*block, strict=True))


def _width(columns: list[list[str]]) -> int:
    return sum(len(column[0]) for column in columns) + len(GAP) * (len(columns) - 1)


def _shorten(column: list[str], pattern: re.Pattern[str], mark: str) -> list[str]:
    """The column with what the pattern captures of each cell, if it fits them all and they stay apart."""
    name, ruler, *cells = column
    texts = [cell.strip() for cell in cells]
    found = {text: pattern.fullmatch(text) for text in texts if text}
    short = {text: match[1] + mark for text, match in found.items() if match}
    if not found or len(short) < len(found) or len(set(short.values())) < len(short):
        return column
    width = max(len(name.strip()), *map(len, short.values()))
    return [name.strip().ljust(width), ruler[:width], *(short.get(text, "").ljust(width) for text in texts)]
