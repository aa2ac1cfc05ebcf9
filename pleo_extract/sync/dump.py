"""One dump: accounts read into staging, merged into the lake, published; and the account of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from pleo_extract.answers.doors import renew_catalogue
from pleo_extract.client import Waits
from pleo_extract.contract import canonical_uuid
from pleo_extract.core.state import FULL_EVERY, AccountKey
from pleo_extract.errors import (
    ConfigurationError,
    LakeLocked,
    PleoExtractError,
    RejectedRows,
    Stopped,
    StorageError,
    UsageError,
)
from pleo_extract.fetch.load import open_client
from pleo_extract.keywords import check_keywords
from pleo_extract.lake.record import write_last_run
from pleo_extract.lake.rejects import prune_rejected
from pleo_extract.lake.staging import name_run
from pleo_extract.lake.store import open_lake
from pleo_extract.lake.table import KEEP, KEEP_COUNT, Info, Keep
from pleo_extract.progress import show_progress
from pleo_extract.sync.account import AccountDump, DumpOptions
from pleo_extract.sync.pool import read_all
from pleo_extract.sync.publish import publish
from pleo_extract.sync.receipt import Receipt, Standing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pleo_extract.client import AccountEntry, Client
    from pleo_extract.core.state import SyncState
    from pleo_extract.lake.layout import Manifest
    from pleo_extract.lake.store import Format, Store, StoreOptions
    from pleo_extract.lake.table import Change

__all__ = ["dump_accounts", "dump_export_jobs"]

_log = logging.getLogger(__name__)

PUBLISH_EVERY: Final = timedelta(minutes=5)
"""How long a run of many companies keeps what is done to itself, while it still reads others."""


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
    keep: timedelta = KEEP,
    keep_all: bool = False,
    keep_count: int | None = None,
    format: Format | None = None,  # noqa: A002 - as the command line calls it
    storage_options: Mapping[str, str] | None = None,
    workspace: str | Path | None = None,
) -> Receipt:
    """Bring the lake up to date: every job once, published whole or not at all, at the cost of what changed.

    The first dump walks the whole list. Later ones read the open jobs, the newer ones, those that were open before
    and a sample of the rest, and walk the whole list again where anything does not fit, and every 7 days. A run that
    was cut short is gone on with.

    Args:
        lake: the lake's folder, or the URL of a Delta table; made where there is none. A lake belongs to one server.
        company_id: one company's jobs; by default the client's company, or all that the credential may see.
        client: server and credential; by default from the environment (PLEO_API_KEY and others, see Client).
        progress: show a progress bar; by default on a terminal and in a notebook.
        full: read the whole list, whatever an incremental sync would do.
        full_every: read the whole list at least this often (7 days).
        accept_vanished: believe a server that no longer lists more than 1 % of an account's jobs, and more than 100.
        deadline: seconds that the run may take.
        max_requests: requests that the run may send; it publishes nothing half, and the next run continues.
        keep: how long a snapshot stays after it was replaced (24 hours). Of those replaced more than 48 hours ago the last
            of each day (UTC) stays.
        keep_all: all of these stay; not for a Delta table.
        keep_count: how many snapshots stay (1,000); not for a Delta table, which keeps by age.
        format: the kind of a new lake, ``parquet`` or ``delta``; by default Delta for a URL, Parquet for a folder.
        storage_options: how the object store of a Delta table is reached, as for delta-rs; credentials are found in
            the environment as well.
        workspace: where a Delta table's runs keep what is not in it; by default in the user's cache.

    Returns:
        The receipt: what was read, what that proves, what was published.

    Raises:
        RejectedRows: rows that do not fit the contract were set aside under ``_lake/rejected/``; the rest is published.
        IncompleteWalk: fewer jobs than the server says there are; what there is is published as incomplete.
        LakeLocked, LakeError, StorageError, CredentialsError, ContractError, TryLater, ConfigurationError: nothing is
        published. Each error carries the `receipt` and its exit `code`; ``_lake/last_run.json`` says the same.
    """
    how = DumpOptions(
        full=full,
        full_every=full_every,
        accept_vanished=accept_vanished,
        deadline=deadline,
        max_requests=max_requests,
    )
    keeping = _check_keep(keep, keep_count, every=keep_all)
    store: StoreOptions = {"storage_options": storage_options, "workspace": workspace}
    with open_client(client) as source:
        server = str(source.server).rstrip("/")
        company = canonical_uuid(company_id) if company_id is not None else source.company_id
        account = AccountDump(AccountKey.of(server, company), lambda: nullcontext(source), how)
        with (
            _Dump.begin(
                _open(lake, [account], format, _name_counted(keep_count, every=keep_all), store),
                server,
                keeping,
            ) as dump,
            show_progress(f"dump to {lake}", show=progress) as update,
        ):
            dump.make([account], update)
    if account.error is not None:
        account.error.receipt = account.receipt.to_dict()
        raise account.error
    return account.receipt


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
    keep: timedelta = KEEP,
    keep_all: bool = False,
    keep_count: int | None = None,
    format: Format | None = None,  # noqa: A002 - as the command line calls it
    storage_options: Mapping[str, str] | None = None,
    workspace: str | Path | None = None,
) -> tuple[Receipt, list[Receipt]]:
    """Bring a lake of many companies up to date, each with its own credential, pace and state.

    One company's failure never costs another's data: the others are published, and the receipt of the one that
    failed has its `code` and `error`. Stalest companies come first, those that failed last time come last. A run
    publishes once, at its end, unless it lasts.

    Args:
        lake: the lake's folder, or the URL of a Delta table; made where there is none.
        accounts: who to dump: the accounts file, or what `client.read_accounts` gives; all of one server.
        shard: one of so many parts of them, as ``(1, 4)``: a company is always in the same part.
        publish_every: what is done of a run that lasts is published this often (5 minutes).
        progress: show a progress bar; by default on a terminal and in a notebook.
        full: as for `dump_export_jobs`, and so the others that say nothing else.
        full_every: as there.
        accept_vanished: as there.
        deadline: seconds that each company may take.
        max_requests: requests that may be sent for each company.
        keep: as there.
        keep_all: as there.
        keep_count: as there.
        format: as there.
        storage_options: as there.
        workspace: as there.

    Returns:
        The receipt of the run as a whole, with the worst code, and one an account, in the order of `accounts`; none
        where no account is in the part.

    Raises:
        UsageError: there is no such part, or these are no accounts.
        LakeLocked, LakeError, StorageError, ConfigurationError: what concerns the lake as a whole.
    """
    from pleo_extract.client import choose_shard, read_accounts  # noqa: PLC0415 - only where there are many

    how = DumpOptions(
        full=full,
        full_every=full_every,
        accept_vanished=accept_vanished,
        deadline=deadline,
        max_requests=max_requests,
    )
    keeping = _check_keep(keep, keep_count, every=keep_all)
    if not isinstance(publish_every, timedelta) or publish_every <= timedelta(0):
        raise UsageError(f"publish_every must be a timedelta above 0; it is {publish_every!r}")
    store: StoreOptions = {"storage_options": storage_options, "workspace": workspace}
    if shard is not None:
        _check_shard(shard)
    if isinstance(accounts, str | Path):
        accounts = read_accounts(accounts)
    _check_accounts(accounts)
    if shard is not None and not (accounts := choose_shard(accounts, *shard)):
        return Receipt(lake=str(lake), account="0 accounts", verdict="complete"), []
    servers = {entry.server for entry in accounts}
    if len(servers) != 1:
        raise ConfigurationError(
            f"one lake holds one server's jobs; the accounts name {sorted(servers) or 'none'}"
        )
    dumps = [
        AccountDump(AccountKey.of(entry.server, entry.company_id), entry.open, how, name=entry.name)
        for entry in accounts
    ]
    with (
        _Dump.begin(
            _open(lake, dumps, format, _name_counted(keep_count, every=keep_all), store),
            servers.pop(),
            keeping,
            publish_every,
        ) as dump,
        show_progress(f"dump of {len(accounts)} accounts to {lake}", show=progress) as update,
    ):
        try:
            dump.make(dumps, update)
        finally:
            for entry in accounts:
                entry.shared.close()
    return dump.sum_receipts(dumps), [each.receipt for each in dumps]


class _Dump:
    """A dump of one or more accounts under way, the lake held."""

    def __init__(
        self,
        lake: Store,
        server: str,
        keep: Keep,
        still_held: Callable[[], None],
        publish_every: timedelta,
    ) -> None:
        self.lake = lake
        self.run = name_run()
        self._still_held = still_held
        self._server = server
        self._keep = keep
        self._publish_every = publish_every.total_seconds()
        self._started = time.monotonic()
        self._waits = Waits()
        self._files: tuple[set[str], set[str]] = (
            set(),
            set(),
        )  # of rejected rows, named by the state before and now

    @classmethod
    @contextmanager
    def begin(
        cls, lake: Store, server: str, keep: Keep, publish_every: timedelta = PUBLISH_EVERY
    ) -> Iterator[_Dump]:
        """Hold the lake, unless it is another server's: a run that is refused leaves no trace in it."""
        lake.refuse_other(server)
        with lake.hold() as still_held:
            yield cls(lake, server, keep, still_held, publish_every)

    def make(self, accounts: Sequence[AccountDump], update: Callable[[int, int | None, float], None]) -> None:
        """Read all accounts, publish those that may be, record how it ended; only what concerns the lake is raised."""
        for account in accounts:
            account.evidence.run, account.evidence.lake = self.run, self.lake.name
        failure: BaseException | None = None
        try:
            base = self._open_lake(accounts)
            _log.info("dump of %d account(s) to %s", len(accounts), self.lake.name, extra={"run": self.run})
            self._read(accounts, base, update)
            self._still_held()  # if not, it does not matter what went wrong
            if manifest := self._publish([each for each in accounts if each.state is not None]):
                for each in accounts:  # those that failed say what the lake has, too
                    each.standing = replace(each.standing, snapshot=manifest.snapshot, rows=manifest.rows)
                self._tidy()
        except BaseException as exc:
            failure = self._explain(exc)
            if snapshots := {each.standing.snapshot for each in accounts if each.standing.is_published}:
                failure.add_note(f"snapshot {max(snapshots)} was published")
            if failure is exc:
                raise
            raise failure from exc
        finally:
            self._try_to_record(accounts, failure)

    def _explain(self, failure: BaseException) -> BaseException:
        """That the lake is another run's by now is why files were not where they had been put."""
        if isinstance(failure, PleoExtractError):
            try:
                self._still_held()
            except LakeLocked as exc:
                return exc
        return failure

    def _try_to_record(self, accounts: Sequence[AccountDump], failure: BaseException | None) -> None:
        """Write how it ended, unless the lake is another run's, or one that this run was refused.

        That this fails must not hide what went wrong before.
        """
        if isinstance(failure, LakeLocked | ConfigurationError):
            return
        try:
            self._record(accounts, failure)
        except StorageError as exc:
            if self._explain(exc) is exc and failure is None and not any(each.error for each in accounts):
                raise
            _log.warning("%s", exc, extra={"run": self.run})

    def _open_lake(self, accounts: Sequence[AccountDump]) -> Manifest | None:
        base = self.lake.begin()
        for account in accounts:
            account.standing = Standing.at(base)
        if base is not None and base.server not in ("", self._server):
            raise ConfigurationError(
                f"the lake {self.lake.name} holds jobs of {base.server}; {self._server} needs a lake of its own"
            )
        return base

    def _read(
        self,
        accounts: Sequence[AccountDump],
        base: Manifest | None,
        update: Callable[[int, int | None, float], None],
    ) -> None:
        """Read all accounts. A run publishes once, unless it lasts: one company that drips must not hold back the others."""
        known = {status for state in (base.accounts.values() if base else ()) for status in state.unknown}
        for account in accounts:
            account.known = known
        if len(accounts) == 1:
            accounts[0].read(self.lake, base, self.run, update, waits=self._waits)
            return

        def read(account: AccountDump) -> None:
            account.read(self.lake, base, self.run, update, waits=self._waits)

        with closing(read_all(accounts, self.lake, base, read, every=self._publish_every)) as reading:
            for done in reading:
                ready = [account for account in done if account.state is not None]
                self._publish(ready)
                for account in ready:
                    account.staging = None

    def _publish(self, accounts: Sequence[AccountDump]) -> Manifest | None:
        """The snapshot that is now current; None where no account may be published."""
        if not accounts:
            return None
        stagings = [account.staging for account in accounts if account.staging is not None]
        manifest = publish(self.lake, stagings, _Publication(self, accounts), server=self._server)
        for account in accounts:
            if account.staging is not None:
                account.standing = replace(account.standing, snapshot=manifest.snapshot)
        return manifest

    def _tidy(self) -> None:
        """Clear away what is no longer kept, and make the catalogue anew."""
        self.lake.expire(self._keep)
        before, named = self._files
        prune_rejected(self.lake.layout.rejected, named=named, before=before, now=datetime.now(UTC))
        if self.lake.catalogue is not None:
            renew_catalogue(self.lake.layout.root, run=self.run)

    def account_for(self, accounts: Sequence[AccountDump], change: Change) -> Info:
        """What is committed with a change: this run's receipt, and the state of its accounts."""
        now, after = datetime.now(UTC), Standing.after(change)
        states: dict[AccountKey, SyncState] = {}
        receipts = []
        for account in accounts:
            if account.staging is None or account.state is None:  # published before, as this run lasted
                standing = replace(account.standing, snapshot=after.snapshot, rows=after.rows)
                receipts.append(account.tell(standing, self._count_seconds()))
                continue
            receipts.append(account.tell(after, self._count_seconds()))
            known = account.spoiled
            kept = known | account.staging.keep_rejected(self.lake.layout.rejected, known)
            spoiled = {name: kept[name] for name in account.state.rejected if name in kept}
            states[account.key] = msgspec.structs.replace(account.state, updated_at=now, spoiled=spoiled)
            if not change.months:  # it is in the lake, and must not stand in for the next run
                account.staging.clear()
        told = change.base.manifest.accounts if change.base.manifest else {}
        self._files = self._files[0] | _name_files(told), _name_files({**told, **states})
        return Info(self._server, self._sum(receipts).to_dict(), states)

    def sum_receipts(self, accounts: Sequence[AccountDump]) -> Receipt:
        """The receipts of this run's accounts as one; of one account, its own."""
        return self._sum([account.receipt for account in accounts])

    def _sum(self, receipts: Sequence[Receipt]) -> Receipt:
        return (
            receipts[0]
            if len(receipts) == 1
            else Receipt.sum(receipts, waited=round(self._waits.seconds(), 3))
        )

    def _count_seconds(self) -> float:
        return round(time.monotonic() - self._started, 3)

    def _record(self, accounts: Sequence[AccountDump], failure: BaseException | None) -> None:
        for account in accounts:
            # What stopped the others is why this one stopped.
            error = None if failure is not None and isinstance(account.error, Stopped) else account.error
            account.receipt = account.tell(account.standing, self._count_seconds(), error or failure)
        # A failure is what the run ends with, whatever befell single companies before.
        receipt = self.sum_receipts(accounts).ended(failure)
        bad = [account.receipt for account in accounts if account.receipt.code]
        # Rows set aside are complete all the same; a lake that is broken ends with the same code and is not.
        complete = (
            failure is None
            and all(each.error is None or isinstance(each.error, RejectedRows) for each in accounts)
            and receipt.verdict != "incomplete"
        )
        _log.info(
            "ended with %d, %s, %d jobs in the lake",
            receipt.code,
            receipt.verdict,
            receipt.lake_rows,
            extra={"run": self.run},
        )
        write_last_run(
            self.lake.layout,
            receipt=receipt.to_dict(),
            error=receipt.error,
            complete=complete,
            failed={each.name or each.account: [each.code, each.error] for each in bad}
            if len(accounts) > 1
            else {},
        )


