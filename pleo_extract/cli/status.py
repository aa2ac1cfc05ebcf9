"""`pleo-extract status`: the state of a lake and of its last run."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from pleo_extract.cli.options import lake_argument, store_options

if TYPE_CHECKING:
    from pathlib import Path

    from pleo_extract.lake.store import StoreOptions

__all__ = ["status"]


@click.command(
    short_help="Show how fresh a lake is and how its last run ended",
    epilog="\b\nExamples:\n  pleo-extract status data/export_jobs\n  pleo-extract status data/export_jobs --json",
)
@lake_argument
@store_options
@click.option("--json", "as_json", is_flag=True, help="Print all of it as JSON")
def status(lake: str | Path, store: StoreOptions, as_json: bool) -> None:
    """Show how fresh LAKE is, what it holds, and how its last run ended. Sends no request."""
    import msgspec

    from pleo_extract.lake.status import read_status

    found = read_status(lake, **store)
    if as_json:
        click.echo(
            msgspec.json.format(msgspec.json.encode(dataclasses.asdict(found), enc_hook=str), indent=2)
        )
    else:
        click.echo(found)
