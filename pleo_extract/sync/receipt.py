"""The receipt: what one run read, what that proves, what was published, and how the run ended.

`Evidence` is filled while an account is read. `CurrentSnapshot` says what the lake holds. A `Receipt` is made of both,
once per attempt to publish and once at the end, and is never changed afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from pleo_extract.core.verdict import VERDICTS
from pleo_extract.errors import PleoExtractError, amount, worst_code
from pleo_extract.lake.html import format_html
from pleo_extract.signals import WORDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pleo_extract.client import Session
    from pleo_extract.core.verdict import Verdict
    from pleo_extract.core.walk import Walk
    from pleo_extract.lake.layout import Manifest
    from pleo_extract.lake.table import Change

__all__ = ["CurrentSnapshot", "Evidence", "Receipt"]


class Evidence(msgspec.Struct, kw_only=True):
    """What a run knows of what it has read, filled while it reads.

    Attributes:
        run: the name of the run.
        lake: the lake as it was given.
        account: the server and the company, ``*`` for any company.
        name: what the accounts file calls the company.
        mode: ``full``, ``refresh`` (an incremental sync) or ``merge``.
        why_full: why the sync was full.
        resumed: True if the run continued what an earlier run had staged.
        resumed_rows: how many rows these were.
        verdict: ``complete``, ``complete_with_drift`` or ``incomplete``.
        why: the reason for the verdict, in words.
        pages: pages read.
        requests: requests sent.
        retries: requests sent again.
        waited: seconds in which at least one request waited (rate limit, pauses, back-off).
        rows: rows received.
        distinct: different jobs among them.
        duplicates: rows that repeat a job, apart from those read twice on purpose.
        rejected: rows that do not fit the contract.
        total_first: the server's `total` on the first page; None if it gave none.
        total_last: the server's `total` on the last page; None if it gave none.
        order: the order that the walk proved, ``strict``, ``created`` or ``none``.
        understood: sorting keys, sorting orders and limit as the server echoed them.
        vanished: (company_id, id) of jobs that this run found to be no longer listed; their rows stay as last seen.
        moved: jobs whose created_at moved to another month; each is kept in the new month.
        audited: old jobs that the audit read.
        audited_share: their share of all jobs: the probability that the audit notices one changed row.
        shift_chance: the probability that one deletion together with one insertion into the past, which leave `total`
            unchanged, is noticed. It is 1 after a full sync that one run read alone, and 0 after a full sync that
            continued the pages of earlier runs.
        total_kind: what the server's `total` is worth: ``exact``, ``constant`` (wrong by the same number each time) or
            ``unusable`` (capped, of the page, or an estimate); empty if that is not known.
        faults: why requests were sent again, with counts per kind.
        restarts: how often a refused cursor sent a walk back.
        source: the lake that was merged into this one, with its snapshot.
        taken: rows of `source` that were new or later.
        data_as_of: the instant as of which the account's rows are true (UTC); of several accounts, the earliest.
    """

    run: str = ""
    lake: str = ""
    account: str = ""
    name: str = ""
    mode: str = "full"
    why_full: str = ""
    resumed: bool = False
    resumed_rows: int = 0
    verdict: str = "incomplete"
    why: str = ""
    pages: int = 0
    requests: int = 0
    retries: int = 0
    waited: float = 0.0
    rows: int = 0
    distinct: int = 0
    duplicates: int = 0
    rejected: int = 0
    total_first: int | None = None
    total_last: int | None = None
    order: str = "none"
    understood: dict[str, Any] = {}
    vanished: list[tuple[str, str]] = []
    moved: int = 0
    audited: int = 0
    audited_share: float = 0.0
    shift_chance: float = 0.0
    total_kind: str = ""
    faults: dict[str, int] = {}
    restarts: int = 0
    source: str = ""
    taken: int = 0
    data_as_of: datetime | None = None

    def count_session(self, session: Session) -> None:
        """Take over the counts of a session."""
        self.requests, self.retries = session.requests, session.retries
        self.waited, self.faults = round(session.waited, 3), dict(session.faults)

    def count_walk(self, walk: Walk) -> None:
        """Add the counts of a walk."""
        keys, orders, limit = walk.understood
        first_total, last_total = walk.checkpoint.totals
        self.pages += walk.checkpoint.pages
        self.rows += walk.checkpoint.rows
        self.restarts += walk.restarts + walk.anchors
        if not walk.query.statuses:  # the total of a filtered list is another one
            self.total_first = first_total if self.total_first is None else self.total_first
            self.total_last = last_total if last_total is not None else self.total_last
        self.order = walk.order
        self.understood = {"sorting_keys": keys, "sorting_order": orders, "limit": limit}

    def conclude(self, verdict: Verdict, *, distinct: int, reread: int = 0) -> None:
        """Set the verdict and the counts that it rests on; `reread` rows were read twice on purpose: no duplicates."""
        self.verdict, self.why, self.distinct = verdict.name, verdict.why, distinct
        self.duplicates = max(0, self.rows - reread - distinct - self.rejected)


@dataclass(frozen=True, slots=True)
class CurrentSnapshot:
    """The current snapshot of the lake, as an account's receipt shows it.

    Attributes:
        number: its number; 0 if nothing was published yet.
        rows: its rows.
        is_published: True if this run published it.
        months: the months that were written for it.
    """

    number: int = 0
    rows: int = 0
    is_published: bool = False
    months: tuple[str, ...] = ()

    @classmethod
    def of(cls, manifest: Manifest | None) -> CurrentSnapshot:
        """Return the snapshot that a run starts from."""
        return cls(manifest.snapshot, manifest.rows) if manifest else cls()

    @classmethod
    def after(cls, change: Change) -> CurrentSnapshot:
        """Return the snapshot that is current once this change is committed."""
        return cls(change.number, change.rows, change.makes_snapshot, tuple(change.months))


class Receipt(Evidence, frozen=True, kw_only=True):  # type: ignore[misc] # of a dataclass it could not be frozen
    """The receipt of a run: what it read, what that proves, what it published, how it ended.

    Attributes:
        seconds: wall-clock seconds from start to end.
        published: True if the run published a new snapshot.
        snapshot: the number of the snapshot that is current now.
        lake_rows: the rows of that snapshot.
        months_written: the months whose files were rewritten.
        code: the exit code.
        error: the message that goes with the exit code; None for 0.

    All other attributes are those of `Evidence`.
    """

    seconds: float = 0.0
    published: bool = False
    snapshot: int = 0
    lake_rows: int = 0
    months_written: list[str] = []
    code: int = 0
    error: str | None = None

    @classmethod
    def of(
        cls,
        evidence: Evidence,
        snapshot: CurrentSnapshot,
        *,
        seconds: float,
        error: BaseException | None = None,
    ) -> Receipt:
        """Return the receipt for this evidence and snapshot, with the error that ended the run, if any."""
        return cls(
            **msgspec.structs.asdict(evidence),
            seconds=seconds,
            published=snapshot.is_published,
            snapshot=snapshot.number,
            lake_rows=snapshot.rows,
            months_written=list(snapshot.months),
        ).with_error(error)

    def with_error(self, error: BaseException | None) -> Receipt:
        """Return a copy with the exit code and the message of an error; the receipt itself without an error."""
        if error is None:
            return self
        code = _exit_code(error)
        message = error.tell() if isinstance(error, PleoExtractError) else _describe_error(error, code)
        return msgspec.structs.replace(self, code=code, error=message)

    @classmethod
    def sum(cls, receipts: Sequence[Receipt], *, waited: float) -> Receipt:
        """Return one receipt for all accounts of a run: counts added, the worst verdict and code.

        `waited` is an argument because accounts wait in parallel: summed up, a run of 35 s had waited 223 s.
        """
        counts = (
            "pages",
            "requests",
            "retries",
            "rows",
            "resumed_rows",
            "distinct",
            "duplicates",
            "rejected",
            "restarts",
            "moved",
            "audited",
        )
        worst = next((each for each in receipts if each.code), None)
        codes = [each.code for each in receipts]
        first, read = receipts[0], [each for each in receipts if each.pages]
        instants = [each.data_as_of for each in receipts if each.data_as_of is not None]
        whole = cls(
            run=first.run,
            lake=first.lake,
            account=f"{len(receipts)} accounts",
            mode="full" if any(each.mode == "full" for each in read or receipts) else "refresh",
            verdict=max((each.verdict for each in receipts), key=VERDICTS.index),
            waited=waited,
            seconds=max(each.seconds for each in receipts),
            published=any(each.published for each in receipts),
            snapshot=max(each.snapshot for each in receipts),
            lake_rows=max(each.lake_rows for each in receipts),
            data_as_of=min(instants, default=None),
            shift_chance=min((each.shift_chance for each in receipts if not each.code), default=0.0),
            months_written=max((each.months_written for each in receipts), key=len),
            code=worst_code(codes),
            error=f"{worst.name or worst.account}: {worst.error}" if worst else None,
        )
        sums = {name: sum(getattr(each, name) for each in receipts) for name in counts}
        return msgspec.structs.replace(whole, **sums)

    def __str__(self) -> str:
        """Return two lines: the state of the lake, and what the run did."""
        return f"{self.format_lake()}\n{self._format_merge() if self.source else self._format_sync()}"

    def __repr__(self) -> str:
        state = f"{self.verdict}, {amount(self.lake_rows, 'job')}, snapshot {self.snapshot}, code {self.code}"
        return f"<Receipt of {self.lake}: {state}>"

    def __dir__(self) -> list[str]:
        """Name what a receipt says, and not how it is made: an editor completes these names."""
        return [*self.__struct_fields__, "to_dict"]

    def _repr_html_(self) -> str:
        lake, run = str(self).split("\n")
        shown = {
            "lake": lake,
            "run": run,
            "error": self.error or "",
            "data as of": str(self.data_as_of or ""),
        }
        return format_html(f"Receipt {self.run}", ((name, value) for name, value in shown.items() if value))

    def format_lake(self) -> str:
        """Return the state of the lake after the run: jobs, snapshot, and how much the run wrote."""
        change = "nothing published" if self.code else "nothing new"
        if self.published:
            change = f"{amount(len(self.months_written), 'month')} written"
        return f"{self.lake}: {amount(self.lake_rows, 'job')}, snapshot {self.snapshot}, {change}"

    def _format_merge(self) -> str:
        return f"{self.taken:,} of {amount(self.rows, 'job')} taken from {self.source}, {self.seconds:.1f} s"

    def _format_sync(self) -> str:
        how = "incremental sync" if self.mode == "refresh" else "full sync"
        if not self.pages:
            how = "nothing read"
        elif self.why_full:  # empty in the sum of many companies, each of which has its own reason
            how += f" ({self.why_full})"
        why = f" ({self.why})" if self.why else ""
        retries = f" ({amount(self.retries, 'retry', 'retries')})" if self.retries else ""
        waited = f", {self.waited:.0f} s of them waiting" if self.waited >= 1 else ""
        resumed = f", of which an interrupted run had read {self.resumed_rows:,}" if self.resumed_rows else ""
        return (
            f"{self.verdict}{why}, {how}: {amount(self.distinct, 'job')} on {amount(self.pages, 'page')}{resumed}, "
            f"{amount(self.requests, 'request')}{retries}, {self.seconds:.1f} s{waited}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the receipt as plain data, ready for JSON."""
        built: dict[str, Any] = msgspec.to_builtins(self)
        return built


def _exit_code(error: BaseException) -> int:
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    return 130 if isinstance(error, KeyboardInterrupt) else getattr(error, "code", 1)


def _describe_error(error: BaseException, code: int) -> str:
    """Return the message of an error that is not ours: the signal's name, its text, or else the name of its type."""
    if isinstance(error, SystemExit | KeyboardInterrupt) and code in WORDS:
        return WORDS[code]
    return str(error) or type(error).__name__
