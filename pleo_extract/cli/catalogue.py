"""`pleo-extract catalogue`: a lake's views and macros for DuckDB clients elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pleo_extract.cli.folder import FilePathParam, LakeFolder

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["catalogue"]


@click.command(
    epilog="\b\nExample:\n  pleo-extract catalogue data/export_jobs --root /mnt/export_jobs -o jobs.duckdb",
    short_help="Write a DuckDB file for clients that reach a lake by another path",
)
@click.argument("lake", type=LakeFolder())
@click.option(
    "--root", default="", metavar="DIR", help="The folder of LAKE as these clients see it [default: as here]"
)
@click.option("--output", "-o", type=FilePathParam(), required=True, metavar="FILE", help="The file to write")
def catalogue(lake: str | Path, root: str, output: Path) -> None:
    """Write a DuckDB file with the views and macros of LAKE, for clients on another machine or in a container.

    It holds no data and follows the lake. Each dump keeps one for this machine in LAKE/_jobs.duckdb. A client can also
    say itself where the lake is: SET VARIABLE pleo_root = '/mnt/export_jobs'.
    """
    from pleo_extract.answers.doors import write_catalogue

    click.echo(f"{write_catalogue(lake, output, root=root)}: written")
