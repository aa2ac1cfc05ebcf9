"""`pleo-extract repair`: make a broken lake whole again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pleo_extract.cli.folder import LakeFolder
from pleo_extract.cli.store import store_options
from pleo_extract.errors import LakeError, amount, escape

if TYPE_CHECKING:
    from pathlib import Path

    from pleo_extract.lake.store import StoreOptions

__all__ = ["repair"]


@click.command(
    short_help="Make a broken lake whole again",
    epilog="\b\nExample:\n  pleo-extract repair data/export_jobs && pleo-extract dump data/export_jobs",
)
@click.argument("lake", type=LakeFolder())
@store_options
def repair(lake: str | Path, store: StoreOptions) -> None:
    """Make LAKE readable again after files of it were lost or damaged.

    What is intact is kept; the next dump reads everything again and brings back the rest. A Delta table to which
    another program has added rows twice keeps one row of each job. Ends with 65 where something is wrong still.
    """
    from pleo_extract.answers.doors import renew_catalogue
    from pleo_extract.lake.store import open_lake

    opened = open_lake(lake, **store)
    found = opened.repair()
    if opened.catalogue is not None and found.snapshot:
        renew_catalogue(lake, run="repair")
    for line in found.done:
        click.echo(escape(line, 500))
    if found.problems:
        for line in found.problems:
            click.echo(escape(line, 500))
        raise LakeError(
            f"{lake}: {amount(len(found.problems), 'problem')} that repair cannot mend: whole files contradict each "
            "other. Move the lake aside and dump anew"
        )
    if not found.done:
        state = (
            f"snapshot {found.snapshot} is as it was written"
            if found.snapshot
            else "nothing was published yet"
        )
        click.echo(f"{lake}: nothing needed repair, {state}")
