"""`pleo-extract verify`: a check of all files of a lake."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pleo_extract.cli.options import lake_argument, store_options
from pleo_extract.errors import LakeError, amount, escape

if TYPE_CHECKING:
    from pathlib import Path

    from pleo_extract.lake.store import StoreOptions

__all__ = ["verify"]


@click.command(
    epilog="\b\nExample:\n  pleo-extract verify data/export_jobs",
    short_help="Check all files of a lake",
)
@lake_argument
@store_options
def verify(lake: str | Path, store: StoreOptions) -> None:
    """Read all of LAKE and check it against its manifest: files, checksums, columns, keys, and what the catalogue reads.

    Ends with 65 if a file is missing, damaged or inconsistent.
    """
    from pleo_extract.answers.verification import verify_lake

    found = verify_lake(lake, **store)
    for problem in found.problems:
        click.echo(escape(problem, 500))
    if not found.ok:
        raise LakeError(f"{lake}: {amount(len(found.problems), 'problem')}. Run: pleo-extract repair {lake}")
    if not found.snapshot:
        click.echo(f"{lake}: nothing is published yet, so there is nothing to check")
        return
    click.echo(
        f"{lake}: snapshot {found.snapshot}, {amount(found.files, 'file')}, {amount(found.rows, 'job')}, all intact"
    )
