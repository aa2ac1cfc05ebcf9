"""`pleo-extract plan`: what the next dump would take."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pleo_extract.cli.companies import read_companies
from pleo_extract.cli.folder import FilePathParam, LakeFolder
from pleo_extract.cli.store import store_options
from pleo_extract.core.pace import RATE
from pleo_extract.errors import PleoExtractError, amount, escape, worst_code

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pleo_extract.client import AccountEntry
    from pleo_extract.lake.store import StoreOptions
    from pleo_extract.sync.plan import DumpPlan

__all__ = ["plan"]


@click.command(
    short_help="Say what the next dump would take",
    epilog="\b\nExample:\n  PLEO_API_KEY=… pleo-extract plan data/export_jobs",
)
@click.argument("lake", type=LakeFolder())
@store_options
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
    "--accounts",
    type=FilePathParam(),
    metavar="FILE",
    help="Many companies, a TOML file; see docs/scheduling.md",
)
@click.option("--full", is_flag=True, help="As if a full walk were asked for")
def plan(
    lake: str | Path,
    store: StoreOptions,
    base_url: str | None,
    company_id: str | None,
    rate: int,
    accounts: Path | None,
    full: bool,
) -> None:
    """Ask the server once and say what a dump to LAKE would take. Nothing is written.

    An estimate: from what it takes when all fits, to what it takes as a rule at most. With --accounts, once for each
    company, in a table.
    """
    from pleo_extract.client import Client
    from pleo_extract.sync.plan import plan_dump

    if accounts is not None:
        companies = read_companies(accounts, {"--base-url": base_url, "--company-id": company_id})
        _plan_many(lake, companies, full=full, store=store)
        return
    with Client(base_url, company_id=company_id, rate=rate) as client:
        click.echo(_tell(plan_dump(lake, client=client, full=full, **store)))


def _plan_many(lake: str | Path, entries: Sequence[AccountEntry], *, full: bool, store: StoreOptions) -> None:
    """A line for each company, then their sum; a company that cannot be asked is named, and the others are planned."""
    from pleo_extract.sync.plan import plan_dump

    found: list[tuple[str, DumpPlan]] = []
    codes = []
    try:
        for entry in entries:
            try:
                with entry.open() as client:
                    found.append((entry.name, plan_dump(lake, client=client, full=full, **store)))
            except PleoExtractError as exc:
                codes.append(exc.code)
                click.echo(f"pleo-extract: {entry.name}: {exc.tell()} (code {exc.code})", err=True)
    finally:
        for entry in entries:
            entry.shared.close()
    if found:
        click.echo(_tabulate([(name, *_cells(each)) for name, each in found], _sum([p for _, p in found])))
    if codes:
        raise SystemExit(worst_code(codes))


def _cells(found: DumpPlan) -> tuple[str, ...]:
    requests = "unknown" if found.requests is None else "{:,} to {:,}".format(*found.requests)
    seconds = "unknown" if found.seconds is None else " to ".join(map(_span, found.seconds))
    total = "unknown" if found.total is None else f"{found.total:,}"
    return "refresh" if found.mode == "refresh" else "full", total, f"{found.known:,}", requests, seconds


def _sum(plans: Sequence[DumpPlan]) -> tuple[str, ...]:
    """The sums of what is known of all; companies are read side by side, so their times are not added."""
    totals = [each.total for each in plans]
    ranges = [each.requests for each in plans]
    total = "unknown" if None in totals else f"{sum(filter(None, totals)):,}"
    known = [each for each in ranges if each is not None]
    least, most = sum(low for low, _ in known), sum(high for _, high in known)
    requests = "unknown" if len(known) < len(ranges) else f"{least:,} to {most:,}"
    return f"{len(plans)} together", "", total, f"{sum(each.known for each in plans):,}", requests, ""


def _tabulate(rows: Sequence[tuple[str, ...]], last: tuple[str, ...]) -> str:
    heads = ("company", "walk", "at the server", "in the lake", "requests", "time")
    cells = [heads, *((escape(name, 40), *more) for name, *more in rows), last]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]
    ruler = "  ".join("-" * width for width in widths)
    return "\n".join([lines[0], ruler, *lines[1:-1], ruler, lines[-1]])


def _tell(found: DumpPlan) -> str:
    mode = "a refresh" if found.mode == "refresh" else f"a full walk ({found.why})"
    total = "an unknown number of jobs" if found.total is None else amount(found.total, "job")
    lines = [f"{mode}: {total} at the server, {found.known:,} in the lake"]
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
