"""One run of a dump: read its accounts, publish what was read, and record how the run ended.

The run holds the lake from beginning to end. Errors of one account stay in that account's `outcome`; only what concerns
the lake as a whole is raised. Whatever happens, `last_run.json` is written, unless the run was refused or another run has
taken the lake.
"""

from __future__ import annotations

import logging
import time
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import msgspec

from pleo_extract.answers.doors import CatalogueAhead, renew_catalogue
from pleo_extract.client import Waits
from pleo_extract.core.pages import PageSize
from pleo_extract.errors import (
    ConfigurationError,
    LakeLocked,
    PleoExtractError,
    RejectedRows,
    Stopped,
    StorageError,
    amount,
)
from pleo_extract.lake.folder.opening import refuse_other_server
from pleo_extract.lake.record import write_last_run
from pleo_extract.lake.rejects import prune_rejected
from pleo_extract.lake.staging import name_run
from pleo_extract.lake.table import Info
from pleo_extract.signals import hold_signals
from pleo_extract.sync.account import Origin
from pleo_extract.sync.pool import read_all
from pleo_extract.sync.publish import publish
from pleo_extract.sync.receipt import CurrentSnapshot, Receipt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pleo_extract.core.state import AccountKey, SyncState
    from pleo_extract.lake.layout import Manifest
    from pleo_extract.lake.store import Store
    from pleo_extract.lake.table import Change, Keep
    from pleo_extract.sync.account import AccountDump

__all__ = ["PUBLISH_EVERY", "DumpRun"]

_log = logging.getLogger(__name__)

PUBLISH_EVERY: Final = timedelta(minutes=5)
"""How often a run of many companies publishes the finished ones while it still reads others."""


