"""The companies of a world, which differ in size and reliability, and the jobs that they create.

Each company runs its jobs one at a time, oldest first. A job that waits or makes no progress for an hour expires.
After a failure people often try again. For about a week the accounting systems of some companies are unreachable.

The order of the random draws is part of the format: one draw more or less changes every world of every seed.
"""

import math
from bisect import bisect
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from heapq import heappop, heappush
from itertools import accumulate
from random import Random
from typing import NamedTuple

from pleo_extract.sandbox.chance import make_rng
from pleo_extract.sandbox.life import EXPIRY, NEVER, SECOND, Job, to_datetime

__all__ = ["Company", "CompanyQueue", "QueuedJob", "draw_companies", "draw_count", "draw_times", "draw_uuid"]

HOUR = 3600 * SECOND
DAY = 24 * HOUR
QUARTER = HOUR // 4
UPDATE_INTERVAL = 300 * SECOND
HOURLY_WEIGHTS = (1, 1, 1, 1, 1, 2, 6, 20, 60, 90, 100, 80, 50, 75, 90, 85, 60, 30, 12, 6, 4, 3, 2, 1)


class Reason(NamedTuple):
    """A kind of failure.

    Attributes:
        type: the contract's `failureReasonType`.
        share: how many of 1,000 failures are of this kind.
        seconds: the shortest and longest time until the job fails.
        text: the `failureReason`, with a number `n` and an account `a`.
    """

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
    """A company and its habits.

    Attributes:
        id: its UUID.
        share: its share of all jobs.
        failure_rate: the chance that a job fails.
        items: the median number of items of a job.
        median_seconds: the seconds that a job with `items` items runs, at median.
        system_share: the share of the jobs that no user starts.
        vendor_based: whether its bookkeeping is vendor-based.
        users: the ids of its users.
        in_outage: whether the outage reaches its accounting system.
    """

    id: str
    share: float
    failure_rate: float
    items: float
    median_seconds: float
    system_share: float
    vendor_based: bool
    users: tuple[str, ...]
    in_outage: bool


class QueuedJob(NamedTuple):
    """A job in the queue; sorts by creation, then by order of arrival.

    Attributes:
        created: microseconds since 1970.
        number: counts the jobs of the company.
        user: the user's id; None for the system.
        items: the number of items.
        attempt: 0 for the first attempt, 1 for the first retry.
        hangs: whether it never ends.
    """

    created: int
    number: int
    user: str | None
    items: int
    attempt: int = 0
    hangs: bool = False


def draw_uuid(rng: Random) -> str:
    """Return a random UUID, version 4."""
    digits = f"{rng.getrandbits(128):032x}"
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{'89ab'[int(digits[16], 16) & 3]}{digits[17:20]}-{digits[20:]}"


def draw_companies(count: int, *, seed: int, daily: float) -> tuple[Company, ...]:
    """Draw the companies of a world with `daily` jobs a day; sizes fall like 1/rank, reliability varies."""
    rng = make_rng(seed, "companies")
    sizes = [1 / (rank + 1) ** 1.1 for rank in range(count)]
    return tuple(_draw_company(rng, rank, size / sum(sizes), daily) for rank, size in enumerate(sizes))


def _draw_company(rng: Random, rank: int, share: float, daily: float) -> Company:
    # Jobs may fill at most half of the busiest hour. Otherwise the queue never empties and every job expires.
    available = 3600 * 8 / (6 * max(daily * share, 0.01))
    return Company(
        id=draw_uuid(rng),
        share=share,
        failure_rate=rng.choice((0.01, 0.02, 0.03, 0.05, 0.09)),
        items=math.exp(rng.gauss(3, 0.7)),
        median_seconds=min(math.exp(rng.gauss(4, 0.6)), available / 2),
        system_share=rng.uniform(0.1, 0.5),
        vendor_based=rng.random() < 0.4,
        users=tuple(draw_uuid(rng) for _ in range(rng.randint(1, 6))),
        in_outage=rank % 2 == 0,
    )


@lru_cache(maxsize=2**16)
def _hour_weight(start: int) -> float:
    # Every world of a year weighs the same 8,760 hours: three quarters of the time that a small one takes.
    moment = to_datetime(start)
    busy = HOURLY_WEIGHTS[moment.hour] * (0.12 if moment.weekday() >= 5 else 1.0)
    month_end = (moment + timedelta(days=2)).month != moment.month or moment.day <= 3
    return busy * (3.0 if month_end else 1.0)


def draw_times(rng: Random, since: int, until: int, count: int) -> Iterator[int]:
    """Draw `count` instants in (since, until], whole seconds, busier in office hours and at the end of a month."""
    slots = range(since, until, HOUR)
    bounds = list(accumulate(_hour_weight(slot) for slot in slots))
    for _ in range(count):
        slot = slots[min(bisect(bounds, rng.random() * bounds[-1]), len(slots) - 1)]
        yield min(slot + (1 + int(rng.random() * 3599)) * SECOND, until) // SECOND * SECOND


def draw_count(rng: Random, since: int, until: int, daily: float) -> int:
    """Draw the number of jobs created in (since, until] in a world with `daily` jobs on an average day."""
    weight = sum(_hour_weight(slot) for slot in range(since, until, HOUR))
    return int(daily * weight / AVERAGE_DAY_WEIGHT + rng.random())


