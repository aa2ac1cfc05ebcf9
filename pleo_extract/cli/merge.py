"""`pleo-extract merge`: bring one lake into another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pleo_extract.cli.folder import LakeFolder
from pleo_extract.cli.store import store_options
from pleo_extract.errors import amount

if TYPE_CHECKING:
    from pathlib import Path

    from pleo_extract.lake.store import Format, StoreOptions
    from pleo_extract.sync.receipt import Receipt

__all__ = ["merge"]

EXAMPLES = """\b
Examples:
  pleo-extract merge data/export_jobs data/archive
  pleo-extract merge data/export_jobs data/table --format delta
"""


@click.command(epilog=EXAMPLES, short_help="Bring one lake into another")
@click.argument("source", type=LakeFolder())
@click.argument("target", type=LakeFolder())
@click.option(
    "--format",
    "kind",
    type=click.Choice(["parquet", "delta"]),
    help="What a new TARGET is to be [default: delta for a URL, parquet for a folder]",
)
@store_options
@click.option("--quiet", "-q", is_flag=True, help="Say nothing unless something is wrong")
def merge(
    source: str | Path, target: str | Path, store: StoreOptions, kind: Format | None, quiet: bool
) -> None:
    """Bring every job of SOURCE into TARGET, the latest row of each, with the state of each company.

    Each is a folder of Parquet or a Delta table; TARGET is made where there is none. Published whole or not at all.
    SOURCE stays as it is. Of a company that both have, the next dump reads all that either may have missed.
    """
    from pleo_extract.sync.merge import merge_lakes

    receipt = merge_lakes(source, target, progress=False if quiet else None, format=kind, **store)
    if not quiet:
        click.echo(_tell(receipt))


def _tell(receipt: Receipt) -> str:
    months = len(receipt.months_written)
    change = f"{amount(months, 'month')} written" if receipt.published else "nothing new"
    return (
        f"{receipt.lake}: {amount(receipt.lake_rows, 'job')}, snapshot {receipt.snapshot}, {change}\n"
        f"{receipt.taken:,} of {amount(receipt.rows, 'job')} taken from {receipt.source}, {receipt.seconds:.1f} s"
    )
