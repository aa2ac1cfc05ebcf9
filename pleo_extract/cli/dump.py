"""`pleo-extract dump`: bring a lake up to date."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from pleo_extract.cli.companies import read_companies
from pleo_extract.cli.folder import FilePathParam, OutputFile, OutputFileOrUrl
from pleo_extract.cli.log import set_up_log
from pleo_extract.cli.options import (
    full_option,
    lake_argument,
    lake_format_option,
    quiet_option,
    server_options,
    store_options,
)
from pleo_extract.cli.span import CountParam, DurationParam, SecondsParam, ShardParam
from pleo_extract.errors import ConfigurationError, PleoExtractError, StorageError, UsageError, escape

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta
    from pathlib import Path

    from pleo_extract.client import AccountEntry
    from pleo_extract.lake.record import LastRun
    from pleo_extract.lake.store import Format, StoreOptions

__all__ = ["dump"]

_log = logging.getLogger(__name__)

EXAMPLES = """\b
Examples:
  PLEO_API_KEY=… pleo-extract dump data/export_jobs
  pleo-extract dump data/acme \\
      --company-id 6f1f2c1e-8f5b-4a53-9f0a-0d3c6f0a7b11
  pleo-extract dump data/export_jobs --rate 200 --deadline 900 --quiet
  pleo-extract dump sandbox/jobs --base-url http://127.0.0.1:8080
  pleo-extract dump sandbox/table --format delta \\
      --base-url http://127.0.0.1:8080
