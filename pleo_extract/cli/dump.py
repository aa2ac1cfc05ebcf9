"""`pleo-extract dump`: bring a lake up to date."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from pleo_extract.cli.companies import read_companies
from pleo_extract.cli.folder import FilePathParam, LakeFolder
from pleo_extract.cli.log import set_up_log
from pleo_extract.cli.span import DurationParam, ShardParam
from pleo_extract.cli.store import store_options
from pleo_extract.core.pace import RATE
from pleo_extract.errors import ConfigurationError, PleoExtractError, UsageError, amount, escape

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta
    from pathlib import Path

    from pleo_extract.client import AccountEntry
    from pleo_extract.lake.store import Format, StoreOptions
    from pleo_extract.sync.receipt import Receipt

__all__ = ["dump", "tell_receipt"]

EXAMPLES = """\b
Examples:
  PLEO_API_KEY=… pleo-extract dump data/export_jobs
  pleo-extract dump data/acme --company-id 6f1f2c1e-8f5b-4a53-9f0a-0d3c6f0a7b11
  pleo-extract dump data/export_jobs --rate 200 --deadline 900 --quiet
  pleo-extract dump sandbox/jobs --base-url http://127.0.0.1:8080
  pleo-extract dump sandbox/table --format delta --base-url http://127.0.0.1:8080
