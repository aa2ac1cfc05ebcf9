"""What one run can prove about itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from pleo_extract.client import Run
    from pleo_extract.paging import Verdict, Walk

__all__ = ["Receipt"]


class Receipt(msgspec.Struct, kw_only=True):
    """One run's own account.

    Attributes:
        run: its name. lake: the folder, as it was given. account: server and company it is about, ``*`` for any company.
        mode: ``full`` or ``refresh``. verdict: ``complete``, ``complete_with_drift`` or ``incomplete``; why: in words.
        pages, requests, retries: counts. waited, seconds: spent waiting, and in all.
        rows: rows received. distinct: different jobs among them. duplicates: rows beyond these. rejected: rows set aside.
        total_first, total_last: the server's `total` on the first and last page; None where it told none.
        order: the order the walk proved, ``strict``, ``created`` or ``none``.
        understood: sorting keys, sorting orders and limit as the server echoed them.
        faults: why requests were repeated, by kind. restarts: times a lost cursor sent a walk back.
        published: whether a new snapshot came of it. snapshot: the one now current. lake_rows: rows in it.
        months_written: partitions rewritten. code: the exit code.
    """

    run: str = ""
    lake: str = ""
    account: str = ""
    mode: str = "full"
    verdict: str = "incomplete"
    why: str = ""
    pages: int = 0
    requests: int = 0
    retries: int = 0
    waited: float = 0.0
    seconds: float = 0.0
    rows: int = 0
    distinct: int = 0
    duplicates: int = 0
    rejected: int = 0
    total_first: int | None = None
    total_last: int | None = None
    order: str = "none"
    understood: dict[str, Any] = {}
    faults: dict[str, int] = {}
    restarts: int = 0
    published: bool = False
    snapshot: int = 0
    lake_rows: int = 0
    months_written: list[str] = []
    code: int = 0

    def count_run(self, run: Run) -> None:
        """Take over what the client counted."""
        self.requests, self.retries = run.requests, run.retries
        self.waited, self.faults = round(run.waited, 3), dict(run.faults)

    def count_walk(self, walk: Walk) -> None:
        """Add what a walk has seen."""
        keys, orders, limit = walk.understood
        self.pages += walk.pages
        self.rows += walk.rows
        self.restarts += walk.restarts + walk.anchors
        self.total_first = walk.first_total if self.total_first is None else self.total_first
        self.total_last = walk.last_total if walk.last_total is not None else self.total_last
        self.order = walk.order
        self.understood = {"sorting_keys": keys, "sorting_order": orders, "limit": limit}

    def conclude(self, verdict: Verdict, *, distinct: int) -> None:
        """The verdict, and the count it rests on."""
        self.verdict, self.why, self.distinct = verdict.name, verdict.why, distinct
        self.duplicates = max(0, self.rows - distinct - self.rejected)

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        built: dict[str, Any] = msgspec.to_builtins(self)
        return built