"""


@click.command(epilog=EXAMPLES, short_help="Create a lake, or bring it up to date")
@lake_argument
@lake_format_option
@server_options
@click.option(
    "--in-flight",
    type=CountParam(min=1),
    metavar="N",
    default=8,
    show_default=True,
    help="Maximum number of requests at the same time",
)
@click.option(
    "--deadline",
    type=SecondsParam(),
    help="Stop after this time, such as 900 or 15m; the next run continues [default: never]",
)
@click.option(
    "--max-requests",
    type=CountParam(min=1),
    metavar="N",
    help="Stop after this number of requests; the next run continues [default: never]",
)
@click.option(
    "--ca-file", type=FilePathParam(), metavar="FILE", help="Trust the certificates in this PEM file"
)
@click.option("--proxy", metavar="URL", help="Send all requests through this proxy")
@click.option(
    "--shard",
    type=ShardParam(),
    help="With --accounts: divide the companies into N shards and read shard I, from 1",
)
@full_option
@click.option(
    "--full-every",
    type=DurationParam(),
    default="7d",
    show_default=True,
    help="Run a full sync if the last one is older",
)
@click.option(
    "--accept-vanished",
    is_flag=True,
    help="Publish even if the server no longer lists more than 100 jobs and 1 % of the jobs of an account",
)
@click.option(
    "--keep-count",
    type=CountParam(min=1),
    metavar="N",
    help="Maximum number of snapshots in a lake of Parquet [default: 1000]",
)
@click.option(
    "--keep-for",
    type=DurationParam(),
    default="24h",
    show_default=True,
    help="How long to keep replaced snapshots; after 48h only the last of each day",
)
@click.option("--keep-all", is_flag=True, help="With --keep-for: keep all of them, not one a day")
@click.option(
    "--metrics", type=OutputFile(), metavar="FILE", help="Write metrics for Prometheus when the run ends"
)
@click.option(
    "--lineage",
    type=OutputFileOrUrl(),
    metavar="URL|FILE",
    help="Send OpenLineage events to this URL, or append them to a file, when the run ends",
)
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Format of the log on stderr",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="warning",
    show_default=True,
    help="Lowest level that is logged",
)
@store_options
@quiet_option
def dump(
    lake: str | Path,
    store: StoreOptions,
    kind: Format | None,
    base_url: str | None,
    company_id: str | None,
    rate: int,
    page_size: int | None,
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
    keep_count: int | None,
    keep_for: timedelta,
    keep_all: bool,
    metrics: Path | None,
    lineage: str | Path | None,
    log_format: str,
    log_level: str,
    quiet: bool,
) -> None:
    """Create LAKE with every export job, or bring it up to date.

    LAKE is a folder of Parquet, or the URL of a Delta table (s3://, az://, gs://). The first dump is a full sync and reads
    the whole list; later ones are incremental and read what can have changed. A dump publishes everything or nothing, and
    readers can go on reading. If a run is cut short, the next one continues from its pages.
    """
    from pleo_extract.client import Client
    from pleo_extract.sync.dump import dump_export_jobs, recording_refusal

    set_up_log(log_format, log_level)
    if metrics is not None and not metrics.absolute().parent.is_dir():
        raise ConfigurationError(f"--metrics {metrics}: there is no folder {metrics.parent}; create it first")
    if lineage is not None:
        from pleo_extract.cli.lineage import check_sink

        check_sink(str(lineage))
    options: dict[str, Any] = {
        "full": full,
        "full_every": full_every,
        "accept_vanished": accept_vanished,
        "deadline": deadline,
        "max_requests": max_requests,
        "keep_for": keep_for,
        "keep_all": keep_all,
        "keep_count": keep_count,
        "format": kind,
        **store,
    }
    progress = False if quiet or log_format == "json" else None
    before = _read_last_run(lake, store) if lineage is not None else None
    try:
        if accounts is not None:
            single: dict[str, object] = {
                "--base-url": base_url,
                "--company-id": company_id,
                "--ca-file": ca_file,
                "--proxy": proxy,
            }
            with recording_refusal(lake, store):
                companies = read_companies(accounts, single, page_size=page_size)
            _dump_many(lake, companies, shard, options, quiet=quiet, progress=progress)
            return
        if shard is not None:
            raise UsageError("--shard needs --accounts: it divides the companies of that file")
        with recording_refusal(lake, store):
            client = Client(
                base_url,
                company_id=company_id,
                rate=rate,
                in_flight=in_flight,
                page_size=page_size,
                ca_file=ca_file,
                proxy=proxy,
            )
        with client:
            receipt = dump_export_jobs(lake, client=client, progress=progress, **options)
        if not quiet:
            click.echo(receipt)
    finally:
        if metrics is not None or lineage is not None:
            _publish_record(metrics, None if lineage is None else str(lineage), lake, store, before)


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
        click.echo("this shard has no company: nothing to read")
        return
    for each in receipts:
        if each.code:
            click.echo(
                f"pleo-extract: run {each.run}, {escape(each.name)}: {escape(each.error or '', 500)} (code {each.code})",
                err=True,
            )
    if not quiet:
        good = sum(1 for each in receipts if not each.code)
        click.echo(whole)
        click.echo(f"{good} of {len(receipts)} companies are up to date")
    if whole.code:
        raise SystemExit(whole.code)


def _publish_record(
    metrics: Path | None, lineage: str | None, lake: str | Path, store: StoreOptions, before: LastRun | None
) -> None:
    """Write the metrics, and send the events of this run unless it was refused before it began."""
    from pleo_extract.core.state import AccountKey
    from pleo_extract.lake.store import open_lake

    store_of_lake = open_lake(lake, **store)
    if (last := store_of_lake.last_run()) is None:
        return
    accounts = None
    with suppress(PleoExtractError):  # the run has reported the error already
        opened = store_of_lake.open()
        accounts = opened.manifest.accounts if opened is not None else {}
    if metrics is not None:
        from pleo_extract.cli.metrics import write_metrics

        write_metrics(metrics, lake, last, accounts)
    if lineage is not None and (before is None or before.run != last.run):
        from pleo_extract.cli.lineage import send_lineage

        keys = [*(accounts or ()), AccountKey(last.receipt.get("account", ""))]
        try:
            send_lineage(lineage, lake, last, [key.server for key in keys if "://" in key.server])
        except StorageError as exc:  # a receiver that is down fails no run
            _log.warning("%s. The run itself is not affected", escape(str(exc), 500), extra={"run": last.run})


def _read_last_run(lake: str | Path, store: StoreOptions) -> LastRun | None:
    from pleo_extract.lake.store import open_lake

    return open_lake(lake, **store).last_run()
