"""How a command prints an answer or writes it to a file."""

from __future__ import annotations

import sys
import textwrap
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import click

from pleo_extract.cli.options import FORMATS
from pleo_extract.cli.screen import Column, drop_empty, format_table, terminal_width
from pleo_extract.errors import UsageError, amount, escape

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import duckdb

    from pleo_extract.answers import AnswerTable

__all__ = ["choose_format", "format_answer", "write_answer"]

EXTENSIONS: Final = {".csv": "csv", ".json": "json", ".parquet": "parquet", ".txt": "table", ".xlsx": "xlsx"}
"""The format of a file, by the extension of its name."""
BINARY: Final = {"parquet": "Parquet", "xlsx": "a workbook"}
"""The formats that are not text, and their names."""


def choose_format(output: Path | None) -> str:
    """Return the format that the file's extension names; a table for the terminal.

    Raises:
        UsageError: the extension is unknown.
    """
    if output is None:
        return "table"
    kind = EXTENSIONS.get(output.suffix.lower())
    if kind is None:
        *most, last = (f"{extension} ({known})" for extension, known in EXTENSIONS.items())
        raise UsageError(
            f"--output {escape(str(output))}: the file's extension names no format. Use {', '.join(most)} or {last}, or "
            f"--format: {', '.join(FORMATS)}"
        )
    return kind


def format_answer(answer: AnswerTable, width: int | None = None) -> str:
    """Return an answer as a table of at most `width` characters a line, with the note about its rows below."""
    cells = list(zip(*answer.rows, strict=True)) or [()] * len(answer.names)
    columns = list(map(Column, answer.names, cells, answer.is_number))
    shown, empty = drop_empty(columns, width)
    lines = [format_table(shown or columns, width=width)]
    if empty and shown:
        lines += textwrap.wrap(f"without values: {', '.join(empty)}", width or 80)
    return "\n".join([*lines, answer.note])


def write_answer(
    relation: duckdb.DuckDBPyRelation,
    kind: str,
    output: Path | None,
    *,
    names: Mapping[str, str] = MappingProxyType({}),
    raw_csv: bool = False,
    separator: str = "comma",
) -> None:
    """Print an answer, or write it to a file.

    Args:
        relation: the answer.
        kind: one of `FORMATS`.
        output: the file; None for stdout.
        names: names of companies, by id, for a column beside their ids.
        raw_csv: leave texts in CSV that a spreadsheet would run as formulas as they are.
        separator: the list separator of CSV for Excel.

    Raises:
        UsageError: Parquet or a workbook was asked for on a terminal.
        StorageError: the file cannot be written.
    """
    from pleo_extract.answers import read_table, write
    from pleo_extract.lake import disk

    if kind == "table":
        answer = read_table(relation, names=names, hint="all of it with --format csv")
        if output is None:
            click.echo(format_answer(answer, terminal_width()))
        else:
            disk.write_output(output, f"{format_answer(answer)}\n".encode())
            click.echo(f"{output}: {answer.note.strip('()')}", err=True)
    elif output is None and kind in BINARY and sys.stdout.isatty():
        raise UsageError(f"a terminal cannot show {BINARY[kind]}; use --output FILE, or redirect with >")
    else:
        target = sys.stdout.buffer if output is None else output
        rows = write(relation, target, kind, names=names, formula_safe=not raw_csv, separator=separator)
        if output is not None:
            click.echo(f"{output}: {amount(rows, 'row')}", err=True)
