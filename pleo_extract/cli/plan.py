"""`pleo-extract plan`: what the next dump would take."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pleo_extract.cli.folder import LakeFolder
from pleo_extract.pace import RATE

if TYPE_CHECKING:
    from pathlib import Path

    from pleo_extract.extract import DumpPlan

__all__ = ["plan"]


@click.command(
    short_help="Say what the next dump would take",
    epilog="\b\nExample:\n  PLEO_API_KEY=… pleo-extract plan data/export_jobs",
)
@click.argument("lake", type=LakeFolder())
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
@click.option("--full", is_flag=True, help="As if a full walk were asked for")
def plan(lake: Path, base_url: str | None, company_id: str | None, rate: int, full: bool) -> None:
    """Ask the server once and say what a dump to LAKE would take. Nothing is written.

    An estimate: from what it takes when all fits, to what it takes as a rule at most.
    """
    from pleo_extract.client import Client
    from pleo_extract.extract import plan_dump

    with Client(base_url, company_id=company_id, rate=rate) as client:
        click.echo(_tell(plan_dump(lake, client=client, full=full)))


def _tell(found: DumpPlan) -> str:
    mode = "a refresh" if found.mode == "refresh" else f"a full walk ({found.why})"
    total = "an unknown number of" if found.total is None else f"{found.total:,}"
    lines = [f"{mode}: {total} jobs at the server, {found.known:,} in the lake"]
    if found.requests is None or found.seconds is None:
        lines.append("the server does not tell its total, so requests and time cannot be said")
    else:
        (least, most), (soon, late) = found.requests, found.seconds
        lines.append(f"{least:,} to {most:,} requests, a page each; {_span(soon)} to {_span(late)}")
    if found.months is not None:
        lines.append(f"months to write: {', '.join(found.months) or 'those of jobs that changed, if any'}")
    return "\n".join(lines)


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
