"""What commands that answer share: which snapshot is meant, and the way of an answer to the screen or into a file."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import TYPE_CHECKING, Final

import click

from pleo_extract.cli.screen import fit_terminal
from pleo_extract.errors import UsageError, escape
from pleo_extract.zones import assume_utc

if TYPE_CHECKING:
    from pathlib import Path

    import duckdb

__all__ = ["format_option", "kind_of", "read_snapshot", "write_answer"]

KINDS: Final = ("table", "csv", "json", "parquet")
ENDINGS: Final = {".csv": "csv", ".json": "json", ".parquet": "parquet", ".txt": "table"}
"""What a file is to hold, by the end of its name."""


format_option: Final = click.option(
    "--format",
    "kind",
    type=click.Choice(KINDS),
    metavar="KIND",
    help="table (folded to fit a screen), csv, json or parquet [default: as --output ends, else table]",
)


def kind_of(output: Path | None) -> str:
    """What the file's name says it is to hold; a table for the screen.

    Raises:
        UsageError: it says nothing that is known.
    """
    if output is None:
        return "table"
    kind = ENDINGS.get(output.suffix.lower())
    if kind is None:
        *most, last = (f"{ending} ({what})" for ending, what in ENDINGS.items())
        raise UsageError(
            f"--output {escape(str(output))}: how to write it is told by the end of its name, {', '.join(most)} or {last}, "
            f"or by --format: {', '.join(KINDS)}"
        )
    return kind


def write_answer(
    relation: duckdb.DuckDBPyRelation, kind: str, output: Path | None, *, raw_csv: bool = False
) -> None:
    """Show an answer, or write it to a file."""
    from pleo_extract.answers import table, write
    from pleo_extract.lake import disk

    if kind == "table":
        text = table(relation, whole="all of it with --format csv")
        click.echo(fit_terminal(text)) if output is None else disk.write_output(output, f"{text}\n".encode())
    elif output is None and kind == "parquet" and sys.stdout.isatty():
        raise UsageError("Parquet is not for the screen; give --output FILE, or send it on with >")
    else:
        write(relation, sys.stdout.buffer if output is None else output, kind, formula_safe=not raw_csv)


def read_snapshot(text: str | None, name: str) -> datetime | int | None:
    """Which snapshot is meant; None for the current one. `name` is what the command line calls it."""
    if text is None:
        return None
    try:
        if text.isdigit():
            return int(text)
        return assume_utc(datetime.fromisoformat(text))
    except (ValueError, OverflowError):
        raise UsageError(f"{name} is neither a snapshot's number nor an instant: {text!r}") from None
