"""`pleo-extract plan`: an estimate of the next dump."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pleo_extract.cli.companies import read_companies
from pleo_extract.cli.options import full_option, lake_argument, server_options, store_options
from pleo_extract.cli.screen import Column, format_table, terminal_width
from pleo_extract.errors import PleoExtractError, amount, escape, worst_code

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pleo_extract.client import AccountEntry
    from pleo_extract.lake.store import StoreOptions
    from pleo_extract.sync.plan import DumpPlan

__all__ = ["plan"]


@click.command(
    short_help="Estimate the requests and the time of the next dump",
    epilog="\b\nExample:\n  PLEO_API_KEY=… pleo-extract plan data/export_jobs",
)
@lake_argument
@server_options
@full_option
@store_options
def plan(
    lake: str | Path,
    store: StoreOptions,
    base_url: str | None,
    company_id: str | None,
    rate: int,
    page_size: int | None,
    accounts: Path | None,
    full: bool,
) -> None:
    """Estimate how many requests and how much time a dump to LAKE takes. Sends one request and writes nothing.

    The estimate is a range: the lower end if nothing unexpected is found, the upper end for what a dump rarely exceeds. With
    --accounts, the command sends one request for each company and prints a table.
    """
    from pleo_extract.client import Client
    from pleo_extract.sync.plan import plan_dump

    if accounts is not None:
        single: dict[str, object] = {"--base-url": base_url, "--company-id": company_id}
        companies = read_companies(accounts, single, page_size=page_size)
        _plan_many(lake, companies, full=full, store=store)
        return
    with Client(base_url, company_id=company_id, rate=rate, page_size=page_size) as client:
        click.echo(_format_plan(plan_dump(lake, client=client, full=full, **store)))


def _plan_many(lake: str | Path, entries: Sequence[AccountEntry], *, full: bool, store: StoreOptions) -> None:
    """Print a row for each company and a total. Name the companies that cannot be asked, and plan the others."""
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
        rows = [(escape(name, 40), *_list_cells(each)) for name, each in found]
        names = ("company", "sync", "at the server", "in the lake", "requests", "time")
        columns = map(Column, names, zip(*rows, _sum_cells([each for _, each in found]), strict=True))
        click.echo(format_table(list(columns), width=terminal_width(), total=True))
    if codes:
        raise SystemExit(worst_code(codes))


def _list_cells(found: DumpPlan) -> tuple[str, ...]:
    requests = "unknown" if found.requests is None else _format_range(*map("{:,}".format, found.requests))
    seconds = "unknown" if found.seconds is None else _format_range(*map(_format_seconds, found.seconds))
    total = "unknown" if found.total is None else f"{found.total:,}"
    return "incremental" if found.mode == "refresh" else "full", total, f"{found.known:,}", requests, seconds


def _sum_cells(plans: Sequence[DumpPlan]) -> tuple[str, ...]:
    """Return the row of totals; times are left out, because companies are read at the same time."""
    totals = [each.total for each in plans]
    ranges = [each.requests for each in plans]
    total = "unknown" if None in totals else f"{sum(filter(None, totals)):,}"
    known = [each for each in ranges if each is not None]
    least, most = sum(low for low, _ in known), sum(high for _, high in known)
    requests = "unknown" if len(known) < len(ranges) else _format_range(f"{least:,}", f"{most:,}")
    return f"{len(plans)} together", "", total, f"{sum(each.known for each in plans):,}", requests, ""


def _format_plan(found: DumpPlan) -> str:
    mode = "incremental sync" if found.mode == "refresh" else f"full sync ({found.why})"
    total = "an unknown number of jobs" if found.total is None else amount(found.total, "job")
    staged = f", {found.staged:,} staged by a run that was interrupted" if found.staged else ""
    lines = [f"{mode}: {total} at the server, {found.known:,} in the lake{staged}"]
    if found.running is not None:
        from pleo_extract.lake.lock import format_holder

        lines.append(
            f"a run is at work on the lake ({format_holder(found.running)}); this is about the next one"
        )
    if found.requests is None or found.seconds is None:
        lines.append("no estimate of requests and time: the server does not state how many jobs it has")
    else:
        (least, most), (soonest, latest) = found.requests, found.seconds
        lines.append(
            f"{_format_range(f'{least:,}', f'{most:,}')} requests, one page each; "
            f"{_format_range(_format_seconds(soonest), _format_seconds(latest))}"
        )
    if found.months is not None:
        lines.append(f"months to write: {', '.join(found.months) or 'those of jobs that changed, if any'}")
    return "\n".join(lines)


def _format_range(low: str, high: str) -> str:
    return low if low == high else f"{low} to {high}"


def _format_seconds(seconds: float) -> str:
    if seconds < 0.5:
        return "under 1 s"
    return f"{max(1, round(seconds))} s" if seconds < 120 else f"{seconds / 60:.0f} min"
