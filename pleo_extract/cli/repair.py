"""`pleo-extract repair`: make a damaged lake readable again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pleo_extract.cli.options import lake_argument, store_options
from pleo_extract.errors import LakeError, amount, escape

if TYPE_CHECKING:
    from pathlib import Path

    from pleo_extract.lake.store import StoreOptions

__all__ = ["repair"]


@click.command(
    short_help="Make a damaged lake readable again",
    epilog="\b\nExample:\n  pleo-extract repair data/export_jobs && pleo-extract dump data/export_jobs",
)
@lake_argument
@store_options
def repair(lake: str | Path, store: StoreOptions) -> None:
    """Make LAKE readable again after files of it were lost or damaged.

    Repair keeps every intact file. The next dump is a full sync and restores the lost rows. If another program has added
    rows to a Delta table a second time, one row of each job stays. Ends with 65 if a problem remains.
    """
    from pleo_extract.answers.verification import repair_catalogue
    from pleo_extract.lake.store import open_lake

    opened = open_lake(lake, **store)
    found = opened.repair()
    for line in (*found.done, *found.problems):
        click.echo(escape(line, 500))
    done = list(found.done)
    if opened.catalogue is not None and found.snapshot:
        for line in (more := repair_catalogue(lake)):
            click.echo(escape(line, 500))
        done += more
    if found.problems:
        raise LakeError(
            f"{lake}: repair cannot solve {amount(len(found.problems), 'problem')}: intact files contradict each other. Move "
            "the lake to another place and dump again"
        )
    if not done:
        state = f"snapshot {found.snapshot} is intact" if found.snapshot else "nothing was published yet"
        click.echo(f"{lake}: nothing needed repair, {state}")
