"""One account of a dump: read into staging by an incremental sync where that suffices, else by a full sync.

`sync/run.py` publishes what the accounts of a run have staged.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import msgspec
import polars as pl

from pleo_extract.core.habits import Habits
from pleo_extract.core.state import FULL_EVERY, SyncState, binding_of, choose_mode
from pleo_extract.errors import (
    DeadlineExceeded,
    IncompleteWalk,
    LakeError,
    PleoExtractError,
    RejectedRows,
    TryLater,
    UsageError,
    amount,
    escape,
)
from pleo_extract.fetch.segments import RowCount
from pleo_extract.fetch.selection import check_amount
from pleo_extract.lake.journal import Header
from pleo_extract.lake.staging import Staging, count_staged, may_continue
from pleo_extract.sync.full import sync_fully
from pleo_extract.sync.incremental import Mismatch, sync_incrementally
from pleo_extract.sync.receipt import CurrentSnapshot, Evidence
from pleo_extract.sync.task import Task

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from pleo_extract.client import Client, Session, Waits
    from pleo_extract.core.pages import PageSize
    from pleo_extract.core.state import AccountKey, RejectedRecord
    from pleo_extract.lake.layout import Layout, Manifest
    from pleo_extract.lake.staging import Left
    from pleo_extract.lake.store import Store

__all__ = ["FEW_JOBS", "AccountDump", "DumpOptions", "Origin", "Outcome", "Preload", "is_small"]

_log = logging.getLogger(__name__)

FEW_JOBS: Final = 10_000
"""Up to this many jobs, as of its last full sync, the lake's rows of a company are held in memory while it is read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DumpOptions:
    """The options that apply to each account of a dump; see `dump_export_jobs`."""

    full: bool = False
    full_every: timedelta = FULL_EVERY
    accept_vanished: bool = False
    deadline: float | None = None
    max_requests: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("deadline", self.deadline), ("max_requests", self.max_requests)):
            check_amount(name, value)
        if not isinstance(self.full_every, timedelta) or self.full_every < timedelta(0):
            raise UsageError(f"full_every must be a timedelta, not negative; it is {self.full_every!r}")


@dataclass(frozen=True, slots=True)
class Origin:
    """What all accounts of a run start from.

    Attributes:
        run: the name of the run.
        lake: the lake, held by the run.
        base: its manifest when the run began; None for a new lake.
        known: unknown statuses that runs of this lake have warned of; shared, so that each is warned of once.
        waits: counts the seconds in which any request of the run waits.
        pages: the page size of the server; shared, so that it is found once.
        update: moves the progress bar: rows, total, seconds waited.
    """

    run: str
    lake: Store
    base: Manifest | None
    known: set[str]
    waits: Waits
    pages: PageSize
    update: Callable[[int, int | None, str], None]


@dataclass(frozen=True, slots=True)
class Preload:
    """What was read for many accounts together; None where each account reads its own.

    Attributes:
        left: the staging folders that earlier runs left.
        rows: the lake's rows of this account.
    """

    left: Left | None = None
    rows: pl.DataFrame | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What reading one account came to.

    Attributes:
        staging: the rows; None if they must not be published, or once they are.
        state: the account's new state; None if nothing may be published.
        rejected: the rejected rows that the state of earlier runs names.
        error: why nothing may be published, or what is wrong although the rest may be.
    """

    staging: Staging | None = None
    state: SyncState | None = None
    rejected: Mapping[str, RejectedRecord] = field(default_factory=dict)
    error: PleoExtractError | None = None


def is_small(before: SyncState | None) -> bool:
    """Return whether the lake's rows of an account in this state may be held in memory."""
    return before is not None and before.full_jobs <= FEW_JOBS