@dataclass(frozen=True, slots=True)
class _Publication:
    """Accounts of a dump that are published together."""

    dump: _Dump
    accounts: Sequence[AccountDump]

    def account_for(self, change: Change) -> Info:
        """See `publish`."""
        return self.dump.account_for(self.accounts, change)

    def stand(self, change: Change) -> None:
        """See `publish`."""
        for account in self.accounts:
            if account.staging is not None and account.state is not None:
                account.standing = Standing.after(change)


def _open(
    lake: str | Path,
    accounts: Sequence[AccountDump],
    kind: Format | None,
    counted: str,
    store: StoreOptions,
) -> Store:
    found = open_lake(lake, kind=kind, accounts=[account.key for account in accounts], **store)
    if counted and not found.counts_snapshots:
        raise UsageError(
            f"{lake} is a Delta table, whose versions are kept by age alone: "
            f"use keep (--keep-for) and leave out {counted}"
        )
    return found


def _name_files(accounts: Mapping[AccountKey, SyncState]) -> set[str]:
    """The files of rejected rows that these states name."""
    return {row.file for account in accounts.values() for row in account.spoiled.values()}


def _check_shard(shard: object) -> None:
    is_pair = isinstance(shard, tuple | list) and [type(each) for each in shard] == [int, int]
    if not is_pair:
        raise UsageError(f"shard must be two whole numbers, as (1, 4), not {shard!r}")


