"""`pleo-extract names`: names of companies, kept in a lake."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pleo_extract.cli.folder import FilePathParam
from pleo_extract.cli.options import lake_argument
from pleo_extract.errors import amount

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["names"]

EXAMPLES = """\b
Examples:
  pleo-extract names data/export_jobs names.csv
  pleo-extract sql data/export_jobs "select id, name from companies"
"""


@click.command(epilog=EXAMPLES, short_help="Keep names of companies in a lake")
@lake_argument
@click.argument("file", type=FilePathParam(exists=True, dir_okay=False))
def names(lake: str | Path, file: Path) -> None:
    """Keep the names of companies from FILE in LAKE, in place of those that it keeps.

    FILE is CSV in UTF-8 with the columns id and name. Reports, checks and answers then show the names, and the view
    `companies` has them. A name of an accounts file counts where FILE gives none.
    """
    from pleo_extract.answers.doors import renew_catalogue
    from pleo_extract.answers.names import keep_names, read_names

    found = read_names(file)
    keep_names(lake, found)
    renew_catalogue(lake, run="names")
    click.echo(f"{lake}: keeps the names of {amount(len(found), 'company', 'companies')}")
