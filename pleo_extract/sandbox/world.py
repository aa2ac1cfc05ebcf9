"""The world behind the sandbox: companies whose jobs are created, start and end as its clock advances.

The same arguments give the same world on every machine. The clock moves only by `advance`. An edit (`insert`,
`change`, `remove`) advances it by one microsecond, so that an instant is either before or after it.
"""

from bisect import insort
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from heapq import heappop, heappush
from operator import attrgetter
from threading import RLock
from typing import Any, NamedTuple

from pleo_extract.sandbox.chance import make_rng
from pleo_extract.sandbox.life import NEVER, SECOND, Job, format_time, to_datetime, to_micros
from pleo_extract.sandbox.oracle import CollectedRows, Discrepancy, find_discrepancies
from pleo_extract.sandbox.population import (
    DAY,
    CompanyQueue,
    draw_companies,
    draw_count,
    draw_times,
    draw_uuid,
)
from pleo_extract.sandbox.view import Selection, View

__all__ = ["Edit", "World"]

VIEWS_KEPT = 16


class Edit(NamedTuple):
    """An edit that a test made in the world: when (UTC), which kind, and the job."""

    at: datetime
    kind: str
    company: str
    id: str


class World:
    """A seeded world with exactly `jobs` jobs at `now`, created in the `days` before; more come as time passes.

    Attributes:
        companies: the ids of the companies, largest first.
        outage: the start and end, UTC, of the week in which every second company's accounting system is
            unreachable.
        edits: what a test inserted, changed or removed, in order.
        lock: hold it while reading a view.
    """

    def __init__(
        self,
        *,
        jobs: int = 20_000,
        companies: int = 5,
        seed: int = 7,
        now: datetime = datetime(2026, 11, 1, tzinfo=UTC),
        days: int = 365,
    ) -> None:
        for name, value, least in (("jobs", jobs, 0), ("companies", companies, 1), ("days", days, 1)):
            if value < least:
                raise ValueError(f"{name} must be {least} or more, not {value}")
        self.lock = RLock()
        self.edits: list[Edit] = []
        self._t = to_micros(now)
        self._rng = make_rng(seed, "world")
        self._daily = jobs / days
        drawn = draw_companies(companies, seed=seed, daily=self._daily)
        self.companies = tuple(company.id for company in drawn)
        start = self._t - days * DAY
        outage_start = start + days * DAY * 2 // 5
        outage_end = outage_start + min(7 * DAY, days * DAY // 10)
        self.outage = (to_datetime(outage_start), to_datetime(outage_end))
        self._queues = [CompanyQueue(company, seed, (outage_start, outage_end)) for company in drawn]
        self._shares = [company.share for company in drawn]
        self._drawn_until = self._t
        self._jobs = self._draw_history(start, jobs)
        self._due_changes: list[tuple[int, int, Job]] = []
        self._sequence = 0
        self._change_log: list[Job] = []
        self._views: OrderedDict[Selection, View] = OrderedDict()
        self._jobs_by_company: dict[str, list[Job]] = {}
        self._indexed_jobs = 0
        self._schedule_changes(self._jobs)
        self._draw_ahead()

    @property
    def now(self) -> datetime:
        """The world's clock, UTC."""
        return to_datetime(self._t)

    @property
    def t(self) -> int:
        """The world's clock in microseconds since 1970."""
        return self._t

    def advance(self, seconds: float) -> datetime:
        """Advance the clock by `seconds` and return the new time; jobs are created, start, end and expire meanwhile."""
        if seconds < 0:
            raise ValueError("time goes forward only")
        with self.lock:
            self._t += round(seconds * SECOND)
            self._draw_ahead()
            while self._due_changes and self._due_changes[0][0] <= self._t:
                self._change_log.append(heappop(self._due_changes)[2])
            return self.now

    def view(self, selection: Selection) -> View:
        """Return the jobs of a selection in order, as of now. Hold `lock` while reading it."""
        with self.lock:
            view = self._views.pop(selection, None)
            if view is None:
                view = View(selection, self._jobs_of(selection.companies), self._t, len(self._change_log))
            for job in self._change_log[view.log_position :]:
                view.update(job, self._t)
            view.log_position = len(self._change_log)
            self._views[selection] = view
            if len(self._views) > VIEWS_KEPT:
                self._views.popitem(last=False)
            return view

    def job(self, id: str, company: str | None = None) -> dict[str, Any]:  # noqa: A002 - the contract's name
        """Return the job's record as of now, listed or not. Raises KeyError if no such job exists."""
        return self._find(id, company).record(self._t)

    def visible(self) -> list[dict[str, Any]]:
        """Return the records listed now, oldest first."""
        return self.truth()

    def truth(self, at: datetime | None = None) -> list[dict[str, Any]]:
        """Return the records listed at an instant, oldest first (UTC; default now; at most one day ahead of now)."""
        t = self._t if at is None else to_micros(at)
        return [job.record(t) for job in self._jobs if job.is_listed(t)]

    def discrepancies(
        self, rows: Iterable[Mapping[str, Any]] | Mapping[Any, Mapping[str, Any]], walk: CollectedRows
    ) -> list[Discrepancy]:
        """Return what is wrong with the rows that a walk collected: missing, double, foreign or of a wrong version."""
        with self.lock:
            return find_discrepancies(self._jobs, rows, walk, until=self._t)

    def remove(self, id: str, company: str | None = None) -> None:  # noqa: A002
        """Delete a job from the list."""
        with self.lock:
            job = self._find(id, company)
            job.deleted_at = self._record_edit("remove", job)

    def change(self, id: str, company: str | None = None, **fields: Any) -> dict[str, Any]:  # noqa: A002
        """Give a job, terminal or not, other values from now on, by the contract's names; return its record."""
        with self.lock:
            job = self._find(id, company)
            job.changes.append((self._record_edit("change", job), fields))
            return job.record(self._t)

    def move(self, id: str, created: datetime, company: str | None = None) -> dict[str, Any]:  # noqa: A002
        """Give a job another `createdAt` and so another position from now on; return its record."""
        return self.change(id, company, createdAt=format_time(to_micros(created)))

    def insert(
        self,
        created: datetime,
        *,
        id: str | None = None,  # noqa: A002
        company: str | None = None,
        **fields: Any,
    ) -> dict[str, Any]:
        """List from now on a completed job that was created earlier, with these `fields`; return its record."""
        with self.lock:
            owner, moment = company or self.companies[0], to_micros(created)
            job = Job(
                id=id or draw_uuid(make_rng("insert", self._t)),
                company=owner,
                created=moment,
                created_by=None,
                interactive=False,
                items=1,
                vendor=False,
                listed_from=NEVER,
                updates=(moment + SECOND,),
                ended=moment + 60 * SECOND,
            )
            if any(other.id == job.id and other.company == owner for other in self._jobs):
                raise ValueError(f"the company has a job {job.id} already")
            insort(self._jobs, job, key=attrgetter("created"))
            job.listed_from = self._record_edit("insert", job)
            job.changes = [(job.listed_from, fields)] if fields else []
            return job.record(self._t)

    def _jobs_of(self, companies: frozenset[str] | None) -> Iterable[Job]:
        """Return the jobs of these companies. An index finds them: a test asks for 10,000 companies one by one."""
        if companies is None:
            return self._jobs
        if self._indexed_jobs != len(self._jobs):
            self._jobs_by_company, self._indexed_jobs = {}, len(self._jobs)
            for job in self._jobs:
                self._jobs_by_company.setdefault(job.company, []).append(job)
        return (job for company in companies for job in self._jobs_by_company.get(company, ()))

    def _find(self, id: str, company: str | None) -> Job:  # noqa: A002
        for job in self._jobs:
            if job.id == id and company in (None, job.company):
                return job
        raise KeyError(id)

    def _record_edit(self, kind: str, job: Job) -> int:
        self.advance(1 / SECOND)
        self.edits.append(Edit(self.now, kind, job.company, job.id))
        self._change_log.append(job)
        return self._t

    def _draw_history(self, start: int, count: int) -> list[Job]:
        """Draw exactly `count` jobs up to now: too many, with retries and doubles, then remove the surplus."""
        if not count:
            return []
        rng = self._rng
        times = sorted(draw_times(rng, start, self._t, count))
        # Some jobs hang for ever. None of the last tenth does: those may still be running.
        hanging = set(rng.sample(range(count * 9 // 10), count // 3000 + (count >= 100) * 2))
        owners = rng.choices(self._queues, self._shares, k=count)
        for number, (created, queue) in enumerate(zip(times, owners, strict=True)):
            queue.add(created, latest=self._t, hangs=number in hanging)
        jobs = self._draw_jobs()
        plain = [
            number for number, job in enumerate(jobs) if job.outcome == "completed" and job.ended < NEVER
        ]
        surplus = len(jobs) - count
        dropped = set(rng.sample(plain, surplus) if surplus <= len(plain) else range(surplus))
        return [job for number, job in enumerate(jobs) if number not in dropped]

    def _draw_jobs(self) -> list[Job]:
        jobs = [job for queue in self._queues for job in queue.run(self._drawn_until)]
        return sorted(jobs, key=attrgetter("created", "company"))

    def _draw_ahead(self) -> None:
        """Draw whole days ahead, so that the future does not depend on the steps in which the clock advances."""
        while self._daily and self._drawn_until < self._t + DAY:
            since, self._drawn_until = self._drawn_until, self._drawn_until + DAY
            count = draw_count(self._rng, since, self._drawn_until, self._daily)
            for created in sorted(draw_times(self._rng, since, self._drawn_until, count)):
                (queue,) = self._rng.choices(self._queues, self._shares)
                queue.add(created, latest=self._drawn_until)
            fresh = self._draw_jobs()
            self._jobs += fresh
            self._schedule_changes(fresh)
            # After an advance of several days some of the new jobs are already listed.
            self._change_log += [job for job in fresh if job.listed_from <= self._t]

    def _schedule_changes(self, jobs: Iterable[Job]) -> None:
        for job in jobs:
            if job.listed_from > self._t or job.ended > self._t:
                for moment in job.change_times():
                    if moment > self._t:
                        self._sequence += 1
                        heappush(self._due_changes, (moment, self._sequence, job))
