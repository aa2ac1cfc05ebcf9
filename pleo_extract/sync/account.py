"""One account of a dump: read into staging, a refresh where that suffices, a full walk where it does not."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import msgspec
import polars as pl

from pleo_extract.core.habits import Habits
from pleo_extract.core.state import FULL_EVERY, SyncState, binding_of, choose_mode
from pleo_extract.errors import (
    IncompleteWalk,
    LakeError,
    PleoExtractError,
    RejectedRows,
    TryLater,
    UsageError,
    escape,
)
from pleo_extract.fetch.segments import RowCount
from pleo_extract.fetch.selection import check_amount
from pleo_extract.lake.staging import Header, Staging
from pleo_extract.sync.full import read_everything
from pleo_extract.sync.incremental import Mismatch, refresh
from pleo_extract.sync.receipt import Evidence, Receipt, Standing
from pleo_extract.sync.task import Task

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from pleo_extract.client import Client, Session, Waits
    from pleo_extract.core.state import AccountKey, RejectedRecord
    from pleo_extract.lake.layout import Layout, Manifest
    from pleo_extract.lake.staging import Left
    from pleo_extract.lake.store import Store

__all__ = ["FEW_JOBS", "AccountDump", "DumpOptions", "is_small"]

_log = logging.getLogger(__name__)

FEW_JOBS: Final = 10_000
"""A company with no more jobs than these, as of its last full walk, is held in memory while it is read."""


SHORT: Final = 2
"""Pages that cost no more than the closing reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DumpOptions:
    """How a dump is to be made; see `dump_export_jobs`."""

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


def is_small(before: SyncState | None) -> bool:
    """Whether the lake's rows of an account in this state may be held in memory."""
    return before is not None and before.full_jobs <= FEW_JOBS


