"""What one run can prove about itself."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from pleo_extract.core.verdict import VERDICTS
from pleo_extract.errors import PleoExtractError, worst_code
from pleo_extract.signals import WORDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pleo_extract.client import Session
    from pleo_extract.core.verdict import Verdict
    from pleo_extract.core.walk import Walk
    from pleo_extract.lake.layout import Manifest
    from pleo_extract.lake.table import Change

__all__ = ["Evidence", "Receipt", "Standing"]


class Evidence(msgspec.Struct, kw_only=True):
    """What a run can say of what it has read, filled as it goes.

    Attributes:
        run: its name. lake: the folder, as it was given. account: server and company it is about, ``*`` for any company.
        mode: ``full``, ``refresh`` or ``merge``. verdict: ``complete``, ``complete_with_drift`` or ``incomplete``; why: in words.
        pages, requests, retries: counts. waited: seconds in which a request waited (pace, pauses, backoff); those of
            several at once count once.
        rows: rows received. distinct: different jobs among them. duplicates: rows beyond these. rejected: rows set aside.
        total_first, total_last: the server's `total` on the first and last page; None where it told none.
        order: the order the walk proved, ``strict``, ``created`` or ``none``.
        understood: sorting keys, sorting orders and limit as the server echoed them.
        vanished: (company_id, id) of jobs newly found to be no longer listed; their rows stay as last seen.
        moved: jobs whose created_at moved to another month; each stands in the new one.
        audited: old jobs read anew by chance; audited_share: of all jobs, the chance that one changed row is noticed.
        shift_chance: the chance that a job deleted and another one inserted into the past, which leave the total as it
            was, are noticed; 1 after a full sync that one run read, 0 after one that took over what others had staged.
        total_kind: what the server's `total` is worth: ``exact``, ``constant`` (wrong by the same number each time) or
            ``unusable`` (capped, of the page, or an estimate); empty where there is none.
        faults: why requests were repeated, by kind. restarts: times a lost cursor sent a walk back.
        source: the lake that was merged into this one, with its snapshot; taken: rows of it that were news here.
        data_as_of: the instant as of which the account's rows are true (UTC); of several accounts, the earliest.
    """

    run: str = ""
    lake: str = ""
    account: str = ""
    name: str = ""
    mode: str = "full"
    why_full: str = ""
    resumed: bool = False
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
        """Take over what the client counted."""
        self.requests, self.retries = session.requests, session.retries
        self.waited, self.faults = round(session.waited, 3), dict(session.faults)

    def count_walk(self, walk: Walk) -> None:
        """Add what a walk has seen."""
        keys, orders, limit = walk.understood
        first_total, last_total = walk.checkpoint.totals
        self.pages += walk.checkpoint.pages
        self.rows += walk.checkpoint.rows
        self.restarts += walk.restarts + walk.anchors
        self.total_first = first_total if self.total_first is None else self.total_first
        self.total_last = last_total if last_total is not None else self.total_last
        self.order = walk.order
        self.understood = {"sorting_keys": keys, "sorting_order": orders, "limit": limit}

    def conclude(self, verdict: Verdict, *, distinct: int, reread: int = 0) -> None:
        """Note the verdict, and the count it rests on; `reread` rows were read again on purpose, and are no duplicates."""
        self.verdict, self.why, self.distinct = verdict.name, verdict.why, distinct
        self.duplicates = max(0, self.rows - reread - distinct - self.rejected)


@dataclass(frozen=True, slots=True)
class Standing:
    """What the lake has, however the run ends.

    Attributes:
        snapshot: the one that is current. rows: in it.
        is_published: whether it came of this run. months: the partitions written for it.
    """

    snapshot: int = 0
    rows: int = 0
    is_published: bool = False
    months: tuple[str, ...] = ()

    @classmethod
    def at(cls, manifest: Manifest | None) -> Standing:
        """The state that a run began with."""
        return cls(manifest.snapshot, manifest.rows) if manifest else cls()

    @classmethod
    def after(cls, change: Change) -> Standing:
        """The state that is current when this is committed."""
        return cls(change.number, change.rows, change.makes_snapshot, tuple(change.months))


class Receipt(Evidence, frozen=True, kw_only=True):  # type: ignore[misc] # of a dataclass it could not be frozen
    """One run's own account: what it read, what it published, how it ended.

    Attributes:
        published: whether a new snapshot came of it. snapshot: the one now current. lake_rows: rows in it.
        months_written: partitions rewritten. seconds: of the clock on the wall, from start to end.
        code: the exit code; error: the message that goes with it.
        The others are those of `Evidence`.
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
        cls, evidence: Evidence, standing: Standing, *, seconds: float, error: BaseException | None = None
    ) -> Receipt:
        """The receipt of a run that has read this and found or left the lake so, and what ended it, if anything did."""
        return cls(
            **msgspec.structs.asdict(evidence),
            seconds=seconds,
            published=standing.is_published,
            snapshot=standing.snapshot,
            lake_rows=standing.rows,
            months_written=list(standing.months),
        ).ended(error)

    def ended(self, error: BaseException | None) -> Receipt:
        """The same with the exit code and the message of this error."""
        if error is None:
            return self
        code = _code_of(error)
        message = error.tell() if isinstance(error, PleoExtractError) else _word(error, code)
        return msgspec.structs.replace(self, code=code, error=message)

    @classmethod
    def sum(cls, receipts: Sequence[Receipt], *, waited: float) -> Receipt:
        """One receipt for the accounts of one run: counts added, the worst verdict and code.

        Accounts wait side by side, so what they `waited` together is not the sum, and comes from who counted it.
        """
        counts = (
            "pages",
            "requests",
            "retries",
            "rows",
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
        return cls(
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
            **{name: sum(getattr(each, name) for each in receipts) for name in counts},
        )

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        built: dict[str, Any] = msgspec.to_builtins(self)
        return built


def _code_of(error: BaseException) -> int:
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    return 130 if isinstance(error, KeyboardInterrupt) else getattr(error, "code", 1)


def _word(error: BaseException, code: int) -> str:
    """What an error that is not ours says; one that says nothing goes by its name."""
    if isinstance(error, SystemExit | KeyboardInterrupt) and code in WORDS:
        return WORDS[code]
    return str(error) or type(error).__name__
