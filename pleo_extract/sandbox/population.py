"""Who exports and how it goes: companies of different size, habits and luck, and the jobs they make.

Each company works its jobs one at a time, oldest first; a job that waits or hangs for an hour expires; people
try again after a failure. For about a week the accounting system of some companies cannot be reached.
"""

import math
from bisect import bisect
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from heapq import heappop, heappush
from itertools import accumulate
from random import Random
from typing import NamedTuple

from pleo_extract.sandbox.chance import chance
from pleo_extract.sandbox.life import EXPIRY, NEVER, SECOND, Job, when

__all__ = ["Arrival", "Company", "Desk", "draw_companies", "draw_count", "draw_times", "draw_uuid"]

HOUR = 3600 * SECOND
DAY = 24 * HOUR
QUARTER = HOUR // 4
BEAT = 300 * SECOND
WORKDAY = (1, 1, 1, 1, 1, 2, 6, 20, 60, 90, 100, 80, 50, 75, 90, 85, 60, 30, 12, 6, 4, 3, 2, 1)


class Reason(NamedTuple):
    """A kind of failure: its share of 1,000 failures, how long it takes to show (seconds), what is said."""

    type: str
    share: int
    seconds: tuple[int, int]
    text: str


REASONS = (
    Reason("validation_failure", 260, (5, 90), "Entry {n}: account {a} is not open for posting"),
    Reason(
        "invalid_configuration", 110, (1, 8), "Tax code V{n} is mapped to no code in the accounting system"
    ),
    Reason("missing_configuration", 90, (1, 6), "No contra account is set for wallet {n}"),
    Reason("accounting_system_authentication_failure", 120, (2, 15), "401: the connection must be renewed"),
    Reason("accounting_system_rate_limit", 80, (20, 240), "429 Too Many Requests, retry in {n} s"),
    Reason("accounting_system_timeout", 80, (600, 900), "No answer to batch {n} within 600 s"),
    Reason("accounting_system_unreachable", 60, (30, 120), "Connection refused (attempt {n})"),
    Reason("service_unreachable", 35, (10, 60), "The export service did not answer"),
    Reason("service_timeout", 35, (300, 600), "Preparing {n} receipts took too long"),
    Reason("authentication_failure", 30, (1, 5), "The access token was rejected"),
    Reason("authorization_failure", 30, (1, 10), "User may not post to ledger {a}"),
    Reason("pleo_rate_limit", 20, (5, 60), "Rate limit reached, {n} requests left to do"),
    Reason("integration_unusable", 15, (1, 4), "The integration was disconnected; «reconnect» it in Pleo"),
    Reason("canceled_by_user", 35, (5, 300), "Canceled by the user"),
)
SHARES = tuple(accumulate(reason.share for reason in REASONS))
OUTAGE = tuple(r for r in REASONS if r.type.endswith("unreachable") or r.type == "accounting_system_timeout")
OUTAGE_SHARES = tuple(accumulate(reason.share for reason in OUTAGE))


@dataclass(frozen=True, slots=True)
class Company:
    """A company's habits. `share` of all jobs, `trouble` chance of failing, `pace` seconds a job at median."""

    id: str
    share: float
    trouble: float
    items: float
    pace: float
    system: float
    vendor: bool
    users: tuple[str, ...]
    hit: bool


class Arrival(NamedTuple):
    """A job as it is asked for: when, in which order, by whom, how big, the how manieth try, stuck or not."""

    created: int
    number: int
    user: str | None
    items: int
    tries: int = 0
    stuck: bool = False


def draw_uuid(luck: Random) -> str:
    """A random UUID of version 4."""
    digits = f"{luck.getrandbits(128):032x}"
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{'89ab'[int(digits[16], 16) & 3]}{digits[17:20]}-{digits[20:]}"


def draw_companies(count: int, *, seed: int, daily: float) -> tuple[Company, ...]:
    """The companies of a world that sees `daily` jobs a day: sizes fall off like 1/rank, reliability varies."""
    luck = chance(seed, "companies")
    sizes = [1 / (rank + 1) ** 1.1 for rank in range(count)]
    return tuple(_company(luck, rank, size / sum(sizes), daily) for rank, size in enumerate(sizes))


def _company(luck: Random, rank: int, share: float, daily: float) -> Company:
    # At most half of the busiest hour may be work, else the queue never empties and everything expires.
    rest = 3600 * 8 / (6 * max(daily * share, 0.01))
    return Company(
        id=draw_uuid(luck),
        share=share,
        trouble=luck.choice((0.01, 0.02, 0.03, 0.05, 0.09)),
        items=math.exp(luck.gauss(3, 0.7)),
        pace=min(math.exp(luck.gauss(4, 0.6)), rest / 2),
        system=luck.uniform(0.1, 0.5),
        vendor=luck.random() < 0.4,
        users=tuple(draw_uuid(luck) for _ in range(luck.randint(1, 6))),
        hit=rank % 2 == 0,
    )


def _weight(start: int) -> float:
    moment = when(start)
    busy = WORKDAY[moment.hour] * (0.12 if moment.weekday() >= 5 else 1.0)
    month_end = (moment + timedelta(days=2)).month != moment.month or moment.day <= 3
    return busy * (3.0 if month_end else 1.0)


