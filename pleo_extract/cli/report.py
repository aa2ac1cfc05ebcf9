"""`pleo-extract report`: the answers of a lake on one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pleo_extract.cli.folder import OutputFile
from pleo_extract.cli.options import lake_argument, names_option, store_options
from pleo_extract.cli.span import InstantParam

if TYPE_CHECKING:
    from datetime import datetime

    from pleo_extract.lake.store import StoreOptions

__all__ = ["report"]

EXAMPLES = """\b
Examples:
  pleo-extract report data/export_jobs
  pleo-extract report data/export_jobs --xlsx report.xlsx
  pleo-extract report data/export_jobs -o september.html \\
      --since 2026-09-01 --until 2026-10-01
  pleo-extract report data/export_jobs \\
      --company-id 6f1f2c1e-8f5b-4a53-9f0a-0d3c6f0a7b11
"""


@click.command(epilog=EXAMPLES, short_help="Write the answers of a lake to one HTML page")
@lake_argument
@store_options
@click.option(
    "--output",
    "-o",
    type=OutputFile(dir_okay=False),
    metavar="FILE",
    default=Path("report.html"),
    show_default=True,
    help="Write this file",
)
@names_option
@click.option(
    "--xlsx",
    "workbook",
    type=OutputFile(dir_okay=False),
    metavar="FILE",
    help="Write the numbers of the page to this Excel workbook, too",
)
@click.option("--company-id", "--company", metavar="UUID", help="Only the jobs of this company")
@click.option(
    "--since",
    type=InstantParam(is_local=True),
    metavar="DATE",
    help="Only jobs created on this day or later [default: a year, with its last 30 days in front]",
)
@click.option(
    "--until",
    type=InstantParam(is_local=True),
    metavar="DATE",
    help="Only jobs created before this day",
)
@click.option(
    "--tz",
    default="UTC",
    metavar="ZONE",
    show_default=True,
    help="Time zone of all times and periods, such as Europe/Copenhagen",
)
def report(
    lake: str | Path,
    store: StoreOptions,
    output: Path,
    names: Path | None,
    workbook: Path | None,
    company_id: str | None,
    since: datetime | None,
    until: datetime | None,
    tz: str,
) -> None:
    """Write a page about the jobs of LAKE: how many exports there are, how long they take, how often they fail and why.

    The page is one HTML file without script, and loads nothing. It can be sent, printed, and read on a phone. Days are those of --tz.
    If the lake has no snapshot yet, no file is written and the command ends with 75.
    """
    from pleo_extract.report import write_report
    from pleo_extract.zones import find_zone, has_zone

    zone = find_zone(tz)
    first, last = (
        each.replace(tzinfo=zone) if each is not None and not has_zone(each) else each
        for each in (since, until)
    )
    path = write_report(
        lake,
        output,
        company_id=company_id,
        since=first,
        until=last,
        tz=tz,
        names=names,
        workbook=workbook,
        **store,
    )
    for written in [path, *([workbook] if workbook else [])]:
        click.echo(f"{written}: {written.stat().st_size / 1000:,.0f} kB")