"""


@click.command(epilog=EXAMPLES, short_help="Bring a lake of Parquet up to date")
@click.argument("lake", type=LakeFolder())
@click.option(
    "--format",
    "kind",
    type=click.Choice(["parquet", "delta"]),
    help="What a new lake is to be [default: delta for a URL, parquet for a folder]",
)
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
@click.option("--ca-file", type=FilePathParam(), metavar="FILE", help="Certificates to trust, a PEM file")
@click.option("--proxy", metavar="URL", help="Go through this proxy")
@click.option(
    "--accounts",
    type=FilePathParam(),
    metavar="FILE",
    help="Many companies, a TOML file; see docs/scheduling.md",
)
@click.option(
    "--shard",
    type=ShardParam(),
    help="With --accounts: of so many parts of the companies read this one, from 1",
)
@click.option("--full", is_flag=True, help="Read everything, whatever a refresh would do")
@click.option(
    "--full-every",
    type=DurationParam(),
    default="7d",
    show_default=True,
    help="Read everything at least so often",
)
@click.option(
    "--max-requests", type=click.IntRange(min=1), metavar="N", help="Stop after so many, go on next time"
)
@click.option(
    "--accept-vanished",
    is_flag=True,
    help="Believe a server that no longer lists more than 1 % of an account's jobs, and more than 100",
)
@click.option(
    "--keep",
    type=click.IntRange(min=1),
    metavar="N",
    help="Snapshots of Parquet to keep at most [default: 1000]",
)
@click.option(
    "--keep-for",
    type=DurationParam(),
    default="24h",
    show_default=True,
    help="How long a replaced snapshot stays; after 48h the last of each day",
)
@click.option("--keep-all", is_flag=True, help="With --keep-for: all of them stay so long")
@click.option(
    "--metrics",
    type=FilePathParam(),
    metavar="FILE",
    help="Write a Prometheus text file at the end",
)
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="How records on stderr look",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="warning",
    show_default=True,
    help="Which records are shown",
)
@click.option("--quiet", "-q", is_flag=True, help="Say nothing unless something is wrong")
def dump(
    lake: str | Path,
    store: StoreOptions,
    kind: Format | None,
    base_url: str | None,
    company_id: str | None,
    rate: int,
    in_flight: int,
    deadline: float | None,
    ca_file: Path | None,
    proxy: str | None,
    accounts: Path | None,
    shard: tuple[int, int] | None,
    full: bool,
    full_every: timedelta,
    max_requests: int | None,
    accept_vanished: bool,
    keep: int | None,
    keep_for: timedelta,
    keep_all: bool,
    metrics: Path | None,
    log_format: str,
    log_level: str,
    quiet: bool,
) -> None:
    """Bring the Parquet in LAKE up to date with every export job.

    LAKE is a folder, or the URL of a Delta table (s3://, az://, gs://); it is made where there is none. Published whole
    or not at all; readers may read meanwhile. The first dump reads
    everything, later ones what can have changed. A run that was cut short is gone on with.
    """
    from pleo_extract.client import Client
    from pleo_extract.sync.dump import dump_export_jobs

    set_up_log(log_format, log_level)
    if metrics is not None and not metrics.absolute().parent.is_dir():
        raise ConfigurationError(f"--metrics {metrics}: there is no folder {metrics.parent}; make it first")
    options: dict[str, Any] = {
        "full": full,
        "full_every": full_every,
        "accept_vanished": accept_vanished,
        "deadline": deadline,
        "max_requests": max_requests,
        "keep": keep_for,
        "keep_all": keep_all,
        "keep_count": keep,
        "format": kind,
        **store,
    }
    progress = False if quiet or log_format == "json" else None
    try:
        if accounts is not None:
            given: dict[str, object] = {
                "--base-url": base_url,
                "--company-id": company_id,
                "--ca-file": ca_file,
                "--proxy": proxy,
            }
            companies = read_companies(accounts, given)
            _dump_many(lake, companies, shard, options, quiet=quiet, progress=progress)
            return
        if shard is not None:
            raise UsageError("--shard goes with --accounts: companies are what is divided")
        with Client(
            base_url, company_id=company_id, rate=rate, in_flight=in_flight, ca_file=ca_file, proxy=proxy
        ) as client:
            receipt = dump_export_jobs(lake, client=client, progress=progress, **options)
        if not quiet:
            click.echo(tell_receipt(receipt))
    finally:
        if metrics is not None:
            _write_metrics(metrics, lake, store)


def _dump_many(
    lake: str | Path,
    accounts: Sequence[AccountEntry],
    shard: tuple[int, int] | None,
    options: dict[str, Any],
    *,
    quiet: bool,
    progress: bool | None,
) -> None:
    from pleo_extract.sync.dump import dump_accounts

    whole, receipts = dump_accounts(lake, accounts, shard=shard, progress=progress, **options)
    if not receipts:
        click.echo("no company is in this part of the accounts")
        return
    for each in receipts:
        if each.code:
            click.echo(
                f"pleo-extract: run {each.run}, {escape(each.name)}: {escape(each.error or '', 500)} (code {each.code})",
                err=True,
            )
    if not quiet:
        bad = sum(1 for each in receipts if each.code)
        click.echo(tell_receipt(whole))
        click.echo(f"{len(receipts) - bad} of {len(receipts)} companies are up to date")
    if whole.code:
        raise SystemExit(whole.code)


def _write_metrics(path: Path, lake: str | Path, store: StoreOptions) -> None:
    from pleo_extract.cli.metrics import write_metrics
    from pleo_extract.lake.store import open_lake

    kept = open_lake(lake, **store)
    if (last := kept.last_run()) is None:
        return
    accounts = None
    with suppress(PleoExtractError):  # the run has said so itself
        opened = kept.open()
        accounts = opened.manifest.accounts if opened is not None else {}
    write_metrics(path, lake, last, accounts)


def tell_receipt(receipt: Receipt) -> str:
    """A receipt in one paragraph."""
    months = len(receipt.months_written)
    change = "nothing new" if not receipt.code else "nothing published"
    if receipt.published:
        change = f"{amount(months, 'month')} written"
    how = "read by refresh" if receipt.mode == "refresh" else f"read in full{_tell_why(receipt)}"
    if not receipt.pages:
        how = "nothing read"
    why = f" ({receipt.why})" if receipt.why else ""
    retries = f", {receipt.retries:,} of them again" if receipt.retries else ""
    waited = f", {receipt.waited:.0f} s of it waiting" if receipt.waited >= 1 else ""
    return (
        f"{receipt.lake}: {amount(receipt.lake_rows, 'job')}, snapshot {receipt.snapshot}, {change}\n"
        f"{receipt.verdict}{why}, {how}: {amount(receipt.distinct, 'job')} on {amount(receipt.pages, 'page')}, "
        f"{amount(receipt.requests, 'request')}{retries}, {receipt.seconds:.1f} s{waited}"
    )


def _tell_why(receipt: Receipt) -> str:
    """Why it was read in full; of many companies, each has its own reason."""
    return f" ({receipt.why_full})" if receipt.why_full else ""