class DumpRun:
    """A dump of one or more accounts under way; the lake is held.

    Attributes:
        lake: the lake.
        name: the name of the run.
    """

    def __init__(
        self,
        lake: Store,
        server: str,
        keep: Keep,
        still_held: Callable[[], None],
        publish_every: timedelta,
    ) -> None:
        self.lake = lake
        self.name = name_run()
        self._still_held = still_held
        self._server = server
        self._keep = keep
        self._publish_every = publish_every.total_seconds()
        self._started = time.monotonic()
        self._waits = Waits()
        # Files of rejected rows that the states named before this run, and that they name now.
        self._rejected_files: tuple[set[str], set[str]] = (set(), set())

    @classmethod
    @contextmanager
    def begin(
        cls, lake: Store, server: str, keep: Keep, publish_every: timedelta = PUBLISH_EVERY
    ) -> Iterator[DumpRun]:
        """Hold the lake for a run. A lake of another server is refused first, so that no trace is left in it."""
        lake.refuse_other(server)
        with lake.hold() as still_held:
            yield cls(lake, server, keep, still_held, publish_every)

    def execute(
        self, accounts: Sequence[AccountDump], update: Callable[[int, int | None, str], None]
    ) -> list[Receipt]:
        """Read all accounts, publish, record how the run ended, and return the receipt of each account."""
        for account in accounts:
            account.evidence.run, account.evidence.lake = self.name, self.lake.name
        try:
            base = self.lake.begin()
            for account in accounts:
                account.snapshot = CurrentSnapshot.of(base)
            if base is not None:
                refuse_other_server(self.lake.name, base.server, self._server)
            _log.info(
                "dump of %s to %s", amount(len(accounts), "account"), self.lake.name, extra={"run": self.name}
            )
            is_first = base is None and self.lake.catalogue is not None
            with CatalogueAhead(self.lake.layout.root) if is_first else nullcontext() as ahead:
                self._read(accounts, base, update if ahead is None else _noting(ahead, update))
                self._still_held()  # if another run has taken the lake, nothing else matters
                if manifest := self._publish([each for each in accounts if each.outcome.state is not None]):
                    for each in accounts:  # the receipts of failed accounts show the new snapshot too
                        each.snapshot = replace(each.snapshot, number=manifest.snapshot, rows=manifest.rows)
                    self._clean_up(ahead)
        except BaseException as exc:
            failure = self._find_cause(exc)
            if numbers := {each.snapshot.number for each in accounts if each.snapshot.is_published}:
                failure.add_note(f"snapshot {max(numbers)} was published")
            self._record(accounts, failure)
            if failure is exc:
                raise
            raise failure from exc
        with hold_signals():  # what is published and not recorded would show as never complete
            return self._record(accounts, None)

    def sum_receipts(self, receipts: Sequence[Receipt]) -> Receipt:
        """Return one receipt for the whole run; the receipt of a single account is its own sum."""
        if len(receipts) == 1:
            return receipts[0]
        return Receipt.sum(receipts, waited=round(self._waits.seconds(), 3))

    def _read(
        self,
        accounts: Sequence[AccountDump],
        base: Manifest | None,
        update: Callable[[int, int | None, str], None],
    ) -> None:
        """Read all accounts; publish those that are done every few minutes, so that a slow one does not hold them back."""
        known = {status for state in (base.accounts.values() if base else ()) for status in state.unknown}
        # An explicit full sync tries large pages again.
        states = base.accounts.values() if base and not any(each.options.full for each in accounts) else ()
        pages = PageSize(
            known=max((state.page_size for state in states), default=0),
            refused=min((state.page_limit for state in states if state.page_limit), default=0),
        )
        origin = Origin(self.name, self.lake, base, known, self._waits, pages, update)
        if len(accounts) == 1:
            accounts[0].read(origin)
            return
        with closing(read_all(accounts, origin, every=self._publish_every)) as reading:
            for done in reading:
                ready = [account for account in done if account.outcome.state is not None]
                self._publish(ready)
                for account in ready:
                    account.outcome = replace(account.outcome, staging=None)

    def _publish(self, accounts: Sequence[AccountDump]) -> Manifest | None:
        """Publish these accounts and return the manifest that is current now; None if there are no accounts."""
        if not accounts:
            return None
        stagings = [each.outcome.staging for each in accounts if each.outcome.staging is not None]
        manifest = publish(self.lake, stagings, _Publication(self, accounts), server=self._server)
        for account in accounts:
            if account.outcome.staging is not None:
                account.snapshot = replace(account.snapshot, number=manifest.snapshot)
        return manifest

    def _clean_up(self, ahead: CatalogueAhead | None) -> None:
        """Remove what is no longer kept, and renew the catalogue."""
        self.lake.expire(self._keep)
        before, named = self._rejected_files
        prune_rejected(self.lake.layout.rejected, named=named, before=before, now=datetime.now(UTC))
        if self.lake.catalogue is not None:
            renew_catalogue(self.lake.layout.root, run=self.name, ahead=ahead)

    def build_info(self, accounts: Sequence[AccountDump], change: Change) -> Info:
        """Return what is committed with a change: the receipt of this run and the states of these accounts."""
        now, after = datetime.now(UTC), CurrentSnapshot.after(change)
        states: dict[AccountKey, SyncState] = {}
        receipts = []
        for account in accounts:
            staging, state = account.outcome.staging, account.outcome.state
            if staging is None or state is None:  # published before, while this run went on
                snapshot = replace(account.snapshot, number=after.number, rows=after.rows)
                receipts.append(Receipt.of(account.evidence, snapshot, seconds=self._count_seconds()))
                continue
            receipts.append(Receipt.of(account.evidence, after, seconds=self._count_seconds()))
            known = account.outcome.rejected
            records = {**known, **staging.keep_rejected(self.lake.layout.rejected, known)}
            spoiled = {name: records[name] for name in state.rejected if name in records}
            states[account.key] = msgspec.structs.replace(state, updated_at=now, spoiled=spoiled)
            if not change.months:  # the lake has these rows already; no later run may resume them
                staging.clear()
        before = change.base.manifest.accounts if change.base.manifest else {}
        self._rejected_files = (
            self._rejected_files[0] | _name_files(before),
            _name_files({**before, **states}),
        )
        return Info(self._server, self.sum_receipts(receipts).to_dict(), states)

    def _find_cause(self, failure: BaseException) -> BaseException:
        """Return the error to raise: if another run has taken the lake, that is why files were missing."""
        if isinstance(failure, PleoExtractError):
            try:
                self._still_held()
            except LakeLocked as exc:
                return exc
        return failure

    def _record(self, accounts: Sequence[AccountDump], failure: BaseException | None) -> list[Receipt]:
        """Write `last_run.json` and return the receipts of the accounts.

        A run that was refused, or whose lake another run has taken, writes nothing. An error here must not hide an
        error before: it is raised only if there was none.
        """
        receipts, errors = [], [account.outcome.error for account in accounts]
        for account, error in zip(accounts, errors, strict=True):
            # An account that stopped because the whole run did says what stopped the run.
            own = None if failure is not None and isinstance(error, Stopped) else error
            seconds = self._count_seconds()
            receipts.append(
                Receipt.of(account.evidence, account.snapshot, seconds=seconds, error=own or failure)
            )
        if isinstance(failure, LakeLocked | ConfigurationError):
            return receipts
        # Rejected rows leave a sync complete. A damaged lake ends with the same code and does not.
        # So does what comes after the commit: an interrupt there leaves every account published.
        has_ended = failure is None or (bool(accounts) and all(each.is_committed for each in accounts))
        complete = has_ended and all(each is None or isinstance(each, RejectedRows) for each in errors)
        try:
            self._write_record(receipts, failure, complete=complete)
        except StorageError as exc:
            if self._find_cause(exc) is exc and failure is None and not any(errors):
                raise
            _log.warning("%s", exc, extra={"run": self.name})
        return receipts

    def _write_record(
        self, receipts: Sequence[Receipt], failure: BaseException | None, *, complete: bool
    ) -> None:
        # The run ends with its own failure, whatever happened to single companies before.
        receipt = self.sum_receipts(receipts).with_error(failure)
        _log.info(
            "ended with %d, %s, %d jobs in the lake",
            receipt.code,
            receipt.verdict,
            receipt.lake_rows,
            extra={"run": self.name},
        )
        failed = {each.name or each.account: [each.code, each.error] for each in receipts if each.code}
        write_last_run(
            self.lake.layout,
            receipt=receipt.to_dict(),
            error=receipt.error,
            complete=complete and receipt.verdict != "incomplete",
            failed=failed if len(receipts) > 1 else {},
        )

    def _count_seconds(self) -> float:
        return round(time.monotonic() - self._started, 3)


@dataclass(frozen=True, slots=True)
class _Publication:
    """The accounts of a run that are published together."""

    run: DumpRun
    accounts: Sequence[AccountDump]

    def build_info(self, change: Change) -> Info:
        """See `Publication`."""
        return self.run.build_info(self.accounts, change)

    def note_committed(self, change: Change) -> None:
        """See `Publication`."""
        for account in self.accounts:
            if account.outcome.staging is not None and account.outcome.state is not None:
                account.snapshot = CurrentSnapshot.after(change)
                account.is_committed = True


def _noting(
    ahead: CatalogueAhead, update: Callable[[int, int | None, str], None]
) -> Callable[[int, int | None, str], None]:
    """Return `update` as a function that also tells the catalogue of the page."""

    def note_and_update(rows: int, total: int | None, waited: str) -> None:
        ahead.note_page()
        update(rows, total, waited)

    return note_and_update


def _name_files(accounts: Mapping[AccountKey, SyncState]) -> set[str]:
    """Return the files of rejected rows that these states name."""
    return {row.file for account in accounts.values() for row in account.spoiled.values()}