class AccountDump:
    """One account of one dump.

    Attributes:
        key: the account's key in the manifest.
        options: how to dump it.
        name: what the accounts file calls the company.
        evidence: what the run knows of what it has read, filled while it reads.
        snapshot: the current snapshot as this account's receipt shows it.
        session: the session while the account is read, so that another thread can stop it; else None.
        outcome: what reading came to; empty until then.
        is_committed: True once this run has committed its rows and state.
    """

    def __init__(
        self,
        key: AccountKey,
        open_client: Callable[[], AbstractContextManager[Client]],
        options: DumpOptions,
        *,
        name: str = "",
    ) -> None:
        self.key = key
        self.name = name
        self.evidence = Evidence(account=str(key), name=name)
        self.snapshot = CurrentSnapshot()
        self.session: Session | None = None
        self.outcome = Outcome()
        self.is_committed = False
        self._open_client = open_client
        self.options = options

    @property
    def company_id(self) -> str | None:
        """The company, or None for any."""
        return self.key.company_id

    def read(self, origin: Origin, preload: Preload = Preload()) -> None:
        """Read into staging what the lake lacks. Errors of this account go to `outcome`; staged pages stay for the next run."""
        before = origin.base.accounts.get(self.key) if origin.base else None
        staging: Staging | None = None
        state: SyncState | None = None
        error: PleoExtractError | None = None
        try:
            with self._open_client() as client:
                self.session = client.start_session(
                    deadline=self.options.deadline,
                    max_requests=self.options.max_requests,
                    name=origin.run,
                    waits=origin.waits,
                    pages=origin.pages,
                )
                self.session.log.known_statuses = origin.known
                state, staging = self._sync(self.session, client.in_flight, origin, before, preload)
            error = self._find_complaint(origin.lake.layout, state, staging, before)
        except PleoExtractError as exc:
            error = exc
        except pl.exceptions.PolarsError as exc:  # our own frames always fit, so a file of the lake does not
            error = LakeError(
                f"the lake {origin.lake.name} cannot be read ({escape(str(exc), 200)}); run verify"
            )
            error.__cause__ = exc
        except FileNotFoundError as exc:  # if the file does not come back, the start of the next run names it
            error = TryLater(
                f"another program removed a file of the lake {origin.lake.name} while it was read; run again"
            )
            error.__cause__ = exc
        finally:
            if isinstance(error, DeadlineExceeded):
                staged = count_staged(origin.lake.layout.staging, self.key)
                if staged:
                    them = "it" if staged == 1 else "them"
                    error.advice = (
                        f"{amount(staged, 'row is', 'rows are')} staged: run again to continue from {them}"
                    )
                elif error.is_unreachable:
                    error.advice = "Nothing is staged: run again when the server can be reached"
                else:
                    error.advice = "Nothing is staged: run again with a longer deadline"
            if self.session is not None:
                self.evidence.count_session(self.session)
                # Else each of thousands of accounts would keep its client, pace and credential.
                self.session = None
            self.outcome = Outcome(staging, state, before.spoiled if before else {}, error)

    def free_memory(self) -> None:
        """Free what thousands of accounts that are read would hold: local variables in tracebacks, and staged pages."""
        staging = self.outcome.staging
        if staging is not None and staging.mode == "refresh":
            staging.release()
        if (error := self.outcome.error) is not None:
            error.__traceback__ = error.__cause__ = error.__context__ = None

    def _sync(
        self, session: Session, in_flight: int, origin: Origin, before: SyncState | None, preload: Preload
    ) -> tuple[SyncState, Staging]:
        now, lake = datetime.now(UTC), origin.lake
        options, evidence = self.options, self.evidence
        evidence.data_as_of = before.data_as_of if before else None
        mode, why = choose_mode(before, now=now, full=options.full, full_every=options.full_every)
        binding = binding_of(before) ^ lake.forgotten.number()
        header = Header(run=origin.run, mode=mode, base=binding, started_at=now)
        staging = self._open_staging(lake.layout, header, preload.left)
        staging.forgotten = lake.forgotten
        evidence.resumed = staging.resumed
        evidence.resumed_rows = sum(batch.rows for batch in staging.batches)
        task = Task(
            session=session,
            in_flight=in_flight,
            company_id=self.company_id,
            lake=self._scan(origin, before) if preload.rows is None else preload.rows.lazy(),
            before=before or SyncState(),
            staging=staging,
            evidence=evidence,
            on_page=RowCount(session, origin.update).count,
            rejected=lake.layout.rejected,
            clock=lambda: datetime.now(UTC),
        )
        mismatch = ""
        if before is not None and mode == "refresh":
            session.habits = Habits(
                echoes=not before.misechoes,
                filters=not before.ignores_statuses,
                refused_offset=before.refused_offset,
            )
        if staging.mode == "refresh" and not staging.is_done("refresh"):
            try:
                evidence.mode = "refresh"
                return self._complete_state(session, sync_incrementally(task), before, staging), staging
            except Mismatch as misfit:
                why, mismatch = str(misfit), misfit.kind
                _log.warning("%s: %s; reading the whole list", self.key, why, extra={"run": origin.run})
                # Jobs that an earlier run staged may be gone; only a walk of this run shows it.
                if staging.resumed:
                    task.restart()
                staging.finish("refresh")
                session.habits = Habits()  # every full sync tries what the server refused before
        evidence.mode, evidence.why_full = "full", why
        state = sync_fully(task, accept_vanished=options.accept_vanished, mismatch=mismatch)
        return self._complete_state(session, state, before, staging), staging

    def _complete_state(
        self, session: Session, state: SyncState, before: SyncState | None, staging: Staging
    ) -> SyncState:
        """Return the state with the account's name and what was learned of the server.

        After an incomplete sync the rows are true as of the same instant as before.
        """
        if state.data_as_of is None and before is not None:
            state = msgspec.structs.replace(state, data_as_of=before.data_as_of)
        self.evidence.data_as_of = state.data_as_of
        return msgspec.structs.replace(
            state,
            name=self.name,
            refused_offset=session.habits.refused_offset,
            misechoes=not session.habits.echoes,
            ignores_statuses=not session.habits.filters,
            page_size=session.pages.learned,
            page_limit=session.pages.refused,
            forgotten_people=len(staging.forgotten.people),
            watermark=staging.forgotten.strip_key(state.watermark) if state.watermark else None,
        )

    def _open_staging(self, layout: Layout, header: Header, left: Left | None) -> Staging:
        """Resume what an earlier run staged, or start a new staging folder."""
        found = Staging.resume(layout.staging, self.key, base=header.base, left=left)
        if found is not None and not may_continue(found.mode, found.batches, header.mode):
            found.clear()
            found = None
        if found is None:
            return Staging.start(layout.staging, self.key, header, left=left)
        _log.info(
            "%s: resuming with %d staged batches of run %s",
            self.key,
            len(found.batches),
            found.run,
            extra={"run": header.run},
        )
        return found

    def _scan(self, origin: Origin, before: SyncState | None) -> pl.LazyFrame:
        """Return the lake's rows of this account; of a small one they are read here, once, not for each question."""
        rows = origin.lake.scan(origin.base)
        if self.company_id is None:
            return rows
        own = rows.filter(pl.col("company_id") == self.company_id)
        return own.collect().lazy() if is_small(before) else own

    def _find_complaint(
        self, layout: Layout, state: SyncState, staging: Staging, before: SyncState | None
    ) -> PleoExtractError | None:
        """Return the error that the run ends with although its rows are published; None if all is well."""
        self.evidence.rejected = len(set(staging.names))
        if self.evidence.verdict == "incomplete":
            return IncompleteWalk(
                f"{self.evidence.why}. The rows that were read are published as incomplete; the next run reads the whole list again"
            )
        named = zip(staging.names, staging.reasons, strict=False)
        if reasons := {
            name: reason for name, reason in named if name in state.rejected
        }:  # a row can be read often
            placed = staging.place_rejected(layout.rejected, before.spoiled if before else {})
            files = {row.file for name, row in placed.items() if name in state.rejected}
            where = f"{layout.shown_rejected}/{files.pop()}" if len(files) == 1 else layout.shown_rejected
            return RejectedRows([*reasons.values()], f"They are in {where}; the rest is published")
        if state.rejected:
            return RejectedRows(
                [f"{state.rejected[0]} was rejected by an earlier run, and no valid row of it was read since"]
            )
        return None
