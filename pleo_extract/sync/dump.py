"""The doors of the dump: one account, or many. They check what they are given and start a `DumpRun`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from pleo_extract.contract import canonical_uuid
from pleo_extract.core.state import FULL_EVERY, AccountKey
from pleo_extract.errors import (
    ConfigurationError,
    CredentialsError,
    PleoExtractError,
    UsageError,
    check_path,
)
from pleo_extract.fetch.load import open_client
from pleo_extract.keywords import check_keywords
from pleo_extract.lake.record import write_last_run
from pleo_extract.lake.staging import name_run
from pleo_extract.lake.store import open_lake
from pleo_extract.lake.table import KEEP, KEEP_COUNT, Keep
from pleo_extract.progress import show_progress
from pleo_extract.sync.account import AccountDump, DumpOptions
from pleo_extract.sync.receipt import Receipt
from pleo_extract.sync.run import PUBLISH_EVERY, DumpRun

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pleo_extract.client import AccountEntry, Client
    from pleo_extract.lake.store import Format, Store, StoreOptions

__all__ = ["dump_accounts", "dump_export_jobs", "recording_refusal"]


@check_keywords
def dump_export_jobs(  # noqa: PLR0913 - each is a choice of its own, and all have defaults
    lake: str | Path,
    *,
    company_id: str | None = None,
    client: Client | None = None,
    progress: bool | None = None,
    full: bool = False,
    full_every: timedelta = FULL_EVERY,
    accept_vanished: bool = False,
    deadline: float | None = None,
    max_requests: int | None = None,
    keep_for: timedelta = KEEP,
    keep_all: bool = False,
    keep_count: int | None = None,
    format: Format | None = None,  # noqa: A002 - as the command line calls it
    storage_options: Mapping[str, str] | None = None,
    workspace: str | Path | None = None,
) -> Receipt:
    """Bring the lake up to date: every job once, published as one whole snapshot or not at all.

    The first dump is a full sync: it reads the whole list. Later dumps are incremental: they read the open jobs, the new
    jobs, the jobs that were open before and a sample of the rest, so that they cost little when little changed. A full
    sync follows if anything does not fit, and every 7 days. A dump continues what an interrupted dump has fetched.

    Args:
        lake: the lake's folder, or the URL of a Delta table; created if it does not exist. A lake belongs to one server.
        company_id: dump this company only; by default the client's company, or all that the credential may see.
        client: server and credential; by default from the environment (PLEO_API_KEY and others, see Client).
        progress: show a progress bar; by default on a terminal and in a notebook.
        full: make a full sync.
        full_every: make a full sync at least this often (7 days).
        accept_vanished: accept that the server no longer lists more than 1 % of an account's jobs, and more than 100.
        deadline: seconds that the run may take.
        max_requests: requests that the run may send. At the limit nothing is published, and the next run continues.
        keep_for: how long a snapshot stays after it was replaced (24 hours). Of snapshots replaced more than 48 hours ago
            only the last of each day (UTC) stays.
        keep_all: keep all of these snapshots; not for a Delta table.
        keep_count: how many snapshots stay (1,000); not for a Delta table, which keeps by age.
        format: the kind of a new lake, ``parquet`` or ``delta``; by default Delta for a URL, Parquet for a folder.
        storage_options: options for the object store of a Delta table, as for delta-rs; credentials are also read from
            the environment.
        workspace: the local folder for staging and records of a Delta table; by default in the user's cache.

    Returns:
        The receipt: what was read, what that proves, what was published.

    Raises:
        RejectedRows: rows that do not fit the contract are kept under ``_lake/rejected/``; the rest is published.
        IncompleteWalk: fewer jobs were read than the server counts; they are published as incomplete.
        LakeLocked, LakeError, StorageError, CredentialsError, ContractError, TryLater, ConfigurationError: nothing is
            published.

    Each error carries the `receipt` and its exit `code`; ``_lake/last_run.json`` holds the same.
    """
    options = DumpOptions(
        full=full,
        full_every=full_every,
        accept_vanished=accept_vanished,
        deadline=deadline,
        max_requests=max_requests,
    )
    check_path(lake, "the lake's folder")
    keeping = _check_keep(keep_for, keep_count, every=keep_all)
    store: StoreOptions = {"storage_options": storage_options, "workspace": workspace}
    with ExitStack() as stack:
        with recording_refusal(lake, store):
            source = stack.enter_context(open_client(client))
        server = str(source.server).rstrip("/")
        company = canonical_uuid(company_id) if company_id is not None else source.company_id
        account = AccountDump(AccountKey.of(server, company), lambda: nullcontext(source), options)
        opened = _open(lake, [account], format, _name_count_option(keep_count, every=keep_all), store)
        with (
            DumpRun.begin(opened, server, keeping) as run,
            show_progress(f"dump to {lake}", show=progress) as update,
        ):
            (receipt,) = run.execute([account], update)
    if (error := account.outcome.error) is not None:
        error.receipt = receipt.to_dict()
        raise error
    return receipt


@check_keywords
def dump_accounts(  # noqa: PLR0913 - as above
    lake: str | Path,
    accounts: str | Path | Sequence[AccountEntry],
    *,
    shard: tuple[int, int] | None = None,
    publish_every: timedelta = PUBLISH_EVERY,
    progress: bool | None = None,
    full: bool = False,
    full_every: timedelta = FULL_EVERY,
    accept_vanished: bool = False,
    deadline: float | None = None,
    max_requests: int | None = None,
    keep_for: timedelta = KEEP,
    keep_all: bool = False,
    keep_count: int | None = None,
    format: Format | None = None,  # noqa: A002 - as the command line calls it
    storage_options: Mapping[str, str] | None = None,
    workspace: str | Path | None = None,
) -> tuple[Receipt, list[Receipt]]:
    """Bring a lake of many companies up to date, each with its own credential, pace and state.

    One company's failure never costs another's data: the others are published, and the receipt of the failed one has
    its `code` and `error`. Stalest accounts come first; those that failed last time come last. A run publishes at its
    end, and every few minutes if it takes longer.

    Args:
        lake: the lake's folder, or the URL of a Delta table; created if it does not exist.
        accounts: the accounts file, or the accounts that `client.read_accounts` returns; all of one server.
        shard: dump one part of the accounts only: ``(1, 4)`` is the first of four. A company is always in the same part.
        publish_every: how often a long run publishes the companies that are done (5 minutes). When only slow ones are left,
            it publishes after half of the time that the run has lasted.
        progress: show a progress bar; by default on a terminal and in a notebook.
        full: see `dump_export_jobs`.
        full_every: see `dump_export_jobs`.
        accept_vanished: see `dump_export_jobs`.
        deadline: seconds that each company may take.
        max_requests: requests that may be sent for each company.
        keep_for: see `dump_export_jobs`.
        keep_all: see `dump_export_jobs`.
        keep_count: see `dump_export_jobs`.
        format: see `dump_export_jobs`.
        storage_options: see `dump_export_jobs`.
        workspace: see `dump_export_jobs`.

    Returns:
        The receipt of the run, with the worst code, and one receipt per account, in the order of `accounts`. The list is
        empty if no account is in the part.

    Raises:
        UsageError: there is no such part, or `accounts` are not accounts.
        LakeLocked, LakeError, StorageError, ConfigurationError: an error that concerns the lake as a whole.
    """
    from pleo_extract.client import choose_shard, read_accounts  # noqa: PLC0415 - only where there are many

    options = DumpOptions(
        full=full,
        full_every=full_every,
        accept_vanished=accept_vanished,
        deadline=deadline,
        max_requests=max_requests,
    )
    keeping = _check_keep(keep_for, keep_count, every=keep_all)
    if not isinstance(publish_every, timedelta) or publish_every <= timedelta(0):
        raise UsageError(f"publish_every must be a timedelta above 0; it is {publish_every!r}")
    store: StoreOptions = {"storage_options": storage_options, "workspace": workspace}
    if shard is not None:
        _check_shard(shard)
    if isinstance(accounts, str | Path):
        with recording_refusal(lake, store):
            accounts = read_accounts(accounts)
    _check_accounts(accounts)
    if shard is not None and not (accounts := choose_shard(accounts, *shard)):
        return Receipt(lake=str(lake), account="0 accounts", verdict="complete"), []
    servers = {entry.server for entry in accounts}
    if len(servers) != 1:
        raise ConfigurationError(
            f"a lake holds one server's jobs, but the accounts name {sorted(servers) or 'no server'}"
        )
    dumps = [
        AccountDump(AccountKey.of(entry.server, entry.company_id), entry.open, options, name=entry.name)
        for entry in accounts
    ]
    opened = _open(lake, dumps, format, _name_count_option(keep_count, every=keep_all), store)
    with (
        DumpRun.begin(opened, servers.pop(), keeping, publish_every) as run,
        show_progress(f"dump of {len(accounts)} accounts to {lake}", show=progress) as update,
    ):
        try:
            receipts = run.execute(dumps, update)
        finally:
            for entry in accounts:
                entry.shared.close()
    return run.sum_receipts(receipts), receipts


@contextmanager
def recording_refusal(lake: str | Path, store: StoreOptions) -> Iterator[None]:
    """Record an unusable credential or setting as how the last run ended, like a credential that the server refuses.

    A scheduler that has lost its key would otherwise leave the record of the last good run in place. Only a lake that has
    such a record gets one. While another run is at work it is left alone: that run writes its own.
    """
    try:
        yield
    except (ConfigurationError, CredentialsError) as exc:
        with suppress(PleoExtractError):  # the error itself is what the caller must see
            _record_refusal(open_lake(lake, **store), exc)
        raise


def _record_refusal(lake: Store, error: PleoExtractError) -> None:
    if lake.last_run() is None:
        return
    with lake.hold():
        if (before := lake.last_run()) is None:
            return
        receipt = Receipt(run=name_run(), lake=lake.name).with_error(error)
        kept = ("account", "snapshot", "lake_rows", "data_as_of")  # what the lake has is as it was
        write_last_run(
            lake.layout,
            receipt=receipt.to_dict()
            | {name: before.receipt[name] for name in kept if name in before.receipt},
            error=receipt.error,
            complete=False,
            failed={},
        )


def _open(
    lake: str | Path,
    accounts: Sequence[AccountDump],
    kind: Format | None,
    count_option: str,
    store: StoreOptions,
) -> Store:
    opened = open_lake(lake, kind=kind, accounts=[account.key for account in accounts], **store)
    if count_option and not opened.counts_snapshots:
        raise UsageError(
            f"{lake} is a Delta table, whose versions are kept by age alone: "
            f"use keep_for (--keep-for) and leave out {count_option}"
        )
    return opened


def _check_shard(shard: object) -> None:
    is_pair = isinstance(shard, tuple | list) and [type(each) for each in shard] == [int, int]
    if not is_pair:
        raise UsageError(f"shard must be two whole numbers, as (1, 4), not {shard!r}")


def _check_accounts(accounts: object) -> None:
    """Raise UsageError unless these are accounts. The message shows types only: a value may hold a credential."""
    given = accounts if isinstance(accounts, Sequence) else [accounts]
    needed = ("name", "company_id", "server", "open")
    if wrong := [type(each).__name__ for each in given if not all(hasattr(each, name) for name in needed)]:
        raise UsageError(
            f"accounts must be the accounts file, or the accounts of read_accounts; there is a {wrong[0]} among them"
        )
    if not isinstance(accounts, Sequence):
        raise UsageError(f"accounts must be a list of accounts, not one {type(accounts).__name__}")


def _name_count_option(count: int | None, *, every: bool) -> str:
    """Return the option in use that a Delta table does not offer, else ""."""
    return "keep_count (--keep-count)" if count is not None else "keep_all (--keep-all)" if every else ""


def _check_keep(keep_for: timedelta, count: int | None, *, every: bool) -> Keep:
    if not isinstance(keep_for, timedelta) or keep_for < timedelta(0):
        raise UsageError(f"keep_for must be a timedelta, not negative; it is {keep_for!r}")
    count = KEEP_COUNT if count is None else count
    if not isinstance(count, int) or count < 1:
        raise UsageError(f"keep_count must be a whole number from 1, not {count!r}")
    return Keep(keep_for, count, every=bool(every))