def draw_times(luck: Random, since: int, until: int, count: int) -> Iterator[int]:
    """Instants in (since, until], whole seconds, that follow the rhythm of the week and the month."""
    slots = range(since, until, HOUR)
    bounds = list(accumulate(_weight(slot) for slot in slots))
    for _ in range(count):
        slot = slots[min(bisect(bounds, luck.random() * bounds[-1]), len(slots) - 1)]
        yield min(slot + (1 + int(luck.random() * 3599)) * SECOND, until) // SECOND * SECOND


def draw_count(luck: Random, since: int, until: int, daily: float) -> int:
    """How many jobs are asked for in a stretch of a world that sees `daily` on an average day."""
    weight = sum(_weight(slot) for slot in range(since, until, HOUR))
    return int(daily * weight / AVERAGE_DAY + luck.random())


AVERAGE_DAY = sum(_weight(day * DAY + hour * HOUR) for day in range(365) for hour in range(24)) / 365


@dataclass(slots=True)
class Desk:
    """A company's desk: jobs arrive, wait, are worked off one at a time. Remembers the queue between days."""

    company: Company
    seed: int
    outage: tuple[int, int]
    free: int = 0
    queue: list[Arrival] = field(default_factory=list)
    arrived: int = 0
    luck: Random = field(init=False)

    def __post_init__(self) -> None:
        self.luck = chance(self.seed, self.company.id)

    def take(self, created: int, *, latest: int, stuck: bool = False) -> None:
        """Queue a new job by `latest`, and sometimes its twin of the same second: two exports, one click."""
        luck, company = self.luck, self.company
        user: str | None = company.users[int(luck.random() ** 2 * len(company.users))]
        if luck.random() < company.system:
            # The system's own exports run on the quarter hour, so that companies collide.
            user, created = None, min(-(-created // QUARTER) * QUARTER, latest)
        items = int(math.exp(luck.gauss(math.log(company.items), 1.0)))
        self._put(created, user, items, stuck=stuck)
        if luck.random() < 0.03:
            self._put(created, user, 1 + items // 3)

    def work(self, until: int) -> Iterator[Job]:
        """The jobs created up to `until`, in order of creation, each with its whole life."""
        while self.queue and self.queue[0].created <= until:
            yield self._serve(heappop(self.queue))

    def _put(
        self, created: int, user: str | None, items: int, *, tries: int = 0, stuck: bool = False
    ) -> None:
        self.arrived += 1
        heappush(self.queue, Arrival(created, self.arrived, user, items, tries, stuck))

    def _serve(self, arrival: Arrival) -> Job:
        luck = self.luck
        job = Job(
            id=draw_uuid(luck),
            company=self.company.id,
            created=arrival.created,
            # A user who has left the company is no longer named.
            created_by=None if luck.random() < 0.01 else arrival.user,
            interactive=arrival.user is not None,
            items=arrival.items,
            vendor=self.company.vendor,
            born=arrival.created,
        )
        start = max(arrival.created + (1 + int(luck.random() * 8)) * SECOND, self.free)
        if arrival.stuck:
            job.beats = (start,) if luck.random() < 0.5 else ()
        elif start - arrival.created >= EXPIRY:
            self._expire(job, arrival.created)
        else:
            self._run(job, start)
        self._retry(job, arrival)
        return job

    def _run(self, job: Job, start: int) -> None:
        luck, company = self.luck, self.company
        fate = luck.random()
        shaken = company.hit and self.outage[0] <= start < self.outage[1] and luck.random() < 0.7
        if fate < 0.002:
            job.beats = _beats(start, start + int(luck.random() * 900) * SECOND)
            self._expire(job, job.beats[-1])
        elif shaken or fate < company.trouble:
            self._fail(job, start, *((OUTAGE, OUTAGE_SHARES) if shaken else (REASONS, SHARES)))
        else:
            size = (1 + job.items) / (1 + company.items)
            seconds = company.pace * (0.4 + 0.6 * size) * math.exp(luck.gauss(0, 0.35))
            job.ended = start + max(1, min(int(seconds), 7200)) * SECOND
            job.outcome = "completed_with_errors" if luck.random() < company.trouble * 1.5 else "completed"
            job.beats = _beats(start, job.ended)
        self.free = job.ended

    def _fail(self, job: Job, start: int, reasons: tuple[Reason, ...], shares: tuple[int, ...]) -> None:
        luck = self.luck
        reason = reasons[bisect(shares, luck.random() * shares[-1])]
        job.outcome, job.reason = "failed", reason.type
        job.text = reason.text.format(n=1 + int(luck.random() * 90), a=4000 + int(luck.random() * 3000))
        job.ended = start + luck.randint(*reason.seconds) * SECOND
        job.beats = _beats(start, job.ended)

    def _expire(self, job: Job, updated: int) -> None:
        job.ended, job.outcome, job.reason = updated + EXPIRY, "failed", "job_expired"
        job.text = "The job expired" if self.luck.random() < 0.7 else None

    def _retry(self, job: Job, arrival: Arrival) -> None:
        if job.ended == NEVER or job.outcome != "failed" or arrival.tries >= 5 or self.luck.random() > 0.6:
            return
        delay = (60 + int(self.luck.expovariate(1 / 900))) * SECOND
        self._put(job.ended + delay, arrival.user, arrival.items, tries=arrival.tries + 1)


def _beats(start: int, end: int) -> tuple[int, ...]:
    return (start, *range(start + BEAT, end, BEAT))