class AccountDump:
    """One account of one dump.

    Attributes:
        key: the account's name in the manifest. evidence: what this run can say about it, filled as it
            goes. standing: what the lake has. receipt: both, and how the run ended, once it has.
        staging, state: its rows and what the manifest will say about it, once they may be published; else None.
        error: why they may not be, or what there is to complain of although they may.
        run: while it is read. left: what earlier runs staged, where that was looked for once for all accounts.
        rows: what the lake has of it, where that was read together with other accounts'.
        spoiled: the rows that earlier runs rejected, by name.
        known: unknown statuses that the lake's runs have warned of.
    """

    def __init__(
        self,
        key: AccountKey,
        open_client: Callable[[], AbstractContextManager[Client]],
        how: DumpOptions,
        *,
        name: str = "",
    ) -> None:
        self.key = key
        self.name = name
        self.evidence = Evidence(account=str(key), name=name)
        self.standing = Standing()
        self.receipt = Receipt(account=str(key), name=name)
        self.session: Session | None = None
        self.left: Left | None = None
        self.rows: pl.DataFrame | None = None
        self.spoiled: dict[str, RejectedRecord] = {}
        self.known: set[str] = set()
        self.staging: Staging | None = None
        self.state: SyncState | None = None
        self.error: PleoExtractError | None = None
        self._open_client = open_client
        self._how = how

    @property
    def company_id(self) -> str | None:
        """The company, or None for any."""
        return self.key.company_id

    def read(
        self,
        lake: Store,
        base: Manifest | None,
        run: str,
        update: Callable[[int, int | None, float], None],
        *,
        waits: Waits | None = None,
    ) -> None:
        """Read what the lake lacks into staging, waits counted. An error is kept in `error`; staged pages stay for the next run."""
        try:
            with self._open_client() as client:
                self.session = client.start_session(
                    deadline=self._how.deadline, max_requests=self._how.max_requests, name=run, waits=waits
                )
                self.session.known = self.known
                self.state, self.staging = self._read(lake, base, run, client.in_flight, update)
            self.error = self._complain(lake.layout)
        except PleoExtractError as exc:
            self.error = exc
        except pl.exceptions.PolarsError as exc:  # our own frames fit; what does not is a file of the lake
            self.error = LakeError(
                f"the lake {lake.name} cannot be read ({escape(str(exc), 200)}); run verify"
            )
            self.error.__cause__ = exc
        except FileNotFoundError as exc:  # if it does not come back, the next run's beginning says which
            self.error = TryLater(
                f"a file of the lake {lake.name} went while it was read: others rewrote it meanwhile; run again"
            )
            self.error.__cause__ = exc
        finally:
            self.rows = None
            if self.session is not None:
                self.evidence.count_session(self.session)
                self.session = None  # each of thousands would keep its client, pace and credential

    def tell(self, standing: Standing, seconds: float, error: BaseException | None = None) -> Receipt:
        """Return the receipt of what was read so far, where the lake stands so."""
        return Receipt.of(self.evidence, standing, seconds=seconds, error=error)

    def forget_trace(self) -> None:
        """Of thousands of companies, each that fails would keep what was at hand where it failed."""
        if self.error is not None:
            self.error.__traceback__ = self.error.__cause__ = self.error.__context__ = None

    def _read(
        self,
        lake: Store,
        base: Manifest | None,
        run: str,
        in_flight: int,
        update: Callable[[int, int | None, float], None],
    ) -> tuple[SyncState, Staging]:
        assert self.session is not None
        now = datetime.now(UTC)
        how, evidence = self._how, self.evidence
        before = base.accounts.get(self.key) if base else None
        self.spoiled = before.spoiled if before else {}
        evidence.data_as_of = before.data_as_of if before else None
        mode, why = choose_mode(before, now=now, full=how.full, full_every=how.full_every)
        header = Header(run=run, mode=mode, base=binding_of(before) ^ lake.forgotten.number(), started_at=now)
        staging = self._open_staging(lake.layout, header)
        staging.forgotten = lake.forgotten
        evidence.resumed = staging.resumed
        task = Task(
            session=self.session,
            in_flight=in_flight,
            company_id=self.company_id,
            lake=self._scan(lake, base, before),
            before=before or SyncState(),
            staging=staging,
            evidence=evidence,
            on_page=RowCount(self.session, update).count,
            rejected=lake.layout.rejected,
            clock=lambda: datetime.now(UTC),
        )
        doubt = ""
        if before is not None and mode == "refresh":
            self.session.habits = Habits(
                echoes=not before.misechoes,
                filters=not before.ignores_statuses,
                refused_offset=before.refused_offset,
            )
        if staging.mode == "refresh" and not staging.is_done("refresh"):
            try:
                evidence.mode = "refresh"
                return self._stamp(refresh(task), before, staging), staging
            except Mismatch as misfit:
                why, doubt = str(misfit), misfit.kind
                _log.warning("%s: %s; reading everything", self.key, why, extra={"run": run})
                if (
                    staging.resumed
                ):  # what an earlier run has staged may be gone: only a walk of this run can tell
                    task.restart()
                staging.finish("refresh")
                self.session.habits = Habits()  # also a full sync that was not due tries everything again
        evidence.mode, evidence.why_full = "full", why
        state = read_everything(task, accept_vanished=how.accept_vanished, doubt=doubt)
        return self._stamp(state, before, staging), staging

    def _stamp(self, state: SyncState, before: SyncState | None, staging: Staging) -> SyncState:
        """Return the state with the account's name and what was learned of the server.

        A run that is not complete leaves the instant of the data as it was.
        """
        assert self.session is not None
        if state.data_as_of is None and before is not None:
            state = msgspec.structs.replace(state, data_as_of=before.data_as_of)
        self.evidence.data_as_of = state.data_as_of
        habits = self.session.habits
        return msgspec.structs.replace(
            state,
            name=self.name,
            refused_offset=habits.refused_offset,
            misechoes=not habits.echoes,
            ignores_statuses=not habits.filters,
            forgotten_people=len(staging.forgotten.people),
            watermark=staging.forgotten.strip_key(state.watermark) if state.watermark else None,
        )

    def _open_staging(self, layout: Layout, header: Header) -> Staging:
        """Return what an earlier run left, or a new one.

        A refresh that was cut short does not stand in for a full sync. A list of a page or two that was read to its end
        is read again: that costs no more than the closing reads over it.
        """
        left = Staging.resume(layout.staging, self.key, base=header.base, left=self.left)
        if left is not None and ((left.mode == "refresh" and header.mode == "full") or _is_short(left)):
            left.clear()
            left = None
        if left is None:
            return Staging.start(layout.staging, self.key, header, left=self.left)
        _log.info(
            "%s: resuming with %d staged batches of run %s",
            self.key,
            len(left.batches),
            left.run,
            extra={"run": header.run},
        )
        return left

    def _scan(self, lake: Store, base: Manifest | None, before: SyncState | None) -> pl.LazyFrame:
        """The lake's rows of this account; those of a small company are read once, not for each question anew."""
        if self.rows is not None:
            return self.rows.lazy()
        rows = lake.scan(base)
        if self.company_id is None:
            return rows
        own = rows.filter(pl.col("company_id") == self.company_id)
        return own.collect().lazy() if is_small(before) else own

    def _complain(self, layout: Layout) -> PleoExtractError | None:
        assert self.state is not None
        assert self.staging is not None
        self.evidence.rejected = len(set(self.staging.names))
        if self.evidence.verdict == "incomplete":
            return IncompleteWalk(
                f"{self.evidence.why}. What there is was published as incomplete; the next run reads all again"
            )
        named = zip(self.staging.names, self.staging.reasons, strict=False)
        if reasons := [reason for name, reason in named if name in self.state.rejected]:
            placed = self.staging.place_rejected(layout.rejected, self.spoiled)
            files = {row.file for name, row in placed.items() if name in self.state.rejected}
            where = f"{layout.shown_rejected}/{files.pop()}" if len(files) == 1 else layout.shown_rejected
            return RejectedRows(reasons, f"They are in {where}; the rest is published")
        if self.state.rejected:
            return RejectedRows(
                [f"{self.state.rejected[0]} was rejected by an earlier run, and not seen right since"]
            )
        return None


def _is_short(staging: Staging) -> bool:
    """Return whether all that is staged is a whole list of a page or two."""
    marks = staging.checkpoints("full").values()
    return bool(marks) and all(mark.at_end for mark in marks) and sum(mark.pages for mark in marks) <= SHORT
