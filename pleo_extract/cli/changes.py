"""`pleo-extract changes`: what differs between two snapshots of a lake."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Final

import click

from pleo_extract.cli.answer import choose_format, write_answer
from pleo_extract.cli.options import answer_format_option, lake_argument, output_option, store_options
from pleo_extract.cli.span import SnapshotParam
from pleo_extract.errors import TryLater, UsageError

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from pleo_extract.lake.store import StoreOptions
    from pleo_extract.reader import Lake

__all__ = ["changes"]

EXAMPLES = """\b
Examples:
  pleo-extract changes data/export_jobs
  pleo-extract changes data/export_jobs --since 2026-11-01T08:00:00Z
  pleo-extract changes data/export_jobs --since 12 --until 14 -o changes.csv
"""
TABLE_COLUMNS: Final = (
    "change",
    "status_before",
    "status",
    "company_id",
    "id",
    "created_at",
    "last_updated_at",
    "failure_reason_type",
)
"""The columns of a printed table. A terminal has no room for all columns; files have them all."""


@click.command(epilog=EXAMPLES, short_help="Compare two snapshots of a lake")
@lake_argument
@click.option(
    "--since",
    type=SnapshotParam(),
    help="The earlier snapshot: its number, or an instant such as 2026-11-01T08:00:00Z [default: the one before the "
    "current one]",
)
@click.option("--until", type=SnapshotParam(), help="The later snapshot [default: the current one]")
@store_options
@answer_format_option
@output_option
def changes(
    lake: str | Path,
    since: datetime | int | None,
    until: datetime | int | None,
    store: StoreOptions,
    kind: str | None,
    output: Path | None,
) -> None:
    """List the jobs of LAKE that differ between two snapshots: new, ended, changed, vanished or removed.

    The option --keep-for of dump says how long snapshots are kept.
    """
    import duckdb

    from pleo_extract.reader import Lake

    kind = kind or choose_format(output)
    opened = Lake(lake, **store)
    earlier = _find_previous(opened) if since is None else since
    found = opened.changes(earlier, until)
    if kind == "table":
        click.echo(f"from {_describe(earlier)} to {_describe(until)}", err=True)
    columns = TABLE_COLUMNS if kind == "table" else found.columns
    with duckdb.connect(":memory:") as con:
        write_answer(con.from_arrow(found.select(columns).to_arrow()), kind, output)


def _describe(snapshot: datetime | int | None) -> str:
    if snapshot is None:
        return "the current snapshot"
    return (
        f"snapshot {snapshot}"
        if isinstance(snapshot, int)
        else f"the snapshot of {snapshot.astimezone(UTC):%Y-%m-%d %H:%M UTC}"
    )


def _find_previous(lake: Lake) -> int:
    """Return the number of the snapshot before the current one.

    Raises:
        TryLater: the lake has no snapshot.
        UsageError: the lake keeps no earlier snapshot.
    """
    from pleo_extract.lake.store import is_delta

    numbers: list[int] = lake.snapshots()["snapshot"].to_list()
    if numbers and is_delta(lake.name):
        # `snapshots` lists only the current version of a Delta table. Versions are numbered without gaps, and version 0
        # is the empty table. If a VACUUM has removed the files of a version, `changes` raises an error that says so.
        numbers = list(range(1, numbers[-1] + 1))
    if not numbers:
        raise TryLater(f"{lake.name} has no snapshot yet: no dump has been completed")
    if len(numbers) < 2:
        raise UsageError(
            f"{lake.name} has one snapshot and no earlier one to compare it with. A dump that finds nothing new makes none, and "
            "earlier ones stay as long as --keep-for of dump says"
        )
    return numbers[-2]
