"""One job's life as a pure function of time: its record can be asked for any instant, past or future.

Instants are whole microseconds since 1970 in UTC. Everything about a job is drawn when it is made; looking
at it changes nothing.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

__all__ = ["EXPIRY", "NEVER", "SECOND", "STATUSES", "TERMINAL", "Job", "instant", "stamp", "when"]

SECOND = 1_000_000
EXPIRY = 3600 * SECOND
"""A job expires one hour after its last update."""
NEVER = 1 << 62
STATUSES = ("pending", "in_progress", "failed", "completed", "completed_with_errors")
TERMINAL = frozenset(STATUSES[2:])
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def instant(moment: datetime) -> int:
    """Microseconds since 1970 of an aware datetime."""
    return (moment - EPOCH) // timedelta(microseconds=1)


def when(micros: int) -> datetime:
    """The aware UTC datetime of an instant."""
    return EPOCH + timedelta(microseconds=micros)


def stamp(micros: int | None) -> str | None:
    """The instant as the contract writes it, `YYYY-MM-DDTHH:mi:ssZ`, or None."""
    return None if micros is None else _stamp_second(micros // SECOND)


@lru_cache(maxsize=1 << 16)
def _stamp_second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).isoformat()[:19] + "Z"


@dataclass(slots=True, eq=False)
class Job:
    """One drawn job. `beats` are its updates while it runs, the start first; `changes` are interventions.

    `born` is when it appears in the list and `gone` when it is deleted from it: `born <= t < gone`.
    """

    id: str
    company: str
    created: int
    created_by: str | None
    interactive: bool
    items: int
    vendor: bool
    born: int
    gone: int = NEVER
    beats: tuple[int, ...] = ()
    ended: int = NEVER
    outcome: str = "completed"
    reason: str | None = None
    text: str | None = None
    changes: list[tuple[int, dict[str, Any]]] = field(default_factory=list)

    @property
    def rank(self) -> int:
        """The id as a number, which orders like the id's text."""
        return int(self.id.replace("-", ""), 16)

    def exists(self, t: int) -> bool:
        """Whether the list has this job at `t`."""
        return self.born <= t < self.gone

    def status(self, t: int) -> str:
        """The job's status at `t` (contract: ExportJobV3.status)."""
        for since, fields in reversed(self.changes):
            if since <= t and "status" in fields:
                return str(fields["status"])
        if self.ended <= t:
            return self.outcome
        return "in_progress" if self.beats and self.beats[0] <= t else "pending"

    def placed(self, t: int) -> int:
        """Where the job stands in the order of creation at `t`: when it was created, unless that was changed."""
        for since, fields in reversed(self.changes):
            if since <= t and "createdAt" in fields:
                return instant(datetime.fromisoformat(fields["createdAt"]))
        return self.created

    def moments(self) -> tuple[int, ...]:
        """Every instant at which the list sees this job change, in order: birth, updates, end, deletion."""
        changes = (since for since, _ in self.changes)
        turns = {self.born, *self.beats, self.ended, self.gone, *changes} - {NEVER}
        return tuple(sorted(t for t in turns if self.born <= t <= self.gone))

    def at(self, t: int) -> dict[str, Any]:
        """The record as the API shows it at `t` (contract: ExportJobV3), whether or not it is listed then."""
        over = self.ended <= t
        record: dict[str, Any] = {
            "id": self.id,
            "companyId": self.company,
            "status": self.status(t),
            "createdAt": stamp(self.created),
            "startedAt": stamp(self.beats[0]) if self.beats and self.beats[0] <= t else None,
            "completedAt": stamp(self.ended) if over and self.outcome != "failed" else None,
            "expiredAt": stamp(self.ended) if over and self.reason == "job_expired" else None,
            "lastUpdatedAt": stamp(self._updated(t)),
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
        """Seconds until the job expires, counted down from its last update; 0 once it is over."""
        updated = self._updated(t)
        left = (self.created if updated is None else updated) + EXPIRY - t
        return 0 if self.ended <= t else max(0, left // SECOND)

    def _updated(self, t: int) -> int | None:
        if self.ended <= t:
            return self.ended
        past = [beat for beat in self.beats if beat <= t]
        # Jobs of the system have no update before their first event, so that null is met in practice.
        return past[-1] if past else self.created if self.interactive else None
