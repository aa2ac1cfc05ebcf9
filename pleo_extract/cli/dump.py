"""`pleo-extract dump`: bring a lake up to date."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pleo_extract.pace import RATE

if TYPE_CHECKING:
    from pleo_extract.extract import Receipt

__all__ = ["dump", "tell_receipt"]

EXAMPLES = """\b
Examples:
  PLEO_API_KEY=… pleo-extract dump data/export_jobs
  pleo-extract dump data/acme --company-id 6f1f2c1e-8f5b-4a53-9f0a-0d3c6f0a7b11
  pleo-extract dump data/export_jobs --rate 200 --deadline 900 --quiet
  pleo-extract dump sandbox/jobs --base-url http://127.0.0.1:8080
"""


@click.command(epilog=EXAMPLES, short_help="Bring a lake of Parquet up to date")
@click.argument("lake", type=click.Path(path_type=Path))
@click.option(
    "--base-url", metavar="URL", help="production, staging, or a URL [default: PLEO_BASE_URL or production]"
)
@click.option("--company-id", metavar="UUID", help="One company's jobs [default: PLEO_COMPANY_ID or all]")
@click.option(
    "--rate",
    type=click.IntRange(min=1),
    metavar="N",
    default=RATE,
    show_default=True,
    help="Requests in any minute",
)
@click.option(
    "--in-flight",
    type=click.IntRange(min=1),
    metavar="N",
    default=8,
    show_default=True,
    help="Requests under way at once",
)
@click.option(
    "--deadline",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Give up after so long [default: never]",
)
@click.option(
    "--ca-file", type=click.Path(path_type=Path), metavar="FILE", help="Certificates to trust, a PEM file"
)
@click.option("--proxy", metavar="URL", help="Go through this proxy")
@click.option("--quiet", "-q", is_flag=True, help="Say nothing unless something is wrong")
def dump(
    lake: Path,
    base_url: str | None,
    company_id: str | None,
    rate: int,
    in_flight: int,
    deadline: float | None,
    ca_file: Path | None,
    proxy: str | None,
    quiet: bool,
) -> None:
    """Bring the Parquet in LAKE up to date with every export job.

    Published whole or not at all; readers may read meanwhile. LAKE is made where there is none.
    """
    from pleo_extract.client import Client
    from pleo_extract.extract import dump_export_jobs

    with Client(
        base_url, company_id=company_id, rate=rate, in_flight=in_flight, ca_file=ca_file, proxy=proxy
    ) as client:
        receipt = dump_export_jobs(lake, client=client, deadline=deadline, progress=False if quiet else None)
    if not quiet:
        click.echo(tell_receipt(receipt))


def tell_receipt(receipt: Receipt) -> str:
    """A receipt in one paragraph."""
    months = len(receipt.months_written)
    change = f"{months} month{'s' * (months != 1)} written" if receipt.published else "nothing new"
    how = "by refresh" if receipt.mode == "refresh" else f"in full ({receipt.why_full or 'asked for'})"
    why = f" ({receipt.why})" if receipt.why else ""
    retries = f", {receipt.retries} of them again" if receipt.retries else ""
    waited = f", {receipt.waited:.0f} s of it waiting" if receipt.waited >= 1 else ""
    return (
        f"{receipt.lake}: {receipt.lake_rows:,} jobs, snapshot {receipt.snapshot}, {change}\n"
        f"{receipt.verdict}{why}, read {how}: {receipt.distinct:,} jobs on {receipt.pages:,} pages, "
        f"{receipt.requests:,} requests{retries}, {receipt.seconds:.1f} s{waited}"
    )
