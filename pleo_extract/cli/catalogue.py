"""`pleo-extract catalogue`: a lake's views and macros for DuckDB clients on other machines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pleo_extract.cli.folder import OutputFile
from pleo_extract.cli.options import lake_argument

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["catalogue"]


@click.command(
    epilog="\b\nExample:\n  pleo-extract catalogue data/export_jobs --root /mnt/export_jobs \\\n      -o jobs.duckdb",
    short_help="Write a DuckDB file for clients that reach a lake by another path",
)
@lake_argument
@click.option(
    "--root", default="", metavar="DIR", help="Folder of LAKE as the clients see it [default: as here]"
)
@click.option("--output", "-o", type=OutputFile(), required=True, metavar="FILE", help="Write this file")
def catalogue(lake: str | Path, root: str, output: Path) -> None:
    """Write a DuckDB file with the views and macros of LAKE, for clients on another machine or in a container.

    The file holds no data: it reads the lake, so it stays up to date. For clients on this machine, each dump writes
    LAKE/_jobs.duckdb. A client can also set the folder itself: SET VARIABLE pleo_root = '/mnt/export_jobs'.
    """
    from pleo_extract.answers.doors import write_catalogue

    click.echo(f"{write_catalogue(lake, output, root=root)}: written")
