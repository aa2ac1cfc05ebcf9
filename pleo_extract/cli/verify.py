"""`pleo-extract verify`: is the lake as it was written?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pleo_extract.cli.folder import LakeFolder
from pleo_extract.cli.store import store_options
from pleo_extract.errors import LakeError, amount, escape

if TYPE_CHECKING:
    from pathlib import Path

    from pleo_extract.lake.store import StoreOptions

__all__ = ["verify"]


@click.command(
    epilog="\b\nExample:\n  pleo-extract verify data/export_jobs",
    short_help="Compare a lake with what was written",
)
@click.argument("lake", type=LakeFolder())
@store_options
def verify(lake: str | Path, store: StoreOptions) -> None:
    """Read all of LAKE and compare it with what was written: files, sums, columns, keys.

    Ends with 65 where something is not as it was written.
    """
    from pleo_extract.lake.store import verify_lake

    found = verify_lake(lake, **store)
    for problem in found.problems:
        click.echo(escape(problem, 500))
    if not found.ok:
        raise LakeError(f"{lake}: {len(found.problems)} problem(s). Run: pleo-extract repair {lake}")
    click.echo(
        f"{lake}: snapshot {found.snapshot}, {amount(found.files, 'file')}, {amount(found.rows, 'job')}, all as written"
    )