AVERAGE_DAY_WEIGHT = (
    sum(_hour_weight(day * DAY + hour * HOUR) for day in range(365) for hour in range(24)) / 365
)


@dataclass(slots=True)
class CompanyQueue:
    """A company's queue: jobs arrive, wait and run one at a time. It keeps waiting jobs from day to day.

    Attributes:
        company: the company.
        seed: the seed of the world.
        outage: the start and end of the outage, microseconds since 1970.
        free_at: when the job that runs now ends.
        waiting: a heap of jobs not yet drawn.
        added: the number of jobs added so far.
    """

    company: Company
    seed: int
    outage: tuple[int, int]
    free_at: int = 0
    waiting: list[QueuedJob] = field(default_factory=list)
    added: int = 0
    rng: Random = field(init=False)

    def __post_init__(self) -> None:
        self.rng = make_rng(self.seed, self.company.id)

    def add(self, created: int, *, latest: int, hangs: bool = False) -> None:
        """Add a job, created no later than `latest`; 3 % of them come as two, created in the same second."""
        rng, company = self.rng, self.company
        user: str | None = company.users[int(rng.random() ** 2 * len(company.users))]
        if rng.random() < company.system_share:
            # The system exports on the quarter hour, so jobs of several companies share one createdAt.
            user, created = None, min(-(-created // QUARTER) * QUARTER, latest)
        items = int(math.exp(rng.gauss(math.log(company.items), 1.0)))
        self._enqueue(created, user, items, hangs=hangs)
        if rng.random() < 0.03:
            self._enqueue(created, user, 1 + items // 3)

    def run(self, until: int) -> Iterator[Job]:
        """Yield the jobs created up to `until`, in order of creation, each with its whole life."""
        while self.waiting and self.waiting[0].created <= until:
            yield self._draw_job(heappop(self.waiting))

    def _enqueue(
        self, created: int, user: str | None, items: int, *, attempt: int = 0, hangs: bool = False
    ) -> None:
        self.added += 1
        heappush(self.waiting, QueuedJob(created, self.added, user, items, attempt, hangs))

    def _draw_job(self, queued: QueuedJob) -> Job:
        rng = self.rng
        job = Job(
            id=draw_uuid(rng),
            company=self.company.id,
            created=queued.created,
            # The API no longer names a user who has left the company.
            created_by=None if rng.random() < 0.01 else queued.user,
            interactive=queued.user is not None,
            items=queued.items,
            vendor=self.company.vendor_based,
            listed_from=queued.created,
        )
        start = max(queued.created + (1 + int(rng.random() * 8)) * SECOND, self.free_at)
        if queued.hangs:
            job.updates = (start,) if rng.random() < 0.5 else ()
        elif start - queued.created >= EXPIRY:
            self._expire(job, queued.created)
        else:
            self._draw_run(job, start)
        self._retry(job, queued)
        return job

    def _draw_run(self, job: Job, start: int) -> None:
        rng, company = self.rng, self.company
        chance = rng.random()
        unreachable = company.in_outage and self.outage[0] <= start < self.outage[1] and rng.random() < 0.7
        if chance < 0.002:
            job.updates = _update_times(start, start + int(rng.random() * 900) * SECOND)
            self._expire(job, job.updates[-1])
        elif unreachable or chance < company.failure_rate:
            self._draw_failure(job, start, *((OUTAGE, OUTAGE_SHARES) if unreachable else (REASONS, SHARES)))
        else:
            size = (1 + job.items) / (1 + company.items)
            seconds = company.median_seconds * (0.4 + 0.6 * size) * math.exp(rng.gauss(0, 0.35))
            job.ended = start + max(1, min(int(seconds), 7200)) * SECOND
            job.outcome = (
                "completed_with_errors" if rng.random() < company.failure_rate * 1.5 else "completed"
            )
            job.updates = _update_times(start, job.ended)
        self.free_at = job.ended

    def _draw_failure(
        self, job: Job, start: int, reasons: tuple[Reason, ...], shares: tuple[int, ...]
    ) -> None:
        rng = self.rng
        reason = reasons[bisect(shares, rng.random() * shares[-1])]
        job.outcome, job.reason = "failed", reason.type
        job.text = reason.text.format(n=1 + int(rng.random() * 90), a=4000 + int(rng.random() * 3000))
        job.ended = start + rng.randint(*reason.seconds) * SECOND
        job.updates = _update_times(start, job.ended)

    def _expire(self, job: Job, updated: int) -> None:
        job.ended, job.outcome, job.reason = updated + EXPIRY, "failed", "job_expired"
        job.text = "The job expired" if self.rng.random() < 0.7 else None

    def _retry(self, job: Job, queued: QueuedJob) -> None:
        if job.ended == NEVER or job.outcome != "failed" or queued.attempt >= 5 or self.rng.random() > 0.6:
            return
        delay = (60 + int(self.rng.expovariate(1 / 900))) * SECOND
        self._enqueue(job.ended + delay, queued.user, queued.items, attempt=queued.attempt + 1)


def _update_times(start: int, end: int) -> tuple[int, ...]:
    return (start, *range(start + UPDATE_INTERVAL, end, UPDATE_INTERVAL))
