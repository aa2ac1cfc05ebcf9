"""`pleo-extract merge`: merge one lake into another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pleo_extract.cli.folder import LakeFolder
from pleo_extract.cli.options import lake_format_option, quiet_option, store_options

if TYPE_CHECKING:
    from pathlib import Path

    from pleo_extract.lake.store import Format, StoreOptions

__all__ = ["merge"]

EXAMPLES = """\b
Examples:
  pleo-extract merge data/export_jobs data/archive
  pleo-extract merge data/export_jobs data/table --format delta
"""


@click.command(epilog=EXAMPLES, short_help="Merge one lake into another")
@click.argument("source", type=LakeFolder())
@click.argument("target", type=LakeFolder())
@lake_format_option
@store_options
@quiet_option
def merge(
    source: str | Path, target: str | Path, store: StoreOptions, kind: Format | None, quiet: bool
) -> None:
    """Merge every job of SOURCE into TARGET, with the sync state of each company. The latest row of a job wins.

    Both can be a folder of Parquet or a Delta table; TARGET is created if it does not exist. A merge publishes everything or
    nothing, and does not change SOURCE. If both lakes have a company, the next dump reads what either may have missed.
    """
    from pleo_extract.sync.merge import merge_lakes

    receipt = merge_lakes(source, target, progress=False if quiet else None, format=kind, **store)
    if not quiet:
        click.echo(receipt)
