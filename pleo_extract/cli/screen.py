"""Tables for a terminal: the only place that aligns columns and fits them into a width."""

from __future__ import annotations

import re
import shutil
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Column", "align", "drop_empty", "format_table", "terminal_width"]

GAP: Final = "  "

_MIDNIGHT: Final = re.compile(r"(\d{4}-\d\d-\d\d) 00:00:00")
_UUID: Final = re.compile(r"([0-9a-f]{8})(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SHORT_FORMS: Final = ((_MIDNIGHT, ""), (_UUID, "…"))


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table: its name, its cells from top to bottom, and whether they align to the right."""

    name: str
    cells: Sequence[str]
    right: bool = False

    @property
    def width(self) -> int:
        """Return the characters of its widest cell or its name."""
        return max(len(self.name), *map(len, self.cells), 0)


def terminal_width() -> int | None:
    """Return the width of the terminal; None if stdout is a file or a pipe, whose readers want whole lines."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def format_table(columns: Sequence[Column], *, width: int | None = None, total: bool = False) -> str:
    """Return a table as text: names, a rule, rows.

    A table that is wider than `width` shrinks in steps until it fits. First, timestamps that are all midnight become
    dates. Then UUIDs become their first 8 digits, unless two of them begin alike. Then the columns are divided into
    several tables, one below the other; each repeats the first columns, which identify the row.

    Args:
        columns: the columns, all of the same length.
        width: most characters in a line; None for no limit.
        total: whether the last row is a total, which a rule separates from the others.
    """
    if width is None:
        return _format_block(columns, total=total)
    for pattern, mark in _SHORT_FORMS:
        if _measure(columns) > width:
            columns = [_shorten(column, pattern, mark) for column in columns]
    blocks = [columns] if _measure(columns) <= width else _divide(columns, width)
    lines = "\n\n".join(_format_block(block, total=total) for block in blocks).split("\n")
    return "\n".join(line if len(line) <= width else f"{line[: width - 1]}…" for line in lines)


def drop_empty(columns: Sequence[Column], width: int | None) -> tuple[Sequence[Column], list[str]]:
    """Return the columns without those that have no value, and the names of these, if the table is wider than `width`."""
    if width is None or _measure(columns) <= width:
        return columns, []
    empty = [column.name for column in columns if column.cells and not any(column.cells)]
    return [column for column in columns if column.name not in empty], empty


def align(rows: Sequence[Sequence[str]], right: Sequence[bool] = ()) -> list[str]:
    """Return one line for each row, with the cells of each column padded to the same width.

    Args:
        rows: the cells of each row.
        right: whether each column aligns to the right; by default none does.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    sides = [">" if flag else "<" for flag in right or [False] * len(widths)]
    return [
        GAP.join(
            f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True)
        ).rstrip()
        for row in rows
    ]


def _format_block(columns: Sequence[Column], *, total: bool) -> str:
    rule = ["-" * column.width for column in columns]
    rows = list(zip(*(column.cells for column in columns), strict=True))
    rows.insert(len(rows) - 1, tuple(rule)) if total else None
    names = [column.name for column in columns]
    return "\n".join(align([names, rule, *rows], [column.right for column in columns]))


def _divide(columns: Sequence[Column], width: int) -> Iterator[list[Column]]:
    """Yield blocks of columns that fit. The first columns, up to two fifths of the width, are in each block."""
    kept = max(number for number in range(len(columns)) if _measure(columns[:number]) <= width * 2 // 5)
    keys, rest = columns[:kept], columns[kept:]
    while rest:
        taken = max(1, *(n for n in range(len(rest) + 1) if _measure([*keys, *rest[:n]]) <= width))
        yield [*keys, *rest[:taken]]
        rest = rest[taken:]


def _measure(columns: Sequence[Column]) -> int:
    """Return the characters of a line that holds all columns."""
    return sum(column.width for column in columns) + len(GAP) * (len(columns) - 1)


def _shorten(column: Column, pattern: re.Pattern[str], mark: str) -> Column:
    """Return the column with short forms of its cells, if each cell has one and different cells keep different forms."""
    found = {cell: pattern.fullmatch(cell) for cell in column.cells if cell}
    short = {cell: match[1] + mark for cell, match in found.items() if match}
    if not found or len(short) < len(found) or len(set(short.values())) < len(short):
        return column
    return replace(column, cells=[short.get(cell, "") for cell in column.cells])