def _check_accounts(accounts: object) -> None:
    """Of what else was given only the kind is told: it may hold a credential."""
    given = accounts if isinstance(accounts, Sequence) else [accounts]
    needed = ("name", "company_id", "server", "open")
    if wrong := [type(each).__name__ for each in given if not all(hasattr(each, name) for name in needed)]:
        raise UsageError(
            f"accounts must be the accounts file, or what read_accounts gives; there is a {wrong[0]} among them"
        )
    if not isinstance(accounts, Sequence):
        raise UsageError(f"accounts must be a list of accounts, not one {type(accounts).__name__}")


def _name_counted(count: int | None, *, every: bool) -> str:
    """What was asked for that only a lake of snapshots can do; empty for nothing."""
    return "keep_count (--keep)" if count is not None else "keep_all (--keep-all)" if every else ""


def _check_keep(keep: timedelta, count: int | None, *, every: bool) -> Keep:
    if not isinstance(keep, timedelta) or keep < timedelta(0):
        raise UsageError(f"keep must be a timedelta, not negative; it is {keep!r}")
    count = KEEP_COUNT if count is None else count
    if not isinstance(count, int) or count < 1:
        raise UsageError(f"keep_count must be a whole number from 1, not {count!r}")
    return Keep(keep, count, every=bool(every))
