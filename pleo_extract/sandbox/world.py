"""The moving world behind the sandbox: companies whose jobs are created, start and end as its clock goes on.

The same arguments give the same world everywhere. The clock moves only when told to. An intervention
(`insert`, `change`, `remove`) moves it by one microsecond, so that before and after can be told apart.
"""

from bisect import insort
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from heapq import heappop, heappush
from operator import attrgetter
from threading import RLock
from typing import Any, NamedTuple

from pleo_extract.sandbox.chance import chance
from pleo_extract.sandbox.life import NEVER, SECOND, Job, instant, stamp, when
from pleo_extract.sandbox.oracle import CollectedRows, Discrepancy, find_discrepancies
from pleo_extract.sandbox.population import DAY, Desk, draw_companies, draw_count, draw_times, draw_uuid
from pleo_extract.sandbox.view import Selection, View

__all__ = ["Intervention", "World"]

VIEWS_KEPT = 16


class Intervention(NamedTuple):
    """What a test did to the world: at which instant (UTC), what, to which job."""

    at: datetime
    kind: str
    company: str
    id: str


class World:
    """A seeded world with exactly `jobs` jobs listed at `now`, created in the `days` before it, and more to come.

    `companies` is the tuple of their ids, the largest first; `outage` the week (UTC, from and until) in which
    every second company's accounting system could not be reached; `interventions` what was done from outside.
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
        self.lock = RLock()
        self.interventions: list[Intervention] = []
        self._t = instant(now)
        self._luck = chance(seed, "world")
        self._daily = jobs / days
        drawn = draw_companies(companies, seed=seed, daily=self._daily)
        self.companies = tuple(company.id for company in drawn)
        start = self._t - days * DAY
        began = start + days * DAY * 2 // 5
        ceased = began + min(7 * DAY, days * DAY // 10)
        self.outage = (when(began), when(ceased))
        self._desks = [Desk(company, seed, (began, ceased)) for company in drawn]
        self._shares = [company.share for company in drawn]
        self._horizon = self._t
        self._jobs = self._history(start, jobs)
        self._due: list[tuple[int, int, Job]] = []
        self._drawn = 0
        self._log: list[Job] = []
        self._views: OrderedDict[Selection, View] = OrderedDict()
        self._owned: dict[str, list[Job]] = {}
        self._counted = 0
        self._schedule(self._jobs)
        self._draw_ahead()

    @property
    def now(self) -> datetime:
        """The world's clock, UTC."""
        return when(self._t)

    @property
    def t(self) -> int:
        """The world's clock in microseconds since 1970."""
        return self._t

    def advance(self, seconds: float) -> datetime:
        """Move the clock on by `seconds`; jobs are created, start, end and expire meanwhile."""
        if seconds < 0:
            raise ValueError("time goes forward only")
        with self.lock:
            self._t += round(seconds * SECOND)
            self._draw_ahead()
            while self._due and self._due[0][0] <= self._t:
                self._log.append(heappop(self._due)[2])
            return self.now

    def view(self, selection: Selection) -> View:
        """The selection's jobs in order, as of now. Hold `lock` while reading it."""
        with self.lock:
            view = self._views.pop(selection, None)
            if view is None:
                view = View(selection, self._jobs_of(selection.companies), self._t, len(self._log))
            for job in self._log[view.read :]:
                view.place(job, self._t)
            view.read = len(self._log)
            self._views[selection] = view
            if len(self._views) > VIEWS_KEPT:
                self._views.popitem(last=False)
            return view

    def job(self, id: str, company: str | None = None) -> dict[str, Any]:  # noqa: A002 - the contract's name
        """The job's record as of now, listed or not. Raises KeyError for an id that was never drawn."""
        return self._find(id, company).at(self._t)

    def visible(self) -> list[dict[str, Any]]:
        """The records listed now, oldest first."""
        return self.truth()

    def truth(self, at: datetime | None = None) -> list[dict[str, Any]]:
        """The records listed at an instant (UTC, now by default; no later than a day from now), oldest first."""
        t = self._t if at is None else instant(at)
        return [job.at(t) for job in self._jobs if job.exists(t)]

    def discrepancies(
        self, rows: Iterable[Mapping[str, Any]] | Mapping[Any, Mapping[str, Any]], walk: CollectedRows
    ) -> list[Discrepancy]:
        """What is wrong with the rows that a walk collected: missing, double, foreign, of a foreign version."""
        with self.lock:
            return find_discrepancies(self._jobs, rows, walk, until=self._t)

    def remove(self, id: str, company: str | None = None) -> None:  # noqa: A002
        """Delete a job at the server."""
        with self.lock:
            job = self._find(id, company)
            job.gone = self._intervene("remove", job)

    def change(self, id: str, company: str | None = None, **fields: Any) -> dict[str, Any]:  # noqa: A002
        """Let a job, terminal or not, have other values from now on, by the contract's names; gives the record."""
        with self.lock:
            job = self._find(id, company)
            job.changes.append((self._intervene("change", job), fields))
            return job.at(self._t)

    def move(self, id: str, created: datetime, company: str | None = None) -> dict[str, Any]:  # noqa: A002
        """Let a job have another `createdAt` from now on, and stand there in the list; gives the record."""
        return self.change(id, company, createdAt=stamp(instant(created)))

    def insert(
        self,
        created: datetime,
        *,
        id: str | None = None,  # noqa: A002
        company: str | None = None,
        **fields: Any,
    ) -> dict[str, Any]:
        """List a job from now on that was created earlier and is completed, but for `fields`; gives the record."""
        with self.lock:
            owner, moment = company or self.companies[0], instant(created)
            job = Job(
                id=id or draw_uuid(chance("insert", self._t)),
                company=owner,
                created=moment,
                created_by=None,
                interactive=False,
                items=1,
                vendor=False,
                born=NEVER,
                beats=(moment + SECOND,),
                ended=moment + 60 * SECOND,
            )
            if any(other.id == job.id and other.company == owner for other in self._jobs):
                raise ValueError(f"the company has a job {job.id} already")
            insort(self._jobs, job, key=attrgetter("created"))
            job.born = self._intervene("insert", job)
            job.changes = [(job.born, fields)] if fields else []
            return job.at(self._t)

    def _jobs_of(self, companies: frozenset[str] | None) -> Iterable[Job]:
        """All jobs that were drawn for these companies, found without going through those of all."""
        if companies is None:
            return self._jobs
        if self._counted != len(self._jobs):
            self._owned, self._counted = {}, len(self._jobs)
            for job in self._jobs:
                self._owned.setdefault(job.company, []).append(job)
        return (job for company in companies for job in self._owned.get(company, ()))

    def _find(self, id: str, company: str | None) -> Job:  # noqa: A002
        for job in self._jobs:
            if job.id == id and company in (None, job.company):
                return job
        raise KeyError(id)

    def _intervene(self, kind: str, job: Job) -> int:
        self.advance(1 / SECOND)
        self.interventions.append(Intervention(self.now, kind, job.company, job.id))
        self._log.append(job)
        return self._t

    def _history(self, start: int, count: int) -> list[Job]:
        """Exactly `count` jobs up to the horizon: drawn with retries and twins, then thinned out."""
        if not count:
            return []
        luck = self._luck
        times = sorted(draw_times(luck, start, self._t, count))
        # Some jobs hang for ever; not among the last, which may still move.
        hung = set(luck.sample(range(count * 9 // 10), count // 3000 + (count >= 100) * 2))
        owners = luck.choices(self._desks, self._shares, k=count)
        for number, (created, desk) in enumerate(zip(times, owners, strict=True)):
            desk.take(created, latest=self._t, stuck=number in hung)
        jobs = list(self._worked())
        plain = [
            number for number, job in enumerate(jobs) if job.outcome == "completed" and job.ended < NEVER
        ]
        surplus = len(jobs) - count
        dropped = set(luck.sample(plain, surplus) if surplus <= len(plain) else range(surplus))
        return [job for number, job in enumerate(jobs) if number not in dropped]

    def _worked(self) -> Iterator[Job]:
        jobs = [job for desk in self._desks for job in desk.work(self._horizon)]
        jobs.sort(key=attrgetter("created", "company"))
        yield from jobs

    def _draw_ahead(self) -> None:
        """Draw whole days, so that the future does not depend on the steps in which it is reached."""
        while self._daily and self._horizon < self._t + DAY:
            since, self._horizon = self._horizon, self._horizon + DAY
            count = draw_count(self._luck, since, self._horizon, self._daily)
            for created in sorted(draw_times(self._luck, since, self._horizon, count)):
                (desk,) = self._luck.choices(self._desks, self._shares)
                desk.take(created, latest=self._horizon)
            fresh = list(self._worked())
            self._jobs += fresh
            self._schedule(fresh)
            self._log += [
                job for job in fresh if job.born <= self._t
            ]  # a leap of days: they are here already

    def _schedule(self, jobs: Iterable[Job]) -> None:
        for job in jobs:
            if job.born > self._t or job.ended > self._t:
                for moment in job.moments():
                    if moment > self._t:
                        self._drawn += 1
                        heappush(self._due, (moment, self._drawn, job))
