"""`pleo-extract changes`: what is different between two snapshots of a lake."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from pleo_extract.cli.answer import format_option, kind_of, read_snapshot, write_answer
from pleo_extract.cli.folder import FilePathParam, LakeFolder
from pleo_extract.cli.store import store_options

if TYPE_CHECKING:
    from pathlib import Path

    from pleo_extract.lake.store import StoreOptions

__all__ = ["changes"]

EXAMPLES = """\b
Examples:
  pleo-extract changes data/export_jobs
  pleo-extract changes data/export_jobs --since 2026-11-01T08:00:00Z
  pleo-extract changes data/export_jobs --since 12 --until 14 -o changes.csv
"""
FEW: Final = "change, status_before, status, company_id, id, created_at, last_updated_at, failure_reason_type"
"""What a screen has room for."""


@click.command(epilog=EXAMPLES, short_help="Say what is different between two snapshots")
@click.argument("lake", type=LakeFolder())
@click.option(
    "--since",
    metavar="WHEN",
    help="The earlier snapshot: its number, or an instant such as 2026-11-01T08:00:00Z [default: the last but one]",
)
@click.option("--until", metavar="WHEN", help="The later one [default: the current one]")
@store_options
@format_option
@click.option(
    "--output", "-o", type=FilePathParam(), metavar="FILE", help="Write to a file instead of the screen"
)
def changes(
    lake: str | Path,
    since: str | None,
    until: str | None,
    store: StoreOptions,
    kind: str | None,
    output: Path | None,
) -> None:
    """Say which jobs of LAKE are new, have ended, changed otherwise or vanished, one row each.

    How long snapshots stay is up to the dumps: see --keep-for there.
    """
    from pleo_extract.answers import answer
    from pleo_extract.errors import UsageError
    from pleo_extract.reader import Lake

    kind = kind or kind_of(output)
    opened = Lake(lake, **store)
    earlier = read_snapshot(since, "--since")
    if earlier is None:
        numbers = opened.snapshots()["snapshot"].to_list()
        if len(numbers) < 2:
            raise UsageError(
                f"{lake} keeps one snapshot or none: there is nothing to compare it with; see --keep-for of dump"
            )
        earlier = numbers[-2]
    found = opened.changes(earlier, read_snapshot(until, "--until"))
    con = opened.connect()
    try:
        con.register("changes", found.to_arrow())
        columns = FEW if kind == "table" else "*"
        write_answer(answer(con, f"SELECT {columns} FROM changes"), kind, output)  # noqa: S608 - our own names
    finally:
        con.close()
