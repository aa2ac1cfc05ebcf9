"""One job's life as a pure function of time: its record can be computed for any instant, past or future.

Instants are whole microseconds since 1970, UTC. Everything about a job is drawn when the job is created; reading
it changes nothing. That is what lets the oracle compare rows with the past.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

__all__ = [
    "EXPIRY",
    "NEVER",
    "SECOND",
    "STATUSES",
    "TERMINAL",
    "Job",
    "format_time",
    "to_datetime",
    "to_micros",
]

SECOND = 1_000_000
EXPIRY = 3600 * SECOND
"""A job expires one hour after its last update (microseconds)."""
NEVER = 1 << 62
STATUSES = ("pending", "in_progress", "failed", "completed", "completed_with_errors")
TERMINAL = frozenset(STATUSES[2:])
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_micros(moment: datetime) -> int:
    """Return the microseconds since 1970 of an aware datetime."""
    return (moment - EPOCH) // timedelta(microseconds=1)


def to_datetime(micros: int) -> datetime:
    """Return the aware UTC datetime of an instant in microseconds."""
    return EPOCH + timedelta(microseconds=micros)


def format_time(micros: int | None) -> str | None:
    """Format an instant as the contract does, `YYYY-MM-DDTHH:mi:ssZ`; None stays None."""
    return None if micros is None else _format_second(micros // SECOND)


@lru_cache(maxsize=1 << 16)
def _format_second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).isoformat()[:19] + "Z"


@dataclass(slots=True, eq=False)
class Job:
    """One drawn job. All times are microseconds since 1970.

    Attributes:
        listed_from: when the list first shows the job; later than `created` for one that a test inserted.
        deleted_at: when the list no longer shows it.
        updates: its updates while it runs; the first is its start.
        ended: when it completed, failed or expired.
        outcome: its status from then on.
        reason: the type of its failure.
        text: the explanation of its failure.
        changes: the edits of a test: when, and the fields that changed.
    """

    id: str
    company: str
    created: int
    created_by: str | None
    interactive: bool
    items: int
    vendor: bool
    listed_from: int
    deleted_at: int = NEVER
    updates: tuple[int, ...] = ()
    ended: int = NEVER
    outcome: str = "completed"
    reason: str | None = None
    text: str | None = None
    changes: list[tuple[int, dict[str, Any]]] = field(default_factory=list)

    @property
    def id_number(self) -> int:
        """Return the id as a number, which sorts like the id's text."""
        return int(self.id.replace("-", ""), 16)

    def is_listed(self, t: int) -> bool:
        """Return whether the list shows this job at `t`."""
        return self.listed_from <= t < self.deleted_at

    def status(self, t: int) -> str:
        """Return the job's status at `t` (contract: ExportJobV3.status)."""
        for since, fields in reversed(self.changes):
            if since <= t and "status" in fields:
                return str(fields["status"])
        if self.ended <= t:
            return self.outcome
        return "in_progress" if self.updates and self.updates[0] <= t else "pending"

    def created_time(self, t: int) -> int:
        """Return the `createdAt` that the job has at `t`: when it was created, unless a test moved it."""
        for since, fields in reversed(self.changes):
            if since <= t and "createdAt" in fields:
                return to_micros(datetime.fromisoformat(fields["createdAt"]))
        return self.created

    def change_times(self) -> tuple[int, ...]:
        """Return, in order, all instants at which the job changes in the list: creation, updates, end, deletion."""
        changes = (since for since, _ in self.changes)
        moments = {self.listed_from, *self.updates, self.ended, self.deleted_at, *changes} - {NEVER}
        return tuple(sorted(t for t in moments if self.listed_from <= t <= self.deleted_at))

    def record(self, t: int) -> dict[str, Any]:
        """Return the record that the API would show at `t` (contract: ExportJobV3), listed or not."""
        over = self.ended <= t
        record: dict[str, Any] = {
            "id": self.id,
            "companyId": self.company,
            "status": self.status(t),
            "createdAt": format_time(self.created),
            "startedAt": format_time(self.updates[0]) if self.updates and self.updates[0] <= t else None,
            "completedAt": format_time(self.ended) if over and self.outcome != "failed" else None,
            "expiredAt": format_time(self.ended) if over and self.reason == "job_expired" else None,
            "lastUpdatedAt": format_time(self._updated(t)),
            "expiresIn": EXPIRY // SECOND,
            "createdBy": self.created_by,
            "isInteractive": self.interactive,
            "numberOfItems": self.items,
            "vendorBasedBookkeeping": self.vendor,
            "failureReason": self.text if over else None,
        }
        if over and self.reason is not None:
            record["failureReasonType"] = self.reason
        for since, fields in self.changes:
            if since <= t:
                record.update(fields)
        return record

    def expires_in(self, t: int) -> int:
        """Return the seconds until the job expires, counted from its last update; 0 once it has ended."""
        updated = self._updated(t)
        left = (self.created if updated is None else updated) + EXPIRY - t
        return 0 if self.ended <= t else max(0, left // SECOND)

    def _updated(self, t: int) -> int | None:
        if self.ended <= t:
            return self.ended
        past = [update for update in self.updates if update <= t]
        # A job of the system has no update before it starts: the contract allows null, so the sandbox sends it.
        return past[-1] if past else self.created if self.interactive else None
